//! What changed, for people: first whether it got worse, then what.

use std::io::{self, Write};

use super::{Change, CulpritChange, Diff, GroupChange, Leaks, RateChange, Side};
use crate::report::{
    text::{
        Align, Column, Paper, Style, Table,
        colour::{self, BAD, DIM, GOOD},
    },
    words::{duration, grouped, plural, rate},
};

const INDENT: usize = 7;

/// Writes it.
pub fn write(out: &mut dyn Write, diff: &Diff, style: &Style) -> io::Result<()> {
    let mut page = Paper::new(style);
    verdict(&mut page, diff);
    sides(&mut page, diff);
    culprits(&mut page, diff);
    rates(&mut page, diff);
    groups(&mut page, diff);
    out.write_all(page.text().as_bytes())
}

fn verdict(page: &mut Paper, diff: &Diff) {
    let of = |change| diff.culprits.iter().filter(|culprit| culprit.change == change).count();
    let say = |change, one: &str, many: &str| match of(change) {
        0 => None,
        1 => Some(format!("1 culprit {one}")),
        some => Some(format!("{some} culprits {many}")),
    };
    let parts: Vec<_> = [
        say(Change::New, "is new", "are new"),
        say(Change::More, "has more findings", "have more findings"),
        say(Change::Less, "has fewer findings", "have fewer findings"),
        say(Change::Gone, "is gone", "are gone"),
        say(Change::Same, "is as before", "are as before"),
        say(
            Change::Unclear,
            "has too few new findings to tell",
            "have too few new findings to tell",
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let better = of(Change::Less) + of(Change::Gone) > 0;
    let (colour, word) = match (diff.worse, better) {
        (true, _) => (BAD, "Worse"),
        (false, true) => (GOOD, "Better"),
        (false, false) => (GOOD, "No worse"),
    };
    match &parts[..] {
        [] => page.words(Some(colour), 0, 0, "No worse: nothing lingered in either recording."),
        parts => page.words(Some(colour), 0, 0, &format!("{word}: {}.", parts.join(", "))),
    }
    page.line(None, "");
}

fn sides(page: &mut Paper, diff: &Diff) {
    let say = |page: &Paper, name: &str, side: &Side| {
        let lost = match side.lost {
            _ if side.whole => String::new(),
            0 => ", not whole, so its counts are lower bounds".to_owned(),
            lost => {
                format!(", {} lost, so its counts are lower bounds", plural(lost, "transition"))
            }
        };
        let before = match side.before {
            0 => String::new(),
            before => format!(", {} of them from before", grouped(before)),
        };
        let only = if side.findings_only { "; nothing else was recorded" } else { "" };
        format!(
            "{name}: {} from {} {}, {}{before}{lost}{only}",
            duration(side.duration_ns),
            page.moment(side.from, true),
            page.zone(side.from),
            plural(side.findings, "finding")
        )
    };
    for (name, side) in [("A", &diff.a), ("B", &diff.b)] {
        let line = say(page, name, side);
        page.words(None, 0, 3, &line);
    }
    if diff.a.linger_ns != diff.b.linger_ns {
        let line = format!(
            "Findings do not compare: they had to linger for {} in A, for {} in B.",
            duration(diff.a.linger_ns),
            duration(diff.b.linger_ns)
        );
        page.words(Some(colour::WARN), 0, 0, &line);
    }
}

fn culprits(page: &mut Paper, diff: &Diff) {
    if diff.culprits.is_empty() {
        return;
    }
    page.heading("CULPRITS");
    for culprit in diff.culprits.iter().take(page.top) {
        let colour = match culprit.change {
            Change::New | Change::More => BAD,
            Change::Less | Change::Gone => GOOD,
            Change::Same | Change::Unclear => DIM,
        };
        page.words(Some(colour), 0, INDENT, &title(culprit));
        page.words(None, INDENT, INDENT, &both(culprit));
        if matches!(culprit.change, Change::New | Change::More)
            && let Some(summary) = &culprit.summary
        {
            page.words(Some(DIM), INDENT, INDENT, summary);
        }
    }
    hidden(page, diff.culprits.len(), "culprit");
}

fn hidden(page: &mut Paper, all: usize, what: &str) {
    if all > page.top {
        let more = plural((all - page.top) as u64, &format!("more {what}"));
        page.words(Some(DIM), 0, 0, &format!("and {more} (--top shows them)"));
    }
}

fn title(culprit: &CulpritChange) -> String {
    let who = culprit.comm.as_deref().unwrap_or("nobody known");
    let verdicts = match (&culprit.a.verdicts[..], &culprit.b.verdicts[..]) {
        (a, []) => a.join(", "),
        ([], b) => b.join(", "),
        (a, b) if a == b => b.join(", "),
        (a, b) => format!("{}, now {}", a.join(", "), b.join(", ")),
    };
    let place = place(culprit.role.as_deref(), &culprit.end);
    format!("{:<7}{who} {place}: {verdicts}", culprit.change.word())
}

fn both(culprit: &CulpritChange) -> String {
    let say = |leaks: &Leaks| {
        let before = match leaks.before {
            0 => String::new(),
            before => format!(", {} of them from before", grouped(before)),
        };
        match leaks.count {
            0 => "none".to_owned(),
            count => format!("{}{before} ({}/min)", grouped(count), rate(leaks.per_minute)),
        }
    };
    let doubt = match (culprit.change, culprit.certain) {
        _ if culprit.a.began() + culprit.b.began() == 0 => {
            "; none began in a recording, so how fast they come is not known"
        }
        (Change::New | Change::Gone, false) => "; so few that it may be chance",
        (Change::Unclear, _) => "; too few to tell",
        _ => "",
    };
    let longest = match culprit.b.longest_ns.max(culprit.a.longest_ns) {
        0 => String::new(),
        ns => format!(", the longest {}", duration(ns)),
    };
    format!("{} -> {}{longest}{doubt}", say(&culprit.a), say(&culprit.b))
}

fn place(role: Option<&str>, end: &str) -> String {
    match role {
        Some("client") => format!("to {end}"),
        Some(_) => format!("at {end}"),
        None => format!("with {end}"),
    }
}

const COLUMNS: [Column; 4] = [
    Column { title: "PER MINUTE", align: Align::Left, rank: 0 },
    Column { title: "A", align: Align::Right, rank: 0 },
    Column { title: "B", align: Align::Right, rank: 0 },
    Column { title: "CHANGE", align: Align::Left, rank: 0 },
];

fn rates(page: &mut Paper, diff: &Diff) {
    let rows: Vec<_> = diff
        .rates
        .iter()
        .filter(|rate| rate.a + rate.b > 0)
        .map(|of| {
            let name = match of.what {
                "opened" | "closed" | "failed" => format!("connections {}", of.what),
                "findings" => "new findings".to_owned(),
                other => other.to_owned(),
            };
            let cells = vec![name, rate(of.a_per_minute), rate(of.b_per_minute), change(of)];
            ((!of.change.is_one()).then_some(DIM), cells)
        })
        .collect();
    if !rows.is_empty() {
        page.heading("RATES");
        Table { columns: COLUMNS.to_vec(), rows }.write(page);
    }
}

/// `more, x 2.1`.
fn change(of: &RateChange) -> String {
    match of.change {
        Change::More | Change::Less if of.a > 0 && of.b > 0 => {
            format!("{}, x {}", of.change.word(), rate(of.b_per_minute / of.a_per_minute))
        }
        Change::Unclear => "too few to tell".to_owned(),
        other => other.word().to_owned(),
    }
}

fn groups(page: &mut Paper, diff: &Diff) {
    let changed: Vec<_> = diff.groups.iter().filter(|group| group.is_one()).collect();
    let same = diff.groups.len() - changed.len();
    if diff.groups.is_empty() {
        return;
    }
    page.heading("CONNECTIONS by process and service");
    for group in changed.iter().take(page.top) {
        let who = group.comm.as_deref().unwrap_or("nobody known");
        page.words(None, 0, 2, &format!("{who} {}", place(group.role, &group.end)));
        page.words(None, 2, 4, &changes(group).join("; "));
    }
    hidden(page, changed.len(), "changed group");
    if same > 0 {
        let line = format!("{} without a change beyond chance", plural(same as u64, "group"));
        page.words(Some(DIM), 0, 2, &line);
    }
}

fn changes(group: &GroupChange) -> Vec<String> {
    let opened = group.opened.change.is_one().then(|| {
        let of = &group.opened;
        let (a, b) = (rate(of.a_per_minute), rate(of.b_per_minute));
        format!("opened {a} -> {b} per minute ({})", of.change.word())
    });
    let durations = group.durations().into_iter().filter(|(_, of)| of.change.is_one());
    let told = durations.map(|(what, of)| {
        let word = if of.change == Change::More { "longer" } else { "shorter" };
        let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), duration);
        format!("{what} {} -> {} ({word})", time(of.a_ns), time(of.b_ns))
    });
    opened.into_iter().chain(told).collect()
}
