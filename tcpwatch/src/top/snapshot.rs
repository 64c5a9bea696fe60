//! What one drawing shows: the numbers of the header, and the first rows of what was asked for.
//!
//! Its cost is bounded by [`MOST_ROWS`], whatever there is; only a filter has to look at all that it
//! filters.

use std::sync::Arc;

use super::model::{Group, Model, Open, Path, Seconds, Which};
use crate::core::{
    advice,
    culprits::Key,
    evidence,
    finding::{Finding, Verdict},
    growth::Growth,
    process::ProcessFacts,
    socket::SocketId,
    time::{ClockMark, Nanos, Timestamp},
};

/// Rows of a list; a filter finds the others.
pub const MOST_ROWS: usize = 500;

/// Which screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Culprits.
    #[default]
    Culprits,
    /// The sockets of one.
    Sockets(Key),
    /// Findings that have ended.
    Ended,
    /// One socket.
    Story(Which),
}

/// What to take a snapshot of.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Which screen.
    pub place: Place,
    /// Only what has this in it, in small letters.
    pub filter: String,
    /// Sockets: the youngest first; of what has ended what ended first.
    pub reversed: bool,
    /// Culprits: the one to say more of; `None` is the first.
    pub selected: Option<Key>,
    /// The socket that is selected, or the oldest of the selected culprit.
    pub socket: Option<SocketId>,
    /// Somebody has selected that socket, and it is not only the first.
    pub held: bool,
}

/// A moment of the model.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is always shown.
    pub header: Header,
    /// What the screen shows.
    pub page: Page,
    /// The culprit that was asked for, by what its findings share now.
    pub culprit: Option<Key>,
}

/// What is always shown.
#[derive(Clone, Debug)]
pub struct Header {
    /// When.
    pub now: Timestamp,
    /// Places that in wall time.
    pub clock: ClockMark,
    /// For how long it has been watched.
    pub watched: Nanos,
    /// Transitions per second.
    pub rate: Option<u64>,
    /// Sockets tracked.
    pub tracked: Option<u64>,
    /// Sockets in `CLOSE_WAIT`,
    pub close_wait: Option<u64>,
    /// or where that is not known those that linger.
    pub lingering: u64,
    /// The same, by the second.
    pub recently: Seconds,
    /// Findings that are open,
    pub open: usize,
    /// and that have ended.
    pub ended: u64,
    /// Transitions lost, and how long ago that was learnt.
    pub lost: Option<(u64, Nanos)>,
}

/// What a screen shows.
#[derive(Clone, Debug)]
pub enum Page {
    /// Culprits.
    Culprits(List<CulpritRow>),
    /// The sockets of one.
    Sockets(Option<Box<CulpritRow>>, List<SocketRow>),
    /// Findings that have ended, the latest first.
    Ended(List<SocketRow>),
    /// One socket; `None` if nothing is known of it any more.
    Story(Option<Box<Story>>),
}

/// The first rows of a list.
#[derive(Clone, Debug)]
pub struct List<T> {
    /// The first [`MOST_ROWS`].
    pub rows: Vec<T>,
    /// How many pass the filter.
    pub matching: usize,
    /// How many there are.
    pub total: usize,
}

/// A culprit.
#[derive(Clone, Debug)]
pub struct CulpritRow {
    /// What its findings share.
    pub key: Key,
    /// How many are open.
    pub count: usize,
    /// The age of the oldest,
    pub oldest: Nanos,
    /// or of one that may be older.
    pub at_least: bool,
    /// How fast it grows.
    pub growth: Option<Growth>,
    /// When its process runs out of descriptors.
    pub limit: Option<Nanos>,
    /// What its process says of itself.
    pub process: Option<Arc<ProcessFacts>>,
    /// Its oldest socket.
    pub socket: Option<SocketId>,
    /// Of the one that is selected: what to know of its oldest.
    pub why: Option<Why>,
}

/// What is known of the oldest finding of a culprit.
#[derive(Clone, Debug)]
pub struct Why {
    /// A sentence.
    pub summary: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub todo: &'static str,
}

/// A socket of a culprit, or one that has ended.
#[derive(Clone, Debug)]
pub struct SocketRow {
    /// Which.
    pub which: Which,
    /// For how long it lingers, or lingered.
    pub age: Nanos,
    /// Everything else.
    pub finding: Arc<Finding>,
}

/// All there is to say of one socket.
#[derive(Clone, Debug)]
pub struct Story {
    /// As it stands now.
    pub finding: Finding,
    /// When it was looked at.
    pub looked: Timestamp,
    /// Which states it went through.
    pub path: Path,
    /// How many findings its culprit has, this one included; 0 if it has ended.
    pub same: usize,
}

impl Model {
    /// What to show now.
    pub fn snapshot(&self, query: &Query) -> Snapshot {
        let asked = match query.place {
            Place::Culprits => query.selected,
            Place::Sockets(key) => Some(key),
            Place::Ended | Place::Story(_) => None,
        };
        let group = asked.and_then(|key| self.group(&key, query.socket, query.held));
        let page = match query.place {
            Place::Culprits => Page::Culprits(self.culprits(query, group.map(|group| group.key))),
            Place::Sockets(_) => {
                let sockets = group.map(|group| self.sockets(group, query));
                let none = || List { rows: Vec::new(), matching: 0, total: 0 };
                Page::Sockets(
                    group.map(|group| Box::new(self.row(group))),
                    sockets.unwrap_or_else(none),
                )
            }
            Place::Ended => Page::Ended(self.ended(query)),
            Place::Story(which) => {
                Page::Story(self.finding(which).map(|open| Box::new(self.story(open))))
            }
        };
        Snapshot { header: self.header(), page, culprit: group.map(|group| group.key).or(asked) }
    }

    fn header(&self) -> Header {
        let census = self.census;
        Header {
            now: self.now(),
            clock: *self.clock(),
            watched: self.watched(),
            rate: self.rate(),
            tracked: census.tracked,
            close_wait: census.close_wait,
            lingering: census.lingering,
            recently: self.close_wait.clone(),
            open: self.open(),
            ended: self.ended,
            lost: self.lost.map(|(total, at)| (total, self.now().since(at))),
        }
    }

    /// Every finding of what a snapshot shows the first rows of.
    pub fn listed(&self, query: &Query) -> Vec<Arc<Finding>> {
        let finding = |open: &Open| Arc::clone(&open.finding);
        match query.place {
            Place::Culprits => {
                let groups = self.groups.iter().filter(|group| self.matches(group, &query.filter));
                groups.flat_map(|group| self.members(group)).map(finding).collect()
            }
            Place::Sockets(key) => {
                let group = self.group(&key, query.socket, query.held);
                let members = group.map(|group| self.members(group));
                let matching = |open: &&Open| text_of(&open.finding).contains(&query.filter);
                members.into_iter().flatten().filter(matching).map(finding).collect()
            }
            Place::Ended => {
                let matching = |open: &&Open| ended_text(&open.finding).contains(&query.filter);
                self.over().rev().filter(matching).map(finding).collect()
            }
            Place::Story(which) => self.finding(which).map(finding).into_iter().collect(),
        }
    }

    fn matches(&self, group: &Group, filter: &str) -> bool {
        group.text.contains(filter) || filter.contains(['.', ':']) && self.has_peer(group, filter)
    }

    fn culprits(&self, query: &Query, selected: Option<Key>) -> List<CulpritRow> {
        let matches = |group: &&Group| self.matches(group, &query.filter);
        let (mut rows, matching) =
            first(self.groups.iter(), matches, &query.filter, |group| self.row(group));
        let selected = rows.iter().position(|row| Some(row.key) == selected).unwrap_or(0);
        if let Some(row) = rows.get_mut(selected) {
            row.why = self.why(&row.key);
        }
        let total = self.groups.len();
        List { rows, matching: matching.unwrap_or(total), total }
    }

    /// The peers of a server are not what its findings share.
    fn has_peer(&self, group: &Group, filter: &str) -> bool {
        use std::fmt::Write as _;
        let mut text = String::new();
        self.members(group).any(|open| {
            text.clear();
            let _ = write!(text, "{}", open.finding.socket.remote);
            text.contains(filter)
        })
    }

    fn row(&self, group: &Group) -> CulpritRow {
        CulpritRow {
            key: group.key,
            count: group.sockets.len(),
            oldest: self.now().since(group.since()),
            at_least: group.at_least > 0,
            growth: group.growth,
            limit: group.limit,
            process: group.process.clone(),
            socket: group.sockets.first().map(|&(_, id)| id),
            why: None,
        }
    }

    fn why(&self, key: &Key) -> Option<Why> {
        let oldest = self.members(self.groups.get(key)?).next()?;
        let finding = oldest.finding.as_of(self.now());
        Some(Why {
            summary: advice::summary(&finding),
            evidence: evidence::dated_line(&finding),
            todo: advice::remedy_in_short(finding.verdict),
        })
    }

    fn sockets(&self, group: &Group, query: &Query) -> List<SocketRow> {
        let members = self.members(group);
        let members: Box<dyn Iterator<Item = &Open>> =
            if query.reversed { Box::new(members.rev()) } else { Box::new(members) };
        let matches = |open: &&Open| text_of(&open.finding).contains(&query.filter);
        let (rows, matching) = first(members, matches, &query.filter, |open| SocketRow {
            which: open.finding.socket.id.unwrap_or(SocketId(0)).into(),
            age: self.now().since(open.finding.at - open.finding.linger),
            finding: Arc::clone(&open.finding),
        });
        let total = group.sockets.len();
        List { rows, matching: matching.unwrap_or(total), total }
    }

    fn ended(&self, query: &Query) -> List<SocketRow> {
        let all = self.over();
        let all: Box<dyn Iterator<Item = &Open>> =
            if query.reversed { Box::new(all) } else { Box::new(all.rev()) };
        let matches = |open: &&Open| ended_text(&open.finding).contains(&query.filter);
        let (rows, matching) = first(all, matches, &query.filter, |open| SocketRow {
            which: Which {
                id: open.finding.socket.id.unwrap_or(SocketId(0)),
                ended: Some(open.finding.at),
            },
            age: open.finding.linger,
            finding: Arc::clone(&open.finding),
        });
        let total = self.over().count();
        List { rows, matching: matching.unwrap_or(total), total }
    }

    fn story(&self, open: &Open) -> Story {
        let finding = &open.finding;
        let over = finding.ending.is_some();
        Story {
            finding: if over { (**finding).clone() } else { finding.as_of(self.now()) },
            looked: finding.evidence.seen,
            path: open.path,
            same: if over { 0 } else { self.group_of(open).map_or(0, |group| group.sockets.len()) },
        }
    }
}

/// The first rows, and how many match if that had to be found out.
fn first<T, R>(
    all: impl Iterator<Item = T>,
    matches: impl Fn(&T) -> bool,
    filter: &str,
    row: impl Fn(T) -> R,
) -> (Vec<R>, Option<usize>) {
    if filter.is_empty() {
        return (all.take(MOST_ROWS).map(row).collect(), None);
    }
    let mut rows = Vec::new();
    let mut matching = 0;
    for item in all.filter(matches) {
        matching += 1;
        if rows.len() < MOST_ROWS {
            rows.push(row(item));
        }
    }
    (rows, Some(matching))
}

/// What a filter looks at where findings have ended, in small letters.
fn ended_text(finding: &Finding) -> String {
    let owner = finding.socket.owner.map(|owner| owner.process.to_string()).unwrap_or_default();
    let verdict = finding.verdict.map_or("unconfirmed", Verdict::word);
    let how = finding.ending.map_or("", |ending| ending.cause.word());
    format!("{} {} {verdict} {how}", text_of(finding), owner.to_lowercase())
}

/// What a filter looks at, in small letters.
fn text_of(finding: &Finding) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{} {} {}", finding.socket.local, finding.socket.remote, finding.state);
    for holder in &finding.holders {
        let _ = write!(text, " {} fd {}", holder.process, holder.fd);
    }
    text.make_ascii_lowercase();
    text
}
