//! Keys: where an item stands in its table.
//!
//! A [`StorageKey`] orders a table's items first by a hash of the partition key, then by partition key, then
//! by sort key. Partitions are ranges of it; an item collection (all items of one partition key) is
//! contiguous in it, in the order of the sort key, so that a query is one range.
//!
//! ```text
//!    0              8
//!   +--------------+------------------------+---------------------+
//!   | SipHash-2-4  | partition key, encoded | sort key, encoded   |   the last one if there is a sort key
//!   | big-endian   |                        |                     |
//!   +--------------+------------------------+---------------------+
//!        hash of the bytes in the middle, keyed by the table's HashKey
//!
//!   S, B   each byte, but 00 as 00 FF; then 00 01            N   see item::Number: 1 to 22 bytes
//! ```
//!
//! The hash is keyed per table, so that two tables order the same keys differently
//! (docs/decisions/0003-hashes.md).
//!
//! # Invariants
//!
//! * Keys compare as bytes exactly as (hash, partition key, sort key) compare as values.
//! * No key is a prefix of another of the same table; key ‖ 00 is the first possible key after it.
//! * A key that was made or checked here has values of the schema's types, within the limits; an S is UTF-8
//!   and an N canonical.
//!
//! Not here: which partition holds a key, secondary indexes, conditions as text ([`crate::expression`]).

mod component;
mod error;
mod range;
mod schema;

pub use error::KeyError;
pub use range::{KeyRange, SortCondition, partition_range};
pub use schema::{
    ArchivedKeyAttribute, ArchivedKeySchema, ArchivedKeyType, KeyAttribute, KeySchema, KeyType,
};

use crate::limits::{PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use smallvec::SmallVec;
use std::fmt;

/// Bytes of the hash that a storage key begins with.
pub const HASH_BYTES: usize = 8;

/// Longest storage key, bytes: every byte of both values escaped, and both terminators.
pub const STORAGE_KEY_BYTES_MAX: usize =
    HASH_BYTES + 2 * PARTITION_KEY_BYTES_MAX + 2 + 2 * SORT_KEY_BYTES_MAX + 2;

/// Longest name of a key attribute, bytes (developer guide, limits).
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// A storage key, or a bound of a range of them, with its bytes in place if they are few. To compare one with
/// another touches no other memory; and an empty one points somewhere, while comparing with an empty `Vec`
/// costs as much as fifty other comparisons where the C library uses masked loads
/// (docs/decisions/0019-turns.md).
pub type KeyBytes = SmallVec<[u8; 36]>;

/// The key of a table's placement hash: random, chosen when the table is created, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct HashKey(pub [u8; 16]);

/// An item's place in its table; see the module for the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct StorageKey(pub Vec<u8>);

/// The hash that a storage key begins with: what partitions divide.
#[must_use]
pub fn hash_prefix(key: &[u8]) -> Option<u64> {
    key.first_chunk::<HASH_BYTES>().map(|bytes| u64::from_be_bytes(*bytes))
}

impl HashKey {
    /// The placement hash of an encoded partition key: SipHash-2-4.
    #[must_use]
    pub fn hash(&self, encoded_partition_key: &[u8]) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(encoded_partition_key)
    }
}

impl From<&ArchivedHashKey> for HashKey {
    fn from(archived: &ArchivedHashKey) -> Self {
        Self(archived.0)
    }
}

impl StorageKey {
    /// The bytes, which order as the keys do.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first possible key after this one: where a scan resumes.
    #[must_use]
    pub fn after(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0x00);
        Self(bytes)
    }
}

impl AsRef<[u8]> for StorageKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for StorageKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for StorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageKey(")?;
        for (offset, byte) in self.0.iter().enumerate() {
            if offset == HASH_BYTES {
                f.write_str("|")?;
            }
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, Number, Value, ValueType};

    const HASH_KEY: HashKey = HashKey([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    fn schema() -> KeySchema {
        KeySchema::partition_only("pk", KeyType::S).with_sort("sk", KeyType::N)
    }

    fn key() -> Item {
        Item::new().with("pk", "a").with("sk", 1)
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // The last vector but one of the reference implementation: the input is the bytes 00 to 0e.
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(HASH_KEY.hash(&input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn an_item_has_the_storage_key_of_its_key() {
        let item = key().with("other", true);
        let storage_key = schema().storage_key(&HASH_KEY, &item).expect("a key");
        assert_eq!(schema().storage_key_of_key(&HASH_KEY, &key()), Ok(storage_key.clone()));
        let bytes = crate::item::encode(&item).expect("an item");
        let archived = crate::item::access(&bytes).expect("an archive");
        assert_eq!(schema().storage_key(&HASH_KEY, archived), Ok(storage_key.clone()));
        assert_eq!(schema().decode(storage_key.as_bytes()), Ok(key()));
        assert_eq!(schema().check_storage_key(&HASH_KEY, storage_key.as_bytes()), Ok(()));
    }

    #[test]
    fn what_is_not_a_key_is_refused_with_its_reason() {
        let check = |item: Item, error: KeyError| {
            assert_eq!(schema().storage_key_of_key(&HASH_KEY, &item), Err(error));
        };
        let name = |name: &str| name.to_owned();
        check(Item::new().with("sk", 1), KeyError::Missing { name: name("pk") });
        check(Item::new().with("pk", "a"), KeyError::Missing { name: name("sk") });
        check(key().with("x", 1), KeyError::Unexpected { name: name("x") });
        check(key().with("pk", ""), KeyError::Empty { name: name("pk") });
        check(
            key().with("pk", "x".repeat(2049)),
            KeyError::TooLong { name: name("pk"), bytes: 2049, bytes_max: 2048 },
        );
        check(
            key().with("sk", "1"),
            KeyError::WrongType { name: name("sk"), expected: KeyType::N, found: ValueType::S },
        );
        check(
            key().with("pk", Value::Null),
            KeyError::WrongType { name: name("pk"), expected: KeyType::S, found: ValueType::Null },
        );
    }

    #[test]
    fn the_longest_key_is_as_long_as_the_bound() {
        let schema = KeySchema::partition_only("pk", KeyType::B).with_sort("sk", KeyType::B);
        let key = Item::new().with("pk", vec![0_u8; 2048]).with("sk", vec![0_u8; 1024]);
        let storage_key = schema.storage_key_of_key(&HASH_KEY, &key).expect("a key");
        assert_eq!(storage_key.as_bytes().len(), STORAGE_KEY_BYTES_MAX);
        assert_eq!(schema.check_storage_key(&HASH_KEY, storage_key.as_bytes()), Ok(()));
        assert_eq!(schema.decode(storage_key.as_bytes()), Ok(key));
    }

    #[test]
    fn bytes_that_are_no_key_of_the_table_are_refused() {
        let good = schema().storage_key(&HASH_KEY, &key()).expect("a key");
        let check = |bytes: &[u8]| schema().check_storage_key(&HASH_KEY, bytes);
        for length in 0..good.as_bytes().len() {
            assert!(matches!(check(&good.as_bytes()[..length]), Err(KeyError::Malformed { .. })), "{length}");
        }
        let length = good.as_bytes().len();
        let malformed = KeyError::Malformed { bytes: length + 1, offset: length };
        assert_eq!(check(good.after().as_bytes()), Err(malformed));
        let mut moved = good.clone();
        moved.0[0] ^= 1;
        assert!(matches!(check(moved.as_bytes()), Err(KeyError::WrongHash { .. })));
        let mut not_text = good.clone();
        not_text.0[HASH_BYTES] = 0x80;
        assert_eq!(
            check(not_text.as_bytes()),
            Err(KeyError::Malformed { bytes: length, offset: HASH_BYTES })
        );
        let mut empty = good.clone();
        empty.0.remove(HASH_BYTES);
        let hash = HASH_KEY.hash(&[0x00, 0x01]);
        empty.0[..HASH_BYTES].copy_from_slice(&hash.to_be_bytes());
        assert_eq!(check(empty.as_bytes()), Err(KeyError::Empty { name: "pk".to_owned() }));
    }

    #[test]
    fn a_schema_needs_two_good_names() {
        let schema = KeySchema::partition_only("a", KeyType::S);
        assert_eq!(schema.check(), Ok(()));
        assert_eq!(schema.clone().with_sort("b", KeyType::B).check(), Ok(()));
        assert_eq!(
            schema.clone().with_sort("a", KeyType::B).check(),
            Err(KeyError::SameName { name: "a".to_owned() })
        );
        assert_eq!(
            schema.with_sort("", KeyType::B).check(),
            Err(KeyError::NameLength { bytes: 0, bytes_max: 255 })
        );
    }

    /// Frozen: these bytes are on disk, and the hash decides which partition an item is in.
    #[test]
    fn keys_are_frozen() {
        let hex = |key: StorageKey| format!("{key:?}");
        let partition_only = |key_type| KeySchema::partition_only("pk", key_type);
        let number = |text: &str| Value::N(text.parse::<Number>().expect("a number"));
        let check = |schema: &KeySchema, item: Item, expected: &str| {
            assert_eq!(hex(schema.storage_key_of_key(&HASH_KEY, &item).expect("a key")), expected);
        };
        check(
            &partition_only(KeyType::S),
            Item::new().with("pk", "user#1"),
            "StorageKey(2095647a5d773559|7573657223310001)",
        );
        check(
            &partition_only(KeyType::B),
            Item::new().with("pk", vec![0_u8, 1, 0xFF]),
            "StorageKey(7792db60e4107718|00ff01ff0001)",
        );
        check(
            &partition_only(KeyType::N),
            Item::new().with("pk", number("-12.5")),
            "StorageKey(41fa77237b4eca7b|017cf2ccff)",
        );
        check(
            &schema(),
            Item::new().with("pk", "h\u{e9}").with("sk", 0),
            "StorageKey(a027eb645aa17ae2|68c3a9000102)",
        );
        let texts = partition_only(KeyType::S).with_sort("sk", KeyType::S);
        check(
            &texts,
            Item::new().with("pk", "a").with("sk", "b\0"),
            "StorageKey(c955104df9f45645|6100016200ff0001)",
        );
    }
}
