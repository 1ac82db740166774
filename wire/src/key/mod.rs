//! Keys: where an item stands in its table.
//!
//! A [`StorageKey`] orders a table's items first by a hash of the partition key, then by partition key, then by sort
//! key. Partitions are ranges of it; an item collection (all items of one partition key) is contiguous in it, in the
//! order of the sort key, so that a query is one range.
//!
//! ```text
//!    0              8
//!   +--------------+------------------------+---------------------+
//!   | SipHash-2-4  | partition key, encoded | sort key, encoded   |      the last only in tables that have one
//!   | big-endian   |                        |                     |
//!   +--------------+------------------------+---------------------+
//!        hash of the bytes in the middle, keyed by the table's HashKey
//!
//!   S, B   each byte, but 00 as 00 FF; then 00 01            N   see item::Number: 1 to 22 bytes
//! ```
//!
//! The hash is keyed per table, so that two tables order the same keys differently (docs/decisions/0003-hashes.md).
//!
//! # Invariants
//!
//! * Keys compare as bytes exactly as (hash, partition key, sort key) compare as values.
//! * No key is a prefix of another of the same table; key ‖ 00 is the first possible key after it.
//! * A key that was made or checked here has values of the schema's types, within the limits; an S is UTF-8 and an N
//!   canonical.
//!
//! Not here: which partition holds a key, secondary indexes, conditions as text ([`crate::expression`]).

mod component;
mod error;
mod range;

pub use error::KeyError;
pub use range::{KeyRange, SortCondition, partition_range};

use crate::item::view::{MapView, ValueView};
use crate::item::{Item, ValueType};
use crate::limits::{PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use std::fmt;

/// Bytes of the hash that a storage key begins with.
pub const HASH_BYTES: usize = 8;

/// Longest storage key, bytes: every byte of both values escaped, and both terminators.
pub const STORAGE_KEY_BYTES_MAX: usize =
    HASH_BYTES + 2 * PARTITION_KEY_BYTES_MAX + 2 + 2 * SORT_KEY_BYTES_MAX + 2;

/// Longest name of a key attribute, bytes (developer guide, limits).
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// The types that a key attribute may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub enum KeyType {
    /// Text.
    S,
    /// A number.
    N,
    /// Bytes.
    B,
}

/// The name and type of a key attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct KeyAttribute {
    /// The name.
    pub name: String,
    /// The type.
    pub key_type: KeyType,
}

/// The key attributes of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct KeySchema {
    /// The attribute that places an item collection.
    pub partition: KeyAttribute,
    /// The attribute that orders a collection, if a collection may have more than one item.
    pub sort: Option<KeyAttribute>,
}

/// The key of a table's placement hash: random, chosen when the table is created, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct HashKey(pub [u8; 16]);

/// An item's place in its table; see the module for the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct StorageKey(pub Vec<u8>);

impl KeySchema {
    /// A schema with a partition key only.
    #[must_use]
    pub fn partition_only(name: impl Into<String>, key_type: KeyType) -> Self {
        Self { partition: KeyAttribute { name: name.into(), key_type }, sort: None }
    }

    /// This schema with a sort key.
    #[must_use]
    pub fn with_sort(self, name: impl Into<String>, key_type: KeyType) -> Self {
        Self { sort: Some(KeyAttribute { name: name.into(), key_type }), ..self }
    }

    /// Checks the names.
    ///
    /// # Errors
    /// [`KeyError::NameLength`] or [`KeyError::SameName`].
    pub fn check(&self) -> Result<(), KeyError> {
        for attribute in self.attributes() {
            let bytes = attribute.name.len();
            if bytes == 0 || bytes > KEY_NAME_BYTES_MAX {
                return Err(KeyError::NameLength { bytes, bytes_max: KEY_NAME_BYTES_MAX });
            }
        }
        match &self.sort {
            Some(sort) if sort.name == self.partition.name => {
                Err(KeyError::SameName { name: sort.name.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The key attributes: partition key first.
    pub fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }

    /// Whether this is the name of a key attribute.
    #[must_use]
    pub fn is_key(&self, name: &str) -> bool {
        self.attributes().any(|attribute| attribute.name == name)
    }

    /// The storage key of an item, which may have any attributes beside those of its key.
    ///
    /// # Errors
    /// When a key attribute is missing, or its value is none for this key.
    pub fn storage_key<'a>(
        &self,
        hash_key: &HashKey,
        item: impl Into<MapView<'a>>,
    ) -> Result<StorageKey, KeyError> {
        let item = item.into();
        let find = |attribute: &KeyAttribute| {
            item.get(&attribute.name).ok_or_else(|| KeyError::Missing { name: attribute.name.clone() })
        };
        let mut key = self.partition_prefix(hash_key, find(&self.partition)?)?;
        if let Some(sort) = &self.sort {
            append_value(sort, SORT_KEY_BYTES_MAX, find(sort)?, &mut key.0)?;
        }
        Ok(key)
    }

    /// The storage key of a key: an item with exactly the key attributes.
    ///
    /// # Errors
    /// [`KeyError::Unexpected`] for any other attribute, and the errors of [`Self::storage_key`].
    pub fn storage_key_of_key<'a>(
        &self,
        hash_key: &HashKey,
        key: impl Into<MapView<'a>>,
    ) -> Result<StorageKey, KeyError> {
        let key = key.into();
        if let Some((name, _)) = key.iter().find(|(name, _)| !self.is_key(name)) {
            return Err(KeyError::Unexpected { name: name.to_owned() });
        }
        self.storage_key(hash_key, key)
    }

    /// What all storage keys of one partition key begin with: its hash and its encoding. In a table without a sort
    /// key it is the whole key.
    ///
    /// # Errors
    /// When the value is none for this key.
    pub fn partition_prefix<'a>(
        &self,
        hash_key: &HashKey,
        value: impl Into<ValueView<'a>>,
    ) -> Result<StorageKey, KeyError> {
        let mut bytes = vec![0; HASH_BYTES];
        append_value(&self.partition, PARTITION_KEY_BYTES_MAX, value.into(), &mut bytes)?;
        let hash = hash_key.hash(&bytes[HASH_BYTES..]);
        bytes[..HASH_BYTES].copy_from_slice(&hash.to_be_bytes());
        Ok(StorageKey(bytes))
    }

    /// The key attributes that a storage key was made from.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when the bytes are not those of a key of this schema. The hash is not looked at.
    pub fn decode(&self, key: &[u8]) -> Result<Item, KeyError> {
        Ok(self.split(key)?.0)
    }

    /// Checks the bytes of a key from outside: form, types, limits and hash.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::WrongHash`], or what is wrong with a value.
    pub fn check_storage_key(&self, hash_key: &HashKey, key: &[u8]) -> Result<(), KeyError> {
        if key.len() > STORAGE_KEY_BYTES_MAX {
            return Err(KeyError::Malformed { bytes: key.len(), offset: STORAGE_KEY_BYTES_MAX });
        }
        let (item, partition_end) = self.split(key)?;
        let expected = hash_key.hash(&key[HASH_BYTES..partition_end]);
        let found = hash_prefix(key).unwrap_or(0);
        if found != expected {
            return Err(KeyError::WrongHash { expected, found });
        }
        // Encoding it again checks lengths and emptiness; the bytes are equal because every value has one encoding.
        self.storage_key(hash_key, &item).map(|_| ())
    }

    /// The key attributes, and where the partition key's encoding ends.
    fn split(&self, key: &[u8]) -> Result<(Item, usize), KeyError> {
        let malformed = |offset| KeyError::Malformed { bytes: key.len(), offset };
        let mut offset = HASH_BYTES;
        let mut partition_end = offset;
        let mut item = Item::new();
        for attribute in self.attributes() {
            let rest = key.get(offset..).ok_or(malformed(key.len()))?;
            let (value, length) =
                component::split(attribute.key_type, rest).map_err(|broken| malformed(offset + broken))?;
            item.insert(attribute.name.as_str(), value);
            offset += length;
            if item.len() == 1 {
                partition_end = offset;
            }
        }
        if offset == key.len() { Ok((item, partition_end)) } else { Err(malformed(offset)) }
    }
}

/// The hash that a storage key begins with: what partitions divide.
#[must_use]
pub fn hash_prefix(key: &[u8]) -> Option<u64> {
    key.first_chunk::<HASH_BYTES>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Appends a key value after checking that it may be one.
fn append_value(
    attribute: &KeyAttribute,
    bytes_max: usize,
    value: ValueView<'_>,
    out: &mut Vec<u8>,
) -> Result<(), KeyError> {
    let name = || attribute.name.clone();
    let bytes = match value {
        ValueView::S(text) => text.len(),
        ValueView::B(bytes) => bytes.len(),
        ValueView::N(number) => match number.to_number() {
            Ok(_) => number.encoded().len(),
            Err(_) => return Err(KeyError::NumberNotCanonical { name: name() }),
        },
        ValueView::Bool(_) | ValueView::Null | ValueView::Set(_) | ValueView::L(_) | ValueView::M(_) => 0,
    };
    let start = out.len();
    if component::append(value, out) != Some(attribute.key_type) {
        out.truncate(start);
        return Err(KeyError::WrongType {
            name: name(),
            expected: attribute.key_type,
            found: value.value_type(),
        });
    }
    if bytes == 0 {
        return Err(KeyError::Empty { name: name() });
    }
    if bytes > bytes_max {
        return Err(KeyError::TooLong { name: name(), bytes, bytes_max });
    }
    Ok(())
}

impl HashKey {
    /// The placement hash of an encoded partition key: SipHash-2-4.
    #[must_use]
    pub fn hash(&self, encoded_partition_key: &[u8]) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(encoded_partition_key)
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

impl KeyType {
    /// The name that DynamoDB's API gives the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        ValueType::from(self).name()
    }
}

impl From<KeyType> for ValueType {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::S => Self::S,
            KeyType::N => Self::N,
            KeyType::B => Self::B,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Number, Value};

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
