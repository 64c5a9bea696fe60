//! Any order of inputs about a few sockets: concluded from, with and without clock marks.

#![no_main]

#[path = "../harness/everything.rs"]
mod everything;
#[path = "../harness/pipeline.rs"]
mod pipeline;
#[path = "../harness/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pipeline::run(bytes));
