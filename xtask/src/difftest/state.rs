//! TCP states under the names that tcpwatch and the kernel's numbers share.

use serde::Deserialize;

const NAMES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// A TCP state.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(try_from = "std::borrow::Cow<'_, str>")]
pub(crate) struct State(u8);

impl State {
    pub(super) const SYN_SENT: Self = Self(1);
    pub(super) const SYN_RECV: Self = Self(2);
    pub(super) const CLOSE: Self = Self(6);
    pub(super) const CLOSE_WAIT: Self = Self(7);
    pub(super) const LAST_ACK: Self = Self(8);
    pub(super) const LISTEN: Self = Self(9);

    /// `TCP_ESTABLISHED` is 1 (`include/net/tcp_states.h`).
    pub(super) fn from_kernel(number: u32) -> Option<Self> {
        let at = u8::try_from(number.checked_sub(1)?).ok()?;
        (usize::from(at) < NAMES.len()).then_some(Self(at))
    }
}

impl TryFrom<std::borrow::Cow<'_, str>> for State {
    type Error = String;

    fn try_from(name: std::borrow::Cow<'_, str>) -> Result<Self, String> {
        let at = NAMES.iter().position(|known| *known == name);
        let at = at.and_then(|at| u8::try_from(at).ok());
        at.map(Self).ok_or_else(|| format!("{name} is no TCP state"))
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAMES[usize::from(self.0)])
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
