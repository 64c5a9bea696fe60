//! The last lines of a run.

use std::io::{self, Write};

use crate::core::{advice, record::Summary, state::State};

/// The summary, for any sink that has no place of its own for it.
pub fn write_summary(out: &mut dyn Write, s: &Summary) -> io::Result<()> {
    if !s.findings_only {
        let (transitions, sockets) =
            (advice::count(s.transitions, "transition"), advice::count(s.sockets, "socket"));
        write!(out, "{transitions} of {sockets}, ")?;
    }
    writeln!(
        out,
        "{} ({} ended) in {}; {} lost",
        advice::count(s.findings(), "finding"),
        s.ended,
        s.duration,
        s.lost
    )?;
    let counts = |map: &std::collections::BTreeMap<State, u64>| {
        map.iter().map(|(state, count)| format!("{state} {count}")).collect::<Vec<_>>().join("  ")
    };
    if !s.entered.is_empty() {
        writeln!(out, "  entered: {}", counts(&s.entered))?;
    }
    if !s.now.is_empty() {
        writeln!(out, "  now:     {}", counts(&s.now))?;
    }
    if !s.verdicts.is_empty() {
        let verdicts: Vec<_> = s
            .verdicts
            .iter()
            .map(|(verdict, count)| format!("{} {count}", verdict.word()))
            .collect();
        writeln!(out, "  verdicts: {}", verdicts.join("  "))?;
    }
    for (owner, count) in &s.owners {
        let owner = owner.map_or_else(|| "nobody known".to_owned(), |process| process.to_string());
        writeln!(out, "  {}: {owner}", advice::count(*count, "finding"))?;
    }
    if s.other_owners > 0 {
        writeln!(out, "  {}: others", advice::count(s.other_owners, "finding"))?;
    }
    if s.unshown > 0 {
        let unshown = advice::count(s.unshown, "transition");
        writeln!(out, "  not shown, as nobody read the output: {unshown}")?;
    }
    if s.unclaimed > 0 {
        let unclaimed = advice::count(s.unclaimed, "transition");
        writeln!(
            out,
            "  not shown, as nobody could tell whether a watched process had the socket: {unclaimed}"
        )?;
    }
    for unseen in &s.unseen {
        writeln!(out, "  not seen: {unseen}")?;
    }
    if s.evicted > 0 {
        writeln!(
            out,
            "  not tracked, as the table was full: {}",
            advice::count(s.evicted, "socket")
        )?;
    }
    Ok(())
}
