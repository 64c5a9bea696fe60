//! The payload of a block into inputs. Any bytes are read or refused; none panic.

use std::{net::IpAddr, sync::Arc};

use super::{
    TraceError,
    codec::{self, Expected, FIRST, Look, LookRow, WITH_LENGTH, began_with, look, seen_in},
    facts,
    row::{self, Column, Row, Tables, flag},
    wire::Cursor,
};
use crate::core::{
    comm::{Comm, tame},
    detail::{self, TcpDetails, Timer},
    input::{Activity, Input, Observation, Scope, Transition},
    socket::{Holder, Process, SocketId},
    state::State,
    time::{ClockMark, Nanos, Timestamp},
    unseen::Unseen,
    waiters::Waiters,
};

/// Reads one block's inputs in their order.
pub struct Decoder<'a> {
    from: Cursor<'a>,
    tables: Tables,
    texts: Vec<Vec<u8>>,
    expected: Expected,
    last: u64,
    clock: ClockMark,
    /// Records of kinds that this version does not know.
    pub unknown: u64,
}

impl<'a> Decoder<'a> {
    /// Begins with a payload.
    pub fn new(payload: &'a [u8]) -> Result<Self, TraceError> {
        let mut from = Cursor::new(payload);
        let mono = Timestamp(from.number()?);
        let clock = ClockMark { mono, boot: Timestamp(from.number()?), real_ns: from.number()? };
        Ok(Self {
            from,
            tables: Tables { addresses: Vec::new(), processes: Vec::new() },
            texts: Vec::new(),
            expected: Expected::default(),
            last: mono.0,
            clock,
            unknown: 0,
        })
    }

    /// The clock that was in force when the block began.
    pub fn clock(&self) -> ClockMark {
        self.clock
    }

    /// The next input; `None` at the end.
    pub fn next_input(&mut self) -> Result<Option<Input>, TraceError> {
        while !self.from.is_empty() {
            let tag = self.from.byte()?;
            if tag < WITH_LENGTH {
                return self.transition(tag).map(|t| Some(Input::Transition(t)));
            }
            let body = Cursor::new(self.from.bytes()?);
            if let Some(input) = self.record(tag, body)? {
                return Ok(Some(input));
            }
        }
        Ok(None)
    }

    fn time(&mut self, from: &mut Cursor<'_>) -> Result<Timestamp, TraceError> {
        self.last = from.difference(self.last)?;
        Ok(Timestamp(self.last))
    }

    fn transition(&mut self, tag: u8) -> Result<Transition, TraceError> {
        let new = state(tag & !FIRST)?;
        let mut from = self.from;
        let at = self.time(&mut from)?;
        let kind = began_with(new);
        let (mut row, index) = if tag & FIRST == 0 {
            let index = self.index(from.number()?)?;
            (*self.known(index)?, Some(index))
        } else {
            (self.expected.first(kind, at.0), None)
        };
        row::take_differences(&mut from, &mut row)?;
        self.from = from;
        let index = self.keep(&row, kind, index);
        self.expected.advance(index, new, at.0);
        Ok(Transition {
            at,
            old: state_of(&row)?,
            new,
            entered: entered(&row),
            actor: self.tables.process(row[Column::Actor as usize])?,
            exiting: row[Column::Flags as usize] & flag::EXITING != 0,
            disconnects: row[Column::Flags as usize] & flag::DISCONNECTS != 0,
            socket: row::socket(&row, &self.tables)?,
        })
    }

    /// Index of the socket that is this many before the last.
    fn index(&self, back: u64) -> Result<usize, TraceError> {
        let back = usize::try_from(back).map_err(|_| TraceError::Senseless)?;
        let newest = self.expected.len().checked_sub(1);
        newest.and_then(|newest| newest.checked_sub(back)).ok_or(TraceError::Senseless)
    }

    fn known(&self, index: usize) -> Result<&Row, TraceError> {
        self.expected.known(index).ok_or(TraceError::Senseless)
    }

    fn keep(&mut self, row: &Row, kind: usize, index: Option<usize>) -> usize {
        if let Some(index) = index {
            self.expected.go_on(index, row);
            return index;
        }
        self.expected.begin(kind, row);
        self.expected.len() - 1
    }

    fn record(&mut self, tag: u8, mut body: Cursor<'_>) -> Result<Option<Input>, TraceError> {
        match tag {
            codec::ADDRESS => self.tables.addresses.push(address(body.rest())?),
            codec::PROCESS => {
                let pid = number(&mut body)?;
                let comm = Comm::from_bytes(body.rest());
                self.tables.processes.push(Process { pid, comm });
            }
            codec::TEXT => self.texts.push(body.rest().to_vec()),
            codec::OBSERVED => return self.observed(body).map(|seen| Some(Input::Observed(seen))),
            codec::CLOCK..=codec::UNSEEN => return self.other(tag, body).map(Some),
            _ => self.unknown += 1,
        }
        Ok(None)
    }

    fn other(&mut self, tag: u8, mut body: Cursor<'_>) -> Result<Input, TraceError> {
        let at = self.time(&mut body)?;
        Ok(match tag {
            codec::CLOCK => {
                let before = self.clock;
                let boot = body.difference(before.boot.0.wrapping_sub(before.mono.0))?;
                let real = body.difference(before.real_ns.wrapping_sub(before.mono.0))?;
                self.clock = ClockMark {
                    mono: at,
                    boot: Timestamp(boot.wrapping_add(at.0)),
                    real_ns: real.wrapping_add(at.0),
                };
                Input::Clock(self.clock)
            }
            codec::PASS_BEGIN => {
                let scope = match body.byte()? {
                    0 => Scope::Everything,
                    1 => Scope::Lingering,
                    2 => Scope::Watched,
                    3 => Scope::Changes,
                    _ => return Err(TraceError::Senseless),
                };
                Input::PassBegin { at, scope }
            }
            codec::PASS_END => Input::PassEnd { at },
            codec::PASS_FAILED => Input::PassFailed { at },
            codec::LOST => Input::Lost { at, count: body.number()? },
            codec::RUNNING => Input::Running { at, pid: number(&mut body)? },
            codec::EXITED => Input::Exited { at, pid: number(&mut body)? },
            codec::FOLLOWED => Input::Followed { at, pid: number(&mut body)? },
            codec::FACTS => Input::Process(Arc::new(facts::from_json(at, body.rest())?)),
            codec::NAMESPACE => {
                let inode = number(&mut body)?;
                let name = tame(&String::from_utf8_lossy(body.bytes()?));
                Input::Namespace { at, inode, name: (!name.is_empty()).then(|| name.into()) }
            }
            codec::END => Input::End { at },
            codec::GONE => Input::Gone { at, id: SocketId(body.number()?) },
            codec::UNSEEN => {
                let kind = usize::try_from(body.number()?).ok();
                let what =
                    kind.and_then(|kind| Unseen::ALL.get(kind)).ok_or(TraceError::Senseless)?;
                Input::Unseen { at, what: *what }
            }
            _ => return Err(TraceError::Senseless),
        })
    }

    fn observed(&mut self, mut body: Cursor<'_>) -> Result<Observation, TraceError> {
        let at = self.time(&mut body)?;
        let state = state(body.byte()?)?;
        let kind = seen_in(state);
        let (mut row, index) = match body.number()?.checked_sub(1) {
            Some(back) => {
                let index = self.index(back)?;
                (*self.known(index)?, Some(index))
            }
            None => (self.expected.first(kind, at.0), None),
        };
        row::take_differences(&mut body, &mut row)?;
        let mut looked = self.expected.look;
        row::take_differences(&mut body, &mut looked)?;
        let details = if looked[Look::Flags as usize] & look::DETAILS == 0 {
            None
        } else {
            Some(Arc::new(self.details(&mut body)?))
        };
        self.expected.look = looked;
        self.keep(&row, kind, index);
        let small = |column: Look| narrow(looked[column as usize]);
        let holder = self.tables.process(looked[Look::Holder as usize])?;
        Ok(Observation {
            at,
            state,
            entered: entered(&row),
            holder: match holder {
                Some(process) => Some(Holder { process, fd: small(Look::Fd)? }),
                None => None,
            },
            queue: (small(Look::QueueLen)?, small(Look::QueueLimit)?),
            activity: activity(&looked),
            waiters: waiters(&looked)?,
            send_window: if looked[Look::Flags as usize] & look::SEND_WINDOW == 0 {
                None
            } else {
                Some(small(Look::SendWindow)?)
            },
            details,
            socket: row::socket(&row, &self.tables)?,
        })
    }

    fn details(&mut self, body: &mut Cursor<'_>) -> Result<TcpDetails, TraceError> {
        const MOST: usize = 1024;
        let len = usize::try_from(body.number()?).map_err(|_| TraceError::Senseless)?;
        if !(codec::DETAILS_FIXED..=MOST).contains(&len) {
            return Err(TraceError::Senseless);
        }
        let row = &mut self.expected.details;
        row.resize(len, 0);
        for slot in row.iter_mut() {
            *slot = body.difference(*slot)?;
        }
        let text = |number: u64| {
            let found = usize::try_from(number).ok().and_then(|number| self.texts.get(number));
            found.ok_or(TraceError::Senseless)
        };
        let (fixed, pairs) = row.split_at(codec::DETAILS_FIXED);
        let timer = match fixed[1].checked_sub(1) {
            Some(kind) => detail::timer_kind(text(kind)?).map(|kind| Timer {
                kind,
                expires_in: Nanos(fixed[2]),
                retries: fixed[3],
            }),
            None => None,
        };
        let mut numbers = Vec::with_capacity(detail::NAMES.len().min(pairs.len() / 2));
        for pair in pairs.chunks_exact(2) {
            // One that this version does not know is left out.
            if let Some(name) = detail::name(text(pair[0])?) {
                // Each is there once.
                if numbers.len() == detail::NAMES.len() {
                    return Err(TraceError::Senseless);
                }
                numbers.push((name, pair[1].checked_sub(1)));
            }
        }
        Ok(TcpDetails { congestion: Comm::from_bytes(text(fixed[0])?), numbers, timer })
    }
}

fn activity(row: &LookRow) -> Option<Activity> {
    let flags = row[Look::Flags as usize];
    (flags & look::ACTIVITY != 0).then(|| Activity {
        ack_received: Nanos(row[Look::AckReceived as usize]),
        data_received: Nanos(row[Look::DataReceived as usize]),
        data_sent: Nanos(row[Look::DataSent as usize]),
        keepalive: flags & look::KEEPALIVE != 0,
        quiet_since_fin: flags & look::QUIET_SINCE_FIN != 0,
    })
}

fn waiters(row: &LookRow) -> Result<Option<Waiters>, TraceError> {
    let flags = row[Look::Flags as usize];
    if flags & look::WAITERS == 0 {
        return Ok(None);
    }
    let count =
        |column: Look| u8::try_from(row[column as usize]).map_err(|_| TraceError::Senseless);
    Ok(Some(Waiters {
        epoll: count(Look::Epoll)?,
        epoll_events: narrow(row[Look::EpollEvents as usize])?,
        blocked: count(Look::Blocked)?,
        blocked_pid: if flags & look::BLOCKED_PID == 0 {
            None
        } else {
            Some(narrow(row[Look::BlockedPid as usize])?)
        },
        polled: count(Look::Polled)?,
    }))
}

fn entered(row: &Row) -> Option<Timestamp> {
    (row[Column::Flags as usize] & flag::ENTERED != 0)
        .then(|| Timestamp(row[Column::Entered as usize]))
}

fn state(number: u8) -> Result<State, TraceError> {
    State::from_number(number).ok_or(TraceError::Senseless)
}

fn state_of(row: &Row) -> Result<State, TraceError> {
    u8::try_from(row[Column::State as usize])
        .ok()
        .and_then(State::from_number)
        .ok_or(TraceError::Senseless)
}

fn narrow(number: u64) -> Result<u32, TraceError> {
    u32::try_from(number).map_err(|_| TraceError::Senseless)
}

fn number(from: &mut Cursor<'_>) -> Result<u32, TraceError> {
    narrow(from.number()?)
}

fn address(bytes: &[u8]) -> Result<IpAddr, TraceError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(IpAddr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(IpAddr::from(octets))
    } else {
        Err(TraceError::Senseless)
    }
}
