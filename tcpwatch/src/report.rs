//! What a recording showed, in one piece: for a postmortem, and for before and after a deploy.
//!
//! [`Collector`] is a sink, so a report of a recording and one of a live run are made by the same
//! pipeline. It keeps counts and never records, so its memory does not grow with the recording
//! (`collect.rs` says each bound), and it takes tens of nanoseconds for each transition.
//! [`Report`] is plain data; `text`, `json`, `html` and `diff` only read it, and `words` is what they
//! say alike.

mod collect;
pub mod command;
pub mod diff;
pub mod html;
pub mod json;
pub mod model;
pub mod text;
pub mod words;

pub use self::{collect::Collector, model::Report};
