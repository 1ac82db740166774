//! The verbs of the command, as a user or a script meets them.

mod support;

use serde_json::Value;
use support::{Shell, evenkeel, finish};

const ADA: &str = r#"{"id":{"S":"ada"}}"#;

#[test]
fn items_are_put_read_changed_and_deleted() {
    let shell = Shell::new();
    shell.ok(&["table", "create", "users", "--key", "id:S"]);
    let ada = r#"{"born":{"N":"1815"},"id":{"S":"ada"}}"#;
    shell.ok(&["put", "users", ada, "--if", "attribute_not_exists(id)"]);
    shell.fails(&["put", "users", ada, "--if", "attribute_not_exists(id)"], "ConditionFailed");
    assert_eq!(shell.ok(&["get", "users", ADA]).trim(), ada);
    assert_eq!(shell.ok(&["get", "users", ADA, "--eventual"]).trim(), ada);
    let values = r#"{":one":{"N":"1"},":tags":{"SS":["x"]}}"#;
    let update =
        ["update", "users", ADA, "--set", "born = born + :one", "--add", "tags :tags", "--values", values];
    let updated = r#"{"born":{"N":"1816"},"id":{"S":"ada"},"tags":{"SS":["x"]}}"#;
    assert_eq!(shell.ok(&update).trim(), updated);
    shell.fails(&["update", "users", ADA, "--set", "born = = 1"], "^");
    shell.fails(&["update", "users", ADA], "--set");
    assert_eq!(shell.ok(&["delete", "users", ADA, "--old"]).trim(), updated);
    shell.fails(&["get", "users", ADA], "no item with this key");
}

#[test]
fn queries_and_scans_print_one_item_a_line() {
    let shell = Shell::new();
    shell.ok(&["table", "create", "scores", "--key", "player:S,round:N"]);
    for round in ["1", "2", "10"] {
        shell.ok(&["put", "scores", &format!(r#"{{"player":{{"S":"ada"}},"round":{{"N":"{round}"}}}}"#)]);
    }
    let rounds = |printed: String| -> Vec<String> {
        let items = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        items.map(|item| item["round"]["N"].as_str().unwrap().to_owned()).collect()
    };
    let values = r#"{":p":{"S":"ada"},":from":{"N":"2"}}"#;
    let query = ["query", "scores", "player = :p AND round >= :from", "--values", values];
    assert_eq!(rounds(shell.ok(&query)), ["2", "10"]);
    assert_eq!(rounds(shell.ok(&[&query[..], &["--backward", "--limit", "1"]].concat())), ["10"]);
    let filter = ["scan", "scores", "--filter", "round < :from", "--values", r#"{":from":{"N":"2"}}"#];
    assert_eq!(rounds(shell.ok(&filter)), ["1"]);
    assert_eq!(rounds(shell.ok(&["export", "scores"])).len(), 3);
}

#[test]
fn tables_come_and_go() {
    let shell = Shell::new();
    shell.ok(&["table", "create", "a", "--key", "id:B"]);
    shell.ok(&["table", "create", "b", "--key", "id:N", "--rcu", "100", "--wcu", "50"]);
    shell.fails(&["table", "create", "a", "--key", "id:B"], "TableExists");
    shell.fails(&["table", "create", "c", "--key", "id:X"], "S, N");
    let names: Value = serde_json::from_str(&shell.ok(&["table", "list", "--json"])).unwrap();
    assert!(["a", "b"].iter().all(|name| names.to_string().contains(&format!("\"{name}\""))), "{names}");
    let described: Value = serde_json::from_str(&shell.ok(&["table", "describe", "b", "--json"])).unwrap();
    assert!(described.to_string().contains("50"), "{described}");
    shell.ok(&["table", "delete", "a"]);
    shell.fails(&["get", "a", r#"{"id":{"B":"AA=="}}"#], "TableNotFound");
    // A new table of the same name is another table.
    shell.ok(&["table", "create", "a", "--key", "id:S"]);
    assert_eq!(shell.ok(&["scan", "a"]), "");
}

#[test]
fn the_allocator_never_gives_memory_back() {
    let mut command = evenkeel(&["--version"]);
    command.env("_RJEM_MALLOC_CONF", "stats_print:true");
    let said = finish(&mut command).stderr;
    let built = said.lines().find(|line| line.contains("config.malloc_conf")).expect("it tells its options");
    // What is given back is kept, however large it was, and is what anything is taken from.
    for option in ["dirty_decay_ms:-1", "oversize_threshold:0", "lg_extent_max_active_fit:30"] {
        assert!(built.contains(option), "{built}");
    }
}

#[test]
fn the_doctor_names_what_it_measured() {
    let folder = support::folder();
    let path = folder.path().to_str().unwrap();
    let said = finish(&mut evenkeel(&["doctor", "--json", "--disk", path, "--for", "600ms"])).ok();
    let findings: Vec<Value> = serde_json::from_str(&said).unwrap();
    let subjects: Vec<&str> = findings.iter().map(|finding| finding["subject"].as_str().unwrap()).collect();
    for subject in [
        "io_uring",
        "locked memory",
        "CPUs",
        "clock",
        "time slices",
        "huge pages",
        "neighbours",
        "disk",
        "busy CPUs",
    ] {
        assert!(subjects.contains(&subject), "{subjects:?}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_partition_is_split_at_a_key_or_in_the_middle_and_every_item_is_still_there() {
    let shell = Shell::new();
    shell.ok(&["table", "create", "t", "--key", "id:S", "--partitions", "1"]);
    shell.fails(&["table", "split", "t"], "too little");
    shell.fails(&["table", "split", "none"], "no table named");
    let item = |number: usize| format!(r#"{{"id":{{"S":"{number}"}}}}"#);
    for number in 0..40 {
        shell.ok(&["put", "t", &item(number)]);
    }
    let partitions = |text: String| serde_json::from_str::<Value>(&text).unwrap()["partitions"].clone();
    assert_eq!(partitions(shell.ok(&["table", "split", "t", "--key", &item(7), "--json"])), 2);
    shell.fails(&["table", "split", "t", "--key", &item(7)], "or is its first");
    shell.fails(&["table", "split", "t", "--partition", "p1"], "has no partition p1");
    assert_eq!(partitions(shell.ok(&["table", "split", "t", "--at-middle", "--json"])), 3);
    assert_eq!(partitions(shell.ok(&["table", "describe", "t", "--json"])), 3);
    for number in 0..40 {
        assert_eq!(shell.ok(&["get", "t", &item(number)]).trim(), item(number));
        shell.ok(&["put", "t", &item(number)]);
    }
    let mut scanned: Vec<String> = shell.ok(&["scan", "t"]).lines().map(str::to_owned).collect();
    let mut all: Vec<String> = (0..40).map(item).collect();
    scanned.sort();
    all.sort();
    assert_eq!(scanned, all);
    assert_eq!(shell.ok(&["export", "t"]).lines().count(), 40);
}
