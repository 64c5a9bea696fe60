//! `tcpwatch info`: what a trace file holds, and what of it is damaged. Every block is checked.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::{
    Outcome,
    cli::InfoArgs,
    core::{comm::shown, time::Nanos},
    exit::Exit,
    kernel::{processes, shed},
    source::record::bytes,
    trace::{
        block::BlockHeader,
        file::TraceFile,
        meta::{Meta, RecordedRules},
        reader::{Damage, Next},
        recording,
    },
};

/// What is known of a file.
#[derive(Debug, Default, Serialize)]
struct Info {
    file: String,
    bytes: u64,
    meta: Meta,
    /// It was closed in order, or goes on in another.
    closed: bool,
    continued: bool,
    blocks: u64,
    inputs: u64,
    transitions: u64,
    /// Transitions that the kernel could not hand over.
    lost: u64,
    /// Transitions that were recorded and are not in the file.
    missing: u64,
    /// Places where one can begin to read.
    snapshots: u64,
    raw_bytes: u64,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
    first_wall_ns: Option<u64>,
    last_wall_ns: Option<u64>,
    /// Bytes of a block that is not complete, at the end.
    torn: u64,
    damage: Vec<DamageField>,
}

#[derive(Debug, Serialize)]
struct DamageField {
    from: u64,
    to: u64,
    why: &'static str,
    transitions: Option<u32>,
}

impl From<Damage> for DamageField {
    fn from(damage: Damage) -> Self {
        let transitions = damage.header.map(|header| header.transitions.get());
        Self { from: damage.from, to: damage.to, why: damage.why, transitions }
    }
}

/// `tcpwatch info`.
pub fn command(args: &InfoArgs) -> Outcome {
    processes::allow_many_files();
    let opened = recording::open_all(&args.files)?;
    shed::all()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (number, info) in opened.each(read).enumerate() {
        let info = info?;
        if args.json {
            serde_json::to_writer(&mut out, &info)?;
            writeln!(out)?;
        } else {
            if number > 0 {
                writeln!(out)?;
            }
            info.write(&mut out)?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn read(file: &TraceFile) -> Result<Info> {
    let mut reader = file.read()?;
    let mut info = Info {
        file: shown(file.path()),
        bytes: reader.file_len()?,
        meta: reader.meta().cloned().unwrap_or_default(),
        ..Info::default()
    };
    let mut before = None;
    loop {
        match reader.next_block()? {
            Next::Inputs(header) => {
                info.miss(&mut before, header.before.get());
                before = Some(header.before.get() + u64::from(header.transitions.get()));
                info.block(&header);
            }
            Next::Damage(damage) => info.damage.push(damage.into()),
            Next::End { before: all, continued } => {
                info.miss(&mut before, all);
                (info.closed, info.continued) = (true, continued);
            }
            Next::Pending { torn } => {
                info.torn = torn;
                return Ok(info);
            }
        }
    }
}

impl Info {
    fn miss(&mut self, before: &mut Option<u64>, now: u64) {
        // The first file of a recording begins with none before it.
        let first = if self.meta.sequence == 1 { 0 } else { now };
        self.missing += now.saturating_sub(before.unwrap_or(first));
        *before = Some(now);
    }

    fn block(&mut self, header: &BlockHeader) {
        self.blocks += 1;
        self.inputs += u64::from(header.inputs.get());
        self.transitions += u64::from(header.transitions.get());
        self.lost += u64::from(header.lost.get());
        self.snapshots += u64::from(header.is_snapshot());
        self.raw_bytes += u64::from(header.raw_len.get());
        let (first, last) = (header.first_ns.get(), header.last_ns.get());
        let wall = |mono: u64| mono.saturating_add_signed(header.wall_offset_ns.get());
        self.first_ns = Some(self.first_ns.map_or(first, |known| known.min(first)));
        self.last_ns = Some(self.last_ns.map_or(last, |known| known.max(last)));
        self.first_wall_ns.get_or_insert(wall(first));
        self.last_wall_ns = Some(wall(last));
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let meta = &self.meta;
        writeln!(out, "{}: {}", self.file, bytes(self.bytes))?;
        let mut line = |name: &str, text: String| writeln!(out, "  {name:<12} {text}");
        line(
            "recorded",
            format!(
                "on {}, Linux {} {}, by tcpwatch {}",
                meta.host, meta.kernel, meta.machine, meta.tool
            ),
        )?;
        if let (Some(first), Some(last)) = (self.first_wall_ns, self.last_wall_ns) {
            let span = Nanos(last.saturating_sub(first));
            line(
                "time",
                format!("{} to {} ({span})", recording::shown(first), recording::shown(last)),
            )?;
        }
        line("recording", format!("{}, file {}", meta.recording, meta.sequence))?;
        line("asked for", asked_for(&meta.rules))?;
        line(
            "holds",
            format!(
                "{} transitions, {} inputs in {} blocks, {} snapshots",
                self.transitions, self.inputs, self.blocks, self.snapshots
            ),
        )?;
        if let Some(tenths) = (self.bytes * 10).checked_div(self.transitions) {
            line(
                "size",
                format!(
                    "{}.{} bytes per transition, {} before compression",
                    tenths / 10,
                    tenths % 10,
                    bytes(self.raw_bytes)
                ),
            )?;
        }
        line("lost", format!("{} in the kernel, {} missing in the file", self.lost, self.missing))?;
        line("end", self.end())?;
        for DamageField { from, to, why, transitions } in &self.damage {
            let known =
                transitions.map_or_else(String::new, |count| format!(", {count} transitions"));
            line("damaged", format!("bytes {from} to {to}: {why}{known}"))?;
        }
        Ok(())
    }

    fn end(&self) -> String {
        if self.closed && self.continued {
            "closed; another file goes on".to_owned()
        } else if self.closed {
            "closed in order".to_owned()
        } else if self.torn > 0 {
            format!(
                "ends within a block, after {} bytes of it: still being written, or cut off",
                self.torn
            )
        } else {
            "not closed: still being written, or its recorder was ended".to_owned()
        }
    }
}

/// Thresholds and filters, as flags.
pub(crate) fn asked_for(rules: &RecordedRules) -> String {
    let mut flags = vec![format!("--linger {}", Nanos(rules.linger_ns))];
    let mut list = |flag: &str, values: Vec<String>| {
        if !values.is_empty() {
            flags.push(format!("{flag} {}", values.join(",")));
        }
    };
    let text = |number: &dyn ToString| number.to_string();
    list("-p", rules.pids.iter().map(|pid| text(pid)).collect());
    list("-L", rules.local_ports.iter().map(|port| text(port)).collect());
    list("-D", rules.remote_ports.iter().map(|port| text(port)).collect());
    list("-N", rules.netns.iter().map(|netns| text(netns)).collect());
    list("-u", rules.uids.iter().map(|uid| text(uid)).collect());
    list("--state", rules.states.iter().cloned().collect());
    for (flag, set) in [
        ("-4", rules.family == Some(4)),
        ("-6", rules.family == Some(6)),
        ("-q", rules.findings_only),
        ("--include-half-open", rules.include_half_open),
        ("a command's descendants", rules.follow),
    ] {
        if set {
            flags.push(flag.to_owned());
        }
    }
    flags.join(" ")
}
