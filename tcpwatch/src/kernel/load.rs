//! Loads the kernel program, configures and attaches it.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, FExit, Iter, ProgramError},
};
use rustc_hash::FxHashSet;
use tcpwatch_common::{Counter, SETTING_COUNT, Setting, filter, name};

use super::{
    btf::Btf, layout::Layout, lost::Lost, meters::Meters, missed::Missed, pass::Passes, preemption,
    sys,
};
use crate::core::{filter::Filter, state::State, time::Nanos};

/// The kernel program, built from `tcpwatch-ebpf` by `cargo xtask build-ebpf`.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/tcpwatch.bpf.o");

/// Where the kernel describes its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What the kernel program is to do.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Plan {
    /// Filters that it applies.
    pub filter: Filter,
    /// Emit only what findings need.
    pub findings_only: bool,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Use `fexit/inet_csk_accept` if the kernel allows it.
    pub exact_accept: bool,
    /// Findings carry what `ss -i` shows.
    pub details: bool,
    /// Follow the children of this process.
    pub follow_from: Option<u32>,
    /// Count every transition in the kernel, also those that are not emitted.
    pub tally: bool,
}

/// How acceptors are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptProbe {
    /// `fexit/inet_csk_accept` is attached.
    Attached,
    /// It is not, and this is why.
    Refused(String),
}

/// What programs on the tracepoint have taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// On all CPUs.
    pub time: Nanos,
    /// For so many transitions.
    pub transitions: u64,
}

/// What a test pretends of this kernel.
#[derive(Debug, Default)]
pub struct AsIf {
    /// An iterator must not walk the storage of sockets.
    pub storage_is_not_walkable: bool,
    /// Of the programs on the tracepoint of transitions it runs only these, by their names.
    pub programs: Option<Vec<&'static str>>,
}

/// The programs on the tracepoint of transitions, in this order: each looks at what those before it have done.
const TRANSITION_PROGRAMS: [&str; 3] = [name::PROG_TRANSITION, name::PROG_SECOND, name::PROG_LAST];

/// The attached kernel program.
pub struct Kernel {
    /// The programs stay attached while it lives.
    ebpf: Ebpf,
    counters: PerCpuArray<MapData, u64>,
    missed: Missed,
    /// Tasks are preempted in the programs: the third is attached, if it can be.
    preempted: bool,
    /// Processes that are watched; the kernel program adds those that it follows.
    pids: HashMap<MapData, u32, u8>,
    /// How acceptors are known.
    pub accept: AcceptProbe,
    /// Fields of this kernel.
    pub layout: Layout,
}

impl Kernel {
    /// Loads and attaches. The iterators and the ring are handed out once.
    pub fn attach(plan: &Plan) -> Result<(Self, RingBuf<MapData>, Passes)> {
        Self::attach_as(plan, &AsIf::default())
    }

    /// The same, as if this kernel were another, for tests.
    pub fn attach_as(plan: &Plan, as_if: &AsIf) -> Result<(Self, RingBuf<MapData>, Passes)> {
        let (mut ebpf, btf, layout) = load(plan, as_if, false)?;
        let types = aya::Btf::from_sys_fs().context("read the kernel's BTF")?;
        let mut passes = prepare_passes(&mut ebpf, &types, &layout)?;
        passes.only.clone_from(&plan.filter.netns);
        let accept = if plan.exact_accept {
            attach_accept(&mut ebpf, &types, &btf)
        } else {
            AcceptProbe::Refused("not asked for".to_owned())
        };
        for name in TRANSITION_PROGRAMS {
            let program: &mut BtfTracePoint = program(&mut ebpf, name)?;
            program
                .load("inet_sock_set_state", &types)
                .map_err(refused)
                .context("the kernel refuses the program on sock:inet_sock_set_state")?;
        }
        if plan.follow_from.is_some() {
            let fork: &mut BtfTracePoint = program(&mut ebpf, name::PROG_FORK)?;
            fork.load("sched_process_fork", &types)
                .map_err(refused)
                .context("the kernel refuses the program on sched:sched_process_fork")?;
            fork.attach().context("attach to sched:sched_process_fork")?;
        }
        let preempted = preemption::is_known_to_be_on();
        let needed = if preempted { &TRANSITION_PROGRAMS[..] } else { &TRANSITION_PROGRAMS[..2] };
        for name in as_if.programs.as_deref().unwrap_or(needed) {
            attach(&mut ebpf, name)?;
        }
        let missed = Missed::by(program::<BtfTracePoint>(&mut ebpf, name::PROG_TRANSITION)?.fd()?);
        let ring = RingBuf::try_from(take(&mut ebpf, name::EVENTS)?)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, name::COUNTERS)?)?;
        let pids = HashMap::try_from(take(&mut ebpf, name::PIDS)?)?;
        Ok((Self { ebpf, counters, missed, preempted, pids, accept, layout }, ring, passes))
    }

    /// What the kernel program counts and costs, for any thread; handed out once.
    pub fn meters(&mut self) -> Result<Meters> {
        let tally = PerCpuArray::try_from(take(&mut self.ebpf, name::TALLY)?)?;
        let mut programs = Vec::new();
        for name in TRANSITION_PROGRAMS {
            let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
            programs.push((name, program.fd()?.as_fd().try_clone_to_owned()?));
        }
        Ok(Meters::new(tally, programs))
    }

    /// Transitions that were lost so far. To be asked often: here it shows that a third program is needed.
    pub fn lost(&mut self) -> Result<Lost> {
        if !self.preempted && total(&self.counters, Counter::Preempted)? > 0 {
            self.preempted = true;
            match attach(&mut self.ebpf, name::PROG_LAST) {
                Ok(()) => log::debug!("tasks are preempted in the programs: a third is attached"),
                Err(error) => log::debug!("a third program is needed: {error:#}"),
            }
        }
        let unseen = self.missed.count(|| total(&self.counters, Counter::Caught))?;
        self.lost_so_far(unseen)
    }

    /// The same at the end of a run: waits a second or two if it is not sure whether some are lost.
    pub fn lost_in_all(&mut self) -> Result<Lost> {
        let unseen = self.missed.settle(|| total(&self.counters, Counter::Caught))?;
        self.lost_so_far(unseen)
    }

    /// What shows in a path is among what the kernel counted, if that counted it.
    fn lost_so_far(&self, counted: u64) -> Result<Lost> {
        let shows = total(&self.counters, Counter::Missed)?;
        Ok(Lost {
            full: total(&self.counters, Counter::Lost)?,
            no_memory: total(&self.counters, Counter::NoStorage)?,
            unseen: counted.max(shows),
            undecodable: 0,
        })
    }

    /// Processes that are followed; one whose map is being changed may be missed until the next call.
    pub fn followed(&self) -> Result<Vec<u32>> {
        Ok(self.pids.keys().filter_map(Result::ok).collect())
    }

    /// Watches a process no longer, as it has ended: somebody else may get its id.
    pub fn forget(&mut self, pid: u32) {
        // It is not there any more: all the better.
        let _ = self.pids.remove(&pid);
    }

    /// Descendants that could not be followed, as there were too many at once.
    pub fn unfollowed(&self) -> Result<u64> {
        total(&self.counters, Counter::Unfollowed)
    }

    /// How long the programs on the tracepoint have run, and for how many transitions; both stand still
    /// unless somebody has the kernel count them (`kernel.bpf_stats_enabled`).
    pub fn run_time(&self) -> Option<RunTime> {
        let mut all = RunTime::default();
        for name in TRANSITION_PROGRAMS {
            let info = self.ebpf.program(name)?.info().ok()?;
            all.time.0 += Nanos::from(info.run_time()).0;
            // The first two run for each.
            all.transitions = all.transitions.max(info.run_count());
        }
        Some(all)
    }
}

/// Attaches a loaded program to the tracepoint of transitions.
fn attach(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program.attach().context("attach to sock:inet_sock_set_state")?;
    Ok(())
}

/// Of all CPUs.
fn total(counters: &PerCpuArray<MapData, u64>, counter: Counter) -> Result<u64> {
    let counts = counters.get(&(counter as u32), 0).context("read a counter")?;
    Ok(counts.iter().sum())
}

/// Only what a look takes: no transition is traced.
pub fn look(plan: &Plan) -> Result<Passes> {
    look_as(plan, &AsIf::default())
}

/// The same, as if this kernel were another, for tests.
pub fn look_as(plan: &Plan, as_if: &AsIf) -> Result<Passes> {
    // It takes as long as the loader, which reads them again for itself.
    let types = std::thread::spawn(aya::Btf::from_sys_fs);
    let (mut ebpf, _, layout) = load(plan, as_if, true)?;
    let types = types.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
    let types = types.context("read the kernel's BTF")?;
    let mut passes = only_holders(&mut ebpf, &types)?;
    passes.look_only = true;
    passes.cookies = optional_iterator(&mut ebpf, &types, name::PROG_COOKIES, "tcp", None);
    passes.only.clone_from(&plan.filter.netns);
    passes.later = Some(Later { ebpf, types, layout });
    Ok(passes)
}

/// Loads the iterators over sockets without an fd when they are needed: that takes the verifier
/// longer than many a look.
pub struct Later {
    ebpf: Ebpf,
    types: aya::Btf,
    layout: Layout,
}

impl Later {
    /// The iterators over what we remember, and over one namespace.
    pub(super) fn load(mut self) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let storage = remembered(&mut self.ebpf, &self.types, &self.layout)?;
        let tcp = optional_iterator(&mut self.ebpf, &self.types, name::PROG_TCP, "tcp", None);
        Ok((storage, tcp))
    }
}

/// The object with its constants and sets filled in; no program is loaded yet.
fn load(plan: &Plan, as_if: &AsIf, look_only: bool) -> Result<(Ebpf, Btf, Layout)> {
    // Reading the kernel's types takes most of the time here, and the loader reads them, too.
    let loader = std::thread::spawn(EbpfLoader::new);
    let btf = Btf::read(Path::new(VMLINUX)).context("find out what this kernel's types are")?;
    require(&btf)?;
    let mut layout = Layout::find(&btf);
    layout.storage_is_walkable &= !as_if.storage_is_not_walkable;
    if let Some(spec) = layout.missing().first() {
        bail!(
            "this kernel has no {}::{} of {} bytes, which tcpwatch reads; see tcpwatch doctor",
            spec.structure,
            spec.path,
            spec.size
        );
    }
    let settings = settings(plan, &layout, look_only)?;
    let mut loader = loader.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
    let mut ebpf = loader
        .override_global(name::OFFSETS, &layout.offsets[..], true)
        .override_global(name::SETTINGS, &settings[..], true)
        .map_max_entries(name::EVENTS, plan.ring_bytes)
        .load(OBJECT)
        .context("load the kernel program")?;
    if look_only {
        // It holds all types of the kernel; one look is over before they would be freed.
        std::mem::forget(loader);
    }
    fill_sets(&mut ebpf, &plan.filter)?;
    Ok((ebpf, btf, layout))
}

/// Features that the kernel must have, by what its BTF describes.
fn require(btf: &Btf) -> Result<()> {
    let features = [
        (
            btf.has_typedef("btf_trace_inet_sock_set_state"),
            "the tracepoint sock:inet_sock_set_state",
        ),
        (btf.has_function("bpf_iter_task_file"), "the task_file iterator (5.8)"),
        (btf.has_function("bpf_sock_from_file"), "bpf_sock_from_file (5.11)"),
        (btf.has_struct("bpf_ringbuf"), "BPF ring buffers (5.8)"),
        (
            btf.has_function("bpf_get_socket_ptr_cookie"),
            "socket cookies in tracing programs (5.12)",
        ),
    ];
    let missing: Vec<_> =
        features.iter().filter(|(there, _)| !there).map(|&(_, what)| what).collect();
    if !missing.is_empty() {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        bail!(
            "Linux {} lacks {}; tcpwatch needs Linux 5.15 or newer",
            release.trim(),
            missing.join(", ")
        );
    }
    Ok(())
}

fn settings(plan: &Plan, layout: &Layout, look_only: bool) -> Result<[u32; SETTING_COUNT]> {
    let filter = &plan.filter;
    let flags = [
        (!filter.watches_all(), filter::PID),
        (!filter.local_ports.is_empty(), filter::LOCAL_PORT),
        (!filter.remote_ports.is_empty(), filter::REMOTE_PORT),
        (filter.family == Some(4), filter::V4),
        (filter.family == Some(6), filter::V6),
        (!filter.netns.is_empty(), filter::NETNS),
        (plan.findings_only, filter::FINDINGS),
    ];
    let mut settings = [0; SETTING_COUNT];
    settings[Setting::Filters as usize] =
        flags.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit);
    settings[Setting::States as usize] = states(&filter.states);
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("count the CPUs")?;
    settings[Setting::Cpus as usize] = u32::try_from(cpus).unwrap_or(1);
    settings[Setting::WakeAbove as usize] = plan.ring_bytes / 4;
    settings[Setting::LookOnly as usize] = u32::from(look_only);
    settings[Setting::Details as usize] = u32::from(plan.details);
    settings[Setting::FollowFrom as usize] = plan.follow_from.unwrap_or(0);
    settings[Setting::Tally as usize] = u32::from(plan.tally);
    settings[Setting::EmitQueued as usize] = u32::from(!layout.storage_is_walkable);
    Ok(settings)
}

/// The user's states, and those without which findings would be wrong.
fn states(wanted: &BTreeSet<State>) -> u32 {
    if wanted.is_empty() {
        return u32::MAX;
    }
    let needed = [State::CloseWait, State::Close, State::Listen];
    wanted.iter().chain(&needed).fold(0, |mask, state| mask | state.bit())
}

fn fill_sets(ebpf: &mut Ebpf, filter: &Filter) -> Result<()> {
    let mut pids: HashMap<_, u32, u8> = HashMap::try_from(map(ebpf, name::PIDS)?)?;
    for pid in &filter.pids {
        pids.insert(pid, 1, 0).with_context(|| format!("watch process {pid}"))?;
    }
    let mut netns: HashMap<_, u32, u8> = HashMap::try_from(map(ebpf, name::NETNS)?)?;
    for inode in &filter.netns {
        netns.insert(inode, 1, 0).with_context(|| format!("watch network namespace {inode}"))?;
    }
    for (map_name, ports) in
        [(name::LOCAL_PORTS, &filter.local_ports), (name::REMOTE_PORTS, &filter.remote_ports)]
    {
        let mut words: Array<_, u64> = Array::try_from(map(ebpf, map_name)?)?;
        for &port in ports {
            let slot = u32::from(port) / 64;
            let word = words.get(&slot, 0)? | 1 << (port % 64);
            words.set(slot, word, 0)?;
        }
    }
    Ok(())
}

fn prepare_passes(ebpf: &mut Ebpf, types: &aya::Btf, layout: &Layout) -> Result<Passes> {
    let storage = remembered(ebpf, types, layout)?;
    let tcp = optional_iterator(ebpf, types, name::PROG_TCP, "tcp", None);
    // What only the first pass could see would seem gone to the second.
    let stays = storage.is_none();
    Ok(Passes { storage, tcp, stays, ..only_holders(ebpf, types)? })
}

/// Passes that see only what somebody holds.
fn only_holders(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<Passes> {
    let task_file: &mut Iter = program(ebpf, name::PROG_TASK_FILE)?;
    task_file
        .load("task_file", types)
        .map_err(refused)
        .context("the kernel refuses the task_file iterator")?;
    let task_file = sys::link_iterator(task_file.fd()?.as_fd(), None)
        .context("attach the task_file iterator")?;
    let settings = Array::try_from(take(ebpf, name::PASS)?)?;
    Ok(Passes {
        task_file,
        storage: None,
        tcp: None,
        cookies: None,
        only: BTreeSet::new(),
        settings,
        missed: FxHashSet::default(),
        stays: false,
        entered: 0,
        number: 0,
        look_only: false,
        later: None,
    })
}

/// The iterator over what we remember.
fn remembered(ebpf: &mut Ebpf, types: &aya::Btf, layout: &Layout) -> Result<Option<OwnedFd>> {
    if !layout.storage_is_walkable {
        return Ok(None);
    }
    let sockets = match map(ebpf, name::SOCKETS)? {
        aya::maps::Map::SkStorage(data) => data.fd().as_fd().as_raw_fd().unsigned_abs(),
        other => bail!("map {} is not socket storage but {other:?}", name::SOCKETS),
    };
    Ok(optional_iterator(ebpf, types, name::PROG_STORAGE, "bpf_sk_storage_map", Some(sockets)))
}

/// An iterator without which something stays unseen, but nothing is wrong.
fn optional_iterator(
    ebpf: &mut Ebpf,
    types: &aya::Btf,
    name: &str,
    kind: &str,
    map: Option<u32>,
) -> Option<OwnedFd> {
    let linked = program::<Iter>(ebpf, name).and_then(|program| {
        program.load(kind, types).map_err(refused)?;
        Ok(sys::link_iterator(program.fd()?.as_fd(), map)?)
    });
    linked.inspect_err(|error| log::warn!("no iterator over {kind}: {error:#}")).ok()
}

/// `inet_csk_accept` lost two of its four parameters in 6.10; its return value sits behind them.
fn attach_accept(ebpf: &mut Ebpf, types: &aya::Btf, btf: &Btf) -> AcceptProbe {
    let variant = match btf.parameters("inet_csk_accept") {
        Some(2) => name::PROG_ACCEPT2,
        Some(4) => name::PROG_ACCEPT4,
        Some(other) => {
            return AcceptProbe::Refused(format!("inet_csk_accept has {other} parameters"));
        }
        None => return AcceptProbe::Refused("this kernel has no inet_csk_accept".to_owned()),
    };
    let attached = program::<FExit>(ebpf, variant).and_then(|program| {
        program.load("inet_csk_accept", types).map_err(refused)?;
        program.attach()?;
        Ok(())
    });
    match attached {
        Ok(()) => AcceptProbe::Attached,
        Err(error) => AcceptProbe::Refused(root_cause(&error)),
    }
}

/// A load error without the verifier's log, of which the last words usually say it.
fn refused(error: ProgramError) -> anyhow::Error {
    const LAST_WORDS: usize = 3;
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.into() };
    let log = verifier_log.to_string();
    log::debug!("{log}");
    let words: Vec<_> = log
        .lines()
        .filter(|line| {
            let line = line.trim();
            !["verification time", "stack depth", "processed", ";"]
                .iter()
                .any(|n| line.starts_with(n))
        })
        .collect();
    let words = words[words.len().saturating_sub(LAST_WORDS)..].join(" | ");
    anyhow::Error::new(io_error).context(format!("verifier: {words}"))
}

fn root_cause(error: &anyhow::Error) -> String {
    error.root_cause().to_string()
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the kernel object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name).with_context(|| format!("the kernel object has no map {name}"))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name).with_context(|| format!("the kernel object has no map {name}"))
}
