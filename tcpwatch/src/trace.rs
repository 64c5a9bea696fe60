//! Trace files: what a run saw, kept.

pub mod meta;
