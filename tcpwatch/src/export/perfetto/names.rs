//! Names that many packets share: written once, then referred to by number.

use super::proto::{DebugAnnotation, InternedData, InternedName, Value};
use crate::core::{finding::Verdict, socket::TcpInfo, state::State};

/// First number of a verdict; states have the kernel's.
const VERDICTS: u64 = 100;
const UNCONFIRMED: u64 = 99;
const LOST: u64 = 98;
const UNSHOWN: u64 = 97;
/// Notes on a slice.
const USUAL: usize = 12;

/// Name of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    State(State),
    /// A finding: its verdict, if a pass could confirm one.
    Finding(Option<Verdict>),
    Lost,
    Unshown,
}

impl Name {
    /// Its number.
    pub(super) fn iid(self) -> u64 {
        match self {
            Self::State(state) => state.number().into(),
            Self::Finding(Some(verdict)) => {
                let position = Verdict::ALL.iter().position(|&candidate| candidate == verdict);
                VERDICTS + position.map_or(0, |position| position as u64)
            }
            Self::Finding(None) => UNCONFIRMED,
            Self::Lost => LOST,
            Self::Unshown => UNSHOWN,
        }
    }
}

/// Name of a note on an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    Cookie,
    Netns,
    Owner,
    By,
    To,
    BytesReceived,
    BytesAcked,
    Unread,
    Unsent,
    Retransmits,
    SrttUs,
    Error,
    Uncertain,
    BegunBefore,
    StillOpen,
    Status,
    LingerNs,
    LingerAtLeast,
    Holders,
    Ended,
    Summary,
    Count,
    Total,
    Socket,
}

const KEYS: [(Key, &str); 24] = [
    (Key::Cookie, "cookie"),
    (Key::Netns, "netns"),
    (Key::Owner, "owner"),
    (Key::By, "by"),
    (Key::To, "to"),
    (Key::BytesReceived, "bytes_received"),
    (Key::BytesAcked, "bytes_acked"),
    (Key::Unread, "unread"),
    (Key::Unsent, "unsent"),
    (Key::Retransmits, "retransmits"),
    (Key::SrttUs, "srtt_us"),
    (Key::Error, "error"),
    (Key::Uncertain, "uncertain"),
    (Key::BegunBefore, "begun_before_the_recording"),
    (Key::StillOpen, "still_open"),
    (Key::Status, "status"),
    (Key::LingerNs, "linger_ns"),
    (Key::LingerAtLeast, "linger_at_least"),
    (Key::Holders, "holders"),
    (Key::Ended, "ended"),
    (Key::Summary, "summary"),
    (Key::Count, "count"),
    (Key::Total, "total"),
    (Key::Socket, "socket"),
];

impl Key {
    /// Its number; 0 is none.
    fn iid(self) -> u64 {
        self as u64 + 1
    }
}

/// Every name with its number.
pub(super) fn interned() -> InternedData {
    let states = State::ALL.into_iter().map(|state| (Name::State(state), state.name()));
    let verdicts =
        Verdict::ALL.into_iter().map(|verdict| (Name::Finding(Some(verdict)), verdict.word()));
    let others = [
        (Name::Finding(None), "unconfirmed"),
        (Name::Lost, "lost"),
        (Name::Unshown, "sockets not shown"),
    ];
    InternedData {
        event_names: states
            .chain(verdicts)
            .chain(others)
            .map(|(name, text)| entry(name.iid(), text))
            .collect(),
        debug_annotation_names: KEYS.iter().map(|&(key, text)| entry(key.iid(), text)).collect(),
    }
}

fn entry(iid: u64, name: &str) -> InternedName {
    InternedName { iid: Some(iid), name: Some(name.to_owned()) }
}

/// What an event says beyond its name.
#[derive(Default)]
pub(super) struct Notes(Vec<DebugAnnotation>);

impl Notes {
    pub(super) fn number(&mut self, key: Key, value: impl Into<u64>) -> &mut Self {
        self.add(key, Value::Uint(value.into()))
    }

    pub(super) fn text(&mut self, key: Key, value: impl Into<String>) -> &mut Self {
        self.add(key, Value::String(value.into()))
    }

    /// A flag; none if it is not set.
    pub(super) fn flag(&mut self, key: Key, set: bool) -> &mut Self {
        if set { self.add(key, Value::Bool(true)) } else { self }
    }

    /// The counters of a connection.
    pub(super) fn counters(&mut self, tcp: Option<&TcpInfo>) -> &mut Self {
        let Some(tcp) = tcp else { return self };
        self.number(Key::BytesReceived, tcp.bytes_received)
            .number(Key::BytesAcked, tcp.bytes_acked)
            .number(Key::Unread, tcp.unread)
            .number(Key::Unsent, tcp.unsent)
            .number(Key::Retransmits, tcp.retransmits);
        if tcp.srtt_us != 0 {
            self.number(Key::SrttUs, tcp.srtt_us);
        }
        self
    }

    pub(super) fn into_annotations(self) -> Vec<DebugAnnotation> {
        self.0
    }

    fn add(&mut self, key: Key, value: Value) -> &mut Self {
        if self.0.is_empty() {
            self.0.reserve(USUAL);
        }
        self.0.push(DebugAnnotation { name_iid: Some(key.iid()), value: Some(value) });
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_number_stands_for_two_names() {
        let data = interned();
        for names in [data.event_names, data.debug_annotation_names] {
            let iids: BTreeSet<_> = names.iter().map(|name| name.iid).collect();
            assert_eq!(iids.len(), names.len());
            assert!(!iids.contains(&Some(0)));
        }
    }
}
