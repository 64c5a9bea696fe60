//! Any bytes as the payload of a block: read, concluded from, written again.

#![no_main]

#[path = "../harness/everything.rs"]
mod everything;
#[path = "../mutate/payload.rs"]
mod payload;
#[path = "../mutate/random.rs"]
mod random;
#[path = "../harness/trace_block.rs"]
mod trace_block;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

use crate::random::Random;

fuzz_target!(|bytes: &[u8]| trace_block::run(bytes));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed);
    let mut bytes = data[..size].to_vec();
    payload::mutate(&mut bytes, max_size, &mut random);
    random::put_back(data, &bytes, max_size)
});
