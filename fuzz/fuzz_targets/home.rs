//! Commits, and the frames of an image's log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| segvm_fuzz::home(bytes));
