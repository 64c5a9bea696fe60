//! The kernel's own trace: ftrace on `sock:inet_sock_set_state`, with nanoseconds and whole addresses.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{said::End, state::State};
use crate::{exec, tool::Background};

const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "events/sock/inet_sock_set_state";
/// Of each CPU. It is emptied far more often than it could be full.
const BUFFER_KIB: u32 = 8192;
const PAUSE: Duration = Duration::from_millis(20);
/// The fields that are read, as `format` shows them, with their offsets.
const FIELDS: [&str; 9] = [
    "const void * skaddr;\toffset:8;",
    "int oldstate;\toffset:16;",
    "int newstate;\toffset:20;",
    "__u16 sport;\toffset:24;",
    "__u16 dport;\toffset:26;",
    "__u16 family;\toffset:28;",
    "__u16 protocol;\toffset:30;",
    "__u8 saddr[4];\toffset:32;",
    "__u8 saddr_v6[16];\toffset:40;",
];
pub(super) const MPTCP: u16 = 262;
/// What stands between events, in place of their length.
const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;

/// One line of the kernel's trace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    /// `CLOCK_MONOTONIC`, as tcpwatch has it.
    pub(super) ns: u64,
    /// The task that ran: in a softirq anybody's.
    pub(super) tid: i32,
    /// The address of the kernel's socket.
    pub(super) sk: u64,
    pub(super) old: State,
    pub(super) new: State,
    pub(super) sport: u16,
    pub(super) dport: u16,
    pub(super) protocol: u16,
    pub(super) v6: bool,
    pub(super) local: IpAddr,
    pub(crate) remote: IpAddr,
}

impl Event {
    pub(super) fn local_end(&self) -> End {
        End { addr: self.local, port: self.sport }
    }

    pub(super) fn remote_end(&self) -> End {
        End { addr: self.remote, port: self.dport }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ns, tid, sk, old, new, sport, dport, protocol, v6, local, remote } = self;
        let family = if *v6 { 6 } else { 4 };
        write!(
            f,
            "kernel[{} tid {tid} sk {sk:x} v{family} {local} {sport} > {remote} {dport} protocol {protocol} {old}->{new}]",
            super::seconds(*ns)
        )
    }
}

/// The threads of process 1. In a softirq on top of one of them some machines run no BPF program, so what
/// happens there no tracer of this kind sees.
pub(crate) fn threads_of_init() -> HashSet<i32> {
    let tasks = fs::read_dir("/proc/1/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// An instance of ftrace, and a thread that empties it.
pub(crate) struct Trace {
    instance: Instance,
    reader: Option<Background<()>>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Trace {
    /// Traces from now on whatever is wanted. What the kernel's own filter leaves out costs the least.
    pub(crate) fn start(
        filter: &str,
        wanted: impl Fn(&Event) -> bool + Send + 'static,
    ) -> Result<Self> {
        let instance = Instance::new()?;
        if !filter.is_empty() {
            instance.write(&format!("{EVENT}/filter"), filter)?;
        }
        let mut pipes = instance.pipes()?;
        let kind = instance.read(&format!("{EVENT}/id"))?.trim().parse()?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&events);
        instance.write(&format!("{EVENT}/enable"), "1")?;
        let reader = Background::start(move |over| {
            // Once more after the end, for what came before it.
            let mut last = false;
            while !last {
                last = over.load(Relaxed);
                for pipe in &mut pipes {
                    let mut new = drain(pipe, kind)?;
                    new.retain(&wanted);
                    found.lock().unwrap_or_else(PoisonError::into_inner).append(&mut new);
                }
                thread::sleep(PAUSE);
            }
            Ok(())
        });
        Ok(Self { instance, reader: Some(reader), events })
    }

    /// What happened until now, in order of time. It waits until all of it is here.
    pub(crate) fn events(&self) -> Vec<Event> {
        thread::sleep(3 * PAUSE);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        events.sort();
        events
    }

    /// Ends it; everything that happened, and how many events the kernel says it has dropped.
    pub(crate) fn stop(mut self) -> Result<(Vec<Event>, u64)> {
        self.instance.write(&format!("{EVENT}/enable"), "0")?;
        if let Some(reader) = self.reader.take() {
            reader.stop()?;
        }
        Ok((self.events(), self.instance.dropped()?))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // An instance that somebody reads cannot be removed.
        if let Some(reader) = self.reader.take() {
            let _ = reader.stop();
        }
    }
}

/// The directory of an instance, which is gone with it.
struct Instance(PathBuf);

impl Instance {
    fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let instances = Path::new(TRACING).join("instances");
        if !instances.exists() {
            exec(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACING]))?;
        }
        let name = format!("tcpwatch-xtask-{}-{}", id(), NUMBER.fetch_add(1, Relaxed));
        let path = instances.join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let instance = Self(path);
        let format = instance.read(&format!("{EVENT}/format"))?;
        for field in FIELDS {
            ensure!(format.contains(field), "this kernel's trace has another format: {format}");
        }
        instance.write("trace_clock", "mono")?;
        instance.write("buffer_size_kb", &BUFFER_KIB.to_string())?;
        Ok(instance)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.0.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    fn cpus(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.0.join("per_cpu"))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    fn pipes(&self) -> Result<Vec<File>> {
        let open = |cpu: PathBuf| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK);
            Ok(options.open(cpu.join("trace_pipe_raw"))?)
        };
        self.cpus()?.into_iter().map(open).collect()
    }

    /// What it counts itself: overwritten, dropped, or lost as a commit was too slow.
    fn dropped(&self) -> Result<u64> {
        let mut dropped = 0;
        for cpu in self.cpus()? {
            for line in fs::read_to_string(cpu.join("stats"))?.lines() {
                if let Some((name, count)) = line.split_once(": ")
                    && ["overrun", "commit overrun", "dropped events"].contains(&name)
                {
                    dropped += count.trim().parse::<u64>()?;
                }
            }
        }
        Ok(dropped)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.write(&format!("{EVENT}/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

fn drain(pipe: &mut File, kind: u16) -> Result<Vec<Event>> {
    let (mut events, mut page) = (Vec::new(), [0; 4096]);
    loop {
        match pipe.read(&mut page) {
            Ok(0) => return Ok(events),
            Ok(length) => read_page(&page[..length], kind, &mut events)
                .context("a page of the kernel's trace ends in an event")?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(events),
            Err(error) => return Err(error).context("read the kernel's trace"),
        }
    }
}

/// A page of the ring buffer: a time, a length, then events with the time since the one before
/// (`struct ring_buffer_event` in `include/linux/ring_buffer.h`).
fn read_page(page: &[u8], kind: u16, events: &mut Vec<Event>) -> Option<()> {
    let mut ns = u64_at(page, 0)?;
    let length = usize::try_from(u64_at(page, 8)? & 0xf_ffff).ok()?;
    let mut rest = page.get(16..16 + length)?;
    while let Some(head) = u32_at(rest, 0) {
        let (tag, delta) = (head & 31, u64::from(head >> 5));
        rest = &rest[4..];
        match tag {
            PADDING if delta == 0 => break,
            PADDING => {
                ns += delta;
                rest = rest.get(u32_at(rest, 0)? as usize..)?;
            }
            TIME_EXTEND => {
                ns += delta + (u64::from(u32_at(rest, 0)?) << 27);
                rest = &rest[4..];
            }
            TIME_STAMP => {
                ns = ((u64::from(u32_at(rest, 0)?) << 27) + delta) | (ns & (0x1f << 59));
                rest = &rest[4..];
            }
            _ => {
                ns += delta;
                // Its length, or 0 and then its length with the number that says so.
                let (from, to) = if tag == 0 { (4, u32_at(rest, 0)?) } else { (0, 4 * tag) };
                let (from, to) = (from, to as usize);
                if let Some(event) = event(rest.get(from..to)?, ns, kind) {
                    events.push(event);
                }
                rest = rest.get(to..)?;
            }
        }
    }
    Some(())
}

fn event(body: &[u8], ns: u64, kind: u16) -> Option<Event> {
    if u16_at(body, 0)? != kind {
        return None;
    }
    let v6 = i32::from(u16_at(body, 28)?) == libc::AF_INET6;
    let address = |v4: usize, at: usize| -> Option<IpAddr> {
        Some(if v6 {
            Ipv6Addr::from(*body.get(at..)?.first_chunk::<16>()?).into()
        } else {
            Ipv4Addr::from(*body.get(v4..)?.first_chunk::<4>()?).into()
        })
    };
    Some(Event {
        ns,
        tid: u32_at(body, 4)?.cast_signed(),
        sk: u64_at(body, 8)?,
        old: State::from_kernel(u32_at(body, 16)?)?,
        new: State::from_kernel(u32_at(body, 20)?)?,
        sport: u16_at(body, 24)?,
        dport: u16_at(body, 26)?,
        protocol: u16_at(body, 30)?,
        v6,
        // Addresses as tcpwatch has them: v4-mapped is IPv4.
        local: address(32, 40)?.to_canonical(),
        remote: address(36, 56)?.to_canonical(),
    })
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event's head and body, as the kernel writes them.
    fn written(delta: u32, sport: u16) -> Vec<u8> {
        let mut body = vec![0; 72];
        body[0..2].copy_from_slice(&7_u16.to_ne_bytes());
        body[4..8].copy_from_slice(&42_i32.to_ne_bytes());
        body[16..20].copy_from_slice(&7_i32.to_ne_bytes());
        body[20..24].copy_from_slice(&10_i32.to_ne_bytes());
        body[24..26].copy_from_slice(&sport.to_ne_bytes());
        body[28..30].copy_from_slice(&2_u16.to_ne_bytes());
        body[32..36].copy_from_slice(&[127, 0, 0, 1]);
        let length = u32::try_from(body.len() / 4).unwrap();
        [&((delta << 5) | length).to_ne_bytes()[..], &body].concat()
    }

    fn page(events: &[u8]) -> Vec<u8> {
        let length = u64::try_from(events.len()).unwrap();
        [&1_000_u64.to_ne_bytes()[..], &length.to_ne_bytes(), events, &[0; 8]].concat()
    }

    #[test]
    fn a_page_is_read_with_the_times_between_events() {
        let more = ((1_u32 << 5) | TIME_EXTEND).to_ne_bytes();
        let time = [&more[..], &2_u32.to_ne_bytes()].concat();
        let bytes = page(&[written(5, 80), time, written(3, 81)].concat());
        let mut events = Vec::new();
        read_page(&bytes, 7, &mut events).unwrap();
        let [one, two] = &events[..] else { panic!("{events:?}") };
        assert_eq!((one.ns, one.sport, one.tid), (1_005, 80, 42));
        assert_eq!((one.old, one.new), (State::CLOSE, State::LISTEN));
        assert_eq!((two.ns, two.sport), (1_005 + 1 + (2 << 27) + 3, 81));
        // One of another kind is none of ours.
        let mut others = Vec::new();
        read_page(&bytes, 8, &mut others).unwrap();
        assert!(others.is_empty());
    }

    #[test]
    fn a_page_that_is_cut_is_an_error() {
        let mut bytes = page(&written(5, 80));
        bytes.truncate(40);
        assert_eq!(read_page(&bytes, 7, &mut Vec::new()), None);
    }
}
