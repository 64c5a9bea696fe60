//! Runs the user's command for findings: not too often, not too many, not for too long, and without any
//! privilege.
//!
//! Another process runs it, which has no privilege (`helper.rs`).
//! The shell gets the user's own line and nothing else; what was found, text that strangers chose among
//! it, is in the environment and on standard input, where no shell reads it as a command.

mod command;
pub(crate) mod helper;
mod limits;
mod link;

use std::{
    collections::VecDeque, io, os::unix::process::ExitStatusExt as _, process::ExitStatus,
    sync::Arc, time::Duration,
};

use anyhow::Result;

use self::{
    command::Template,
    helper::{Ended, Helper, Request},
    limits::Limits,
};
use super::{
    notice::Notice,
    queue::{Inbox, Tally},
};
use crate::{cli::ExecArgs, core::finding::Status, kernel::clock};

/// Commands that wait because so many run; more findings stay in the queue.
const MOST_WAITING: usize = 64;

/// Decides for which findings the command runs, and runs it.
pub(super) struct Runner {
    helper: Helper,
    statuses: Vec<Status>,
    limits: Limits,
    jobs: usize,
    timeout: Duration,
}

impl Runner {
    /// Starts the process that runs commands, and so takes what is given up later.
    pub(super) fn new(line: &str, args: &ExecArgs) -> Result<Self> {
        let template = Template::new(line, &args.exec_user, args.exec_timeout)?;
        Ok(Self {
            helper: Helper::start(&template)?,
            statuses: args.exec_when.iter().copied().map(Status::from).collect(),
            limits: Limits::new(args.exec_rate, args.exec_again),
            jobs: args.exec_jobs.into(),
            timeout: args.exec_timeout,
        })
    }

    /// The run that a finding is worth, if it is.
    fn admit(&mut self, notice: &Arc<Notice>, tally: &Tally) -> Option<Request> {
        let status = notice.finding.status;
        if !self.statuses.contains(&status) {
            tally.unwanted();
            return None;
        }
        let held_back = self.limits.admit(notice.culprit(), status, clock::now());
        if held_back.is_none() {
            tally.held_back();
        }
        Some(request(notice, held_back?))
    }
}

/// What a command gets for a finding; `held_back` of those before it ran none.
fn request(notice: &Notice, held_back: u64) -> Request {
    let fields = notice.fields().into_iter().map(|(name, value)| (name.to_owned(), value));
    let held_back = ("TCPWATCH_HELD_BACK".to_owned(), held_back.to_string());
    // Memory takes everything.
    let input = notice.json().unwrap_or_default();
    Request {
        variables: fields.chain([held_back]).collect(),
        input: String::from_utf8_lossy(&input).into_owned(),
    }
}

/// Runs commands for what comes until nothing more does and all have ended. What needs no command is
/// taken from the queue also while all that may run do.
pub(super) async fn run(mut inbox: Inbox, mut runner: Runner) {
    let mut running = 0;
    let mut waiting = VecDeque::new();
    let mut more = true;
    loop {
        while running < runner.jobs
            && let Some(request) = waiting.pop_front()
        {
            match runner.helper.run(&request).await {
                Ok(()) => running += 1,
                Err(error) => inbox.warn(&format!("cannot run the command: {error}")),
            }
        }
        tokio::select! {
            ended = runner.helper.next(), if running > 0 => {
                running = if ended.is_ok() { running - 1 } else { 0 };
                account(&mut inbox, ended, &runner);
            }
            notice = inbox.next(), if more && waiting.len() < MOST_WAITING => match notice {
                Some(notice) => waiting.extend(runner.admit(&notice, &inbox.tally)),
                None => more = false,
            },
            else => return,
        }
    }
}

fn account(inbox: &mut Inbox, ended: io::Result<Ended>, runner: &Runner) {
    match ended {
        Ok(Ended::By(status)) => {
            let status = ExitStatus::from_raw(status);
            inbox.tally.delivered(1);
            if !status.success() {
                inbox.warn(&format!("the command ended with {status}"));
            }
        }
        Ok(Ended::Killed) => {
            inbox.warn(&format!("the command was killed, as it ran for {:?}", runner.timeout));
        }
        Ok(Ended::NotStarted(why)) => inbox.warn(&why),
        Err(error) => inbox.warn(&error.to_string()),
    }
}
