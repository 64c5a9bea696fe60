//! Standard output: which sink, in which style, and whether anyone still reads.

use std::io::{self, BufWriter, IsTerminal as _, Stdout};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::tcgetwinsize,
};

use crate::{
    cli::OutputArgs,
    core::record::Sink,
    sink::{
        csv::CsvSink,
        json::JsonSink,
        text::{Style, TextSink},
    },
};

const BUFFER: usize = 64 << 10;

/// The sink that the flags ask for. It is flushed by the source whenever nothing more is at hand.
pub fn sink(args: &OutputArgs) -> Box<dyn Sink> {
    let out = BufWriter::with_capacity(BUFFER, io::stdout());
    if args.json {
        Box::new(JsonSink::new(out))
    } else if args.csv {
        Box::new(CsvSink::new(out))
    } else {
        Box::new(TextSink::new(out, style(args, &io::stdout())))
    }
}

fn style(args: &OutputArgs, stdout: &Stdout) -> Style {
    let terminal = stdout.is_terminal();
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style {
        colour: terminal && !no_colour && !dumb,
        width: terminal.then(|| width(stdout)).flatten(),
        time: args.time,
        elapsed: args.timestamp,
        wide: args.wide,
    }
}

fn width(stdout: &Stdout) -> Option<usize> {
    let size = tcgetwinsize(stdout).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Whether the reader of a pipe has gone: noticed even while there is nothing to write.
pub fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok()
        && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}
