// Puts the page together.

function figures() {
  const { totals, gaps: lost, rates } = data;
  const oldest = data.culprits.reduce(
    (most, culprit) => (culprit.longest_ns > (most?.longest_ns ?? 0) ? culprit : most),
    null,
  );
  const open = data.culprits.reduce((sum, culprit) => sum + culprit.open, 0);
  const figure = (name, value, more, kind) =>
    el(
      "div",
      { class: kind ?? null },
      el("dt", null, name),
      el("dd", null, value, more && el("small", null, more)),
    );
  const unclear =
    lost.unknown > 0 && lost.lost === 0
      ? "?"
      : `${lost.unknown > 0 ? ">= " : ""}${grouped(lost.lost)}`;
  return el(
    "dl",
    { class: "figures" },
    figure(
      "Findings",
      grouped(totals.findings),
      totals.findings > 0
        ? `${plural(data.culprits.length + data.others.culprits, "culprit")}`
        : null,
      totals.findings > 0 ? "bad" : null,
    ),
    totals.findings > 0 &&
      figure("Still open at the end", grouped(open), null, open > 0 ? "bad" : null),
    oldest && figure("Lingered longest", lingered(oldest.longest_ns, oldest.longest_at_least)),
    !totals.findings_only &&
      figure("Connections opened", grouped(totals.opened), `${rate(rates.opened_mean)} per second`),
    !totals.findings_only && figure("State changes", grouped(totals.transitions)),
    figure(
      "Lost",
      unclear,
      lost.count > 0 ? `in ${plural(lost.count, "gap")}` : null,
      lost.count > 0 ? "bad" : null,
    ),
  );
}

function storySection() {
  const { story } = data;
  const when = el("p", { class: "when" });
  const tell = () => {
    when.replaceChildren(
      timeNode(data.from_us, "s", true),
      " to ",
      timeNode(wall(span)),
      ` ${zoneName()}. `,
      `${story.traffic[0].toUpperCase()}${story.traffic.slice(1)}.`,
    );
  };
  tell();
  onZone(tell);
  const most = 5;
  const missing = story.missing.slice(0, most).map((text) => el("li", null, text));
  const more = story.missing.length - missing.length + story.more_missing;
  return el(
    "section",
    { class: `story ${story.bad ? "bad" : "good"}`, id: "story" },
    el("h1", null, story.heading),
    el("p", { class: "lead" }, withMoments(story.happened)),
    missing.length > 0 &&
      el(
        "ul",
        { class: "missing" },
        missing,
        more > 0 && el("li", null, `and ${grouped(more)} more`),
      ),
    when,
    story.caveats.map((text) => el("p", { class: "warn" }, text)),
    figures(),
  );
}

function timeSection() {
  if (span <= 1 || line.buckets === 0) return null;
  const hint =
    "Drag over a chart to look closer, double-click for everything. With the keyboard: +, −, arrows and 0.";
  return section(
    "time",
    "What happened when",
    null,
    el("p", { class: "note hint screen" }, hint),
    el("div", { class: "sticky" }, viewBar(), el("div", { class: "plot" }, el("div"), axis())),
    stackPlot(),
    lanePlot(),
    ratePlot(),
  );
}

function controls() {
  const local = Intl.DateTimeFormat().resolvedOptions().timeZone || "Local";
  const schemes = [
    ["", "Auto"],
    ["light", "Light"],
    ["dark", "Dark"],
  ];
  return [
    // Who is in UTC has no choice.
    local !== "UTC" &&
      choice(
        "Times",
        [
          [true, "UTC"],
          [false, local],
        ],
        true,
        setZone,
      ),
    choice("Colours", schemes, "", (scheme) => {
      if (scheme) document.documentElement.dataset.scheme = scheme;
      else delete document.documentElement.dataset.scheme;
    }),
  ];
}

/** Paper has no buttons: everything is opened, and drawn as wide as a page is. */
function forPaper() {
  const paper = 700;
  const opened = [...document.querySelectorAll("details:not([open])")];
  for (const details of opened) details.open = true;
  openAllFindings();
  redrawNow(paper);
  addEventListener(
    "afterprint",
    () => {
      for (const details of opened) details.open = false;
      redrawNow();
    },
    { once: true },
  );
}

document.getElementById("controls").append(...controls().filter(Boolean));
document
  .getElementById("main")
  .replaceChildren(
    ...[
      storySection(),
      timeSection(),
      culpritsSection(),
      findingsSection(),
      spreadSection(),
      groupsSection(),
      recordingSection(),
    ].filter(Boolean),
  );
document.getElementById("bottom").append(...bottom());
onView(redraw);
redrawNow();
addEventListener("beforeprint", forPaper);
