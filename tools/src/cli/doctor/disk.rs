//! The disk: how long a commit takes when it is written as a core's log writes it, and settings that decide
//! that.

use super::{Finding, Verdict, busy, finding};
use crate::cli::Failed;
use evenkeel_link::probe::LogCommits;
use rustix::fs::{major, minor};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long each pattern is measured.
const EACH_FOR: Duration = Duration::from_millis(500);
/// What a log writes: one small write at a time when there is little to do, several larger ones under load.
/// Bytes, and how many are under way.
const PATTERNS: [(usize, usize); 5] = [(4096, 1), (4096, 2), (4096, 4), (16 * 1024, 4), (64 * 1024, 4)];
/// A commit that takes longer than this, in the middle, is a slow disk, microseconds.
const COMMIT_SLOW_US: u128 = 2_000;
/// A tail this many times the middle is a rough disk.
const COMMIT_ROUGH: u128 = 20;

/// Everything about the disk under a folder.
pub(super) fn findings(folder: &Path, busy_for: Duration) -> Result<Vec<Finding>, Failed> {
    let mut commits = LogCommits::prepare(folder)?;
    let mut findings = Vec::new();
    for (bytes, depth) in PATTERNS {
        findings.push(commit(bytes, depth, commits.run(bytes, depth, EACH_FOR)?));
    }
    if !busy_for.is_zero() {
        findings.push(busy::finding_of(folder, &mut commits, busy_for)?);
    }
    drop(commits);
    if let Some(queue) = queue_of(folder) {
        let set = |name: &str| fs::read_to_string(queue.join(name)).map(|text| text.trim().to_owned());
        findings.extend(set("write_cache").ok().map(|cache| write_cache(&cache)));
        findings.extend(set("scheduler").ok().map(|scheduler| scheduled(&scheduler)));
    }
    Ok(findings)
}

fn commit(bytes: usize, depth: usize, mut times: Vec<Duration>) -> Finding {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0, Duration::as_micros);
    let (middle, tail) = (at(50), at(99));
    let rate = times.len() as f64 / EACH_FOR.as_secs_f64();
    let measured = format!(
        "p50 {middle} us, p99 {tail} us for a durable {} KiB write, {depth} under way, {rate:.0} a second",
        bytes >> 10
    );
    if middle > COMMIT_SLOW_US {
        let advice =
            "each write waits for two of three such commits; use a disk with a protected write cache";
        return finding(Verdict::Warn, "disk", measured, advice);
    }
    if tail > middle * COMMIT_ROUGH {
        let advice =
            "commits stall now and then; look for other users of the disk, and for discards (fstrim)";
        return finding(Verdict::Warn, "disk", measured, advice);
    }
    finding(Verdict::Ok, "disk", measured, "")
}

/// Where the kernel tells how the folder's disk is set; none for a file system without one disk of its own.
fn queue_of(folder: &Path) -> Option<PathBuf> {
    let device = fs::metadata(folder).ok()?.dev();
    let disk = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    // A partition has no queue; its disk, the folder above, does.
    let disk = fs::canonicalize(disk).ok()?;
    [disk.join("queue"), disk.parent()?.join("queue")].into_iter().find(|queue| queue.is_dir())
}

fn write_cache(cache: &str) -> Finding {
    if cache != "write back" {
        return finding(
            Verdict::Ok,
            "disk cache",
            format!("{cache}: a write is durable without a flush"),
            "",
        );
    }
    let measured = "write back: each commit flushes the disk's volatile cache";
    let advice = "a flush makes most of a commit's time; a disk whose cache is protected against power loss \
                  says \"write through\" and needs none. Never set that by hand on one that is not: it loses \
                  acknowledged data";
    finding(Verdict::Warn, "disk cache", measured, advice)
}

fn scheduled(schedulers: &str) -> Finding {
    let chosen = schedulers.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or(schedulers);
    if matches!(chosen, "none" | "noop") {
        return finding(Verdict::Ok, "disk scheduler", chosen, "");
    }
    let advice = "commits are queued behind reads and other writes; on an SSD or a virtual disk, write \
                  \"none\" to its queue/scheduler under /sys/block";
    finding(Verdict::Warn, "disk scheduler", chosen, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_the_kernel_writes_them() {
        assert_eq!(write_cache("write back").verdict, Verdict::Warn);
        assert_eq!(write_cache("write through").verdict, Verdict::Ok);
        let chosen = ["[none] mq-deadline kyber", "none [mq-deadline] kyber", "none"].map(scheduled);
        assert_eq!(chosen.map(|found| found.measured), ["none", "mq-deadline", "none"]);
    }

    #[test]
    fn a_slow_commit_and_a_rough_disk_are_told_apart() {
        let verdict = |middle: u64, tail: u64| {
            let mut times = vec![Duration::from_micros(middle); 95];
            times.extend([Duration::from_micros(tail); 5]);
            commit(4096, 1, times)
        };
        assert_eq!(verdict(100, 300).verdict, Verdict::Ok);
        assert!(verdict(5000, 5000).advice.contains("protected"));
        assert!(verdict(100, 5000).advice.contains("stall"));
        assert!(verdict(100, 300).measured.contains("p50 100 us, p99 300 us"));
    }
}
