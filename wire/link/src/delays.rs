//! What kept a thread from running: the time that it was runnable and somebody else had the CPU, and the time
//! that the hypervisor took.
//!
//! Both are read from `/proc`, which costs a system call: only after a gap between two looks that was long
//! enough to hold something worth telling, and now and then, so that small delays do not add up and are then
//! told of one gap. Where the kernel does not keep these figures, they stay zero.

use crate::limits::{
    RUN_QUEUE_GAP_MIN, RUN_QUEUE_READ_EVERY, STEAL_GAP_MIN, STEAL_READ_EVERY, STEAL_TICK_NS,
};
use evenkeel_wire::turn::Boot;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// How long a thread was runnable and did not run.
#[derive(Debug)]
pub struct RunQueue(File);

impl RunQueue {
    /// That of the calling thread. `None`: the kernel keeps no such figures.
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        File::open("/proc/thread-self/schedstat").ok().map(Self)
    }

    /// Nanoseconds since the thread began, if they can be read. Costs a system call.
    #[must_use]
    pub fn waited_ns(&self) -> Option<u64> {
        self.figures().map(|[_, waited_ns]| waited_ns)
    }

    /// Nanoseconds that it ran or was runnable since it began. Costs a system call.
    pub(crate) fn busy_ns(&self) -> Option<u64> {
        self.figures().map(|[ran_ns, waited_ns]| ran_ns + waited_ns)
    }

    fn figures(&self) -> Option<[u64; 2]> {
        let mut bytes = [0; 96];
        let length = self.0.read_at(&mut bytes, 0).ok()?;
        ran_and_waited_ns(&bytes[..length])
    }
}

/// What is known of the thread of an executor.
#[derive(Debug)]
pub(crate) struct ThreadDelays {
    run_queue: Option<RunQueue>,
    stat: Option<File>,
    /// The line of its CPU in `/proc/stat`; none: that of all.
    cpu: Option<usize>,
    read_at: Boot,
    stolen_read_at: Boot,
    /// See [`evenkeel_wire::turn::Delays`].
    pub(crate) run_queue_ns: u64,
    /// The same.
    pub(crate) stolen_ns: u64,
    /// The executor looked at this instant and nothing had arrived.
    pub(crate) quiet_at: Boot,
    /// It parked since, and woke now: what it executes next came at most as long ago as it was runnable.
    pub(crate) parked: bool,
}

impl ThreadDelays {
    /// Of the calling thread, which stays on `cpu` if it is pinned.
    pub(crate) fn of_this_thread(cpu: Option<usize>) -> Self {
        Self {
            run_queue: RunQueue::of_this_thread(),
            stat: File::open("/proc/stat").ok(),
            cpu,
            read_at: Boot(0),
            stolen_read_at: Boot(0),
            run_queue_ns: 0,
            stolen_ns: 0,
            quiet_at: Boot(0),
            parked: false,
        }
    }

    /// A turn begins at `now`, and nothing had arrived at `looked`. Returns when that counts as, and for how
    /// many nanoseconds since the thread was kept from running. After parking the thread was told when
    /// something arrived, so that only its run queue lies in between.
    pub(crate) fn look(&mut self, now: Boot, looked: Boot) -> (Boot, u64) {
        let (gap, before) = (now.since(looked), self.run_queue_ns);
        let long = gap >= RUN_QUEUE_GAP_MIN;
        if long || now.since(self.read_at) >= RUN_QUEUE_READ_EVERY {
            self.read_at = now;
            self.read_run_queue();
        }
        if gap >= STEAL_GAP_MIN && now.since(self.stolen_read_at) >= STEAL_READ_EVERY {
            self.stolen_read_at = now;
            self.read_stolen();
        }
        let kept_ns = if long { (self.run_queue_ns - before).min(gap.as_nanos() as u64) } else { 0 };
        if !std::mem::take(&mut self.parked) {
            return (looked, kept_ns);
        }
        self.quiet_at = Boot(now.0 - kept_ns);
        (self.quiet_at, kept_ns)
    }

    fn read_run_queue(&mut self) {
        let waited = self.run_queue.as_ref().and_then(RunQueue::waited_ns);
        self.run_queue_ns = self.run_queue_ns.max(waited.unwrap_or(0));
    }

    fn read_stolen(&mut self) {
        let mut bytes = [0; 4096];
        let read = self.stat.as_ref().and_then(|file| file.read_at(&mut bytes, 0).ok());
        let ticks = read.and_then(|length| stolen_ticks(&bytes[..length], self.cpu));
        self.stolen_ns = self.stolen_ns.max(ticks.unwrap_or(0) * STEAL_TICK_NS);
    }
}

/// The first two figures of a schedstat file: nanoseconds on a CPU, and on a run queue.
fn ran_and_waited_ns(bytes: &[u8]) -> Option<[u64; 2]> {
    let mut figures = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace();
    Some([figures.next()?.parse().ok()?, figures.next()?.parse().ok()?])
}

/// Ticks that the hypervisor took from a CPU, or from all: the eighth figure of its line.
fn stolen_ticks(bytes: &[u8], cpu: Option<usize>) -> Option<u64> {
    let name = cpu.map_or("cpu".to_owned(), |cpu| format!("cpu{cpu}"));
    // The last line may be cut in the middle of a character, if it had any but ASCII.
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(name.as_str())).then_some(words))?;
    line.nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn figures_are_found_where_the_kernel_writes_them() {
        assert_eq!(ran_and_waited_ns(b"123 47712 9\n"), Some([123, 47_712]));
        assert_eq!(ran_and_waited_ns(b"0\n"), None);
        let stat =
            b"cpu  1 2 3 4 5 6 7 80 9 10\ncpu0 1 2 3 4 5 6 7 30 9 10\ncpu1 1 2 3 4 5 6 7 50 9 10\nintr 5";
        assert_eq!(stolen_ticks(stat, None), Some(80));
        assert_eq!(stolen_ticks(stat, Some(1)), Some(50));
        assert_eq!(stolen_ticks(stat, Some(2)), None);
    }

    #[test]
    fn short_gaps_cost_nothing_and_a_long_one_is_looked_into() {
        let mut delays = ThreadDelays::of_this_thread(None);
        delays.run_queue = None;
        delays.read_at = Boot(1_000);
        assert_eq!(delays.look(Boot(2_000), Boot(1_500)), (Boot(1_500), 0));
        assert_eq!(delays.read_at, Boot(1_000), "nothing was read");
        let long = Boot(2_000).after(RUN_QUEUE_GAP_MIN);
        delays.look(long, Boot(2_000));
        assert_eq!(delays.read_at, long);
    }

    #[test]
    fn after_parking_only_the_run_queue_lies_before_a_turn() {
        let mut delays = ThreadDelays::of_this_thread(None);
        delays.run_queue = None;
        delays.parked = true;
        assert_eq!(delays.look(Boot(9_000_000), Boot(1_000)), (Boot(9_000_000), 0));
        assert_eq!(delays.quiet_at, Boot(9_000_000), "for the executor's other machines, too");
        assert_eq!(delays.look(Boot(9_000_400), Boot(9_000_100)), (Boot(9_000_100), 0), "it was told once");
    }

    #[test]
    fn a_thread_that_shares_a_cpu_has_waited_for_it() {
        // Two threads on one CPU, each with more work than it gets time for.
        let Some(cpu) = core_affinity::get_core_ids().and_then(|cpus| cpus.first().copied()) else {
            return;
        };
        let spin = move || {
            core_affinity::set_for_current(cpu);
            let mut delays = ThreadDelays::of_this_thread(Some(cpu.id));
            delays.run_queue.as_ref()?;
            let until = crate::clock::boot().after(Duration::from_millis(200));
            while crate::clock::boot() < until {
                std::hint::spin_loop();
            }
            delays.look(crate::clock::boot(), Boot(0));
            Some(delays.run_queue_ns)
        };
        let threads: Vec<_> =
            (0..2).map(|_| std::thread::Builder::new().spawn(spin).expect("a thread")).collect();
        let waited: Vec<Option<u64>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let kept = waited.iter().all(Option::is_some);
        assert!(!kept || waited.iter().flatten().sum::<u64>() > 10_000_000, "{waited:?}");
    }
}
