//! The client's own decoder: an item from DynamoDB JSON. What is read is written in the one canonical form,
//! which is read as the same item; and an item that JSON can say can be sent, unless it is over a limit.

use evenkeel_client::json::{parse_line, to_json};
use evenkeel_wire::item::{access_validated, encode};

/// A line of DynamoDB JSON.
pub(crate) fn json(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let item = match parse_line(text) {
        Ok(item) => item,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let canonical = to_json(&item);
    assert_eq!(parse_line(&canonical).as_ref(), Ok(&item));
    if let Ok(bytes) = encode(&item) {
        assert!(*access_validated(&bytes).expect("what was encoded is valid") == item);
    }
    true
}

/// Lines that are read.
pub(crate) fn lines() -> Vec<(String, Vec<u8>)> {
    let lines = [
        "{}",
        r#"{"s":{"S":"h\u00e9 \"\\\n\u0001"},"n":{"N":"-1.50e1"},"b":{"B":"AP8="},"yes":{"BOOL":true}}"#,
        r#"{"no":{"NULL":true},"ss":{"SS":["b","a"]},"ns":{"NS":["10","9.0"]},"bs":{"BS":["Ag==","AQ=="]}}"#,
        r#"{"l":{"L":[{"S":""},{"L":[]}]},"m":{"M":{"z":{"N":"0"},"a":{"M":{}}}}}"#,
    ];
    let named = |index| format!("json.{index}");
    lines.iter().enumerate().map(|(index, line)| (named(index), (*line).into())).collect()
}
