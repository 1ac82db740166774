//! A frame: header, checksums and body, under both limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("frame", bytes));
