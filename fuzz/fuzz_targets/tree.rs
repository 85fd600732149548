//! Heads and nodes of trees.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| segvm_fuzz::tree(bytes));
