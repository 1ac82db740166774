//! The two checks of stored and sent bytes (docs/decisions/0003-hashes.md): CRC-32C for frames and items,
//! XXH3 with 128 bits for chains.

use std::fmt;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_128};

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// XXH3 with 64 bits: tells one request body from another under the same token.
#[must_use]
pub fn hash64(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A 128-bit XXH3 value: a link of a hash chain, or the check of a large block. Zero stands before a chain's
/// start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Hash128(pub [u8; 16]);

impl Hash128 {
    /// Before a chain's first link.
    pub const ZERO: Self = Self([0; 16]);

    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes).to_le_bytes())
    }

    /// The hash of the concatenation of `first` and `second`.
    #[must_use]
    pub fn of_two(first: &[u8], second: &[u8]) -> Self {
        let mut state = Xxh3Default::new();
        state.update(first);
        state.update(second);
        Self(state.digest128().to_le_bytes())
    }
}

impl From<&ArchivedHash128> for Hash128 {
    fn from(archived: &ArchivedHash128) -> Self {
        Self(archived.0)
    }
}

impl fmt::Display for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_le_bytes(self.0))
    }
}

impl fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_frozen() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the CRC catalogue");
        assert_eq!(hash64(b"123456789"), xxh3_64(b"123456789"));
        assert_eq!(
            Hash128::of(b"").to_string(),
            "99aa06d3014798d86001c324468d497f",
            "XXH3's published test vector"
        );
        assert_eq!(Hash128::of_two(b"1234", b"56789"), Hash128::of(b"123456789"));
    }
}
