//! Golden bytes as text that a person can read and a diff can show: a file for each value, in `tests/frozen`.
//!
//! ```text
//!  Put, kind 16: 122 bytes
//!
//!  0000  6b 65 79 69 74 65 6d 04  00 00 00 00 00 00 00 01  |keyitem.........|
//! ```
//!
//! The first line says what the bytes are, and is frozen with them. A name is `decoder.value`: what stands
//! before the dot names the decoder that reads the bytes. With `UPDATE_FROZEN=1` in the environment the files
//! are written and not compared.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const LINE_BYTES: usize = 16;
/// What a person has to do who changed a format on purpose.
pub(crate) const ADVICE: &str = "A format that changes needs a new protocol version (frame::VERSION, or the \
    format number of what is stored) and a decision record in docs/decisions. If that is done, or the value \
    is new, write the file with UPDATE_FROZEN=1 and review the difference.";

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Golden {
    /// What the bytes are.
    pub(crate) title: String,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

/// The folder of the golden bytes of the crate that is in `manifest_folder`.
pub(crate) fn folder(manifest_folder: &str) -> PathBuf {
    Path::new(manifest_folder).join("tests/frozen")
}

/// Compares `bytes` with what is frozen under `name`. Returns the frozen ones, which are the same.
///
/// # Panics
/// With the name and the first difference, when they are not.
pub(crate) fn check(folder: &Path, name: &str, title: &str, bytes: &[u8]) -> Vec<u8> {
    let path = folder.join(format!("{name}.txt"));
    if env::var_os("UPDATE_FROZEN").is_some() {
        fs::write(&path, text(title, bytes)).expect("the folder of golden bytes can be written");
    }
    let frozen = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{name} ({title}) has no golden bytes in {path:?}: {error}. {ADVICE}")
    });
    let frozen = read(&frozen).unwrap_or_else(|line| panic!("{path:?}: line {line} is not one of a dump"));
    if let Some(offset) = first_difference(&frozen.bytes, bytes) {
        let [was, is] = [&frozen.bytes, bytes].map(|bytes| byte_at(bytes, offset));
        panic!(
            "the bytes of {name} ({title}) have changed: first difference at offset {offset} \
             (0x{offset:04x}), frozen {was}, now {is}. {ADVICE}"
        );
    }
    assert_eq!(frozen.title, title, "what the bytes of {name} are called has changed. {ADVICE}");
    frozen.bytes
}

/// All golden bytes of a folder, by name.
///
/// # Panics
/// When a file is none of ours.
pub(crate) fn all(folder: &Path) -> BTreeMap<String, Golden> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    files
        .map(|file| {
            let path = file.expect("the folder can be read").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("names are plain").to_owned();
            let text = fs::read_to_string(&path).expect("golden bytes are text");
            let golden =
                read(&text).unwrap_or_else(|line| panic!("{path:?}: line {line} is not one of a dump"));
            (name, golden)
        })
        .collect()
}

fn text(title: &str, bytes: &[u8]) -> String {
    let mut out = format!("{title}\n\n");
    for (index, line) in bytes.chunks(LINE_BYTES).enumerate() {
        write!(out, "{:04x} ", index * LINE_BYTES).expect("a String takes everything");
        for place in 0..LINE_BYTES {
            out.push_str(if place == LINE_BYTES / 2 { "  " } else { " " });
            match line.get(place) {
                Some(byte) => write!(out, "{byte:02x}").expect("a String takes everything"),
                None => out.push_str("  "),
            }
        }
        let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        writeln!(out, "  |{}|", line.iter().map(printable).collect::<String>())
            .expect("a String takes everything");
    }
    out
}

/// What a file says, or the number of the line that cannot be read.
fn read(text: &str) -> Result<Golden, usize> {
    let mut bytes = Vec::new();
    for (index, line) in text.lines().enumerate().skip(2) {
        read_line(line, &mut bytes).ok_or(index + 1)?;
    }
    Ok(Golden { title: text.lines().next().unwrap_or_default().to_owned(), bytes })
}

fn read_line(line: &str, bytes: &mut Vec<u8>) -> Option<()> {
    let (dump, _) = line.split_once('|')?;
    let mut words = dump.split_whitespace();
    if usize::from_str_radix(words.next()?, 16) != Ok(bytes.len()) {
        return None;
    }
    for word in words {
        bytes.push(u8::from_str_radix(word, 16).ok()?);
    }
    Some(())
}

/// The first offset at which two byte strings differ, if they do.
fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    let common = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    (common < left.len().max(right.len())).then_some(common)
}

fn byte_at(bytes: &[u8], offset: usize) -> String {
    bytes.get(offset).map_or("the end".to_owned(), |byte| format!("{byte:02x}"))
}
