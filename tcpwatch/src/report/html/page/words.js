// Numbers as the text report writes them (report/words/numbers.rs).

/** 1,204 */
function grouped(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** 1 gap, 1,204 gaps */
function plural(count, what) {
  return `${grouped(count)} ${what}${count === 1 ? "" : "s"}`;
}

/** Two or three digits: 0.25, 9.6, 130 */
function rate(perSecond) {
  if (perSecond === 0) return "0";
  if (perSecond < 0.01) return "< 0.01";
  if (perSecond < 0.995) return perSecond.toFixed(2);
  return perSecond < 99.95 ? perSecond.toFixed(1) : grouped(perSecond);
}

/** Two units at most: 24us, 1.3ms, 850ms, 2.3s, 4m12s, 2h05m, 3d04h */
function duration(ns) {
  if (ns < 1e3) return `${ns}ns`;
  if (ns < 1e6) return `${Math.floor(ns / 1e3)}us`;
  if (ns < 1e7) return `${Math.floor(ns / 1e6)}.${Math.floor(ns / 1e5) % 10}ms`;
  const ms = Math.floor(ns / 1e6);
  const [s, m, h, d] = [1e3, 6e4, 36e5, 864e5].map((unit) => Math.floor(ms / unit));
  const two = (number) => String(number).padStart(2, "0");
  if (s === 0) return `${ms}ms`;
  if (s < 10 && ms % 1000 >= 100) return `${s}.${Math.floor((ms % 1000) / 100)}s`;
  if (m === 0) return `${s}s`;
  if (h === 0) return `${m}m${two(s % 60)}s`;
  return d === 0 ? `${h}h${two(m % 60)}m` : `${d}d${two(h % 24)}h`;
}

/** 4.9 MB */
function bytes(count) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return unit === 0 ? plural(count, "byte") : `${count.toFixed(count < 10 ? 1 : 0)} ${units[unit]}`;
}

/** >= 4h12m */
function lingered(ns, atLeast) {
  return (atLeast ? ">= " : "") + duration(ns);
}
