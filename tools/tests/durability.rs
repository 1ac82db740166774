//! What the operating system knows: the log bypasses its caches, and every log write reaches the device.

mod support;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use support::{Processes, finish, item};

/// O_DIRECT in the kernel's `fcntl.h`.
#[cfg(target_arch = "x86_64")]
const O_DIRECT: u32 = 0o40_000;
#[cfg(target_arch = "aarch64")]
const O_DIRECT: u32 = 0o200_000;

/// The open files of a process whose names begin with `prefix`, and their flags.
fn open_files(pid: u32, prefix: &str) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        let Ok(path) = fs::read_link(entry.path()) else {
            continue;
        };
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        let number = entry.file_name().into_string().unwrap();
        let facts = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
        let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        found.push((path, u32::from_str_radix(flags.trim(), 8).unwrap()));
    }
    found
}

#[test]
fn every_file_of_a_core_is_open_with_o_direct() {
    let cluster = Processes::up(&[]);
    for node in ["n1", "n2", "n3"] {
        for (prefix, count) in [("log-", 8), ("superblock", 1), ("checkpoint-", 2), ("tree", 1)] {
            let files = open_files(cluster.pid(node), prefix);
            assert_eq!(files.len(), count, "{files:?}");
            assert!(files.iter().all(|(_, flags)| flags & O_DIRECT != 0), "{files:?}");
        }
    }
}

/// How many flushes the device under a folder has completed, if the kernel counts them.
fn device_flushes(folder: &Path) -> Option<u64> {
    let device = fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A device without a volatile cache has nothing to flush.
    let cache = ["queue/write_cache", "../queue/write_cache"];
    let cache = cache.iter().find_map(|name| fs::read_to_string(format!("{device}/{name}")).ok())?;
    let counted = fs::read_to_string(format!("{device}/stat")).ok()?;
    (cache.trim() == "write back").then(|| counted.split_whitespace().nth(15)?.parse().ok())?
}

fn log_writes(status: &Value) -> Vec<u64> {
    let cores = status["cores"].as_array().unwrap().iter();
    cores.map(|core| core["log"]["writes"].as_u64().unwrap_or(0)).collect()
}

/// Log writes on two replicas, and flushes of the device, during requests that come one at a time.
fn count(planted: Option<&str>) -> Option<(u64, u64, u64)> {
    let cluster = Processes::up_planted(&[], planted);
    device_flushes(cluster.path())?;
    finish(&mut cluster.command(&["table", "create", "t", "--key", "id:S"])).ok();
    // With all three running, the device may serve two flushes at once by one.
    cluster.run("kill", &["n3"]).ok();
    let client = cluster.client();
    let put = |number: u64| {
        client.put("t", item(&format!("{{\"id\":{{\"S\":\"{number}\"}}}}"))).send().unwrap();
    };
    // Leaders that were on n3 are elsewhere once each partition has taken a write.
    (0..100).for_each(put);
    // Flushes are counted around the log writes, so that what goes on beside the requests counts as both or
    // as a flush.
    let before = device_flushes(cluster.path())?;
    let writes_before = log_writes(&cluster.status().1);
    (100..REQUESTS + 100).for_each(put);
    let writes = log_writes(&cluster.status().1);
    let flushes = device_flushes(cluster.path())? - before;
    let of = |node: usize| writes[node] - writes_before[node];
    println!("{planted:?}: {REQUESTS} requests, {} and {} log writes, {flushes} flushes", of(0), of(1));
    Some((of(0), of(1), flushes))
}

const REQUESTS: u64 = 300;

#[test]
fn each_log_write_on_each_of_two_replicas_is_a_flush_of_the_device() {
    let Some((first, second, flushes)) = count(None) else {
        println!("this device's flushes are not counted: nothing can be said here");
        return;
    };
    assert!(first >= REQUESTS && second >= REQUESTS, "each request is in two logs: {first}, {second}");
    assert!(flushes >= 2 * REQUESTS, "{first} + {second} log writes, {flushes} flushes");
    // The same with a build that does not flush must not pass.
    let (first, second, flushes) = count(Some("skip-flush")).unwrap();
    assert!(first >= REQUESTS && second >= REQUESTS, "it writes all the same: {first}, {second}");
    assert!(flushes < 2 * REQUESTS, "without flushes there are fewer: {flushes}");
}
