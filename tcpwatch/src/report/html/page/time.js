// Moments: in UTC, or where the reader is.

const zone = { utc: true };
const toldAnew = [];

/** Has something told again when the reader wants another zone. */
function onZone(tell) {
  toldAnew.push(tell);
}

function setZone(utc) {
  zone.utc = utc;
  for (const node of document.querySelectorAll("time[data-us]")) tellTime(node);
  for (const tell of toldAnew) tell();
}

/** Wall time of a moment, µs since 1970. */
function wall(t) {
  let ahead = 0;
  for (const [from, by] of data.clock) {
    if (from > t) break;
    ahead = by;
  }
  return data.from_us + t + ahead;
}

/** The parts of a wall time that people name. */
function parts(us) {
  const at = new Date(Math.floor(us / 1000));
  const of = (part) => (zone.utc ? at[`getUTC${part}`]() : at[`get${part}`]());
  const two = (part) => String(of(part)).padStart(2, "0");
  return {
    date: `${of("FullYear")}-${String(of("Month") + 1).padStart(2, "0")}-${two("Date")}`,
    minutes: `${two("Hours")}:${two("Minutes")}`,
    seconds: two("Seconds"),
    milliseconds: String(of("Milliseconds")).padStart(3, "0"),
  };
}

/** Whether the recording is of more than one day. */
function isDated() {
  return parts(data.from_us).date !== parts(wall(span)).date;
}

/** A wall time: by how much of it, "m" minutes, "s" seconds, "ms" milliseconds. */
function stamp(us, exact = "s", dated = isDated()) {
  const { date, minutes, seconds, milliseconds } = parts(us);
  const time = {
    m: minutes,
    s: `${minutes}:${seconds}`,
    ms: `${minutes}:${seconds}.${milliseconds}`,
  };
  return (dated ? `${date} ` : "") + time[exact];
}

/** UTC, or the reader's zone as it is called. */
function zoneName() {
  return zone.utc ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
}

/** A wall time that is told again in another zone. */
function timeNode(us, exact, dated) {
  const node = el("time", {
    datetime: new Date(Math.floor(us / 1000)).toISOString(),
    "data-us": us,
    "data-exact": exact ?? "s",
    "data-dated": dated ? "1" : null,
  });
  tellTime(node);
  return node;
}

function tellTime(node) {
  const { us, exact, dated } = node.dataset;
  node.textContent = stamp(Number(us), exact, dated ? true : isDated());
}

/** A moment of the recording as a node. */
function moment(t, exact = "ms") {
  return timeNode(wall(t), exact);
}

/** Words in which moments are marked (MOMENT in html/data.rs). */
function withMoments(text) {
  return text
    .split(/\u0002(\d+)\u0003/)
    .map((part, number) => (number % 2 ? timeNode(Number(part)) : part));
}

const STEPS = [
  1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 15e6, 3e7, 6e7, 12e7, 3e8, 6e8,
  9e8, 18e8, 36e8, 72e8, 108e8, 216e8, 432e8, 864e8, 1728e8, 6048e8,
];

/** Moments at round times between two, at most so many, with their labels. */
function ticks(from, to, most) {
  const step = STEPS.find((step) => (to - from) / step <= most) ?? STEPS.at(-1);
  const exact = step < 1e6 ? "ms" : step < 6e7 ? "s" : "m";
  const list = [];
  let t = from;
  while (t <= to && list.length <= most + 2) {
    const us = wall(t);
    const offset = zone.utc ? 0 : new Date(us / 1000).getTimezoneOffset() * 6e7;
    const next = Math.ceil((us - offset) / step) * step + offset;
    const at = t + next - us;
    if (at > to) break;
    const { date, minutes } = parts(next);
    const midnight = minutes === "00:00" && step >= 6e7;
    if (at >= from) list.push({ at, label: midnight ? date.slice(5) : stamp(next, exact, false) });
    t = at + step / 2;
  }
  return list;
}
