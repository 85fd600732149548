//! Roots of heaps and their values.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| segvm_fuzz::heap(bytes));
