//! `tcpwatch run -- command`: a command and its descendants, watched from their first socket.
//!
//! The kernel program marks children as they are forked, so nothing they do is missed, however
//! short they live. Standard output belongs to the command; what tcpwatch says goes to standard
//! error or to a file.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus},
    sync::mpsc::{Sender, channel},
    thread,
};

use anyhow::{Context as _, Result};

use super::{
    attached::Attached,
    live::{self, Live},
};
use crate::{
    Outcome,
    cli::RunArgs,
    config,
    core::{comm::shown, filter::Filter, tracker::Rules},
    exit::Exit,
    kernel::{load::Plan, processes},
    output::{self, Destination},
    stop::{Forwarder, Stop},
    trace::tape::Tape,
};

/// What shells add to a signal's number when it ended a command.
const BY_SIGNAL: i32 = 128;

/// `tcpwatch run`.
pub fn command(args: &RunArgs) -> Outcome {
    processes::require_all_pids()?;
    let live = live(args)?;
    let (program, arguments) = args.command.split_first().context("no command")?;
    // Before any thread starts, so that all of them leave the signals to the forwarder.
    let forwarder = Forwarder::take_over()?;
    let mut command = Command::new(program);
    command.args(arguments);
    let launcher = forwarder.launcher(command);
    let attached = Attached::new(&live.plan)?;
    let destination = match &args.output_file {
        Some(path) => Destination::create(path)?,
        None => Destination::Stderr,
    };
    let mut stop = Stop::when_told();
    let alarm = stop.alarm();
    let (tell, told) = channel();
    let _shows = destination.is_file().then(|| stop.writes_file());
    let mut outlet = output::outlet(&args.output, destination)?;
    let mut recorder = super::record::beside(args.record.as_deref(), &live, &attached)?;
    let writes = recorder.as_ref().map(|_| stop.writes_file());
    let tape = recorder.as_mut().map(|recorder| recorder as &mut dyn Tape);
    let watched = live::run(&live, attached, &mut stop, &mut outlet, tape, || {
        let child = launcher.launch().with_context(|| format!("start {}", shown(program)))?;
        // Not before, as the command would inherit it: each descendant takes a descriptor here.
        processes::allow_many_files();
        forwarder.forward_to(child.id())?;
        wait(child, tell, alarm);
        Ok(())
    });
    super::record::finish_beside(recorder);
    drop(writes);
    // The command goes on even if the watching has failed.
    let status = told.recv().ok();
    let summary = watched?;
    outlet.finish()?;
    let code = status.context("the command's end was not seen")?;
    let leaks = args.fail_on_leak && summary.leaks() > 0;
    Ok(if leaks && code == 0 { Exit::Findings } else { Exit::Command(code) })
}

fn live(args: &RunArgs) -> Result<Live> {
    let filter = Filter { follow: true, ..config::socket_filter(&args.sockets)? };
    let findings_only = !args.transitions;
    Ok(Live {
        plan: Plan {
            filter: filter.clone(),
            findings_only,
            ring_bytes: args.ring_size,
            exact_accept: true,
            details: args.output.json,
            follow_from: Some(std::process::id()),
            tally: false,
        },
        rules: Rules {
            linger: args.linger.into(),
            filter,
            findings_only,
            include_half_open: args.include_half_open,
            tell_culprits: true,
        },
        duration: None,
        ends_with_reader: false,
    })
}

/// Tells the command's exit code when it has ended, and ends the run.
fn wait(mut child: Child, tell: Sender<u8>, alarm: Sender<()>) {
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = tell.send(code(status));
        }
        let _ = alarm.send(());
    });
}

fn code(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map(|signal| BY_SIGNAL + signal);
    let code = status.code().or_else(by_signal).unwrap_or(i32::from(u8::MAX));
    u8::try_from(code).unwrap_or(u8::MAX)
}
