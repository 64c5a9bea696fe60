// Elements, from data. Text only ever becomes text nodes: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element of nodes and text; attributes and children that are null or false are left out. */
function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in a drawing. */
function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** A button that says what it does. */
function button(label, name, onclick, more) {
  return el("button", { type: "button", "aria-label": name, title: name, onclick, ...more }, label);
}

/** Several of which one is pressed. */
function choice(name, values, chosen, onchoose) {
  const buttons = values.map(([value, label]) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": String(value === chosen),
        onclick: (event) => {
          for (const other of buttons) other.setAttribute("aria-pressed", "false");
          event.currentTarget.setAttribute("aria-pressed", "true");
          onchoose(value);
        },
      },
      label,
    ),
  );
  return el("div", { class: "choice", role: "group", "aria-label": name }, buttons);
}

/** A section under a heading. */
function section(id, title, note, ...children) {
  return el(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title),
    note && el("p", { class: "note" }, note),
    children,
  );
}

/** A table of text; columns are [title, is a number]. */
function table(caption, columns, rows) {
  const cell = (text, number) => {
    const kind = columns[number][1] ? "number" : null;
    const name = columns[number][0];
    return number === 0 && !kind
      ? el("th", { scope: "row", "data-name": name }, text)
      : el("td", { class: kind, "data-name": name }, text);
  };
  return el(
    "table",
    null,
    el("caption", null, caption),
    el(
      "thead",
      null,
      el(
        "tr",
        null,
        columns.map(([title, number]) =>
          el("th", { scope: "col", class: number ? "number" : null }, title),
        ),
      ),
    ),
    el(
      "tbody",
      null,
      rows.map((row) => el("tr", null, row.map(cell))),
    ),
  );
}

/** What a chart shows, as a table that is opened on demand. */
function asTable(caption, columns, rows) {
  return el(
    "details",
    { class: "numbers" },
    el("summary", null, "As a table"),
    el("div", { class: "wide" }, table(caption, columns, rows)),
  );
}
