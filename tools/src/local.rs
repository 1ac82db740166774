//! A whole cluster in this process, on a folder: for tests, demonstrations and examples.
//!
//! Real machines on real executors, sockets and files; nothing is mocked. The cluster ends when the value is
//! dropped, and a temporary folder goes with it.
//!
//! ```no_run
//! use evenkeel::local::Cluster;
//! use evenkeel_client::{Client, Item};
//!
//! let cluster = Cluster::temporary()?;
//! let client = Client::builder().endpoint(&cluster.endpoint()).connect()?;
//! client.create_table("users").partition_key("id", evenkeel_client::KeyType::S).wait_until_active().send()?;
//! client.put("users", Item::new().with("id", "ada")).send()?;
//! assert!(client.get("users", Item::new().with("id", "ada")).send()?.item.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::config::{CACHE_MIB_ONE_HOST, ClusterConfig, NodeConfig, StorageConfig};
use crate::folder::{self, OpenFolder};
use crate::process::{self, Prepared, Process, ProcessError};
use evenkeel_link::files::check_file_system;
use evenkeel_link::{Ended, Polling};
use evenkeel_router::cache::CacheMode;
use evenkeel_wire::ids::CoreId;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use thiserror::Error;

/// Why a cluster cannot start.
#[derive(Debug, Error)]
pub enum LocalError {
    /// A machine, folder or address.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The folder.
    #[error("{}: {message}", path.display())]
    Folder {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// It started, but does not answer.
    #[error("the cluster has started but does not answer: {0}")]
    NotReady(evenkeel_client::Error),
}

impl From<folder::FolderError> for LocalError {
    fn from(error: folder::FolderError) -> Self {
        Self::Process(error.into())
    }
}

/// How large a cluster is.
#[derive(Debug)]
pub struct Builder {
    directory: PathBuf,
    temporary: Option<TempDir>,
    nodes: u32,
    memds: usize,
    routers: usize,
    executors: usize,
    segments: u32,
    segment_mib: u64,
    cache: CacheMode,
    router_port: u16,
}

/// A cluster that runs in this process.
#[derive(Debug)]
pub struct Cluster {
    process: Option<Process>,
    config: ClusterConfig,
    /// Removed when the cluster has ended.
    _temporary: Option<TempDir>,
}

impl Builder {
    /// A cluster of three storage nodes, two MemDS servers and a router on `directory`.
    fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            temporary: None,
            nodes: 3,
            memds: 2,
            routers: 1,
            executors: evenkeel_link::cpus::count(),
            segments: 8,
            segment_mib: 8,
            cache: CacheMode::On,
            router_port: 0,
        }
    }

    /// Storage nodes, spread over the zones a, b and c. Three, unless said otherwise; used when the folder is
    /// new.
    #[must_use]
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }

    /// Routers. One, unless said otherwise.
    #[must_use]
    pub fn routers(mut self, routers: usize) -> Self {
        self.routers = routers;
        self
    }

    /// Threads that the machines share. As many as there are CPUs, unless said otherwise.
    #[must_use]
    pub fn executors(mut self, executors: usize) -> Self {
        self.executors = executors;
        self
    }

    /// The log of each storage core: segments, and their size in MiB. Used when the folder is new.
    #[must_use]
    pub fn log(mut self, segments: u32, segment_mib: u64) -> Self {
        self.segments = segments;
        self.segment_mib = segment_mib;
        self
    }

    /// What routers' caches do.
    #[must_use]
    pub fn cache(mut self, cache: CacheMode) -> Self {
        self.cache = cache;
        self
    }

    /// The port of the first router; 0, unless said otherwise: any free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.router_port = port;
        self
    }

    /// Starts the cluster, formatting its folders if they are new, and waits until it answers. `progress` is
    /// told how many of how many bytes of new folders are written.
    ///
    /// # Errors
    /// When something cannot be opened, bound or started.
    pub fn start_with_progress(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Cluster, LocalError> {
        let identity = self.identity()?;
        let listeners = self.bind(&identity)?;
        let config = listeners.config(identity);
        write_config(&self.directory, &config)?;
        let mut prepared = Vec::new();
        self.format(&config, progress)?;
        for (node, listeners) in config.nodes.iter().zip(listeners.nodes) {
            prepared.extend(self.prepare_node(&config, node, listeners)?);
        }
        for listener in listeners.memds {
            prepared.push(process::prepare_memds(&config, listener, None));
        }
        for listener in listeners.routers {
            prepared.push(process::prepare_router(&config, self.cache, listener, None)?);
        }
        let executors = self.executors.min(prepared.len());
        let process = Process::start(prepared, executors, &[], Polling::Auto)?;
        let cluster = Cluster { process: Some(process), config, _temporary: self.temporary };
        cluster.wait_until_it_answers()?;
        Ok(cluster)
    }

    /// Starts the cluster, formatting its folders if they are new, and waits until it answers.
    ///
    /// # Errors
    /// When something cannot be opened, bound or started.
    pub fn start(self) -> Result<Cluster, LocalError> {
        self.start_with_progress(&mut |_, _| ())
    }

    /// The identity of the cluster in the folder, or a new one: ids and incarnations, without addresses.
    fn identity(&self) -> Result<ClusterConfig, LocalError> {
        if let Some(config) = read_config(&self.directory)? {
            return Ok(config);
        }
        let node = |id: u32| -> Result<NodeConfig, LocalError> {
            let zone = ["a", "b", "c"][(id as usize - 1) % 3].to_owned();
            let incarnation = new_uuid()?;
            Ok(NodeConfig { id, zone, incarnation, cores: Vec::new() })
        };
        let nodes = (1..=self.nodes).map(node).collect::<Result<_, _>>()?;
        Ok(ClusterConfig { id: new_uuid()?, memds: Vec::new(), routers: Vec::new(), nodes })
    }

    fn bind(&self, identity: &ClusterConfig) -> Result<Listeners, LocalError> {
        let any = || process::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let first_router = SocketAddr::from((Ipv4Addr::LOCALHOST, self.router_port));
        let mut routers = vec![process::listen(first_router)?];
        for _ in 1..self.routers {
            routers.push(any()?);
        }
        let nodes = identity.nodes.iter().map(|_| Ok(vec![any()?])).collect::<Result<_, ProcessError>>()?;
        let memds = (0..self.memds).map(|_| any()).collect::<Result<_, _>>()?;
        Ok(Listeners { nodes, memds, routers })
    }

    fn storage(&self, node: &NodeConfig) -> StorageConfig {
        StorageConfig {
            node: node.id,
            data: self.directory.join(format!("node-{}", node.id)),
            segments: self.segments,
            segment_mib: self.segment_mib,
            cache_mib: CACHE_MIB_ONE_HOST,
            // Its nodes share a process, whose allocator is the embedder's.
            reserve_mib: Some(0),
            write_delay_ms: 0,
        }
    }

    fn format(&self, config: &ClusterConfig, progress: &mut dyn FnMut(u64, u64)) -> Result<(), LocalError> {
        let storages: Vec<StorageConfig> = config.nodes.iter().map(|node| self.storage(node)).collect();
        let new = storages.iter().filter(|storage| !folder::is_formatted(&storage.data));
        let new: Vec<&StorageConfig> = new.collect();
        let total: u64 = new.iter().map(|storage| folder::format_bytes(storage, 1)).sum();
        let mut done = 0;
        for storage in new {
            folder::format(config, storage, &mut |bytes| progress(done + bytes, total))?;
            done += folder::format_bytes(storage, 1);
        }
        Ok(())
    }

    fn prepare_node(
        &self,
        config: &ClusterConfig,
        node: &NodeConfig,
        listeners: Vec<TcpListener>,
    ) -> Result<Vec<Prepared>, LocalError> {
        let storage = self.storage(node);
        let OpenFolder { node, incarnation, cores } = folder::open(config, &storage)?;
        let cores = cores.into_iter().zip(listeners).enumerate();
        let prepared = cores.map(|(core, (files, listener))| {
            let member = (node, CoreId(core as u16), incarnation);
            process::prepare_core(config, member, files, storage.memory(), listener, None)
        });
        Ok(prepared.collect::<Result<_, _>>()?)
    }
}

struct Listeners {
    nodes: Vec<Vec<TcpListener>>,
    memds: Vec<TcpListener>,
    routers: Vec<TcpListener>,
}

impl Listeners {
    /// The cluster with the addresses that were bound.
    fn config(&self, identity: ClusterConfig) -> ClusterConfig {
        let address =
            |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address");
        let nodes = identity.nodes.into_iter().zip(&self.nodes);
        let nodes = nodes
            .map(|(node, listeners)| NodeConfig { cores: listeners.iter().map(address).collect(), ..node });
        ClusterConfig {
            id: identity.id,
            memds: self.memds.iter().map(address).collect(),
            routers: self.routers.iter().map(address).collect(),
            nodes: nodes.collect(),
        }
    }
}

impl Cluster {
    /// A cluster of three storage nodes, two MemDS servers and a router on `directory`.
    pub fn builder(directory: impl AsRef<Path>) -> Builder {
        Builder::new(directory.as_ref().to_owned())
    }

    /// The same on a new temporary folder, which is removed when the cluster has ended.
    ///
    /// # Errors
    /// When there is no place for one.
    pub fn temporary_builder() -> Result<Builder, LocalError> {
        let folder = temporary_folder("evenkeel-")?;
        let path = folder.path().to_owned();
        Ok(Builder { temporary: Some(folder), ..Builder::new(path) })
    }

    /// Starts such a cluster: a new one on an empty folder, or the one that the folder holds.
    ///
    /// # Errors
    /// When something cannot be opened, bound or started.
    pub fn start(directory: impl AsRef<Path>) -> Result<Self, LocalError> {
        Self::builder(directory).start()
    }

    /// Starts such a cluster on a new temporary folder, which is removed when the cluster has ended.
    ///
    /// # Errors
    /// When something cannot be made, bound or started.
    pub fn temporary() -> Result<Self, LocalError> {
        Self::temporary_builder()?.start()
    }

    /// The address of the first router.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.config.routers[0].to_string()
    }

    /// Where everything is.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Machines that have ended although nobody asked them to: a fault.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        self.process.as_ref().map(Process::ended).unwrap_or_default()
    }

    fn wait_until_it_answers(&self) -> Result<(), LocalError> {
        let client = evenkeel_client::Client::builder().endpoint(self.endpoint()).connect();
        let answered = client.and_then(|client| client.list_tables().send());
        answered.map(|_| ()).map_err(LocalError::NotReady)
    }

    /// Ends the cluster: connections are closed, what is under way on disks is waited for.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
            let _ended = process.join();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes a temporary folder on a disk: in the system's place for such folders, or, where that lies in memory,
/// in /var/tmp or the present folder.
///
/// # Errors
/// When none of them will do.
pub fn temporary_folder(prefix: &str) -> Result<TempDir, LocalError> {
    let places = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")];
    let place = places.iter().find(|place| check_file_system(place).is_ok());
    let place = place.or(places.first()).expect("there are three");
    let failed =
        |error: std::io::Error| LocalError::Folder { path: place.clone(), message: error.to_string() };
    tempfile::Builder::new().prefix(prefix).tempdir_in(place).map_err(failed)
}

/// A random UUID.
///
/// # Errors
/// When the operating system has no entropy.
pub fn new_uuid() -> Result<String, ProcessError> {
    let bytes = process::entropy::<16>()?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().to_string())
}

fn config_path(directory: &Path) -> PathBuf {
    directory.join("cluster.toml")
}

/// The cluster that a folder holds, if it holds one.
///
/// # Errors
/// When its description cannot be read.
pub fn read_config(directory: &Path) -> Result<Option<ClusterConfig>, LocalError> {
    let path = config_path(directory);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LocalError::Folder { path, message: error.to_string() }),
    };
    toml::from_str(&text).map(Some).map_err(|error| LocalError::Folder { path, message: error.to_string() })
}

/// Writes what [`read_config`] reads.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_config(directory: &Path, config: &ClusterConfig) -> Result<(), LocalError> {
    let path = config_path(directory);
    let failed =
        |error: std::io::Error| LocalError::Folder { path: path.clone(), message: error.to_string() };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let text = toml::to_string(config).expect("a cluster is plain text");
    std::fs::write(&path, text).map_err(failed)
}
