//! `bench`, as a user or a script meets it: what it refuses, what it measures, what it writes.

mod support;

use evenkeel_bench::interval::Interval;
use evenkeel_bench::interval_log::{IntervalLog, read};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use support::{Shell, evenkeel, finish, folder};

/// As short as it makes sense, and without watching the host.
const SHORT: [&str; 8] =
    ["--warm-up", "100ms", "--for", "500ms", "--keys", "100", "--no-noise-check", "--json"];

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_bench_measures_beside_a_bare_loop_and_an_overload_is_no_measurement() {
    let (shell, folder) = (Shell::new(), folder());
    let path = folder.path().to_str().unwrap();
    let closed = ["bench", "--closed", "8", "--disk", path, "--report", path];
    let measured = value(&shell.ok(&[&closed[..], &SHORT].concat()));
    assert!(measured["rate"].as_f64() > Some(0.0), "{measured:#}");
    assert!(measured["latencies_us"]["p50"].as_u64() > Some(0), "{measured:#}");
    assert!(measured["bare_log_writes"]["rate_ratio"].as_f64() > Some(0.0), "{measured:#}");
    assert_eq!((&measured["loop"], &measured["under_way"]), (&json!("closed"), &json!(8)));
    assert!(measured["host"]["disk"]["file_system"].is_string(), "{measured:#}");
    let written = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    assert_eq!(value(&written), measured);
    let open = shell.run(&[&["bench", "--workload", "ycsb-a", "--rate", "10000000"][..], &SHORT].concat());
    assert_eq!(open.code, Some(4), "{}", open.stderr);
    assert!(open.stderr.contains("INVALID"), "{}", open.stderr);
    let overload = value(&open.stdout);
    assert_eq!((&overload["valid"], &overload["loop"]), (&json!(false), &json!("open")));
    assert!(overload["invalid"].as_str().unwrap().contains("not served in time"), "{overload:#}");
    shell.fails(&["bench", "--workload", "ycsb-z"], "ycsb-a");
}

#[test]
fn an_open_loop_is_the_default_and_its_report_is_whole() {
    let (shell, folder) = (Shell::new(), folder());
    let report = folder.path().join("r");
    let more = ["bench", "--workload", "ycsb-d", "--threads", "2", "--arrivals", "poisson", "--report"];
    let more = [&more[..], &[report.to_str().unwrap()], &SHORT[..6], &["--json"]].concat();
    let ran = shell.run(&more);
    let measured = value(&ran.stdout);
    assert_eq!((&measured["loop"], &measured["rate_was_found"]), (&json!("open"), &json!(true)));
    assert!(measured["offered_rate"].as_f64() >= Some(1.0), "{measured:#}");
    assert!(ran.stderr.contains("half of what a closed loop gets"), "{}", ran.stderr);
    for (at, kind) in [
        ("/noise/stolen", "number"),
        ("/noise/timer_late_us_p99", "number"),
        ("/stops/cpu/us", "number"),
        ("/noisy", "flag"),
    ] {
        let value = measured.pointer(at).unwrap();
        assert!(if kind == "flag" { value.is_boolean() } else { value.is_number() }, "{at}: {measured:#}");
    }
    for at in ["/host/kernel", "/build/revision", "/build/program_crc32c", "/arrivals", "/keys_by", "/client"]
    {
        assert!(measured.pointer(at).is_some_and(Value::is_string), "{at}: {measured:#}");
    }
    for latencies in ["latencies_us", "service_us", "late_us", "reads_us", "writes_us"] {
        assert!(measured[latencies]["count"].is_u64(), "{latencies}: {measured:#}");
    }
    let log = read(&std::fs::read(report.join("latency.hlog")).unwrap()).unwrap();
    let logged: u64 = log.iter().map(|logged| logged.latencies.count()).sum();
    assert_eq!(Some(logged), measured["latencies_us"]["count"].as_u64());
    let seconds = measured["seconds"].as_array().unwrap();
    assert_eq!(seconds.iter().map(|second| second["count"].as_u64().unwrap()).sum::<u64>(), logged);
    let table = std::fs::read_to_string(report.join("latency.hgrm")).unwrap();
    assert!(table.contains(&format!("Total count    = {logged:12}]")), "{table}");
    let svg = std::fs::read_to_string(report.join("latency.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("ycsb-d, open loop"), "{svg}");
}

#[test]
fn a_workload_of_a_file_a_trace_and_what_is_wrong_with_them() {
    let (shell, folder) = (Shell::new(), folder());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = "keys_by = \"hot:10%:90%:100ms\"\nitem_bytes = \"100:90%,1024:10%\"\n\
                [mix]\nget = 50\nput = 30\nscan = 10\nupdate = 5\ninsert = 3\ndelete = 2\n";
    let mine = write("mine.toml", text);
    let run = |more: &[&str]| shell.run(&[&["bench"][..], more, &SHORT].concat());
    let measured = value(&run(&["--workload", &mine, "--rate", "200", "--client", "epoll"]).stdout);
    assert_eq!((&measured["workload"], &measured["errors"]), (&json!("mine"), &json!({})), "{measured:#}");
    assert_eq!((&measured["mix"]["scan"], &measured["client"]), (&json!(10), &json!("epoll")));
    assert_eq!((&measured["offered"], &measured["item_bytes"]), (&json!(100), &json!("100:90%,1024:10%")));
    for (text, says) in [
        ("[mix]\nget = 100\ngte = 1\n", "bad.toml:3: unknown field `gte`"),
        ("[mix]\nget = 100\nupdat = 1\n", "did you mean `update`?"),
        ("key_by = \"latest\"\n[mix]\nget = 100\n", "did you mean `keys_by`?"),
        ("[mix]\nget = 99\n", "together make 100"),
        ("keys_by = \"often\"\n[mix]\nget = 100\n", "keys_by: \"often\" is no way"),
    ] {
        shell.fails(&["bench", "--workload", &write("bad.toml", text)], says);
    }
    let line = |at: usize, op: &str| format!("{{\"at_us\": {at}, \"op\": \"{op}\", \"key\": {}}}\n", at % 7);
    let requests: String =
        (0..100).map(|number| line(number * 2000, if number % 2 == 0 { "put" } else { "get" })).collect();
    let trace = write("trace.jsonl", &requests);
    let measured = value(&run(&["--trace", &trace, "--speed", "2"]).stdout);
    assert_eq!((&measured["offered"], &measured["latencies_us"]["count"]), (&json!(100), &json!(100)));
    assert_eq!((&measured["arrivals"], &measured["speed"]), (&json!("trace"), &json!(2.0)));
    let bad = write("bad.jsonl", &(line(5, "put") + &line(4, "put")));
    shell.fails(&["bench", "--trace", &bad], "line 2: at_us is 4");
    let usage = |arguments: &[&str]| finish(&mut evenkeel(arguments)).code;
    assert_eq!(usage(&["bench", "--rate", "5", "--closed", "5"]), Some(2));
    assert_eq!(usage(&["bench", "--rate", "0"]), Some(2));
    assert_eq!(usage(&["bench", "--item-bytes", "9..1"]), Some(2));
    shell.fails(&["bench", "--pin", "4096", "--rate", "5"], "CPU 4096 cannot be pinned to");
}

/// Writes a report of twenty seconds, in which latencies go from `micros` to twice that.
fn report(folder: &Path, micros: u64, seed: u64, valid: bool) {
    std::fs::create_dir_all(folder).unwrap();
    let mut log = IntervalLog::begin();
    for index in 0..20 {
        let mut interval = Interval { index, ..Interval::default() };
        for number in 0..600 {
            let spread = (number * 7919 + index * 104_729 + seed * 1_299_709) % 1000;
            interval.latencies.record(Duration::from_micros(micros + micros * spread / 1000));
        }
        log.push(&interval);
    }
    std::fs::write(folder.join("latency.hlog"), log.text(&[])).unwrap();
    let report = json!({"valid": valid, "measured_seconds": 20.0, "workload": "put", "loop": "open"});
    std::fs::write(folder.join("report.json"), report.to_string()).unwrap();
}

#[test]
fn a_comparison_finds_what_was_planted_and_nothing_else() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for seed in 0..3 {
        report(&path("before").join(seed.to_string()), 1000, seed, true);
        report(&path("again").join(seed.to_string()), 1000, seed + 10, true);
        report(&path("slower").join(seed.to_string()), 1200, seed + 20, true);
    }
    report(&path("invalid"), 1000, 1, false);
    let compare = |before: &str, after: &str| {
        let (before, after) = (path(before), path(after));
        finish(&mut evenkeel(&[
            "bench",
            "compare",
            before.to_str().unwrap(),
            after.to_str().unwrap(),
            "--json",
        ]))
    };
    let same = compare("before", "again");
    assert_eq!((same.code, &value(&same.stdout)["worse"]), (Some(0), &json!(false)), "{}", same.stdout);
    assert_eq!(value(&same.stdout)["runs"], json!([3, 3]));
    let slower = compare("before", "slower");
    assert_eq!((slower.code, &value(&slower.stdout)["worse"]), (Some(1), &json!(true)), "{}", slower.stdout);
    let p99 = value(&slower.stdout)["figures"].as_array().unwrap()[2].clone();
    assert_eq!((&p99["name"], &p99["verdict"]), (&json!("p99"), &json!("worse")));
    assert!((p99["ratio"].as_f64().unwrap() - 1.2).abs() < 0.02, "{p99}");
    assert_eq!(compare("slower", "before").code, Some(0), "what is better is no regression");
    let single = compare("before/0", "again/0");
    assert_eq!(single.code, Some(0), "{}", single.stdout);
    assert!(single.stderr.contains("a side has one run"), "{}", single.stderr);
    let invalid = compare("before", "invalid");
    assert_eq!(invalid.code, Some(4), "{}", invalid.stderr);
    let nothing = compare("before", "nowhere");
    assert_eq!(nothing.code, Some(1), "{}", nothing.stderr);
}

#[test]
fn a_sweep_tells_every_rate_and_the_knee() {
    let (shell, folder) = (Shell::new(), folder());
    let path = folder.path().to_str().unwrap();
    // The highest rate is one that everything serves, and no tail is too long: so that is the knee.
    let rates = ["bench", "sweep", "--workload", "get", "--from", "20", "--to", "40", "--p99", "1m"];
    let sweep = value(&shell.ok(&[&rates[..], &["--report", path], &SHORT].concat()));
    let points = sweep["points"].as_array().unwrap();
    let good: Vec<f64> = points
        .iter()
        .filter(|point| point["good"] == json!(true))
        .map(|point| point["rate"].as_f64().unwrap())
        .collect();
    assert_eq!(good, [20.0, 40.0], "{sweep:#}");
    assert_eq!(sweep["knee"]["rate"], json!(40.0));
    let written = std::fs::read_to_string(folder.path().join("sweep.json")).unwrap();
    assert_eq!(value(&written), sweep);
    let svg = std::fs::read_to_string(folder.path().join("sweep.svg")).unwrap();
    assert!(svg.contains("knee: 40 a second"), "{svg}");
    // Nobody answers within a microsecond, so there is no knee, and the search ends below one a second.
    let none = ["bench", "sweep", "--from", "3", "--to", "3", "--p99", "0.001ms"];
    let none = shell.run(&[&none[..], &SHORT].concat());
    assert_eq!(none.code, Some(1), "{}", none.stderr);
    assert!(none.stderr.contains("no rate was served well"), "{}", none.stderr);
}
