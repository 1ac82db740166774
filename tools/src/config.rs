//! The configuration of a process, as an operator writes it.
//!
//! ```toml
//! [cluster]                       # the same in every process of a cluster
//! id = "6d1f3c1e-…"
//! memds = ["127.0.0.1:7420", "127.0.0.1:7421"]
//! routers = ["127.0.0.1:7400"]
//!
//! [[cluster.node]]                # one for each storage node
//! id = 1
//! zone = "a"
//! incarnation = "0b3f…"           # names the data folder that belongs to this node
//! cores = ["127.0.0.1:7500"]      # where each of its cores listens
//!
//! [storage]                       # this process is storage node 1
//! node = 1
//! data = "/var/lib/evenkeel"
//! segments = 16                   # when the folder is formatted: segments of each core's log…
//! segment_mib = 32                # …and their size
//! cache_mib = 256                 # page cache of each core
//! reserve_mib = 768               # memory that each core takes when it starts; without it: cache_mib
//! write_delay_ms = 0              # a fault: every write and flush reaches the disk this much later
//!
//! [memds]                         # this process is a MemDS server
//! listen = "127.0.0.1:7420"
//!
//! [router]                        # this process is a router
//! listen = "127.0.0.1:7400"
//! cache = "on"                    # or "off", or "flush 100ms": it makes no difference to MemDS
//!
//! [runtime]
//! cpus = [0, 1]                   # executors are pinned to these in turn; empty: not pinned
//! near = false                    # true: while a thread has little to do it runs where its messages come
//!                                 # from, else on any CPU; without cpus
//! polling = "auto"                # or microseconds to poll before sleeping
//! ```
//!
//! Unknown keys are errors: a misspelt setting must not be ignored.

use crate::process::CoreMemory;
use evenkeel_dataplane::config::NodeInfo;
use evenkeel_dataplane::limits::{SEGMENT_BYTES_MIN, SEGMENTS_MIN};
use evenkeel_router::cache::CacheMode;
use evenkeel_wire::ids::{CoreId, Incarnation, NodeId};
use evenkeel_wire::message::status::{TopologyAnswer, TopologyNode};
use evenkeel_wire::table::Member;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Segments of a core's log, unless the configuration says otherwise.
pub const SEGMENTS_DEFAULT: u32 = 16;
/// Their size, MiB.
pub const SEGMENT_MIB_DEFAULT: u64 = 32;
/// Page cache of a core, unless the configuration says otherwise, MiB.
pub const CACHE_MIB_DEFAULT: u64 = 256;
/// The same where the cores of a whole cluster share one host.
pub const CACHE_MIB_ONE_HOST: u64 = 64;
/// The least page cache of a core: room for the inner nodes of its trees and a few hundred leaves.
pub const CACHE_MIB_MIN: u64 = 4;

/// A process's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster that the process belongs to.
    pub cluster: ClusterConfig,
    /// Its role as a storage node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageConfig>,
    /// Its role as a MemDS server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memds: Option<MemdsConfig>,
    /// Its role as a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterRole>,
    /// Where and how it runs.
    #[serde(default)]
    pub runtime: RuntimeConfig,
}

/// A cluster, as all its processes know it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// A UUID that keeps clusters apart.
    pub id: String,
    /// Where MemDS servers listen.
    pub memds: Vec<SocketAddr>,
    /// Where routers listen.
    pub routers: Vec<SocketAddr>,
    /// Storage nodes.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeConfig>,
}

/// A storage node, as all processes know it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its number, from 1.
    pub id: u32,
    /// Its availability zone.
    pub zone: String,
    /// The incarnation of its data folder.
    pub incarnation: String,
    /// Where its cores listen.
    pub cores: Vec<SocketAddr>,
}

/// The role of a storage node.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Which node.
    pub node: u32,
    /// Its data folder.
    pub data: PathBuf,
    /// Segments of each core's log, used when the folder is formatted.
    #[serde(default = "segments_default")]
    pub segments: u32,
    /// Their size, MiB.
    #[serde(default = "segment_mib_default")]
    pub segment_mib: u64,
    /// Page cache of each core, MiB.
    #[serde(default = "cache_mib_default")]
    pub cache_mib: u64,
    /// Memory that each core takes when it starts, MiB; none: as much as its page cache. Best what it will
    /// need: the page cache, and what is written between two checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_mib: Option<u64>,
    /// A fault, for tests: every write and flush reaches the disk this many milliseconds later.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub write_delay_ms: u64,
}

impl StorageConfig {
    /// What each core gets of the memory.
    #[must_use]
    pub fn memory(&self) -> CoreMemory {
        let bytes = |mib: u64| (mib as usize).saturating_mul(1 << 20);
        let reserve_bytes = bytes(self.reserve_mib.unwrap_or(self.cache_mib));
        CoreMemory { cache_bytes: bytes(self.cache_mib), reserve_bytes }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn segments_default() -> u32 {
    SEGMENTS_DEFAULT
}

fn segment_mib_default() -> u64 {
    SEGMENT_MIB_DEFAULT
}

fn cache_mib_default() -> u64 {
    CACHE_MIB_DEFAULT
}

/// The role of a MemDS server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemdsConfig {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// The role of a router.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouterRole {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What its cache does: "on", "off", or "flush 100ms".
    #[serde(default = "cache_default")]
    pub cache: String,
}

fn cache_default() -> String {
    "on".to_owned()
}

/// Where and how a process runs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// CPUs to pin executors to, in turn; empty: they are not pinned.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// Whether executors run where their messages come from while they have little to do.
    #[serde(default)]
    pub near: bool,
    /// How long an executor polls before it sleeps.
    #[serde(default)]
    pub polling: PollingConfig,
}

/// How long an executor polls before it sleeps.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(untagged)]
pub enum PollingConfig {
    /// As long as it pays.
    #[default]
    #[serde(skip)]
    Auto,
    /// The word "auto".
    Named(String),
    /// Microseconds.
    Micros(u64),
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}:{line}: {message}{suggestion}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// What may have been meant, or nothing.
        suggestion: String,
    },
    /// The values do not fit together.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Reads and checks a configuration; `path` is for errors.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = parse(text, path)?;
        config.check().map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.cluster.check()?;
        if self.storage.is_none() && self.memds.is_none() && self.router.is_none() {
            return Err("no role is configured; add [storage], [memds] or [router]".to_owned());
        }
        if let Some(storage) = &self.storage {
            if !self.cluster.nodes.iter().any(|node| node.id == storage.node) {
                let node = storage.node;
                return Err(format!(
                    "[storage] says node {node}, but there is no [[cluster.node]] with that id"
                ));
            }
            if storage.segments < SEGMENTS_MIN || storage.segment_mib << 20 < SEGMENT_BYTES_MIN {
                let mib = SEGMENT_BYTES_MIN >> 20;
                return Err(format!("a log needs at least {SEGMENTS_MIN} segments of {mib} MiB"));
            }
            if storage.cache_mib < CACHE_MIB_MIN {
                let cache_mib = storage.cache_mib;
                return Err(format!(
                    "storage.cache_mib is {cache_mib}; a core's page cache needs at least {CACHE_MIB_MIN} MiB"
                ));
            }
        }
        if let Some(router) = &self.router {
            cache_mode(&router.cache)?;
        }
        self.polling()?;
        if self.runtime.near && !self.runtime.cpus.is_empty() {
            return Err("runtime.near is true and runtime.cpus names CPUs; leave one of them out".to_owned());
        }
        Ok(())
    }

    /// Where executors run, in turn.
    #[must_use]
    pub fn placements(&self) -> Vec<evenkeel_link::Placement> {
        use evenkeel_link::Placement;
        match &self.runtime.cpus[..] {
            [] if self.runtime.near => vec![Placement::Near],
            [] => vec![Placement::Unpinned],
            cpus => cpus.iter().copied().map(Placement::Cpu).collect(),
        }
    }

    /// How executors poll.
    ///
    /// # Errors
    /// When the value is neither "auto" nor a number.
    pub fn polling(&self) -> Result<evenkeel_link::Polling, String> {
        match &self.runtime.polling {
            PollingConfig::Auto => Ok(evenkeel_link::Polling::Auto),
            PollingConfig::Named(name) if name == "auto" => Ok(evenkeel_link::Polling::Auto),
            PollingConfig::Named(name) => {
                Err(format!("runtime.polling is {name:?}; it is \"auto\" or a number of microseconds"))
            }
            PollingConfig::Micros(micros) => {
                Ok(evenkeel_link::Polling::Fixed(Duration::from_micros(*micros)))
            }
        }
    }
}

impl ClusterConfig {
    fn check(&self) -> Result<(), String> {
        Incarnation::parse(&self.id).map_err(|error| format!("cluster.id is no UUID: {error}"))?;
        let mut ids = BTreeSet::new();
        for node in &self.nodes {
            if node.id == 0 || !ids.insert(node.id) {
                return Err(format!("node ids begin at 1 and are given once; {} is not", node.id));
            }
            Incarnation::parse(&node.incarnation)
                .map_err(|error| format!("the incarnation of node {} is no UUID: {error}", node.id))?;
            if node.cores.is_empty() {
                return Err(format!("node {} has no cores; give each an address to listen on", node.id));
            }
        }
        if self.memds.is_empty() {
            return Err("cluster.memds is empty; a cluster needs MemDS servers, two of them".to_owned());
        }
        Ok(())
    }

    /// The cluster's id.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::parse(&self.id).unwrap_or_default()
    }

    /// The storage nodes as cores know them.
    #[must_use]
    pub fn node_infos(&self) -> BTreeMap<NodeId, NodeInfo> {
        let info = |node: &NodeConfig| {
            let incarnation = Incarnation::parse(&node.incarnation).unwrap_or_default();
            let info = NodeInfo { zone: node.zone.clone(), incarnation, cores: node.cores.clone() };
            (NodeId(node.id), info)
        };
        self.nodes.iter().map(info).collect()
    }

    /// The members of the system partition: the first core of the first node of each zone.
    #[must_use]
    pub fn system_members(&self) -> Vec<Member> {
        let mut zones = BTreeSet::new();
        let infos = self.node_infos();
        let first = infos.iter().filter(|(_, info)| zones.insert(info.zone.clone()));
        let member = |(node, info): (&NodeId, &NodeInfo)| Member {
            node: *node,
            core: CoreId(0),
            incarnation: info.incarnation,
        };
        first.map(member).take(3).collect()
    }

    /// Where everything is, as routers tell it.
    #[must_use]
    pub fn topology(&self) -> TopologyAnswer {
        let node = |node: &NodeConfig| TopologyNode {
            node: NodeId(node.id),
            zone: node.zone.clone(),
            cores: node.cores.iter().copied().map(Into::into).collect(),
        };
        TopologyAnswer {
            nodes: self.nodes.iter().map(node).collect(),
            memds: self.memds.iter().copied().map(Into::into).collect(),
            routers: self.routers.iter().copied().map(Into::into).collect(),
        }
    }
}

/// What a router's cache is configured to do.
///
/// # Errors
/// When it is none of the three.
pub fn cache_mode(text: &str) -> Result<CacheMode, String> {
    let flush = |text: &str| -> Option<u64> { text.strip_prefix("flush ")?.strip_suffix("ms")?.parse().ok() };
    match text {
        "on" => Ok(CacheMode::On),
        "off" => Ok(CacheMode::Off),
        other => match flush(other) {
            Some(millis) if millis > 0 => Ok(CacheMode::FlushEvery(Duration::from_millis(millis))),
            Some(_) | None => Err(format!(
                "router.cache is {other:?}; it is \"on\", \"off\" or, for example, \"flush 100ms\""
            )),
        },
    }
}

/// The text of a file that a user has named.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}

/// Reads TOML that a user has written; `path` is for errors.
///
/// # Errors
/// What is wrong, in which line, and for an unknown key what may have been meant.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| parse_error(text, path, &error))
}

fn parse_error(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    let line = text[..at.min(text.len())].matches('\n').count() + 1;
    let message = error.message().to_owned();
    ConfigError::Parse { path: path.to_owned(), line, suggestion: suggestion(&message), message }
}

/// What an unknown key was probably meant to be: serde names the key and those that it would have taken.
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (quoted.next(), message.starts_with("unknown field")) else {
        return String::new();
    };
    let closest = quoted.max_by(|a, b| strsim::jaro(unknown, a).total_cmp(&strsim::jaro(unknown, b)));
    match closest {
        Some(closest) if strsim::jaro(unknown, closest) > 0.7 => format!("; did you mean `{closest}`?"),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = r#"
[cluster]
id = "6d1f3c1e-0000-4000-8000-000000000001"
memds = ["127.0.0.1:7420"]
routers = ["127.0.0.1:7400"]

[[cluster.node]]
id = 1
zone = "a"
incarnation = "6d1f3c1e-0000-4000-8000-00000000000a"
cores = ["127.0.0.1:7500"]
"#;

    fn error(role: &str) -> String {
        Config::parse(&format!("{CLUSTER}\n{role}"), Path::new("e.toml")).unwrap_err().to_string()
    }

    #[test]
    fn a_full_configuration_is_read_and_written_back() {
        let role = "[storage]\nnode = 1\ndata = \"d\"\n[runtime]\ncpus = [1]\npolling = 50\n";
        let config = Config::parse(&format!("{CLUSTER}\n{role}"), Path::new("e.toml")).unwrap();
        assert_eq!(config.storage.as_ref().map(|storage| storage.segments), Some(SEGMENTS_DEFAULT));
        let memory = config.storage.as_ref().map(StorageConfig::memory).unwrap();
        assert_eq!((memory.cache_bytes, memory.reserve_bytes), (256 << 20, 256 << 20));
        let again = toml::to_string(&config).unwrap();
        assert!(Config::parse(&again, Path::new("e.toml")).is_ok(), "{again}");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line_and_a_suggestion() {
        let error = error("[router]\nlisten = \"127.0.0.1:1\"\ncahce = \"on\"\n");
        assert!(error.starts_with("e.toml:15: unknown field `cahce`"), "{error}");
        assert!(error.ends_with("did you mean `cache`?"), "{error}");
    }

    #[test]
    fn values_that_do_not_fit_are_errors_that_say_what_to_do() {
        assert!(error("").contains("no role is configured"));
        assert!(error("[storage]\nnode = 7\ndata = \"d\"\n").contains("no [[cluster.node]] with that id"));
        let small = error("[storage]\nnode = 1\ndata = \"d\"\ncache_mib = 3\n");
        assert!(small.contains("cache_mib is 3") && small.contains("at least 4 MiB"), "{small}");
        assert!(error("[router]\nlisten = \"127.0.0.1:1\"\ncache = \"sometimes\"\n").contains("flush 100ms"));
        assert!(error("[memds]\nlisten = \"somewhere\"\n").starts_with("e.toml:14: "));
        let both = error("[memds]\nlisten = \"127.0.0.1:1\"\n[runtime]\nnear = true\ncpus = [0]\n");
        assert!(both.contains("leave one of them out"), "{both}");
        assert!(
            error("[memds]\nlisten = \"127.0.0.1:1\"\n[runtime]\npolling = \"never\"\n").contains("auto")
        );
    }
}
