//! What a cluster's processes on this host have used: CPU time and bytes written, by role.
//!
//! Both are what the kernel charges a process with, its threads and its ring's workers included. What the
//! kernel does for all in common, such as interrupts, is charged to nobody.

use super::Failed;
use crate::cli::failed;
use crate::cluster::Cluster;
use rustix::param::clock_ticks_per_second;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one process, or several, have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// CPU time, in user space and in the kernel.
    pub(super) cpu: Duration,
    /// Bytes that it caused to be written to disks.
    pub(super) written: u64,
}

/// By role: storage, memds, router.
pub(super) type ByRole = BTreeMap<&'static str, Used>;

/// What every process of the cluster has used so far.
pub(super) fn used(cluster: &Cluster) -> Result<ByRole, Failed> {
    let mut roles = ByRole::new();
    for name in cluster.names() {
        let pid = cluster.pid(&name).ok_or_else(|| failed(format!("{name} does not run")))?;
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let one = read_used(&read("stat")?, &read("io")?);
        let one = one.ok_or_else(|| failed(format!("/proc/{pid}: this kernel tells it otherwise")))?;
        let used = roles.entry(role(&name)).or_default();
        used.cpu += one.cpu;
        used.written += one.written;
    }
    Ok(roles)
}

fn role(name: &str) -> &'static str {
    match name {
        name if name.starts_with("memds") => "memds",
        name if name.starts_with("router") => "router",
        _ => "storage",
    }
}

/// What was used from one look to the other.
pub(super) fn between(before: &ByRole, after: &ByRole) -> ByRole {
    let spent = |(role, after): (&&'static str, &Used)| {
        let before = before.get(role).copied().unwrap_or_default();
        let cpu = after.cpu.saturating_sub(before.cpu);
        (*role, Used { cpu, written: after.written.saturating_sub(before.written) })
    };
    after.iter().map(spent).collect()
}

fn read_used(stat: &str, io: &str) -> Option<Used> {
    // The name, in parentheses, may hold anything; user and system time are the 14th and 15th field.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()?;
    Some(Used { cpu: Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64), written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 1 0 100 1000 10";
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 8192\n";
        let seconds = 400.0 / clock_ticks_per_second() as f64;
        let expected = Used { cpu: Duration::from_secs_f64(seconds), written: 8192 };
        assert_eq!(read_used(stat, io), Some(expected));
        assert_eq!(read_used("", io), None);
    }

    #[test]
    fn roles_are_told_apart() {
        assert_eq!(["n1", "memds-0", "router-1"].map(role), ["storage", "memds", "router"]);
    }
}
