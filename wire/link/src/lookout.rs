//! Lookouts: threads that see whether another one runs that could, and move it if it does not.
//!
//! A thread of the kernel that does not yield keeps its CPU for milliseconds. Whoever is woken on that CPU
//! waits behind it, and goes on waiting when another CPU becomes idle: the kernel looks for work elsewhere
//! only on CPUs that mostly idle. On a host whose threads outnumber its CPUs none does. There are two
//! lookouts, on two CPUs: whichever CPU is kept, one of them runs on another, and takes the thread there
//! (docs/decisions/0024-lookouts.md).
//!
//! A thread waits when it is runnable, says that it has taken no turn since the last look, and was last on
//! another CPU than the lookout's. One that is in a turn longer than a look looks the same; it is moved
//! while it runs, which costs a migration and harms nobody.

use crate::cpus;
use crate::limits::LOOK_OUT_EVERY;
use crate::slice;
use rustix::io;
use rustix::thread::{Pid, gettid};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// What lookouts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Rest,
    Watch,
    End,
}

/// What lookouts and the thread that they watch have in common.
#[derive(Debug)]
struct Shared {
    watched: Pid,
    /// The CPUs on which it may run.
    usable: Vec<usize>,
    /// Whoever moves the thread holds the lock: once it has been told to rest, nobody moves it.
    duty: Mutex<Duty>,
    told: Condvar,
    /// Turns that the thread has taken.
    turns: AtomicU64,
    /// How often it was moved.
    moved: AtomicU64,
}

/// The lookouts of one thread. They rest until they are told to watch, and end with this.
#[derive(Debug)]
pub(crate) struct Lookouts {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Lookouts {
    /// For the calling thread, which may run on the CPUs `usable`, two at least, and is pinned to none.
    ///
    /// # Errors
    /// When there are no threads for it.
    pub(crate) fn of_this_thread(usable: &[usize]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            watched: gettid(),
            usable: usable.to_vec(),
            duty: Mutex::new(Duty::Rest),
            told: Condvar::new(),
            turns: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        });
        let mut lookouts = Self { shared, threads: Vec::new() };
        for cpu in [usable.first(), usable.last()].into_iter().flatten().copied() {
            let shared = Arc::clone(&lookouts.shared);
            let builder = thread::Builder::new().name("lookout".to_owned());
            lookouts.threads.push(builder.spawn(move || look_out(&shared, cpu))?);
        }
        Ok(lookouts)
    }

    /// The thread has taken a turn.
    pub(crate) fn turned(&self) {
        // Nobody else writes it.
        let turns = self.shared.turns.load(Ordering::Relaxed);
        self.shared.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
    }

    /// From here on the thread is moved when it waits.
    pub(crate) fn watch(&self) {
        self.tell(Duty::Watch);
    }

    /// From here on it is not.
    pub(crate) fn rest(&self) {
        self.tell(Duty::Rest);
    }

    fn tell(&self, duty: Duty) {
        let mut before = self.shared.lock();
        if *before != duty {
            *before = duty;
            self.shared.told.notify_all();
        }
    }
}

impl Drop for Lookouts {
    fn drop(&mut self) {
        self.tell(Duty::End);
        for thread in self.threads.drain(..) {
            let _it_has_said_why = thread.join();
        }
        tracing::debug!(moved = self.shared.moved.load(Ordering::Relaxed), "lookouts have ended");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Duty> {
        self.duty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while there is nothing to watch. None: it is over.
    fn on_duty(&self) -> Option<MutexGuard<'_, Duty>> {
        let duty = self.told.wait_while(self.lock(), |duty| *duty == Duty::Rest);
        Some(duty.unwrap_or_else(PoisonError::into_inner)).filter(|duty| **duty == Duty::Watch)
    }

    /// Moves the thread to `cpu`, and lets it run anywhere from there.
    fn fetch(&self, cpu: usize) -> io::Result<()> {
        cpus::confine(Some(self.watched), &[cpu])?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        cpus::confine(Some(self.watched), &self.usable)
    }
}

/// What a lookout does, on `cpu`.
fn look_out(shared: &Shared, cpu: usize) {
    let stat = File::open(format!("/proc/self/task/{}/stat", shared.watched.as_raw_nonzero()));
    let (true, Ok(stat)) = (cpus::pin(cpu), stat) else {
        return tracing::debug!(
            cpu,
            "no lookout here: it could not be placed, or nothing is known of threads"
        );
    };
    let _short_slices = slice::ask_for_short();
    let (mut seen, mut bytes) = (0, [0; 1024]);
    while let Some(duty) = shared.on_duty() {
        let turns = shared.turns.load(Ordering::Relaxed);
        let stands_still = turns == std::mem::replace(&mut seen, turns);
        if stands_still
            && let Ok(length) = stat.read_at(&mut bytes, 0)
            && runnable_on(&bytes[..length]).is_some_and(|other| other != cpu)
            && let Err(error) = shared.fetch(cpu)
        {
            return tracing::warn!(cpu, %error, "a thread could not be moved, and is left where it is");
        }
        drop(duty);
        #[allow(clippy::disallowed_methods, reason = "waiting is this thread's work")]
        thread::sleep(LOOK_OUT_EVERY);
    }
}

/// The CPU that a thread runs on or waits for, by its `stat` file. None: it sleeps.
fn runnable_on(stat: &[u8]) -> Option<usize> {
    // A thread's name may contain anything, and stands in parentheses.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut figures = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let state = figures.next()?;
    // The state is the third figure of the line, the CPU the 39th.
    let cpu = figures.nth(35)?.parse().ok()?;
    (state == "R").then_some(cpu)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what is watched is a thread, and takes time")]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A line of a thread on CPU 3.
    fn line(name: &str, state: &str) -> String {
        let between: String = (4..39).map(|figure| format!("{figure} ")).collect();
        format!("17 ({name}) {state} {between}3 0 0 0\n")
    }

    #[test]
    fn who_is_runnable_is_known_by_its_line_whatever_it_is_called() {
        assert_eq!(runnable_on(line("router", "R").as_bytes()), Some(3));
        assert_eq!(runnable_on(line("a) R 1 (b", "R").as_bytes()), Some(3));
        assert_eq!(runnable_on(line("a) R 1 (b", "S").as_bytes()), None);
        assert_eq!(runnable_on(b"17 (cut) R 4 5"), None);
        assert_eq!(runnable_on(b""), None);
        let own = std::fs::read("/proc/thread-self/stat").unwrap();
        assert!(runnable_on(&own).is_some_and(|cpu| cpus::online().contains(&cpu)));
    }

    /// Runs `watched` on a thread of its own with its lookouts, where there is a choice of CPUs.
    fn with_lookouts(watched: impl FnOnce(&Lookouts) + Send + 'static) {
        let usable = cpus::usable();
        if usable.len() > 1 {
            thread::spawn(move || watched(&Lookouts::of_this_thread(&usable).unwrap())).join().unwrap();
        }
    }

    fn moved(lookouts: &Lookouts) -> u64 {
        lookouts.shared.moved.load(Ordering::Relaxed)
    }

    #[test]
    fn who_takes_no_turn_is_moved_until_its_lookouts_rest_and_may_run_anywhere_then() {
        with_lookouts(|lookouts| {
            lookouts.watch();
            while moved(lookouts) < 3 {
                std::hint::spin_loop();
            }
            lookouts.rest();
            let before = moved(lookouts);
            assert_eq!(cpus::usable(), lookouts.shared.usable);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(moved(lookouts), before);
        });
    }

    #[test]
    fn who_sleeps_is_not_moved() {
        with_lookouts(|lookouts| {
            // Only what is seen while it sleeps counts: the lookouts rest before and after.
            let shared = Arc::clone(&lookouts.shared);
            let teller = thread::spawn(move || {
                let tell = |duty| {
                    *shared.lock() = duty;
                    shared.told.notify_all();
                };
                let stat = format!("/proc/self/task/{}/stat", shared.watched.as_raw_nonzero());
                while runnable_on(&std::fs::read(&stat).unwrap()).is_some() {
                    thread::sleep(Duration::from_millis(1));
                }
                tell(Duty::Watch);
                thread::sleep(Duration::from_millis(20));
                tell(Duty::Rest);
            });
            teller.join().unwrap();
            assert_eq!(moved(lookouts), 0);
        });
    }
}
