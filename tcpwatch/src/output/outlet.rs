//! Output that never holds up a live run: a thread of its own writes it.
//!
//! A run that waits for whoever reads its output would not look, drain the ring or record meanwhile. So
//! what nobody takes waits here. When that becomes much, transitions are left out and counted, and
//! the count is told in their place, as with what the ring lost. Findings and the like find room for
//! longer; only when that is used up, too, the run waits.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crate::{
    core::{
        advice::count,
        record::{Lost, Place, Record, Summary},
        time::{ClockMark, Timestamp},
    },
    sink::Sink,
    stop,
};

/// Bytes that wait before transitions are left out: what a ring of the usual size becomes as JSON is
/// more, a pause of a busy reader is less.
const ROOM: usize = 16 << 20;
/// Bytes that wait before the run does.
const MOST: usize = 4 * ROOM;
/// Bytes that a sink collects before it hands them on.
const BUFFER: usize = 64 << 10;

/// A sink whose output is written by another thread.
pub struct Outlet {
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    writer: JoinHandle<()>,
    /// Transitions left out since that was told last, and when the last of them was.
    unsaid: u64,
    at: Timestamp,
    /// Transitions left out in all.
    unshown: u64,
}

impl Outlet {
    /// Writes to `file` what the sink that `make` returns writes.
    pub fn new(file: File, make: impl FnOnce(BufWriter<Inlet>) -> Box<dyn Sink>) -> Self {
        let queue = Arc::new(Queue::default());
        let (waiting, is_file) =
            (Arc::downgrade(&queue), file.metadata().is_ok_and(|it| it.is_file()));
        stop::ask_what_is_unwritten(move || {
            let lines = waiting.upgrade().map_or(0, |queue| queue.lock().lines());
            let why =
                if is_file { "the output cannot be written" } else { "nobody takes the output" };
            format!("{why}; {} of it are lost", count(lines, "line"))
        });
        let (taken, inlet) = (Arc::clone(&queue), Inlet(Arc::clone(&queue)));
        let writer = thread::spawn(move || taken.write_to(file));
        let sink = make(BufWriter::with_capacity(BUFFER, inlet));
        Self { sink, queue, writer, unsaid: 0, at: Timestamp::default(), unshown: 0 }
    }

    /// Waits until all is written. Says how many transitions were left out.
    pub fn finish(self) -> io::Result<u64> {
        drop(self.sink);
        self.queue.end();
        let written = self.writer.join();
        self.queue.check()?;
        written.map_err(|_| io::Error::other("the thread that writes the output panicked"))?;
        Ok(self.unshown)
    }

    /// Tells what was left out before what follows it.
    fn tell_unshown(&mut self, clock: &ClockMark) -> io::Result<()> {
        let count = mem::take(&mut self.unsaid);
        if count == 0 {
            return Ok(());
        }
        self.unshown += count;
        let lost = Lost { at: self.at, count, total: self.unshown, place: Place::Output };
        self.sink.record(clock, &Record::Lost(lost))
    }
}

impl Sink for Outlet {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        if let Record::Transition(transition) = record
            && self.queue.is_full()
        {
            self.unsaid += 1;
            self.at = transition.at;
            return Ok(());
        }
        self.tell_unshown(clock)?;
        match record {
            Record::Summary(summary) => {
                let summary = Summary { unshown: self.unshown, ..(*summary).clone() };
                self.sink.record(clock, &Record::Summary(&summary))
            }
            other => self.sink.record(clock, other),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Where the sink writes to.
pub struct Inlet(Arc<Queue>);

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.check()
    }
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<[u8]>>,
    /// Bytes that wait.
    bytes: usize,
    /// What is being written.
    in_hand: Option<Arc<[u8]>>,
    /// Nothing more comes.
    over: bool,
    /// Nothing more can be written, and why, until somebody has asked.
    failed: bool,
    error: Option<io::Error>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.lock().bytes >= ROOM
    }

    fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let full = |state: &mut State| state.bytes >= MOST && !state.failed;
        let waited = self.changed.wait_while(self.lock(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.check()?;
        state.waiting.push_back(bytes.into());
        state.bytes += bytes.len();
        self.changed.notify_all();
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        self.lock().check()
    }

    fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Writes what comes, until nothing more does.
    fn write_to(&self, mut file: File) {
        loop {
            let nothing = |state: &mut State| state.waiting.is_empty() && !state.over;
            let waited = self.changed.wait_while(self.lock(), nothing);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(taken) = state.waiting.pop_front() else { return };
            state.bytes -= taken.len();
            state.in_hand = Some(Arc::clone(&taken));
            drop(state);
            self.changed.notify_all();
            let written = file.write_all(&taken);
            stop::got_on();
            let mut state = self.lock();
            state.in_hand = None;
            if let Err(error) = written {
                (state.failed, state.error) = (true, Some(error));
                self.changed.notify_all();
                return;
            }
        }
    }
}

impl State {
    /// Lines that wait, with those that are being written.
    fn lines(&self) -> u64 {
        let all = self.waiting.iter().chain(&self.in_hand);
        all.map(|bytes| bytes.split(|&byte| byte == b'\n').count() as u64 - 1).sum()
    }

    /// The error, once; after it, that there was one.
    fn check(&mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None if self.failed => Err(io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }
}
