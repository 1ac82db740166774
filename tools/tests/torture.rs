//! `evenkeel torture`, shortly: a mix of faults and a leader that is stopped break no promise, and an
//! interrupted run leaves nothing behind. How long anything takes is not looked at.
//!
//! It needs root and a host with network namespaces: without, the test says so and shows nothing.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{evenkeel, finish, folder, wait_for};

/// The verb, with everything that it makes in `place`.
fn torture(place: &Path, arguments: &[&str]) -> Command {
    let mut command = evenkeel(&["torture", "--json", "--seed", "7"]);
    command.args(arguments).arg("--report").arg(place.join("report")).env("TMPDIR", place);
    command
}

/// Its report, and whether it found a promise broken. None: this host cannot have a run.
fn run(mut command: Command) -> Option<Value> {
    let ran = finish(&mut command);
    if ran.code == Some(77) {
        eprintln!("not shown here: {}", ran.stderr);
        return None;
    }
    let report = serde_json::from_str(&ran.stdout);
    let report: Value = report.unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    assert!(report["answered"].as_u64() > Some(100), "{report:#}");
    Some(report)
}

/// Processes that have a path in their command line, apart from one.
fn processes(path: &Path, but: u32) -> Vec<String> {
    let words = path.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let commands = numbers.filter(|number| *number != but).filter_map(|number| {
        let command = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        Some(String::from_utf8_lossy(&command).replace('\0', " "))
    });
    commands.filter(|command| command.contains(words)).collect()
}

/// Ends it, also when a check fails.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn an_interrupted_run_leaves_nothing_behind(place: &Path) {
    let child = torture(place, &["--for", "1h"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = Ending(child.unwrap());
    let outer = child.0.id();
    wait_for("a cluster", || {
        let nodes = processes(place, outer).iter().filter(|line| line.contains("/config/n")).count();
        (nodes >= 3).then_some(())
    });
    finish(Command::new("kill").args(["-INT", &outer.to_string()])).ok();
    let status = wait_for("its end", || child.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert_eq!(processes(place, outer), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

#[test]
fn faults_break_no_promise_and_nothing_is_left_behind() {
    let place = folder();
    let place = place.path();
    let few = ["--for", "5s", "--clients", "12", "--faults", "KillNode,CutZone,OneWay,Stop"];
    let Some(report) = run(torture(place, &few)) else {
        return;
    };
    assert_eq!(report["violations"], serde_json::json!([]), "{report:#}");
    assert!(report["faults"].as_object().is_some_and(|faults| !faults.is_empty()), "{report:#}");
    let stopped = ["--scenario", "stopped-leader", "--for", "5s", "--clients", "12"];
    let report = run(torture(place, &stopped)).unwrap();
    assert_eq!(report["violations"], serde_json::json!([]), "{report:#}");
    an_interrupted_run_leaves_nothing_behind(place);
}
