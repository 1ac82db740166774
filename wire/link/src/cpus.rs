//! The CPUs that this process may use, and how it fares on them.
#![allow(unsafe_code)]

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

/// How often the kernel has taken the CPU away from the calling thread although it wanted to go on.
pub(crate) fn involuntary_switches() -> u64 {
    // SAFETY: an all-zero `rusage` is a valid value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a structure of ours that lives through the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    if result < 0 { 0 } else { usage.ru_nivcsw.unsigned_abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_cpu_and_no_quota_exceeds_the_mask() {
        assert!(!usable().is_empty());
        assert!((1..=usable().len()).contains(&count()));
    }
}
