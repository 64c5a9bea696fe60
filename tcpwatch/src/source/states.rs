//! `tcpwatch states`: how many sockets are in each state, by process or by port.
//!
//! One pass answers. A socket that several processes hold counts once, for the one with the
//! lowest pid. `TIME_WAIT` has no process: the kernel keeps a stub of the connection alone.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::{
    Outcome,
    cli::{By, StatesArgs},
    config,
    core::{
        filter::Filter,
        input::Observation,
        socket::{Process, SocketId},
        state::State,
    },
    exit::Exit,
    kernel::{
        load::{self, Plan},
        privilege, shed,
    },
};

const RING: u32 = 4096;

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Process(Process),
    Nobody,
    Port(u16),
}

type Counts = BTreeMap<State, u64>;

/// `tcpwatch states`.
pub fn command(args: &StatesArgs) -> Outcome {
    let filter = config::filter(&args.filter)?;
    privilege::require()?;
    let plan = Plan {
        filter: filter.clone(),
        findings_only: true,
        ring_bytes: RING,
        exact_accept: false,
        details: false,
        follow_from: None,
        tally: false,
    };
    let mut seen = Vec::new();
    let mut passes = load::look(&plan)?;
    shed::all_but(shed::LOOKING)?;
    passes.run_with_time_wait(|look| seen.push(look)).context("look at all open sockets")?;
    shed::all()?;
    let rows = count(&seen, &filter, args.by);
    if args.json {
        json(&rows)?;
    } else {
        text(&rows, args)?;
    }
    Ok(Exit::Ok)
}

/// Rows, the largest first.
fn count(seen: &[Observation], filter: &Filter, by: By) -> Vec<(Key, Counts)> {
    let mut lowest: FxHashMap<SocketId, &Observation> = FxHashMap::default();
    let mut stubs = Vec::new();
    let watched = |look: &&Observation| {
        filter.pids.is_empty()
            || look.holder.is_some_and(|holder| filter.pids.contains(&holder.process.pid))
    };
    for look in seen.iter().filter(watched) {
        match look.socket.id {
            None => stubs.push(look),
            Some(id) => {
                let kept = lowest.entry(id).or_insert(look);
                if pid(look) < pid(kept) {
                    *kept = look;
                }
            }
        }
    }
    let mut rows: BTreeMap<Key, Counts> = BTreeMap::new();
    for look in lowest.into_values().chain(stubs) {
        let wanted_state = filter.states.is_empty() || filter.states.contains(&look.state);
        if !wanted_state || !filter.accepts(&look.socket, look.state) {
            continue;
        }
        let key = match (by, look.holder) {
            (By::Port, _) => Key::Port(look.socket.local.port()),
            (By::Process, Some(holder)) => Key::Process(holder.process),
            (By::Process, None) => Key::Nobody,
        };
        *rows.entry(key).or_default().entry(look.state).or_default() += 1;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(key, counts)| (std::cmp::Reverse(counts.values().sum::<u64>()), *key));
    rows
}

fn pid(look: &Observation) -> u32 {
    look.holder.map_or(u32::MAX, |holder| holder.process.pid)
}

fn totals(rows: &[(Key, Counts)]) -> Counts {
    let mut totals = Counts::new();
    for (_, counts) in rows {
        for (&state, count) in counts {
            *totals.entry(state).or_default() += count;
        }
    }
    totals
}

fn text(rows: &[(Key, Counts)], args: &StatesArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let totals = totals(rows);
    let states: Vec<State> = totals.keys().copied().collect();
    let mut line =
        format!("{:<24} {:>8}", if args.by == By::Port { "LOCAL PORT" } else { "PROCESS" }, "ALL");
    for state in &states {
        let _ = write!(line, " {state:>11}");
    }
    writeln!(out, "{line}")?;
    let mut row = |name: &str, counts: &Counts| {
        let mut line = format!("{name:<24} {:>8}", counts.values().sum::<u64>());
        for state in &states {
            let _ = write!(line, " {:>11}", counts.get(state).copied().unwrap_or(0));
        }
        writeln!(out, "{line}")
    };
    for (key, counts) in rows.iter().take(args.top) {
        row(&name(key), counts)?;
    }
    if rows.len() > args.top {
        let rest = self::totals(&rows[args.top..]);
        row(&format!("{} more", rows.len() - args.top), &rest)?;
    }
    row("all", &totals)
}

fn name(key: &Key) -> String {
    match key {
        Key::Process(process) => process.to_string(),
        Key::Nobody => "no process".to_owned(),
        Key::Port(port) => port.to_string(),
    }
}

#[derive(Serialize)]
struct Line {
    r#type: &'static str,
    pid: Option<u32>,
    comm: Option<String>,
    port: Option<u16>,
    states: BTreeMap<&'static str, u64>,
}

fn json(rows: &[(Key, Counts)]) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (key, counts) in rows {
        let process = if let Key::Process(process) = key { Some(process) } else { None };
        let line = Line {
            r#type: "states",
            pid: process.map(|process| process.pid),
            comm: process.map(|process| process.comm.to_string()),
            port: if let Key::Port(port) = key { Some(*port) } else { None },
            states: counts.iter().map(|(state, &count)| (state.name(), count)).collect(),
        };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
