//! Items: what a table holds, owned and as bytes.
//!
//! An [`Item`] is a map from attribute names to [`Value`]s of DynamoDB's ten types. A client encodes it once
//! ([`encode`]); everyone else reads the same bytes in place ([`access`]) as an [`ArchivedItem`]. Both are
//! looked at through [`view`], so that size, order, equality, keys and conditions are written once.
//!
//! # Invariants
//!
//! * *Canonical*: names ascend strictly by their bytes, in the item and in every map; sets are not empty and
//!   ascend strictly; numbers are in their one form. So [`encode`] gives equal items equal bytes.
//! * [`access`] proves that bytes are safe to walk (bounds, UTF-8, discriminants, depth);
//!   [`access_validated`] proves, once and at the edge, that they are canonical and within the limits too.
//!   Whoever walks an item that was only accessed may see disorder, and must answer with an error or "not
//!   found", never with a panic.
//!
//! Not here: keys ([`crate::key`]), JSON (the client), expressions ([`crate::expression`]), checksums.

mod archive;
mod check;
mod error;
mod number;
mod size;
mod value;
pub mod view;

pub(crate) use archive::{VecSerializer, access_within, serialize_into};
pub use archive::{access, access_validated, encode, encode_into, validate};
pub(crate) use check::check_value;
pub use error::ItemError;
pub use number::{
    ArchivedNumber, NUMBER_BYTES_MAX, NUMBER_EXPONENT_MAX, NUMBER_EXPONENT_MIN, NUMBER_TEXT_BYTES_MAX,
    Number, NumberError,
};
pub use size::{item_size, value_size};
pub use value::{ArchivedAttribute, ArchivedItem, ArchivedValue, Attribute, Item, Value, ValueType};
