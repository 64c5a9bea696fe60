//! The numbers behind a look (`tcpwatch_common::DETAILS`).

use tcpwatch_common::{DETAILS, DETAILS_LEN, Field, UNKNOWN};

use super::DecodeError;
use crate::core::{
    comm::Comm,
    detail::{TcpDetails, Timer},
    time::Nanos,
};

const WORD: usize = size_of::<u64>();
/// `include/net/inet_connection_sock.h`: `ICSK_TIME_*`.
const RETRANSMIT: [u64; 3] = [1, 5, 6];
const PERSIST: u64 = 3;
/// A slow-start threshold that was never set (`include/net/tcp.h`: `TCP_INFINITE_SSTHRESH`), and a
/// least round-trip time that was never measured.
const NEVER_SET: u64 = 0x7fff_ffff;
const NEVER_MEASURED: u64 = 0xffff_ffff;

/// Numbers that are shown as they are, and what they are called.
const PLAIN: [(Field, &str); 21] = [
    (Field::Mss, "mss"),
    (Field::Pmtu, "pmtu"),
    (Field::RcvMss, "rcv_mss"),
    (Field::AdvMss, "advmss"),
    (Field::Cwnd, "cwnd"),
    (Field::BytesSent, "bytes_sent"),
    (Field::BytesRetrans, "bytes_retrans"),
    (Field::SegsOut, "segs_out"),
    (Field::SegsIn, "segs_in"),
    (Field::DataSegsOut, "data_segs_out"),
    (Field::DataSegsIn, "data_segs_in"),
    (Field::Delivered, "delivered"),
    (Field::LostOut, "lost"),
    (Field::SackedOut, "sacked"),
    (Field::RetransOut, "retrans_out"),
    (Field::Reordering, "reordering"),
    (Field::RcvSpace, "rcv_space"),
    (Field::RcvSsthresh, "rcv_ssthresh"),
    (Field::RcvWnd, "rcv_wnd"),
    (Field::PacingRate, "pacing_rate"),
    (Field::Backoff, "backoff"),
];

struct Words<'a> {
    bytes: &'a [u8],
    jiffies: u64,
    jiffy: Nanos,
}

/// Decodes them; `jiffies` is the time of the look, and `jiffy` how long one is.
pub(super) fn details(bytes: &[u8], jiffies: u64, jiffy: Nanos) -> Result<TcpDetails, DecodeError> {
    if bytes.len() != DETAILS_LEN {
        return Err(DecodeError::Length { got: bytes.len(), expected: DETAILS_LEN });
    }
    let words = Words { bytes, jiffies, jiffy };
    let mut numbers: Vec<_> = PLAIN.iter().map(|&(field, name)| (name, words.get(field))).collect();
    let set = |value: &u64| *value < NEVER_SET;
    numbers.extend([
        ("ssthresh", words.get(Field::Ssthresh).filter(set)),
        ("rto_ms", words.get(Field::Rto).map(|jiffies| words.span(jiffies).0 / 1_000_000)),
        // Kept times four and times eight (net/ipv4/tcp.c: tcp_get_info).
        ("rttvar_us", words.get(Field::RttVar).map(|value| value >> 2)),
        ("rcv_rtt_us", words.get(Field::RcvRtt).map(|value| value >> 3)),
        ("min_rtt_us", words.at(DETAILS.len()).filter(|&value| value != NEVER_MEASURED)),
    ]);
    let mut name = [0; 16];
    name.copy_from_slice(&bytes[(DETAILS.len() + 1) * WORD..]);
    Ok(TcpDetails { congestion: Comm::new(name), numbers, timer: words.timer() })
}

impl Words<'_> {
    fn at(&self, index: usize) -> Option<u64> {
        let bytes = self.bytes.get(index * WORD..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes)).filter(|&value| value != UNKNOWN)
    }

    fn get(&self, field: Field) -> Option<u64> {
        self.at(DETAILS.iter().position(|&listed| listed == field)?)
    }

    fn span(&self, jiffies: u64) -> Nanos {
        Nanos(jiffies.saturating_mul(self.jiffy.0))
    }

    /// The timer that runs, as the kernel tells `ss` (`net/ipv4/inet_diag.c`: `inet_sk_diag_fill`).
    fn timer(&self) -> Option<Timer> {
        let pending = self.get(Field::TimerPending)?;
        let (kind, expires, retries) = if RETRANSMIT.contains(&pending) {
            ("on", Field::TimerExpires, Field::Retries)
        } else if pending == PERSIST {
            ("persist", Field::TimerExpires, Field::Probes)
        } else if self.get(Field::KeepaliveArmed)? != 0 {
            ("keepalive", Field::KeepaliveExpires, Field::Probes)
        } else {
            return None;
        };
        let left = self.get(expires)?.wrapping_sub(self.jiffies);
        // One that is late has a negative time left.
        let left = if left > u64::MAX / 2 { 0 } else { left };
        Some(Timer { kind, expires_in: self.span(left), retries: self.get(retries)? })
    }
}
