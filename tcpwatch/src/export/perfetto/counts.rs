//! Counter tracks: how many sockets are in the states that matter.

use std::io::{self, Write};

use super::{
    packets::Packets,
    proto::{CounterDescriptor, TrackDescriptor, UNIT_COUNT},
};
use crate::core::{
    state::State,
    time::{Nanos, Timestamp},
};

/// Of these states.
const COUNTED: [State; 2] = [State::CloseWait, State::Established];
/// A counter is told at most this often; between, only what it comes to is kept.
const STEP: Nanos = Nanos(10_000_000);

/// Sockets in each counted state, as far as transitions told.
pub(super) struct Counts([Count; 2]);

struct Count {
    state: State,
    track: u64,
    value: i64,
    told: Option<(Timestamp, i64)>,
}

impl Counts {
    pub(super) fn new<W: Write>(out: &mut Packets<W>) -> io::Result<Self> {
        let [first, second] = COUNTED.map(|state| Count::new(out, state));
        Ok(Self([first?, second?]))
    }

    /// A socket goes from one state, if it was seen in it, to another.
    pub(super) fn moved<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        at: Timestamp,
        from: Option<State>,
        to: State,
    ) -> io::Result<()> {
        for count in &mut self.0 {
            count.value += i64::from(count.state == to) - i64::from(Some(count.state) == from);
            if count.told.is_none_or(|(told, _)| at.since(told) >= STEP) {
                count.tell(out, at)?;
            }
        }
        Ok(())
    }

    /// Tells what they come to.
    pub(super) fn finish<W: Write>(
        &mut self,
        out: &mut Packets<W>,
        at: Timestamp,
    ) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|count| count.tell(out, at))
    }
}

impl Count {
    fn new<W: Write>(out: &mut Packets<W>, state: State) -> io::Result<Self> {
        let track = out.new_uuid();
        out.describe(TrackDescriptor {
            uuid: Some(track),
            name: Some(format!("sockets seen in {state}")),
            counter: Some(CounterDescriptor { unit: Some(UNIT_COUNT) }),
            ..TrackDescriptor::default()
        })?;
        Ok(Self { state, track, value: 0, told: None })
    }

    fn tell<W: Write>(&mut self, out: &mut Packets<W>, at: Timestamp) -> io::Result<()> {
        // Records of two CPUs may be a little out of order.
        let at = self.told.map_or(at, |(told, _)| at.max(told));
        if self.told.is_none_or(|(_, value)| value != self.value) {
            self.told = Some((at, self.value));
            out.counter(self.track, at, self.value)?;
        }
        Ok(())
    }
}
