//! The CPUs that this process may use.

use rustix::io;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::thread::available_parallelism;

/// The numbers of the CPUs on which the calling thread may run, ascending. Ask before pinning: a pinned
/// thread sees only its own.
#[must_use]
pub fn usable() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let mut cpus: Vec<usize> = ids.into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// How many CPUs' worth of time the calling thread's process is given: the affinity mask, and a container's
/// quota. Ask before pinning.
#[must_use]
pub fn count() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Pins the calling thread to one of its [`usable`] CPUs. Returns whether it is there now.
#[must_use]
pub fn pin(cpu: usize) -> bool {
    // A number that the kernel's mask has no bit for would abort the process.
    usable().contains(&cpu) && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Lets the calling thread run on these CPUs, and on no other.
///
/// # Errors
/// When its process may use none of them.
pub(crate) fn confine(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set)
}

/// The numbers of the host's CPUs that run, ascending, whoever may use them.
#[must_use]
pub fn online() -> Vec<usize> {
    listed(&std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default())
}

/// Reads the kernel's notation for CPUs: `0-3,8`.
fn listed(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Pins the calling thread to one of the host's CPUs that are [`online`], although its process was confined
/// to others: for who watches them. Returns whether it is there now.
#[must_use]
pub fn pin_to_any(cpu: usize) -> bool {
    // The kernel's mask, as it is passed, has so many bits.
    cpu < 1024 && online().contains(&cpu) && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_cpu_and_no_quota_exceeds_the_mask() {
        assert!(!usable().is_empty());
        assert!((1..=usable().len()).contains(&count()));
    }

    #[test]
    fn the_hosts_cpus_are_listed() {
        assert_eq!(listed("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(listed(""), Vec::<usize>::new());
        assert!(usable().iter().all(|cpu| online().contains(cpu)));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "pinning is of a thread, and ends with it")]
    fn who_watches_is_not_confined() {
        let (first, last) = (usable()[0], usable().last().copied().unwrap());
        let seen = std::thread::spawn(move || (pin(first), pin_to_any(last), usable())).join().unwrap();
        assert_eq!(seen, (true, true, vec![last]));
        assert!(!pin_to_any(100_000));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "pinning is of a thread, and ends with it")]
    fn a_pinned_thread_sees_its_own_cpu_only() {
        let last = usable().last().copied().unwrap();
        let seen = std::thread::spawn(move || (pin(last), usable())).join().unwrap();
        assert_eq!(seen, (true, vec![last]));
        assert!(!pin(100_000));
    }
}
