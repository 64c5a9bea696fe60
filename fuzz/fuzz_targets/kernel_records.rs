//! Any bytes as what the kernel program says: decoded, concluded from, recorded.

#![no_main]

#[path = "../harness/everything.rs"]
mod everything;
#[path = "../harness/kernel_records.rs"]
mod kernel_records;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| kernel_records::run(bytes));
