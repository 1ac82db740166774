//! Bodies between the cores of a group.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("peer", bytes));
