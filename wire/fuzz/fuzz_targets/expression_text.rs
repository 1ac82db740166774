//! The text of a condition, an update or a key condition.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("expression_text", bytes));
