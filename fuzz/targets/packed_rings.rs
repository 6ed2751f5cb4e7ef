//! A guest's packed rings: ours beside a plain reading of the text, on the same memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vhost_ila::device::ring::reference;

fuzz_target!(|bytes: &[u8]| reference::packed(bytes));
