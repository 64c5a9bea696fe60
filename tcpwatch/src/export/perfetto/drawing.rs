//! What happened to one socket, drawn on its track: a slice per state, findings between.

use std::io::{self, Write};

use super::{
    names::{Key, Name, Notes},
    packets::Packets,
    proto::{MERGE_NONE, TrackDescriptor},
};
use crate::core::{
    advice,
    finding::{Finding, Status, Verdict},
    input::Transition,
    socket::{Owner, Process, Socket, SocketId},
    state::State,
    time::{Nanos, Timestamp},
};

/// What is shown of a finding.
pub(super) struct Note {
    pub(super) at: Timestamp,
    pub(super) socket: Socket,
    pub(super) status: Status,
    verdict: Option<Verdict>,
    state: State,
    linger: Nanos,
    at_least: bool,
    holders: String,
    ended: Option<&'static str>,
    by: Option<Process>,
    summary: String,
}

impl Note {
    pub(super) fn new(finding: &Finding) -> Self {
        let holders = finding.holders.iter();
        let holders: Vec<_> = holders.map(|h| format!("{} fd {}", h.process, h.fd)).collect();
        Self {
            at: finding.at,
            socket: finding.socket,
            status: finding.status,
            verdict: finding.verdict,
            state: finding.state,
            linger: finding.linger,
            at_least: finding.at_least,
            holders: holders.join(", "),
            ended: finding.ending.map(|ending| ending.cause.word()),
            by: finding.ending.and_then(|ending| ending.by),
            summary: advice::summary(finding),
        }
    }

    /// Draws it on a track.
    pub(super) fn draw<W: Write>(
        &self,
        out: &mut Packets<W>,
        track: u64,
        at: Timestamp,
    ) -> io::Result<()> {
        let mut notes = Notes::default();
        notes
            .text(Key::Status, self.status.word())
            .text(Key::Summary, &self.summary)
            .number(Key::LingerNs, self.linger.0)
            .flag(Key::LingerAtLeast, self.at_least);
        if !self.holders.is_empty() {
            notes.text(Key::Holders, &self.holders);
        }
        if let Some(ended) = self.ended {
            notes.text(Key::Ended, ended);
        }
        if let Some(by) = self.by {
            notes.text(Key::By, by.to_string());
        }
        facts(&mut notes, &self.socket);
        out.instant(track, at, Name::Finding(self.verdict), notes)
    }
}

/// A socket that has its track.
pub(super) struct Drawn {
    pub(super) track: u64,
    current: Option<State>,
    /// Nothing is drawn before what is drawn already.
    pub(super) last: Timestamp,
    /// Only findings tell of it, so they make its slice.
    only_findings: bool,
}

impl Drawn {
    /// Gives a socket its track.
    pub(super) fn new<W: Write>(
        out: &mut Packets<W>,
        parent: u64,
        id: SocketId,
        socket: &Socket,
        only_findings: bool,
    ) -> io::Result<Self> {
        let track = out.new_uuid();
        out.describe(TrackDescriptor {
            uuid: Some(track),
            parent_uuid: Some(parent),
            name: Some(name(id, socket)),
            sibling_merge_behavior: Some(MERGE_NONE),
            ..TrackDescriptor::default()
        })?;
        Ok(Self { track, current: None, last: Timestamp(0), only_findings })
    }

    /// Ends the state that was left and begins the one that was entered.
    pub(super) fn transition<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        started: Timestamp,
        t: &Transition,
    ) -> io::Result<()> {
        self.only_findings = false;
        let at = t.at.max(self.last);
        self.reach(out, started, t, at)?;
        if self.current.take().is_some() {
            let mut notes = Notes::default();
            notes.text(Key::To, t.new.name());
            if let Some(actor) = t.actor {
                notes.text(Key::By, actor.to_string());
            }
            facts(&mut notes, &t.socket);
            out.end(self.track, at, notes)?;
        }
        self.last = at;
        if t.new == State::Close { Ok(()) } else { self.begin(out, at, t.new, false) }
    }

    /// Makes the state that is being left the current one, where what led to it was not told.
    fn reach<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        started: Timestamp,
        t: &Transition,
        at: Timestamp,
    ) -> io::Result<()> {
        if self.current.is_some_and(|state| state == t.old) {
            return Ok(());
        }
        let entered = t.entered.unwrap_or(if self.current.is_some() { at } else { started });
        let entered = entered.clamp(self.last, at);
        if self.current.take().is_some() {
            let mut notes = Notes::default();
            notes.flag(Key::Uncertain, true);
            out.end(self.track, entered, notes)?;
        }
        // It begins here: what was not yet connected was in no state, and LISTEN was its listener's.
        if t.old == State::Close || t.old == State::Listen && t.new == State::SynRecv {
            return Ok(());
        }
        self.begin(out, entered, t.old, t.entered.is_none())
    }

    /// Draws a finding.
    pub(super) fn finding<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        note: &Note,
    ) -> io::Result<()> {
        let at = note.at.max(self.last);
        if self.only_findings && self.current.is_none() {
            let since = (note.at - note.linger).clamp(self.last, at);
            self.begin(out, since, note.state, note.at_least)?;
        }
        self.last = at;
        note.draw(out, self.track, at)?;
        if self.only_findings && note.status == Status::Ended {
            self.current = None;
            out.end(self.track, at, Notes::default())?;
        }
        Ok(())
    }

    /// Nothing more comes. Something is still open only where records came out of order.
    pub(super) fn close<W: Write>(&mut self, out: &mut Packets<W>) -> io::Result<()> {
        match self.current.take() {
            Some(_) => out.end(self.track, self.last, Notes::default()),
            None => Ok(()),
        }
    }

    /// The recording is over and the socket is not.
    pub(super) fn finish<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        at: Timestamp,
    ) -> io::Result<()> {
        if self.current.take().is_none() {
            return Ok(());
        }
        let mut notes = Notes::default();
        notes.flag(Key::StillOpen, true);
        out.end(self.track, at.max(self.last), notes)
    }

    fn begin<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        at: Timestamp,
        state: State,
        begun_before: bool,
    ) -> io::Result<()> {
        self.current = Some(state);
        self.last = at;
        let mut notes = Notes::default();
        notes.flag(Key::BegunBefore, begun_before);
        out.begin(self.track, at, Name::State(state), notes)
    }
}

/// What every event says of its socket.
pub(super) fn facts(notes: &mut Notes, socket: &Socket) {
    notes.counters(socket.tcp.as_ref()).number(Key::Netns, socket.netns);
    if let Some(cookie) = socket.cookie {
        notes.number(Key::Cookie, cookie);
    }
    if let Some(Owner { process, how }) = socket.owner {
        notes.text(Key::Owner, format!("{process} ({})", how.word()));
    }
    if socket.error != 0 {
        notes.number(Key::Error, socket.error);
    }
    notes.flag(Key::Uncertain, socket.uncertain);
}

/// No two sockets have the same: the UI would make one track of two.
fn name(SocketId(id): SocketId, socket: &Socket) -> String {
    if socket.remote.port() == 0 {
        format!("{} listening #{id}", socket.local)
    } else {
        format!("{} -> {} #{id}", socket.local, socket.remote)
    }
}
