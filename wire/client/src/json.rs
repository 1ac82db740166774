//! Items as DynamoDB JSON: `{"pk":{"S":"a"},"n":{"N":"1"}}`, one item a line.
//!
//! Every value is an object with one member, whose name is the type: S, N, B (base64), BOOL, NULL (true), SS,
//! NS, BS, L, M. Numbers are written as strings, so nothing is rounded on the way.
//!
//! # Invariants
//!
//! * Reading is exact: a name that is there twice, an element that is in a set twice, a value with two types
//!   or none are errors, and none is silently dropped. Every error names the attribute.
//! * Reading is bounded: nesting beyond what an item may have is refused where it begins.
//! * What is written is canonical: names and elements in order, numbers in their one form, no space. Reading
//!   it gives the same item.
//!
//! Not here: plain JSON without types, limits on size (the encoder's), files.

mod read;
mod write;

pub use read::parse_line;
pub use write::{append_json, to_json};

use evenkeel_wire::item::NumberError;

/// Why a text is not an item. `at` is the place, as a document path (`tags[3].name`); empty for the item
/// itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON, or not of the shape that an item has.
    #[error("{}: {message}", place(.at))]
    Json {
        /// The place.
        at: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A value names no type.
    #[error("{}: a value needs a type, as in {{\"S\":\"text\"}}", place(.at))]
    TypeMissing {
        /// The place.
        at: String,
    },
    /// A value names two types.
    #[error("{}: a value has one type, and here is {found:?} too", place(.at))]
    TypeTwice {
        /// The place.
        at: String,
        /// The second type.
        found: String,
    },
    /// A value names a type that there is not.
    #[error("{}: there is no type {found:?}, but S, N, B, BOOL, NULL, SS, NS, BS, L and M", place(.at))]
    TypeUnknown {
        /// The place.
        at: String,
        /// What it names.
        found: String,
    },
    /// A null that is not true.
    #[error("{}: NULL is written {{\"NULL\":true}}", place(.at))]
    NullNotTrue {
        /// The place.
        at: String,
    },
    /// A number that is none.
    #[error("{}: {error}", place(.at))]
    Number {
        /// The place.
        at: String,
        /// Why not.
        error: NumberError,
    },
    /// A byte string that is not base64.
    #[error("{}: a B is base64 with padding, and this is not: {message}", place(.at))]
    Base64 {
        /// The place.
        at: String,
        /// Why not.
        message: String,
    },
    /// A set without elements.
    #[error("{}: a set cannot be empty", place(.at))]
    SetEmpty {
        /// The place.
        at: String,
    },
    /// A set with an element that is there twice, maybe written in two ways.
    #[error("{}: an element is in this set twice", place(.at))]
    ElementTwice {
        /// The place.
        at: String,
    },
    /// A name is there twice.
    #[error("{}: this attribute is there twice", place(.at))]
    NameTwice {
        /// The place.
        at: String,
    },
    /// Lists and maps are nested too deeply.
    #[error("{}: values are nested more than {levels_max} levels deep", place(.at))]
    TooDeep {
        /// The place.
        at: String,
        /// The bound.
        levels_max: usize,
    },
}

fn place(at: &str) -> String {
    if at.is_empty() { "item".to_owned() } else { format!("attribute {at}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::item::{Item, Value};
    use proptest::prelude::*;

    fn check(json: &str, item: &Item, canonical: &str) {
        let read = parse_line(json).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&read, item);
        assert_eq!(to_json(&read), canonical);
        assert_eq!(parse_line(canonical), Ok(read));
    }

    #[test]
    fn every_type_is_read_and_written() {
        let json = concat!(
            r#"{ "s":{"S":"h\u00e9 \"\\\n\u0001"}, "n":{"N":"-1.50e1"}, "b":{"B":"AP8="},"#,
            r#" "yes":{"BOOL":true},"#,
            r#" "no":{"BOOL":false}, "null":{"NULL":true}, "ss":{"SS":["b","a"]}, "ns":{"NS":["10","9.0"]},"#,
            r#" "bs":{"BS":["Ag==","AQ=="]}, "l":{"L":[{"S":""},{"L":[]}]},"#,
            r#" "m":{"M":{"z":{"N":"0"},"a":{"M":{}}}} }"#
        );
        let item = Item::new()
            .with("s", "h\u{e9} \"\\\n\u{1}")
            .with("n", -15)
            .with("b", vec![0_u8, 0xFF])
            .with("yes", true)
            .with("no", false)
            .with("null", Value::Null)
            .with("ss", Value::string_set(["a", "b"]).expect("a set"))
            .with("ns", Value::number_set([9, 10]).expect("a set"))
            .with("bs", Value::binary_set([[1_u8], [2]]).expect("a set"))
            .with("l", vec![Value::from(""), Value::L(vec![])])
            .with("m", Item::new().with("a", Item::new()).with("z", 0));
        let canonical = concat!(
            r#"{"b":{"B":"AP8="},"bs":{"BS":["AQ==","Ag=="]},"l":{"L":[{"S":""},{"L":[]}]},"#,
            r#""m":{"M":{"a":{"M":{}},"z":{"N":"0"}}},"n":{"N":"-15"},"no":{"BOOL":false},"#,
            r#""ns":{"NS":["9","10"]},"#,
            r#""null":{"NULL":true},"s":{"S":"hé \"\\\n\u0001"},"ss":{"SS":["a","b"]},"yes":{"BOOL":true}}"#
        );
        check(json, &item, canonical);
        check("{}", &Item::new(), "{}");
    }

    #[test]
    fn a_package_of_a_distribution_comes_back_exactly() {
        let json = concat!(
            r#"{"section":{"S":"misc"},"package":{"S":"0xffff"},"size":{"N":"59232"},"#,
            r#""essential":{"BOOL":false},"#,
            r#""depends":{"L":[{"M":{"name":{"S":"libc6"},"constraint":{"S":">= 2.14"}}}]},"#,
            r#""tags":{"SS":["role::program","#,
            r#""hardware::usb"]},"sha256":{"B":"LFo1vEgwN5tWU2nMvKYIU11kV3+zJEhpoXy23o2b2n0="}}"#
        );
        let canonical = concat!(
            r#"{"depends":{"L":[{"M":{"constraint":{"S":">= 2.14"},"name":{"S":"libc6"}}}]},"#,
            r#""essential":{"BOOL":false},"#,
            r#""package":{"S":"0xffff"},"section":{"S":"misc"},"#,
            r#""sha256":{"B":"LFo1vEgwN5tWU2nMvKYIU11kV3+zJEhpoXy23o2b2n0="},"#,
            r#""size":{"N":"59232"},"tags":{"SS":["hardware::usb","role::program"]}}"#
        );
        assert_eq!(to_json(&parse_line(json).expect("an item")), canonical);
    }

    fn check_error(json: &str, text: &str) {
        let error = parse_line(json).expect_err(json);
        assert_eq!(error.to_string(), text, "{json}");
    }

    #[test]
    fn mistakes_are_told_with_the_attribute() {
        check_error(
            r#"{"a":{"S":"x"},"b":{"S":"y"},"a":{"N":"1"}}"#,
            "attribute a: this attribute is there twice",
        );
        check_error(
            r#"{"m":{"M":{"x":{"N":"1"},"x":{"N":"1"}}}}"#,
            "attribute m.x: this attribute is there twice",
        );
        check_error(r#"{"a":{}}"#, r#"attribute a: a value needs a type, as in {"S":"text"}"#);
        check_error(
            r#"{"a":{"S":"x","N":"1"}}"#,
            r#"attribute a: a value has one type, and here is "N" too"#,
        );
        check_error(
            r#"{"l":{"L":[{"S":"x"},{"s":"x"}]}}"#,
            r#"attribute l[1]: there is no type "s", but S, N, B, BOOL, NULL, SS, NS, BS, L and M"#,
        );
        check_error(r#"{"a":{"NULL":false}}"#, r#"attribute a: NULL is written {"NULL":true}"#);
        check_error(r#"{"a":{"N":"1x"}}"#, "attribute a: a decimal number cannot have 'x' at byte 1");
        check_error(
            r#"{"a":{"NS":["1",""]}}"#,
            "attribute a[1]: a decimal number ends without a digit at byte 0",
        );
        check_error(r#"{"a":{"NS":["1","1.0"]}}"#, "attribute a: an element is in this set twice");
        check_error(r#"{"a":{"SS":[]}}"#, "attribute a: a set cannot be empty");
        let padding = "attribute a: a B is base64 with padding, and this is not: ";
        let error = parse_line(r#"{"a":{"B":"AP8"}}"#).expect_err("no padding").to_string();
        assert!(error.starts_with(padding), "{error}");
    }

    #[test]
    fn what_has_another_shape_is_told_with_the_place() {
        let number = "invalid type: integer `1`, expected a string at line 1 column 11";
        check_error(r#"{"a":{"N":1}}"#, &format!("attribute a: {number}"));
        let value = r#"a value with its type, as in {"S":"text"}"#;
        let message = format!("attribute a: invalid type: string \"x\", expected {value} at line 1 column 8");
        check_error(r#"{"a":"x"}"#, &message);
        check_error("", "item: EOF while parsing a value at line 1 column 0");
        check_error("{} {}", "item: trailing characters at line 1 column 4");
        check_error(r#"{"a":{"L":[{"S":"x"}"#, "attribute a: EOF while parsing a list at line 1 column 20");
        check_error(
            "[]",
            "item: invalid type: sequence, expected an object of attributes at line 1 column 0",
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |lists: usize| {
            format!(r#"{{"a":{}{{"S":"x"}}{}}}"#, r#"{"L":["#.repeat(lists), "]}".repeat(lists))
        };
        assert!(parse_line(&nested(31)).is_ok());
        let too_deep = JsonError::TooDeep { at: format!("a{}", "[0]".repeat(32)), levels_max: 32 };
        assert_eq!(parse_line(&nested(32)), Err(too_deep.clone()));
        assert_eq!(parse_line(&nested(100_000)), Err(too_deep));
        assert!(parse_line(&"[".repeat(100_000)).is_err());
        assert!(parse_line(&r#"{"a":"#.repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_an_item_or_an_error(text in r#"([{}\[\]:,]|"[SNBLMa]"|"SS"|"NULL"|true|1| ){0,30}"#) {
            if let Ok(item) = parse_line(&text) {
                prop_assert_eq!(parse_line(&to_json(&item)), Ok(item));
            }
        }

        #[test]
        fn any_content_comes_back(name in ".{1,8}", text in ".{0,20}", bytes: Vec<u8>, number: i64) {
            let item = Item::new()
                .with("l", vec![Value::from(text.as_str()), Value::from(bytes), Value::from(number)])
                .with(name.as_str(), text);
            prop_assert_eq!(parse_line(&to_json(&item)), Ok(item));
        }
    }
}
