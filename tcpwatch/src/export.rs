//! Recordings for other tools: tables for query engines, timelines for the Perfetto UI.
//!
//! Each exporter is a [`crate::sink::Sink`]: it takes what a replay yields, owns its
//! writer, and completes its output when the summary arrives, which is always the last record.
//! Memory is bounded whatever the length of the recording; each module says by what. An exporter
//! concludes nothing of its own and reads no clock.

pub mod command;
pub mod newfile;
pub mod parquet;
pub mod perfetto;

/// A sink is complete when it has the summary.
fn late() -> std::io::Error {
    std::io::Error::other("a record came after the summary")
}
