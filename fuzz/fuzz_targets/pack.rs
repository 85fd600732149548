//! Packs, open and sealed.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| segvm_fuzz::pack(bytes));
