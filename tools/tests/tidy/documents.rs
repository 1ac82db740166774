//! Documents: their links lead somewhere, somebody leads to them, and decisions are told alike.

use super::markdown;
use super::rust::Source;
use super::tree::{Tree, folder_of, resolve};
use std::collections::BTreeSet;

/// Where decision records stand.
const DECISIONS: &str = "docs/decisions/";
/// What every decision record tells, in this order.
const HEADINGS: [&str; 4] = ["Context", "Options", "Choice", "Consequences"];

/// Relative links, and paths in ticks, lead to what is there.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".md") {
        for (line, link) in markdown::links(text) {
            if let Some(wrong) = wrong_link(tree, path, &link) {
                complaints.push(format!("{path}:{line}: {link}: {wrong}; correct the link"));
            }
        }
        for (line, code) in markdown::ticks(text) {
            let is_path = tree
                .top_folders()
                .any(|top| code.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')))
                && code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && !tree.has(&code) {
                complaints.push(format!("{path}:{line}: `{code}` is not there; name the file that is"));
            }
        }
    }
    complaints
}

/// What is wrong with a link, if it is one inside the checkout and wrong.
fn wrong_link(tree: &Tree, from: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (target, anchor) =
        link.split_once('#').map_or((link, None), |(target, anchor)| (target, Some(anchor)));
    let file = if target.is_empty() { Some(from.to_owned()) } else { resolve(folder_of(from), target) };
    let Some(file) = file.filter(|file| tree.has(file)) else {
        return Some("there is no such file".to_owned());
    };
    let anchor = anchor?;
    let is_there =
        file.ends_with(".md") && markdown::anchors(tree.text(&file)).iter().any(|there| there == anchor);
    (!is_there).then(|| format!("{file} has no such heading"))
}

/// Every file below docs/ is linked from a page that is not itself.
pub(crate) fn linked(tree: &Tree) -> Vec<String> {
    let mut linked = BTreeSet::new();
    for (path, text) in tree.ending(".md") {
        for (_, link) in markdown::links(text) {
            let target = link.split('#').next().unwrap_or_default();
            let target =
                resolve(folder_of(path), target).filter(|target| !target.is_empty() && target != path);
            linked.extend(target.map(|target| {
                // A reader who follows a link to a folder is shown its README.md.
                let readme = format!("{target}/README.md");
                if tree.has_file(&readme) { readme } else { target }
            }));
        }
    }
    let documents = tree.ending("").map(|(path, _)| path).filter(|path| path.starts_with("docs/"));
    let lost = documents.filter(|path| !linked.contains(*path));
    lost.map(|path| format!("{path}: no page links it; link it where a reader needs it, or remove it"))
        .collect()
}

/// Every `docs/….md` that sources and manifests name is there.
pub(crate) fn named_by_code(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".rs").chain(tree.ending(".toml")).chain(tree.ending(".ci/run")) {
        let comments = if path.ends_with(".rs") { Source::new(text).comments } else { text.to_owned() };
        for (index, line) in comments.lines().enumerate() {
            for (at, _) in line.match_indices("docs/") {
                let rest = &line[at..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c));
                let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
                if name.ends_with(".md") && !tree.has_file(name) {
                    complaints
                        .push(format!("{path}:{}: {name} is not there; name the page that is", index + 1));
                }
            }
        }
    }
    complaints
}

/// Decision records are numbered without gaps, name their number, and tell [`HEADINGS`].
pub(crate) fn decisions(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let records =
        tree.ending(".md").filter(|(path, _)| path.starts_with(DECISIONS) && !path.ends_with("/README.md"));
    for (index, (path, text)) in records.enumerate() {
        let number = format!("{:04}", index + 1);
        if !path[DECISIONS.len()..].starts_with(&format!("{number}-")) {
            complaints.push(format!("{path}: the next record has the number {number}; rename it"));
        }
        if !text.starts_with(&format!("# {number}: ")) {
            complaints.push(format!("{path}:1: begin with `# {number}: ` and the choice in few words"));
        }
        if markdown::headings(text, 2) != HEADINGS {
            let wanted = HEADINGS.map(|heading| format!("`## {heading}`")).join(", ");
            complaints.push(format!("{path}: its headings must be {wanted}, as in every record"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::{fails, passes};
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_seen() {
        let page = ("docs/b.md", "# C d\n");
        fails(links, &[("a.md", "\n[x](docs/e.md)"), page], "a.md:2: docs/e.md: there is no such file");
        fails(links, &[("a.md", "[x](docs/b.md#d)"), page], "docs/b.md has no such heading");
        fails(links, &[("docs/a.md", "[x](../../b.md)"), page], "there is no such file");
        fails(links, &[("a.md", "see `docs/e.md`"), page], "`docs/e.md` is not there");
        let right = "# A\n[x](docs/b.md#c-d) [y](#a) [z](https://a.example/b#c) `docs/b.md` `docs/`";
        passes(links, &[("a.md", right), page]);
    }

    #[test]
    fn a_page_that_nobody_links_is_seen() {
        let pages = [("docs/b.md", "[me](b.md)"), ("docs/c/README.md", ""), ("docs/c/d.md", "")];
        let with = |text| [pages[0], pages[1], pages[2], ("README.md", text)];
        fails(linked, &with(""), "docs/b.md: no page links it");
        fails(linked, &with("[b](docs/b.md) [c](docs/c/)"), "docs/c/d.md: no page links it");
        passes(linked, &with("[b](docs/b.md) [c](docs/c/) [d](docs/c/d.md)"));
    }

    #[test]
    fn a_page_that_code_names_wrongly_is_seen() {
        let page = ("docs/b.md", "");
        fails(
            named_by_code,
            &[("a/src/c.rs", "\n//! (docs/d.md)."), page],
            "a/src/c.rs:2: docs/d.md is not there",
        );
        passes(named_by_code, &[("a/src/c.rs", "// See docs/b.md.\nlet d = \"docs/d.md\";"), page]);
    }

    #[test]
    fn a_record_that_is_told_otherwise_is_seen() {
        let right = "# 0001: A\n## Context\n## Options\n## Choice\n## Consequences\n";
        passes(decisions, &[("docs/decisions/0001-a.md", right), ("docs/decisions/README.md", "")]);
        fails(decisions, &[("docs/decisions/0002-a.md", right)], "the next record has the number 0001");
        fails(decisions, &[("docs/decisions/0001-a.md", "# A\n")], "begin with `# 0001: `");
        let unlike = right.replace("Options", "Also");
        fails(decisions, &[("docs/decisions/0001-a.md", &unlike)], "its headings must be `## Context`");
    }
}
