// The part of time that all charts show.

const view = { from: 0, to: span };
const viewers = [];

/** Shortest part, µs. */
const CLOSEST = Math.min(span, 2000);

/** Is told when another part is shown. */
function onView(tell) {
  viewers.push(tell);
}

function show(from, to) {
  const width = Math.min(Math.max(to - from, CLOSEST), span);
  const begin = Math.min(Math.max((from + to - width) / 2, 0), span - width);
  [view.from, view.to] = [begin, begin + width];
  for (const tell of viewers) tell();
}

/** Closer for factors below 1, around a moment. */
function zoom(factor, around = (view.from + view.to) / 2) {
  show(around - (around - view.from) * factor, around + (view.to - around) * factor);
}

/** Along by a share of what is shown. */
function pan(share) {
  const by = (view.to - view.from) * share;
  const bounded = Math.min(Math.max(by, -view.from), span - view.to);
  show(view.from + bounded, view.to + bounded);
}

function showAll() {
  show(0, span);
}

function isZoomed() {
  return view.to - view.from < span;
}

/** Keys of a chart; whether it was one. */
function viewKey(key) {
  const does = {
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "-": () => zoom(2),
    ArrowLeft: () => pan(-0.125),
    ArrowRight: () => pan(0.125),
    0: showAll,
    Home: showAll,
  }[key];
  does?.();
  return does !== undefined;
}

/** Buttons that do the same, and which part is shown. */
function viewBar() {
  const shown = el("p", { class: "shown", id: "shown" });
  const tell = () => {
    const exact = view.to - view.from < 6e7 ? "ms" : "s";
    const [from, to] = [view.from, view.to].map((t) => stamp(wall(t), isZoomed() ? exact : "s"));
    shown.textContent = `${from} to ${to} ${zoneName()}, ${duration(Math.round(view.to - view.from) * 1e3)}`;
  };
  onView(tell);
  onZone(tell);
  tell();
  return el(
    "div",
    { class: "bar" },
    shown,
    el(
      "div",
      { class: "buttons", role: "group", "aria-label": "Part of time that is shown" },
      button("−", "Show more time (-)", () => zoom(2)),
      button("+", "Show less time (+)", () => zoom(0.5)),
      button("←", "Earlier (left arrow)", () => pan(-0.25)),
      button("→", "Later (right arrow)", () => pan(0.25)),
      button("All", "Show everything (0)", showAll),
    ),
  );
}
