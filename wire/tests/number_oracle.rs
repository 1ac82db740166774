//! Numbers against an independent implementation of big decimals: order, text and arithmetic.

use bigdecimal::{BigDecimal, Zero};
use evenkeel_wire::item::{NUMBER_EXPONENT_MAX, NUMBER_EXPONENT_MIN, Number, NumberError};
use evenkeel_wire::limits::NUMBER_DIGITS_MAX;
use proptest::prelude::*;

/// A text that is a number in range, in many shapes.
fn number_text() -> impl Strategy<Value = String> {
    let digits =
        prop_oneof![Just("0".to_owned()), "[0-9]{1,5}", "[0-9]{1,38}", "[19]0{0,20}[0-9]{1,3}", "9{1,38}"];
    let exponent = prop_oneof![Just(0), -5..5, -40..40, -170..130];
    ("[-+]?", digits, 0..38_usize, exponent).prop_filter_map("in range", |(sign, digits, point, exponent)| {
        let (integer, fraction) = digits.split_at(point.min(digits.len()));
        let text = match (fraction.is_empty(), exponent) {
            (true, 0) => format!("{sign}{integer}"),
            (true, _) => format!("{sign}{integer}e{exponent}"),
            (false, _) => format!("{sign}{integer}.{fraction}E{exponent:+}"),
        };
        text.parse::<Number>().ok().map(|_| text)
    })
}

/// Two numbers that often share digits and magnitude, so that sums carry, cancel and stay exact.
fn number_texts() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        (number_text(), number_text()),
        ("9{30,38}", "[1-9][0-9]{0,37}", "-?", "-?", 80..97_i32, -40..10_i32)
            .prop_map(|(left, right, left_sign, right_sign, exponent, distance)| {
                (
                    format!("{left_sign}{left}e{exponent}"),
                    format!("{right_sign}{right}e{}", exponent + distance),
                )
            })
            .prop_filter("in range", |(left, right)| {
                left.parse::<Number>().is_ok() && right.parse::<Number>().is_ok()
            }),
        ("[1-9][0-9]{0,37}", "[1-9][0-9]{0,37}", "-?", "-?", -60..60_i32, -3..3_i32).prop_map(
            |(left, right, left_sign, right_sign, exponent, distance)| {
                (
                    format!("{left_sign}{left}e{exponent}"),
                    format!("{right_sign}{right}e{}", exponent + distance),
                )
            }
        ),
    ]
}

fn oracle(text: &str) -> BigDecimal {
    text.parse().expect("the oracle reads what we read")
}

/// What a number must be if it is exactly this value.
fn expected(value: &BigDecimal) -> Result<Number, NumberError> {
    if value.is_zero() {
        return Ok(Number::zero());
    }
    let value = value.normalized();
    let (_, scale) = value.as_bigint_and_exponent();
    let exponent = i64::try_from(value.digits()).expect("few digits") - 1 - scale;
    if exponent > i64::from(NUMBER_EXPONENT_MAX) {
        Err(NumberError::Overflow { exponent_end: NUMBER_EXPONENT_MAX + 1 })
    } else if exponent < i64::from(NUMBER_EXPONENT_MIN) {
        Err(NumberError::Underflow { exponent_min: NUMBER_EXPONENT_MIN })
    } else if value.digits() > NUMBER_DIGITS_MAX as u64 {
        Err(NumberError::TooManyDigits { digits_max: NUMBER_DIGITS_MAX })
    } else {
        Ok(value.to_string().parse().expect("the oracle's text is in range"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn order_of_bytes_is_order_of_values((left, right) in number_texts()) {
        let numbers: [Number; 2] = [left.parse().expect("a number"), right.parse().expect("a number")];
        let order = oracle(&left).cmp(&oracle(&right));
        prop_assert_eq!(numbers[0].encoded().cmp(numbers[1].encoded()), order);
        prop_assert_eq!(numbers[0].cmp(&numbers[1]), order);
        if order.is_ne() {
            prop_assert!(!numbers[0].encoded().starts_with(numbers[1].encoded()), "self-delimiting");
        }
    }

    #[test]
    fn text_and_bytes_come_back_exactly(text in number_text()) {
        let number: Number = text.parse().expect("a number");
        prop_assert_eq!(oracle(&number.to_string()), oracle(&text));
        prop_assert_eq!(&number.to_string().parse::<Number>(), &Ok(number.clone()));
        prop_assert_eq!(&Number::from_encoded(number.encoded()), &Ok(number.clone()));
        prop_assert_eq!(oracle(&number.negated().to_string()), -oracle(&text));
    }

    #[test]
    fn sums_and_differences_are_exact_or_refused((left, right) in number_texts()) {
        let numbers: [Number; 2] = [left.parse().expect("a number"), right.parse().expect("a number")];
        let sum = oracle(&left) + oracle(&right);
        let difference = oracle(&left) - oracle(&right);
        prop_assert_eq!(numbers[0].checked_add(&numbers[1]), expected(&sum), "{} + {}", left, right);
        prop_assert_eq!(numbers[0].checked_sub(&numbers[1]), expected(&difference), "{} - {}", left, right);
    }

    #[test]
    fn integers_agree_with_the_machine(left: i64, right: i64) {
        let sum = Number::from(left).checked_add(&Number::from(right)).expect("twenty digits");
        prop_assert_eq!(sum.to_string(), (i128::from(left) + i128::from(right)).to_string());
        prop_assert_eq!(sum.to_i64(), left.checked_add(right));
        prop_assert_eq!(Number::from(left).cmp(&Number::from(right)), left.cmp(&right));
    }

    #[test]
    fn any_text_is_a_number_or_an_error(text in "[-+.0-9eE_ a]{0,12}") {
        let read = text.parse::<Number>();
        let reference = text.parse::<BigDecimal>().ok();
        if let (Ok(number), Some(value)) = (&read, &reference) {
            prop_assert_eq!(&expected(value), &Ok(number.clone()));
        }
    }

    #[test]
    fn any_bytes_are_one_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
        if let Ok(number) = Number::from_encoded(&bytes) {
            prop_assert_eq!(number.encoded(), &bytes[..]);
            prop_assert_eq!(number.to_string().parse::<Number>(), Ok(number));
        }
    }

    #[test]
    fn any_mutated_encoding_is_one_number_or_an_error(text in number_text(), place in 0..22_usize, byte: u8) {
        let number: Number = text.parse().expect("a number");
        let mut bytes = number.encoded().to_vec();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(other) = Number::from_encoded(&bytes) {
            prop_assert_eq!(other.encoded(), &bytes[..]);
            let canonical: Number = other.to_string().parse().expect("what was written is read");
            prop_assert_eq!(canonical.encoded(), &bytes[..]);
        }
    }
}
