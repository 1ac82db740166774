//! `evenkeel tail` names what was planted, and accounts for the time of the slowest requests.

mod support;

use evenkeel::cluster::Cluster;
use evenkeel::config::Config;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{Processes, finish};

/// Clusters that are measured at the same time are each other's neighbours.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host may do something of its own that is worse than what was planted, and is rightly named instead: what
/// was planted is named in one of three measurements.
fn named(measure: impl Fn() -> Value, is_named: impl Fn(&Value) -> bool) {
    const MEASUREMENTS: usize = 3;
    let mut said = Value::Null;
    for _ in 0..MEASUREMENTS {
        said = measure();
        check_explained(&said);
        if is_named(&said) {
            return;
        }
    }
    panic!("what was planted is not named: {said:#}");
}

/// A cluster whose processes were started anew with a changed configuration.
fn cluster(more: &[&str], names: &[&str], change: impl Fn(&mut Config)) -> Processes {
    let cluster = Processes::up(more);
    cluster.run("down", &[]).ok();
    let processes = Cluster::open(cluster.path()).unwrap();
    for name in names {
        processes.configure(name, &change).unwrap();
    }
    cluster.run("up", &[]).ok();
    cluster
}

/// What `tail` says of writes, or reads, while they go on.
fn tail_of(cluster: &Processes, only: &str, load: &[&str]) -> Value {
    let mut bench = cluster.command(&["bench", "--for", "16s", "--warm-up", "1s"]);
    let bench = bench.args(load).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut bench = Ended(bench.spawn().unwrap());
    // Until there are requests to look at.
    support::wait_for("requests", || {
        let ran = finish(&mut cluster.command(&["tail", "--json", "--only", only]));
        let said: Value = serde_json::from_str(&ran.stdout).ok()?;
        (said["requests"].as_f64()? > 300.0).then_some(())
    });
    let mut tail = cluster.command(&["tail", "--json", "--for", "11s", "--only", only]);
    let said: Value = serde_json::from_str(&finish(&mut tail).ok()).unwrap();
    bench.0.wait().unwrap();
    for part in ["stages_ns", "met"] {
        println!("{}", band(&said, 99.9)[part]);
    }
    println!("{} requests, {} explained", said["requests"], said["explained"]);
    for band in said["percentiles"].as_array().unwrap() {
        println!("{}", band["says"].as_str().unwrap());
    }
    said
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// The band of a percentile.
fn band(said: &Value, percentile: f64) -> &Value {
    let bands = said["percentiles"].as_array().unwrap();
    bands.iter().find(|band| band["percentile"].as_f64() == Some(percentile)).unwrap()
}

fn check_explained(said: &Value) {
    let explained = said["explained"].as_f64().unwrap();
    assert!(explained >= 0.95, "{explained} of the slowest requests' time has a name: {said:#}");
}

#[test]
fn slow_flushes_of_the_replicas_that_a_quorum_needs_are_named() {
    // Of three, two are slow: whoever leads, every write waits for one of them.
    let slow = |config: &mut Config| {
        config.storage.iter_mut().for_each(|storage| storage.write_delay_ms = 20);
    };
    let (_alone, cluster) = (alone(), cluster(&[], &["n1", "n2"], slow));
    let said = tail_of(&cluster, "writes", &["--closed", "8", "--keys", "200"]);
    for percentile in [50.0, 99.0] {
        let dominant = &band(&said, percentile)["dominant"];
        assert_eq!((&dominant["cause"], &dominant["origin"]), (&"flush".into(), &"host".into()), "{said:#}");
        assert!(dominant["ns"].as_f64() >= Some(15e6), "{dominant}");
        assert_ne!(dominant["node"], "n3", "{dominant}");
    }
    check_explained(&said);
}

#[test]
fn one_slow_replica_that_no_quorum_needs_is_not_named() {
    let slow = |config: &mut Config| {
        config.storage.iter_mut().for_each(|storage| storage.write_delay_ms = 400);
    };
    let (_alone, cluster) = (alone(), cluster(&[], &["n3"], slow));
    let said = tail_of(&cluster, "writes", &["--closed", "4", "--keys", "200"]);
    let dominant = &band(&said, 50.0)["dominant"];
    assert!(dominant["ns"].as_f64() < Some(400e6), "nobody waits for a delay of 400 ms: {dominant}");
    assert_ne!((&dominant["cause"], &dominant["node"]), (&"flush".into(), &"n3".into()), "{dominant}");
}

#[test]
fn a_neighbour_on_the_leaders_cpu_is_named() {
    if !has_taskset() {
        println!("taskset is not here: this shows nothing");
        return;
    }
    let pinned = |config: &mut Config| config.runtime.cpus = vec![0];
    let (_alone, cluster) = (alone(), cluster(&["--nodes", "1"], &["n1"], pinned));
    let spin = || {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
        Ended(command.stdin(Stdio::null()).spawn().unwrap())
    };
    let _hogs = [spin(), spin()];
    // Writes would also wait for the kernel's workers, which have that neighbour too.
    let load = ["--workload", "get", "--closed", "4", "--keys", "200"];
    named(|| tail_of(&cluster, "reads", &load), |said| is_dominant(said, 99.0, ("run-queue", "host")));
}

fn is_dominant(said: &Value, percentile: f64, (cause, origin): (&str, &str)) -> bool {
    let dominant = &band(said, percentile)["dominant"];
    dominant["cause"] == cause && dominant["origin"] == origin
}

fn has_taskset() -> bool {
    let found = Command::new("taskset").arg("--version").stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

#[test]
fn a_checkpoint_that_is_not_paced_is_named() {
    let _alone = alone();
    let cluster = Processes::up_planted(&["--nodes", "1", "--segment-mib", "32"], Some("unpaced-checkpoint"));
    let load = ["--rate", "4000", "--keys", "1000000", "--item-bytes", "4000"];
    // The turns are so long that neighbours take some of that time: at one of the two it may be most of it.
    let is_checkpoint = |said: &Value| {
        let is_named = |percentile| is_dominant(said, percentile, ("checkpoint", "ours"));
        let met = band(said, 99.9)["met"]["checkpoint"].as_f64();
        met > Some(0.9) && (is_named(99.0) || is_named(99.9))
    };
    named(|| tail_of(&cluster, "writes", &load), is_checkpoint);
}
