//! Runs the user's command for findings: not too often, not too many, not for too long, and without any
//! privilege.
//!
//! The shell gets the user's own line and nothing else; what was found, text that strangers chose among
//! it, is in the environment and on standard input, where no shell reads it as a command.

mod command;
mod limits;

use std::{collections::VecDeque, process::ExitStatus, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::task::{JoinError, JoinSet};

use self::{command::Template, limits::Limits};
use super::{
    notice::Notice,
    queue::{Inbox, Tally},
};
use crate::{cli::ExecArgs, core::finding::Status, kernel::clock};

/// Commands that wait because so many run; more findings stay in the queue.
const MOST_WAITING: usize = 64;

/// Decides for which findings the command runs, and runs it.
pub(super) struct Runner {
    template: Arc<Template>,
    statuses: Vec<Status>,
    limits: Limits,
    jobs: usize,
    timeout: Duration,
}

/// A command to run.
struct Run {
    notice: Arc<Notice>,
    /// Findings before it that ran none.
    held_back: u64,
}

/// How a command ended.
enum Ended {
    By(ExitStatus),
    Killed,
    NotStarted(anyhow::Error),
}

impl Runner {
    pub(super) fn new(line: &str, args: &ExecArgs) -> Result<Self> {
        Ok(Self {
            template: Arc::new(Template::new(line, &args.exec_user)?),
            statuses: args.exec_when.iter().copied().map(Status::from).collect(),
            limits: Limits::new(args.exec_rate, args.exec_again),
            jobs: args.exec_jobs.into(),
            timeout: args.exec_timeout,
        })
    }

    /// The run that a finding is worth, if it is.
    fn admit(&mut self, notice: Arc<Notice>, tally: &Tally) -> Option<Run> {
        let status = notice.finding.status;
        if !self.statuses.contains(&status) {
            tally.unwanted();
            return None;
        }
        let held_back = self.limits.admit(notice.culprit(), status, clock::now());
        if held_back.is_none() {
            tally.held_back();
        }
        Some(Run { notice, held_back: held_back? })
    }

    fn start(&self, run: Run, running: &mut JoinSet<Ended>) {
        let (template, limit) = (Arc::clone(&self.template), self.timeout);
        running.spawn(async move {
            match template.start(&run.notice, run.held_back) {
                Err(error) => Ended::NotStarted(error),
                Ok(command) => command.wait(limit).await.map_or(Ended::Killed, Ended::By),
            }
        });
    }
}

/// Runs commands for what comes until nothing more does and all have ended. What needs no command is
/// taken from the queue also while all that may run do.
pub(super) async fn run(mut inbox: Inbox, mut runner: Runner) {
    let mut running = JoinSet::new();
    let mut waiting = VecDeque::new();
    let mut more = true;
    loop {
        while running.len() < runner.jobs
            && let Some(run) = waiting.pop_front()
        {
            runner.start(run, &mut running);
        }
        tokio::select! {
            Some(ended) = running.join_next() => account(&mut inbox, ended, &runner),
            notice = inbox.next(), if more && waiting.len() < MOST_WAITING => match notice {
                Some(notice) => waiting.extend(runner.admit(notice, &inbox.tally)),
                None => more = false,
            },
            else => return,
        }
    }
}

fn account(inbox: &mut Inbox, ended: Result<Ended, JoinError>, runner: &Runner) {
    match ended {
        Ok(Ended::By(status)) => {
            inbox.tally.delivered(1);
            if !status.success() {
                inbox.warn(&format!("the command ended with {status}"));
            }
        }
        Ok(Ended::Killed) => {
            inbox.warn(&format!("the command was killed, as it ran for {:?}", runner.timeout));
        }
        Ok(Ended::NotStarted(error)) => inbox.warn(&format!("{error:#}")),
        Err(error) => inbox.warn(&error.to_string()),
    }
}
