//! A condition or an update on an item, safe to walk and maybe not valid.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::run("evaluation", bytes));
