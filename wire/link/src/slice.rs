//! How long a thread runs before the kernel looks for another one that waits for its CPU.
#![allow(unsafe_code)]

use crate::limits::SLICE;
use std::mem::size_of;
use std::time::Duration;

/// Asks for short time slices on the calling thread's behalf, and returns whether it has them now.
///
/// Linux's fair scheduler (EEVDF, since 6.6) runs, of those that have had less than their share, who is due
/// first: a slice after it began to wait. Where more threads are busy than there are CPUs, a thread that is
/// woken with the usual slice of 3 ms waits for milliseconds behind one that computes. Slices are not
/// priorities: nobody gets more of a CPU, and no privilege is needed. Since Linux 6.12 a thread may have its
/// own; before, the wish is ignored (docs/decisions/0022-slices.md).
///
/// A thread to which somebody gave another policy than the usual one (`chrt`) keeps it, and one whose slices
/// are shorter already keeps those.
#[must_use]
pub fn ask_for_short() -> bool {
    ask_for(SLICE)
}

/// Asks for slices of that length, as [`ask_for_short`] does; 0.1 ms is the shortest that the kernel gives.
#[must_use]
pub fn ask_for(slice: Duration) -> bool {
    let Some(mut attributes) = attributes().filter(|now| now.sched_policy == libc::SCHED_OTHER as u32) else {
        return false;
    };
    let short = slice.as_nanos() as u64;
    if (1..=short).contains(&attributes.sched_runtime) {
        return true;
    }
    attributes.sched_runtime = short;
    // SAFETY: the kernel reads the structure, whose first field says how long it is, during the call only.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    result == 0 && of_this_thread() == Some(slice)
}

/// The calling thread's time slice. None: it has another policy, or the kernel does not tell.
#[must_use]
pub fn of_this_thread() -> Option<Duration> {
    let attributes = attributes().filter(|now| now.sched_policy == libc::SCHED_OTHER as u32)?;
    (attributes.sched_runtime > 0).then(|| Duration::from_nanos(attributes.sched_runtime))
}

/// How the kernel schedules the calling thread.
fn attributes() -> Option<libc::sched_attr> {
    let bytes = size_of::<libc::sched_attr>();
    let mut attributes = libc::sched_attr {
        size: bytes as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `bytes` into the structure, which has that size and whose fields may
    // have any value.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    (result == 0).then_some(attributes)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "slices are a thread's, and end with it")]
mod tests {
    use super::*;
    use std::thread::spawn;

    #[test]
    fn a_thread_that_asks_has_short_slices_where_the_kernel_knows_them() {
        let seen = spawn(|| (of_this_thread(), ask_for_short(), of_this_thread())).join().unwrap();
        match seen {
            (Some(before), true, Some(after)) => assert_eq!(after, before.min(SLICE)),
            // Before Linux 6.12, or in a container whose filter of system calls refuses it.
            (before, asked, after) => assert!(!asked && before == after),
        }
    }

    #[test]
    fn nobody_is_made_more_or_less_nice() {
        let nice = || attributes().map(|attributes| (attributes.sched_policy, attributes.sched_nice));
        let (before, after) = spawn(move || {
            let before = nice();
            let _had = ask_for_short();
            (before, nice())
        })
        .join()
        .unwrap();
        assert_eq!(before, after);
    }
}
