// Connections opened, upwards, and closed, downwards.

function ratePlot() {
  if (data.totals.findings_only) return null;
  const { totals, rates } = data;
  const failed = totals.failed > 0 ? `, ${grouped(totals.failed)} of them never established` : "";
  const width = el("p", null);
  return timePlot({
    id: "rate",
    title: "Connections",
    label: `${plural(totals.opened, "connection")} opened and ${grouped(totals.closed)} closed over time. ${
      lossNote() ?? ""
    }`,
    notes: [
      el(
        "p",
        null,
        `${grouped(totals.opened)} opened, ${rate(rates.opened_mean)} per second, at most ${grouped(
          rates.opened_peak,
        )}; ${grouped(totals.closed)} closed${failed}.`,
      ),
      width,
    ],
    height: () => 130,
    draw: (canvas, scale) => {
      width.textContent = `A bar is ${duration(drawRate(canvas, scale) * 1e3)}.`;
    },
    tell: tellRate,
    table: rateTable(),
  });
}

const total = (values, { begin, end }) =>
  values.slice(begin, end).reduce((sum, count) => sum + count, 0);

/** Draws the bars, and returns how wide each is, µs. */
function drawRate(canvas, scale) {
  const bars = columns(scale, 5).map((column) => ({
    ...column,
    opened: total(line.opened, column),
    closed: total(line.closed, column),
  }));
  const highest = Math.max(1, ...bars.map(({ opened, closed }) => Math.max(opened, closed)));
  const middle = scale.height / 2;
  const unit = (middle - 14) / highest;
  for (const { from, to, opened, closed } of bars) {
    const x = scale.x(from);
    const width = Math.max(scale.x(to) - x - 1, 1);
    if (opened > 0)
      canvas.append(
        svg("rect", {
          class: "opened",
          x,
          width,
          y: middle - opened * unit,
          height: opened * unit,
        }),
      );
    if (closed > 0)
      canvas.append(svg("rect", { class: "closed", x, width, y: middle, height: closed * unit }));
  }
  canvas.append(
    svg("line", { class: "base", x1: 0, x2: scale.width, y1: middle, y2: middle }),
    svg(
      "text",
      { class: "level", x: 2, y: 10 },
      `opened, at most ${grouped(Math.max(0, ...bars.map((b) => b.opened)))} a bar`,
    ),
    svg("text", { class: "level", x: 2, y: scale.height - 3 }, "closed"),
  );
  return (bars[0].end - bars[0].begin) * line.width;
}

function tellRate(t, scale) {
  const column = columns(scale, 5).findLast(({ from }) => from <= t) ?? {
    begin: 0,
    end: 1,
    from: 0,
  };
  const gap = gapAt(t, scale);
  const established = most(counts(line.established), column);
  return [
    el(
      "p",
      { class: "when" },
      `${stamp(wall(Math.max(column.from, 0)), "ms")}, ${duration(
        (column.end - column.begin) * line.width * 1e3,
      )}`,
    ),
    gap && el("p", { class: "warn" }, gap.text),
    tipRow("opened", "opened", grouped(total(line.opened, column))),
    tipRow("closed", "closed", grouped(total(line.closed, column))),
    tipRow(null, "ESTABLISHED, at most", grouped(established)),
  ];
}

function rateTable() {
  const wholly = { from: 0, to: span, width: 12 };
  const established = counts(line.established);
  return asTable(
    "Connections from each moment on",
    [
      ["From", false],
      ["Opened", true],
      ["Closed", true],
      ["ESTABLISHED at most", true],
    ],
    columns(wholly, 1).map((column) => [
      moment(Math.max(column.from, 0), "s"),
      grouped(total(line.opened, column)),
      grouped(total(line.closed, column)),
      grouped(most(established, column)),
    ]),
  );
}
