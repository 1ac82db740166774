//! One key value as bytes: ordered as the values are, and ending where the bytes say.
//!
//! ```text
//!   S, B   each byte, but 00 as 00 FF | 00 01          the end is below every continuation
//!   N      the number's encoding (see item::number)    self-delimiting as it is
//! ```
//!
//! Nothing here knows of tables, limits or names.

use super::KeyType;
use crate::item::view::ValueView;
use crate::item::{Number, Value};

/// The byte that is escaped.
const ZERO: u8 = 0x00;
/// After [`ZERO`]: it was a byte of the value.
const ESCAPED: u8 = 0xFF;
/// After [`ZERO`]: the value ends here.
const END: u8 = 0x01;

/// Appends a value, if it is of a type that keys have.
pub(super) fn append(value: ValueView<'_>, out: &mut Vec<u8>) -> Option<KeyType> {
    match value {
        ValueView::S(text) => {
            append_terminated(text.as_bytes(), out);
            Some(KeyType::S)
        }
        ValueView::B(bytes) => {
            append_terminated(bytes, out);
            Some(KeyType::B)
        }
        ValueView::N(number) => {
            out.extend_from_slice(number.encoded());
            Some(KeyType::N)
        }
        _ => None,
    }
}

fn append_terminated(bytes: &[u8], out: &mut Vec<u8>) {
    append_open(bytes, out);
    out.extend_from_slice(&[ZERO, END]);
}

/// Appends what the encodings of all texts or byte strings that begin with `bytes` have in common.
pub(super) fn append_open(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == ZERO {
            out.push(ESCAPED);
        }
    }
}

/// The value that `bytes` begin with, and how many bytes it takes; or the offset at which they are broken.
pub(super) fn split(key_type: KeyType, bytes: &[u8]) -> Result<(Value, usize), usize> {
    match key_type {
        KeyType::N => match Number::split_encoded(bytes) {
            Ok((number, rest)) => Ok((Value::N(number), bytes.len() - rest.len())),
            Err(_) => Err(0),
        },
        KeyType::B => {
            let (value, length) = split_terminated(bytes)?;
            Ok((Value::B(value), length))
        }
        KeyType::S => {
            let (value, length) = split_terminated(bytes)?;
            match String::from_utf8(value) {
                Ok(text) => Ok((Value::S(text), length)),
                Err(error) => Err(error.utf8_error().valid_up_to()),
            }
        }
    }
}

fn split_terminated(bytes: &[u8]) -> Result<(Vec<u8>, usize), usize> {
    let mut value = Vec::new();
    let mut offset = 0;
    while let Some(byte) = bytes.get(offset) {
        if *byte != ZERO {
            value.push(*byte);
            offset += 1;
            continue;
        }
        match bytes.get(offset + 1) {
            Some(&ESCAPED) => value.push(ZERO),
            Some(&END) => return Ok((value, offset + 2)),
            Some(_) | None => return Err(offset),
        }
        offset += 2;
    }
    Err(offset)
}
