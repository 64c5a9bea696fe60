//! Findings for where people have their alerts: a collector, a command, the journal.
//!
//! Each is a task with a bounded queue on one thread of its own, so whatever a collector or a command
//! does, the run goes on: a finding that finds its queue full is dropped and counted. At the end there
//! are a few seconds to hand on what waits; what could not be is said.

pub(crate) mod exec;
mod journal;
mod notice;
pub(crate) mod otlp;
mod queue;

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
};

pub use self::journal::SOCKET as JOURNAL_SOCKET;
#[cfg(test)]
pub(crate) use self::notice::tests::finding;
use self::{notice::Notice, queue::Outbox};
use crate::{
    cli::NotifyArgs,
    core::{record::Record, time::ClockMark},
    exit::say,
    kernel::shed,
    sink::Sink,
};

/// How long what waits may take at the end.
const GRACE: Duration = Duration::from_secs(3);
/// Look-ups of a collector's name at a time: one that nobody answers goes on after its request is given up.
const LOOKUPS: usize = 4;
/// And how long until nobody waits for the thread any more.
const AFTER_GRACE: Duration = Duration::from_millis(500);

/// Everyone who is told of findings. As a sink it never fails and never waits.
pub struct Notifiers {
    outboxes: Vec<Outbox>,
    closing: watch::Sender<bool>,
    ended: Receiver<()>,
}

impl Notifiers {
    /// Starts those that were asked for. Call it when signals are taken over, as threads and processes
    /// inherit that, and before privileges are given up: what runs commands as somebody else gives its
    /// own up, as the thread does.
    pub fn start(args: &NotifyArgs) -> Result<Self> {
        let (closing, is_closing) = watch::channel(false);
        let (end, ended) = channel();
        let mut outboxes = Vec::new();
        let mut queue = |name: String| {
            let (outbox, inbox) = queue::new(name, is_closing.clone());
            outboxes.push(outbox);
            inbox
        };
        let mut tasks: Vec<Task> = Vec::new();
        if let Some(url) = &args.otlp {
            let config = otlp::config(otlp::Signal::Logs, url, args)?;
            let inbox = queue(format!("findings for {}", config.endpoint()));
            let client = otlp::Client::new(config)?;
            tasks.push(Box::new(move |tasks| drop(tasks.spawn(otlp::run(inbox, client)))));
        }
        if let Some(line) = &args.exec_on_finding {
            let runner = exec::Runner::new(line, &args.exec)?;
            let inbox = queue("findings for --exec-on-finding".to_owned());
            tasks.push(Box::new(move |tasks| drop(tasks.spawn(exec::run(inbox, runner)))));
        }
        if journal::is_wanted(args.journal) {
            let inbox = queue("findings for the journal".to_owned());
            let path = args.journal_socket.clone();
            tasks.push(Box::new(move |tasks| drop(tasks.spawn(journal::run(inbox, path)))));
        }
        if !tasks.is_empty() {
            let runtime =
                Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS).build()?;
            let thread = thread::Builder::new().name("notify".to_owned());
            thread
                .spawn(move || {
                    match shed::all() {
                        Ok(()) => work(&runtime, tasks, is_closing),
                        Err(error) => log::warn!("nobody is told of findings: {error:#}"),
                    }
                    // Not waiting for a look-up of a name that nobody answers.
                    runtime.shutdown_background();
                    let _ = end.send(());
                })
                .context("start a thread for notifications")?;
        }
        Ok(Self { outboxes, closing, ended })
    }

    /// Hands on what waits, within a few seconds, and says what was not delivered.
    pub fn finish(mut self) {
        let mut tallies = Vec::new();
        for outbox in self.outboxes.drain(..) {
            tallies.push(outbox.close());
        }
        let _ = self.closing.send(true);
        if !tallies.is_empty() {
            let _ = self.ended.recv_timeout(GRACE + AFTER_GRACE);
        }
        for line in tallies.iter().filter_map(|tally| tally.missing()) {
            say(&format!("tcpwatch: {line}"));
        }
    }
}

/// Starts a task among others.
type Task = Box<dyn FnOnce(&mut JoinSet<()>) + Send>;

fn work(runtime: &Runtime, tasks: Vec<Task>, mut closing: watch::Receiver<bool>) {
    runtime.block_on(async {
        let mut running = JoinSet::new();
        for start in tasks {
            start(&mut running);
        }
        let too_late = async {
            let _ = closing.wait_for(|&closing| closing).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = too_late => {}
            () = async { while running.join_next().await.is_some() {} } => {}
        }
        // Ends what still runs, and the commands that it runs.
        running.shutdown().await;
    });
}

impl Sink for Notifiers {
    fn record(&mut self, clock: &ClockMark, record: &Record<'_>) -> io::Result<()> {
        if let (Record::Finding(finding), false) = (record, self.outboxes.is_empty()) {
            let notice = Arc::new(Notice::new(clock, finding));
            for outbox in &self.outboxes {
                outbox.offer(&notice);
            }
        }
        Ok(())
    }
}
