//! The files that a command line says to write.

use std::path::Path;

use super::{Cli, Command};

impl Cli {
    /// Files, and directories to make files in, in the order of their flags. Those of `run` are not
    /// among them: it goes on as who its command runs as.
    pub fn outputs(&self) -> Vec<&Path> {
        let named = match &self.command {
            None => vec![&self.live.record, &self.live.ready_file],
            Some(Command::Top(args)) => vec![&args.record, &args.ready_file],
            Some(Command::Serve(args)) => vec![&args.record, &args.ready_file],
            Some(Command::Report(args)) => vec![&args.html],
            Some(Command::Record(args)) => vec![&args.ready_file],
            _ => Vec::new(),
        };
        let named = named.into_iter().flatten().map(AsRef::as_ref);
        let needed = match &self.command {
            Some(Command::Record(args)) => Some(args.output.as_ref()),
            Some(Command::Export(args)) => Some(args.output.as_ref()),
            // A key writes the findings here.
            Some(Command::Top(_)) => Some(Path::new(".")),
            _ => None,
        };
        needed.into_iter().chain(named).filter(|path| *path != Path::new("-")).collect()
    }
}
