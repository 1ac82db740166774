//! The disk while every CPU has something to do, as under load: where a hypervisor's threads share CPUs with
//! this machine's, a disk that commits evenly beside idle CPUs may stand still for long beside busy ones.

use super::{Finding, Verdict, finding};
use crate::cli::Failed;
use crate::cli::output::bar;
use evenkeel_bench::stops::{Stops, Watcher};
use evenkeel_link::cpus;
use evenkeel_link::probe::LogCommits;
use rustix::process::setpriority_process;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, scope};
use std::time::Duration;

/// What is written: bytes, and how many writes are under way.
const WRITES: (usize, usize) = (16 * 1024, 4);
/// A write that takes longer, although nothing stood still, has waited behind those of somebody else. Beside
/// busy threads one takes up to ten milliseconds without them.
const WAITED: Duration = Duration::from_millis(15);
/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(500);
/// The lowest priority: whoever has work runs before a thread of it.
const NICE_LOWEST: i32 = 19;

/// Writes for the time `period` beside a thread on each CPU that is always busy, and yields to all others.
pub(super) fn finding_of(
    folder: &Path,
    commits: &mut LogCommits,
    period: Duration,
) -> Result<Finding, Failed> {
    let progress = bar(period.as_millis() as u64, "writing beside busy CPUs {bar:30} {eta} left");
    let done = AtomicBool::new(false);
    let (longest, stops) = scope(|threads| {
        let _ended = EndsThem(&done);
        for cpu in cpus::usable() {
            let done = &done;
            Builder::new().name("busy".to_owned()).spawn_scoped(threads, move || keep_busy(cpu, done))?;
        }
        let watcher = Watcher::start(Some(folder))?;
        let (mut longest, mut left) = (Duration::ZERO, period);
        while !left.is_zero() {
            let part = left.min(SHOWN_EVERY);
            let times = commits.run(WRITES.0, WRITES.1, part)?;
            longest = times.into_iter().fold(longest, Duration::max);
            left -= part;
            progress.inc(part.as_millis() as u64);
        }
        Ok::<_, Failed>((longest, watcher.end()))
    })?;
    progress.finish_and_clear();
    Ok(judge(longest, period, &stops))
}

/// Ends the busy threads, however the writes ended: the scope waits for them.
struct EndsThem<'a>(&'a AtomicBool);

impl Drop for EndsThem<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn keep_busy(cpu: usize, done: &AtomicBool) {
    // Of the calling thread alone, as Linux has it. One that keeps its priority would take the CPU from the
    // writes, which are to be late by the host only.
    if !cpus::pin(cpu) || setpriority_process(None, NICE_LOWEST).is_err() {
        return;
    }
    while !done.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

fn judge(longest: Duration, period: Duration, stops: &Stops) -> Finding {
    let measured = format!(
        "the longest durable 16 KiB write in {:.1} s took {:.1} ms; {}",
        period.as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        stops.line()
    );
    let (verdict, advice) = if !stops.complaints().is_empty() {
        let advice = "all that is under way waits for the host, and a benchmark's tail is the host's; let \
                      nobody else use the CPUs, and give a virtual machine's disk thread one of its own \
                      (--for 60s finds stalls that are seldom)";
        (Verdict::Warn, advice)
    } else if longest > WAITED {
        let advice = "most likely others write to this disk: files that were just copied or built reach it \
                      half a minute later, in large writes that a log's have to wait for; end them, `sync`, \
                      and look again";
        (Verdict::Warn, advice)
    } else {
        (Verdict::Ok, "")
    };
    finding(verdict, "busy CPUs", measured, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_bench::stops::Still;

    #[test]
    fn a_host_that_stood_still_is_told_from_other_writers_and_from_neither() {
        let of = |longest_ms: u64, disk_ms: u64| {
            let still = |ms: u64| Some(Still { times: 1, us: ms * 1_000, us_max: ms * 1_000 });
            let stops = Stops { seconds: 5.0, cpu: still(1), disk: still(disk_ms) };
            judge(Duration::from_millis(longest_ms), Duration::from_secs(5), &stops)
        };
        let (host, others, neither) = (of(346, 346), of(48, 0), of(2, 0));
        let verdicts = [&host, &others, &neither].map(|found| found.verdict);
        assert_eq!(verdicts, [Verdict::Warn, Verdict::Warn, Verdict::Ok]);
        assert!(host.measured.contains("the disk stood still once, for 346.0 ms"), "{}", host.measured);
        assert!(neither.measured.contains("in 5.0 s took 2.0 ms"), "{}", neither.measured);
        assert!(host.advice.contains("the host's") && others.advice.contains("`sync`"));
    }
}
