//! Writes the manual pages to a directory: `cargo run --example man -- target/man`.
//!
//! An example and no verb, so that what renders them is in no program that is installed.

use std::{fs, io, path::PathBuf};

use clap::CommandFactory as _;
use tcpwatch::cli::Cli;

fn main() -> io::Result<()> {
    let usage = || io::Error::other("usage: man DIRECTORY");
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or_else(usage)?);
    fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(Cli::command(), &directory)
}
