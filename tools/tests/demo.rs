//! The demonstration: a cluster, a file in it, and nothing left behind.

mod support;

use support::{evenkeel, finish, folder, input, lines, made};

#[test]
fn a_demo_loads_a_file_says_what_to_try_and_leaves_nothing_behind() {
    let (temporary, folder) = (folder(), folder());
    let input = input(folder.path());
    let load = ["--load", input.to_str().unwrap(), "--table", "packages", "--key", "section:S,package:S"];
    let mut demo = evenkeel(&["demo", "--for", "200ms", "--port", "0"]);
    let ran = finish(demo.args(load).env("TMPDIR", temporary.path()).current_dir(folder.path()));
    let (count, said) = (lines(&input).len(), ran.ok());
    let count = format!("{},{:03} items", count / 1000, count % 1000);
    for expected in [count.as_str(), "items/s", "EVENKEEL_ENDPOINT=127.0.0.1:", "evenkeel scan packages"] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_demo_with_a_folder_keeps_it_and_finds_everything_again() {
    let folder = folder();
    let (data, file) = (folder.path().join("data"), folder.path().join("items.jsonl"));
    std::fs::write(&file, made(100)).unwrap();
    let demo = ["demo", "--for", "200ms", "--port", "0", "--data", data.to_str().unwrap()];
    let load = ["--load", file.to_str().unwrap(), "--table", "t", "--key", "section:S,package:S"];
    finish(evenkeel(&demo).args(load)).ok();
    let said = finish(evenkeel(&demo).args(load)).ok();
    assert!(said.contains("100 items"), "{said}");
}

#[test]
fn a_file_that_cannot_be_loaded_ends_the_demo_with_its_line() {
    let folder = folder();
    let file = folder.path().join("items.jsonl");
    std::fs::write(&file, "{\"id\":{\"S\":\"a\"}}\n{\"id\":{\"S\":\"b\"\n").unwrap();
    let mut demo = evenkeel(&["demo", "--for", "200ms", "--port", "0", "--table", "t", "--key", "id:S"]);
    let ran = finish(demo.args(["--load", file.to_str().unwrap()]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("items.jsonl:2:"), "{}", ran.stderr);
}
