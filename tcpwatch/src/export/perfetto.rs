//! A timeline for <https://ui.perfetto.dev>: a protobuf trace in Perfetto's own format.
//!
//! - A track per owner, named as its process; under it a track per socket,
//!   `local -> remote #id`, with a slice for each state it was in. What is known when a state ends
//!   is on its slice: bytes, unread, cookie, who changed it. Sockets whose owner is never known
//!   lie under *owner not known*; where only the listener's holder is known they lie under it, and
//!   each slice says `(listener)`.
//! - Findings are instants on the track of their socket: verdict, how long, the sentence, and how
//!   it ended. Where a recording has only findings, their sockets have a slice for the state they
//!   linger in.
//! - Counters: sockets seen in `CLOSE_WAIT` and in `ESTABLISHED`, every 10 ms at most.
//! - Losses are instants on a track of their own. A state that began before the recording begins
//!   with it and says so; one that has not ended ends with it and says so.
//!
//! Times are of `CLOCK_MONOTONIC`; a clock snapshot, and another one whenever the clocks have
//! moved apart, lets the UI show wall time. A slice is written when its state begins, not when it
//! ends, so packets of a track are in order of time.
//!
//! # Memory
//!
//! Packets are written as records come. Kept are: per open socket about 110 bytes, of at most a
//! million sockets (records of others are counted, and the trace says so); transitions and
//! findings of sockets whose owner is not certain yet, at most 16 of one and 262,144 in all, about
//! 400 bytes each; 131,072 closed sockets and as many processes, about 40 bytes each. With
//! everything full that is about 260 MB.

mod counts;
mod drawing;
mod names;
mod owners;
mod packets;
mod proto;
mod recent;
mod sockets;

use std::io::{self, Write};

use self::{
    counts::Counts,
    drawing::{Note, facts},
    names::{Key, Name, Notes},
    packets::Packets,
    proto::TrackDescriptor,
    sockets::Sockets,
};
use crate::{
    core::{
        finding::Finding,
        input::Transition,
        record::{Lost, Record, Summary},
        time::{ClockMark, Timestamp},
    },
    sink::Sink,
    trace::meta::Meta,
};

/// Writes a Perfetto trace.
pub struct PerfettoSink<W: Write> {
    out: Packets<W>,
    sockets: Sockets,
    counts: Counts,
    /// The track of what is missing, once something is.
    missing: Option<u64>,
    complete: bool,
}

impl<W: Write> PerfettoSink<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W, meta: &Meta) -> io::Result<Self> {
        let mut out = Packets::new(out, meta)?;
        let counts = Counts::new(&mut out)?;
        let sockets = Sockets::new(Timestamp(meta.clock.mono_ns));
        Ok(Self { out, sockets, counts, missing: None, complete: false })
    }

    fn transition(&mut self, transition: &Transition) -> io::Result<()> {
        let Some(id) = transition.socket.id else { return self.nameless(transition) };
        let before = self.sockets.transition(&mut self.out, id, transition)?;
        self.counts.moved(&mut self.out, transition.at, before, transition.new)
    }

    /// A change of a socket that cannot be told from others: what led to it is not known.
    fn nameless(&mut self, transition: &Transition) -> io::Result<()> {
        let Transition { at, old, new, actor, .. } = transition;
        let track = self.sockets.owner(&mut self.out, &transition.socket)?;
        let mut notes = Notes::default();
        notes.text(Key::Socket, ends(transition));
        if let Some(actor) = actor {
            notes.text(Key::By, actor.to_string());
        }
        facts(&mut notes, &transition.socket);
        self.out.rare(track, *at, format!("{old} > {new}"), notes)
    }

    fn finding(&mut self, finding: &Finding) -> io::Result<()> {
        let note = Note::new(finding);
        if let Some(id) = finding.socket.id {
            return self.sockets.finding(&mut self.out, id, note);
        }
        let track = self.sockets.owner(&mut self.out, &finding.socket)?;
        note.draw(&mut self.out, track, finding.at)
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        let mut notes = Notes::default();
        notes.number(Key::Count, lost.count).number(Key::Total, lost.total);
        self.is_missing(lost.at, Name::Lost, notes)
    }

    fn is_missing(&mut self, at: Timestamp, name: Name, notes: Notes) -> io::Result<()> {
        let track = if let Some(track) = self.missing {
            track
        } else {
            let uuid = self.out.new_uuid();
            let name = Some("lost transitions".to_owned());
            self.out.describe(TrackDescriptor { uuid: Some(uuid), name, ..Default::default() })?;
            *self.missing.insert(uuid)
        };
        self.out.instant(track, at, name, notes)
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.complete = true;
        self.sockets.finish(&mut self.out, summary.at)?;
        self.counts.finish(&mut self.out, summary.at)?;
        if self.sockets.unshown > 0 {
            let mut notes = Notes::default();
            notes.number(Key::Count, self.sockets.unshown);
            self.is_missing(summary.at, Name::Unshown, notes)?;
        }
        self.out.flush()
    }
}

impl<W: Write> Sink for PerfettoSink<W> {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        if self.complete {
            return Err(super::late());
        }
        self.out.clock(clock)?;
        match record {
            Record::Transition(transition) => self.transition(transition),
            Record::Finding(finding) => self.finding(finding),
            Record::Culprit(_) => Ok(()),
            Record::Lost(lost) => self.lost(lost),
            Record::Summary(summary) => self.summary(summary),
        }
    }
}

fn ends(transition: &Transition) -> String {
    format!("{} -> {}", transition.socket.local, transition.socket.remote)
}
