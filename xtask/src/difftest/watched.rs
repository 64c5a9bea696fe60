//! `--pid` of one process, beside the run that shows everybody.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use super::{
    report::Report,
    said::{Line, Live, Transition, What},
    state::State,
};

/// How far apart two programs are that run at the same transition.
const SAME_NS: u64 = 3_000_000;

/// What a watched process is to its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It listens, and its child accepts, too.
    Parent,
    Worker,
    /// It lives in a network namespace in which it connects.
    Client,
    /// A program that holds what it inherited.
    Helper,
}

impl Part {
    pub(super) fn of(seed: u64) -> Self {
        [Self::Parent, Self::Worker, Self::Client, Self::Helper]
            [usize::from(seed.to_le_bytes()[0] % 4)]
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parent => "parent",
            Self::Worker => "worker",
            Self::Client => "client",
            Self::Helper => "helper",
        })
    }
}

/// The run that watches it.
pub(super) struct Watched {
    pub(super) part: Part,
    pub(super) pid: i32,
    /// When it began to watch.
    pub(super) since: u64,
    pub(super) live: Live,
}

/// Names a connection in both runs: a cookie is the kernel's.
type Name = (u64, bool);

/// One life of a socket: until it is closed.
#[derive(Default)]
struct Life<'a>(Vec<&'a Line>);

/// Compares what was said of this process with what was said of all. `until` is when it ended.
pub(super) fn check(
    all: &[Line],
    some: &[Line],
    (part, pid): (Part, i32),
    (since, until): (u64, u64),
    report: &mut Report,
) {
    let (told, mut shown) = (changes(all), changes(some));
    let mut found = HashSet::new();
    for (change, told) in told {
        if let Some(shown) = shown.get_mut(&change) {
            found.extend(pair_up(&told, shown).into_iter().map(std::ptr::from_ref));
        }
    }
    let judge = Judge { part, pid, since, until, found };
    for life in lives(all) {
        judge.life(&life, report);
    }
    for (line, said) in shown.into_values().flatten() {
        if said.mono_ns > since + SAME_NS {
            let detail = format!("--pid of the {part} {pid}: {}", line.text);
            report.deviation("pid-invented", said.mono_ns, &detail);
        }
    }
}

/// Nothing is lost.
pub(super) fn nothing_lost(some: &[Line], since: u64, report: &mut Report) {
    for line in some {
        if let What::Lost(count) = &line.what {
            report.deviation("pid-lost", since, &format!("{count} lost: {}", line.text));
        }
    }
}

type Said<'a> = (&'a Line, &'a Transition);

/// What was said of each way that a socket went, in order of time.
fn changes(lines: &[Line]) -> HashMap<(Name, State, State), Vec<Said<'_>>> {
    let mut changes: HashMap<_, Vec<Said<'_>>> = HashMap::new();
    for line in lines {
        let Some(said) = line.transition() else { continue };
        changes.entry((name(said), said.old, said.new)).or_default().push((line, said));
    }
    for said in changes.values_mut() {
        said.sort_by_key(|(_, said)| said.mono_ns);
    }
    changes
}

/// Returns those that both said, and leaves those of `shown` that only it did. In order, as many as
/// possible, and then the nearest: a socket may go the same way again at once.
fn pair_up<'a>(told: &[Said<'a>], shown: &mut Vec<Said<'_>>) -> Vec<&'a Line> {
    let distance = |i: usize, j: usize| told[i].1.mono_ns.abs_diff(shown[j].1.mono_ns);
    let (rows, columns) = (told.len(), shown.len());
    // The best of what comes first: pairs, and how near they are.
    let mut best = vec![vec![(0, Reverse(0)); columns + 1]; rows + 1];
    for i in 0..rows {
        for j in 0..columns {
            let (pairs, Reverse(apart)) = best[i][j];
            let here = (pairs + 1, Reverse(apart + distance(i, j)));
            let without = best[i][j + 1].max(best[i + 1][j]);
            best[i + 1][j + 1] = if distance(i, j) < SAME_NS { without.max(here) } else { without };
        }
    }
    let (mut i, mut j, mut both) = (rows, columns, Vec::new());
    while i > 0 && j > 0 {
        if best[i][j] == best[i - 1][j] {
            i -= 1;
        } else if best[i][j] == best[i][j - 1] {
            j -= 1;
        } else {
            (i, j) = (i - 1, j - 1);
            both.push(told[i].0);
            shown.remove(j);
        }
    }
    both
}

struct Judge {
    part: Part,
    pid: i32,
    since: u64,
    until: u64,
    /// Lines that the process's run has, too.
    found: HashSet<*const Line>,
}

impl Judge {
    /// What is shown of it has no gap and goes on to its end; what the process opened is shown from its
    /// beginning.
    fn life(&self, life: &Life<'_>, report: &mut Report) {
        let found = |line: &Line| self.found.contains(&std::ptr::from_ref(line));
        let Some(first) = life.0.first().and_then(|line| line.transition()) else { return };
        if first.mono_ns < self.since + SAME_NS {
            return;
        }
        let opens = [State::SYN_SENT, State::LISTEN].contains(&first.new);
        let own = opens && first.owner.as_ref().is_some_and(|owner| owner.pid == self.pid);
        let begins = life.0.iter().position(|line| found(line)).unwrap_or(life.0.len());
        let from = if own { 0 } else { begins };
        if from < life.0.len() {
            report.compared("lives with --pid", 1);
        }
        for line in &life.0[from..] {
            let at = line.transition().map_or(0, |said| said.mono_ns);
            if !found(line) && at < self.until {
                let (part, pid) = (self.part, self.pid);
                let detail = format!("--pid of the {part} {pid} does not show {}", line.text);
                return report.deviation("pid-breaks-off", at, &detail);
            }
        }
    }
}

/// All lives, in the order in which they began. MPTCP connections have the cookie of their listener.
fn lives(all: &[Line]) -> Vec<Life<'_>> {
    let mut begun: BTreeMap<usize, Life<'_>> = BTreeMap::new();
    let mut current: HashMap<(Name, Option<u64>), usize> = HashMap::new();
    for (at, line) in all.iter().enumerate() {
        let Some(said) = line.transition() else { continue };
        let name = (name(said), said.socket);
        let begins =
            said.old == State::CLOSE || said.old == State::LISTEN && said.new != State::CLOSE;
        if begins {
            current.insert(name, at);
        }
        let life = *current.entry(name).or_insert(at);
        begun.entry(life).or_default().0.push(line);
    }
    begun.into_values().collect()
}

fn name(said: &Transition) -> Name {
    (said.cookie.unwrap_or(0), said.is_mptcp())
}
