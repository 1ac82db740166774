//! The CPUs that this process may use.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_cpu_and_no_quota_exceeds_the_mask() {
        assert!(!usable().is_empty());
        assert!((1..=usable().len()).contains(&count()));
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
