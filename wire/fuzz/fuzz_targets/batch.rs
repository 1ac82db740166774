//! Bodies of batches and of their answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("batch", bytes));
