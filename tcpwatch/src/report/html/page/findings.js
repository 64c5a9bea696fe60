// The findings, one by one: a table that is sorted, filtered, and opened row by row.

const PAGE = 50;
const HOW = {
  closed: "closed",
  exited: "process ended",
  aborted: "reset by its process",
  disconnected: "disconnected by its process",
  reset: "reset by the peer",
  "timed-out": "timed out",
  destroyed: "destroyed",
  "listener-closed": "listener closed",
  "fd-closed": "fd closed",
  "in-use": "in use after all",
  gone: "gone unseen",
};
const COLUMNS = [
  ["Process", (f) => f.holders ?? f.owner ?? "", false],
  ["Connection", (f) => f.remote, false],
  ["Verdict", (f) => f.verdict, false],
  ["Since", (f) => f.since, true],
  ["For", (f) => f.linger_ns, true],
  ["End", (f) => endWord(f), false],
];
const list = {
  words: [],
  culprit: null,
  status: "all",
  inView: false,
  by: 4,
  down: true,
  shown: PAGE,
  rows: [],
};
const widgets = {};

/** How a finding ended, in two words. */
function endWord(f) {
  if (f.open) return "still open";
  return f.how ? (HOW[f.how] ?? f.how) : "not seen";
}

/** From here to there, or from there to here. */
function connection(f) {
  return `${f.local} ${{ client: "→", server: "←" }[f.role] ?? "–"} ${f.remote}`;
}

/** What a pointer or a reader learns of a finding: who, with whom, since when, why. */
function aboutFinding(f) {
  const state = f.died !== undefined ? "gone" : "in CLOSE_WAIT";
  const since = f.died ?? f.since;
  return [
    el("p", null, el("b", null, f.holders ?? f.owner ?? "nobody known")),
    el("p", { class: "mono" }, connection(f)),
    el(
      "p",
      null,
      el("span", { class: "verdict" }, f.verdict),
      ` ${state} since ${f.at_least ? "before " : ""}${stamp(
        wall(since),
        "ms",
      )}, for ${lingered(f.linger_ns, f.at_least)}`,
    ),
    el("p", null, f.summary),
    el(
      "p",
      { class: "soft" },
      f.open ? "still open at the end" : (f.ended ?? "its end was not shown"),
    ),
  ];
}

function findingsSection() {
  if (data.totals.findings === 0) return null;
  findings.forEach((f) => {
    f.text = [
      f.owner,
      f.holders,
      connection(f),
      f.verdict,
      f.netns,
      f.summary,
      f.evidence,
      f.ended,
      endWord(f),
    ]
      .join(" ")
      .toLowerCase();
  });
  widgets.body = el("tbody");
  widgets.count = el("p", { class: "count", role: "status" });
  widgets.more = el("button", {
    type: "button",
    onclick: () => {
      list.shown += PAGE;
      showRows();
    },
  });
  widgets.heads = COLUMNS.map(([title, , number], column) =>
    el(
      "th",
      { scope: "col", class: number ? "number" : null },
      el(
        "button",
        { type: "button", onclick: () => sortBy(column) },
        title,
        el("span", { class: "arrow", "aria-hidden": "true" }),
      ),
    ),
  );
  onView(() => list.inView && update());
  onZone(showRows);
  const made = section(
    "findings-list",
    "All findings",
    listedNote(),
    el("p", { class: "note screen" }, "A row opens for what was seen, and what to do."),
    filters(),
    widgets.count,
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "findings" },
        el(
          "caption",
          { class: "unseen" },
          "Findings; a row opens for what was seen and what to do",
        ),
        el("thead", null, el("tr", null, widgets.heads)),
        widgets.body,
      ),
    ),
    el("p", { class: "screen" }, widgets.more),
  );
  sortBy(4, true);
  return made;
}

/** What is not listed, and how to get it. */
function listedNote() {
  const all = data.totals.findings;
  if (findings.length >= all) return null;
  return [
    `${grouped(findings.length)} of ${grouped(all)} findings are listed: of each culprit those that lingered longest. `,
    "Charts, culprits and counts are of all. For every finding: ",
    el("code", null, "tcpwatch export FILE --to jsonl --findings -o findings.jsonl"),
  ];
}

function filters() {
  const words = el("input", {
    type: "search",
    id: "filter",
    placeholder: "process, peer, verdict, words of the evidence",
    autocomplete: "off",
    oninput: (event) => {
      list.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      update();
    },
  });
  const seen = data.culprits
    .map((culprit, place) => [place, culprit.title])
    .filter(([place]) => findings.some((f) => f.culprit === place));
  widgets.culprit = el(
    "select",
    {
      id: "by-culprit",
      onchange: (event) => {
        list.culprit = event.target.value === "" ? null : Number(event.target.value);
        update();
      },
    },
    el("option", { value: "" }, "every culprit"),
    seen.map(([place, title]) => el("option", { value: place }, title)),
  );
  const status = choice(
    "Findings that are",
    [
      ["all", "All"],
      ["open", "Still open"],
      ["ended", "Ended"],
    ],
    "all",
    (value) => {
      list.status = value;
      update();
    },
  );
  const inView = el(
    "label",
    null,
    el("input", {
      type: "checkbox",
      id: "in-view",
      onchange: (event) => {
        list.inView = event.target.checked;
        update();
      },
    }),
    " only what the charts show",
  );
  return el(
    "div",
    { class: "filters" },
    el("label", { class: "grow" }, el("span", null, "Filter"), words),
    el("label", null, el("span", null, "Culprit"), widgets.culprit),
    status,
    inView,
  );
}

function filterCulprit(place) {
  list.culprit = place;
  widgets.culprit.value = String(place);
  update();
  document.getElementById("findings-list").scrollIntoView();
}

function accepts(f) {
  return (
    (list.culprit === null || f.culprit === list.culprit) &&
    (list.status === "all" ||
      f.open === (list.status === "open") ||
      (!f.open && list.status === "ended")) &&
    (!list.inView || (f.since <= view.to && (f.until ?? span) >= view.from)) &&
    list.words.every((word) => f.text.includes(word))
  );
}

function sortBy(column, down) {
  list.down = down ?? (list.by === column ? !list.down : COLUMNS[column][2]);
  list.by = column;
  widgets.heads.forEach((head, number) => {
    if (number === column) head.setAttribute("aria-sort", list.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  update();
}

/** Chooses the rows anew. */
function update() {
  const [, of] = COLUMNS[list.by];
  const sign = list.down ? -1 : 1;
  const compare = (a, b) => (a < b ? -sign : a > b ? sign : 0);
  list.rows = findings
    .filter(accepts)
    .sort((a, b) => compare(of(a), of(b)) || compare(a.since, b.since));
  list.shown = PAGE;
  showRows();
}

function showRows() {
  const shown = list.rows.slice(0, list.shown);
  widgets.body.replaceChildren(...shown.flatMap(rowsOf));
  const { length } = list.rows;
  widgets.count.textContent =
    length === findings.length
      ? plural(length, "finding")
      : `${grouped(length)} of ${plural(findings.length, "finding")}`;
  const hidden = length - shown.length;
  widgets.more.hidden = hidden <= 0;
  widgets.more.textContent = `Show ${Math.min(hidden, PAGE)} more of ${grouped(hidden)}`;
}

/** A row, and below it what else there is to say. */
function rowsOf(f) {
  const place = findings.indexOf(f);
  const id = `finding-${place}`;
  const detail = el("tr", { class: "detail", id, hidden: true });
  const open = (is) => {
    toggle.setAttribute("aria-expanded", String(is));
    if (is && !detail.firstChild)
      detail.append(el("td", { colspan: COLUMNS.length }, findingDetail(f)));
    detail.hidden = !is;
  };
  const toggle = el(
    "button",
    {
      type: "button",
      class: "open",
      "aria-expanded": "false",
      "aria-controls": id,
      onclick: () => open(detail.hidden),
    },
    f.holders ?? f.owner ?? "nobody known",
  );
  detail.open = open;
  const since = [f.at_least ? "before " : null, moment(f.since)];
  const cells = [
    el(
      "th",
      { scope: "row", "data-name": "Process" },
      el("span", { class: `chip ${culpritClass(f.culprit)}` }),
      toggle,
    ),
    el("td", { class: "mono", "data-name": "Connection" }, connection(f)),
    el("td", { "data-name": "Verdict" }, el("span", { class: "verdict" }, f.verdict)),
    el("td", { class: "number", "data-name": "Since" }, since),
    el("td", { class: "number", "data-name": "For" }, lingered(f.linger_ns, f.at_least)),
    el("td", { class: f.open ? "warn" : null, "data-name": "End" }, endWord(f)),
  ];
  return [el("tr", { class: "finding" }, cells), detail];
}

function findingDetail(f) {
  const fact = (name, value) =>
    value === undefined || value === null ? [] : [el("dt", null, name), el("dd", null, value)];
  return el(
    "div",
    { class: "about" },
    el("p", { class: "say" }, f.summary),
    f.evidence && el("p", { class: "soft" }, "Seen ", moment(f.seen), `: ${f.evidence}`),
    data.culprits[f.culprit]?.remedy &&
      el("p", { class: "remedy" }, el("b", null, "What to do "), data.culprits[f.culprit].remedy),
    el(
      "dl",
      null,
      fact("Opened", f.born === undefined ? "before anybody looked" : moment(f.born)),
      fact("Lingers since", [f.at_least ? "before " : null, moment(f.since)]),
      fact("Found", f.found === undefined ? "before this report begins" : moment(f.found)),
      fact("Connection gone", f.died === undefined ? null : moment(f.died)),
      fact(
        "Ended",
        f.until === undefined
          ? f.open
            ? "still open at the end"
            : "not seen"
          : [moment(f.until), ": ", f.ended],
      ),
      fact("Network namespace", f.netns),
      fact("Socket", f.socket),
    ),
  );
}

/** Shows a finding's row and opens it. */
function openFinding(f) {
  Object.assign(list, { words: [], culprit: null, status: "all", inView: false });
  document.getElementById("filter").value = "";
  document.getElementById("in-view").checked = false;
  widgets.culprit.value = "";
  update();
  list.shown = Math.max(PAGE, list.rows.indexOf(f) + 1);
  showRows();
  const detail = document.getElementById(`finding-${findings.indexOf(f)}`);
  detail.open(true);
  detail.previousSibling.querySelector("button").focus();
}

/** Opens every row that is shown, for paper. */
function openAllFindings() {
  for (const detail of document.querySelectorAll("tr.detail")) detail.open(true);
}
