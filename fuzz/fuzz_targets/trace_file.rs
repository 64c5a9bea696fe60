//! Any bytes as a trace file: read, and replayed whole and in part.

#![no_main]

#[path = "../mutate/blocks.rs"]
mod blocks;
#[path = "../harness/everything.rs"]
mod everything;
#[path = "../mutate/payload.rs"]
mod payload;
#[path = "../mutate/random.rs"]
mod random;
#[path = "../harness/trace_file.rs"]
mod trace_file;

use std::cell::RefCell;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

use crate::{random::Random, trace_file::TraceFile};

thread_local! {
    static FILE: RefCell<TraceFile> = RefCell::new(TraceFile::new());
}

fuzz_target!(|bytes: &[u8]| FILE.with_borrow_mut(|file| file.run(bytes)));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed);
    let mut bytes = data[..size].to_vec();
    blocks::mutate(&mut bytes, max_size, &mut random);
    random::put_back(data, &bytes, max_size)
});
