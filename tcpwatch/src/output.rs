//! The output: which sink, where to, in which style, and whether anyone still reads.

mod outlet;

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    termios::tcgetwinsize,
};

pub use self::outlet::{Inlet, Outlet};
use crate::{
    cli::OutputArgs,
    core::comm::shown,
    denied,
    sink::Sink,
    sink::{
        csv::CsvSink,
        json::JsonSink,
        text::{Style, TextSink},
    },
};

const BUFFER: usize = 64 << 10;

/// Where a sink writes to.
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Standard error, where standard output is somebody else's.
    Stderr,
    /// A file.
    File(File),
}

impl Destination {
    /// A new file that only its owner can read; an old one is emptied.
    pub fn create(path: &Path) -> Result<Self> {
        create(path).map(Self::File)
    }

    /// Whether it is a file, which takes all there is without anybody who reads it.
    pub fn is_file(&self) -> bool {
        let stat = match self {
            Self::Stdout => fstat(io::stdout()),
            Self::Stderr => fstat(io::stderr()),
            Self::File(file) => fstat(file),
        };
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    }

    /// Opened anew, so that a sink owns what it writes to.
    fn into_file(self) -> io::Result<File> {
        Ok(match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned()?.into(),
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
            Self::File(file) => file,
        })
    }
}

/// A new file that only its owner can read; an old one is emptied, and keeps its mode.
pub fn create(path: &Path) -> Result<File> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.map_err(|error| denied::explain(error, path));
    file.with_context(|| format!("create {}", shown(path)))
}

/// The sink that the flags ask for. It is flushed by the source whenever nothing more is at hand.
pub fn sink(args: &OutputArgs, to: Destination) -> Result<Box<dyn Sink>> {
    let file = to.into_file().context("open the output")?;
    let style = style(args, &file);
    Ok(formatted(args, style, BufWriter::with_capacity(BUFFER, file)))
}

/// The same for a live run, which does not wait for whoever reads.
pub fn outlet(args: &OutputArgs, to: Destination) -> Result<Outlet> {
    let file = to.into_file().context("open the output")?;
    let style = style(args, &file);
    Ok(Outlet::new(file, |out| formatted(args, style, out)))
}

fn formatted(args: &OutputArgs, style: Style, out: impl Write + 'static) -> Box<dyn Sink> {
    if args.json {
        Box::new(JsonSink::new(out))
    } else if args.csv {
        Box::new(CsvSink::new(out))
    } else {
        Box::new(TextSink::new(out, style))
    }
}

fn style(args: &OutputArgs, out: &File) -> Style {
    let terminal = out.is_terminal();
    Style {
        colour: colour(terminal),
        width: terminal.then(|| width(out)).flatten(),
        time: args.time,
        elapsed: args.timestamp,
        wide: args.wide,
    }
}

/// Whether to use colour.
pub fn colour(terminal: bool) -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !no_colour && !dumb
}

/// Columns of standard output, or as many as there may be if it is not a terminal.
pub fn stdout_width() -> usize {
    let stdout = io::stdout();
    let size = tcgetwinsize(&stdout).ok().filter(|size| size.ws_col > 0);
    size.map_or(usize::MAX, |size| size.ws_col.into())
}

fn width(out: &File) -> Option<usize> {
    let size = tcgetwinsize(out).ok()?;
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
