//! The columns: one table that gives schema, encodings and values.

use std::net::{IpAddr, SocketAddr};

use super::row::{Row, amount};
use crate::core::{
    comm::Comm,
    input::Transition,
    socket::{Role, TcpInfo},
};

/// One column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) values: Values,
    pub(super) coding: Coding,
}

/// Where its values come from.
pub(super) enum Values {
    /// Microseconds since 1970, of every row.
    Wall(fn(&Row) -> i64),
    Int(fn(&Row) -> Option<i64>),
    Bool(fn(&Row) -> Option<bool>),
    Text(for<'a> fn(&'a Row, &'a Origin) -> Option<Text<'a>>),
}

/// How its values are laid down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Few different values.
    Dictionary,
    /// Numbers that are near each other, or all different.
    Delta,
    /// Flags, and text that is never the same.
    Plain,
}

/// Where a recording comes from: the same in each of its rows.
pub(super) struct Origin {
    pub(super) host: String,
    pub(super) recording: String,
    pub(super) boot_id: String,
}

/// Text of a row, in the form in which it is cheap to keep.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Text<'a> {
    Addr(IpAddr),
    Comm(Comm),
    Str(&'a str),
}

/// Position of `ts`: rows are sorted by it.
pub(super) const TS: usize = 1;
/// The column that a directory name stands for when the output is partitioned.
pub(super) const HOST: &str = "host";

use Coding::{Delta, Dictionary, Plain};

/// Every column, in order. What is not known, or does not apply, is null.
pub(super) const COLUMNS: [Column; 52] = [
    text("type", |row, _| Some(row.kind())),
    Column { name: "ts", values: Values::Wall(|row| row.wall_us), coding: Delta },
    int("mono_ns", Delta, |row| Some(amount(row.at().0))),
    text(HOST, |_, origin| known(&origin.host)),
    text("recording", |_, origin| known(&origin.recording)),
    text("boot_id", |_, origin| known(&origin.boot_id)),
    int("socket", Delta, |row| row.socket().id.map(|id| id.0.cast_signed())),
    int("cookie", Delta, |row| row.socket().cookie.map(u64::cast_signed)),
    int("netns", Dictionary, |row| Some(row.socket().netns.into())),
    int("family", Dictionary, |row| Some(row.socket().family().into())),
    text("protocol", |row, _| Some(Text::Str(row.socket().protocol.word()))),
    text("local_addr", |row, _| addr(row.socket().local)),
    int("local_port", Dictionary, |row| port(row.socket().local)),
    text("remote_addr", |row, _| addr(row.socket().remote)),
    int("remote_port", Dictionary, |row| port(row.socket().remote)),
    int("owner_pid", Dictionary, |row| row.socket().owner.map(|owner| owner.process.pid.into())),
    text("owner_comm", |row, _| row.socket().owner.map(|owner| Text::Comm(owner.process.comm))),
    text("owner_how", |row, _| row.socket().owner.map(|owner| Text::Str(owner.how.word()))),
    int("uid", Dictionary, |row| Some(row.socket().uid.into())),
    int("cgroup", Dictionary, |row| row.socket().cgroup.map(u64::cast_signed)),
    text("role", |row, _| row.socket().role.map(Role::word).map(Text::Str)),
    int("unread", Dictionary, |row| tcp(row, |tcp| Some(tcp.unread.into()))),
    int("unsent", Dictionary, |row| tcp(row, |tcp| Some(tcp.unsent.into()))),
    int("bytes_received", Dictionary, |row| tcp(row, |tcp| Some(amount(tcp.bytes_received)))),
    int("bytes_acked", Dictionary, |row| tcp(row, |tcp| Some(amount(tcp.bytes_acked)))),
    int("srtt_us", Dictionary, |row| tcp(row, |tcp| not_zero(tcp.srtt_us.into()))),
    int("retransmits", Dictionary, |row| tcp(row, |tcp| Some(tcp.retransmits.into()))),
    int("error", Dictionary, |row| Some(row.socket().error.into())),
    flag("uncertain", |row| Some(row.socket().uncertain)),
    text("old", |row, _| row.as_transition().map(|t| Text::Str(t.old.name()))),
    text("new", |row, _| Some(Text::Str(row.state().name()))),
    int("in_state_ns", Delta, |row| Some(amount(row.as_transition()?.in_state()?.0))),
    int("lifetime_ns", Delta, |row| {
        row.as_transition().and_then(Transition::lifetime).map(|span| amount(span.0))
    }),
    int("by_pid", Dictionary, |row| row.by().map(|process| process.pid.into())),
    text("by_comm", |row, _| row.by().map(|process| Text::Comm(process.comm))),
    text("verdict", |row, _| row.as_finding()?.verdict.map(Text::Str)),
    text("status", |row, _| Some(Text::Str(row.as_finding()?.status))),
    int("linger_ns", Delta, |row| Some(row.as_finding()?.linger_ns)),
    flag("linger_at_least", |row| Some(row.as_finding()?.at_least)),
    int("linger_at_most_ns", Delta, |row| row.as_finding()?.at_most_ns),
    text("holders", |row, _| row.as_finding()?.holders.as_deref().map(Text::Str)),
    text("listener", |row, _| row.as_finding()?.listener.as_deref().map(Text::Str)),
    text("ended", |row, _| row.as_finding()?.ended.map(Text::Str)),
    text("netns_name", |row, _| row.as_finding()?.netns_name.as_deref().map(Text::Str)),
    text("container_id", |row, _| row.as_finding()?.container_id.as_deref().map(Text::Str)),
    text("pod_uid", |row, _| row.as_finding()?.pod_uid.as_deref().map(Text::Str)),
    int("same_owner", Dictionary, |row| Some(row.as_finding()?.same_owner)),
    Column {
        name: "summary",
        values: Values::Text(|row, _| Some(Text::Str(&row.as_finding()?.summary))),
        coding: Plain,
    },
    text("pod_namespace", |row, _| row.as_finding()?.pod_namespace.as_deref().map(Text::Str)),
    text("pod_name", |row, _| row.as_finding()?.pod_name.as_deref().map(Text::Str)),
    text("container_name", |row, _| row.as_finding()?.container_name.as_deref().map(Text::Str)),
    flag("carried_over", |row| Some(row.as_finding()?.carried_over)),
];

const fn int(name: &'static str, coding: Coding, value: fn(&Row) -> Option<i64>) -> Column {
    Column { name, values: Values::Int(value), coding }
}

const fn flag(name: &'static str, value: fn(&Row) -> Option<bool>) -> Column {
    Column { name, values: Values::Bool(value), coding: Plain }
}

const fn text(
    name: &'static str,
    value: for<'a> fn(&'a Row, &'a Origin) -> Option<Text<'a>>,
) -> Column {
    Column { name, values: Values::Text(value), coding: Dictionary }
}

fn known(text: &str) -> Option<Text<'_>> {
    (!text.is_empty()).then_some(Text::Str(text))
}

/// An end that is not known yet is all zeros in the kernel; a listener has no remote end.
fn addr(end: SocketAddr) -> Option<Text<'static>> {
    let unknown = end.port() == 0 && end.ip().is_unspecified();
    (!unknown).then_some(Text::Addr(end.ip()))
}

fn port(end: SocketAddr) -> Option<i64> {
    not_zero(end.port().into())
}

/// For numbers that are 0 while they are not known.
fn not_zero(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

fn tcp(row: &Row, value: fn(&TcpInfo) -> Option<i64>) -> Option<i64> {
    row.socket().tcp.as_ref().and_then(value)
}
