//! Memory that a thread takes before its machine needs it.
//!
//! A page that was never touched costs a fault when it is: the kernel finds memory and clears it, and on a
//! virtual machine the hypervisor may have to do the same first. A core that grows meets those faults one by
//! one, on the way of requests. So its thread takes what it will need when it starts, touches all of it, and
//! gives it back to its allocator, which keeps it (docs/decisions/0012-allocator.md): what the machine
//! allocates later comes from there.
//!
//! The memory is asked for in huge pages. Whoever looks at all of a host's memory page by page, as the
//! kernel's own monitors do, is through it sooner then, and the CPU finds its way to a page in fewer steps
//! (docs/decisions/0024-reserve.md).
#![allow(unsafe_code)]

use evenkeel_wire::aligned::AlignedBuffer;
use rustix::mm::{Advice, madvise};
use std::fs::read_to_string;
use std::path::Path;

/// Takes `bytes` for the calling thread, as far as the allocator keeps what it was given. Returns whether it
/// did: not if the host, or the control group, does not have as much, or the kernel does not say.
pub(crate) fn reserve(bytes: usize) -> bool {
    if bytes == 0 {
        return true;
    }
    let available = available_bytes().unwrap_or(0);
    if bytes as u64 > available {
        tracing::warn!(
            wanted_mib = bytes >> 20,
            available_mib = available >> 20,
            "less memory is available than a core is to take when it starts: it takes none, and slows down a \
             little whenever it needs more than ever before; lower storage.reserve_mib, or give it memory"
        );
        return false;
    }
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    let (start, length) = (buffer.as_ptr(), buffer.capacity());
    // SAFETY: the range is the buffer's own memory, of which the advice changes neither contents nor access;
    // it only says in which pages the kernel should give it. It stays true when the memory is another's.
    if let Err(error) = unsafe { madvise(start.cast(), length, Advice::LinuxHugepage) } {
        tracing::warn!(%error, "the kernel gives no huge pages; `evenkeel doctor` says more");
    }
    buffer.resize(length);
    // Or the compiler might find that nobody reads what was written.
    std::hint::black_box(&mut buffer);
    true
}

/// How much memory may be taken without anybody being in need, bytes. `None`: the kernel does not say.
fn available_bytes() -> Option<u64> {
    let host = meminfo_bytes(&read_to_string("/proc/meminfo").ok()?, "MemAvailable")?;
    let group = read_to_string("/proc/self/cgroup").ok().and_then(|text| group_of(&text).map(str::to_owned));
    let group = group.and_then(|group| group_bytes(&Path::new("/sys/fs/cgroup").join(group)));
    Some(group.map_or(host, |group| group.min(host)))
}

/// A figure of `/proc/meminfo`, which is in KiB there.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Which unified control group this is, relative to their root: the line with an empty name in
/// `/proc/self/cgroup` (cgroups(7)).
fn group_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// How much a control group may still take. `None`: as much as it likes.
fn group_bytes(group: &Path) -> Option<u64> {
    let figure = |name: &str| read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(figure("memory.max")?.saturating_sub(figure("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_where_the_kernel_writes_them() {
        let meminfo = "MemTotal:       24684092 kB\nMemFree:  1 kB\nMemAvailable:   24092428 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(24_092_428 << 10));
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        assert_eq!(group_of("4:memory:/a\n0::/b/c\n"), Some("b/c"));
        assert_eq!(group_of("4:memory:/a\n"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the kernel's files are what is read")]
    fn a_control_group_has_what_it_may_and_does_not_take_yet() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(group_bytes(folder.path()), None, "no such group");
        write("memory.current", "5000\n");
        write("memory.max", "max\n");
        assert_eq!(group_bytes(folder.path()), None, "no limit");
        write("memory.max", "8000\n");
        assert_eq!(group_bytes(folder.path()), Some(3000));
        write("memory.max", "4000\n");
        assert_eq!(group_bytes(folder.path()), Some(0), "the limit was lowered");
    }

    #[test]
    fn what_the_host_has_is_taken_and_more_is_not() {
        assert!(reserve(0));
        assert!(reserve(3 << 20));
        assert!(!reserve(usize::MAX >> 1));
    }
}
