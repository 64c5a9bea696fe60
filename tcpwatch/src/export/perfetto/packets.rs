//! Writes packets: one sequence, one clock, numbered names.

use std::io::{self, Write};

use prost::Message as _;

use super::{
    names::{self, Name, Notes},
    proto::{
        Clock, ClockSnapshot, Data, SystemInfo, TracePacket, TrackDescriptor, TrackEvent, Utsname,
        clock, flags, kind,
    },
};
use crate::{
    core::time::{ClockMark, Timestamp},
    trace::meta::Meta,
};

/// `Trace.packet`: field 1, with a length.
const PACKET_TAG: u8 = 0x0a;
/// All packets are of one writer.
const SEQUENCE: u32 = 1;
/// Clocks that drift apart by less need no new snapshot, ns.
const DRIFT: i64 = 1_000_000;

/// Where packets go.
pub(super) struct Packets<W> {
    out: W,
    buffer: Vec<u8>,
    last_uuid: u64,
    /// `CLOCK_BOOTTIME` and `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, as last written.
    offsets: Option<(i64, i64)>,
}

impl<W: Write> Packets<W> {
    /// Writes what stands at the beginning of a trace.
    pub(super) fn new(out: W, meta: &Meta) -> io::Result<Self> {
        let mut packets = Self { out, buffer: Vec::new(), last_uuid: 0, offsets: None };
        packets.write(TracePacket {
            sequence_flags: Some(flags::INCREMENTAL_STATE_CLEARED),
            first_packet_on_sequence: Some(true),
            interned_data: Some(names::interned()),
            data: Some(Data::SystemInfo(system(meta))),
            ..TracePacket::default()
        })?;
        packets.clock(&meta.clock.into())?;
        Ok(packets)
    }

    /// Says how the clocks compare, if that has changed. Times are of `CLOCK_MONOTONIC`; the UI
    /// shows wall time by this.
    pub(super) fn clock(&mut self, mark: &ClockMark) -> io::Result<()> {
        if mark.real_ns == 0 {
            return Ok(());
        }
        let less_mono = |ns: u64| ns.wrapping_sub(mark.mono.0).cast_signed();
        let offsets = (less_mono(mark.boot.0), less_mono(mark.real_ns));
        let near = |a: i64, b: i64| a.abs_diff(b) < DRIFT.unsigned_abs();
        if self.offsets.is_some_and(|(boot, real)| near(boot, offsets.0) && near(real, offsets.1)) {
            return Ok(());
        }
        self.offsets = Some(offsets);
        let clocks = [
            (clock::MONOTONIC, mark.mono.0),
            (clock::BOOTTIME, mark.boot.0),
            (clock::REALTIME, mark.real_ns),
        ];
        let clocks = clocks.map(|(id, ns)| Clock { clock_id: Some(id), timestamp: Some(ns) });
        let snapshot =
            ClockSnapshot { clocks: clocks.to_vec(), primary_trace_clock: Some(clock::MONOTONIC) };
        self.at(mark.mono, Data::ClockSnapshot(snapshot))
    }

    /// An id for a new track.
    pub(super) fn new_uuid(&mut self) -> u64 {
        self.last_uuid += 1;
        self.last_uuid
    }

    /// Says what a track is, before anything is on it.
    pub(super) fn describe(&mut self, track: TrackDescriptor) -> io::Result<()> {
        self.write(TracePacket {
            sequence_flags: Some(flags::NEEDS_INCREMENTAL_STATE),
            data: Some(Data::TrackDescriptor(track)),
            ..TracePacket::default()
        })
    }

    /// Something begins.
    pub(super) fn begin(
        &mut self,
        track: u64,
        at: Timestamp,
        name: Name,
        notes: Notes,
    ) -> io::Result<()> {
        self.named(track, at, kind::SLICE_BEGIN, name, notes)
    }

    /// What began last on the track ends.
    pub(super) fn end(&mut self, track: u64, at: Timestamp, notes: Notes) -> io::Result<()> {
        let event = TrackEvent {
            debug_annotations: notes.into_annotations(),
            ..of(track, kind::SLICE_END)
        };
        self.at(at, Data::TrackEvent(event))
    }

    /// Something happens.
    pub(super) fn instant(
        &mut self,
        track: u64,
        at: Timestamp,
        name: Name,
        notes: Notes,
    ) -> io::Result<()> {
        self.named(track, at, kind::INSTANT, name, notes)
    }

    /// Something happens that has no number.
    pub(super) fn rare(
        &mut self,
        track: u64,
        at: Timestamp,
        name: String,
        notes: Notes,
    ) -> io::Result<()> {
        let debug_annotations = notes.into_annotations();
        let event = TrackEvent { name: Some(name), debug_annotations, ..of(track, kind::INSTANT) };
        self.at(at, Data::TrackEvent(event))
    }

    /// A counter has this value.
    pub(super) fn counter(&mut self, track: u64, at: Timestamp, value: i64) -> io::Result<()> {
        let event = TrackEvent { counter_value: Some(value), ..of(track, kind::COUNTER) };
        self.at(at, Data::TrackEvent(event))
    }

    /// Hands everything on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn named(
        &mut self,
        track: u64,
        at: Timestamp,
        kind: i32,
        name: Name,
        notes: Notes,
    ) -> io::Result<()> {
        let debug_annotations = notes.into_annotations();
        let event = TrackEvent { name_iid: Some(name.iid()), debug_annotations, ..of(track, kind) };
        self.at(at, Data::TrackEvent(event))
    }

    fn at(&mut self, at: Timestamp, data: Data) -> io::Result<()> {
        self.write(TracePacket {
            timestamp: Some(at.0),
            timestamp_clock_id: Some(clock::MONOTONIC),
            sequence_flags: Some(flags::NEEDS_INCREMENTAL_STATE),
            data: Some(data),
            ..TracePacket::default()
        })
    }

    fn write(&mut self, mut packet: TracePacket) -> io::Result<()> {
        packet.trusted_packet_sequence_id = Some(SEQUENCE);
        self.buffer.clear();
        self.buffer.push(PACKET_TAG);
        packet.encode_length_delimited(&mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)
    }
}

fn of(track: u64, kind: i32) -> TrackEvent {
    TrackEvent { kind: Some(kind), track_uuid: Some(track), ..TrackEvent::default() }
}

fn system(meta: &Meta) -> SystemInfo {
    let known = |text: &String| (!text.is_empty()).then(|| text.clone());
    SystemInfo {
        utsname: Some(Utsname {
            sysname: Some("Linux".to_owned()),
            release: known(&meta.kernel),
            machine: known(&meta.machine),
        }),
        tracing_service_version: known(&meta.tool).map(|version| format!("tcpwatch {version}")),
        machine_name: known(&meta.host),
    }
}
