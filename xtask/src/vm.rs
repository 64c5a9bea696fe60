//! `cargo xtask vm`: the kernel tests on the kernels of Debian, each in a virtual machine.
//!
//! Software emulation is the same everywhere and needs no privilege, so this runs wherever the gate
//! does; it is some ten times slower than the machine itself, which is also a test of the tests.

mod apt;
mod archive;
mod boot;
mod guest;
mod initramfs;
mod kernels;
mod outcome;
mod page;
mod report;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::guest::run as guest;
use self::{
    boot::Machine,
    kernels::{Catalogue, Fetched, LONG_TERM},
    outcome::Outcome,
    report::Row,
};
use crate::{cache, target_dir};

/// Flags.
#[derive(clap::Args, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag the user may type")]
pub(crate) struct Args {
    /// Only this kernel, as 6.12 or 6.12.90; repeatable [default: long-term lines and the newest]
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// The newest kernel of every line that Debian has
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// What the gate runs: the kernels that most have, and the tests that depend on the kernel most
    #[arg(long, exclusive = true)]
    gate: bool,
    /// Show which kernels there are, and run nothing
    #[arg(long)]
    list: bool,
    /// Read Debian's lists again, for kernels newer than those fetched
    #[arg(long)]
    update: bool,
    /// Results as JSON, a line for each kernel
    #[arg(long)]
    json: bool,
    /// Renew the rows of docs/kernels.md
    #[arg(long, conflicts_with_all = ["json", "skip", "filter"])]
    markdown: bool,
    /// CPUs of a guest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Guests at the same time [default: as many as this machine has CPUs for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// Minutes that a guest may take
    #[arg(long, value_name = "MINUTES", default_value_t = 45)]
    limit: u64,
    /// Not the tests with this in their name; repeatable
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Only these tests, by their whole names
    #[arg(skip)]
    only: Vec<String>,
    /// Only the tests with this in their name
    filter: Option<String>,
}

/// The kernels that most machines with a long-term Debian have.
const GATE: [&str; 2] = ["6.1", "6.12"];
/// What the gate runs on them, under two minutes each: what rests on something of the kernel that is
/// not the same in all of them, and the way from the kernel to the screen. The whole matrix runs all.
const GATED: [&str; 23] = [
    "doctor_says_that_it_works",
    "without_privilege_the_error_names_the_capabilities",
    "cap_bpf_and_cap_perfmon_are_enough",
    "the_demo_finds_its_three_leaks",
    "three_leaks_are_three_findings",
    "everything_tcpstates_reports_is_reported",
    "active_and_passive_close_over_ipv4",
    "mptcp_shows_the_applications_socket_only",
    "who_accepted_is_known_before_any_look",
    "a_prefork_workers_socket_is_the_workers",
    "a_connection_nobody_accepts_names_the_listener",
    "what_lingered_before_the_start_is_found",
    "a_container_is_known_by_its_cgroup",
    "waiters_are_told_apart",
    "leaks_finds_what_began_before",
    "leaks_gives_ages_that_enclose_the_truth",
    "what_ss_shows_is_shown",
    "states_counts_what_ss_counts",
    "long_queues_in_other_namespaces_are_seen",
    "a_tiny_ring_loses_exactly_what_it_says",
    "after_a_loss_the_table_is_right_again",
    "serve_counts_every_transition_and_how_long_it_took",
    "serve_tells_of_a_leak_from_its_beginning_to_its_end",
];

/// What the gate runs.
pub(crate) fn gate() -> Result<()> {
    run(&Args {
        kernel: GATE.map(str::to_owned).into(),
        only: GATED.map(str::to_owned).into(),
        cpus: 1,
        limit: 15,
        ..Args::default()
    })
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.gate {
        return gate();
    }
    boot::check_tools()?;
    let catalogue = Catalogue::open(cache()?.join("kernels"), args.update);
    if args.list {
        return list(&catalogue);
    }
    let (fetched, missing) = wanted(args, &catalogue)?;
    let target = target()?;
    let mut arguments: Vec<String> =
        ["--format", "json", "--test-threads", "1"].map(str::to_owned).into();
    arguments.extend(args.skip.iter().flat_map(|name| ["--skip".to_owned(), name.clone()]));
    arguments.extend(args.filter.clone());
    let initramfs = target.join("initramfs.cpio");
    let contents = initramfs::Contents { kernels: &fetched, arguments, only: &args.only };
    initramfs::write(&contents, &initramfs).context("make the initramfs")?;
    let mut rows = boot_all(args, &fetched, &initramfs, &target)?;
    rows.extend(missing.into_iter().map(Row::Missing));
    if args.json {
        print!("{}", report::json(&rows)?);
    } else {
        print!("{}", report::text(&rows));
    }
    if args.markdown {
        page::renew(&rows)?;
    }
    let bad = rows.iter().filter(|row| !row.faults().is_empty()).count();
    if bad > 0 {
        bail!(
            "{bad} of {} kernels are not as expected; logs are in {}",
            fetched.len(),
            target.display()
        );
    }
    Ok(())
}

fn list(catalogue: &Catalogue) -> Result<()> {
    for kernel in catalogue.lines()? {
        let here = if catalogue.has(&kernel) { "fetched" } else { "" };
        println!(
            "{:<6} {:<32} {:<24} {:<20} {here}",
            kernel.line(),
            kernel.release,
            kernel.version,
            kernel.suite
        );
    }
    Ok(())
}

/// The kernels to run, and the lines that no suite has.
fn wanted(args: &Args, catalogue: &Catalogue) -> Result<(Vec<Fetched>, Vec<String>)> {
    let mut kernels = Vec::new();
    let mut missing = Vec::new();
    if args.all {
        kernels = catalogue.lines()?;
    } else if args.kernel.is_empty() {
        for line in LONG_TERM {
            match catalogue.find(line)? {
                Some(kernel) => kernels.push(kernel),
                None => missing.push(line.to_owned()),
            }
        }
        kernels.extend(catalogue.lines()?.pop());
    } else {
        for version in &args.kernel {
            let found = catalogue.find(version)?;
            let kernel = found.with_context(|| {
                format!(
                    "no suite has a kernel {version}; cargo xtask vm --list shows what there is"
                )
            })?;
            kernels.push(kernel);
        }
    }
    let fetched = kernels.iter().map(|kernel| catalogue.fetch(kernel)).collect::<Result<_>>()?;
    Ok((fetched, missing))
}

/// Where logs and the initramfs go.
fn target() -> Result<PathBuf> {
    let dir = target_dir().join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// Boots all of them, some at the same time.
fn boot_all(args: &Args, fetched: &[Fetched], initramfs: &Path, logs: &Path) -> Result<Vec<Row>> {
    let cpus = std::thread::available_parallelism().map_or(1, Into::into);
    let jobs = args.jobs.map_or(cpus / args.cpus as usize, |jobs| jobs as usize);
    let queue: Mutex<VecDeque<_>> = Mutex::new(fetched.iter().enumerate().collect());
    let next = || queue.lock().map_or(None, |mut queue| queue.pop_front());
    let work = || -> Result<Vec<(usize, Outcome)>> {
        let mut outcomes = Vec::new();
        while let Some((number, fetched)) = next() {
            outcomes.push((number, boot(args, fetched, initramfs, logs)?));
        }
        Ok(outcomes)
    };
    let mut outcomes = std::thread::scope(|scope| -> Result<Vec<_>> {
        let workers: Vec<_> =
            (0..jobs.clamp(1, fetched.len())).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??);
        }
        Ok(all)
    })?;
    outcomes.sort_by_key(|(number, _)| *number);
    Ok(outcomes.into_iter().map(|(_, outcome)| Row::Ran(Box::new(outcome))).collect())
}

fn boot(args: &Args, fetched: &Fetched, initramfs: &Path, logs: &Path) -> Result<Outcome> {
    let machine = Machine {
        fetched,
        initramfs,
        cpus: args.cpus,
        limit: Duration::from_secs(args.limit * 60),
        logs: logs.join(&fetched.kernel.release),
    };
    let line = fetched.kernel.line();
    let mut outcome = Outcome::new(fetched.kernel.clone());
    let end = machine.run(|message| {
        if let Some(shown) = outcome.hear(message) {
            eprintln!("{line}: {shown}");
        }
    })?;
    outcome.ended(end, &machine.console());
    Ok(outcome)
}
