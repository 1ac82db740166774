//! RESP, as Redis speaks it: SET and GET, one at a time.

use crate::drive::{Answer, Protocol};
use evenkeel_bench::workload::Kind;
use std::io::Write;

/// A connection; there is nothing to remember.
pub(crate) struct Resp;

impl Protocol for Resp {
    fn ask(&mut self, kind: Kind, key: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let written = if kind.is_read() {
            write!(out, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())
        } else {
            write!(out, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len())
        };
        written.expect("memory takes it");
        if !kind.is_read() {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn answer(&mut self, input: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<Option<Answer>, String> {
        let Some(line) = line_of(input) else {
            return Ok(None);
        };
        let end = line.len() + 2;
        let (bytes, answer) = match line.split_first() {
            Some((b'+', _)) => (end, Answer::Done),
            Some((b'-', _)) => (end, Answer::Failed),
            Some((b'$', b"-1")) => (end, Answer::Missing),
            Some((b'$', digits)) => (end + number(digits)? + 2, Answer::Done),
            _ => return Err(format!("an answer begins with {:?}", String::from_utf8_lossy(line))),
        };
        if input.len() < bytes {
            return Ok(None);
        }
        input.drain(..bytes);
        Ok(Some(answer))
    }
}

/// What stands before the first line break.
pub(crate) fn line_of(input: &[u8]) -> Option<&[u8]> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    Some(&input[..end])
}

/// A length in decimal digits.
pub(crate) fn number(digits: &[u8]) -> Result<usize, String> {
    let text = String::from_utf8_lossy(digits);
    text.parse().map_err(|_| format!("{text:?} is no length"))
}
