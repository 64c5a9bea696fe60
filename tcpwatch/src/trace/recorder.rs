//! Records a run: a [`Tape`] whose files are written by a thread of its own.
//!
//! A slow or full disk never holds up the run: blocks that find no room in the queue or on the disk
//! are left out and counted, and the files say how many transitions that were. Data reaches the disk
//! (`fdatasync`) every five seconds, and whenever a file ends.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    encode::{Encoder, Sealed},
    meta::Meta,
    series::Series,
    writer::Writer,
};
use crate::{
    core::{
        comm::shown,
        input::{Input, Scope},
        tape::{Due, Tape},
        time::{ClockMark, Nanos, Timestamp},
    },
    denied,
    kernel::clock,
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
const SYNC_EVERY: Nanos = Nanos(5_000_000_000);
/// How long the writing thread waits for something to do.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often one can begin to read,
const SNAPSHOT_EVERY: Nanos = Nanos(300_000_000_000);
/// but not before this many times as much has been recorded as a snapshot takes.
const SNAPSHOT_SHARE: u64 = 8;

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
            failing: self.0.failing.load(Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes in all files, and in those that are closed.
    bytes: AtomicU64,
    closed_bytes: AtomicU64,
    /// Transitions of the recording, and those of them that are in no file.
    transitions: AtomicU64,
    missing: AtomicU64,
    failing: AtomicBool,
    /// Something is missing since the last snapshot.
    wants_snapshot: AtomicBool,
}

enum Job {
    Block(Sealed),
    /// With the number of transitions before it.
    NewFile(Box<Meta>, u64),
}

/// Records inputs.
pub struct Recorder {
    encoder: Encoder,
    jobs: Option<SyncSender<Job>>,
    spares: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    meta: Meta,
    rotate_size: Option<u64>,
    rotate_every: Option<Nanos>,
    /// When the first input of the block came, and the first that is no clock mark.
    begun: Option<Timestamp>,
    begun_other: Option<Timestamp>,
    file_begun: Timestamp,
    snapshot: Snapshot,
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
        let rotates = options.rotate_size.is_some() || options.rotate_every.is_some();
        let series = rotates.then(|| Series::new(&options.path, options.keep)).transpose();
        let series = series
            .map_err(|error| denied::explain(error, &options.path))
            .with_context(|| format!("look into the directory of {}", shown(&options.path)))?;
        let shared = Arc::new(Shared::default());
        let mut files = Files {
            path: options.path.clone(),
            series,
            level: options.level,
            writer: None,
            wanted: None,
            empty: true,
            synced: clock::now(),
            shared: Arc::clone(&shared),
        };
        files.begin(&meta)?;
        let (jobs, inbox) = sync_channel(MOST_WAITING);
        let (return_spare, spares) = sync_channel(MOST_WAITING);
        let thread = thread::Builder::new()
            .name("tcpwatch-trace".to_owned())
            .spawn(move || files.work(&inbox, &return_spare))
            .context("start the thread that writes the recording")?;
        Ok(Self {
            encoder: Encoder::new(meta.clock.into()),
            jobs: Some(jobs),
            spares,
            thread: Some(thread),
            shared,
            file_begun: Timestamp(meta.clock.mono_ns),
            snapshot: Snapshot { at: Timestamp(meta.clock.mono_ns), ..Snapshot::default() },
            meta,
            rotate_size: options.rotate_size,
            rotate_every: options.rotate_every.map(Nanos::from),
            begun: None,
            begun_other: None,
        })
    }

    /// Says how it stands, also while it is in use.
    pub fn standing(&self) -> Standing {
        Standing(Arc::clone(&self.shared))
    }

    /// Writes what is left and closes the file.
    pub fn finish(mut self) -> Progress {
        self.seal();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.standing().progress()
    }

    fn seal(&mut self) {
        if self.encoder.is_empty() {
            return;
        }
        let sealed = self.encoder.seal(self.spares.try_recv().unwrap_or_default());
        (self.begun, self.begun_other) = (None, None);
        let transitions = u64::from(sealed.header.transitions.get());
        self.shared.transitions.fetch_add(transitions, Relaxed);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Job::Block(sealed)).is_ok());
        if !sent {
            if self.shared.missing.load(Relaxed) == 0 {
                log::warn!(
                    "the disk is too slow for the recording; what finds no room is left out and counted"
                );
            }
            self.shared.miss(transitions);
        }
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
            Input::PassBegin { at, scope: Scope::Everything } => {
                *snapshot = Snapshot { at: *at, under_way: true, ..Snapshot::default() };
            }
            Input::PassEnd { .. } | Input::PassFailed { .. } => snapshot.under_way = false,
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
        let here = self.shared.bytes.load(Relaxed) - self.shared.closed_bytes.load(Relaxed);
        let large = self.rotate_size.is_some_and(|most| here >= most);
        let long = self.rotate_every.is_some_and(|most| now.since(self.file_begun) >= most);
        let snapshot = &self.snapshot;
        let recorded = snapshot.recorded >= snapshot.size * SNAPSHOT_SHARE;
        if (large || long) && !self.shared.failing.load(Relaxed) {
            Due::File
        } else if now.since(snapshot.at) >= SNAPSHOT_EVERY && recorded
            || self.shared.wants_snapshot.swap(false, Relaxed)
        {
            Due::Snapshot
        } else {
            Due::Nothing
        }
    }

    fn begin_file(&mut self, clock: &ClockMark) {
        self.seal();
        self.meta.sequence += 1;
        self.meta.clock = (*clock).into();
        self.file_begun = clock.mono;
        let before = self.shared.transitions.load(Relaxed);
        let job = Job::NewFile(Box::new(self.meta.clone()), before);
        // The queue has room again when the disk has taken a block.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Shared {
    /// Notes that transitions are in no file.
    fn miss(&self, transitions: u64) {
        self.missing.fetch_add(transitions, Relaxed);
        self.wants_snapshot.store(true, Relaxed);
    }
}

/// The files, in the hands of the thread that writes them.
struct Files {
    path: PathBuf,
    series: Option<Series>,
    level: i32,
    writer: Option<Writer>,
    /// The file that could not be begun.
    wanted: Option<Box<Meta>>,
    /// Nothing is in the present file.
    empty: bool,
    synced: Timestamp,
    shared: Arc<Shared>,
}

impl Files {
    fn begin(&mut self, meta: &Meta) -> Result<()> {
        let path = self.series.as_mut().map_or_else(|| self.path.clone(), Series::next_file);
        let writer = Writer::create(&path, meta, self.level).map_err(|error| {
            if let Some(series) = &mut self.series {
                series.give_back();
            }
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            let hint =
                if exists { "; a recording is never overwritten, choose another name" } else { "" };
            anyhow!("create {}: {}{hint}", shown(&path), denied::explain(error, &path))
        })?;
        self.shared.closed_bytes.store(self.shared.bytes.load(Relaxed), Relaxed);
        self.shared.bytes.fetch_add(writer.bytes(), Relaxed);
        self.writer = Some(writer);
        self.empty = true;
        Ok(())
    }

    fn work(mut self, jobs: &Receiver<Job>, spares: &SyncSender<Vec<u8>>) {
        loop {
            match jobs.recv_timeout(PATIENCE) {
                Ok(Job::Block(sealed)) => {
                    self.write(&sealed);
                    crate::stop::got_on();
                    let _ = spares.try_send(sealed.payload);
                }
                Ok(Job::NewFile(meta, before)) => {
                    self.close(before, true);
                    self.wanted = Some(meta);
                    self.begin_wanted();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = clock::now();
            if now.since(self.synced) >= SYNC_EVERY {
                self.synced = now;
                let synced = self.writer.as_mut().map_or(Ok(()), Writer::sync);
                if synced.is_err() {
                    self.note(synced.context("bring the recording to the disk"));
                }
            }
        }
        self.close(self.shared.transitions.load(Relaxed), false);
    }

    fn begin_wanted(&mut self) {
        if let Some(meta) = self.wanted.take() {
            let begun = self.begin(&meta);
            // That it was begun does not mean that a block fits.
            if begun.is_err() {
                self.wanted = Some(meta);
                self.note(begun);
            }
        }
    }

    fn write(&mut self, sealed: &Sealed) {
        self.begin_wanted();
        let Some(writer) = &mut self.writer else {
            return self.shared.miss(sealed.header.transitions.get().into());
        };
        let before = writer.bytes();
        let written = writer.write(sealed);
        self.shared.bytes.fetch_add(writer.bytes() - before, Relaxed);
        if written.is_err() {
            self.shared.miss(sealed.header.transitions.get().into());
        }
        let path = shown(writer.path());
        let written = written.with_context(|| format!("write {path}"));
        let first = written.is_ok() && std::mem::take(&mut self.empty);
        self.note(written);
        if let (true, Some(series)) = (first, &self.series) {
            self.note(series.trim().context("remove the oldest file of the recording"));
        }
    }

    fn close(&mut self, before: u64, continued: bool) {
        if let Some(writer) = self.writer.take() {
            let path = shown(writer.path());
            let closed = writer.close(before, continued);
            self.note(closed.with_context(|| format!("end {path}")));
        }
    }

    /// Says when it stops working, and when it works again.
    fn note(&self, result: Result<()>) {
        let failed = result.is_err();
        let before = self.shared.failing.swap(failed, Relaxed);
        match result {
            Err(error) if !before => log::warn!(
                "cannot {error:#}; what was recorded stays readable, what comes now is not recorded until this works again"
            ),
            Ok(()) if before => log::warn!(
                "the recording goes on; {} transitions are not in it",
                self.shared.missing.load(Relaxed)
            ),
            _ => {}
        }
    }
}
