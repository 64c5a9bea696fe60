// The culprits, what hurts most first: what, how many, why, and what to do.

const FIRST_CULPRITS = 5;

function culpritsSection() {
  if (data.culprits.length === 0) return null;
  const cards = data.culprits.map(culpritCard);
  const rest = cards.slice(FIRST_CULPRITS);
  const all = data.culprits.length + data.others.culprits;
  const beyond =
    data.others.culprits > 0 &&
    el(
      "p",
      { class: "note" },
      `${plural(data.others.culprits, "more culprit")} with ${plural(data.others.findings, "finding")} ` +
        "are counted, and not shown one by one: tcpwatch report --json has them.",
    );
  return section(
    "culprits",
    "Culprits",
    `${plural(all, "culprit")}, with ${plural(data.totals.findings, "finding")}: those that share process, verdict and peer.`,
    el("ol", { class: "cards" }, cards.slice(0, FIRST_CULPRITS)),
    rest.length > 0 &&
      el(
        "details",
        null,
        el("summary", null, plural(rest.length, "more culprit")),
        el("ol", { class: "cards", start: FIRST_CULPRITS + 1 }, rest),
      ),
    beyond,
  );
}

function culpritCard(culprit, place) {
  const many = culprit.opened > 1 ? "For example: " : "";
  const line = (text, kind) => text && el("p", { class: kind ?? null }, withMoments(text));
  return el(
    "li",
    { class: `card ${culpritClass(place)}`, id: `culprit-${place}` },
    el(
      "h3",
      null,
      culprit.verdict && el("span", { class: "verdict" }, culprit.verdict),
      " ",
      el("span", { class: "who" }, culprit.owner),
      " ",
      el("span", { class: "where" }, culprit.place),
    ),
    el(
      "div",
      null,
      line(culprit.counts, "counts"),
      line(culprit.grows, "warn"),
      line(culprit.endings),
      line(culprit.found, "soft"),
      el(
        "p",
        { class: "screen" },
        el(
          "button",
          {
            type: "button",
            class: "link",
            onclick: () => filterCulprit(place),
          },
          "Its findings in the table",
        ),
      ),
    ),
    el(
      "div",
      null,
      culprit.example && el("p", { class: "say" }, many + culprit.example),
      culprit.evidence && el("p", { class: "soft" }, `Seen: ${culprit.evidence}`),
      culprit.remedy && el("p", { class: "remedy" }, el("b", null, "What to do "), culprit.remedy),
    ),
  );
}
