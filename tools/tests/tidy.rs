//! Tidiness is a test: what the architecture, the documents and the sources promise each other is checked
//! here.
//!
//! The checks read the checkout as text. None needs a build of anything but this test, so that
//! `cargo test --test tidy` answers in a second. Each check is shown to fail on a made-up checkout beside it.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/manifest.rs"]
mod manifest;
#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/packages.rs"]
mod packages;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/tree.rs"]
mod tree;

use tree::Tree;

/// A check: what it finds wrong, each with its place and with what to do.
type Check = fn(&Tree) -> Vec<String>;

/// Runs a check on the checkout.
fn hold(check: Check) {
    let complaints = check(&Tree::checkout());
    assert!(complaints.is_empty(), "{} to put right:\n  {}\n", complaints.len(), complaints.join("\n  "));
}

/// Shows that a check fails, and says so with these words, on files that are wrong.
fn fails(check: Check, files: &[(&str, &str)], words: &str) {
    let complaints = check(&Tree::of(files));
    assert!(
        complaints.iter().any(|complaint| complaint.contains(words)),
        "{words:?} is not in {complaints:#?}"
    );
}

/// Shows that a check has nothing to say about files that are right.
fn passes(check: Check, files: &[(&str, &str)]) {
    assert_eq!(check(&Tree::of(files)), Vec::<String>::new());
}

#[test]
fn imports_point_to_lower_floors() {
    hold(floors::imports);
}

#[test]
fn logic_has_no_clock_thread_socket_or_file() {
    hold(floors::logic);
}

#[test]
fn unsafe_code_stays_in_doors_and_pools() {
    hold(floors::unsafe_code);
}

#[test]
fn packages_are_used_and_have_their_sentence() {
    hold(packages::sentences);
}

#[test]
fn crates_name_what_they_depend_on() {
    hold(packages::named);
}

#[test]
fn source_files_are_reached() {
    hold(sources::reached);
}

#[test]
fn lines_have_110_columns() {
    hold(sources::columns);
}

#[test]
fn source_files_are_short() {
    hold(sources::lengths);
}

#[test]
fn nothing_is_left_behind() {
    hold(sources::leftovers);
}

#[test]
fn links_and_paths_in_documents_lead_somewhere() {
    hold(documents::links);
}

#[test]
fn documents_are_linked() {
    hold(documents::linked);
}

#[test]
fn documents_that_code_names_are_there() {
    hold(documents::named_by_code);
}

#[test]
fn decision_records_have_the_same_headings() {
    hold(documents::decisions);
}
