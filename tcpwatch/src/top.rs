//! `tcpwatch top`: the screen that people look at in an incident.
//!
//! ```text
//!  pipeline ─▶ model (a sink) ─▶ snapshot ─▶ view ─▶ terminal
//!                                   ▲                   │
//!                                  app ◀── keys ◀───────┘
//! ```
//!
//! The pipeline runs on its own thread and never waits for the screen: another thread takes snapshots
//! of the model, whose cost is bounded, and draws them. Model, app and view read no clock and know no
//! terminal; a recording is shown by the very same.

pub mod app;
pub mod around;
pub mod driver;
pub mod frame;
mod keys;
mod live;
pub mod messages;
pub mod model;
mod replay;
pub mod save;
mod scope;
pub mod screen;
pub mod snapshot;
pub mod view;

use crate::{Outcome, cli::TopArgs};

/// `tcpwatch top`.
pub fn command(args: &TopArgs) -> Outcome {
    if args.recording.frame.is_none() {
        screen::require()?;
    }
    if args.recording.replay.is_empty() { live::command(args) } else { replay::command(args) }
}
