//! Sources: they drive the core with facts, from the kernel or from a recording.

pub mod attached;
mod intake;
pub mod live;
pub mod look;
pub mod meter;
pub mod monitor;
pub mod record;
pub mod replay;
pub mod run;
pub mod states;
pub mod watch;
