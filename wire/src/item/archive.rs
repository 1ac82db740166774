//! Items as bytes: the one encoding of log, tree, checkpoint and wire.
//!
//! The bytes are the rkyv archive of an [`Item`] (docs/decisions/0002-archive-format.md), whose root is at
//! the end; the length must be exact, and whoever stores the bytes stores it, with the version and the
//! checksum.
//!
//! [`access`] costs one walk that proves memory safety. It follows at most [`ARCHIVE_DEPTH_MAX`] pointers in
//! a chain, so bytes that nest without end are an error and not an overflow of the stack. Nothing is
//! allocated: the archive has no shared pointers, so the validator keeps no table of them.

use super::check::check_item;
use super::error::ItemError;
use super::size::item_size;
use super::value::{ArchivedAttribute, ArchivedItem, ArchivedValue, Item};
use super::view::{MapView, ValueView};
use crate::limits::{ARCHIVE_DEPTH_MAX, ITEM_ARCHIVE_BYTES_MAX, ITEM_BYTES_MAX, NESTING_LEVELS_MAX};
use rkyv::Portable;
use rkyv::api::access_with_context;
use rkyv::api::low::{LowSerializer, LowValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::with_arena;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use std::num::NonZeroUsize;

// A chain of pointers: the root, the item's attributes, a container on each level above the last, and there a
// set and its element. The validator counts the root too, and refuses when its count reaches zero.
const _: () = assert!(ARCHIVE_DEPTH_MAX > 2 + (NESTING_LEVELS_MAX - 1) + 2);

/// Serialises what has no shared pointers into a vector, with scratch memory from an arena.
pub(crate) type VecSerializer<'a> = LowSerializer<Vec<u8>, ArenaHandle<'a>, Failure>;

/// Encodes an item.
///
/// # Errors
/// When it is not canonical or exceeds a limit.
pub fn encode(item: &Item) -> Result<Vec<u8>, ItemError> {
    let mut bytes = Vec::new();
    encode_into(item, &mut bytes)?;
    Ok(bytes)
}

/// Encodes an item into a vector, whose old content is cleared and whose memory is used again.
///
/// # Errors
/// When the item is not canonical or exceeds a limit; the vector is then empty.
pub fn encode_into(item: &Item, bytes: &mut Vec<u8>) -> Result<(), ItemError> {
    bytes.clear();
    check_item(item.view())?;
    check_size(item_size(item))?;
    serialize_into(item, bytes).map_err(|Failure| ItemError::Malformed { bytes: 0 })?;
    check_archive_size(bytes.len()).inspect_err(|_| bytes.clear())
}

/// The item in these bytes, if they are safe to walk. Its content is not looked at: see [`validate`].
///
/// # Errors
/// [`ItemError::ArchiveTooLarge`] or [`ItemError::Malformed`].
pub fn access(bytes: &[u8]) -> Result<&ArchivedItem, ItemError> {
    check_archive_size(bytes.len())?;
    access_within(bytes, ARCHIVE_DEPTH_MAX).ok_or(ItemError::Malformed { bytes: bytes.len() })
}

/// Checks everything that [`access`] does not: canonical form, nesting and size. Done once, at the edge.
///
/// # Errors
/// The first rule that the item breaks.
pub fn validate(item: &ArchivedItem) -> Result<(), ItemError> {
    check_item(item.view())?;
    check_size(item_size(item))
}

/// The item in bytes from outside, checked in every way: [`access`], [`validate`], and no byte of the archive
/// is without a use, so that nobody stores what the size rule does not see.
///
/// # Errors
/// The first rule that the item breaks.
pub fn access_validated(bytes: &[u8]) -> Result<&ArchivedItem, ItemError> {
    let item = access(bytes)?;
    validate(item)?;
    // The validator lets no two parts overlap, so equal sums mean that every byte belongs to one.
    let used = map_length(item.view());
    if used != bytes.len() {
        return Err(ItemError::ArchiveSlack { bytes: bytes.len(), used });
    }
    Ok(item)
}

/// Bytes that an archived list, map, set, text, number or byte string takes where it stands: a pointer and a
/// length.
const REFERENCE_BYTES: usize = 8;
/// Bytes that an archived value takes where it stands: its type, then a reference or less.
const VALUE_BYTES: usize = 1 + REFERENCE_BYTES;

const _: () = assert!(size_of::<ArchivedValue>() == VALUE_BYTES);
const _: () = assert!(size_of::<ArchivedAttribute>() == REFERENCE_BYTES + VALUE_BYTES);
const _: () = assert!(size_of::<ArchivedItem>() == REFERENCE_BYTES);

/// Bytes that an archived map takes, with everything that it refers to.
fn map_length(map: MapView<'_>) -> usize {
    let attributes =
        map.iter().map(|(name, value)| REFERENCE_BYTES + text_length(name) + value_length(value));
    REFERENCE_BYTES + attributes.sum::<usize>()
}

/// Bytes that an archived value takes, with everything that it refers to.
fn value_length(value: ValueView<'_>) -> usize {
    VALUE_BYTES
        + match value {
            ValueView::Bool(_) | ValueView::Null => 0,
            ValueView::S(_) | ValueView::N(_) | ValueView::B(_) => scalar_length(value),
            ValueView::Set(set) => set.iter().map(|element| REFERENCE_BYTES + scalar_length(element)).sum(),
            ValueView::L(list) => list.iter().map(value_length).sum(),
            ValueView::M(map) => map_length(map) - REFERENCE_BYTES,
        }
}

/// Bytes of a text, number or byte string that stand elsewhere.
fn scalar_length(value: ValueView<'_>) -> usize {
    match value {
        ValueView::S(text) => text_length(text),
        ValueView::N(number) => number.encoded().len(),
        ValueView::B(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Bytes of a text that stand elsewhere: a short text stands in its reference.
fn text_length(text: &str) -> usize {
    if text.len() <= REFERENCE_BYTES { 0 } else { text.len() }
}

fn check_size(bytes: usize) -> Result<(), ItemError> {
    if bytes > ITEM_BYTES_MAX {
        return Err(ItemError::TooLarge { bytes, bytes_max: ITEM_BYTES_MAX });
    }
    Ok(())
}

fn check_archive_size(bytes: usize) -> Result<(), ItemError> {
    if bytes > ITEM_ARCHIVE_BYTES_MAX {
        return Err(ItemError::ArchiveTooLarge { bytes, bytes_max: ITEM_ARCHIVE_BYTES_MAX });
    }
    Ok(())
}

/// Checked access that follows at most `depth_max` pointers in a chain.
pub(crate) fn access_within<T>(bytes: &[u8], depth_max: usize) -> Option<&T>
where
    T: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
{
    let mut validator =
        Validator::new(ArchiveValidator::with_max_depth(bytes, NonZeroUsize::new(depth_max)), ());
    access_with_context::<T, _, Failure>(bytes, &mut validator).ok()
}

/// Appends the archive of `value` to an empty vector.
pub(crate) fn serialize_into<T>(value: &T, bytes: &mut Vec<u8>) -> Result<(), Failure>
where
    T: for<'a> rkyv::Serialize<VecSerializer<'a>>,
{
    *bytes = with_arena(|arena| {
        to_bytes_in_with_alloc::<_, _, Failure>(value, std::mem::take(bytes), arena.acquire())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Number, Value};

    /// The archive of an item whose one attribute is this many lists within each other around NULL. The
    /// archive of one such list is cut open and links of the same form are put in, so that no walk is needed
    /// to build it.
    fn nested_lists(lists: usize) -> Vec<u8> {
        let one = encode(&Item::new().with("a", Value::L(vec![Value::Null]))).expect("an item");
        let two =
            encode(&Item::new().with("a", Value::L(vec![Value::L(vec![Value::Null])]))).expect("an item");
        assert_eq!(two.len(), one.len() + VALUE_BYTES);
        let (null, tail) = one.split_at(VALUE_BYTES);
        let link = &two[VALUE_BYTES..2 * VALUE_BYTES];
        let mut bytes = null.to_vec();
        for _ in 1..lists {
            bytes.extend_from_slice(link);
        }
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn the_deepest_item_that_is_allowed_comes_back() {
        let leaf = Value::string_set(["long enough to be out of line"]).expect("a set");
        let deepest =
            (1..NESTING_LEVELS_MAX).fold(leaf, |value, _| Item::new().with("long enough name", value).into());
        let item = Item::new().with("long enough name", deepest);
        let bytes = encode(&item).expect("32 levels");
        let archived = access(&bytes).expect("a chain of pointers within the bound");
        assert_eq!(validate(archived), Ok(()));
        assert!(*archived == item);
    }

    #[test]
    fn one_level_too_many_is_told_by_the_walk() {
        let bytes = nested_lists(NESTING_LEVELS_MAX);
        let archived = access(&bytes).expect("safe to walk");
        assert!(matches!(validate(archived), Err(ItemError::TooDeep { levels_max: NESTING_LEVELS_MAX, .. })));
        assert_eq!(validate(access(&nested_lists(NESTING_LEVELS_MAX - 1)).expect("safe to walk")), Ok(()));
    }

    #[test]
    fn bytes_nested_without_end_are_an_error_and_not_an_overflow() {
        for lists in [100, 10_000, 100_000] {
            let bytes = nested_lists(lists);
            assert_eq!(access(&bytes).map(drop), Err(ItemError::Malformed { bytes: bytes.len() }));
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        for text in ["inline", "longer than eight bytes"] {
            let bytes = encode(&Item::new().with("a", text)).expect("an item");
            let place = bytes.windows(2).position(|pair| pair == &text.as_bytes()[1..3]).expect("the text");
            let mut broken = bytes.clone();
            broken[place] = 0x80;
            assert_eq!(access(&broken).map(drop), Err(ItemError::Malformed { bytes: bytes.len() }));
        }
    }

    #[test]
    fn a_number_that_is_not_canonical_is_found_by_the_walk() {
        let number: Number = "12345".parse().expect("a number");
        let mut bytes = encode(&Item::new().with("a", number.clone())).expect("an item");
        let place = bytes.windows(number.encoded().len()).position(|window| window == number.encoded());
        bytes[place.expect("the number") + 2] = 0x01;
        let archived = access(&bytes).expect("safe to walk");
        assert_eq!(validate(archived), Err(ItemError::NumberNotCanonical { at: "a".to_owned() }));
        assert!(archived.to_item().is_err());
    }

    #[test]
    fn the_size_limit_is_sharp() {
        let fits = Item::new().with("a", "x".repeat(ITEM_BYTES_MAX - 1));
        let bytes = encode(&fits).expect("409,600 bytes");
        assert_eq!(validate(access(&bytes).expect("an archive")), Ok(()));
        let too_large = Item::new().with("a", "x".repeat(ITEM_BYTES_MAX));
        let error = ItemError::TooLarge { bytes: ITEM_BYTES_MAX + 1, bytes_max: ITEM_BYTES_MAX };
        assert_eq!(encode(&too_large), Err(error));
        let long = vec![0; ITEM_ARCHIVE_BYTES_MAX + 1];
        let error = ItemError::ArchiveTooLarge { bytes: long.len(), bytes_max: ITEM_ARCHIVE_BYTES_MAX };
        assert_eq!(access(&long).map(drop), Err(error));
    }

    #[test]
    fn the_archive_of_the_most_wasteful_item_is_within_its_bound() {
        let empty_texts = Value::L(vec![Value::from(""); ITEM_BYTES_MAX - 4]);
        let bytes = encode(&Item::new().with("a", empty_texts)).expect("one byte for each element");
        assert!(bytes.len() > ITEM_ARCHIVE_BYTES_MAX * 3 / 4, "the bound is not idle: {}", bytes.len());
    }

    #[test]
    fn bytes_that_belong_to_nothing_are_refused() {
        let item = Item::new().with("a", 1).with("b", "longer than eight bytes");
        let bytes = encode(&item).expect("an item");
        assert!(access_validated(&bytes).is_ok());
        let mut padded = vec![0xEE; 100];
        padded.extend_from_slice(&bytes);
        assert_eq!(access(&padded).map(validate), Ok(Ok(())), "rkyv does not mind");
        let slack = ItemError::ArchiveSlack { bytes: bytes.len() + 100, used: bytes.len() };
        assert_eq!(access_validated(&padded).map(drop), Err(slack));
    }

    #[test]
    fn encoding_again_uses_the_same_memory() {
        let mut bytes = Vec::new();
        encode_into(&Item::new().with("a", "x".repeat(1000)), &mut bytes).expect("an item");
        let memory = bytes.as_ptr();
        encode_into(&Item::new().with("a", "y"), &mut bytes).expect("an item");
        assert_eq!(bytes.as_ptr(), memory);
        assert!(*access(&bytes).expect("an archive") == Item::new().with("a", "y"));
    }
}
