//! What a source file may look like, and that somebody reads it.

use super::rust::Source;
use super::tree::{Tree, folder_of, resolve};
use std::collections::BTreeSet;

/// Every source file is reached from a crate's root by `mod`.
pub(crate) fn reached(tree: &Tree) -> Vec<String> {
    let mut waiting: Vec<String> =
        tree.ending(".rs").map(|(path, _)| path.to_owned()).filter(|path| is_root(path)).collect();
    let mut reached = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if reached.insert(path.clone()) {
            waiting.extend(children(tree, &path));
        }
    }
    let dead = tree.ending(".rs").filter(|(path, _)| !reached.contains(*path));
    dead.map(|(path, _)| format!("{path}: no `mod` leads here; name it in its parent, or remove it"))
        .collect()
}

/// Whether the compiler begins here: src/lib.rs, src/main.rs, files of tests/, examples/ and benches/, and a
/// crate's build.rs.
fn is_root(path: &str) -> bool {
    let folder = folder_of(path);
    let parent = folder.rsplit('/').next().unwrap_or_default();
    let name = &path[folder.len()..];
    match parent {
        "src" => name == "/lib.rs" || name == "/main.rs",
        "tests" | "examples" | "benches" | "fuzz_targets" => !folder.contains("/src/"),
        _ => name == "/build.rs" && !folder.contains("/src"),
    }
}

fn children(tree: &Tree, path: &str) -> Vec<String> {
    let text = tree.text(path);
    let folder = folder_of(path);
    let stem = path[folder.len() + 1..].trim_end_matches(".rs");
    let inside = if is_root(path) || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut children = Vec::new();
    for (name, line) in Source::new(text).modules() {
        let above = text.lines().nth(line.saturating_sub(2)).unwrap_or_default();
        let named = above.trim().strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
        match named {
            Some(named) => children.extend(resolve(folder, named)),
            None => children.extend([format!("{inside}/{name}.rs"), format!("{inside}/{name}/mod.rs")]),
        }
    }
    children.retain(|child| tree.has_file(child));
    children
}

/// Columns of a line.
const COLUMNS_MAX: usize = 110;

/// No line is too long. In Markdown, tables may be, and what a link's target adds does not count.
pub(crate) fn columns(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for end in [".rs", ".md", ".toml"] {
        for (path, text) in tree.ending(end) {
            for (index, line) in text.lines().enumerate() {
                let columns = if end == ".md" { columns_of_markdown(line) } else { line.chars().count() };
                if columns > COLUMNS_MAX {
                    complaints.push(format!(
                        "{path}:{}: {columns} columns; break the line at {COLUMNS_MAX}",
                        index + 1
                    ));
                }
            }
        }
    }
    complaints
}

fn columns_of_markdown(line: &str) -> usize {
    if line.starts_with('|') || line.starts_with('[') && line.contains("]: ") {
        return 0;
    }
    let mut columns = line.chars().count();
    for (at, _) in line.match_indices("](") {
        columns -= line[at + 2..].split(')').next().unwrap_or_default().chars().count();
    }
    columns
}

/// Lines of a file.
const LINES_MAX: usize = 700;
/// Files that may be longer, each with how long, and the reason.
const LONG: [(&str, usize, &str); 0] = [];

/// No source file is too long.
pub(crate) fn lengths(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let lines = text.lines().count();
        let most = LONG.iter().find(|(file, ..)| *file == path).map_or(LINES_MAX, |(_, lines, _)| *lines);
        if lines > most {
            complaints.push(format!(
                "{path}: {lines} lines, at most {most}; look for the missing noun and give it a file, or \
                 list the file with its reason in tools/tests/tidy/sources.rs"
            ));
        }
    }
    complaints
}

/// Marks of unfinished work. They are put together here so that this file has none.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// No mark of unfinished work, and no `dbg!`.
pub(crate) fn leftovers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for end in [".rs", ".md", ".toml", ".ci/run"] {
        for (path, text) in tree.ending(end) {
            for (index, line) in text.lines().enumerate() {
                let words = || line.split(|c: char| !c.is_alphanumeric() && c != '_');
                if let Some(mark) = MARKS.iter().find(|mark| words().any(|word| word == **mark)) {
                    complaints.push(format!("{path}:{}: {mark}; do it, or say what is absent", index + 1));
                }
            }
        }
    }
    for (path, text) in tree.ending(".rs") {
        let source = Source::new(text);
        let left = source.words().filter(|word| word.text == "dbg" && word.rest.starts_with('!'));
        complaints.extend(left.map(|word| format!("{path}:{}: dbg!; take it out", word.line)));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::{fails, passes};
    use super::*;

    #[test]
    fn a_file_that_nobody_reaches_is_seen() {
        let files = [("a/src/lib.rs", "mod b;"), ("a/src/b.rs", ""), ("a/src/b/c.rs", "")];
        fails(reached, &files, "a/src/b/c.rs: no `mod` leads here");
        fails(reached, &[("a/src/build.rs", "")], "a/src/build.rs: no `mod`");
        fails(reached, &[("a/tests/help/mod.rs", "")], "a/tests/help/mod.rs: no `mod`");
        let right = [
            ("a/src/lib.rs", "mod b;\n#[path = \"f/g.rs\"]\nmod d;"),
            ("a/src/b.rs", "pub mod c;"),
            ("a/src/b/c.rs", ""),
            ("a/src/f/g.rs", ""),
            ("a/tests/e.rs", "mod help;"),
            ("a/tests/help/mod.rs", ""),
            ("a/build.rs", ""),
        ];
        passes(reached, &right);
    }

    #[test]
    fn a_long_line_is_seen() {
        let fits = "é".repeat(110);
        let long = format!("\n{fits}é");
        for path in ["a.rs", "a.md", "a.toml"] {
            fails(columns, &[(path, &long)], ":2: 111 columns");
            passes(columns, &[(path, &fits)]);
        }
        passes(columns, &[("a.md", &format!("|{fits}\n[b](https://{fits}) c"))]);
        fails(columns, &[("a.md", &format!("[b](https://{fits}) {fits}"))], "a.md:1: 11");
    }

    #[test]
    fn a_long_file_is_seen() {
        fails(lengths, &[("a/src/b.rs", &"\n".repeat(701))], "a/src/b.rs: 701 lines");
        passes(lengths, &[("a/src/b.rs", &"\n".repeat(700))]);
    }

    #[test]
    fn leftovers_are_seen() {
        for mark in MARKS {
            fails(leftovers, &[("a.md", &format!("b\n({mark}: c)"))], &format!("a.md:2: {mark}"));
        }
        fails(leftovers, &[("a/src/b.rs", "dbg!(c)")], "a/src/b.rs:1: dbg!");
        passes(leftovers, &[("a/src/b.rs", "// dbg! to do\nlet dbg = 1;")]);
    }
}
