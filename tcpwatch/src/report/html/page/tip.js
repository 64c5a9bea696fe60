// What the pointer is on, in words.

const tip = document.getElementById("tip");

/** Shows nodes beside a place of the window. */
function showTip(x, y, ...nodes) {
  tip.replaceChildren(...nodes.flat(Infinity).filter(Boolean));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const left = x + 16 + width > clientWidth ? x - 16 - width : x + 16;
  const top = y + 16 + height > clientHeight ? y - 16 - height : y + 16;
  tip.style.left = `${Math.max(8, Math.min(left, clientWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

function hideTip() {
  tip.hidden = true;
}

/** Says it to who cannot see it. */
function say(text) {
  document.getElementById("said").textContent = text;
}

/** A row of a tip: a colour, a name, a number. */
function tipRow(kind, name, number) {
  return el(
    "p",
    { class: "row" },
    el("span", { class: kind ? `chip ${kind}` : "chip none" }),
    el("span", { class: "name" }, name),
    el("b", null, number),
  );
}
