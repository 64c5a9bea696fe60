// What the page was made of (html/data.rs, html/rows.rs). Moments are µs from the beginning.

const data = JSON.parse(document.getElementById("data").textContent);
const findings = JSON.parse(document.getElementById("findings").textContent);
const line = data.timeline;
const span = Math.max(data.duration_ns / 1e3, 1);

/** Culprits with a colour of their own. */
const COLOURED = 5;

/** How a culprit is drawn. */
function culpritClass(place) {
  return place < Math.min(COLOURED, data.culprits.length) ? `c${place}` : "others";
}

/** A culprit's title, also of one that has no place of its own. */
function culpritTitle(place) {
  return data.culprits[place]?.title ?? "other culprits";
}

/** A count for each bucket, from where it changes. */
function counts(changes) {
  const all = new Float64Array(line.buckets);
  (changes ?? []).forEach(([from, count], number) => {
    all.fill(count, from, changes[number + 1]?.[0] ?? line.buckets);
  });
  return all;
}

function sum(lists) {
  const all = new Float64Array(line.buckets);
  for (const list of lists)
    list.forEach((count, bucket) => {
      all[bucket] += count;
    });
  return all;
}

/** When a bucket begins. */
function begins(bucket) {
  return line.first + bucket * line.width;
}

/** The bucket of a moment. */
function bucketAt(t) {
  const bucket = Math.floor((t - line.first) / line.width);
  return Math.min(Math.max(bucket, 0), line.buckets - 1);
}

/** Where something was lost: from, to, and a sentence. */
const gaps = line.gaps.map(([bucket, lost]) => ({
  from: begins(bucket),
  to: begins(bucket + 1),
  short: lost > 0 ? `${grouped(lost)} lost` : "something lost",
  text:
    lost > 0
      ? `${plural(lost, "transition")} lost`
      : "something is missing here, it is not known how much",
}));

/** Why counts may be too low; null if they are not. */
function lossNote() {
  const { lost, count, unknown } = data.gaps;
  if (count === 0) return null;
  if (lost === 0)
    return `Something is missing in ${plural(count, "gap")}: counts are lower bounds.`;
  const atLeast = unknown > 0 ? "At least " : "";
  return `${atLeast}${plural(lost, "transition")} lost in ${plural(count, "gap")}: counts are lower bounds.`;
}
