//! Exports: what the pipeline yields, written and read back.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod any;
mod consumers;
mod figures;
mod harmless;
mod hostile;
#[path = "../core/notation.rs"]
mod notation;
mod parquet;
mod perfetto;
mod series;
mod story;
mod wire;
mod workload;
