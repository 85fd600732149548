//! Schemas of types.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| segvm_fuzz::schema(bytes));
