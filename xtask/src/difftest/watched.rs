//! `--pid` of one process, beside the run that shows everybody.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::{
    report::Report,
    said::{Line, Live, Transition, What},
    state::State,
};

/// How far apart two programs are that run at the same transition.
const SAME_NS: u64 = 3_000_000;

/// Within this time the order tells which is which.
const AT_ONCE_NS: u64 = 50_000;

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
    let mut shown: HashMap<Name, Vec<&Line>> = HashMap::new();
    for line in some {
        match &line.what {
            What::Transition(said) => shown.entry(name(said)).or_default().push(line),
            What::Lost(count) => {
                report.deviation("pid-lost", since, &format!("{count} lost: {}", line.text));
            }
            _ => {}
        }
    }
    let mut told: HashMap<Name, Vec<&Transition>> = HashMap::new();
    for said in all.iter().filter_map(Line::transition) {
        told.entry(name(said)).or_default().push(said);
    }
    let mut judge = Judge { part, pid, since, until, report, shown, told };
    for (name, life) in lives(all) {
        judge.life(name, &life);
    }
    for line in std::mem::take(&mut judge.shown).into_values().flatten() {
        if let Some(said) = line.transition().filter(|said| said.mono_ns > since + SAME_NS) {
            let detail = format!("--pid of the {part} {pid}: {}", line.text);
            judge.report.deviation("pid-invented", said.mono_ns, &detail);
        }
    }
}

struct Judge<'a, 'b> {
    part: Part,
    pid: i32,
    since: u64,
    until: u64,
    report: &'b mut Report,
    /// Lines of the process that have not been found among all.
    shown: HashMap<Name, Vec<&'a Line>>,
    /// All lines.
    told: HashMap<Name, Vec<&'a Transition>>,
}

impl Judge<'_, '_> {
    /// What is shown of it has no gap and goes on to its end; what the process opened is shown from its
    /// beginning.
    fn life(&mut self, name: Name, life: &Life<'_>) {
        let found: Vec<bool> = life.0.iter().map(|line| self.take(name, line)).collect();
        let Some(first) = life.0.first().and_then(|line| line.transition()) else { return };
        if first.mono_ns < self.since + SAME_NS {
            return;
        }
        let opens = [State::SYN_SENT, State::LISTEN].contains(&first.new);
        let own = opens && first.owner.as_ref().is_some_and(|owner| owner.pid == self.pid);
        let from =
            if own { 0 } else { found.iter().position(|found| *found).unwrap_or(found.len()) };
        if from < found.len() {
            self.report.compared("lives with --pid", 1);
        }
        for (line, found) in life.0.iter().zip(found).skip(from) {
            let at = line.transition().map_or(0, |said| said.mono_ns);
            if !found && at < self.until {
                let (part, pid) = (self.part, self.pid);
                let detail = format!("--pid of the {part} {pid} does not show {}", line.text);
                return self.report.deviation("pid-breaks-off", at, &detail);
            }
        }
    }

    /// Whether the process's run has this line, too; each is found once.
    fn take(&mut self, name: Name, line: &Line) -> bool {
        let (Some(said), Some(lines)) = (line.transition(), self.shown.get_mut(&name)) else {
            return false;
        };
        let like = |one: &Transition| (one.old, one.new) == (said.old, said.new);
        let told = &self.told[&name];
        // A socket may go the same way again at once.
        let same = |line: &&Line| {
            line.transition().is_some_and(|one| {
                let distance = |other: &Transition| one.mono_ns.abs_diff(other.mono_ns);
                let nearest = told.iter().filter(|other| like(other)).map(|other| distance(other));
                let most = nearest.min().unwrap_or(0).saturating_add(AT_ONCE_NS).min(SAME_NS);
                like(one) && distance(said) <= most
            })
        };
        let at = lines.iter().position(same);
        at.map(|at| lines.remove(at)).is_some()
    }
}

/// All lives, in the order in which they began. MPTCP connections have the cookie of their listener.
fn lives(all: &[Line]) -> Vec<(Name, Life<'_>)> {
    let mut begun: BTreeMap<usize, (Name, Life<'_>)> = BTreeMap::new();
    let mut current: HashMap<(Name, Option<u64>), usize> = HashMap::new();
    for (at, line) in all.iter().enumerate() {
        let Some(said) = line.transition() else { continue };
        let name = name(said);
        let begins =
            said.old == State::CLOSE || said.old == State::LISTEN && said.new != State::CLOSE;
        if begins {
            current.insert((name, said.socket), at);
        }
        let life = *current.entry((name, said.socket)).or_insert(at);
        begun.entry(life).or_insert_with(|| (name, Life::default())).1.0.push(line);
    }
    begun.into_values().collect()
}

fn name(said: &Transition) -> Name {
    (said.cookie.unwrap_or(0), said.is_mptcp())
}
