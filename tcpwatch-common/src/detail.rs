//! What `ss -i` and `ss -o` show of a connection: many numbers, each of use to somebody.
//!
//! They are asked for by the load-time setting `Details` and follow a
//! [`RawObserved`](crate::RawObserved) that has the bit [`HAS_DETAILS`](crate::look::HAS_DETAILS):
//! each as a `u64` in the order of [`DETAILS`], then the least round-trip time (a `u64`), then the
//! name of the congestion control (16 bytes). [`UNKNOWN`] stands for what this kernel does not
//! have.

use crate::Field;

/// A number that this kernel does not have.
pub const UNKNOWN: u64 = u64::MAX;

/// Hands the fields and their types to a macro, in order.
#[macro_export]
macro_rules! each_detail {
    ($do:ident) => {
        $do! {
            Rto: u32,
            RttVar: u32,
            Mss: u32,
            Pmtu: u32,
            RcvMss: u16,
            AdvMss: u16,
            Cwnd: u32,
            Ssthresh: u32,
            BytesSent: u64,
            BytesRetrans: u64,
            SegsOut: u32,
            SegsIn: u32,
            DataSegsOut: u32,
            DataSegsIn: u32,
            Delivered: u32,
            LostOut: u32,
            SackedOut: u32,
            RetransOut: u32,
            Reordering: u32,
            RcvRtt: u32,
            RcvSpace: u32,
            RcvSsthresh: u32,
            RcvWnd: u32,
            PacingRate: u64,
            TimerPending: u8,
            Backoff: u8,
            Retries: u8,
            Probes: u8,
            TimerExpires: u64,
            KeepaliveArmed: u64,
            KeepaliveExpires: u64,
        }
    };
}

macro_rules! list {
    ($($field:ident: $type:ty,)*) => {
        /// The fields in the order in which their values come.
        pub const DETAILS: [Field; [$(Field::$field),*].len()] = [$(Field::$field),*];
    };
}
each_detail!(list);

/// Bytes behind a record: the fields, the least round-trip time, and a name.
pub const DETAILS_LEN: usize = (DETAILS.len() + 1) * size_of::<u64>() + 16;
