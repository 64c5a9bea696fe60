// The life of each finding's connection: a lane each, below their culprit.

const LANE = 17;
const HEAD = 30;
/** Lanes of a culprit, unless all are asked for, and lanes in all then. */
const FEW = 6;
const MANY = 500;

const lanes = { all: false, rows: [], chosen: null };

function lanePlot() {
  if (findings.length === 0) return null;
  layLanes();
  const shown = () => lanes.rows.filter((row) => row.finding).length;
  const note = el("p", null);
  const tellShown = () => {
    note.textContent =
      shown() < findings.length
        ? `${grouped(shown())} of ${plural(findings.length, "listed finding")}: of each culprit those that lingered longest.`
        : `${plural(findings.length, "finding")}, by culprit.`;
  };
  const more = el(
    "button",
    {
      type: "button",
      "aria-pressed": "false",
      onclick: () => {
        lanes.all = !lanes.all;
        more.setAttribute("aria-pressed", String(lanes.all));
        layLanes();
        tellShown();
        redraw();
      },
    },
    `Show ${findings.length > MANY ? grouped(MANY) : "all"} lanes`,
  );
  tellShown();
  return timePlot({
    id: "lanes",
    title: "Findings",
    label: `${plural(findings.length, "finding")} over time, a lane each; the table of findings has the same.`,
    notes: [note, stateKey(), shown() < findings.length ? more : null],
    height: () => lanes.rows.at(-1).y + LANE + 6,
    draw: drawLanes,
    tell: (t, scale, y) => tellLane(t, scale, y),
    key: laneKey,
  });
}

function stateKey() {
  const items = [
    ["established", "connected"],
    ["waiting", "CLOSE_WAIT"],
    ["finding", "CLOSE_WAIT, found"],
    ["dead", "gone, fd still open"],
  ];
  return el(
    "ul",
    { class: "key" },
    items.map(([kind, name]) =>
      el("li", null, el("span", { class: `chip ${kind}` }), el("span", null, name)),
    ),
  );
}

/** Rows: a title for each culprit, and its findings by when they began. */
function layLanes() {
  const rows = [];
  let y = 0;
  let room = lanes.all ? MANY : Infinity;
  data.culprits.forEach((culprit, place) => {
    const ours = findings.filter((f) => f.culprit === place);
    const taken = ours.slice(0, Math.min(lanes.all ? room : FEW, room));
    if (taken.length === 0 || (!lanes.all && place >= 2 * COLOURED)) return;
    room -= taken.length;
    rows.push({ y, place, title: culprit.title, opened: culprit.opened });
    y += HEAD;
    taken.sort((a, b) => a.since - b.since);
    for (const finding of taken) {
      rows.push({ y, finding });
      y += LANE;
    }
    y += 8;
  });
  lanes.rows = rows;
  lanes.chosen = null;
}

function drawLanes(canvas, scale) {
  for (const row of lanes.rows) {
    if (row.finding) drawLane(canvas, scale, row);
    else {
      canvas.append(
        svg("rect", {
          class: `chip ${culpritClass(row.place)}`,
          x: 0,
          y: row.y + 11,
          width: 10,
          height: 10,
          rx: 2,
        }),
        svg(
          "text",
          { class: "head", x: 16, y: row.y + 20 },
          row.title,
          scale.width > 500 &&
            svg("tspan", { class: "soft", dx: 8 }, plural(row.opened, "finding")),
        ),
      );
    }
  }
}

function drawLane(canvas, scale, { y, finding: f }) {
  const x = (t) => Math.min(Math.max(scale.x(t), -3), scale.width + 3);
  const end = f.until ?? span;
  const middle = y + LANE / 2;
  const group = svg("g", {
    class: `lane ${culpritClass(f.culprit)}${lanes.chosen === f ? " chosen" : ""}`,
  });
  const bar = (kind, from, to, tall) => {
    if (to < scale.from || from > scale.to || to < from) return;
    const width = Math.max(x(to) - x(from), 1.5);
    group.append(
      svg("rect", {
        class: kind,
        x: x(from),
        y: middle - tall / 2,
        width,
        height: tall,
        rx: tall > 4 ? 1.5 : 0,
      }),
    );
  };
  if (f.born !== undefined) bar("established", f.born, f.since, 2);
  const dies = f.died ?? end;
  const found = Math.min(f.found ?? f.since, dies);
  bar("waiting", f.since, found, 9);
  bar("finding", found, dies, 9);
  if (f.died !== undefined) bar("dead", f.died, end, 9);
  group.append(
    ...endMark(f, x(end), middle),
    ...laneLabel(
      f,
      [f.born ?? f.since, f.died === undefined ? found : end, end].map(x),
      scale.width,
      middle,
    ),
  );
  if (lanes.chosen === f) {
    group.prepend(svg("rect", { class: "choice-mark", x: 0, y, width: scale.width, height: LANE }));
  }
  canvas.append(group);
}

/** How it ended: a bar across if it was closed, an arrow if it goes on. */
function endMark(f, x, y) {
  if (f.open) return [svg("path", { class: "goes-on", d: `M${x - 6},${y - 6}l6,6l-6,6` })];
  return [svg("line", { class: "ends", x1: x, x2: x, y1: y - 6.5, y2: y + 6.5 })];
}

/** Which, for how long, and how it ended: beside the bar where there is room, or else in the part
 * from where it was found. */
function laneLabel(f, [born, found, to], width, y) {
  const fd = /^[^,]*\b(fd \d+)$/.exec(f.holders ?? "")?.[1];
  const text = [fd, lingered(f.linger_ns, f.at_least), endWord(f)].filter(Boolean).join(", ");
  const room = text.length * 6 + 14;
  const at = (x, anchor) => [
    svg("text", { class: "lane", x, y: y + 3.5, "text-anchor": anchor }, text),
  ];
  if (to < 0 || born > width) return [];
  if (width - to > room) return at(to + 7, "start");
  if (born > room) return at(born - 7, "end");
  if (to - found < room + 20) return [];
  const behind = { class: "behind", x: to - room - 2, y: y - 5, width: room - 8, height: 10 };
  return [svg("rect", behind), ...at(to - 16, "end")];
}

function laneAt(y) {
  return lanes.rows.findLast((row) => row.y <= y && y < row.y + (row.finding ? LANE : HEAD));
}

function tellLane(t, scale, y) {
  const row = laneAt(y);
  const gap = gapAt(t, scale);
  const when = [
    el("p", { class: "when" }, stamp(wall(t), "ms")),
    gap && el("p", { class: "warn" }, gap.text),
  ];
  if (!row) return when;
  return [
    ...when,
    row.finding ? aboutFinding(row.finding) : el("p", null, el("b", null, row.title)),
  ];
}

/** Up and down choose a lane, Enter opens it in the table. */
function laneKey(key) {
  const list = lanes.rows.filter((row) => row.finding);
  const at = list.findIndex((row) => row.finding === lanes.chosen);
  if (key === "Enter" && lanes.chosen) {
    openFinding(lanes.chosen);
    return true;
  }
  const to = { ArrowUp: Math.max(at - 1, 0), ArrowDown: Math.min(at + 1, list.length - 1) }[key];
  if (to === undefined) return false;
  const row = list[to];
  lanes.chosen = row.finding;
  redrawNow();
  const { frame, scale } = plots.find((plot) => plot.frame.closest("#lanes"));
  const box = frame.getBoundingClientRect();
  const end = Math.min(Math.max(scale.x(row.finding.until ?? span), 0), box.width * 0.6);
  const about = aboutFinding(row.finding);
  showTip(box.left + end, box.top + row.y, about);
  say(about.map((node) => node.textContent).join(". "));
  return true;
}
