//! TCP states under the kernel's names.

use std::{fmt, str::FromStr};

/// A TCP state. The discriminants are the kernel's (`include/net/tcp_states.h`).
///
/// ```
/// use tcpwatch::core::state::State;
///
/// let state: State = "close-wait".parse()?;
/// assert_eq!(state, State::CloseWait);
/// assert_eq!(state.to_string(), "CLOSE_WAIT");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Connection is open.
    Established = 1,
    /// Active open, SYN sent.
    SynSent = 2,
    /// Passive open.
    SynRecv = 3,
    /// We closed; FIN not acknowledged.
    FinWait1 = 4,
    /// We closed; waiting for the peer.
    FinWait2 = 5,
    /// We closed first; waiting for stray segments.
    TimeWait = 6,
    /// No connection.
    Close = 7,
    /// The peer closed; we have not.
    CloseWait = 8,
    /// Both closed; our FIN not acknowledged.
    LastAck = 9,
    /// Waiting for connections.
    Listen = 10,
    /// Both closed at once.
    Closing = 11,
}

impl State {
    /// Every state, in the kernel's order.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// The state with the kernel's number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Bit for a mask of states: `1 << number`.
    pub fn bit(self) -> u32 {
        1 << self.number()
    }

    /// The kernel's name without `TCP_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = String;

    /// Takes the kernel's names in any case, `-` or `_`, with or without `TCP_`, and the short
    /// names of `ss`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_uppercase().replace('-', "_");
        let name = name.strip_prefix("TCP_").unwrap_or(&name);
        let name = match name {
            "ESTAB" => "ESTABLISHED",
            "FIN_WAIT_1" => "FIN_WAIT1",
            "FIN_WAIT_2" => "FIN_WAIT2",
            "CLOSED" | "UNCONN" => "CLOSE",
            "LISTENING" => "LISTEN",
            "SYN_RCVD" => "SYN_RECV",
            other => other,
        };
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|state| state.name()).collect();
            format!(
                "no TCP state is called '{}'; there are {}",
                text.escape_default(),
                names.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for state in State::ALL {
            assert_eq!(state.name().parse::<State>().unwrap(), state);
            assert_eq!(State::from_number(state.number()), Some(state));
        }
        assert_eq!(State::from_number(0), None);
        assert_eq!(State::from_number(12), None);
    }

    #[test]
    fn every_tools_spelling_is_understood() {
        for text in ["close-wait", "CLOSE_WAIT", "Close_Wait", "tcp_close_wait"] {
            assert_eq!(text.parse::<State>().unwrap(), State::CloseWait);
        }
        assert_eq!("estab".parse::<State>().unwrap(), State::Established);
        assert!("closewait?".parse::<State>().unwrap_err().contains("CLOSE_WAIT"));
    }
}
