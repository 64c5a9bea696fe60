//! `tcpwatch doctor`: what this kernel and these privileges allow.
//!
//! Every line is something that was tried or read now, not something that is true in general.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Result;
use rustc_hash::FxHashSet;
use rustix::thread::CapabilitySet;
use tcpwatch_common::{MOST_EMITTED, Need};

use crate::{
    Outcome,
    cli::DoctorArgs,
    core::{filter::Filter, input::Scope, unseen::Unseen},
    exit::Exit,
    kernel::{
        btf::Btf,
        layout::Layout,
        load::{AcceptProbe, Kernel, Plan, VMLINUX},
        pass::Passes,
        privilege, processes, shed,
    },
};

const RING: u32 = 16 << 20;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Note,
    Bad,
}

struct Report<W: Write> {
    out: W,
    works: bool,
    /// What scans do not see here.
    unseen: Vec<Unseen>,
}

impl<W: Write> Report<W> {
    fn line(&mut self, mark: Mark, what: &str, says: &str) -> io::Result<()> {
        let word = match mark {
            Mark::Good => "ok",
            Mark::Note => "--",
            Mark::Bad => {
                self.works = false;
                "NO"
            }
        };
        writeln!(self.out, "{word:>2}  {what:<22} {says}")
    }
}

/// `tcpwatch doctor`.
pub fn command(args: &DoctorArgs) -> Outcome {
    let mut report = Report { out: io::stdout().lock(), works: true, unseen: Vec::new() };
    if let Err(error) = processes::require_proc() {
        report.line(Mark::Bad, "/proc", &error.to_string())?;
        return finish(report);
    }
    kernel(&mut report)?;
    capabilities(&mut report)?;
    fields(&mut report, args.verbose)?;
    if report.works {
        attach(&mut report)?;
    }
    finish(report)
}

fn finish(mut report: Report<impl Write>) -> Outcome {
    match (report.works, &report.unseen[..]) {
        (true, []) => writeln!(report.out, "\ntcpwatch works here")?,
        (true, unseen) => {
            writeln!(report.out, "\ntcpwatch works here, but does not see everything:")?;
            for unseen in unseen {
                writeln!(report.out, "  not seen: {unseen}")?;
            }
        }
        (false, _) => writeln!(report.out, "\ntcpwatch does not work here")?,
    }
    Ok(if report.works { Exit::Ok } else { Exit::Error })
}

fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel(report: &mut Report<impl Write>) -> Result<()> {
    let release = sysctl("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    report.line(Mark::Good, "kernel", &format!("Linux {release}"))?;
    if let Some(value) = sysctl("/proc/sys/kernel/unprivileged_bpf_disabled") {
        report.line(
            Mark::Note,
            "unprivileged BPF",
            &format!("unprivileged_bpf_disabled = {value}"),
        )?;
    }
    if let Some(text) = sysctl("/sys/kernel/security/lockdown") {
        report.line(Mark::Note, "lockdown", &text)?;
    }
    let stats = sysctl("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
    let says = if stats == "1" {
        "on: the kernel measures what the program costs"
    } else {
        "off: sysctl kernel.bpf_stats_enabled=1 lets the kernel measure the program"
    };
    report.line(Mark::Note, "bpf_stats", says)?;
    option_memory(report)
}

/// What is remembered of a socket is option memory of that socket, of which it may have only so much.
fn option_memory(report: &mut Report<impl Write>) -> Result<()> {
    /// It takes about 350 bytes; other BPF programs and the socket's own options take some, too.
    const ENOUGH: u64 = 4096;
    let Some(bytes) = sysctl("/proc/sys/net/core/optmem_max").and_then(|text| text.parse().ok())
    else {
        return Ok(());
    };
    let (mark, says) = if u64::ge(&bytes, &ENOUGH) {
        (Mark::Good, format!("net.core.optmem_max = {bytes}: room for data about each socket"))
    } else {
        (
            Mark::Note,
            format!(
                "net.core.optmem_max = {bytes}, below {ENOUGH}: sockets may not be traced, and connections of listeners that are may be dropped; raise it"
            ),
        )
    };
    report.line(mark, "option memory", &says)?;
    Ok(())
}

fn capabilities(report: &mut Report<impl Write>) -> Result<()> {
    for needed in &privilege::NEEDED {
        if privilege::has(needed.capability) {
            report.line(Mark::Good, needed.name, needed.purpose)?;
        } else {
            report.line(
                Mark::Bad,
                needed.name,
                &format!("missing: needed to {}", needed.purpose),
            )?;
        }
    }
    for useful in &privilege::USEFUL {
        if privilege::has(useful.capability) {
            report.line(Mark::Good, useful.name, useful.purpose)?;
        } else {
            report.line(Mark::Note, useful.name, &format!("missing: cannot {}", useful.purpose))?;
            if useful.capability == CapabilitySet::SYS_ADMIN {
                report.unseen.push(Unseen::Queues);
            }
        }
    }
    if let Some(missing) = privilege::missing() {
        for line in missing.lines().skip(1) {
            report.line(Mark::Note, "", line)?;
        }
    }
    Ok(())
}

fn fields(report: &mut Report<impl Write>, verbose: bool) -> Result<()> {
    let btf = match Btf::read(Path::new(VMLINUX)) {
        Ok(btf) => btf,
        Err(error) => {
            report.line(Mark::Bad, "BTF", &error.to_string())?;
            return Ok(());
        }
    };
    let layout = Layout::find(&btf);
    let found = layout.fields().filter(|(_, at)| at.is_some()).count();
    let total = layout.fields().count();
    report.line(Mark::Good, "BTF", &format!("{found} of {total} kernel fields found by name"))?;
    for (spec, at) in layout.fields() {
        let name = format!("{}::{}", spec.structure, spec.path);
        match at {
            Some(at) if verbose => {
                report.line(Mark::Good, "", &format!("{name} at {at}, {} bytes", spec.size))?;
            }
            Some(_) => {}
            None if spec.need == Need::Required => {
                report.line(Mark::Bad, "", &format!("{name} is missing"))?;
            }
            None => {
                report.line(
                    Mark::Note,
                    "",
                    &format!("{name} is missing; tcpwatch does without"),
                )?;
            }
        }
    }
    if btf.has_struct("mptcp_sock") {
        report.line(
            Mark::Good,
            "MPTCP",
            "the application's socket is shown, its subflows are not",
        )?;
    } else {
        report.line(Mark::Note, "MPTCP", "not in this kernel")?;
    }
    Ok(())
}

/// Tries that what was attached goes on without the privileges that attached it.
fn shed_and_look_again(
    report: &mut Report<impl Write>,
    kernel: &mut Kernel,
    passes: &mut Passes,
) -> Result<()> {
    const WHAT: &str = "privileges";
    passes.stay();
    shed::all_but_working(shed::evidence(), || kernel.lost().map(drop))?;
    let all = privilege::NEEDED.iter().chain(&privilege::USEFUL);
    let kept: Vec<_> =
        all.filter(|one| privilege::has(one.capability)).map(|one| one.name).collect();
    let kept = if kept.is_empty() { "none is kept".to_owned() } else { kept.join(", ") + " kept" };
    match passes.run(Scope::Everything, |_| ()) {
        Ok(()) => report.line(
            Mark::Good,
            WHAT,
            &format!("given up after the start ({kept}); looks go on without them"),
        )?,
        Err(error) => {
            report.line(Mark::Bad, WHAT, &format!("looks end when they are given up: {error}"))?;
        }
    }
    Ok(())
}

fn attach(report: &mut Report<impl Write>) -> Result<()> {
    let plan = Plan {
        filter: Filter::default(),
        findings_only: true,
        ring_bytes: RING,
        exact_accept: true,
        details: false,
        follow_from: None,
        tally: false,
    };
    let (mut kernel, _ring, mut passes) = match Kernel::attach(&plan) {
        Ok(attached) => attached,
        Err(error) => {
            report.line(Mark::Bad, "kernel program", &format!("{error:#}"))?;
            return Ok(());
        }
    };
    report.line(
        Mark::Good,
        "kernel program",
        "attached to sock:inet_sock_set_state: every transition, all network namespaces",
    )?;
    let mut seen = FxHashSet::default();
    match passes.run(Scope::Everything, |look| seen.extend(look.socket.id)) {
        Ok(()) if !processes::sees_all_pids() => {
            let says = "this is a pid namespace of its own: what only processes outside it hold is not seen";
            report.line(Mark::Note, "task_file iterator", says)?;
            report.unseen.push(Unseen::Processes);
        }
        Ok(()) => report.line(
            Mark::Good,
            "task_file iterator",
            &format!("{} TCP sockets seen just now: holders and fds are exact", seen.len()),
        )?,
        Err(error) => report.line(Mark::Bad, "task_file iterator", &error.to_string())?,
    }
    shed_and_look_again(report, &mut kernel, &mut passes)?;
    match (passes.walks_storage(), kernel.layout.storage_is_walkable) {
        (true, _) => {
            report.line(Mark::Good, "accept queues", "sockets nobody has accepted are found")?;
        }
        (false, false) => report.line(
            Mark::Good,
            "accept queues",
            &format!(
                "sockets nobody has accepted are found; in other network namespaces the first {MOST_EMITTED} of each listener, as the storage iterator can crash this kernel"
            ),
        )?,
        (false, true) => report.line(
            Mark::Note,
            "accept queues",
            "no storage iterator: in other network namespaces never-accepted cannot be told",
        )?,
    }
    match &kernel.accept {
        AcceptProbe::Attached => {
            report.line(
                Mark::Good,
                "exact acceptor",
                "fexit/inet_csk_accept: the owner of an accepted socket is exact",
            )?;
        }
        AcceptProbe::Refused(why) => {
            report.line(
                Mark::Note,
                "exact acceptor",
                &format!("fexit/inet_csk_accept not available ({why}): the owner of an accepted socket is its listener's until a pass finds the fd"),
            )?;
        }
    }
    report.line(
        Mark::Note,
        "ring buffer",
        &format!("{} MiB by default (--ring-size)", RING >> 20),
    )?;
    Ok(())
}
