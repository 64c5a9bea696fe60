// How many connections linger, and whose they are: areas, one on the other.

/** The layers, the worst culprit at the bottom. */
const layers = (() => {
  const named = data.culprits.slice(0, COLOURED).map((culprit, place) => ({
    kind: culpritClass(place),
    name: culprit.title,
    values: counts(culprit.lingering),
  }));
  const rest = data.culprits.slice(COLOURED);
  const more = rest.length + data.others.culprits;
  if (more > 0) {
    const lists = [
      ...rest.map((culprit) => counts(culprit.lingering)),
      counts(data.others.lingering),
    ];
    named.push({ kind: "others", name: plural(more, "other culprit"), values: sum(lists) });
  }
  return named;
})();

const lingering = sum(layers.map((layer) => layer.values));
/** The most in CLOSE_WAIT at once, whether they linger or not; null if that was not recorded. */
const inCloseWait = data.totals.findings_only ? null : counts(line.close_wait);

function stackPlot() {
  const all = Math.max(0, ...lingering);
  const most = Math.max(0, ...(inCloseWait ?? []));
  return timePlot({
    id: "stack",
    title: "Lingering connections",
    label: `Lingering connections over time, at most ${grouped(all)}. ${lossNote() ?? ""}`,
    notes: [
      el(
        "p",
        null,
        `In CLOSE_WAIT, or gone with the fd still open, from the moment that began. After ${duration(
          data.linger_ns,
        )} each is a finding.`,
      ),
      el(
        "ul",
        { class: "key" },
        [...layers].reverse().map(keyItem),
        inCloseWait &&
          keyItem({ kind: "passing", name: `all in CLOSE_WAIT, at most ${grouped(most)}` }),
        gaps.length > 0 &&
          el(
            "li",
            null,
            el("span", { class: "chip lost" }),
            el("span", null, "something was lost"),
          ),
      ),
      inCloseWait &&
        line.uncertain &&
        el(
          "p",
          null,
          "All in CLOSE_WAIT are those that were seen: some changes were lost or not shown.",
        ),
    ],
    height: (width) => (all === 0 ? 120 : width < 750 ? 200 : 260),
    draw: drawStack,
    tell: tellStack,
    table: stackTable(),
  });
}

/** A name that shows where it is in the charts. */
function keyItem({ kind, name }) {
  const mark = () => {
    document.body.dataset.mark = kind;
  };
  const unmark = () => {
    delete document.body.dataset.mark;
  };
  return el(
    "li",
    { onmouseenter: mark, onmouseleave: unmark },
    el("span", { class: `chip ${kind}` }),
    el("span", null, name),
  );
}

function drawStack(canvas, scale) {
  // Of several buckets that share a column, the one with the most.
  const list = columns(scale, 1.5).map((column) => {
    let bucket = column.begin;
    for (let at = column.begin; at < column.end; at += 1) {
      if (lingering[at] > lingering[bucket]) bucket = at;
    }
    return { ...column, bucket, envelope: inCloseWait ? most(inCloseWait, column) : 0 };
  });
  const highest = Math.max(
    0,
    ...list.map(({ bucket, envelope }) => Math.max(lingering[bucket], envelope)),
  );
  const { top, lines } = roundTop(highest);
  const y = (count) => scale.height - (count / top) * scale.height;
  const clamped = (t) => Math.min(Math.max(scale.x(t), -2), scale.width + 2);
  const base = new Float64Array(list.length);
  const labels = lines.map((count) => levelLabel(count, y(count), scale));
  canvas.append(
    ...lines.map((count) =>
      svg("line", { class: "level", x1: 0, x2: scale.width, y1: y(count), y2: y(count) }),
    ),
  );
  if (inCloseWait) {
    const above = list.map(({ envelope }) => y(envelope));
    canvas.append(
      svg("path", {
        class: "layer passing",
        d: area(
          list,
          above,
          list.map(() => y(0)),
          clamped,
        ),
      }),
    );
  }
  for (const layer of layers) {
    const below = list.map((_, i) => y(base[i]));
    list.forEach(({ bucket }, i) => {
      base[i] += layer.values[bucket];
    });
    const above = list.map((_, i) => y(base[i]));
    canvas.append(
      svg("path", { class: `layer ${layer.kind}`, d: area(list, above, below, clamped) }),
    );
    labels.push(...areaLabel(layer, list, above, below, clamped));
  }
  canvas.append(
    svg("line", {
      class: "base",
      x1: 0,
      x2: scale.width,
      y1: scale.height - 0.5,
      y2: scale.height - 0.5,
    }),
    ...labels,
    ...gapLabels(scale),
  );
  if (highest === 0) {
    canvas.append(
      svg(
        "text",
        { class: "nothing", x: scale.width / 2, y: scale.height / 2, "text-anchor": "middle" },
        "nothing lingered",
      ),
    );
  }
}

/** What a line stands for: left of the chart, or in it where that is all the room there is. */
function levelLabel(count, y, { margin }) {
  return margin
    ? svg("text", { class: "level", x: -7, y: y + 4, "text-anchor": "end" }, grouped(count))
    : svg("text", { class: "level", x: 2, y: Math.max(y - 4, 11) }, grouped(count));
}

/** How much was lost, beside the gaps, unless they are too many. */
function gapLabels(scale) {
  const seen = gaps.filter((gap) => gap.from <= scale.to && gap.to >= scale.from);
  if (seen.length > 5) return [];
  return seen.map((gap) => {
    const before = scale.x(gap.to) > scale.width - 150;
    const x = before ? scale.x(gap.from) - 6 : Math.max(scale.x(gap.to), scale.x(gap.from) + 4) + 6;
    return svg(
      "text",
      { class: "lost", x, y: 11, "text-anchor": before ? "end" : "start" },
      gap.short,
    );
  });
}

/** Steps above, and back along the steps below. */
function area(list, above, below, x) {
  const forth = list.flatMap(({ from, to }, i) => [
    `${x(from)},${above[i]}`,
    `${x(to)},${above[i]}`,
  ]);
  const back = list
    .map(({ from, to }, i) => `${x(to)},${below[i]}L${x(from)},${below[i]}`)
    .reverse();
  return `M${forth.join("L")}L${back.join("L")}Z`;
}

/** A layer's name, where it is thickest for as long as the name is. */
function areaLabel(layer, list, above, below, x) {
  const wide = layer.name.length * 6.7 + 12;
  for (const tall of [64, 48, 36, 26, 17]) {
    const place = longestRun(list, above, below, x, tall);
    if (place.width < wide) continue;
    return [
      svg(
        "text",
        { class: `inside ${layer.kind}`, x: place.middle, y: place.y + 4, "text-anchor": "middle" },
        layer.name,
      ),
    ];
  }
  return [];
}

/** The longest part of a layer in which a level band of this height fits. */
function longestRun(list, above, below, x, tall) {
  let best = { width: 0 };
  for (let from = 0; from < list.length; from += 1) {
    let [floor, roof] = [Infinity, -Infinity];
    for (let to = from; to < list.length; to += 1) {
      floor = Math.min(floor, below[to]);
      roof = Math.max(roof, above[to]);
      if (floor - roof < tall) break;
      const [begin, end] = [x(list[from].from), x(list[to].to)];
      if (end - begin > best.width)
        best = { width: end - begin, middle: (begin + end) / 2, y: (floor + roof) / 2 };
    }
  }
  return best;
}

function tellStack(t, scale) {
  const bucket = bucketAt(t);
  const gap = gapAt(t, scale);
  const rows = [...layers]
    .reverse()
    .filter((layer) => layer.values[bucket] > 0)
    .map((layer) => tipRow(layer.kind, layer.name, grouped(layer.values[bucket])));
  return [
    el("p", { class: "when" }, stamp(wall(t), "ms")),
    gap && el("p", { class: "warn" }, gap.text),
    rows.length > 0 ? rows : el("p", null, "nothing lingers"),
    inCloseWait && tipRow("passing", "all in CLOSE_WAIT, at most", grouped(inCloseWait[bucket])),
  ];
}

function stackTable() {
  const wholly = { from: 0, to: span, width: 12 };
  const rows = columns(wholly, 1).map((column) => [
    moment(Math.max(column.from, 0), "s"),
    ...layers.map((layer) => grouped(most(layer.values, column))),
    ...(inCloseWait ? [grouped(most(inCloseWait, column))] : []),
    gaps.some((gap) => gap.from >= column.from && gap.from < column.to) ? "yes" : "",
  ]);
  return asTable(
    "The most at the end of any bucket of time, from each moment on",
    [
      ["From", false],
      ...layers.map((layer) => [layer.name, true]),
      ...(inCloseWait ? [["All in CLOSE_WAIT", true]] : []),
      ["Lost something", false],
    ],
    rows,
  );
}
