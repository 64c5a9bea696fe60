//! The files of a recording, in the hands of the thread that writes them.
//!
//! A disk that fails is tried again after a while that doubles; what comes meanwhile is left out and
//! counted. A disk that is slow makes blocks wait here, and never the run.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    disk::Disk, encode::Sealed, meta::Meta, series::Series, syncer::Syncer, writer::Writer,
};
use crate::{
    core::{
        comm::shown,
        time::{Nanos, Timestamp},
    },
    denied,
    kernel::clock,
    stop,
};

const SYNC_EVERY: Nanos = Nanos(5_000_000_000);
/// How long the writing thread waits for something to do.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nothing is written after a first failure,
const FIRST_REST: Nanos = Nanos::SECOND;
/// and after many in a row.
const LONGEST_REST: Nanos = Nanos(10_000_000_000);
/// Failures this far apart are not in a row.
const WELL_AGAIN: Nanos = Nanos(60_000_000_000);

/// What the run and the thread that writes know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Bytes in all files, and in those that are closed.
    pub(super) bytes: AtomicU64,
    pub(super) closed_bytes: AtomicU64,
    /// Transitions of the recording, those of them that are in no file, and those that are in one.
    pub(super) transitions: AtomicU64,
    pub(super) missing: AtomicU64,
    written: AtomicU64,
    /// Number of the file that is being written.
    pub(super) sequence: AtomicU32,
    /// Blocks that wait for the disk.
    pub(super) waiting: AtomicUsize,
    /// Nothing can be written at present.
    pub(super) failing: AtomicBool,
    /// The disk did not take what was written.
    pub(super) unsynced: Arc<AtomicBool>,
    /// Something is missing since the last snapshot.
    pub(super) wants_snapshot: AtomicBool,
    /// It is time to end: what is not written yet is left out and counted.
    pub(super) is_late: AtomicBool,
}

impl Shared {
    /// Counts transitions that are in no file.
    pub(super) fn miss(&self, transitions: u64) {
        self.missing.fetch_add(transitions, Relaxed);
        self.wants_snapshot.store(true, Relaxed);
    }

    /// Counts what is not written and never will be.
    pub(super) fn leave_the_rest(&self) {
        let written = self.written.load(Relaxed);
        self.missing.store(self.transitions.load(Relaxed).saturating_sub(written), Relaxed);
        self.failing.store(true, Relaxed);
    }
}

/// Something to write.
pub(super) struct Job {
    /// The file that begins with the block, unless that goes into the present one.
    pub(super) file: Option<Box<Meta>>,
    pub(super) block: Sealed,
}

/// The files.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    series: Option<Series>,
    level: i32,
    writer: Option<Writer>,
    /// The file that could not be begun.
    wanted: Option<Box<Meta>>,
    /// Nothing is in the present file.
    empty: bool,
    syncer: Syncer,
    synced: Timestamp,
    /// After a failure: when to try again, and how long that was put off.
    rest_until: Timestamp,
    rest: Nanos,
    failed: Option<Timestamp>,
    shared: Arc<Shared>,
}

impl Files {
    /// Creates the first file.
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        series: Option<Series>,
        level: i32,
        meta: &Meta,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let mut files = Self {
            syncer: Syncer::start(Arc::clone(&disk), Arc::clone(&shared.unsynced))?,
            disk,
            path,
            series,
            level,
            writer: None,
            wanted: None,
            empty: true,
            synced: clock::now(),
            rest_until: Timestamp::default(),
            rest: Nanos::default(),
            failed: None,
            shared,
        };
        files.begin(meta)?;
        Ok(files)
    }

    /// Writes what comes until nothing more can come, says when the last file is closed, and returns
    /// when the disk has it.
    pub(super) fn work(
        mut self,
        jobs: &Receiver<Job>,
        spares: &SyncSender<Vec<u8>>,
        closed: &Sender<()>,
    ) {
        loop {
            match jobs.recv_timeout(PATIENCE) {
                Ok(Job { file, block }) => {
                    self.shared.waiting.fetch_sub(1, Relaxed);
                    self.take(file, &block);
                    stop::got_on();
                    let _ = spares.try_send(block.payload);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = clock::now();
            if now.since(self.synced) >= SYNC_EVERY && self.syncer.is_idle() {
                self.synced = now;
                if let Some(file) = self.writer.as_mut().and_then(Writer::unsynced) {
                    self.syncer.sync(file);
                }
            }
        }
        self.close(self.shared.transitions.load(Relaxed), false);
        let _ = closed.send(());
    }

    fn take(&mut self, file: Option<Box<Meta>>, block: &Sealed) {
        if file.is_some() {
            self.close(block.header.before.get(), true);
            self.wanted = file;
        }
        let now = clock::now();
        let rests = now < self.rest_until || self.shared.is_late.load(Relaxed);
        let written = if rests { Ok(false) } else { self.put(block).map(|()| true) };
        let transitions = u64::from(block.header.transitions.get());
        match written {
            Ok(true) => {
                self.shared.written.fetch_add(transitions, Relaxed);
                self.works();
            }
            Ok(false) => self.shared.miss(transitions),
            Err(error) => {
                self.shared.miss(transitions);
                self.fails(&error, now);
            }
        }
    }

    fn put(&mut self, block: &Sealed) -> Result<()> {
        if let Some(meta) = self.wanted.take()
            && let Err(error) = self.begin(&meta)
        {
            self.wanted = Some(meta);
            return Err(error);
        }
        let writer = self.writer.as_mut().context("write: there is no file")?;
        let before = writer.bytes();
        let written = writer.write(block);
        self.shared.bytes.fetch_add(writer.bytes() - before, Relaxed);
        written.with_context(|| format!("write {}", shown(writer.path())))?;
        if std::mem::take(&mut self.empty)
            && let Some(series) = &mut self.series
        {
            series.trim(&*self.disk);
        }
        Ok(())
    }

    fn begin(&mut self, meta: &Meta) -> Result<()> {
        let writer = loop {
            let path = self.series.as_ref().map_or_else(|| self.path.clone(), Series::next_file);
            match Writer::create_on(Arc::clone(&self.disk), &path, meta, self.level) {
                Ok(writer) => break writer,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Somebody else's. A series takes the next number.
                    if !self.series.as_mut().is_some_and(Series::pass_over) {
                        let hint = "a recording is never overwritten, choose another name";
                        return Err(anyhow!("create {}: {error}; {hint}", shown(&path)));
                    }
                }
                Err(error) => {
                    let why = denied::explain(error, &path);
                    return Err(anyhow!("create {}: {why}", shown(&path)));
                }
            }
        };
        if let Some(series) = &mut self.series {
            series.pass_over();
        }
        self.shared.closed_bytes.store(self.shared.bytes.load(Relaxed), Relaxed);
        self.shared.bytes.fetch_add(writer.bytes(), Relaxed);
        self.shared.sequence.store(meta.sequence, Relaxed);
        self.writer = Some(writer);
        self.empty = true;
        Ok(())
    }

    fn close(&mut self, before: u64, continued: bool) {
        let Some(mut writer) = self.writer.take() else { return };
        if let Err(error) = writer.close(before, continued) {
            let error = anyhow!(error).context(format!("end {}", shown(writer.path())));
            self.fails(&error, clock::now());
        }
        if let Some(file) = writer.unsynced() {
            self.syncer.sync(file);
        }
    }

    fn works(&self) {
        if self.shared.failing.swap(false, Relaxed) {
            log::warn!(
                "the recording goes on; {} transitions are not in it",
                self.shared.missing.load(Relaxed)
            );
        }
    }

    fn fails(&mut self, error: &anyhow::Error, now: Timestamp) {
        let in_a_row = self.failed.replace(now).is_some_and(|at| now.since(at) < WELL_AGAIN);
        self.rest = if in_a_row { self.rest.doubled().min(LONGEST_REST) } else { FIRST_REST };
        self.rest_until = now + self.rest;
        if !self.shared.failing.swap(true, Relaxed) {
            log::warn!(
                "cannot {error:#}; what was recorded stays readable, what comes now is not recorded until this works again"
            );
        }
    }
}
