//! The network of a cluster under torture: a network namespace for each process, and a bridge between them.
//!
//! ```text
//!   our namespace: bridge `zones`, 10.77.0.254, where clients are
//!      │ v1           │ v2          …            a veth pair for each process
//!   ┌──┴────────┐  ┌──┴────────┐
//!   │ 10.77.0.1 │  │ 10.77.0.2 │  …              `eth0` in the namespace of a process
//!   └───────────┘  └───────────┘
//! ```
//!
//! All of it lies in the network namespace that this process was started in, which must be one of its own:
//! nothing of it is seen outside, and it is gone when the processes in it are.
//!
//! Who talks with whom is written down in each namespace's table of neighbours, so that a direction is cut by
//! one wrong entry: packets go to an address that nobody has, and vanish without a word. That needs no module
//! of the kernel beyond veth and bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use thiserror::Error;

/// The port on which every process listens, at an address of its own.
const PORT: u16 = 7400;
/// A hardware address that nobody has.
const NOWHERE: &str = "02:ec:ff:ff:ff:ff";

/// Why the network cannot be made or changed.
#[derive(Debug, Error)]
#[error("{command}: {said}")]
pub struct ZoneError {
    command: String,
    said: String,
}

/// Processes and their namespaces, by name.
#[derive(Debug)]
pub struct Zones {
    /// Each has the address 10.77.0.N.
    numbers: BTreeMap<String, u8>,
    /// Directions that are cut.
    cut: BTreeSet<(String, String)>,
    slow: BTreeSet<String>,
}

impl Zones {
    /// A network for processes of these names. It does not exist yet.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let numbers = names.iter().cloned().zip(1..).collect();
        Self { numbers, cut: BTreeSet::new(), slow: BTreeSet::new() }
    }

    /// Where a process listens.
    #[must_use]
    pub fn address(&self, name: &str) -> SocketAddr {
        let number = self.numbers.get(name).copied().unwrap_or_default();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, number)), PORT)
    }

    /// The command that runs what follows it in a process's namespace.
    #[must_use]
    pub fn entering(&self, name: &str) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net=/run/netns/{name}").into()]
    }

    /// Makes the namespaces and what connects them.
    ///
    /// # Errors
    /// When the host does not allow it.
    pub fn make(&self) -> Result<(), ZoneError> {
        // Names of namespaces are files in here, and every process sees the one of its own mount namespace.
        run("mkdir", &["-p", "/run/netns"], "")?;
        run("mount", &["-t", "tmpfs", "none", "/run/netns"], "")?;
        let mut lines = String::from("link set lo up\nlink add zones type bridge\nlink set zones up\n");
        lines.push_str("addr add 10.77.0.254/24 dev zones\n");
        ip(None, &lines)?;
        for (name, number) in &self.numbers {
            run("ip", &["netns", "add", name], "")?;
            let mac = mac(*number);
            let lines = format!(
                "link add v{number} type veth peer name eth0 address {mac} netns {name}\n\
                 link set v{number} master zones up\n"
            );
            ip(None, &lines)?;
            let mut lines = format!("link set lo up\naddr add 10.77.0.{number}/24 dev eth0\n");
            lines.push_str("link set eth0 up\n");
            for other in self.numbers.keys().filter(|other| *other != name) {
                self.neighbour(&mut lines, other, false);
            }
            ip(Some(name), &lines)?;
        }
        Ok(())
    }

    /// The line that says where packets for a process go.
    fn neighbour(&self, lines: &mut String, to: &str, is_cut: bool) {
        let number = self.numbers[to];
        let mac = if is_cut { NOWHERE.to_owned() } else { mac(number) };
        let _infallible =
            writeln!(lines, "neigh replace 10.77.0.{number} lladdr {mac} dev eth0 nud permanent");
    }

    /// From now on packets from one process to another vanish, or do so no longer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_cut(&mut self, from: &str, to: &str, is_cut: bool) -> Result<(), ZoneError> {
        let direction = (from.to_owned(), to.to_owned());
        let changes = if is_cut { self.cut.insert(direction) } else { self.cut.remove(&direction) };
        if !changes || from == to {
            return Ok(());
        }
        let mut lines = String::new();
        self.neighbour(&mut lines, to, is_cut);
        ip(Some(from), &lines)
    }

    /// Cuts or mends both directions between every two processes of two sets.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_apart(&mut self, some: &[String], others: &[String], apart: bool) -> Result<(), ZoneError> {
        for one in some {
            for other in others {
                self.set_cut(one, other, apart)?;
                self.set_cut(other, one, apart)?;
            }
        }
        Ok(())
    }

    /// Bounds what a process can send and receive, kilobits a second; zero: no bound.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_rate(&mut self, name: &str, kbit: u64) -> Result<(), ZoneError> {
        let number = self.numbers[name];
        let changes = if kbit > 0 { self.slow.insert(name.to_owned()) } else { self.slow.remove(name) };
        if !changes {
            return Ok(());
        }
        let outside = format!("v{number}");
        for place in [&["-n", name, "qdisc"][..], &["qdisc"]] {
            let device = if place.len() > 1 { "eth0" } else { &outside };
            let rate = format!("{kbit}kbit");
            let bound = ["root", "tbf", "rate", &rate, "burst", "64kb", "latency", "200ms"];
            let verb: &[&str] = if kbit > 0 { &["replace", "dev", device] } else { &["del", "dev", device] };
            let rest = if kbit > 0 { &bound[..] } else { &["root"] };
            run("tc", &[place, verb, rest].concat(), "")?;
        }
        Ok(())
    }

    /// Mends everything.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mend(&mut self) -> Result<(), ZoneError> {
        for (from, to) in self.cut.clone() {
            self.set_cut(&from, &to, false)?;
        }
        for name in self.slow.clone() {
            self.set_rate(&name, 0)?;
        }
        Ok(())
    }
}

fn mac(number: u8) -> String {
    format!("02:ec:00:00:00:{number:02x}")
}

/// Runs lines of `ip`, in a namespace or in ours.
fn ip(namespace: Option<&str>, lines: &str) -> Result<(), ZoneError> {
    match namespace {
        Some(name) => run("ip", &["-n", name, "-batch", "-"], lines),
        None => run("ip", &["-batch", "-"], lines),
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), ZoneError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let failed = |error: std::io::Error| ZoneError { command: command(), said: error.to_string() };
    let mut command_line = Command::new(program);
    command_line.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command_line.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = format!("{}{input}", String::from_utf8_lossy(&output.stderr));
    Err(ZoneError { command: command(), said })
}
