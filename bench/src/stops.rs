//! What the host did while a load ran: how often, and for how long, a CPU or the disk stood still.
//!
//! [`noise`](crate::noise) asks that of an idle host, before a run. Here the load's own work must not count:
//!
//! * A CPU. On each of them a thread sleeps for a moment, over and over. How late it is, less the time that
//!   it was runnable and another thread had the CPU (`/proc/thread-self/schedstat`), is time in which the CPU
//!   did nothing that its kernel knows of: the hypervisor had given it to somebody else.
//! * The disk. It stands still while requests are under way and none ends, as its counters
//!   (`/sys/dev/block/*/stat`) say. A device that works ends some of them all the time.
//!
//! A stop that both began and ended between two looks is not seen, and of any other a part may be missing.
//!
//! What stood still too much makes a run NOISY: its tail is the host's.

use crate::clock::{now, sleep};
use crate::host::disk_counters;
use evenkeel_link::{RunQueue, cpus, slice};
use serde::Serialize;
use std::fs::read_to_string;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a CPU is looked at: about so much of a stop is not seen.
const CPU_EVERY: Duration = Duration::from_millis(2);
/// A CPU that stands still for less is not counted: interrupts and timers are that late anyway.
const CPU_MIN: Duration = Duration::from_millis(1);
/// A watching thread that waits for its CPU sees no stop, so that it shall not wait long: its time slice.
const CPU_SLICE: Duration = Duration::from_micros(100);
/// How often the disk is looked at.
const DISK_EVERY: Duration = Duration::from_millis(5);
/// A disk that is seen without progress once only is not counted either.
const DISK_MIN: Duration = DISK_EVERY;
/// A host that stood still for a larger share of the time is noisy. The requests of that time, and those that
/// wait behind them, are more than half of the slowest thousandth.
pub const STILL_MAX: f64 = 0.0005;

/// How long something stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Still {
    /// How often.
    pub times: u64,
    /// All together, microseconds.
    pub us: u64,
    /// At once, microseconds.
    pub us_max: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stops {
    /// How long it was watched.
    pub seconds: f64,
    /// The CPU that stood still for longest; none: the kernel does not tell how long threads wait.
    pub cpu: Option<Still>,
    /// The disk; none: no folder was given, or what it is on has no counters.
    pub disk: Option<Still>,
}

impl Still {
    fn note(&mut self, time: Duration) {
        let us = time.as_micros() as u64;
        (self.times, self.us, self.us_max) = (self.times + 1, self.us + us, self.us_max.max(us));
    }

    fn words(self, what: &str) -> String {
        let ms = |us: u64| us as f64 / 1e3;
        match self.times {
            0 => format!("{what} never stood still"),
            1 => format!("{what} stood still once, for {:.1} ms", ms(self.us)),
            times => {
                let (all, longest) = (ms(self.us), ms(self.us_max));
                format!(
                    "{what} stood still {times} times, for {all:.1} ms in all and {longest:.1} ms at once"
                )
            }
        }
    }
}

impl Stops {
    fn each(&self) -> impl Iterator<Item = (&'static str, Still)> {
        [("a CPU", self.cpu), ("the disk", self.disk)]
            .into_iter()
            .filter_map(|(what, still)| Some((what, still?)))
    }

    /// Why the run counts as noisy; empty: it does not.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let most = self.seconds * STILL_MAX * 1e6;
        self.each()
            .filter(|(_, still)| still.us as f64 > most)
            .map(|(what, still)| still.words(what))
            .collect()
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let said: Vec<String> = self.each().map(|(what, still)| still.words(what)).collect();
        let said = if said.is_empty() { "nothing is known of it".to_owned() } else { said.join("; ") };
        format!("host meanwhile: {said}")
    }
}

/// Threads that watch. They end when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    since: Instant,
    stop: Arc<AtomicBool>,
    cpus: Vec<JoinHandle<Option<Still>>>,
    disk: Option<JoinHandle<Still>>,
}

impl Watcher {
    /// Watches every CPU that is online, and the disk under `folder`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(folder: Option<&Path>) -> io::Result<Self> {
        let mut watcher =
            Self { since: now(), stop: Arc::new(AtomicBool::new(false)), cpus: Vec::new(), disk: None };
        let thread = || std::thread::Builder::new().name("stops".to_owned());
        for cpu in cpus::online() {
            let stop = Arc::clone(&watcher.stop);
            watcher.cpus.push(thread().spawn(move || watch_cpu(cpu, &stop))?);
        }
        if let Some(counters) = folder.and_then(disk_counters) {
            let stop = Arc::clone(&watcher.stop);
            watcher.disk = Some(thread().spawn(move || watch_disk(&counters, &stop))?);
        }
        Ok(watcher)
    }

    /// Ends watching.
    #[must_use]
    pub fn end(mut self) -> Stops {
        let seconds = (now() - self.since).as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        let cpus = std::mem::take(&mut self.cpus).into_iter().filter_map(|thread| thread.join().ok()?);
        let cpu = cpus.max_by_key(|still| still.us);
        let disk = self.disk.take().and_then(|thread| thread.join().ok());
        Stops { seconds, cpu, disk }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// None: this CPU cannot be watched.
fn watch_cpu(cpu: usize, stop: &AtomicBool) -> Option<Still> {
    let run_queue = RunQueue::of_this_thread()?;
    if !cpus::pin_to_any(cpu) {
        return None;
    }
    let _where_the_kernel_knows_them = slice::ask_for(CPU_SLICE);
    let (mut still, mut queued) = (Still::default(), run_queue.waited_ns()?);
    while !stop.load(Ordering::Relaxed) {
        let due = now() + CPU_EVERY;
        sleep(CPU_EVERY);
        let late = now().saturating_duration_since(due);
        let before = std::mem::replace(&mut queued, run_queue.waited_ns()?);
        if let Some(gone) = gone(late, Duration::from_nanos(queued.saturating_sub(before))) {
            still.note(gone);
        }
    }
    Some(still)
}

/// How long the CPU was gone, if so, when a thread of it was that late and was kept waiting by other threads
/// for that long.
fn gone(late: Duration, queued: Duration) -> Option<Duration> {
    Some(late.saturating_sub(queued)).filter(|gone| *gone >= CPU_MIN)
}

/// A disk's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    ended: u64,
    under_way: u64,
}

impl Counters {
    /// Reads `/sys/dev/block/*/stat` (Documentation/block/stat.rst): reads, writes, discards and flushes that
    /// ended, and requests under way.
    fn read(text: &str) -> Option<Self> {
        let fields: Vec<u64> = text.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        let ended = [0, 4, 11, 15].into_iter().filter_map(|field| fields.get(field)).sum();
        Some(Self { ended, under_way: *fields.get(8)? })
    }
}

/// A disk, as it is looked at over and over.
#[derive(Debug, Default)]
struct DiskLooks {
    still: Still,
    /// The last look, and the first one since which nothing has ended although something was under way.
    last: Option<(Duration, Counters)>,
    since: Option<Duration>,
}

impl DiskLooks {
    fn look(&mut self, at: Duration, counters: Counters) {
        let last = self.last.replace((at, counters));
        let Some((before, last)) = last else {
            return;
        };
        if last.under_way > 0 && counters.under_way > 0 && last.ended == counters.ended {
            self.since.get_or_insert(before);
        } else {
            self.moves(before);
        }
    }

    /// It moved again after `last`.
    fn moves(&mut self, last: Duration) {
        if let Some(since) = self.since.take()
            && last - since >= DISK_MIN
        {
            self.still.note(last - since);
        }
    }
}

fn watch_disk(counters: &Path, stop: &AtomicBool) -> Still {
    let (since, mut looks) = (now(), DiskLooks::default());
    while !stop.load(Ordering::Relaxed) {
        if let Some(counters) = read_to_string(counters).ok().as_deref().and_then(Counters::read) {
            looks.look(now() - since, counters);
        }
        sleep(DISK_EVERY);
    }
    if let Some((last, _)) = looks.last {
        looks.moves(last);
    }
    looks.still
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(ms: &[u64]) -> Still {
        let mut still = Still::default();
        ms.iter().for_each(|ms| still.note(Duration::from_millis(*ms)));
        still
    }

    #[test]
    fn a_host_that_stood_still_for_long_is_noisy_and_one_that_did_for_a_moment_is_not() {
        let stops = |cpu, disk| Stops { seconds: 10.0, cpu: Some(cpu), disk };
        let quiet = stops(still(&[2, 2]), Some(still(&[5])));
        assert!(quiet.complaints().is_empty(), "{quiet:?}");
        assert_eq!(
            quiet.line(),
            "host meanwhile: a CPU stood still 2 times, for 4.0 ms in all and 2.0 ms at once; the disk stood \
             still once, for 5.0 ms"
        );
        let disk = stops(still(&[]), Some(still(&[4, 38])));
        assert_eq!(
            disk.complaints(),
            ["the disk stood still 2 times, for 42.0 ms in all and 38.0 ms at once"]
        );
        assert_eq!(stops(still(&[6]), None).complaints(), ["a CPU stood still once, for 6.0 ms"]);
        let unknown = Stops { seconds: 10.0, cpu: None, disk: None };
        assert_eq!(unknown.line(), "host meanwhile: nothing is known of it");
        assert!(unknown.complaints().is_empty());
    }

    #[test]
    fn a_disk_stands_still_while_something_is_under_way_and_nothing_ends() {
        let mut looks = DiskLooks::default();
        // At ms, requests that have ended, requests under way.
        for (ms, ended, under_way) in [
            (0, 10, 1),
            // Idle, then busy.
            (2, 11, 0),
            (20, 11, 0),
            (22, 12, 3),
            // Still for ten milliseconds, as far as is known.
            (24, 13, 3),
            (26, 13, 4),
            (34, 13, 4),
            (36, 17, 1),
            // Still for too short a time to be told from a slow request.
            (38, 17, 1),
            (40, 18, 1),
            // And until the end.
            (50, 18, 2),
        ] {
            looks.look(Duration::from_millis(ms), Counters { ended, under_way });
        }
        looks.moves(Duration::from_millis(50));
        assert_eq!(looks.still, still(&[10, 10]));
    }

    #[test]
    fn the_kernels_counters_are_read() {
        let text = "  100 0 800 5 200 3 1600 9 7 50 14 30 0 400 2 40 6\n";
        assert_eq!(Counters::read(text), Some(Counters { ended: 370, under_way: 7 }));
        // Older kernels count neither discards nor flushes.
        assert_eq!(Counters::read("1 0 8 5 2 3 16 9 0 50 14"), Some(Counters { ended: 3, under_way: 0 }));
        assert_eq!(Counters::read("none"), None);
    }

    #[test]
    fn a_thread_that_waits_for_its_cpu_is_not_a_host_that_stands_still() {
        let ms = Duration::from_millis;
        assert_eq!(gone(ms(40), ms(0)), Some(ms(40)));
        assert_eq!(gone(ms(40), ms(30)), Some(ms(10)));
        assert_eq!(gone(ms(40), ms(40)), None);
        // It may have waited before it slept, too.
        assert_eq!(gone(ms(4), ms(9)), None);
    }

    #[test]
    fn a_real_host_can_be_watched_and_as_often_as_there_are_runs() {
        for _ in 0..2 {
            let stops = Watcher::start(Some(&std::env::temp_dir())).unwrap().end();
            assert!(stops.cpu.is_some(), "Linux tells how long threads wait: {stops:?}");
        }
        assert!(Watcher::start(None).unwrap().end().disk.is_none());
    }
}
