//! Entries of a group's log, and the writes in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("entry", bytes));
