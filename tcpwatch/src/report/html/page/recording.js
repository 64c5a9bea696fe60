// Services, the recording and what it lacks, and how to get more.

const FIRST_GROUPS = 12;

function groupsSection() {
  if (data.groups.length === 0) return null;
  const time = (durations, of) => (durations ? duration(of(durations)) : "–");
  const row = (g) => [
    g.process,
    g.service,
    grouped(g.opened),
    grouped(g.failed),
    time(g.lifetime, (all) => all.p50.ns),
    time(g.lifetime, (all) => all.p99.ns),
    time(g.close_wait, (all) => all.p50.ns),
    time(g.close_wait, (all) => all.p99.ns),
    time(g.close_wait, (all) => all.max_ns),
    g.close_wait_now > 0
      ? `${grouped(g.close_wait_now)}, oldest ${duration(g.close_wait_now_oldest_ns)}`
      : "0",
  ];
  const columns = [
    ["Process", false],
    ["Service", false],
    ["Opened", true],
    ["Failed", true],
    ["Life p50", true],
    ["Life p99", true],
    ["CLOSE_WAIT p50", true],
    ["p99", true],
    ["longest", true],
    ["Still in it", true],
  ];
  const of = (groups, caption) =>
    el("div", { class: "wide" }, table(caption, columns, groups.map(row)));
  const rest = data.groups.slice(FIRST_GROUPS);
  const { groups, opened } = data.more_groups;
  return section(
    "groups",
    "Connections by process and service",
    "The well ones, too: what is not can be compared with them.",
    of(data.groups.slice(0, FIRST_GROUPS), "Those with the most connections"),
    rest.length > 0 &&
      el(
        "details",
        null,
        el("summary", null, plural(rest.length, "more group")),
        of(rest, "The others"),
      ),
    groups > 0 &&
      el(
        "p",
        { class: "note" },
        `${plural(groups, "more group")} with ${plural(opened, "connection")} are not shown: tcpwatch report --json has them.`,
      ),
  );
}

function recordingSection() {
  const { source, story } = data;
  const fact = (name, value) => (value ? [el("dt", null, name), el("dd", null, value)] : []);
  const files = source.files.map(({ name, bytes: size }) =>
    el("li", null, el("code", null, name), ` ${bytes(size)}`),
  );
  const versions =
    source.recorded_by === source.reported_by
      ? `tcpwatch ${source.recorded_by}`
      : `tcpwatch ${source.recorded_by}, reported by ${source.reported_by}`;
  return section(
    "recording",
    "The recording",
    null,
    el(
      "dl",
      { class: "facts" },
      fact("Host", source.host),
      fact("Kernel", `Linux ${source.kernel} ${source.machine}`),
      fact("Recorded by", versions),
      fact("Time", [
        timeNode(data.from_us, "ms", true),
        " to ",
        timeNode(wall(span), "ms", true),
        `, ${duration(data.duration_ns)}`,
        source.is_part ? ", a part of the recording" : null,
      ]),
      fact("Asked for", el("code", null, source.asked)),
      fact("Reported with", source.asked_now && el("code", null, source.asked_now)),
      fact("Findings", `what lingers for ${duration(data.linger_ns)} or longer`),
      fact("Files", el("ul", null, files)),
      fact("Recording", source.recording && el("code", null, source.recording)),
      fact("Boot", source.boot && el("code", null, source.boot)),
    ),
    el("h3", null, "What is missing"),
    missing(story),
  );
}

/** What was lost, and what else is not known. */
function missing(story) {
  const { gaps: lost, totals } = data;
  const items = [lossNote(), ...story.missing, ...story.caveats];
  if (story.more_missing > 0) items.push(`and ${grouped(story.more_missing)} more`);
  if (totals.uncertain > 0)
    items.push(`${plural(totals.uncertain, "transition")} of sockets whose path has a gap.`);
  if (totals.unclaimed > 0)
    items.push(
      `${plural(totals.unclaimed, "transition")} not shown: nobody could tell whether a watched process had the socket.`,
    );
  if (line.uncertain && !totals.findings_only)
    items.push(
      "Numbers of sockets over time are what was seen: some changes were lost or not shown.",
    );
  if (totals.findings_only)
    items.push("Only findings were recorded, so nothing is known of other connections.");
  const said = items.filter(Boolean);
  if (said.length === 0) return el("p", null, "Nothing.");
  const rows = lost.first.map((gap, number) => [
    moment(lost.at[number]),
    gap.lost === null ? "not known" : grouped(gap.lost),
  ]);
  const unlisted = lost.count - rows.length;
  return [
    el(
      "ul",
      { class: "missing" },
      said.map((text) => el("li", null, text)),
    ),
    rows.length > 0 &&
      el(
        "details",
        null,
        el("summary", null, plural(lost.count, "gap")),
        table(
          "Transitions lost before each moment",
          [
            ["Learnt at", false],
            ["Lost", true],
          ],
          rows,
        ),
        unlisted > 0 && el("p", { class: "note" }, `and ${plural(unlisted, "more gap")}`),
      ),
  ];
}

function bottom() {
  const command = (text, what) => [el("dt", null, el("code", null, text)), el("dd", null, what)];
  return [
    el("p", null, "More of the same recording:"),
    el(
      "dl",
      { class: "commands" },
      command("tcpwatch replay FILE", "everything, as it happened"),
      command(
        "tcpwatch report FILE --from +5m --until +6m --html OUT.html",
        "a page of a part, in finer steps of time",
      ),
      command(
        "tcpwatch export FILE --to parquet --findings -o OUT",
        "all of it, for a query engine",
      ),
      command("tcpwatch export FILE --to perfetto -o OUT", "every socket on a time line"),
    ),
  ];
}
