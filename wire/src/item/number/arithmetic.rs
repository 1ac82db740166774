//! Exact sums, differences and integers. Nothing here rounds.

use super::{Decimal, Number, NumberError};
use crate::limits::NUMBER_DIGITS_MAX;
use arrayvec::{ArrayString, ArrayVec};
use fastnum::decimal::{Context, Sign};
use fastnum::{D256, U256};
use std::fmt::Write as _;

/// Places from the highest digit of two numbers to the lowest beyond which their digits neither meet nor
/// touch, so that their sum has more than 38 and is not near the end of the range.
const SUM_PLACES_MAX: i32 = 2 * NUMBER_DIGITS_MAX as i32;

/// Decimal digits of the largest 256-bit integer.
const U256_DIGITS: usize = 78;

const _: () = assert!(SUM_PLACES_MAX + 1 < U256_DIGITS as i32);

impl Number {
    /// The exact sum.
    ///
    /// # Errors
    /// When it has more than 38 significant digits or is out of range.
    pub fn checked_add(&self, other: &Self) -> Result<Self, NumberError> {
        if self.is_zero() {
            return Ok(other.clone());
        }
        if other.is_zero() {
            return Ok(self.clone());
        }
        sum(&self.to_decimal(), &other.to_decimal())
    }

    /// The exact difference.
    ///
    /// # Errors
    /// When it has more than 38 significant digits or is out of range.
    pub fn checked_sub(&self, other: &Self) -> Result<Self, NumberError> {
        self.checked_add(&other.negated())
    }

    /// The number of the same magnitude and the other sign. The range is symmetric, so there always is one.
    #[must_use]
    pub fn negated(&self) -> Self {
        let decimal = self.to_decimal();
        Self::from_digits(!decimal.negative, i64::from(decimal.exponent), &decimal.digits)
            .expect("a number's negation is in range")
    }

    /// This number as an `i64`, if it is an integer in that range.
    #[must_use]
    pub fn to_i64(&self) -> Option<i64> {
        self.to_i128().and_then(|value| value.try_into().ok())
    }

    /// This number as a `u64`, if it is an integer in that range.
    #[must_use]
    pub fn to_u64(&self) -> Option<u64> {
        self.to_i128().and_then(|value| value.try_into().ok())
    }

    /// This number as an `i128`, if it is an integer of at most twenty digits.
    fn to_i128(&self) -> Option<i128> {
        const EXPONENT_MAX: i32 = 19;
        let decimal = self.to_decimal();
        if decimal.digits.is_empty() {
            return Some(0);
        }
        let last_place = decimal.last_place();
        if last_place < 0 || decimal.exponent > EXPONENT_MAX {
            return None;
        }
        let magnitude =
            i128::try_from(decimal.coefficient()).ok()? * 10_i128.pow(last_place.try_into().ok()?);
        Some(if decimal.negative { -magnitude } else { magnitude })
    }
}

impl Decimal {
    /// The power of ten of the last digit.
    fn last_place(&self) -> i32 {
        self.exponent + 1 - i32::try_from(self.digits.len()).expect("at most 38 digits")
    }

    /// The digits as one integer: 38 digits fit, since 10^38 is below 2^127.
    fn coefficient(&self) -> u128 {
        self.digits.iter().fold(0, |value, digit| value * 10 + u128::from(*digit))
    }

    fn to_fastnum(&self) -> D256 {
        let coefficient = U256::from_u128(self.coefficient()).expect("256 bits hold 128");
        let sign = if self.negative { Sign::Minus } else { Sign::Plus };
        D256::from_parts(coefficient, self.last_place(), sign, Context::default().without_traps())
    }
}

fn sum(left: &Decimal, right: &Decimal) -> Result<Number, NumberError> {
    let highest = left.exponent.max(right.exponent);
    let lowest = left.last_place().min(right.last_place());
    if highest - lowest + 1 > SUM_PLACES_MAX {
        return Err(NumberError::TooManyDigits { digits_max: NUMBER_DIGITS_MAX });
    }
    let sum = left.to_fastnum() + right.to_fastnum();
    // With so few places the coefficients, brought to one scale, and their sum are below 2^256.
    assert!(!sum.is_op_inexact() && !sum.is_op_rounded(), "a sum of {SUM_PLACES_MAX} places was rounded");
    let mut text = ArrayString::<U256_DIGITS>::new();
    write!(text, "{}", sum.digits()).expect("a 256-bit integer has at most 78 digits");
    let digits: ArrayVec<u8, U256_DIGITS> = text.bytes().map(|byte| byte - b'0').collect();
    let last_place = -i64::from(sum.fractional_digits_count());
    let exponent = last_place + i64::try_from(digits.len()).expect("at most 78 digits") - 1;
    Number::from_digits(sum.sign() == Sign::Minus, exponent, &digits)
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::from_integer(false, value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::from_integer(value < 0, value.unsigned_abs())
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Self {
        Self::from(u64::from(value))
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Self {
        Self::from(i64::from(value))
    }
}

impl Number {
    fn from_integer(negative: bool, magnitude: u64) -> Self {
        const U64_DIGITS: usize = 20;
        let mut digits = [0_u8; U64_DIGITS];
        let mut rest = magnitude;
        for digit in digits.iter_mut().rev() {
            *digit = u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        let exponent = i64::try_from(U64_DIGITS).expect("twenty") - 1;
        Self::from_digits(negative, exponent, &digits).expect("twenty digits are in range")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().expect("a number")
    }

    fn check_sum(left: &str, right: &str, sum: Result<&str, NumberError>) {
        let sum = sum.map(number);
        assert_eq!(number(left).checked_add(&number(right)), sum, "{left} + {right}");
        assert_eq!(number(right).checked_add(&number(left)), sum, "{right} + {left}");
        assert_eq!(number(left).checked_sub(&number(right).negated()), sum, "{left} - -{right}");
    }

    #[test]
    fn sums_are_exact_or_refused() {
        let digits = Err(NumberError::TooManyDigits { digits_max: 38 });
        check_sum("0", "-1.5", Ok("-1.5"));
        check_sum("0.1", "0.2", Ok("0.3"));
        check_sum("1", "-1", Ok("0"));
        check_sum("99", "1", Ok("100"));
        check_sum("1e37", "1", Ok("10000000000000000000000000000000000001"));
        check_sum("1e38", "1", digits);
        check_sum("1e125", "1e-130", digits);
        check_sum("1e125", "-1e125", Ok("0"));
        check_sum("1", "-0.99999999999999999999999999999999999999", Ok("1e-38"));
        check_sum("10", "-0.99999999999999999999999999999999999999", digits);
        check_sum("9e125", "1e125", Err(NumberError::Overflow { exponent_end: 126 }));
        check_sum("1.1e-130", "-1e-130", Err(NumberError::Underflow { exponent_min: -130 }));
    }

    #[test]
    fn integers_come_and_go_exactly() {
        for value in [0, 1, -1, 10, 1_000_000, i64::MAX, i64::MIN] {
            let number = Number::from(value);
            assert_eq!(number.to_string(), value.to_string());
            assert_eq!(number.to_i64(), Some(value));
        }
        assert_eq!(Number::from(u64::MAX).to_u64(), Some(u64::MAX));
        assert_eq!(Number::from(u64::MAX).to_i64(), None);
        assert_eq!(Number::from(-1).to_u64(), None);
        assert_eq!(number("1.5").to_i64(), None);
        assert_eq!(number("1e20").to_u64(), None);
        assert_eq!(number("1e125").to_i64(), None);
    }
}
