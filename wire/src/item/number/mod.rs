//! Numbers: exact decimals, held as the bytes that order them.
//!
//! A [`Number`] has at most 38 significant digits and is zero or of magnitude 1e-130 to 9.99…e125 (developer
//! guide, data types). It is kept in one form only, its key encoding, so that equality, order and hash are
//! those of bytes and a key needs no conversion. `1`, `1.0` and `100E-2` are one number; negative zero is
//! zero.
//!
//! # Encoding
//!
//! A number other than zero is `±d.ddd… × 10^e` with a first digit that is not zero, where `e`, from -130 to
//! 125, fits a byte exactly. Digits go in pairs from the first one; a last pair that lacks its second digit
//! gets a zero, and no trailing pair is zero.
//!
//! ```text
//!   zero       02
//!   positive   03 | e + 130 | pair + 1 | … | 00        pairs 0 to 99, so their bytes are 01 to 64 (hex)
//!   negative   01 | then the positive number's bytes from the exponent on, each complemented; ends with FF
//! ```
//!
//! Bytes compare as numbers do: sign first, then exponent, then digits, and the terminator is below every
//! pair (above, for negatives), so a number that another one continues comes first. The length is known from
//! the bytes themselves, so another field can follow without a separator. The shortest is one byte, the
//! longest 22.
//!
//! # Invariants
//!
//! * Every value of the type is canonical; [`Number::from_encoded`] accepts nothing else.
//! * No operation rounds: a result that does not fit is a [`NumberError`].
//!
//! Not here: floating point, division, formatting by locale.

mod arithmetic;
mod text;

use crate::limits::NUMBER_DIGITS_MAX;
use arrayvec::ArrayVec;
use rkyv::rancor::Fallible;
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, SerializeWith};
use rkyv::{Archive, Place, Serialize};
use std::fmt;

/// Longest encoding of a number, bytes: class, exponent, 19 pairs, terminator.
pub const NUMBER_BYTES_MAX: usize = 3 + NUMBER_DIGITS_MAX / 2;
/// Smallest scientific exponent of a number.
pub const NUMBER_EXPONENT_MIN: i32 = -130;
/// Largest scientific exponent of a number.
pub const NUMBER_EXPONENT_MAX: i32 = 125;
/// Longest text that is parsed as a number, bytes. The plain form of any number takes at most 170.
pub const NUMBER_TEXT_BYTES_MAX: usize = 512;

const CLASS_NEGATIVE: u8 = 0x01;
const CLASS_ZERO: u8 = 0x02;
const CLASS_POSITIVE: u8 = 0x03;
const TERMINATOR: u8 = 0x00;
/// Smallest first pair: the first digit is not zero.
const FIRST_PAIR_MIN: u8 = 10;

const _: () = assert!(NUMBER_DIGITS_MAX.is_multiple_of(2));
const _: () = assert!(NUMBER_EXPONENT_MAX - NUMBER_EXPONENT_MIN == u8::MAX as i32);

/// An exact decimal number; see the module for its range and its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize)]
pub struct Number(#[rkyv(with = EncodedBytes)] ArrayVec<u8, NUMBER_BYTES_MAX>);

/// Why something is not a [`Number`], or has none as its result. Every variant is deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The text is longer than any sensible way to write a number.
    #[error("a number is written in {bytes} bytes, of {bytes_max} at most")]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The text has something other than a decimal number at this place.
    #[error("a decimal number cannot have {found:?} at byte {position}")]
    Unexpected {
        /// Offset in the text, bytes.
        position: usize,
        /// What stands there.
        found: char,
    },
    /// The text ends before the number does: no digit, or no digit after the `E`.
    #[error("a decimal number ends without a digit at byte {position}")]
    DigitMissing {
        /// Offset in the text, bytes.
        position: usize,
    },
    /// The exact value has more significant digits than a number can hold.
    #[error("a number has at most {digits_max} significant digits")]
    TooManyDigits {
        /// The bound.
        digits_max: usize,
    },
    /// The magnitude is above the largest number's.
    #[error("a number's magnitude is below 1e{exponent_end}")]
    Overflow {
        /// The first power of ten out of range.
        exponent_end: i32,
    },
    /// The magnitude is not zero, but below the smallest number's.
    #[error("a number's magnitude is zero or at least 1e{exponent_min}")]
    Underflow {
        /// The last power of ten in range.
        exponent_min: i32,
    },
    /// The bytes are not the canonical encoding of a number.
    #[error("a number's encoding is broken at byte {offset}")]
    EncodingInvalid {
        /// Offset of the first byte that cannot be there.
        offset: usize,
    },
}

/// Digits (0 to 9, the first and last not zero) and the power of ten of the first. Zero has no digits.
struct Decimal {
    negative: bool,
    exponent: i32,
    digits: ArrayVec<u8, NUMBER_DIGITS_MAX>,
}

impl Number {
    /// Zero.
    #[must_use]
    pub fn zero() -> Self {
        let mut encoded = ArrayVec::new();
        encoded.push(CLASS_ZERO);
        Self(encoded)
    }

    /// The canonical bytes, which order as the numbers do.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// The number that exactly these bytes encode.
    ///
    /// # Errors
    /// [`NumberError::EncodingInvalid`] unless the bytes are canonical and nothing follows them.
    pub fn from_encoded(bytes: &[u8]) -> Result<Self, NumberError> {
        let (number, rest) = Self::split_encoded(bytes)?;
        if rest.is_empty() {
            Ok(number)
        } else {
            Err(NumberError::EncodingInvalid { offset: bytes.len() - rest.len() })
        }
    }

    /// The number that `bytes` begin with, and the bytes after it.
    ///
    /// # Errors
    /// [`NumberError::EncodingInvalid`] unless the bytes begin with a canonical encoding.
    pub fn split_encoded(bytes: &[u8]) -> Result<(Self, &[u8]), NumberError> {
        let length = encoded_length(bytes)?;
        let (encoded, rest) = bytes.split_at(length);
        // The length is bounded by `encoded_length`, so this collect cannot exceed the capacity.
        Ok((Self(encoded.iter().copied().collect()), rest))
    }

    /// Whether this is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0[0] == CLASS_ZERO
    }

    /// Whether this is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.0[0] == CLASS_NEGATIVE
    }

    /// The number that `digits` (0 to 9, the first with the weight `10^exponent`) spell.
    fn from_digits(negative: bool, exponent: i64, digits: &[u8]) -> Result<Self, NumberError> {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        let digits = &digits[leading..];
        let exponent = exponent.saturating_sub(i64::try_from(leading).unwrap_or(i64::MAX));
        let Some(last) = digits.iter().rposition(|digit| *digit != 0) else {
            return Ok(Self::zero());
        };
        let digits = &digits[..=last];
        if exponent > i64::from(NUMBER_EXPONENT_MAX) {
            return Err(NumberError::Overflow { exponent_end: NUMBER_EXPONENT_MAX + 1 });
        }
        let Ok(biased) = u8::try_from(exponent - i64::from(NUMBER_EXPONENT_MIN)) else {
            return Err(NumberError::Underflow { exponent_min: NUMBER_EXPONENT_MIN });
        };
        if digits.len() > NUMBER_DIGITS_MAX {
            return Err(NumberError::TooManyDigits { digits_max: NUMBER_DIGITS_MAX });
        }
        let mask = if negative { 0xFF } else { 0x00 };
        let mut encoded = ArrayVec::new();
        encoded.push(if negative { CLASS_NEGATIVE } else { CLASS_POSITIVE });
        encoded.push(biased ^ mask);
        for pair in digits.chunks(2) {
            let value = pair[0] * 10 + pair.get(1).copied().unwrap_or(0);
            encoded.push((value + 1) ^ mask);
        }
        encoded.push(TERMINATOR ^ mask);
        Ok(Self(encoded))
    }

    fn to_decimal(&self) -> Decimal {
        let mut decimal = Decimal { negative: self.is_negative(), exponent: 0, digits: ArrayVec::new() };
        if self.is_zero() {
            return decimal;
        }
        let mask = if decimal.negative { 0xFF } else { 0x00 };
        decimal.exponent = i32::from(self.0[1] ^ mask) + NUMBER_EXPONENT_MIN;
        for byte in &self.0[2..self.0.len() - 1] {
            let pair = (byte ^ mask) - 1;
            decimal.digits.push(pair / 10);
            decimal.digits.push(pair % 10);
        }
        if decimal.digits.last() == Some(&0) {
            decimal.digits.pop();
        }
        decimal
    }
}

/// Length of the canonical encoding that `bytes` begin with.
fn encoded_length(bytes: &[u8]) -> Result<usize, NumberError> {
    let mask = match bytes.first() {
        Some(&CLASS_ZERO) => return Ok(1),
        Some(&CLASS_POSITIVE) => 0x00,
        Some(&CLASS_NEGATIVE) => 0xFF,
        Some(_) | None => return Err(NumberError::EncodingInvalid { offset: 0 }),
    };
    if bytes.len() < 2 {
        return Err(NumberError::EncodingInvalid { offset: 1 });
    }
    let mut last_pair = None;
    for (offset, byte) in bytes.iter().enumerate().take(NUMBER_BYTES_MAX).skip(2) {
        let byte = byte ^ mask;
        if byte == TERMINATOR {
            return match last_pair {
                Some(0) | None => Err(NumberError::EncodingInvalid { offset }),
                Some(_) => Ok(offset + 1),
            };
        }
        let pair = byte - 1;
        if pair > 99 || (last_pair.is_none() && pair < FIRST_PAIR_MIN) {
            return Err(NumberError::EncodingInvalid { offset });
        }
        last_pair = Some(pair);
    }
    Err(NumberError::EncodingInvalid { offset: bytes.len().min(NUMBER_BYTES_MAX) })
}

impl Default for Number {
    fn default() -> Self {
        Self::zero()
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({self})")
    }
}

impl ArchivedNumber {
    /// The stored bytes. They are canonical in an item that was validated.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for ArchivedNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Number::from_encoded(self.encoded()) {
            Ok(number) => write!(f, "Number({number})"),
            Err(_) => write!(f, "Number(invalid {:02x?})", self.encoded()),
        }
    }
}

/// Archives a number's bytes as a vector of bytes, which rkyv knows how to check.
struct EncodedBytes;

impl ArchiveWith<ArrayVec<u8, NUMBER_BYTES_MAX>> for EncodedBytes {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve_with(
        field: &ArrayVec<u8, NUMBER_BYTES_MAX>,
        resolver: Self::Resolver,
        out: Place<Self::Archived>,
    ) {
        ArchivedVec::resolve_from_slice(field.as_slice(), resolver, out);
    }
}

impl<S> SerializeWith<ArrayVec<u8, NUMBER_BYTES_MAX>, S> for EncodedBytes
where
    S: Fallible + Allocator + Writer + ?Sized,
{
    fn serialize_with(
        field: &ArrayVec<u8, NUMBER_BYTES_MAX>,
        serializer: &mut S,
    ) -> Result<Self::Resolver, S::Error> {
        ArchivedVec::serialize_from_slice(field.as_slice(), serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().expect("a number")
    }

    /// Frozen: these bytes are in keys on disk.
    const GOLDEN: &[(&str, &[u8])] = &[
        (
            "-9.9999999999999999999999999999999999999e125",
            &[
                0x01, 0x00, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B,
                0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0x9B, 0xFF,
            ],
        ),
        ("-123", &[0x01, 0x7B, 0xF2, 0xE0, 0xFF]),
        ("-1", &[0x01, 0x7D, 0xF4, 0xFF]),
        ("-1e-130", &[0x01, 0xFF, 0xF4, 0xFF]),
        ("0", &[0x02]),
        ("1e-130", &[0x03, 0x00, 0x0B, 0x00]),
        ("0.001", &[0x03, 0x7F, 0x0B, 0x00]),
        ("1", &[0x03, 0x82, 0x0B, 0x00]),
        ("1.05", &[0x03, 0x82, 0x0B, 0x33, 0x00]),
        ("9", &[0x03, 0x82, 0x5B, 0x00]),
        ("10", &[0x03, 0x83, 0x0B, 0x00]),
        ("12.34", &[0x03, 0x83, 0x0D, 0x23, 0x00]),
        (
            "9.9999999999999999999999999999999999999e125",
            &[
                0x03, 0xFF, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x64,
                0x64, 0x64, 0x64, 0x64, 0x64, 0x64, 0x00,
            ],
        ),
    ];

    #[test]
    fn encoding_is_frozen_and_ascends() {
        for (text, bytes) in GOLDEN {
            assert_eq!(number(text).encoded(), *bytes, "{text}");
            assert_eq!(Number::from_encoded(bytes), Ok(number(text)));
        }
        assert!(GOLDEN.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn every_way_to_write_a_number_is_the_same_bytes() {
        for text in ["1", "+1", "1.", "1.000", "001", "100e-2", "0.01E2", ".1e+1"] {
            assert_eq!(number(text), number("1"), "{text}");
        }
        for text in ["0", "-0", "0.000", "-0e999999", "0e-999999"] {
            assert_eq!(number(text), Number::zero(), "{text}");
        }
    }

    #[test]
    fn noncanonical_bytes_are_refused_at_their_offset() {
        let offset = |bytes: &[u8]| match Number::from_encoded(bytes) {
            Err(NumberError::EncodingInvalid { offset }) => offset,
            other => panic!("{bytes:x?} gave {other:?}"),
        };
        assert_eq!(offset(&[]), 0);
        assert_eq!(offset(&[0x00]), 0);
        assert_eq!(offset(&[0x02, 0x00]), 1, "something follows zero");
        assert_eq!(offset(&[0x03]), 1, "no exponent");
        assert_eq!(offset(&[0x03, 0x82]), 2, "no digits, no terminator");
        assert_eq!(offset(&[0x03, 0x82, 0x00]), 2, "no digits");
        assert_eq!(offset(&[0x03, 0x82, 0x02, 0x00]), 2, "first digit is zero");
        assert_eq!(offset(&[0x03, 0x82, 0x65, 0x00]), 2, "a pair above 99");
        assert_eq!(offset(&[0x03, 0x82, 0x0B, 0x01, 0x00]), 4, "a trailing pair of zeros");
        assert_eq!(offset(&[0x03, 0x82, 0x0B]), 3, "no terminator");
        assert_eq!(offset(&[0x03, 0x82, 0x0B, 0x00, 0x00]), 4, "something follows");
        let mut long = vec![0x03, 0x82];
        long.extend([0x0B; 20]);
        long.push(0x00);
        assert_eq!(offset(&long), NUMBER_BYTES_MAX, "forty digits");
    }

    #[test]
    fn split_leaves_what_follows() {
        let mut bytes = number("-12.5").encoded().to_vec();
        bytes.extend([0xAA, 0xBB]);
        assert_eq!(Number::split_encoded(&bytes), Ok((number("-12.5"), &[0xAA, 0xBB][..])));
    }
}
