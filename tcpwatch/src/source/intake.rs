//! What comes in: transitions from the ring, observations from passes.
//!
//! A pass may take long on a host with many descriptors, and so may asking `/proc`. Both are done by
//! another thread, and meanwhile the ring is drained all the same.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustc_hash::FxHashSet;

use crate::{
    core::{
        input::{Observation, Scope, Transition},
        socket::SocketId,
        time::{Nanos, Timestamp},
    },
    decode,
    kernel::{
        clock,
        facts::{self, Answer},
        pass::Passes,
        ring::Ring,
    },
    stop,
};

/// Records taken from the ring before the pipeline gets them.
const BATCH: usize = 16_384;
/// Transitions that wait here at most, about 80 MB; then the ring fills, and what it loses is counted.
const MOST_WAITING: usize = 1 << 18;
/// Batches in one round.
pub(super) const MOST_BATCHES: usize = 64;
/// A scan that has seen so many more gets on.
const SEEN_AT_ONCE: usize = 1024;
/// How often the ring is drained while another thread works.
const DRAIN_EVERY: Duration = Duration::from_millis(5);

/// What a pass brought.
pub(super) struct Pass {
    /// When it began.
    pub(super) started: Timestamp,
    /// What it saw, in order of time.
    pub(super) observations: Vec<Observation>,
    /// CPU time it took.
    pub(super) cost: Nanos,
}

/// The ring, the iterators, and what was taken from the ring and not yet handed on.
pub(super) struct Intake {
    ring: Ring,
    passes: Passes,
    /// Transitions, in the order of the ring.
    pub(super) batch: Vec<Transition>,
    /// Records that made no sense.
    pub(super) undecodable: u64,
    /// How many looks the last pass brought.
    looks: usize,
}

impl Intake {
    /// Nothing taken in yet.
    pub(super) fn new(ring: Ring, passes: Passes) -> Self {
        Self { ring, passes, batch: Vec::new(), undecodable: 0, looks: 0 }
    }

    /// Leaves other network namespaces out from now on.
    pub(super) fn stay(&mut self) {
        self.passes.stay();
    }

    /// Network namespaces whose long queues no scan sees.
    pub(super) fn missed(&self) -> &FxHashSet<u32> {
        self.passes.missed()
    }

    /// Waits until the kernel says that the ring is filling.
    pub(super) async fn filling(&mut self) -> io::Result<()> {
        self.ring.filling().await
    }

    /// Takes a batch from the ring; says whether the ring is empty now.
    pub(super) fn fill(&mut self) -> bool {
        fill(&mut self.ring, &mut self.batch, &mut self.undecodable)
    }

    /// Takes what is in the ring, but no more than a round may.
    pub(super) fn fill_all(&mut self) {
        for _ in 0..MOST_BATCHES {
            if self.fill() {
                break;
            }
        }
    }

    /// Runs a pass; the ring is drained meanwhile. `expected` are sockets that should be there.
    pub(super) fn pass(&mut self, scope: Scope, expected: FxHashSet<SocketId>) -> io::Result<Pass> {
        let started = clock::now();
        let Self { ring, passes, batch, undecodable, looks } = self;
        let most = *looks;
        let (result, cost) = aside(
            || {
                fill(ring, batch, undecodable);
            },
            move || {
                let mut observations = Vec::with_capacity(most);
                let take = |seen| {
                    observations.push(seen);
                    if observations.len().is_multiple_of(SEEN_AT_ONCE) {
                        stop::got_on();
                    }
                };
                passes.run_for(scope, expected, take).map(|()| observations)
            },
        );
        let observations = result?;
        *looks = observations.len();
        Ok(Pass { started, observations, cost })
    }

    /// Looks at every socket and hands each look on as it comes; the ring is drained meanwhile.
    /// Says how it went and what CPU time it took.
    pub(super) fn look(&mut self, take: impl FnMut(Observation) + Send) -> (io::Result<()>, Nanos) {
        let Self { ring, passes, batch, undecodable, .. } = self;
        aside(
            || {
                fill(ring, batch, undecodable);
            },
            move || passes.run(Scope::Everything, take),
        )
    }

    /// Asks processes what they do; the ring is drained meanwhile.
    pub(super) fn ask(&mut self, pids: Vec<u32>) -> (Vec<Answer>, Nanos) {
        let Self { ring, batch, undecodable, .. } = self;
        aside(
            || {
                fill(ring, batch, undecodable);
            },
            move || facts::processes(&pids),
        )
    }
}

fn fill(ring: &mut Ring, batch: &mut Vec<Transition>, undecodable: &mut u64) -> bool {
    let room = MOST_WAITING.saturating_sub(batch.len());
    ring.drain(BATCH.min(room), |bytes| match decode::transition(bytes) {
        Ok(transition) => batch.push(transition),
        Err(error) => {
            if *undecodable == 0 {
                log::warn!("a record from the kernel makes no sense and is left out: {error}");
            }
            *undecodable += 1;
        }
    })
}

/// Works on another thread and drains all the while; returns what came of it and the CPU time that
/// it took.
fn aside<T: Send>(mut drain: impl FnMut(), work: impl FnOnce() -> T + Send) -> (T, Nanos) {
    let (here, done) = (thread::current(), AtomicBool::new(false));
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let used = clock::used();
            let result = work();
            let cost = Nanos(clock::used().0.saturating_sub(used.0));
            done.store(true, Ordering::Release);
            here.unpark();
            (result, cost)
        });
        while !done.load(Ordering::Acquire) && !worker.is_finished() {
            drain();
            thread::park_timeout(DRAIN_EVERY);
        }
        match worker.join() {
            Ok(finished) => finished,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
