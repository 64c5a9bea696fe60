//! Which track a socket's records belong on.
//!
//! A track lies under its owner, and cannot be moved. A connection that was accepted is known to
//! belong to whoever holds the listener before it is known which worker took it, so what happens
//! to a socket waits until its owner is certain, or until the socket ends: a wrong owner is worse
//! than none.

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::{
    drawing::{Drawn, Note},
    owners::Owners,
    packets::Packets,
    recent::Recent,
};
use crate::core::{
    finding::Status,
    input::Transition,
    socket::{How, Owner, Socket, SocketId},
    state::State,
    time::Timestamp,
};

/// Sockets followed at once.
const MOST_SOCKETS: usize = 1_000_000;
/// Records of one socket that wait for its owner,
const MOST_OF_ONE: usize = 16;
/// and of all sockets. Where there are more, what is known must do.
const MOST_WAITING: usize = 262_144;
/// Sockets that are closed, and still have their track if a finding tells of them.
const MOST_CLOSED: usize = 65_536;

/// Every socket that is followed.
pub(super) struct Sockets {
    /// When the recording began; its first transition, where it does not say.
    started: Timestamp,
    open: FxHashMap<SocketId, Tracked>,
    waiting: usize,
    /// Their tracks, and until when those are drawn.
    closed: Recent<SocketId, (u64, Timestamp)>,
    owners: Owners,
    /// Records of sockets that were not followed because there were so many.
    pub(super) unshown: u64,
}

struct Tracked {
    /// As the last transition left it.
    state: Option<State>,
    place: Place,
}

enum Place {
    /// Its owner is not certain.
    Waiting(Vec<Told>),
    Drawn(Drawn),
}

enum Told {
    Transition(Box<Transition>),
    Finding(Box<Note>),
}

impl Sockets {
    pub(super) fn new(started: Timestamp) -> Self {
        Self {
            started,
            open: FxHashMap::default(),
            waiting: 0,
            closed: Recent::new(MOST_CLOSED),
            owners: Owners::new(),
            unshown: 0,
        }
    }

    /// Takes a transition; says in which state the socket was seen last.
    pub(super) fn transition<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        id: SocketId,
        transition: &Transition,
    ) -> io::Result<Option<State>> {
        if self.started == Timestamp(0) {
            self.started = transition.at;
        }
        let Some(mut tracked) = self.take(id) else { return Ok(None) };
        let before = tracked.state.replace(transition.new);
        match &mut tracked.place {
            Place::Drawn(drawn) => drawn.transition(out, self.started, transition)?,
            Place::Waiting(told) => {
                told.push(Told::Transition(Box::new(*transition)));
                self.waiting += 1;
            }
        }
        let over = transition.new == State::Close;
        self.put(out, id, tracked, over)?;
        Ok(before)
    }

    /// Takes a finding. It may tell of a socket that is closed: its fd may be leaked.
    pub(super) fn finding<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        id: SocketId,
        note: Note,
    ) -> io::Result<()> {
        if !self.open.contains_key(&id)
            && let Some((track, last)) = self.closed.get(id)
        {
            // A finding bears the time of its deadline, which may be before the end.
            let at = note.at.max(last);
            self.closed.insert(id, (track, at));
            return note.draw(out, track, at);
        }
        let Some(mut tracked) = self.take(id) else { return Ok(()) };
        let over = tracked.state.is_none() && note.status == Status::Ended;
        match &mut tracked.place {
            Place::Drawn(drawn) => drawn.finding(out, &note)?,
            Place::Waiting(told) => {
                told.push(Told::Finding(Box::new(note)));
                self.waiting += 1;
            }
        }
        self.put(out, id, tracked, over)
    }

    /// The track of a socket's owner, for what has no track of its own.
    pub(super) fn owner<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        socket: &Socket,
    ) -> io::Result<u64> {
        self.owners.track(out, socket.owner.map(|owner| owner.process))
    }

    /// The recording is over: ends what is still open.
    pub(super) fn finish<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        at: Timestamp,
    ) -> io::Result<()> {
        let mut left: Vec<_> = std::mem::take(&mut self.open).into_iter().collect();
        left.sort_unstable_by_key(|&(id, _)| id);
        for (id, tracked) in left {
            if let Some(mut drawn) = self.drawn(out, id, tracked.place)? {
                drawn.finish(out, at)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, id: SocketId) -> Option<Tracked> {
        let tracked = self.open.remove(&id);
        if tracked.is_none() && self.open.len() >= MOST_SOCKETS {
            self.unshown += 1;
            return None;
        }
        Some(tracked.unwrap_or(Tracked { state: None, place: Place::Waiting(Vec::new()) }))
    }

    /// Puts a socket back, on its track if it can have one now.
    fn put<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        id: SocketId,
        Tracked { state, place }: Tracked,
        over: bool,
    ) -> io::Result<()> {
        let place = match place {
            Place::Waiting(told)
                if over
                    || told.len() >= MOST_OF_ONE
                    || self.waiting >= MOST_WAITING
                    || state.is_some() && told.iter().any(Told::is_certain) =>
            {
                let Some(drawn) = self.drawn(out, id, Place::Waiting(told))? else { return Ok(()) };
                Place::Drawn(drawn)
            }
            place => place,
        };
        match place {
            Place::Drawn(mut drawn) if over => {
                drawn.close(out)?;
                self.closed.insert(id, (drawn.track, drawn.last));
            }
            place => {
                self.open.insert(id, Tracked { state, place });
            }
        }
        Ok(())
    }

    /// Draws what has waited.
    fn drawn<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        id: SocketId,
        place: Place,
    ) -> io::Result<Option<Drawn>> {
        let mut told = match place {
            Place::Drawn(drawn) => return Ok(Some(drawn)),
            Place::Waiting(told) => told,
        };
        self.waiting -= told.len();
        // Transitions that waited for somebody to claim their socket come after its findings.
        told.sort_by_key(Told::at);
        let owner = owner(&told);
        let parent = self.owners.track(out, owner.map(|owner| owner.process))?;
        let only_findings = !told.iter().any(|told| matches!(told, Told::Transition(_)));
        let Some(last) = told.last() else { return Ok(None) };
        let mut drawn = Drawn::new(out, parent, id, last.socket(), only_findings)?;
        for told in &told {
            match told {
                Told::Transition(transition) => drawn.transition(out, self.started, transition)?,
                Told::Finding(note) => drawn.finding(out, note)?,
            }
        }
        Ok(Some(drawn))
    }
}

/// The last owner that is certain, else the last who may be it.
fn owner(told: &[Told]) -> Option<Owner> {
    let owners = || told.iter().rev().filter_map(|told| told.socket().owner);
    owners().find(|owner| owner.how != How::Listener).or_else(|| owners().next())
}

impl Told {
    fn at(&self) -> Timestamp {
        match self {
            Self::Transition(transition) => transition.at,
            Self::Finding(note) => note.at,
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Transition(transition) => &transition.socket,
            Self::Finding(note) => &note.socket,
        }
    }

    /// Whether it says for certain whose the socket is.
    fn is_certain(&self) -> bool {
        self.socket().owner.is_some_and(|owner| owner.how != How::Listener)
    }
}
