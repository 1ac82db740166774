//! Ranges of storage keys: all that a query, a page or a partition asks for is one.
//!
//! A range is half-open, from the first key that is in it to the first that is no more. Inside an item
//! collection every condition on the sort key is a range, because encodings are ordered and no encoding
//! continues another.

use super::component;
use super::schema::append_value;
use super::{HashKey, KeyError, KeySchema, KeyType, STORAGE_KEY_BYTES_MAX, StorageKey};
use crate::item::Value;
use crate::item::view::ValueView;
use crate::limits::SORT_KEY_BYTES_MAX;

/// All keys from `lower` on that are below `upper`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key in the range, if there is an item of that key.
    pub lower: StorageKey,
    /// The first key after the range.
    pub upper: StorageKey,
}

/// A condition on the sort key. Its values are of the sort key's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortCondition {
    /// The value itself.
    Equal(Value),
    /// Below the value.
    Less(Value),
    /// The value or below.
    LessOrEqual(Value),
    /// Above the value.
    Greater(Value),
    /// The value or above.
    GreaterOrEqual(Value),
    /// From the first value to the second, with both.
    Between(Value, Value),
    /// Every text or byte string that begins with this one.
    BeginsWith(Value),
}

impl KeyRange {
    /// Whether a key is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.lower.as_bytes() <= key && key < self.upper.as_bytes()
    }

    /// Whether no key can be in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lower >= self.upper
    }
}

impl KeySchema {
    /// The range of the items that have this partition key and, if a condition is given, a sort key that
    /// meets it.
    ///
    /// # Errors
    /// When a value is none for this key, or the table has no sort key.
    pub fn query_range<'a>(
        &self,
        hash_key: &HashKey,
        partition: impl Into<ValueView<'a>>,
        condition: Option<&SortCondition>,
    ) -> Result<KeyRange, KeyError> {
        let prefix = self.partition_prefix(hash_key, partition)?;
        match condition {
            None => Ok(partition_range(&prefix)),
            Some(condition) => self.sort_range(&prefix, condition),
        }
    }

    /// The range of the keys that begin with `prefix`, a partition key's, and whose sort key meets a
    /// condition.
    ///
    /// # Errors
    /// When a value is none for the sort key, or there is none.
    pub fn sort_range(&self, prefix: &StorageKey, condition: &SortCondition) -> Result<KeyRange, KeyError> {
        let sort = self.sort.as_ref().ok_or(KeyError::NoSortKey)?;
        let at = |value: &Value| {
            let mut key = prefix.clone();
            append_value(sort, SORT_KEY_BYTES_MAX, value.view(), &mut key.0)?;
            Ok(key)
        };
        let whole = partition_range(prefix);
        let (lower, upper) = match condition {
            SortCondition::Equal(value) => {
                let key = at(value)?;
                let upper = key.after();
                (key, upper)
            }
            SortCondition::Less(value) => (whole.lower, at(value)?),
            SortCondition::LessOrEqual(value) => (whole.lower, at(value)?.after()),
            SortCondition::Greater(value) => (at(value)?.after(), whole.upper),
            SortCondition::GreaterOrEqual(value) => (at(value)?, whole.upper),
            SortCondition::Between(low, high) => (at(low)?, at(high)?.after()),
            SortCondition::BeginsWith(start) => {
                let lower = self.open_key(prefix, start)?;
                let upper = successor(&lower);
                (lower, upper)
            }
        };
        Ok(KeyRange { lower, upper })
    }

    /// The prefix of the keys whose sort key begins with a value.
    fn open_key(&self, prefix: &StorageKey, start: &Value) -> Result<StorageKey, KeyError> {
        let sort = self.sort.as_ref().ok_or(KeyError::NoSortKey)?;
        let bytes = match start.view() {
            ValueView::S(text) => text.as_bytes(),
            ValueView::B(bytes) => bytes,
            _ => &[],
        };
        let found = start.view().value_type();
        if found != sort.key_type.into() {
            return Err(KeyError::WrongType { name: sort.name.clone(), expected: sort.key_type, found });
        }
        if sort.key_type == KeyType::N {
            return Err(KeyError::NoPrefix { name: sort.name.clone() });
        }
        if bytes.len() > SORT_KEY_BYTES_MAX {
            return Err(KeyError::TooLong {
                name: sort.name.clone(),
                bytes: bytes.len(),
                bytes_max: SORT_KEY_BYTES_MAX,
            });
        }
        let mut key = prefix.clone();
        component::append_open(bytes, &mut key.0);
        Ok(key)
    }
}

/// The range of all keys that begin with `prefix`, a partition key's.
#[must_use]
pub fn partition_range(prefix: &StorageKey) -> KeyRange {
    KeyRange { lower: prefix.clone(), upper: successor(prefix) }
}

/// The first byte string that is above everything that begins with `prefix`, or one that is above every key.
fn successor(prefix: &StorageKey) -> StorageKey {
    let mut bytes = prefix.0.clone();
    while bytes.last() == Some(&0xFF) {
        bytes.pop();
    }
    match bytes.last_mut() {
        Some(last) => *last += 1,
        None => bytes = vec![0xFF; STORAGE_KEY_BYTES_MAX + 1],
    }
    StorageKey(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH_KEY: HashKey = HashKey([7; 16]);

    fn schema(sort: KeyType) -> KeySchema {
        KeySchema::partition_only("pk", KeyType::S).with_sort("sk", sort)
    }

    #[test]
    fn a_condition_must_fit_the_sort_key() {
        let range =
            |schema: KeySchema, condition| schema.query_range(&HASH_KEY, &Value::from("p"), Some(&condition));
        let name = || "sk".to_owned();
        assert_eq!(
            range(KeySchema::partition_only("pk", KeyType::S), SortCondition::Equal(1.into())),
            Err(KeyError::NoSortKey)
        );
        assert_eq!(
            range(schema(KeyType::N), SortCondition::BeginsWith(1.into())),
            Err(KeyError::NoPrefix { name: name() })
        );
        assert!(matches!(
            range(schema(KeyType::S), SortCondition::BeginsWith(1.into())),
            Err(KeyError::WrongType { .. })
        ));
        assert!(matches!(
            range(schema(KeyType::B), SortCondition::Less("x".into())),
            Err(KeyError::WrongType { .. })
        ));
        assert_eq!(
            range(schema(KeyType::S), SortCondition::Less("".into())),
            Err(KeyError::Empty { name: name() })
        );
        let long = "x".repeat(SORT_KEY_BYTES_MAX + 1);
        assert!(matches!(
            range(schema(KeyType::S), SortCondition::BeginsWith(long.into())),
            Err(KeyError::TooLong { .. })
        ));
    }

    #[test]
    fn a_range_the_wrong_way_round_is_empty() {
        let between = SortCondition::Between(2.into(), 1.into());
        let range =
            schema(KeyType::N).query_range(&HASH_KEY, &Value::from("p"), Some(&between)).expect("a range");
        assert!(range.is_empty());
        assert!(!range.contains(range.lower.as_bytes()));
    }

    #[test]
    fn every_byte_string_has_a_range_above_it() {
        for (prefix, upper) in
            [(&[1_u8, 2][..], &[1_u8, 3][..]), (&[1, 0xFF, 0xFF], &[2]), (&[0xFE, 0xFF], &[0xFF])]
        {
            let range = partition_range(&StorageKey(prefix.to_vec()));
            assert_eq!(range.upper.as_bytes(), upper);
        }
        let all = partition_range(&StorageKey(vec![0xFF, 0xFF]));
        assert!(all.contains(&[0xFF; 100]));
    }
}
