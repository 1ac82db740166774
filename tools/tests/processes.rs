//! Clusters of real processes: what goes in comes out, and what survives which deaths.

mod support;

use evenkeel_client::json::to_json;
use evenkeel_client::{Error, Item};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{Processes, canonical, evenkeel, finish, folder, input, item, lines, wait_for};

const CREATE: [&str; 5] = ["table", "create", "packages", "--key", "section:S,package:S"];

/// The keys that a load has noted as acknowledged. A last line may be torn.
fn acknowledged(notes: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(notes).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let noted = whole.lines().filter(|line| !line.starts_with('#'));
    noted.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

/// The key of an item, as it is noted.
fn key_of(line: &str) -> String {
    let item = item(line);
    let key = ["section", "package"].map(|name| (name, item.get(name).unwrap().clone()));
    to_json(&key.into_iter().fold(Item::new(), |key, (name, value)| key.with(name, value)))
}

fn export(cluster: &Processes) -> BTreeSet<String> {
    canonical(finish(&mut cluster.command(&["export", "packages"])).ok().lines())
}

/// Memory of a process that is in RAM, MiB.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn a_core_takes_its_memory_when_it_starts_and_grows_into_it() {
    // How much a process has when it serves, and how much more after 32 MiB of items.
    let measured = |reserve_mib: &str| {
        let cluster = Processes::up(&["--nodes", "1", "--cache-mib", "64", "--reserve-mib", reserve_mib]);
        let before = resident_mib(cluster.pid("n1"));
        let bench = ["bench", "--workload", "put", "--closed", "8", "--connections", "8", "--for", "200ms"];
        let items = ["--keys", "4096", "--item-bytes", "8192", "--no-noise-check", "--json"];
        finish(&mut cluster.command(&[&bench[..], &items].concat())).ok();
        (before, resident_mib(cluster.pid("n1")).saturating_sub(before))
    };
    let (has, more) = measured("160");
    assert!(has >= 160 && more < 16, "{has} MiB, and {more} MiB more");
    let (has, more) = measured("0");
    assert!(has < 100 && more >= 32, "{has} MiB, and {more} MiB more");
}

/// One machine sleeps in its ring; a thread that wakes executors (`wire/link/src/watchdog.rs`) would wake for
/// nobody, a hundred times a second.
#[test]
fn a_process_of_one_machine_has_no_watchdog() {
    let cluster = Processes::up(&["--nodes", "1"]);
    for name in ["n1", "memds-0", "router-0"] {
        let threads = std::fs::read_dir(format!("/proc/{}/task", cluster.pid(name))).unwrap();
        let names: Vec<String> = threads
            .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap())
            .collect();
        assert!(names.len() > 1 && names.iter().all(|name| name.trim() != "watchdog"), "{name}: {names:?}");
    }
}

#[test]
fn what_goes_in_comes_out() {
    let (cluster, folder) = (Processes::up(&[]), folder());
    let input = input(folder.path());
    finish(&mut cluster.command(&CREATE)).ok();
    let mut load = cluster.command(&["load", "packages", input.to_str().unwrap()]);
    finish(load.current_dir(folder.path())).ok();
    let lines = lines(&input);
    let (put, got) = (canonical(lines.iter().map(String::as_str)), export(&cluster));
    assert_eq!(put.len(), lines.len(), "the input has an item for each line");
    assert!(put == got, "{} items went in, {} came out", put.len(), got.len());
    // In key order of each partition: all items of a section are together, and ascending.
    let exported = finish(&mut cluster.command(&["export", "packages"])).ok();
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for line in exported.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let [section, package] =
            ["section", "package"].map(|name| value[name]["S"].as_str().unwrap().to_owned());
        match sections.last_mut() {
            Some((last, packages)) if *last == section => packages.push(package),
            _ => sections.push((section, vec![package])),
        }
    }
    let names: BTreeSet<&str> = sections.iter().map(|(section, _)| section.as_str()).collect();
    assert_eq!(names.len(), sections.len());
    assert!(sections.iter().all(|(_, packages)| packages.is_sorted()));
    // A complete load leaves no notes behind.
    assert!(
        !folder
            .path()
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with(".acknowledged") })
    );
    // The cluster ends in good order, and starts again with everything.
    cluster.run("down", &[]).ok();
    assert_eq!(cluster.run("up", &[]).ok().trim(), cluster.endpoint);
    assert!(export(&cluster) == put);
}

#[test]
fn a_cluster_of_one_node_keeps_what_it_acknowledged() {
    let cluster = Processes::up(&["--nodes", "1"]);
    finish(&mut cluster.command(&CREATE)).ok();
    let client = cluster.client();
    let item = |number: u64| Item::new().with("section", "one").with("package", number.to_string());
    for number in 0..100 {
        client.put("packages", item(number)).send().unwrap();
    }
    cluster.run("kill", &["n1"]).ok();
    cluster.run("restart", &["n1"]).ok();
    for number in 0..100 {
        assert!(client.get("packages", item(number)).send().unwrap().item.is_some(), "{number}");
    }
    let (code, status) = cluster.status();
    assert_eq!(code, Some(0), "{status:#}");
    let partitions = status["partitions"].as_array().unwrap();
    assert!(partitions.iter().all(|partition| partition["followers"].as_array().unwrap().is_empty()));
}

#[test]
fn a_member_that_was_away_gets_more_than_it_gathers_in_memory() {
    // A sixteen MiB cache lets a receiver gather half a MiB before it merges.
    let cluster = Processes::up(&["--cache-mib", "16"]);
    cluster.run("kill", &["n3"]).ok();
    let sizes = ["--keys", "6000", "--item-bytes", "16384", "--closed", "8", "--for", "100ms"];
    let load = [&["bench", "--workload", "get", "--warm-up", "0s"][..], &sizes].concat();
    finish(&mut cluster.command(&load)).ok();
    let snapshots =
        |status: &Value| status["complaints"].to_string().matches("is being sent a snapshot").count();
    wait_for("the leaders to be past what they keep", || (snapshots(&cluster.status().1) > 0).then_some(()));
    cluster.run("restart", &["n3"]).ok();
    let back = wait_for("the member to catch up", || {
        let (code, status) = cluster.status();
        (code == Some(0)).then_some(status)
    });
    let live = |node: usize| back["cores"][node]["tree"]["blocks_live"].as_u64().unwrap();
    assert!(live(2) * 4096 > 64 << 20, "its items are in its tree: {back:#}");
    cluster.run("down", &[]).ok();
    let data = cluster.path().join("data/n3");
    let checked = finish(&mut evenkeel(&["check", "--json", "--data", data.to_str().unwrap()])).ok();
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["clean"], true, "{checked:#}");
}

#[test]
fn a_bench_tells_what_the_processes_used() {
    let (cluster, folder) = (Processes::up(&["--nodes", "1"]), folder());
    let [dir, disk] = [cluster.path(), folder.path()].map(|path| path.to_str().unwrap());
    let short = ["--warm-up", "100ms", "--for", "1s", "--keys", "5000", "--closed", "8", "--json"];
    let more = ["--workload", "get-put", "--cluster", dir, "--disk", disk, "--scratch-mib", "16"];
    let measure = |more: &[&str]| -> Value {
        let arguments = [&["bench"][..], &short, more].concat();
        serde_json::from_str(&finish(&mut cluster.command(&arguments)).ok()).unwrap()
    };
    let measured = measure(&more);
    assert_eq!(measured["errors"], serde_json::json!({}), "every key is there: {measured:#}");
    for role in ["storage", "router", "storage+router"] {
        assert!(measured["servers"][role]["requests_per_cpu_second"].as_f64() > Some(0.0), "{measured:#}");
    }
    assert!(measured["written_per_byte"].as_f64() > Some(1.0), "the log alone holds each item: {measured:#}");
    assert_eq!(measured["bare_reads_depth"], 8);
    for (loop_name, ours) in [("bare_reads", "reads_us"), ("bare_log_writes", "writes_us")] {
        assert!(measured[loop_name]["latencies_us"]["p50"].as_u64() > Some(0), "{measured:#}");
        assert!(measured[ours]["count"].as_u64() > Some(0), "{measured:#}");
    }
    assert!(measured["checkpoints"]["outside"]["rate"].as_f64() > Some(0.0), "{measured:#}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    // What is loaded is used again, and a preload that was complete has nothing left to do.
    assert!(measure(&["--workload", "get", "--no-preload"])["rate"].as_f64() > Some(0.0));
    assert!(measure(&["--workload", "get", "--resume-preload"])["rate"].as_f64() > Some(0.0));
}

#[test]
fn every_process_is_killed_in_the_middle_of_a_load_and_the_load_goes_on() {
    let (cluster, folder) = (Processes::up(&[]), folder());
    let (input, notes) = (input(folder.path()), folder.path().join("notes"));
    finish(&mut cluster.command(&CREATE)).ok();
    let load = ["load", "packages", input.to_str().unwrap(), "--acknowledged", notes.to_str().unwrap()];
    let mut loader = cluster.spawn(&load);
    wait_for("a good part of the load", || (acknowledged(&notes).len() > 5000).then_some(()));
    cluster.run("kill", &["all"]).ok();
    let status = wait_for("the loader's end", || loader.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "the load could not go on, and says so");
    let before = acknowledged(&notes);
    let all = lines(&input);
    assert!(before.len() < all.len(), "it was killed in the middle");
    cluster.run("restart", &["all"]).ok();
    let client = cluster.client();
    for key in &before {
        let got = client.get("packages", item(key)).send().unwrap();
        assert!(got.item.is_some(), "{key} was acknowledged");
    }
    // Not only there, but as they went in.
    let stored = export(&cluster);
    let acknowledged_lines = all.iter().filter(|line| before.contains(&key_of(line)));
    let expected = canonical(acknowledged_lines.map(String::as_str));
    assert_eq!(expected.len(), before.len());
    assert!(expected.is_subset(&stored));
    let resumed = finish(&mut cluster.command(&load)).ok();
    assert!(resumed.contains("were there before"), "{resumed}");
    assert!(export(&cluster) == canonical(all.iter().map(String::as_str)));
}

/// Ends the writer, also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The node that leads most partitions of tables.
fn busiest(status: &Value) -> u64 {
    let leaders = status["partitions"].as_array().unwrap().iter().filter(|partition| partition["table"] != 0);
    let leaders: Vec<u64> = leaders.filter_map(|partition| partition["leader"].as_u64()).collect();
    *leaders.iter().max_by_key(|node| leaders.iter().filter(|other| other == node).count()).unwrap()
}

#[test]
fn the_leader_is_killed_and_writes_go_on_and_it_catches_up() {
    let cluster = Processes::up(&[]);
    finish(&mut cluster.command(&CREATE)).ok();
    let (stop, written, client) = (AtomicBool::new(false), AtomicU64::new(0), cluster.client());
    let put = |number: u64| {
        let text =
            format!("{{\"section\":{{\"S\":\"s{}\"}},\"package\":{{\"S\":\"{number}\"}}}}", number % 16);
        client.put("packages", item(&text)).send().map(|_| ())
    };
    let outcome = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let writer = scope.spawn(|| -> Result<(), Error> {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                put(number)?;
                written.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        });
        let wait_until_written = |count: u64| {
            wait_for("writes", || {
                (written.load(Ordering::Relaxed) >= count || writer.is_finished()).then_some(())
            });
        };
        wait_until_written(200);
        let (code, status) = cluster.status();
        assert_eq!((code, &status["healthy"]), (Some(0), &Value::Bool(true)), "{status:#}");
        let leader = busiest(&status);
        cluster.run("kill", &[&format!("n{leader}")]).ok();
        let (code, status) = cluster.status();
        assert_eq!(code, Some(3), "{status:#}");
        let complaints = status["complaints"].to_string();
        assert!(complaints.contains(&format!("n{leader}.c0")), "{complaints}");
        // Every partition takes writes again: sixteen sections are spread over all of them.
        wait_until_written(written.load(Ordering::Relaxed) + 200);
        let (code, status) = cluster.status();
        assert_eq!(code, Some(3), "one node is still missing: {status:#}");
        for partition in status["partitions"].as_array().unwrap() {
            let led = partition["leader"].as_u64().expect("it has a leader");
            assert_ne!(led, leader, "{status:#}");
        }
        cluster.run("restart", &[&format!("n{leader}")]).ok();
        let back = wait_for("the node to catch up", || {
            let (code, status) = cluster.status();
            (code == Some(0)).then_some(status)
        });
        let of_it = |partition: &Value| {
            let follower = partition["followers"].as_array().unwrap().iter();
            follower
                .filter(|follower| follower["node"] == leader)
                .all(|follower| follower["matched"].as_u64() > Some(0))
        };
        assert!(back["partitions"].as_array().unwrap().iter().all(of_it), "{back:#}");
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    outcome.unwrap();
    let numbers: BTreeSet<u64> = finish(&mut cluster.command(&["export", "packages"]))
        .ok()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["package"]["S"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    let count = written.load(Ordering::Relaxed);
    assert!((0..count).all(|number| numbers.contains(&number)), "all {count} acknowledged writes are there");
}
