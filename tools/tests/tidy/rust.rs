//! As much of Rust as the checks need: what is code, what is comment, which words stand where.

/// A source text twice, each time with everything else blanked, so that offsets and lines agree.
pub(crate) struct Source {
    /// Neither comments nor the contents of literals.
    pub(crate) code: String,
    /// Comments only.
    pub(crate) comments: String,
}

/// A word of code.
pub(crate) struct Word<'a> {
    pub(crate) text: &'a str,
    /// From 1.
    pub(crate) line: usize,
    /// Whether `::` stands on a side of it, so that it is a segment of a path.
    pub(crate) in_path: bool,
    /// The code behind it, blanks skipped.
    pub(crate) rest: &'a str,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let parts = parts(text.as_bytes());
        let keep = |wanted: Part| -> String {
            let bytes = text.bytes().zip(&parts);
            let bytes = bytes.map(|(byte, part)| if *part == wanted || byte == b'\n' { byte } else { b' ' });
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        };
        Self { code: keep(Part::Code), comments: keep(Part::Comment) }
    }

    /// Identifiers and keywords, in order.
    pub(crate) fn words(&self) -> impl Iterator<Item = Word<'_>> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let code = self.code.as_str();
        let mut at = 0;
        let mut line = 1;
        std::iter::from_fn(move || {
            let bytes = code.as_bytes();
            while at < bytes.len() && !is_word(bytes[at]) {
                line += usize::from(bytes[at] == b'\n');
                at += 1;
            }
            let start = at;
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            let rest = code[at..].trim_start();
            let in_path = code[..start].ends_with("::") || rest.starts_with("::");
            (start < at).then(|| Word { text: &code[start..at], line, in_path, rest })
        })
    }

    /// Names in `mod name;`, each with the line it stands in.
    pub(crate) fn modules(&self) -> Vec<(&str, usize)> {
        let mut after_mod = false;
        let mut modules = Vec::new();
        for word in self.words() {
            if after_mod && word.rest.starts_with(';') {
                modules.push((word.text, word.line));
            }
            after_mod = word.text == "mod";
        }
        modules
    }
}

/// What each byte belongs to. Quotes count as literal, comment marks as comment.
fn parts(text: &[u8]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(text.len());
    while parts.len() < text.len() {
        let at = parts.len();
        let rest = &text[at..];
        let (part, length) = match rest {
            [b'/', b'/', ..] => (Part::Comment, until(rest, b"\n")),
            [b'/', b'*', ..] => (Part::Comment, block_comment(rest)),
            [b'"', ..] => (Part::Literal, quoted(rest, b'"')),
            [b'r', b'"' | b'#', ..] if starts_literal(text, at) => (Part::Literal, raw_string(rest)),
            [b'\'', b'\\', ..] => (Part::Literal, quoted(rest, b'\'')),
            [b'\'', ..] => match character(rest) {
                Some(length) => (Part::Literal, length),
                None => (Part::Code, 1), // a lifetime
            },
            _ => (Part::Code, 1),
        };
        parts.resize((at + length).min(text.len()), part);
    }
    parts
}

/// Whether the `r` at `at` begins a raw string, rather than ending a word or beginning a raw identifier.
fn starts_literal(text: &[u8], at: usize) -> bool {
    let prefix = text[..at].strip_suffix(b"b").or(text[..at].strip_suffix(b"c")).unwrap_or(&text[..at]);
    let in_word = prefix.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let behind = text[at + 1..].iter().find(|byte| **byte != b'#');
    !in_word && behind == Some(&b'"')
}

fn until(rest: &[u8], end: &[u8]) -> usize {
    rest.windows(end.len()).position(|window| window == end).unwrap_or(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let step = match &rest[at..] {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    let start = 1 + hashes + 1;
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    start + until(&rest[start..], &end) + end.len()
}

/// The length of the character literal without escapes that stands here; none: it is a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    let width = match rest.get(1)? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(1 + width + 1)
}

#[test]
fn code_and_comments_are_told_apart() {
    let text = "a /* b /* c */ \" */ d // e\n'f' \"g\\\"h\" 'i r#\"j\"k\"# r#l br\"m\" '\\'' n";
    let source = Source::new(text);
    let words: Vec<&str> = source.words().map(|word| word.text).collect();
    assert_eq!(words, ["a", "d", "i", "r", "l", "b", "n"]);
    assert!(source.comments.contains("// e") && !source.comments.contains('g'));
    assert_eq!(source.words().last().map(|word| word.line), Some(2));
}

#[test]
fn paths_and_modules_are_seen() {
    let source =
        Source::new("mod a;\nmod b { use std::fs; }\n// mod c;\npub mod d;\nlet fs = thread :: spawn;");
    assert_eq!(source.modules(), [("a", 1), ("d", 4)]);
    let paths: Vec<&str> = source.words().filter(|word| word.in_path).map(|word| word.text).collect();
    assert_eq!(paths, ["std", "fs", "thread"]);
}
