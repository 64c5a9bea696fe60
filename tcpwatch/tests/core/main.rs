//! The pure core, without a kernel: scenario files and properties.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod bombs;
mod damage;
mod fuzz_corpus;
mod growth;
mod invariants;
mod losses;
mod notation;
mod outlet;
mod owners;
mod properties;
mod recorder;
mod report;
mod scenarios;
mod serve;
mod told;
mod top;
mod trace;
