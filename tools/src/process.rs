//! A process: the machines that its configuration names, on their executors.

use crate::config::{ClusterConfig, Config, cache_mode};
use crate::folder::{self, FolderError, OpenFolder};
use evenkeel_dataplane::config::CoreConfig;
use evenkeel_dataplane::core::StorageCore;
use evenkeel_dataplane::limits::{LOG_BUFFER_BYTES, LOG_BUFFERS};
use evenkeel_link::{CoreFiles, Ended, Executor, Hosting, LogBuffers, OnEnd, Placement, Polling, StartError};
use evenkeel_router::cache::CacheMode;
use evenkeel_router::memds::Memds;
use evenkeel_router::route::{Router, RouterConfig};
use evenkeel_wire::handshake::{Identity, Peer, PeerRole};
use evenkeel_wire::ids::{CoreId, Incarnation, NodeId};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use thiserror::Error;

/// How long a process waits for its address to be free.
const LISTEN_PATIENCE: Duration = Duration::from_millis(500);
/// How often it tries meanwhile.
const LISTEN_RETRY: Duration = Duration::from_millis(10);

/// Why a process cannot start.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Its data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An address.
    #[error("cannot listen on {address}: {error}; is another process using it?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// An executor.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No entropy for seeds.
    #[error("the operating system gives no random numbers: {0}")]
    Entropy(String),
}

/// A machine that is ready to be hosted, with its listener bound.
pub struct Prepared {
    hosting: Hosting,
}

/// A random seed.
///
/// # Errors
/// When the operating system has none.
#[allow(clippy::disallowed_methods, reason = "process assembly is a door")]
pub fn entropy<const N: usize>() -> Result<[u8; N], ProcessError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ProcessError::Entropy(error.to_string()))?;
    Ok(bytes)
}

fn seed() -> Result<u64, ProcessError> {
    Ok(u64::from_le_bytes(entropy()?))
}

/// Binds a listener. One that is taken may be a killed process's, whose end shows a moment before the kernel
/// has let go of its sockets: that is waited for.
///
/// # Errors
/// When the address is taken.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ProcessError> {
    let mut left = LISTEN_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && !left.is_zero() => {
                #[allow(clippy::disallowed_methods, reason = "waiting is a door's work")]
                std::thread::sleep(LISTEN_RETRY);
                left = left.saturating_sub(LISTEN_RETRY);
            }
            Err(error) => return Err(ProcessError::Listen { address, error }),
        }
    }
}

/// What a storage core gets of the memory, bytes.
#[derive(Clone, Copy, Debug)]
pub struct CoreMemory {
    /// Its page cache.
    pub cache_bytes: usize,
    /// What its thread takes when it starts.
    pub reserve_bytes: usize,
}

/// Prepares a storage core.
///
/// # Errors
/// When there is no entropy.
pub fn prepare_core(
    cluster: &ClusterConfig,
    member: (NodeId, CoreId, Incarnation),
    files: CoreFiles,
    memory: CoreMemory,
    listener: TcpListener,
    on_end: Option<OnEnd>,
) -> Result<Prepared, ProcessError> {
    let (node, core, incarnation) = member;
    let CoreMemory { cache_bytes, reserve_bytes } = memory;
    let config = CoreConfig {
        node,
        core,
        incarnation,
        nodes: cluster.node_infos(),
        memds: cluster.memds.clone(),
        system: cluster.system_members(),
        cache_bytes,
        seed: seed()?,
    };
    let peer = Peer { role: PeerRole::Storage, node, core, incarnation };
    let hosting = Hosting {
        name: format!("{node}.{core}"),
        identity: Identity { cluster: cluster.incarnation(), peer },
        listener,
        files: Some(files),
        log_buffers: Some(LogBuffers { count: LOG_BUFFERS, bytes: LOG_BUFFER_BYTES }),
        reserve_bytes,
        build: Box::new(move |buffers| Box::new(StorageCore::new(config, buffers))),
        on_end,
    };
    Ok(Prepared { hosting })
}

/// Prepares a MemDS server.
#[must_use]
pub fn prepare_memds(cluster: &ClusterConfig, listener: TcpListener, on_end: Option<OnEnd>) -> Prepared {
    let hosting = Hosting {
        name: "memds".to_owned(),
        identity: Identity { cluster: cluster.incarnation(), peer: Peer::of_role(PeerRole::Memds) },
        listener,
        files: None,
        log_buffers: None,
        reserve_bytes: 0,
        build: Box::new(|_| Box::new(Memds::new())),
        on_end,
    };
    Prepared { hosting }
}

/// Prepares a router.
///
/// # Errors
/// When there is no entropy.
pub fn prepare_router(
    cluster: &ClusterConfig,
    cache: CacheMode,
    listener: TcpListener,
    on_end: Option<OnEnd>,
) -> Result<Prepared, ProcessError> {
    let config =
        RouterConfig { memds: cluster.memds.clone(), topology: cluster.topology(), cache, seed: seed()? };
    let hosting = Hosting {
        name: "router".to_owned(),
        identity: Identity { cluster: cluster.incarnation(), peer: Peer::of_role(PeerRole::Router) },
        listener,
        files: None,
        log_buffers: None,
        reserve_bytes: 0,
        build: Box::new(move |_| Box::new(Router::new(config))),
        on_end,
    };
    Ok(Prepared { hosting })
}

/// A process's executors.
#[derive(Debug)]
pub struct Process {
    executors: Vec<Executor>,
}

impl Process {
    /// Starts prepared machines on `executors` executors (at least one), in turn; where they run is said
    /// by `placements` in turn, if there are any.
    ///
    /// # Errors
    /// When one cannot be started; those that were are stopped.
    pub fn start(
        prepared: Vec<Prepared>,
        executors: usize,
        placements: &[Placement],
        polling: Polling,
    ) -> Result<Self, ProcessError> {
        let count = executors.clamp(1, prepared.len().max(1));
        let mut groups: Vec<Vec<Hosting>> = (0..count).map(|_| Vec::new()).collect();
        for (index, prepared) in prepared.into_iter().enumerate() {
            groups[index % count].push(prepared.hosting);
        }
        let mut started = Vec::new();
        for (index, group) in groups.into_iter().enumerate() {
            let placement = placements.get(index % placements.len().max(1)).copied();
            let placement = placement.unwrap_or(Placement::Unpinned);
            let names: Vec<&str> = group.iter().map(|hosting| hosting.name.as_str()).collect();
            let name = names.join("+");
            started.push(evenkeel_link::start(&name, placement, polling, group)?);
        }
        Ok(Self { executors: started })
    }

    /// Starts what a configuration names: one executor for each machine.
    ///
    /// # Errors
    /// When something cannot be opened, bound or started.
    pub fn from_config(config: &Config, on_end: &dyn Fn() -> OnEnd) -> Result<Self, ProcessError> {
        let cluster = &config.cluster;
        let mut prepared = Vec::new();
        if let Some(storage) = &config.storage {
            let OpenFolder { node, incarnation, cores } = folder::open(cluster, storage)?;
            let info = &cluster.node_infos()[&node];
            let write_delay = Duration::from_millis(storage.write_delay_ms);
            for (index, mut files) in cores.into_iter().enumerate() {
                files.delay_writes(write_delay);
                let listener = listen(info.cores[index])?;
                let member = (node, CoreId(index as u16), incarnation);
                let memory = storage.memory();
                prepared.push(prepare_core(cluster, member, files, memory, listener, Some(on_end()))?);
            }
        }
        if let Some(memds) = &config.memds {
            prepared.push(prepare_memds(cluster, listen(memds.listen)?, Some(on_end())));
        }
        if let Some(router) = &config.router {
            let cache = cache_mode(&router.cache).unwrap_or_default();
            prepared.push(prepare_router(cluster, cache, listen(router.listen)?, Some(on_end()))?);
        }
        let polling = config.polling().unwrap_or_default();
        let count = prepared.len();
        Self::start(prepared, count, &config.placements(), polling)
    }

    /// Tells every machine to hand over, finish, and end.
    pub fn drain(&self) {
        self.executors.iter().for_each(Executor::drain);
    }

    /// Ends every machine now.
    pub fn stop(&self) {
        self.executors.iter().for_each(Executor::stop);
    }

    /// The machines that have ended so far.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        self.executors.iter().flat_map(Executor::ended).collect()
    }

    /// Whether all machines have ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.executors.iter().all(Executor::is_finished)
    }

    /// Waits until all machines have ended.
    #[must_use]
    pub fn join(self) -> Vec<Ended> {
        self.executors.into_iter().flat_map(Executor::join).collect()
    }
}
