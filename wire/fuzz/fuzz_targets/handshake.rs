//! Bodies of Hello, HelloAnswer and Error, and both sides of a handshake that gets them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("handshake", bytes));
