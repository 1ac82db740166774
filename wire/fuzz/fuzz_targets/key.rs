//! A storage key, under every schema.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("key", bytes));
