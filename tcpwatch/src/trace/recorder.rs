//! Records a run: a [`Tape`] whose files are written by a thread of its own.
//!
//! A slow or full disk never holds up the run: blocks that find no room in the queue or on the disk
//! are left out and counted, and the files say how many transitions that were. Data is brought to the
//! disk (`fdatasync`) every five seconds and whenever a file ends, by another thread. While nothing
//! can be written, nothing is asked of the run; a file is asked for once.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    disk::{Disk, RealDisk},
    encode::Encoder,
    files::{Files, Job, Shared},
    meta::Meta,
    series::Series,
};
use crate::{
    core::{
        comm::shown,
        input::{Input, Scope},
        time::{ClockMark, Nanos, Timestamp},
    },
    denied,
    kernel::clock,
    trace::tape::{Due, Tape},
};

/// A block is full when it has so many bytes,
const FULL: usize = 256 << 10;
/// or when it has at least so many and its first input is this old,
const WORTHWHILE: usize = 16 << 10;
const OLD: Nanos = Nanos::SECOND;
/// or at this age however small it is: small blocks compress badly.
const OLD_AND_SMALL: Nanos = Nanos(5_000_000_000);
/// A block that holds clock marks only may be this old.
const OLD_CLOCKS: Nanos = Nanos(60_000_000_000);
/// Blocks that may wait for the disk: 16 MB.
const MOST_WAITING: usize = 64;
/// How often one can begin to read,
const SNAPSHOT_EVERY: Nanos = Nanos(300_000_000_000);
/// but not before this many times as much has been recorded as a snapshot takes.
const SNAPSHOT_SHARE: u64 = 8;
/// How long the end of a run waits for the disk. What is not written then is left out and counted,
const FINISH_WITHIN: Duration = Duration::from_secs(30);
/// in the file, if the disk takes that much within this time.
const COUNT_WITHIN: Duration = Duration::from_secs(5);

/// Where to record, and in how many files.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, or what the files of a series are called after.
    pub path: PathBuf,
    /// Level of compression.
    pub level: i32,
    /// Begin another file when one has so many bytes.
    pub rotate_size: Option<u64>,
    /// Begin another file after this time.
    pub rotate_every: Option<Duration>,
    /// Keep so many files.
    pub keep: Option<usize>,
}

/// How a recording stands.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes in all its files.
    pub bytes: u64,
    /// Transitions that are in none of them.
    pub missing: u64,
    /// It cannot be written at present.
    pub failing: bool,
    /// The run has ended and does not wait any longer: what is not written yet is left out.
    pub late: bool,
}

/// Says how a recording stands.
#[derive(Clone, Debug)]
pub struct Standing(Arc<Shared>);

impl Standing {
    /// Now.
    pub fn progress(&self) -> Progress {
        Progress {
            bytes: self.0.bytes.load(Relaxed),
            missing: self.0.missing.load(Relaxed),
            failing: self.0.failing.load(Relaxed) || self.0.unsynced.load(Relaxed),
            late: self.0.is_late.load(Relaxed),
        }
    }
}

/// Records inputs.
pub struct Recorder {
    encoder: Encoder,
    jobs: Sender<Job>,
    spares: Receiver<Vec<u8>>,
    /// What the thread that writes says at its end.
    written: Receiver<()>,
    shared: Arc<Shared>,
    /// The file that the next block begins.
    next_file: Option<Box<Meta>>,
    meta: Meta,
    rotate_size: Option<u64>,
    rotate_every: Option<Nanos>,
    /// When the first input of the block came, and the first that is no clock mark.
    begun: Option<Timestamp>,
    begun_other: Option<Timestamp>,
    file_begun: Timestamp,
    snapshot: Snapshot,
    /// When the present scan of what lingers has begun, and the last that was complete.
    scan: Option<Timestamp>,
    scanned: Option<Timestamp>,
}

/// When the last snapshot was, and what it took.
#[derive(Debug, Default)]
struct Snapshot {
    at: Timestamp,
    under_way: bool,
    size: u64,
    recorded: u64,
}

impl Recorder {
    /// Creates the first file.
    pub fn create(options: &Options, meta: Meta) -> Result<Self> {
        Self::create_on(Arc::new(RealDisk), options, meta)
    }

    /// The same on this disk.
    pub fn create_on(disk: Arc<dyn Disk>, options: &Options, meta: Meta) -> Result<Self> {
        let rotates = options.rotate_size.is_some() || options.rotate_every.is_some();
        let series = rotates.then(|| Series::new(&options.path, options.keep)).transpose();
        let series = series
            .map_err(|error| denied::explain(error, &options.path))
            .with_context(|| format!("look into the directory of {}", shown(&options.path)))?;
        let shared = Arc::new(Shared::default());
        let path = options.path.clone();
        let files = Files::create(disk, path, series, options.level, &meta, Arc::clone(&shared))?;
        let (jobs, inbox) = channel();
        let (return_spare, spares) = sync_channel(MOST_WAITING);
        let (writing, written) = channel();
        thread::Builder::new()
            .name("tcpwatch-trace".to_owned())
            .spawn(move || {
                files.work(&inbox, &return_spare, &writing);
            })
            .context("start the thread that writes the recording")?;
        Ok(Self {
            encoder: Encoder::new(meta.clock.into()),
            jobs,
            spares,
            written,
            shared,
            next_file: None,
            file_begun: Timestamp(meta.clock.mono_ns),
            snapshot: Snapshot { at: Timestamp(meta.clock.mono_ns), ..Snapshot::default() },
            meta,
            rotate_size: options.rotate_size,
            rotate_every: options.rotate_every.map(Nanos::from),
            begun: None,
            begun_other: None,
            scan: None,
            scanned: None,
        })
    }

    /// Says how it stands, also while it is in use.
    pub fn standing(&self) -> Standing {
        Standing(Arc::clone(&self.shared))
    }

    /// Writes what is left and closes the file. It waits for the disk, but not for ever.
    pub fn finish(self) -> Progress {
        self.finish_within(FINISH_WITHIN)
    }

    /// The same, and waits for the disk no longer than this.
    pub fn finish_within(mut self, time: Duration) -> Progress {
        if !self.encoder.is_empty() {
            let job = self.seal_block();
            self.send(job);
        }
        let Self { jobs, written, shared, .. } = self;
        drop(jobs);
        let until = clock::now() + Nanos::from(time);
        // Told once when the last file is closed, and disconnected when the disk has it.
        let waits = |time| written.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
        let late = waits(time);
        shared.is_late.store(late, Relaxed);
        if late && waits(COUNT_WITHIN) {
            shared.leave_the_rest();
            log::warn!("the disk takes nothing; the end of the recording is not in its file");
        } else if waits(Duration::from_nanos(until.since(clock::now()).0)) {
            log::warn!("the disk has not confirmed yet that it has what was recorded last");
        }
        Standing(shared).progress()
    }

    /// Ends the block, for the file that it belongs to.
    fn seal_block(&mut self) -> Job {
        let block = self.encoder.seal(self.spares.try_recv().unwrap_or_default());
        (self.begun, self.begun_other) = (None, None);
        let transitions = u64::from(block.header.transitions.get());
        self.shared.transitions.fetch_add(transitions, Relaxed);
        Job { file: self.next_file.take(), block }
    }

    fn send(&self, job: Job) {
        self.shared.waiting.fetch_add(1, Relaxed);
        let _ = self.jobs.send(job);
    }

    /// Hands the block to the disk, if that keeps up.
    fn seal(&mut self) {
        if self.encoder.is_empty() {
            return;
        }
        let job = self.seal_block();
        if self.shared.waiting.load(Relaxed) < MOST_WAITING {
            return self.send(job);
        }
        if self.shared.missing.load(Relaxed) == 0 {
            log::warn!(
                "the disk is too slow for the recording; what finds no room is left out and counted"
            );
        }
        self.next_file = job.file;
        self.shared.miss(job.block.header.transitions.get().into());
    }

    /// The disk takes what the run brings, and the file that was asked for last has been begun.
    fn keeps_up(&self) -> bool {
        let shared = &self.shared;
        !shared.failing.load(Relaxed)
            && shared.waiting.load(Relaxed) <= MOST_WAITING / 2
            && self.next_file.is_none()
            && shared.sequence.load(Relaxed) == self.meta.sequence
    }
}

impl Tape for Recorder {
    fn keep(&mut self, input: &Input) {
        self.begun.get_or_insert(input.at());
        if !matches!(input, Input::Clock(_)) {
            self.begun_other.get_or_insert(input.at());
        }
        let before = self.encoder.len();
        self.encoder.push(input);
        let more = (self.encoder.len() - before) as u64;
        let snapshot = &mut self.snapshot;
        match input {
            Input::PassBegin { at, scope } => {
                self.scan = Some(*at).filter(|_| *scope != Scope::Watched);
                if *scope == Scope::Everything {
                    *snapshot = Snapshot { at: *at, under_way: true, ..Snapshot::default() };
                }
            }
            Input::PassEnd { .. } => {
                snapshot.under_way = false;
                self.scanned = self.scan.take().or(self.scanned);
            }
            Input::PassFailed { .. } => snapshot.under_way = false,
            _ => {}
        }
        *(if snapshot.under_way { &mut snapshot.size } else { &mut snapshot.recorded }) += more;
        if self.encoder.len() >= FULL {
            self.seal();
        }
    }

    fn flush(&mut self, now: Timestamp) {
        let old =
            |begun: Option<Timestamp>, age| begun.is_some_and(|begun| now.since(begun) >= age);
        let small = self.encoder.len() < WORTHWHILE;
        let most = if small { OLD_AND_SMALL } else { OLD };
        if old(self.begun_other, most) || old(self.begun, OLD_CLOCKS) {
            self.seal();
        }
    }

    fn due(&mut self, now: Timestamp) -> Due {
        if !self.keeps_up() {
            return Due::Nothing;
        }
        let here = self.shared.bytes.load(Relaxed) - self.shared.closed_bytes.load(Relaxed);
        let large = self.rotate_size.is_some_and(|most| here >= most);
        let long = self.rotate_every.is_some_and(|most| now.since(self.file_begun) >= most);
        if large || long {
            return Due::File;
        }
        let snapshot = &self.snapshot;
        let recorded = snapshot.recorded >= snapshot.size * SNAPSHOT_SHARE;
        let old = now.since(snapshot.at) >= SNAPSHOT_EVERY && recorded;
        if self.shared.wants_snapshot.swap(false, Relaxed) || old {
            // One begins to read at a block, and all that is known follows.
            self.seal();
            return Due::Snapshot;
        }
        Due::Nothing
    }

    fn begin_file(&mut self, clock: &ClockMark) {
        self.seal();
        self.meta.sequence += 1;
        self.meta.clock = (*clock).into();
        self.meta.scanned_ns = self.scanned.map(|at| at.0);
        self.file_begun = clock.mono;
        self.next_file = Some(Box::new(self.meta.clone()));
    }
}
