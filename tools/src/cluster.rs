//! A cluster as separate processes on this host, with everything under one folder.
//!
//! ```text
//!  DIR/cluster.toml         the cluster: ids, incarnations, addresses
//!  DIR/config/NAME.toml     each process's configuration; names are n1, n2, …, memds-0, …, router-0, …
//!  DIR/data/n1/ …           each storage node's data folder
//!  DIR/run/NAME.pid         the process, while it runs
//!  DIR/log/NAME.log         what it says
//! ```
//!
//! Processes are known by their id *and* their command line, so that an id that was used again is never
//! signalled.

use crate::config::{
    ClusterConfig, Config, MemdsConfig, NodeConfig, PollingConfig, RouterRole, RuntimeConfig, StorageConfig,
};
use crate::folder;
use crate::local::{LocalError, new_uuid, read_config, write_config};
use crate::process::entropy;
use evenkeel_wire::prng::Prng;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use thiserror::Error;

/// How long a process may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why something cannot be done with a cluster's processes.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The folder or its configuration.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The folder holds no cluster.
    #[error("{} holds no cluster; `evenkeel cluster up --dir DIR` makes one", path.display())]
    None {
        /// The folder.
        path: PathBuf,
    },
    /// There is no such process.
    #[error("there is no process named {name}; there are {names}")]
    Name {
        /// What was asked for.
        name: String,
        /// What there is.
        names: String,
    },
    /// A process ended at once.
    #[error("{name} ended at once: {last}")]
    Ended {
        /// Its name.
        name: String,
        /// The last thing that it said.
        last: String,
    },
    /// Ports are taken.
    #[error("port {port} is taken: {error}; choose others with --port, or 0 for any")]
    Port {
        /// The port.
        port: u16,
        /// Why it cannot be used.
        error: std::io::Error,
    },
    /// A file or process.
    #[error("{what}: {error}")]
    Os {
        /// What was tried.
        what: String,
        /// What the operating system says.
        error: std::io::Error,
    },
}

fn os(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ClusterError {
    let what = what.into();
    move |error| ClusterError::Os { what, error }
}

/// How large a new cluster is.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Storage nodes.
    pub nodes: u32,
    /// Cores of each.
    pub cores: u16,
    /// MemDS servers.
    pub memds: usize,
    /// Routers.
    pub routers: usize,
    /// The first router's port; the others follow. 0: any free ones.
    pub port: u16,
    /// Segments of each core's log, and their size in MiB.
    pub log: (u32, u64),
    /// Page cache of each core, MiB.
    pub cache_mib: u64,
    /// Memory that each core takes when it starts, MiB; none: as much as its page cache.
    pub reserve_mib: Option<u64>,
    /// What routers' caches do.
    pub cache: String,
}

/// A cluster's folder.
#[derive(Clone, Debug)]
pub struct Cluster {
    directory: PathBuf,
    config: ClusterConfig,
}

impl Cluster {
    /// The cluster that a folder holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn open(directory: &Path) -> Result<Self, ClusterError> {
        let directory = std::path::absolute(directory).map_err(os("the folder"))?;
        match read_config(&directory)? {
            Some(config) => Ok(Self { directory, config }),
            None => Err(ClusterError::None { path: directory }),
        }
    }

    /// Makes a new cluster in a folder: configurations and formatted data folders. Nothing runs yet.
    /// `progress` is told how many of how many bytes are written.
    ///
    /// # Errors
    /// When ports are taken, or files cannot be written.
    pub fn create(
        directory: &Path,
        shape: &Shape,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ClusterError> {
        Self::create_as(directory, shape, describe(shape)?, progress)
    }

    /// The same with addresses of one's own: `config` says where everything is.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn create_as(
        directory: &Path,
        shape: &Shape,
        config: ClusterConfig,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ClusterError> {
        let directory = std::path::absolute(directory).map_err(os("the folder"))?;
        for folder in ["config", "data", "run", "log"] {
            std::fs::create_dir_all(directory.join(folder)).map_err(os(folder))?;
        }
        let cluster = Self { directory, config };
        cluster.write_configs(shape)?;
        cluster.format(progress)?;
        // Last, so that a folder that was not finished is not taken for a cluster.
        write_config(&cluster.directory, &cluster.config)?;
        Ok(cluster)
    }

    /// The cluster.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// The routers, as clients name them.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let routers: Vec<String> = self.config.routers.iter().map(ToString::to_string).collect();
        routers.join(",")
    }

    /// The names of all processes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let nodes = self.config.nodes.iter().map(|node| format!("n{}", node.id));
        let memds = (0..self.config.memds.len()).map(|number| format!("memds-{number}"));
        let routers = (0..self.config.routers.len()).map(|number| format!("router-{number}"));
        memds.chain(nodes).chain(routers).collect()
    }

    /// Checks a process's name. A number is the storage node of that number.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn name(&self, name: &str) -> Result<String, ClusterError> {
        let names = self.names();
        let name = if name.parse::<u32>().is_ok() { format!("n{name}") } else { name.to_owned() };
        if names.contains(&name) {
            return Ok(name);
        }
        Err(ClusterError::Name { name, names: names.join(", ") })
    }

    fn config_path(&self, name: &str) -> PathBuf {
        self.directory.join("config").join(format!("{name}.toml"))
    }

    fn pid_path(&self, name: &str) -> PathBuf {
        self.directory.join("run").join(format!("{name}.pid"))
    }

    /// Where a process's messages go.
    #[must_use]
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.directory.join("log").join(format!("{name}.log"))
    }

    /// Where a storage node's data is.
    #[must_use]
    pub fn data_path(&self, name: &str) -> PathBuf {
        self.directory.join("data").join(name)
    }

    fn write_configs(&self, shape: &Shape) -> Result<(), ClusterError> {
        let (segments, segment_mib) = shape.log;
        let processes = self.names().len();
        // Where processes outnumber CPUs, none may poll while another has work.
        let crowded = processes > evenkeel_link::cpus::count();
        let polling =
            if crowded { PollingConfig::Micros(0) } else { PollingConfig::Named("auto".to_owned()) };
        let runtime = RuntimeConfig { cpus: Vec::new(), near: false, polling };
        let empty =
            Config { cluster: self.config.clone(), storage: None, memds: None, router: None, runtime };
        // Left alone, the scheduler wakes a replica on the CPU of the one that sends to it, behind that one
        // and beside an idle CPU (docs/decisions/0019-turns.md).
        let usable = evenkeel_link::cpus::usable();
        let mut in_turn = usable.iter().copied().cycle();
        for node in &self.config.nodes {
            let name = format!("n{}", node.id);
            let data = self.data_path(&name);
            let cpus = in_turn.by_ref().take(if crowded { node.cores.len() } else { 0 }).collect();
            let node = node.id;
            let (cache_mib, reserve_mib, write_delay_ms) = (shape.cache_mib, shape.reserve_mib, 0);
            let storage =
                StorageConfig { node, data, segments, segment_mib, cache_mib, reserve_mib, write_delay_ms };
            let runtime = RuntimeConfig { cpus, ..empty.runtime.clone() };
            self.write_one(&name, &Config { storage: Some(storage), runtime, ..empty.clone() })?;
        }
        for (number, listen) in self.config.memds.iter().enumerate() {
            let memds = Some(MemdsConfig { listen: *listen });
            self.write_one(&format!("memds-{number}"), &Config { memds, ..empty.clone() })?;
        }
        for (number, listen) in self.config.routers.iter().enumerate() {
            let router = Some(RouterRole { listen: *listen, cache: shape.cache.clone() });
            // With few requests, waking it on an idle CPU is a good part of what one takes
            // (docs/decisions/0021-near.md).
            let runtime = RuntimeConfig { near: crowded, ..empty.runtime.clone() };
            self.write_one(&format!("router-{number}"), &Config { router, runtime, ..empty.clone() })?;
        }
        Ok(())
    }

    fn write_one(&self, name: &str, config: &Config) -> Result<(), ClusterError> {
        let text = toml::to_string(config).expect("a configuration is plain text");
        std::fs::write(self.config_path(name), text).map_err(os(format!("the configuration of {name}")))
    }

    fn format(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), ClusterError> {
        let mut storages = Vec::new();
        for node in &self.config.nodes {
            let path = self.config_path(&format!("n{}", node.id));
            let text = std::fs::read_to_string(&path).map_err(os(path.display().to_string()))?;
            let config: Config = toml::from_str(&text).expect("it was just written");
            storages.push((config.storage.expect("it is a storage node's"), node.cores.len()));
        }
        let total: u64 = storages.iter().map(|(storage, cores)| folder::format_bytes(storage, *cores)).sum();
        let mut done = 0;
        for (storage, cores) in &storages {
            folder::format(&self.config, storage, &mut |bytes| progress(done + bytes, total))
                .map_err(LocalError::from)?;
            done += folder::format_bytes(storage, *cores);
        }
        Ok(())
    }

    /// The id of a process, if it runs.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.pid_path(name)).ok()?;
        let pid: u32 = text.trim().parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config_path(name);
        let mut words = command.split(|byte| *byte == 0);
        words.any(|word| word == config.as_os_str().as_encoded_bytes()).then_some(pid)
    }

    /// Changes what a process is told. It learns of it when it is started again.
    ///
    /// # Errors
    /// When its configuration cannot be read or written.
    pub fn configure(&self, name: &str, change: impl FnOnce(&mut Config)) -> Result<(), ClusterError> {
        let path = self.config_path(name);
        let read = std::fs::read_to_string(&path);
        let text = read.map_err(os(format!("the configuration of {name}")))?;
        let wrong = |error: toml::de::Error| std::io::Error::other(error);
        let config: Result<Config, _> = toml::from_str(&text).map_err(wrong);
        let mut config = config.map_err(os(format!("the configuration of {name}")))?;
        change(&mut config);
        self.write_one(name, &config)
    }

    /// Starts a process, unless it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str) -> Result<(), ClusterError> {
        if self.pid(name).is_none() {
            self.launch(name, &[])?;
        }
        Ok(())
    }

    /// Starts a process that does not run, through a command that replaces itself by what follows it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&self, name: &str, through: &[OsString]) -> Result<Child, ClusterError> {
        let program = std::env::current_exe().map_err(os("this program's path"))?;
        let mut words = through.iter().cloned().chain([program.into_os_string()]);
        let first = words.next().expect("there is this program");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(name));
        let log = log.map_err(os(format!("the log of {name}")))?;
        let errors = log.try_clone().map_err(os(format!("the log of {name}")))?;
        let child = Command::new(first)
            .args(words)
            .arg("start")
            .arg("--config")
            .arg(self.config_path(name))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A group of its own: ^C at the terminal is not meant for it.
            .process_group(0)
            .spawn();
        let mut child = child.map_err(os(format!("starting {name}")))?;
        std::fs::write(self.pid_path(name), child.id().to_string())
            .map_err(os(format!("the id of {name}")))?;
        // Its command line, by which it is known, shows a moment after it exists.
        while self.pid(name).is_none() && matches!(child.try_wait(), Ok(None)) {
            pause();
        }
        Ok(child)
    }

    /// Whether a process that was started is still there; why not, if it is not.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&self, name: &str) -> Result<(), ClusterError> {
        if self.pid(name).is_some() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log_path(name)).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it said nothing").to_owned();
        Err(ClusterError::Ended { name: name.to_owned(), last })
    }

    /// Kills a process (SIGKILL). Returns whether it ran.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(&self, name: &str) -> Result<bool, ClusterError> {
        let Some(pid) = self.pid(name) else {
            return Ok(false);
        };
        signal(pid, Signal::KILL)?;
        self.wait(name, END_WITHIN);
        Ok(true)
    }

    /// Asks processes to end in good order (SIGTERM), waits for them, and kills those that do not.
    ///
    /// # Errors
    /// When one cannot be signalled.
    pub fn stop(&self, names: &[String]) -> Result<(), ClusterError> {
        for name in names {
            if let Some(pid) = self.pid(name) {
                signal(pid, Signal::TERM)?;
            }
        }
        for name in names {
            if !self.wait(name, END_WITHIN) {
                self.kill(name)?;
            }
        }
        Ok(())
    }

    /// Waits until a process has ended. False if it has not in time.
    fn wait(&self, name: &str, within: Duration) -> bool {
        let mut left = within;
        while self.pid(name).is_some() {
            if left.is_zero() {
                return false;
            }
            pause();
            left = left.saturating_sub(LOOK_EVERY);
        }
        let _gone_already = std::fs::remove_file(self.pid_path(name));
        true
    }
}

#[allow(clippy::disallowed_methods, reason = "waiting for a process is a door's work")]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

/// Signals a process. One that is not there any more is no error.
///
/// # Errors
/// When it may not be signalled.
pub fn signal(pid: u32, signal: Signal) -> Result<(), ClusterError> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match kill_process(pid, signal) {
        // It ended by itself.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(os(format!("signalling process {pid}"))(error.into())),
    }
}

/// A new cluster's description: ids, incarnations, and ports that are free now.
fn describe(shape: &Shape) -> Result<ClusterConfig, ClusterError> {
    let cores = usize::from(shape.cores) * shape.nodes as usize;
    let mut ports = Ports::find(shape.port, shape.routers + shape.memds + cores)?;
    let routers = ports.take(shape.routers);
    let memds = ports.take(shape.memds);
    let mut nodes = Vec::new();
    for id in 1..=shape.nodes {
        nodes.push(NodeConfig {
            id,
            zone: ["a", "b", "c"][(id as usize - 1) % 3].to_owned(),
            incarnation: new_uuid().map_err(LocalError::from)?,
            cores: ports.take(usize::from(shape.cores)),
        });
    }
    let id = new_uuid().map_err(LocalError::from)?;
    Ok(ClusterConfig { id, memds, routers, nodes })
}

/// Well-known services have lower ones.
const LOWEST_PORT: u16 = 10_000;
/// Ports that are tried before a host counts as full.
const PORT_TRIES_MAX: usize = 1000;

/// The first port that the kernel may give to a connection.
fn first_ephemeral_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    first.filter(|first| *first > LOWEST_PORT).unwrap_or(32_768)
}

fn listen_on(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Ports that were free when they were looked at.
struct Ports {
    free: std::vec::IntoIter<SocketAddr>,
    /// Held until all are chosen, so that none is given twice.
    _listeners: Vec<TcpListener>,
}

impl Ports {
    fn find(first: u16, count: usize) -> Result<Self, ClusterError> {
        let listeners = if first == 0 { Self::any(count)? } else { Self::from(first, count)? };
        let address =
            |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address");
        let free: Vec<SocketAddr> = listeners.iter().map(address).collect();
        Ok(Self { free: free.into_iter(), _listeners: listeners })
    }

    fn from(first: u16, count: usize) -> Result<Vec<TcpListener>, ClusterError> {
        let ports = (first..).take(count);
        let bind = |port| listen_on(port).map_err(|error| ClusterError::Port { port, error });
        ports.map(bind).collect()
    }

    /// Ports that the kernel gives to nobody who connects: a process that is down for a while finds its port
    /// free when it comes back.
    fn any(count: usize) -> Result<Vec<TcpListener>, ClusterError> {
        let below = first_ephemeral_port();
        let span = u64::from(below.saturating_sub(LOWEST_PORT)).max(1);
        let mut prng = Prng::new(u64::from_le_bytes(entropy().map_err(LocalError::from)?));
        let (mut listeners, mut tries) = (Vec::new(), 0);
        while listeners.len() < count {
            tries += 1;
            let port = LOWEST_PORT + prng.below(span) as u16;
            match listen_on(port) {
                Ok(listener) => listeners.push(listener),
                Err(error) if tries >= PORT_TRIES_MAX => return Err(ClusterError::Port { port, error }),
                Err(_) => {}
            }
        }
        Ok(listeners)
    }

    fn take(&mut self, count: usize) -> Vec<SocketAddr> {
        self.free.by_ref().take(count).collect()
    }
}
