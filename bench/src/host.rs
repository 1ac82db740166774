//! What a run ran on, so that two reports can be told apart: CPU, kernel, memory and disk.

use serde::Serialize;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// A host. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// The CPUs' name.
    pub cpu: Option<String>,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// How their frequency is governed; virtual machines do not tell.
    pub governor: Option<String>,
    /// Whether a hypervisor is below.
    pub hypervisor: bool,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processes that wanted to run in the last minute, when the run began.
    pub load_average: Option<f64>,
    /// The disk of the folder that was measured.
    pub disk: Option<Disk>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Disk {
    /// What is mounted.
    pub device: String,
    /// The file system.
    pub file_system: String,
    /// The device's name of itself.
    pub model: Option<String>,
    /// `write back` means that a write needs a flush to be durable.
    pub write_cache: Option<String>,
    /// The kernel's queueing.
    pub scheduler: Option<String>,
}

impl Host {
    /// Looks at this host, and at the disk under `folder`.
    #[must_use]
    pub fn look(folder: Option<&Path>) -> Self {
        let cpu_info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu: field(&cpu_info, "model name"),
            cpus: evenkeel_link::cpus::count(),
            governor: word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: field(&cpu_info, "flags").is_some_and(|flags| flags.contains(" hypervisor")),
            kernel: word("/proc/sys/kernel/osrelease"),
            memory_bytes: field(&memory, "MemTotal").and_then(|text| kibibytes(&text)),
            load_average: word("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
            disk: folder.and_then(Disk::of),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let cpu = self.cpu.as_deref().unwrap_or("unknown CPU");
        let gib = self.memory_bytes.unwrap_or(0) as f64 / f64::from(1 << 30);
        let mut line = format!("{} x {cpu}, {gib:.0} GiB", self.cpus);
        let more = [("Linux", &self.kernel), ("governor", &self.governor)];
        for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            line += &format!(", {name} {value}");
        }
        if let Some(disk) = &self.disk {
            line += &format!(", {} on {}", disk.file_system, disk.device);
        }
        line
    }
}

impl Disk {
    fn of(folder: &Path) -> Option<Self> {
        let Mount { numbers, device, file_system } = mount_under(folder)?;
        let block = format!("/sys/dev/block/{numbers}");
        // A partition has no queue of its own; the disk is the folder around it.
        let of_disk = |file: &str| word(&format!("{block}/{file}")).or(word(&format!("{block}/../{file}")));
        Some(Self {
            device,
            file_system,
            model: of_disk("device/model"),
            write_cache: of_disk("queue/write_cache"),
            scheduler: of_disk("queue/scheduler"),
        })
    }
}

/// Where the kernel counts what the disk under `folder` does, if it is one that the kernel knows.
pub(crate) fn disk_counters(folder: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/sys/dev/block/{}/stat", mount_under(folder)?.numbers));
    path.exists().then_some(path)
}

fn mount_under(folder: &Path) -> Option<Mount> {
    let folder = folder.canonicalize().ok()?;
    mount_of(&read_to_string("/proc/self/mountinfo").ok()?, folder.to_str()?)
}

fn word(path: &str) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The value of the first line that has this name before its colon.
fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn kibibytes(text: &str) -> Option<u64> {
    Some(text.strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[derive(Debug, PartialEq)]
struct Mount {
    /// The device's numbers.
    numbers: String,
    device: String,
    file_system: String,
}

/// The mount that holds a path: the last of those whose point is the longest.
fn mount_of(mounts: &str, path: &str) -> Option<Mount> {
    let holds = |point: &str| {
        let rest = path.strip_prefix(point.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounts = mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let before: Vec<&str> = before.split(' ').collect();
        let mut after = after.split(' ');
        let (file_system, device) = (after.next()?.to_owned(), after.next()?.to_owned());
        let point = *before.get(4)?;
        let mount = Mount { numbers: (*before.get(2)?).to_owned(), device, file_system };
        holds(point).then_some((point.len(), mount))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let cpu_info = "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(cpu_info, "model name").as_deref(), Some("Fast CPU @ 3 GHz"));
        assert_eq!(
            field("MemTotal:       1024 kB\n", "MemTotal").and_then(|kb| kibibytes(&kb)),
            Some(1 << 20)
        );
        let mounts = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:16 / /data rw a:1 - xfs /dev/vdb rw\n";
        let mount =
            |path| mount_of(mounts, path).map(|mount| (mount.numbers, mount.device, mount.file_system));
        let of = |numbers: &str, device: &str, file_system: &str| {
            Some((numbers.to_owned(), device.to_owned(), file_system.to_owned()))
        };
        assert_eq!(mount("/data/x"), of("254:16", "/dev/vdb", "xfs"));
        assert_eq!(mount("/data"), of("254:16", "/dev/vdb", "xfs"));
        assert_eq!(mount("/database"), of("254:0", "/dev/vda", "ext4"));
    }

    #[test]
    fn this_host_tells_something() {
        let host = Host::look(Some(Path::new("/")));
        assert!(host.cpus > 0 && host.kernel.is_some() && host.memory_bytes > Some(1 << 20), "{host:?}");
        assert!(host.disk.is_some() && host.line().contains("GiB"), "{host:?}");
    }
}
