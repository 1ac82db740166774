//! Crates that are not ours: each is used, by whom its sentence says, and has its sentence.

use super::manifest::{Crate, Workspace};
use super::markdown;
use super::rust::Source;
use super::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// Where every package has its sentence.
const RECORD: &str = "docs/decisions/0008-dependencies.md";
/// Packages that the design names, and that stay in the root manifest even while nobody uses them.
const KEPT: [&str; 7] = ["ahash", "arrayvec", "core_affinity", "criterion", "glommio-ng", "io-uring", "rkyv"];
/// What the record says of a package that nobody uses.
const NOBODY: &str = "nobody yet";
/// What the record says of a package that only tests, examples or benches use.
const TESTS: &str = "tests";

/// Every package of the root manifest is used, and [`RECORD`] says by whom.
pub(crate) fn sentences(tree: &Tree) -> Vec<String> {
    let workspace = Workspace::read(tree);
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, row) in markdown::rows(tree.text(RECORD)) {
        let [packages, users, _sentence] = row.as_slice() else {
            continue;
        };
        for package in packages.split(", ") {
            said.insert(package.to_owned(), users.split(", ").map(str::to_owned).collect());
        }
    }
    let mut complaints = Vec::new();
    for (key, package) in &workspace.foreign {
        let users = users(&workspace.crates, key);
        if users.contains(NOBODY) && !KEPT.contains(&package.as_str()) {
            complaints.push(format!("Cargo.toml: nobody uses {package}; take it out, and out of {RECORD}"));
        }
        match said.remove(package) {
            Some(said) if said == users => {}
            Some(_) => complaints.push(format!("{RECORD}: {package} is used by: {}; say so", list(&users))),
            None => complaints.push(format!(
                "{RECORD}: {package} has no sentence; write why it is there: | {package} | {} | why |",
                list(&users)
            )),
        }
    }
    for member in &workspace.crates {
        let keys = member.uses.union(&member.tests_use);
        let strange =
            keys.filter(|key| !workspace.foreign.contains_key(*key) && !workspace.own.contains_key(*key));
        complaints.extend(strange.map(|key| {
            format!(
                "{}/Cargo.toml: {key} is not in the root manifest; put it there, once for all",
                member.folder
            )
        }));
    }
    let gone = said.into_keys();
    complaints.extend(
        gone.map(|package| format!("{RECORD}: {package} is not in Cargo.toml; take out its sentence")),
    );
    complaints
}

/// The crates that use it; if there is none, who else.
fn users(crates: &[Crate], key: &str) -> BTreeSet<String> {
    let users = crates.iter().filter(|member| member.uses.contains(key));
    let mut users: BTreeSet<String> = users.map(|member| member.short_name().to_owned()).collect();
    if users.is_empty() {
        let in_tests = crates.iter().any(|member| member.tests_use.contains(key));
        users.insert(if in_tests { TESTS } else { NOBODY }.to_owned());
    }
    users
}

fn list(users: &BTreeSet<String>) -> String {
    users.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// Every crate's code names every package that its manifest does; its tests, those that only they need.
pub(crate) fn named(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for member in Workspace::read(tree).crates {
        let mut in_sources = BTreeSet::new();
        let mut anywhere = BTreeSet::new();
        for (path, text) in tree.ending(".rs") {
            let Some(inside) = path.strip_prefix(&format!("{}/", member.folder)) else {
                continue;
            };
            let source = Source::new(text);
            let words = source.words().map(|word| word.text.to_owned()).collect::<BTreeSet<_>>();
            anywhere.extend(words.iter().cloned());
            if inside.starts_with("src/") {
                in_sources.extend(words);
            }
        }
        for (keys, words, table) in
            [(&member.uses, &in_sources, "dependencies"), (&member.tests_use, &anywhere, "dev-dependencies")]
        {
            let unnamed = keys.iter().filter(|key| !words.contains(&key.replace('-', "_")));
            complaints.extend(unnamed.map(|key| {
                format!("{}/Cargo.toml: no code names {key}; take it out of [{table}]", member.folder)
            }));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::{fails, passes};
    use super::*;

    const ROOT: &str = "[workspace]\nmembers = ['wire']\n[workspace.dependencies]\nbytes = '1'\n\
                        glommio = { package = 'glommio-ng', version = '1' }";
    const USER: &str = "[dependencies]\nbytes.workspace = true";
    const HEAD: &str = "| crate | who | why |\n|---|---|---|\n";

    fn with_record(rows: &str, check: impl Fn(&[(&str, &str)])) {
        let record = format!("{HEAD}{rows}");
        check(&[("Cargo.toml", ROOT), ("wire/Cargo.toml", USER), (RECORD, &record)]);
    }

    #[test]
    fn a_package_without_user_or_sentence_is_seen() {
        with_record("| glommio-ng | nobody yet | x |\n", |files| {
            fails(sentences, files, "bytes has no sentence");
        });
        with_record("| bytes | router | x |\n| glommio-ng | nobody yet | x |\n", |files| {
            fails(sentences, files, "bytes is used by: wire; say so");
        });
        with_record("| bytes, tokio | wire | x |\n| glommio-ng | nobody yet | x |\n", |files| {
            fails(sentences, files, "tokio is not in Cargo.toml");
        });
        with_record("| bytes | wire | x |\n| glommio-ng | nobody yet | x |\n", |files| {
            passes(sentences, files);
        });
        let unused = [("Cargo.toml", ROOT), ("wire/Cargo.toml", ""), (RECORD, "")];
        fails(sentences, &unused, "nobody uses bytes");
        let strange =
            [("Cargo.toml", ROOT), ("wire/Cargo.toml", "[dev-dependencies]\ntokio = '1'"), (RECORD, "")];
        fails(sentences, &strange, "wire/Cargo.toml: tokio is not in the root manifest");
    }

    #[test]
    fn a_package_that_no_code_names_is_seen() {
        let files = [("Cargo.toml", ROOT), ("wire/Cargo.toml", USER)];
        let with = |path, text| [files[0], files[1], (path, text)];
        fails(named, &with("wire/tests/a.rs", "use bytes::Bytes;"), "no code names bytes");
        fails(named, &with("wire/src/a.rs", "// bytes"), "no code names bytes");
        passes(named, &with("wire/src/a.rs", "use bytes::Bytes;"));
    }
}
