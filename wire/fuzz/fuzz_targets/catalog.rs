//! Bodies about tables and replicas.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("catalog", bytes));
