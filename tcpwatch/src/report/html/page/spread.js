// How long connections were in CLOSE_WAIT, and how long they lived: bars on a log scale, a row for
// each length.

function spreadSection() {
  if (!data.spreads) return null;
  const { close_wait: dwell, lifetime } = data.spreads;
  const froms = [...dwell.steps, ...lifetime.steps].map((step) => step.from_ns);
  if (froms.length === 0) return null;
  const [first, last] = [Math.min(...froms), Math.max(...froms)];
  const known = new Map([...lifetime.steps, ...dwell.steps].map((step) => [step.from_ns, step]));
  const steps = [...known.values()]
    .sort((a, b) => a.from_ns - b.from_ns)
    .filter((step) => step.from_ns >= first && step.from_ns <= last);
  const of = (spread) => new Map(spread.steps.map((step) => [step.from_ns, step]));
  const [dwells, lives] = [of(dwell), of(lifetime)];
  const longest = Math.max(
    1,
    ...[...known.values(), ...lifetime.steps].map((s) => s.count + (s.still ?? 0)),
  );
  const rows = steps.map((step) =>
    spreadRow(step, dwells.get(step.from_ns), lives.get(step.from_ns), longest),
  );
  const at = steps.findIndex((step) => step.to_ns === null || step.to_ns > data.linger_ns);
  if (at >= 0) {
    rows.splice(
      at,
      0,
      el(
        "tr",
        { class: "threshold" },
        el(
          "th",
          { colspan: 3, scope: "rowgroup" },
          `what is in CLOSE_WAIT for ${duration(data.linger_ns)} is a finding`,
        ),
      ),
    );
  }
  const loss = lossNote();
  return section(
    "spread",
    "How long it took",
    ["Bars are on a log scale. ", loss && el("span", { class: "lossy" }, loss)],
    el(
      "table",
      { class: "spread" },
      el(
        "caption",
        { class: "unseen" },
        "Connections by how long they were in CLOSE_WAIT and how long they lived",
      ),
      el(
        "thead",
        null,
        el(
          "tr",
          null,
          el("th", { scope: "col" }, "Between"),
          el("th", { scope: "col" }, "In CLOSE_WAIT", el("small", null, quantiles(dwell.all))),
          el(
            "th",
            { scope: "col" },
            "From first to last",
            el("small", null, quantiles(lifetime.all)),
          ),
        ),
      ),
      el("tbody", null, rows),
    ),
  );
}

function quantiles(all) {
  if (!all) return "none was seen to end";
  if (all.count === 1) return `1, for ${duration(all.max_ns)}`;
  return `${grouped(all.count)}: half up to ${duration(all.p50.ns)}, 99 % up to ${duration(all.p99.ns)}, the longest ${duration(
    all.max_ns,
  )}`;
}

function spreadRow(step, dwell, life, longest) {
  const lingers = step.to_ns === null || step.to_ns > data.linger_ns;
  const edge = (ns) => (ns === 0 ? "0" : duration(ns).replace(".0", ""));
  const name =
    step.to_ns === null
      ? `${edge(step.from_ns)} and more`
      : `${edge(step.from_ns)}–${edge(step.to_ns)}`;
  return el(
    "tr",
    null,
    el("th", { scope: "row" }, name),
    el(
      "td",
      null,
      bar(lingers ? "finding" : "waiting", dwell?.count ?? 0, longest),
      dwell?.still > 0 && bar("still", dwell.still, longest, " still in it at the end"),
    ),
    el("td", null, bar("life", life?.count ?? 0, longest)),
  );
}

/** A count as a bar and as a number. */
function bar(kind, count, longest, more) {
  if (count === 0) return el("div", { class: "count zero" }, "0");
  const share = (Math.log10(count) + 0.3) / (Math.log10(longest) + 0.3);
  const node = el(
    "div",
    { class: "count" },
    el("span", { class: `bar ${kind}` }),
    el("b", null, grouped(count)),
    more,
  );
  node.firstChild.style.width = `${(share * 62).toFixed(2)}%`;
  return node;
}
