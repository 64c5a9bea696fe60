//! todo
use anyhow::Result;
/// Flags.
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_args: &Args) -> Result<()> { Ok(()) }
