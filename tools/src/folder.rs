//! A storage node's data folder: formatting it, and opening it for its cores.
//!
//! `node.toml` in the folder says to whom it belongs. It is written last, so that a folder whose formatting
//! was interrupted is not taken for a whole one.

use crate::config::{ClusterConfig, StorageConfig};
use evenkeel_dataplane::checkpoint::superblock::Superblock;
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_link::{CoreFiles, FilesError, create_core};
use evenkeel_wire::ids::{CoreId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What `node.toml` says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FolderIdentity {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: u32,
    /// This folder's life.
    pub incarnation: String,
    /// Cores with a folder of their own in here.
    pub cores: u16,
    /// Segments of each core's log.
    pub segments: u32,
}

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It was never formatted, or formatting was interrupted.
    #[error(
        "{} is not formatted: run `evenkeel format --config FILE` once; if this node had data before, give \
         it a new incarnation in the configuration first, because its replicas are lost", path.display()
    )]
    NotFormatted {
        /// The folder.
        path: PathBuf,
    },
    /// It is no node's data folder.
    #[error(
        "{} holds no node.toml, so it is not the data folder of a storage node; name the folder that \
         `storage.data` in the node's configuration names", path.display()
    )]
    NotAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// It was formatted before.
    #[error("{} is formatted already; it holds node {node}, incarnation {incarnation}", path.display())]
    Formatted {
        /// The folder.
        path: PathBuf,
        /// Its node.
        node: u32,
        /// Its incarnation.
        incarnation: String,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to {what} {found}, the configuration says {expected}; correct `storage.data` or the \
         configuration",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the folder says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// `node.toml` is damaged.
    #[error("{}: {message}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A core's files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The operating system.
    #[error("{}: {error}", path.display())]
    Os {
        /// The file.
        path: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
}

fn identity_path(data: &Path) -> PathBuf {
    data.join("node.toml")
}

fn core_path(data: &Path, core: u16) -> PathBuf {
    data.join(format!("core-{core}"))
}

/// Whether a folder has been formatted.
#[must_use]
pub fn is_formatted(data: &Path) -> bool {
    identity_path(data).exists()
}

/// Bytes that formatting writes for a node of `cores` cores.
#[must_use]
pub fn format_bytes(storage: &StorageConfig, cores: usize) -> u64 {
    cores as u64 * u64::from(storage.segments) * (storage.segment_mib << 20)
}

/// Formats a node's folder. `progress` is told how many bytes are written so far.
///
/// # Errors
/// When it is formatted already, or cannot be written.
pub fn format(
    cluster: &ClusterConfig,
    storage: &StorageConfig,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FolderError> {
    let data = &storage.data;
    if is_formatted(data) {
        let FolderIdentity { node, incarnation, .. } = read_identity(data)?;
        return Err(FolderError::Formatted { path: data.clone(), node, incarnation });
    }
    let os = |path: &Path, error| FolderError::Os { path: path.to_owned(), error };
    std::fs::create_dir_all(data).map_err(|error| os(data, error))?;
    let node =
        cluster.nodes.iter().find(|node| node.id == storage.node).expect("the configuration was checked");
    let incarnation = Incarnation::parse(&node.incarnation).expect("the configuration was checked");
    let segment_bytes = storage.segment_mib << 20;
    let per_core = format_bytes(storage, 1);
    for core in 0..node.cores.len() as u16 {
        let identity = LogIdentity { incarnation, core: CoreId(core) };
        let superblock = Superblock::format(storage.segments, segment_bytes);
        let (block, offset) = (superblock.encode(&identity), superblock.offset());
        let before = u64::from(core) * per_core;
        let path = core_path(data, core);
        // What an interrupted formatting left holds nothing that anybody was told of.
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| os(&path, error))?;
        }
        create_core(&path, storage.segments, segment_bytes, &block, offset, &mut |bytes| {
            progress(before + bytes);
        })?;
    }
    let identity = FolderIdentity {
        cluster: cluster.id.clone(),
        node: node.id,
        incarnation: node.incarnation.clone(),
        cores: node.cores.len() as u16,
        segments: storage.segments,
    };
    write_identity(data, &identity)
}

fn write_identity(data: &Path, identity: &FolderIdentity) -> Result<(), FolderError> {
    let path = identity_path(data);
    let partial = data.join("node.toml.partial");
    let text = toml::to_string(identity).expect("an identity is plain text");
    let write = || -> std::io::Result<()> {
        std::fs::write(&partial, text)?;
        std::fs::File::open(&partial)?.sync_all()?;
        std::fs::rename(&partial, &path)?;
        std::fs::File::open(data)?.sync_all()
    };
    write().map_err(|error| FolderError::Os { path: path.clone(), error })
}

fn read_identity(data: &Path) -> Result<FolderIdentity, FolderError> {
    let path = identity_path(data);
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => FolderError::NotFormatted { path: data.to_owned() },
        _ => FolderError::Os { path: path.clone(), error },
    })?;
    toml::from_str(&text).map_err(|error| FolderError::Identity { path, message: error.to_string() })
}

/// An open data folder.
#[derive(Debug)]
pub struct OpenFolder {
    /// The node.
    pub node: NodeId,
    /// The folder's life.
    pub incarnation: Incarnation,
    /// The files of each core.
    pub cores: Vec<CoreFiles>,
}

/// Opens a node's folder, and checks that it is the one that the configuration means.
///
/// # Errors
/// When it is not formatted, belongs to another node or life, or cannot be opened.
pub fn open(cluster: &ClusterConfig, storage: &StorageConfig) -> Result<OpenFolder, FolderError> {
    let data = &storage.data;
    let identity = read_identity(data)?;
    let node =
        cluster.nodes.iter().find(|node| node.id == storage.node).expect("the configuration was checked");
    let differs = [
        ("cluster", identity.cluster.clone(), cluster.id.clone()),
        ("node", identity.node.to_string(), node.id.to_string()),
        ("incarnation", identity.incarnation.clone(), node.incarnation.clone()),
        ("a number of cores of", identity.cores.to_string(), node.cores.len().to_string()),
    ];
    for (what, found, expected) in differs {
        if !found.eq_ignore_ascii_case(&expected) {
            return Err(FolderError::Foreign { path: data.clone(), what, found, expected });
        }
    }
    let cores = (0..identity.cores).map(|core| CoreFiles::open(&core_path(data, core), identity.segments));
    Ok(OpenFolder {
        node: NodeId(node.id),
        incarnation: Incarnation::parse(&node.incarnation).unwrap_or_default(),
        cores: cores.collect::<Result<_, _>>()?,
    })
}

/// A data folder that is open for looking at it only.
#[derive(Debug)]
pub struct ReadOnlyFolder {
    /// The node.
    pub node: NodeId,
    /// The folder's life.
    pub incarnation: Incarnation,
    /// The files of each core.
    pub cores: Vec<CoreFiles>,
}

/// Opens a node's folder without locks, whoever it belongs to: a node may be serving it.
///
/// # Errors
/// When it is not a node's folder, or cannot be opened.
pub fn open_read_only(data: &Path) -> Result<ReadOnlyFolder, FolderError> {
    if !is_formatted(data) {
        return Err(FolderError::NotAFolder { path: data.to_owned() });
    }
    let FolderIdentity { node, incarnation, cores, segments, .. } = read_identity(data)?;
    let incarnation = Incarnation::parse(&incarnation).map_err(|_| FolderError::Identity {
        path: identity_path(data),
        message: format!("the incarnation {incarnation:?} is none; the file is damaged"),
    })?;
    let cores = (0..cores).map(|core| CoreFiles::open_read_only(&core_path(data, core), segments));
    Ok(ReadOnlyFolder { node: NodeId(node), incarnation, cores: cores.collect::<Result<_, _>>()? })
}
