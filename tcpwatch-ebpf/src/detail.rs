//! The numbers of `ss -i`, behind a look at a connection.

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use tcpwatch_common::{Field, UNKNOWN, each_detail};

use crate::kernel::{Ptr, has, load, load16, offset_by};

/// Writes them. One by one, as there is no room for all of them on the stack. Says whether there was room for
/// all: after one that had none there is none for the next.
#[inline(always)]
pub fn write(seq: *mut seq_file, tcp: Ptr) -> bool {
    macro_rules! put {
        ($($field:ident: $type:ty,)*) => {
            $(number(
                seq,
                if has(Field::$field) { load::<$type>(tcp, Field::$field) as u64 } else { UNKNOWN },
            );)*
        };
    }
    each_detail!(put);
    number(seq, least_rtt(tcp));
    let name = congestion(tcp);
    unsafe { bpf_seq_write(seq, name.as_ptr().cast(), name.len() as u32) == 0 }
}

#[inline(always)]
fn number(seq: *mut seq_file, value: u64) {
    unsafe { bpf_seq_write(seq, (&raw const value).cast(), size_of::<u64>() as u32) };
}

/// The value of the first sample (include/linux/win_minmax.h: struct minmax_sample, a time and a
/// value).
#[inline(always)]
fn least_rtt(tcp: Ptr) -> u64 {
    if !has(Field::RttMin) {
        return UNKNOWN;
    }
    u64::from(load::<u32>(offset_by(tcp, size_of::<u32>()), Field::RttMin))
}

#[inline(always)]
fn congestion(tcp: Ptr) -> [u8; 16] {
    if !has(Field::Congestion) || !has(Field::CongestionName) {
        return [0; 16];
    }
    load16(load(tcp, Field::Congestion), Field::CongestionName)
}
