// Charts over time: a frame, gaps, a cursor that all share, and what keys and pointers do.

const plots = [];
let wanted = false;

/** Draws all charts soon. */
function redraw() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    for (const plot of plots) plot.render();
  });
}

/** The same now, as wide as a page of paper if it is for one. */
function redrawNow(width) {
  for (const plot of plots) plot.render(width);
}

/**
 * A chart. `draw(canvas, scale)` draws what the view shows, `tell(t, scale, y)` says what was at a
 * moment, `height()` is its height, `key(key)` takes a key that is its own.
 */
function timePlot({ id, title, notes, label, height, draw, tell, key, table: numbers }) {
  const canvas = svg("svg", { role: "img", "aria-label": label });
  const frame = el(
    "div",
    {
      class: "frame",
      tabindex: "0",
      role: "group",
      "aria-roledescription": "chart",
      "aria-label": `${title}. Plus and minus zoom, left and right arrows move, 0 shows everything.`,
    },
    canvas,
  );
  const plot = { frame, scale: null };
  plot.render = (paper) => {
    const width = paper ?? frame.clientWidth;
    if (width < 40) return;
    const tall = height(width);
    const scale = (plot.scale = {
      width,
      height: tall,
      // Whether there is room on the left.
      margin: !paper && frame.parentNode.offsetLeft > 100,
      from: view.from,
      to: view.to,
      x: (t) => ((t - view.from) / (view.to - view.from)) * width,
      t: (x) => view.from + (x / width) * (view.to - view.from),
    });
    // On paper each chart has its own axis: there may be a page between.
    const whole = paper ? tall + 18 : tall;
    canvas.replaceChildren(...(paper ? axisLabels(scale, whole - 4) : []));
    canvas.setAttribute("viewBox", `0 0 ${width} ${whole}`);
    canvas.setAttribute("height", whole);
    drawGrid(canvas, scale);
    draw(canvas, scale);
    drawGaps(canvas, scale);
    plot.cursor = svg("line", { class: "cursor", y1: 0, y2: tall, visibility: "hidden" });
    plot.brush = svg("rect", { class: "brush", y: 0, height: tall, visibility: "hidden" });
    canvas.append(plot.cursor, plot.brush);
  };
  plots.push(plot);
  listen(plot, tell, key);
  new ResizeObserver(redraw).observe(frame);
  return el(
    "figure",
    { class: "plot", id },
    el("figcaption", null, el("h3", null, title), notes),
    el("div", null, frame, numbers),
  );
}

/** Buckets that the view shows: several to a column where they are narrower than so many pixels. */
function columns(scale, narrowest) {
  const px = (line.width / (scale.to - scale.from)) * scale.width;
  const per = 2 ** Math.max(0, Math.ceil(Math.log2(narrowest / px)));
  const list = [];
  const last = bucketAt(scale.to);
  for (
    let begin = bucketAt(scale.from) - (bucketAt(scale.from) % per);
    begin <= last;
    begin += per
  ) {
    const end = Math.min(begin + per, line.buckets);
    list.push({ begin, end, from: begins(begin), to: begins(end) });
  }
  return list;
}

/** The most of a count in a column. */
function most(values, { begin, end }) {
  let most = 0;
  for (let bucket = begin; bucket < end; bucket += 1) most = Math.max(most, values[bucket]);
  return most;
}

/** A round number that is not less, and the lines below it. */
function roundTop(top) {
  const steps = [1, 2, 5].flatMap((one) => [...Array(16).keys()].map((power) => one * 10 ** power));
  const step = steps.sort((a, b) => a - b).find((step) => top / step <= 3) ?? top;
  const lines = [];
  for (let at = step; at <= top; at += step) lines.push(at);
  return { top: Math.max(top, 1) * 1.06, lines };
}

/** Where vertical lines are, every so many pixels. */
function gridTicks(scale) {
  return ticks(scale.from, scale.to, Math.max(2, Math.floor(scale.width / 100)));
}

function drawGrid(canvas, scale) {
  for (const { at } of gridTicks(scale)) {
    const x = scale.x(at);
    canvas.append(svg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: scale.height }));
  }
}

/** Gaps are hatched in every chart. */
function drawGaps(canvas, scale) {
  const narrowest = 4;
  for (const gap of gaps) {
    if (gap.to < scale.from || gap.from > scale.to) continue;
    const from = Math.max(scale.x(gap.from), 0);
    const width = Math.min(Math.max(scale.x(gap.to) - from, narrowest), scale.width - from);
    canvas.append(svg("rect", { class: "gap", x: from, y: 0, width, height: scale.height }));
  }
}

/** The gap at a moment, as far as a pointer can tell. */
function gapAt(t, scale) {
  const near = ((scale.to - scale.from) / scale.width) * 3;
  return gaps.find((gap) => t >= gap.from - near && t <= gap.to + near);
}

function axisLabels(scale, y) {
  let free = 0;
  return gridTicks(scale).flatMap(({ at, label }) => {
    const wide = label.length * 6.8;
    const x = Math.min(Math.max(scale.x(at), wide / 2), scale.width - wide / 2);
    if (x - wide / 2 < free) return [];
    free = x + wide / 2 + 10;
    return [svg("text", { x, y, "text-anchor": "middle" }, label)];
  });
}

/** Time as a row of labels. */
function axis() {
  const canvas = svg("svg", { "aria-hidden": "true", height: 20 });
  const frame = el("div", { class: "axis" }, canvas);
  plots.push({
    frame,
    render: (paper) => {
      const width = paper ?? frame.clientWidth;
      if (width < 40) return;
      canvas.setAttribute("viewBox", `0 0 ${width} 20`);
      const x = (t) => ((t - view.from) / (view.to - view.from)) * width;
      canvas.replaceChildren(...axisLabels({ width, from: view.from, to: view.to, x }, 14));
    },
  });
  onZone(redraw);
  return frame;
}

function listen(plot, tell, key) {
  const { frame } = plot;
  const placeOf = (event) => {
    const box = frame.getBoundingClientRect();
    return {
      x: Math.min(Math.max(event.clientX - box.left, 0), box.width),
      y: event.clientY - box.top,
    };
  };
  let pressed = null;
  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = placeOf(event).x;
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!plot.scale) return;
    const { x, y } = placeOf(event);
    const t = plot.scale.t(x);
    moveCursors(t);
    if (pressed !== null && Math.abs(x - pressed) > 4) {
      hideTip();
      return brush(pressed, x);
    }
    showTip(event.clientX, event.clientY, tell(t, plot.scale, y));
  });
  frame.addEventListener("pointerup", (event) => {
    const { x } = placeOf(event);
    const begun = pressed;
    pressed = null;
    brush(null);
    if (begun === null || Math.abs(x - begun) <= 4) return;
    show(plot.scale.t(Math.min(begun, x)), plot.scale.t(Math.max(begun, x)));
  });
  for (const name of ["pointerleave", "pointercancel", "blur"]) {
    frame.addEventListener(name, () => {
      pressed = null;
      brush(null);
      hideTip();
      moveCursors(null);
    });
  }
  frame.addEventListener("dblclick", showAll);
  frame.addEventListener(
    "wheel",
    (event) => {
      // Alone it scrolls the page.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, plot.scale.t(placeOf(event).x));
    },
    { passive: false },
  );
  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") hideTip();
    if (key?.(event.key) || viewKey(event.key)) event.preventDefault();
  });
}

/** The same moment in every chart. */
function moveCursors(t) {
  for (const { cursor, scale } of plots) {
    if (!cursor) continue;
    cursor.setAttribute("visibility", t === null ? "hidden" : "visible");
    if (t === null) continue;
    cursor.setAttribute("x1", scale.x(t));
    cursor.setAttribute("x2", scale.x(t));
  }
}

/** What will be shown when the pointer is released. */
function brush(from, to) {
  for (const plot of plots) {
    if (!plot.brush) continue;
    plot.brush.setAttribute("visibility", from === null ? "hidden" : "visible");
    if (from === null) continue;
    plot.brush.setAttribute("x", Math.min(from, to));
    plot.brush.setAttribute("width", Math.abs(to - from));
  }
}
