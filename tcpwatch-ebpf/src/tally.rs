//! Counts every transition that the filters concern, for who wants numbers and no records.

use tcpwatch_common::{
    Setting, change, state,
    tally::{BUCKETS, Histogram, bucket, pair},
};

use crate::{
    kernel::{masked, setting},
    maps::{Remembered, fetch_add, tally},
    transition::Change,
};

/// Notes a change made at `at_ns`; `known` is as it was before.
#[inline(always)]
pub fn note(known: &Remembered, change: &Change, at_ns: u64) {
    if setting(Setting::Tally) == 0 {
        return;
    }
    let Some(tally) = tally() else { return };
    let slots = tally.cast::<u64>();
    fetch_add(unsafe { slots.add(masked::<255>(pair(change.old, change.new))) }, 1);
    if change.old == state::CLOSE_WAIT {
        span(slots, Histogram::CloseWait, known.entered_ns, at_ns);
    }
    if change.kind & change::END != 0 {
        span(slots, Histogram::Lifetime, known.born_ns, at_ns);
    }
}

/// Notes a span in a histogram, unless nobody saw its beginning.
#[inline(always)]
fn span(slots: *mut u64, histogram: Histogram, from_ns: u64, to_ns: u64) {
    if from_ns == 0 {
        return;
    }
    let span_ns = to_ns.saturating_sub(from_ns);
    unsafe {
        let slots = slots.add(histogram as usize);
        fetch_add(slots.add(bucket(span_ns)), 1);
        fetch_add(slots.add(BUCKETS), span_ns);
    }
}
