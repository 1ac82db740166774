//! A line of DynamoDB JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("json", bytes));
