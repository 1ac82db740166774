//! A trace: requests that somebody has recorded, each with its time.
//!
//! One JSON object a line, ordered by time; empty lines and those that begin with `#` are skipped:
//!
//! ```text
//! {"at_us": 0, "op": "put", "key": "user17", "bytes": 300}
//! {"at_us": 1500, "op": "get", "key": "user17"}
//! {"at_us": 1500, "op": "scan", "key": 4, "items": 20}
//! ```
//!
//! `at_us`: microseconds from the beginning. `op`: put, insert, get, get-eventual, update, delete or scan.
//! `key`: a text, or a number, which is the key of that number of any other workload. `bytes` of the item
//! that a put or an insert carries, 1024 unless said. `items` that a scan asks for, 100 unless said.

use crate::keys::{KeysBy, Share};
use crate::sizes::Sizes;
use crate::workload::{Kind, Operation, Workload, key_name};
use evenkeel_wire::limits::{ITEM_BYTES_MAX, PARTITION_KEY_BYTES_MAX};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::Duration;
use thiserror::Error;

/// Why a trace cannot be used.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("the trace cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {fault}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        fault: LineFault,
    },
    /// It holds no request.
    #[error("the trace holds no request")]
    Empty,
}

/// What is wrong with a line of a trace.
#[derive(Debug, Error)]
pub enum LineFault {
    /// It is no such JSON object.
    #[error("{0}")]
    Json(serde_json::Error),
    /// It is earlier than the line before it.
    #[error("at_us is {got}, and the line before has {before}; sort the trace by time")]
    Order {
        /// Its time.
        got: u64,
        /// That of the line before.
        before: u64,
    },
    /// Its key is empty or too long.
    #[error("the key has {got} bytes; a key has 1 to {PARTITION_KEY_BYTES_MAX}")]
    Key {
        /// Bytes of the key.
        got: usize,
    },
    /// Its item would be too large.
    #[error("an item of {got} bytes is over the limit of {ITEM_BYTES_MAX}")]
    Item {
        /// Bytes of the item.
        got: u32,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at_us: u64,
    op: Kind,
    key: LineKey,
    bytes: Option<u32>,
    items: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LineKey {
    Number(u64),
    Name(String),
}

/// A request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it is due, from the beginning.
    pub at: Duration,
    /// What it does; its key is the place of the name among [`Trace::keys`].
    pub operation: Operation,
}

/// Requests, ordered by time.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The requests.
    pub requests: Vec<Recorded>,
    /// The names of their keys.
    pub keys: Vec<String>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn read(input: impl BufRead) -> Result<Self, TraceError> {
        let (mut trace, mut places, mut before) = (Self::default(), BTreeMap::new(), 0);
        for (index, text) in input.lines().enumerate() {
            let text = text?;
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let fault = |fault| TraceError::Line { line: index + 1, fault };
            let line: Line = serde_json::from_str(&text).map_err(|error| fault(LineFault::Json(error)))?;
            if line.at_us < before {
                return Err(fault(LineFault::Order { got: line.at_us, before }));
            }
            before = line.at_us;
            let (name, operation) = line.operation().map_err(fault)?;
            let key = *places.entry(name).or_insert_with_key(|name| {
                trace.keys.push(name.clone());
                trace.keys.len() as u64 - 1
            });
            let at = Duration::from_micros(line.at_us);
            trace.requests.push(Recorded { at, operation: Operation { key, ..operation } });
        }
        if trace.requests.is_empty() { Err(TraceError::Empty) } else { Ok(trace) }
    }

    /// The requests of one load thread, in order: all of a key belong to the same.
    #[must_use]
    pub fn share(&self, share: Share) -> Vec<Recorded> {
        let ours =
            |recorded: &&Recorded| recorded.operation.key % share.threads as u64 == share.thread as u64;
        self.requests.iter().filter(ours).copied().collect()
    }

    /// The trace as a workload: its operations, each with its share rounded to percent, and at least one.
    #[must_use]
    pub fn workload(&self, name: &str) -> Workload {
        let mut counts = BTreeMap::new();
        for recorded in &self.requests {
            *counts.entry(recorded.operation.kind).or_insert(0_usize) += 1;
        }
        let percent = |count: usize| ((count * 200 / self.requests.len()).div_ceil(2) as u64).max(1);
        Workload {
            name: name.to_owned(),
            mix: counts.into_iter().map(|(kind, count)| (kind, percent(count))).collect(),
            keys_by: KeysBy::Uniform,
            sizes: Sizes::Fixed(0),
            scan_items: (1, 1),
        }
    }

    /// When the last request is due.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.requests.last().map_or(Duration::ZERO, |recorded| recorded.at)
    }
}

impl Line {
    /// What it does, to which key; the operation's own key is not set yet.
    fn operation(&self) -> Result<(String, Operation), LineFault> {
        let name = match &self.key {
            LineKey::Number(number) => key_name(*number),
            LineKey::Name(name) => name.clone(),
        };
        if name.is_empty() || name.len() > PARTITION_KEY_BYTES_MAX {
            return Err(LineFault::Key { got: name.len() });
        }
        let bytes = if self.op.carries_item() { self.bytes.unwrap_or(1024) } else { 0 };
        if bytes as usize + name.len() > ITEM_BYTES_MAX - 64 {
            return Err(LineFault::Item { got: bytes });
        }
        let items = if self.op == Kind::Scan { self.items.unwrap_or(100).max(1) } else { 0 };
        Ok((name, Operation { kind: self.op, key: 0, bytes, items }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, TraceError> {
        Trace::read(text.as_bytes())
    }

    #[test]
    fn requests_keep_their_order_their_times_and_their_keys() {
        let text = "# at noon\n\
                    {\"at_us\": 0, \"op\": \"put\", \"key\": \"b\", \"bytes\": 300}\n\n\
                    {\"at_us\": 1500, \"op\": \"get\", \"key\": \"a\"}\n\
                    {\"at_us\": 1500, \"op\": \"scan\", \"key\": 4, \"items\": 20}\n\
                    {\"at_us\": 1600, \"op\": \"get-eventual\", \"key\": \"b\"}\n";
        let trace = read(text).unwrap();
        let seen: Vec<(u128, Kind, &str, u32, u32)> = trace
            .requests
            .iter()
            .map(|Recorded { at, operation: Operation { kind, key, bytes, items } }| {
                (at.as_micros(), *kind, trace.keys[*key as usize].as_str(), *bytes, *items)
            })
            .collect();
        let expected = [
            (0, Kind::Put, "b", 300, 0),
            (1500, Kind::Get, "a", 0, 0),
            (1500, Kind::Scan, "user000000000004", 0, 20),
            (1600, Kind::GetEventual, "b", 0, 0),
        ];
        assert_eq!(seen, expected);
        let shares: Vec<Vec<Recorded>> =
            (0..2).map(|thread| trace.share(Share { thread, threads: 2 })).collect();
        assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(trace.lasts(), Duration::from_micros(1600));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let good = "{\"at_us\": 9, \"op\": \"get\", \"key\": \"a\"}";
        for (line, words) in [
            ("{\"at_us\": 8, \"op\": \"get\", \"key\": \"a\"}", "sort the trace"),
            ("{\"at_us\": 9, \"op\": \"fetch\", \"key\": \"a\"}", "unknown variant `fetch`"),
            ("{\"at_us\": 9, \"op\": \"get\"}", "missing field `key`"),
            ("{\"at_us\": 9, \"op\": \"get\", \"key\": \"\"}", "0 bytes"),
            ("{\"at_us\": 9, \"op\": \"get\", \"key\": \"a\", \"size\": 3}", "unknown field `size`"),
            ("{\"at_us\": 9, \"op\": \"put\", \"key\": \"a\", \"bytes\": 500000}", "over the limit"),
            ("get a", "expected"),
        ] {
            let error = read(&format!("{good}\n{line}\n")).unwrap_err();
            assert!(matches!(error, TraceError::Line { line: 2, .. }), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(matches!(read("# nothing\n"), Err(TraceError::Empty)));
    }
}
