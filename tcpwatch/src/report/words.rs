//! The words of a report, the same for whoever shows it: on a terminal, or as a page.

mod culprit;
mod group;
mod numbers;
mod story;

pub use self::numbers::{duration, grouped, plural, rate};
pub(super) use self::{
    culprit::{counts, endings, found, grows, owner, place, title, verdict},
    group::{process, service},
    story::{Story, Tone},
};
use super::model::Wall;

/// How a moment is told: whoever shows the report knows where its reader is.
pub(super) type Moments<'a> = &'a dyn Fn(Wall) -> String;
