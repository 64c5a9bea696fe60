//! How fast a recording is gone through.

use std::{thread, time::Duration};

use crate::{core::time::Timestamp, kernel::clock};

/// When it is time for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Now.
    Now,
    /// Not before so long; it is asked again.
    For(Duration),
    /// No more is wanted.
    Enough,
}

/// Says when it is time for an input.
pub trait Pace {
    /// Is asked before each input, and again after each rest, with the time at which it happened: on
    /// the monotonic clock, and as wall time in ns since 1970.
    fn due(&mut self, at: Timestamp, wall_ns: u64) -> Wait;

    /// Waits for so long, or less if something has changed.
    fn rest(&mut self, span: Duration) {
        thread::sleep(span);
    }
}

/// So many times as fast as it happened.
pub(super) struct AtSpeed {
    /// `None` is as fast as it can.
    speed: Option<f64>,
    /// When the replay began, and at which time of the recording.
    began: Option<(Timestamp, Timestamp)>,
}

impl AtSpeed {
    pub(super) fn new(speed: Option<f64>) -> Self {
        Self { speed, began: None }
    }
}

impl Pace for AtSpeed {
    fn due(&mut self, at: Timestamp, _: u64) -> Wait {
        let Some(speed) = self.speed else { return Wait::Now };
        let (began, first) = *self.began.get_or_insert_with(|| (clock::now(), at));
        let since = Duration::from_nanos(at.since(first).0);
        let due = began
            + Duration::try_from_secs_f64(since.as_secs_f64() / speed)
                .unwrap_or(Duration::MAX)
                .into();
        match due.since(clock::now()).0 {
            0 => Wait::Now,
            left => Wait::For(Duration::from_nanos(left)),
        }
    }
}
