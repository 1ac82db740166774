//! Which attributes are a table's key, and how items and keys become storage keys and come back.

use super::component;
use super::{
    HASH_BYTES, HashKey, KEY_NAME_BYTES_MAX, KeyError, STORAGE_KEY_BYTES_MAX, StorageKey, hash_prefix,
};
use crate::item::view::{MapView, ValueView};
use crate::item::{Item, ValueType};
use crate::limits::{PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

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

    /// What all storage keys of one partition key begin with: its hash and its encoding. In a table without a
    /// sort key it is the whole key.
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
    /// [`KeyError::Malformed`] when the bytes are not those of a key of this schema. The hash is not looked
    /// at.
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
        // Encoding it again checks lengths and emptiness; the bytes are equal because every value has one
        // encoding.
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

/// Appends a key value after checking that it may be one.
pub(super) fn append_value(
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
        _ => 0,
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

impl KeyType {
    /// The name that DynamoDB's API gives the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        ValueType::from(self).name()
    }
}

impl From<&ArchivedKeyType> for KeyType {
    fn from(archived: &ArchivedKeyType) -> Self {
        match archived {
            ArchivedKeyType::S => Self::S,
            ArchivedKeyType::N => Self::N,
            ArchivedKeyType::B => Self::B,
        }
    }
}

impl From<&ArchivedKeyAttribute> for KeyAttribute {
    fn from(archived: &ArchivedKeyAttribute) -> Self {
        Self { name: archived.name.as_str().to_owned(), key_type: (&archived.key_type).into() }
    }
}

impl From<&ArchivedKeySchema> for KeySchema {
    fn from(archived: &ArchivedKeySchema) -> Self {
        Self { partition: (&archived.partition).into(), sort: archived.sort.as_ref().map(KeyAttribute::from) }
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
