//! The host doctor: what would slow a storage node down on this host, or keep it from starting, what that
//! costs, and how to mend it. It changes nothing.
//!
//! * [`disk`]: what the disk under a folder can give a log, and how it is set.
//! * [`busy`]: what becomes of that while every CPU has something to do.
//! * [`neighbours`]: who keeps a CPU for long.

mod busy;
mod disk;
mod neighbours;

use super::demo::duration;
use super::output::{columns, json};
use super::{Ended, Global, Outcome};
use clap::Args;
use evenkeel_link::{cpus, host, preflight, slice};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Locked memory that one core asks for, bytes.
const MEMLOCK_PER_CORE: u64 = 2 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Also measure what the disk under this folder can give a log, by writing as one does (to a temporary
    /// file), and look at how it is set.
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// How long to write beside CPUs that are kept busy at the lowest priority: a virtual machine's disk may
    /// stand still then, once in a minute or in ten. 0s: not at all.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "5s")]
    #[arg(requires = "disk")]
    busy_for: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

struct Finding {
    verdict: Verdict,
    subject: &'static str,
    measured: String,
    /// What it costs and the fix; empty when there is nothing to mend.
    advice: String,
}

fn finding(
    verdict: Verdict,
    subject: &'static str,
    measured: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding { verdict, subject, measured: measured.into(), advice: advice.into() }
}

impl Doctor {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let mut findings = vec![
            io_uring(),
            memlock(),
            cores(),
            governor(),
            clock(),
            slices(),
            huge_pages(),
            open_files(),
            steal(),
            neighbours::finding_here(),
        ];
        if let Some(folder) = &self.disk {
            findings.extend(disk::findings(folder, self.busy_for)?);
        }
        if global.json {
            let findings: Vec<_> = findings
                .iter()
                .map(|finding| {
                    json!({"verdict": finding.verdict.word(), "subject": finding.subject,
                        "measured": finding.measured, "advice": finding.advice})
                })
                .collect();
            json(&json!(findings))?;
        } else {
            let rows: Vec<Vec<String>> = findings
                .iter()
                .map(|finding| {
                    let Finding { verdict, subject, measured, advice } = finding;
                    vec![verdict.word().to_owned(), (*subject).to_owned(), measured.clone(), advice.clone()]
                })
                .collect();
            columns(&rows)?;
        }
        let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
        Ok(if failed { Ended::Unhealthy } else { Ended::Ok })
    }
}

fn io_uring() -> Finding {
    match preflight() {
        Ok(_) => finding(Verdict::Ok, "io_uring", "a ring can be made", ""),
        Err(error) => finding(Verdict::Fail, "io_uring", "no ring can be made", error.to_string()),
    }
}

fn memlock() -> Finding {
    let Some(limit) = host::memlock_bytes() else {
        return finding(Verdict::Ok, "locked memory", "unlimited", "");
    };
    let mib = limit >> 20;
    let needed = MEMLOCK_PER_CORE * cpus::count() as u64;
    if limit >= needed {
        return finding(Verdict::Ok, "locked memory", format!("{mib} MiB"), "");
    }
    let advice = format!(
        "log buffers beyond it are not registered: some 5 us more for each log write; set `ulimit -l {}` or \
         LimitMEMLOCK in the service",
        needed >> 10
    );
    finding(Verdict::Warn, "locked memory", format!("{mib} MiB for this user"), advice)
}

fn cores() -> Finding {
    let count = cpus::count();
    let measured = format!("{count} usable");
    if count >= 2 {
        return finding(Verdict::Ok, "CPUs", measured, "");
    }
    let advice =
        "an executor shares its CPU with everything else: expect some 4 ms in the tail; give it two or more";
    finding(Verdict::Warn, "CPUs", measured, advice)
}

/// How the first CPU chooses its clock; the others are set alike.
fn governor() -> Finding {
    let Ok(governor) = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    else {
        return finding(Verdict::Ok, "CPU clock", "the host's or the hypervisor's own", "");
    };
    let governor = governor.trim();
    if governor == "performance" {
        return finding(Verdict::Ok, "CPU clock", governor, "");
    }
    let advice = "a CPU that was idle wakes up slowly, and every hop waits for it, some 10 to 100 us; set \
                  `cpupower frequency-set -g performance`";
    finding(Verdict::Warn, "CPU clock", governor, advice)
}

fn clock() -> Finding {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.map(|source| source.trim().to_owned()).unwrap_or_else(|_| "unknown".to_owned());
    let nanos = host::clock_read_ns();
    let measured = format!("{source}, {nanos} ns to read");
    if nanos < 500 {
        return finding(Verdict::Ok, "clock", measured, "");
    }
    let advice =
        "each turn reads the clock in a system call; boot with clocksource=tsc if the hardware allows it";
    finding(Verdict::Warn, "clock", measured, advice)
}

/// Whether memory that a core takes when it starts may be in huge pages.
fn huge_pages() -> Finding {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let setting = setting.unwrap_or_default();
    let chosen = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    match chosen {
        Some("never") => {
            let advice = "the memory that a core takes when it starts (storage.reserve_mib) has small pages: \
                          up to a tenth in p50 and p99; set `echo madvise > \
                          /sys/kernel/mm/transparent_hugepage/enabled`";
            finding(Verdict::Warn, "huge pages", "switched off", advice)
        }
        Some(word) => finding(Verdict::Ok, "huge pages", format!("given when asked for ({word})"), ""),
        None => {
            let advice = "a core's memory has small pages: up to a tenth in p50 and p99; a kernel with \
                          CONFIG_TRANSPARENT_HUGEPAGE gives others";
            finding(Verdict::Warn, "huge pages", "this kernel has none", advice)
        }
    }
}

/// Whether the kernel lets threads have time slices of their own.
fn slices() -> Finding {
    if let Some(usual) = slice::of_this_thread() {
        let measured = format!("{:.1} ms, and threads may ask for shorter ones", usual.as_secs_f64() * 1e3);
        return finding(Verdict::Ok, "time slices", measured, "");
    }
    let advice = "who is woken on a busy CPU waits for slices of some 3 ms of others: up to a third more in \
                  the tail at half of saturation; Linux 6.12 or later lets evenkeel ask for shorter ones";
    finding(Verdict::Warn, "time slices", "the same for all threads", advice)
}

fn open_files() -> Finding {
    match host::open_files_max() {
        Some(limit) if limit < 4096 => {
            let advice =
                "a router refuses connections beyond it; set `ulimit -n 65536` or LimitNOFILE in the service";
            finding(Verdict::Warn, "open files", format!("{limit} at most"), advice)
        }
        Some(limit) => finding(Verdict::Ok, "open files", format!("{limit} at most"), ""),
        None => finding(Verdict::Ok, "open files", "unlimited", ""),
    }
}

/// CPU time that the hypervisor gave to others since boot: the first line of /proc/stat, eighth number of
/// all.
fn steal() -> Finding {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let total: u64 = fields.iter().take(8).sum();
    let percent = fields.get(7).copied().unwrap_or(0) as f64 * 100.0 / (total.max(1) as f64);
    let measured = format!("{percent:.2}% since boot");
    if percent < 1.0 {
        return finding(Verdict::Ok, "steal", measured, "");
    }
    let advice = "the hypervisor takes CPU time away; the tail follows it; ask for dedicated CPUs";
    finding(Verdict::Warn, "steal", measured, advice)
}
