//! The only place that puts table, listeners and linger table in order.
//!
//! Every input first moves time on to its own, so deadlines fire in the same order whatever the
//! scheduler did: live and replay of the same inputs yield the same events. Time never goes
//! back; records of two CPUs may arrive a few µs out of order, and durations saturate.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    culprits::{Culprit, Culprits},
    filter::Filter,
    finding::{Cause, Finding, Status},
    input::{Input, Observation, Scope, Transition},
    linger::LingerTable,
    lingering::Context,
    listeners::Listeners,
    names::Names,
    record::{Census, Event, Lost, Place, Summary},
    settle::Settler,
    socket::{Holder, How, Socket, SocketId},
    state::State,
    table::SocketTable,
    time::{ClockMark, Nanos, Timestamp},
    unseen::Unseen,
};

/// What to conclude and what to show.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A socket that lingers this long is a finding.
    pub linger: Nanos,
    /// What to show.
    pub filter: Filter,
    /// Show findings only.
    pub findings_only: bool,
    /// Count deliberate half-closes as findings.
    pub include_half_open: bool,
    /// Tell of groups of findings as they grow, and not only at the end.
    pub tell_culprits: bool,
}

/// How long what a process did may come in after its end.
pub const LAST_WORDS: Nanos = Nanos(2_000_000_000);

/// Owners that the summary tells apart.
const MOST_OWNERS: usize = 1024;

/// The machine that both sources drive: inputs in, events out.
pub struct Tracker {
    rules: Rules,
    clock: ClockMark,
    now: Timestamp,
    started: Option<Timestamp>,
    pass: Option<(Timestamp, Scope)>,
    /// What the last pass covered.
    covered: Option<Scope>,
    /// Sockets that the present pass over everything has seen.
    alive: FxHashSet<SocketId>,
    /// Processes that have ended since the present pass began.
    gone: FxHashSet<u32>,
    table: SocketTable,
    listeners: Listeners,
    lingering: LingerTable,
    settler: Settler,
    names: Names,
    culprits: Culprits,
    /// Watched processes that have ended; what they did last may still come in, and then somebody else
    /// may get their ids. In order of time, and by id.
    ended: VecDeque<(Timestamp, u32)>,
    ended_at: FxHashMap<u32, Timestamp>,
    totals: Summary,
    /// Open findings that were told of, where who is watched may change.
    told: FxHashSet<SocketId>,
    lost_since_pass: bool,
    /// Since the present pass has begun: what it saw may have changed unseen.
    lost_in_pass: bool,
}

impl Tracker {
    /// A tracker that has seen nothing yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            lingering: LingerTable::new(&rules),
            table: SocketTable::new(table_has_whole_paths(&rules.filter)),
            rules,
            clock: ClockMark::default(),
            now: Timestamp::default(),
            started: None,
            pass: None,
            covered: None,
            alive: FxHashSet::default(),
            gone: FxHashSet::default(),
            listeners: Listeners::default(),
            settler: Settler::default(),
            names: Names::default(),
            culprits: Culprits::default(),
            ended: VecDeque::new(),
            ended_at: FxHashMap::default(),
            told: FxHashSet::default(),
            totals: Summary::default(),
            lost_since_pass: false,
            lost_in_pass: false,
        }
    }

    /// Takes one input, and appends what follows from it to `events`.
    pub fn push(&mut self, input: Input, events: &mut Vec<Event>) {
        self.advance(input.at());
        match input {
            Input::Clock(mark) => {
                self.clock = mark;
                events.push(Event::Census(self.census()));
            }
            Input::Transition(transition) => self.transition(transition, events),
            Input::Observed(observation) => self.observed(&observation, events),
            Input::PassBegin { at, scope } => {
                (self.pass, self.covered) = (Some((at, scope)), Some(scope));
                self.lost_in_pass = false;
                self.alive.clear();
                self.gone.clear();
                if matches!(scope, Scope::Everything | Scope::Lingering) {
                    self.names.begin_scan();
                }
            }
            Input::PassEnd { .. } => {
                if let Some((started, scope)) = self.pass.take() {
                    self.pass_ended(started, scope, events);
                }
            }
            Input::Gone { at, id } => {
                self.lingering.gone(id);
                self.listeners.gone(id, at);
            }
            Input::Unseen { what, .. } => {
                if !self.totals.unseen.contains(&what) {
                    self.totals.unseen.push(what);
                }
            }
            Input::Lost { at, count } => self.lost(at, count, Place::Ring, events),
            Input::Gap { at, count } => {
                // What a pass saw is not all, and a process may have ended.
                self.pass = None;
                self.listeners.doubt();
                self.lingering.doubt(self.now);
                self.names.doubt();
                self.lost(at, count, Place::Recording, events);
            }
            Input::Running { pid, .. } => self.listeners.running(pid),
            Input::Exited { at, pid } => {
                self.listeners.exited(pid);
                self.names.exited(pid);
                if self.pass.is_some() {
                    self.gone.insert(pid);
                }
                if self.rules.filter.pids.contains(&pid) {
                    self.ended.push_back((at, pid));
                    self.ended_at.insert(pid, at);
                }
            }
            Input::Process(facts) => self.names.learn(facts),
            Input::Namespace { inode, name, .. } => {
                if self.names.name(inode, name) {
                    self.rules.filter.forget_namespace(inode);
                }
            }
            Input::Followed { pid, .. } if self.rules.filter.follow => {
                self.rules.filter.pids.insert(pid);
                self.ended_at.remove(&pid);
            }
            Input::Followed { .. } | Input::End { .. } => {}
            Input::PassFailed { .. } => {
                self.pass = None;
                self.give_up(self.now, events);
            }
        }
    }

    /// The clock that is in force: it places the time of an event in wall time.
    pub fn clock(&self) -> &ClockMark {
        &self.clock
    }

    /// When [`Self::push`] of a clock mark has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.lingering.next_deadline()
    }

    /// The pass that is needed now, if any.
    pub fn wants_pass(&self) -> Option<Scope> {
        let lost = self.lost_since_pass || self.table.wants_sweep();
        if lost || self.lingering.without_acceptors(&self.listeners).next().is_some() {
            return Some(Scope::Everything);
        }
        let lingering = self.lingering.wants_pass() || self.listeners.wants_sweep();
        // Neither sees what the other is for, so they take turns.
        let turn = !lingering || self.covered != Some(Scope::Watched);
        if self.settler.wants_scan() && turn {
            Some(Scope::Watched)
        } else {
            lingering.then_some(Scope::Lingering)
        }
    }

    /// The latest time of any input.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether the owner of this socket can be named without a pass.
    pub fn can_settle(&self, socket: &Socket) -> bool {
        self.listeners.can_settle(socket)
    }

    /// Whether it is known who holds a listener.
    pub fn knows_listener(&self, id: SocketId) -> bool {
        self.listeners.is_held(id)
    }

    /// Processes that were named since this was last asked, and when: the source should say whether
    /// that process lives, and report its end.
    pub fn named(&mut self) -> BTreeMap<u32, Timestamp> {
        self.listeners.named()
    }

    /// Whether a process is said to hold a listener, and it is not known that it lives.
    pub fn is_claimed(&self, pid: u32) -> bool {
        self.listeners.is_claimed(pid)
    }

    /// Entries in the tables of owners: listeners, processes, namespaces, watched sockets.
    pub fn entries(&self) -> usize {
        let ended = self.ended.len() + self.ended_at.len();
        self.listeners.entries() + self.names.entries() + self.settler.entries() + ended
    }

    /// Whether only some processes are watched, and this is one of them.
    pub fn is_watched(&self, pid: u32) -> bool {
        self.rules.filter.pids.contains(&pid)
    }

    /// Processes of what is due that should say what they do, before the present pass ends. Those
    /// of most sockets come first.
    pub fn wants_processes(&mut self) -> Vec<u32> {
        self.lingering.advance(self.now);
        let mut pids = self.lingering.due_processes(&self.listeners);
        pids.retain(|&pid| self.names.wants(pid, self.now));
        pids
    }

    /// Sockets that are known to linger: a pass should find them.
    pub fn lingering(&self) -> impl Iterator<Item = SocketId> {
        self.lingering.ids()
    }

    /// Whether a socket that lingers is in this network namespace.
    pub fn lingers_in(&self, netns: u32) -> bool {
        self.lingering.has_any_in(netns)
    }

    /// Whether a socket of this network namespace may be open. One whose end a filter hides, or that was lost,
    /// may be until a scan of everything.
    pub fn may_be_open_in(&self, netns: u32) -> bool {
        self.table.has_any_in(netns)
    }

    /// Whether a socket waits for a scan to confirm it.
    pub fn is_due(&self, id: SocketId) -> bool {
        self.lingering.is_due(id)
    }

    /// The groups of all open findings, what hurts most first.
    pub fn culprits(&self) -> Vec<Culprit> {
        self.culprits.all(self.now)
    }

    /// Counts from here on: what came before only led up to it. What is open now is shown as it
    /// stands.
    pub fn begin_here(&mut self, at: Timestamp, events: &mut Vec<Event>) {
        let unseen = std::mem::take(&mut self.totals.unseen);
        self.totals = Summary { unseen, ..Summary::default() };
        self.started = Some(at);
        for mut finding in self.lingering.open_at(at) {
            if self.is_told(&mut finding) {
                finding.status = Status::Still;
                events.push(Event::Finding(Box::new(finding)));
            }
        }
    }

    /// What the scans of this run do not see.
    pub fn unseen(&self) -> &[Unseen] {
        &self.totals.unseen
    }

    /// There will be no pass for what was due by `until`: it is shown as not confirmed.
    pub fn give_up(&mut self, until: Timestamp, events: &mut Vec<Event>) {
        for finding in self.lingering.give_up(until) {
            self.show(finding, events);
        }
    }

    /// Ends the run: the summary is the last event.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Summary {
        self.totals.at = self.now;
        self.totals.findings_only = self.rules.findings_only;
        let wanted = |socket: &Socket, holders: &[Holder]| {
            let watches = |pid| self.rules.filter.pids.contains(&pid);
            self.settler.is_watched(&self.rules.filter, socket)
                || self.is_held_by_watched(holders)
                || !socket.has_file
                    && self.listeners.of(socket).is_some_and(|known| known.pids().any(watches))
        };
        self.totals.undecided = self.lingering.undecided(self.now, wanted) as u64;
        self.totals.duration = self.now.since(self.started.unwrap_or(self.now));
        self.totals.now = self.table.now();
        self.totals.evicted =
            self.table.evicted + self.lingering.overflowed + self.listeners.overflowed;
        self.settler.finish();
        (self.totals.unclaimed, self.totals.others) = (self.settler.unclaimed, self.settler.others);
        events.extend(self.culprits().into_iter().map(|culprit| Event::Culprit(Box::new(culprit))));
        events.push(Event::Summary(Box::new(self.totals.clone())));
        self.totals.clone()
    }

    fn census(&self) -> Census {
        // Of what is not shown no state is kept.
        let tracked = !self.rules.findings_only && self.rules.filter.states.is_empty();
        Census {
            at: self.now,
            tracked: tracked.then(|| self.table.len() as u64),
            close_wait: tracked.then(|| self.table.count(State::CloseWait)),
            lingering: self.lingering.len() as u64,
        }
    }

    fn lost(&mut self, at: Timestamp, count: u64, place: Place, events: &mut Vec<Event>) {
        self.totals.lost = self.totals.lost.saturating_add(count);
        (self.lost_since_pass, self.lost_in_pass) = (true, true);
        self.table.lost(at);
        events.push(Event::Lost(Lost { at, count, total: self.totals.lost, place }));
    }

    fn advance(&mut self, to: Timestamp) {
        self.started.get_or_insert(to);
        self.now = self.now.max(to);
        self.lingering.advance(self.now);
        // At every input, not only at clock marks: those are wherever a scheduler put them.
        self.listeners.forget_closed(self.now);
        let now = self.now;
        while let Some((at, pid)) = self.ended.pop_front_if(|(at, _)| now.since(*at) >= LAST_WORDS)
        {
            // It may have been forked anew.
            if self.ended_at.get(&pid) == Some(&at) {
                self.ended_at.remove(&pid);
                self.rules.filter.forget_process(pid);
            }
        }
    }

    fn transition(&mut self, mut transition: Transition, events: &mut Vec<Event>) {
        if let (Some((_, Scope::Everything)), Some(id)) = (self.pass, transition.socket.id) {
            self.alive.insert(id);
        }
        let owner = self.listeners.settle(&transition.socket);
        self.listeners.apply(&transition);
        // A watched process that called listen stands for what comes in through its listener.
        if is_inherited_by_watched(&self.rules.filter, &transition.socket) {
            transition.socket.watched = true;
        }
        transition.socket.owner = owner;
        let finding = if self.rules.filter.accepts(&transition.socket, transition.new) {
            self.lingering.apply(&transition)
        } else {
            None
        };
        if !self.rules.findings_only && self.rules.filter.accepts_transition(&transition) {
            if self.rules.filter.watches_all() {
                self.show_transition(transition, events);
            } else {
                let (listeners, filter) = (&self.listeners, &self.rules.filter);
                let socket = transition.socket;
                let in_reach = || listeners.is_in_reach(&socket, &filter.pids);
                let ready = self.settler.push(filter, transition, in_reach);
                self.show_transitions(ready, events);
            }
        }
        if transition.new == State::Close
            && let Some(id) = transition.socket.id
        {
            self.table.forget(id);
            self.settler.forget(id);
        }
        if let Some(finding) = finding {
            self.show(finding, events);
        }
    }

    fn show_transitions(&mut self, transitions: Vec<Transition>, events: &mut Vec<Event>) {
        for transition in transitions {
            self.show_transition(transition, events);
        }
    }

    fn show_transition(&mut self, mut transition: Transition, events: &mut Vec<Event>) {
        if self.table.shows_loss(&transition) {
            self.lost(transition.at, 1, Place::Ring, events);
        }
        transition.socket.uncertain = self.table.has_gap(&transition);
        self.totals.transitions += 1;
        self.totals.uncertain += u64::from(transition.socket.uncertain);
        self.totals.sockets += u64::from(self.table.apply(&transition));
        *self.totals.entered.entry(transition.new).or_default() += 1;
        events.push(Event::Transition(transition));
    }

    fn observed(&mut self, observation: &Observation, events: &mut Vec<Event>) {
        let pass_started = self.pass.map_or(self.now, |(started, _)| started);
        let filter = &self.rules.filter;
        let accepted = filter.accepts(&observation.socket, observation.state);
        let scope = self.pass.map(|(_, scope)| scope);
        // A pass for watched processes does not see everyone who holds a listener.
        if scope != Some(Scope::Watched) {
            self.names.observe(observation);
            self.listeners.observe(observation, pass_started);
        }
        if scope == Some(Scope::Everything) {
            self.alive.extend(observation.socket.id);
        }
        let watched = self.settler.is_watched(filter, &observation.socket)
            || observation.holder.is_some_and(|holder| filter.pids.contains(&holder.process.pid));
        if !self.rules.findings_only && !filter.watches_all() {
            let ready = self.settler.observe(&self.rules.filter, observation, pass_started);
            self.show_transitions(ready, events);
        }
        if accepted && watched && !self.rules.findings_only {
            self.table.observe(observation);
        }
        if accepted {
            self.lingering.observe(observation, pass_started);
        }
    }

    fn pass_ended(&mut self, started: Timestamp, scope: Scope, events: &mut Vec<Event>) {
        self.settler.scanned(started, scope);
        if scope == Scope::Everything {
            let alive = std::mem::take(&mut self.alive);
            self.table.retain(&alive);
            self.settler.retain(&alive, started);
            self.lost_since_pass = self.lost_in_pass;
            let waiting: Vec<_> =
                self.lingering.without_acceptors(&self.listeners).copied().collect();
            for socket in &waiting {
                self.listeners.searched(socket);
            }
            events.push(Event::Census(self.census()));
        }
        if scope != Scope::Watched {
            self.listeners.scanned(started, scope);
            self.confirm(started, scope, events);
            if self.rules.tell_culprits {
                let news = self.culprits.news(self.now).into_iter();
                events.extend(news.map(|culprit| Event::Culprit(Box::new(culprit))));
            }
            self.names.forget(self.now);
        }
    }

    fn confirm(&mut self, started: Timestamp, scope: Scope, events: &mut Vec<Event>) {
        self.culprits.count_ends(self.lingering.without_role());
        let Self { listeners, names, gone, lingering, .. } = self;
        let context = Context { listeners, names, gone, started, scope };
        let mut findings = Vec::new();
        lingering.confirm(&context, |finding| findings.push(finding));
        self.gone.clear();
        for finding in findings {
            self.show(finding, events);
        }
    }

    fn show(&mut self, mut finding: Finding, events: &mut Vec<Event>) {
        if !self.is_told(&mut finding) {
            return;
        }
        finding.socket.uncertain = finding.socket.id.is_some_and(|id| self.table.is_uncertain(id));
        match finding.status {
            Status::Open => {
                match finding.verdict {
                    Some(verdict) => *self.totals.verdicts.entry(verdict).or_default() += 1,
                    None => self.totals.unconfirmed += 1,
                }
                let owner = finding.socket.owner.map(|owner| owner.process);
                let owners = &mut self.totals.owners;
                if owners.len() < MOST_OWNERS || owners.contains_key(&owner) {
                    *owners.entry(owner).or_default() += 1;
                } else {
                    self.totals.other_owners += 1;
                }
            }
            Status::Still => {}
            Status::Ended => {
                self.totals.ended += 1;
                let in_use = finding.ending.is_some_and(|ending| ending.cause == Cause::InUse);
                self.totals.retracted += u64::from(in_use);
            }
        }
        self.culprits.apply(&finding, self.now);
        events.push(Event::Finding(Box::new(finding)));
    }

    /// What is told from its beginning is told to its end, whoever has gone by then; what becomes a watched
    /// process's later begins then.
    fn is_told(&mut self, finding: &mut Finding) -> bool {
        let filter = &self.rules.filter;
        let wanted =
            filter.accepts(&finding.socket, finding.state) && self.is_about_watched(finding);
        // Ports, families and namespaces stay as they are.
        if filter.watches_all() && filter.uids.is_empty() {
            return wanted;
        }
        let Some(id) = finding.socket.id else { return wanted };
        match finding.status {
            Status::Ended => self.told.remove(&id),
            Status::Open | Status::Still if self.told.contains(&id) => true,
            Status::Open | Status::Still => {
                finding.status = Status::Open;
                wanted && self.told.insert(id)
            }
        }
    }

    /// A finding is a watched process's if it owns or holds the socket, or listens for it.
    fn is_about_watched(&self, finding: &Finding) -> bool {
        let listening = finding.listener.as_ref().map_or(&[][..], |listener| &listener.holders);
        self.settler.is_watched(&self.rules.filter, &finding.socket)
            || self.is_held_by_watched(&finding.holders)
            || self.is_held_by_watched(listening)
    }

    fn is_held_by_watched(&self, holders: &[Holder]) -> bool {
        holders.iter().any(|holder| self.rules.filter.pids.contains(&holder.process.pid))
    }
}

/// Whether a filter lets all transitions of a socket pass, or none. A socket's user changes when it is
/// accepted, its owner when it is found.
fn table_has_whole_paths(filter: &Filter) -> bool {
    filter.watches_all() && filter.uids.is_empty() && filter.states.is_empty()
}

fn is_inherited_by_watched(filter: &Filter, socket: &Socket) -> bool {
    socket
        .owner
        .is_some_and(|owner| owner.how == How::Listener && filter.pids.contains(&owner.process.pid))
}

const ALL_STATES: u32 = u32::MAX;

/// States in which sockets linger, and `LISTEN`, as a mask for [`Scope::Lingering`].
pub fn scope_states(scope: Scope) -> u32 {
    match scope {
        Scope::Everything => ALL_STATES & !State::TimeWait.bit(),
        Scope::Lingering | Scope::Changes => {
            State::CloseWait.bit() | State::Close.bit() | State::Listen.bit()
        }
        Scope::Watched => ALL_STATES,
    }
}
