//! Threads that keep a CPU. On a kernel that is built for throughput nobody takes the CPU from a thread that
//! is in the kernel, whoever waits for it: not a storage core, and not those kernel threads that end the
//! disk's requests. What such a thread takes of the CPU time says nothing about that; how much it takes at
//! once does.

use super::{Finding, Verdict, finding};
use rustix::param::clock_ticks_per_second;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who takes less at once, on average, is not in the way of a storage core, whose own turns are as long…
const AT_ONCE: Duration = Duration::from_micros(250);
/// …nor is who takes less of a CPU: that is too seldom for the slowest thousandth of the requests.
const SHARE: f64 = 0.001;
/// A younger thread is a command that somebody has just given.
const AGE: Duration = Duration::from_secs(10);
/// So many are named.
const NAMED: usize = 3;

/// A thread, as /proc has it.
#[derive(Clone, Debug, PartialEq)]
struct Neighbour {
    name: String,
    process: u32,
    age: Duration,
    ran: Duration,
    /// How often it was given a CPU.
    times: u64,
}

impl Neighbour {
    /// From `/proc/PID/task/TID/stat`, which has the name in parentheses, the name being anything, and the
    /// time of the start, in ticks since the host's, as its 22nd figure; and `schedstat`: nanoseconds on a
    /// CPU and on a run queue, and how often it was given a CPU (Documentation/scheduler/sched-stats.rst).
    fn read(stat: &str, schedstat: &str, process: u32, up: Duration, ticks_per_second: u64) -> Option<Self> {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let started = rest.split_ascii_whitespace().nth(19)?.parse::<u64>().ok()?;
        let started = Duration::from_secs_f64(started as f64 / ticks_per_second as f64);
        let mut figures = schedstat.split_ascii_whitespace().map(str::parse::<u64>);
        let ran = Duration::from_nanos(figures.next()?.ok()?);
        let times = figures.nth(1)?.ok()?;
        Some(Self { name: name.to_owned(), process, age: up.saturating_sub(started), ran, times })
    }

    fn at_once(&self) -> Duration {
        self.ran.div_f64(self.times.max(1) as f64)
    }

    /// Of one CPU.
    fn share(&self) -> f64 {
        self.ran.as_secs_f64() / self.age.as_secs_f64()
    }

    fn keeps_a_cpu(&self) -> bool {
        self.age >= AGE && self.share() >= SHARE && self.at_once() >= AT_ONCE
    }

    fn words(&self) -> String {
        let (percent, ms) = (self.share() * 100.0, self.at_once().as_secs_f64() * 1e3);
        format!("{} (process {}) {ms:.2} ms at once, {percent:.1}% of a CPU", self.name, self.process)
    }
}

/// Who keeps a CPU on this host, on average since each began.
pub(super) fn finding_here() -> Finding {
    judge(all())
}

fn judge(threads: impl IntoIterator<Item = Neighbour>) -> Finding {
    let mut keep: Vec<Neighbour> = threads.into_iter().filter(Neighbour::keeps_a_cpu).collect();
    if keep.is_empty() {
        return finding(Verdict::Ok, "neighbours", "no thread keeps a CPU for long", "");
    }
    keep.sort_by_key(|neighbour| std::cmp::Reverse(neighbour.at_once()));
    let mut measured: Vec<String> = keep.iter().take(NAMED).map(Neighbour::words).collect();
    if keep.len() > NAMED {
        measured.push(format!("{} more", keep.len() - NAMED));
    }
    let advice = "whoever needs that CPU waits as long or several times as long, the kernel threads that end \
                  the disk's requests too: expect it in the slowest thousandth; move or end who is not \
                  needed, or give storage nodes CPUs of their own (`cpus` in [runtime])";
    finding(Verdict::Warn, "neighbours", measured.join("; "), advice)
}

/// All threads that can be looked at, but for this process's.
fn all() -> Vec<Neighbour> {
    let up = read_to_string("/proc/uptime").ok();
    let up = up.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
    let up = up.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
    let processes = numbers(Path::new("/proc")).filter(|(process, _)| *process != std::process::id());
    let threads = processes
        .flat_map(|(process, path)| numbers(&path.join("task")).map(move |(_, path)| (process, path)));
    threads
        .filter_map(|(process, path)| {
            let read = |file: &str| read_to_string(path.join(file)).ok();
            Neighbour::read(&read("stat")?, &read("schedstat")?, process, up, clock_ticks_per_second())
        })
        .collect()
}

/// What in `folder` has a number as its name. Processes and threads may end meanwhile.
fn numbers(folder: &Path) -> impl Iterator<Item = (u32, PathBuf)> + use<> {
    let entries = read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (kd (0) x) I 2 0 0 0 -1 2129984 0 0 0 0 0 25498 0 0 20 0 1 0 5000 0 0 0 0";

    fn neighbour(name: &str, age_s: u64, ran_us: u64, times: u64) -> Neighbour {
        let (age, ran) = (Duration::from_secs(age_s), Duration::from_micros(ran_us));
        Neighbour { name: name.to_owned(), process: 77, age, ran, times }
    }

    #[test]
    fn a_thread_is_read_whatever_its_name() {
        let read = Neighbour::read(STAT, "400000 7 1\n", 77, Duration::from_secs(60), 100).unwrap();
        assert_eq!(read, neighbour("kd (0) x", 10, 400, 1));
        for (stat, schedstat) in
            [("", "1 2 3"), ("77 (kd", "1 2 3"), (STAT, ""), (STAT, "1 2"), (STAT, "1 2 x")]
        {
            assert_eq!(
                Neighbour::read(stat, schedstat, 77, Duration::ZERO, 100),
                None,
                "{stat:?} {schedstat:?}"
            );
        }
    }

    #[test]
    fn who_keeps_a_cpu_often_enough_is_named() {
        let long = |name| neighbour(name, 1000, 2_000_000, 5000);
        assert_eq!(
            judge([long("kdamond.0")]).measured,
            "kdamond.0 (process 77) 0.40 ms at once, 0.2% of a CPU"
        );
        let many = judge([long("a"), neighbour("longest", 1000, 2_000_000, 1000), long("c"), long("d")]);
        assert!(
            many.measured.starts_with("longest ") && many.measured.ends_with("; 1 more"),
            "{}",
            many.measured
        );
        assert_eq!(many.verdict, Verdict::Warn);
    }

    #[test]
    fn who_lets_go_or_is_seldom_or_new_is_not() {
        let quiet = [
            neighbour("often and short", 1000, 500_000_000, 5_000_000),
            neighbour("long and seldom", 1000, 900_000, 1),
            neighbour("new", 9, 9_000_000, 9),
            neighbour("never", 1000, 0, 0),
            neighbour("at this moment", 0, 0, 0),
        ];
        assert_eq!(judge(quiet).verdict, Verdict::Ok);
    }

    #[test]
    fn the_threads_of_this_host_are_found() {
        let parent = std::os::unix::process::parent_id();
        assert!(all().iter().any(|neighbour| neighbour.process == parent));
    }
}
