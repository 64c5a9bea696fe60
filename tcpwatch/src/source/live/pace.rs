//! When a pass may be run again: passes must not cost more than they are worth.

use crate::core::time::{Nanos, Timestamp};

/// How long no pass is tried after one that failed.
const REST_AFTER_FAILURE: Nanos = Nanos(10_000_000_000);
/// After a pass that took this thread t of CPU time, none is run for this many t: passes stay
/// under 5 % of one core, and are not put off because the machine was busy with something else.
const REST_AFTER_PASS: u64 = 20;
/// What lingers is scanned again after this time, or after this many times what the last scan took: the end
/// of a dead socket is no transition, and a replay with another threshold needs evidence.
const LOOK_AGAIN: Nanos = Nanos(10_000_000_000);
const REST_BEFORE_LOOKING_AGAIN: u64 = 1000;

pub(super) struct Pace {
    rest_until: Timestamp,
    /// When to scan what lingers again.
    look_again: Timestamp,
}

impl Pace {
    /// No scan was made yet.
    pub(super) fn new() -> Self {
        Self { rest_until: Timestamp::default(), look_again: Timestamp::default() }
    }

    pub(super) fn rests(&self, now: Timestamp) -> bool {
        now < self.rest_until
    }

    /// Whether what lingers should be looked at again.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        now >= self.look_again
    }

    /// A pass has ended that took so much CPU time.
    pub(super) fn passed(&mut self, at: Timestamp, cost: Nanos) {
        self.rest_until = at + Nanos(cost.0.saturating_mul(REST_AFTER_PASS));
        self.look_again =
            at + Nanos(cost.0.saturating_mul(REST_BEFORE_LOOKING_AGAIN)).max(LOOK_AGAIN);
    }

    pub(super) fn failed(&mut self, at: Timestamp) {
        self.rest_until = at + REST_AFTER_FAILURE;
    }

    /// The next pass is the last: nothing to wait for.
    pub(super) fn make_haste(&mut self) {
        *self = Self::new();
    }
}
