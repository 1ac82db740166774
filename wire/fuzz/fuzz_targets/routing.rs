//! Bodies between routers, MemDS and leaders.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("routing", bytes));
