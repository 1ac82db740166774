//! Digests of what states are made of: XXH3 over everything that is hashed, collected first.

use evenkeel_wire::checksum::hash64;
use std::hash::Hasher;

/// Collects what is hashed.
#[derive(Debug)]
pub(crate) struct Collected(Vec<u8>);

impl Collected {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(1024))
    }
}

impl Hasher for Collected {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        hash64(&self.0)
    }
}
