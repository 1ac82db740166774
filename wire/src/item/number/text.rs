//! A number as text: the one grammar that is read, and the one form that is written.
//!
//! ```text
//!   number    [+ or -] ( digits [ . [digits] ] or . digits ) [ e or E [+ or -] digits ]
//! ```
//!
//! Written is the plain form when it is at most [`PLAIN_TEXT_BYTES_MAX`] characters without the sign, else
//! the scientific form (`1.5E100`). Reading what was written gives the same number.

use super::{Decimal, NUMBER_TEXT_BYTES_MAX, Number, NumberError};
use crate::limits::NUMBER_DIGITS_MAX;
use arrayvec::ArrayVec;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Longest plain form, characters: wide enough that `0.` and 38 digits are written plainly.
const PLAIN_TEXT_BYTES_MAX: usize = NUMBER_DIGITS_MAX + 2;

impl FromStr for Number {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        if text.len() > NUMBER_TEXT_BYTES_MAX {
            return Err(NumberError::TextTooLong { bytes: text.len(), bytes_max: NUMBER_TEXT_BYTES_MAX });
        }
        let mut reader = Reader { text, position: 0 };
        let negative = reader.sign();
        let mut digits = ArrayVec::<u8, NUMBER_TEXT_BYTES_MAX>::new();
        reader.digits(|digit| digits.push(digit));
        let integer_digits = digits.len();
        if reader.take(b".") {
            reader.digits(|digit| digits.push(digit));
        }
        if digits.is_empty() {
            return Err(reader.unexpected());
        }
        let scale = if reader.take(b"eE") { reader.exponent()? } else { 0 };
        if reader.peek().is_some() {
            return Err(reader.unexpected());
        }
        let integer_digits = i64::try_from(integer_digits).expect("bounded by the text's length");
        Self::from_digits(negative, scale.saturating_add(integer_digits - 1), &digits)
    }
}

/// Reads a text byte by byte. Every byte that it takes is ASCII.
struct Reader<'a> {
    text: &'a str,
    position: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn take(&mut self, wanted: &[u8]) -> bool {
        let found = self.peek().is_some_and(|byte| wanted.contains(&byte));
        self.position += usize::from(found);
        found
    }

    /// Whether there was a minus; a plus is passed over.
    fn sign(&mut self) -> bool {
        let negative = self.take(b"-");
        if !negative {
            self.take(b"+");
        }
        negative
    }

    fn digits(&mut self, mut each: impl FnMut(u8)) {
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            each(byte - b'0');
            self.position += 1;
        }
    }

    /// The digits after `e`. What is out of any number's range saturates, since zero may have any exponent.
    fn exponent(&mut self) -> Result<i64, NumberError> {
        let negative = self.sign();
        let start = self.position;
        let mut value = 0_i64;
        self.digits(|digit| value = value.saturating_mul(10).saturating_add(i64::from(digit)));
        if self.position == start {
            return Err(self.unexpected());
        }
        Ok(if negative { -value } else { value })
    }

    fn unexpected(&self) -> NumberError {
        match self.text.get(self.position..).and_then(|rest| rest.chars().next()) {
            Some(found) => NumberError::Unexpected { position: self.position, found },
            None => NumberError::DigitMissing { position: self.position },
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimal = self.to_decimal();
        if decimal.digits.is_empty() {
            return f.write_char('0');
        }
        if decimal.negative {
            f.write_char('-')?;
        }
        if plain_length(&decimal) <= PLAIN_TEXT_BYTES_MAX {
            write_plain(f, &decimal)
        } else {
            write_scientific(f, &decimal)
        }
    }
}

/// Digits before the point, in the plain form; zero for a fraction.
fn integer_length(decimal: &Decimal) -> usize {
    usize::try_from(decimal.exponent + 1).unwrap_or(0)
}

/// Zeros between the point and the first digit, in the plain form.
fn leading_zeros(decimal: &Decimal) -> usize {
    usize::try_from(-1 - decimal.exponent).unwrap_or(0)
}

fn plain_length(decimal: &Decimal) -> usize {
    let integer = integer_length(decimal);
    let digits = decimal.digits.len();
    if integer == 0 {
        2 + leading_zeros(decimal) + digits
    } else if digits <= integer {
        integer
    } else {
        digits + 1
    }
}

fn write_plain(f: &mut fmt::Formatter<'_>, decimal: &Decimal) -> fmt::Result {
    let integer = integer_length(decimal);
    for place in 0..integer {
        write_digit(f, decimal.digits.get(place).copied().unwrap_or(0))?;
    }
    if integer == 0 {
        f.write_char('0')?;
    }
    if decimal.digits.len() > integer {
        f.write_char('.')?;
        for _ in 0..leading_zeros(decimal) {
            f.write_char('0')?;
        }
        for digit in &decimal.digits[integer..] {
            write_digit(f, *digit)?;
        }
    }
    Ok(())
}

fn write_scientific(f: &mut fmt::Formatter<'_>, decimal: &Decimal) -> fmt::Result {
    for (place, digit) in decimal.digits.iter().enumerate() {
        if place == 1 {
            f.write_char('.')?;
        }
        write_digit(f, *digit)?;
    }
    write!(f, "E{}", decimal.exponent)
}

fn write_digit(f: &mut fmt::Formatter<'_>, digit: u8) -> fmt::Result {
    f.write_char(char::from(b'0' + digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, written: &str) {
        let number: Number = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(number.to_string(), written);
        assert_eq!(written.parse(), Ok(number));
    }

    #[test]
    fn numbers_are_written_plainly_while_that_is_short() {
        check("0", "0");
        check("-0.0", "0");
        check("1e0", "1");
        check("-1200e-2", "-12");
        check("0.5", "0.5");
        check("12.50", "12.5");
        check("1e39", "1000000000000000000000000000000000000000");
        check("1e40", "1E40");
        check("1.5e100", "1.5E100");
        check("1e-38", "0.00000000000000000000000000000000000001");
        check("-1e-39", "-1E-39");
        check("0.12345678901234567890123456789012345678", "0.12345678901234567890123456789012345678");
        check("9.9999999999999999999999999999999999999e125", "9.9999999999999999999999999999999999999E125");
    }

    #[test]
    fn what_is_not_a_number_is_refused_where_it_stops_being_one() {
        let unexpected = |position, found| NumberError::Unexpected { position, found };
        let missing = |position| NumberError::DigitMissing { position };
        for (text, error) in [
            ("", missing(0)),
            ("-", missing(1)),
            (".", missing(1)),
            ("1e", missing(2)),
            ("1e-", missing(3)),
            (" 1", unexpected(0, ' ')),
            ("1 ", unexpected(1, ' ')),
            ("--1", unexpected(1, '-')),
            ("1.2.3", unexpected(3, '.')),
            ("NaN", unexpected(0, 'N')),
            ("Infinity", unexpected(0, 'I')),
            ("0x10", unexpected(1, 'x')),
            ("1_000", unexpected(1, '_')),
            ("1,5", unexpected(1, ',')),
            ("1e5.5", unexpected(3, '.')),
            ("\u{663}", unexpected(0, '\u{663}')),
            ("1\u{e9}", unexpected(1, '\u{e9}')),
        ] {
            assert_eq!(text.parse::<Number>(), Err(error), "{text:?}");
        }
        let long = "0".repeat(NUMBER_TEXT_BYTES_MAX + 1);
        assert_eq!(long.parse::<Number>(), Err(NumberError::TextTooLong { bytes: 513, bytes_max: 512 }));
    }

    #[test]
    fn range_and_precision_have_sharp_ends() {
        let parse = |text: &str| text.parse::<Number>();
        let digits = NumberError::TooManyDigits { digits_max: 38 };
        assert!(parse(&"9".repeat(38)).is_ok());
        assert_eq!(parse(&"9".repeat(39)), Err(digits));
        assert!(parse(&format!("{}0", "9".repeat(38))).is_ok(), "trailing zeros are not significant");
        assert_eq!(parse("1e126"), Err(NumberError::Overflow { exponent_end: 126 }));
        assert_eq!(parse("-1e99999999999999999999"), Err(NumberError::Overflow { exponent_end: 126 }));
        assert_eq!(parse("9e-131"), Err(NumberError::Underflow { exponent_min: -130 }));
        assert_eq!(parse("1e-99999999999999999999"), Err(NumberError::Underflow { exponent_min: -130 }));
        assert!(parse("0.0001e129").is_ok());
    }
}
