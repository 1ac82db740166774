//! What a process says of itself, for `cluster status`, tests and people.

use super::Body;
use crate::frame::Kind;
use crate::ids::{Ballot, CoreId, Epoch, Incarnation, NodeId, PartitionId, Slot, TableId};
use crate::table::Address;
use rkyv::{Archive, Deserialize, Serialize};

/// The answer to [`Kind::Status`], whose own body is empty.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum StatusAnswer {
    /// A storage core.
    Storage(StorageStatus),
    /// A MemDS server.
    Memds(MemdsStatus),
    /// A router core.
    Router(RouterStatus),
}

impl Body for StatusAnswer {
    const KIND: Kind = Kind::StatusAnswer;
}

/// Where a storage core is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum CoreState {
    /// Reading its checkpoint and log.
    Recovering,
    /// Serving.
    Serving,
    /// Handing over.
    Draining,
}

/// A storage core.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// The data folder.
    pub incarnation: Incarnation,
    /// Where it is in its life.
    pub state: CoreState,
    /// Its groups, by partition.
    pub groups: Vec<GroupStatus>,
    /// Its log.
    pub log: LogStatus,
    /// Its trees.
    pub tree: TreeStatus,
    /// What recovery found at the last start: a sentence, or empty for a clean start.
    pub recovery: String,
}

/// What a replica does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Role {
    /// It leads.
    Leader,
    /// It stands for election.
    Candidate,
    /// It follows.
    Follower,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Its table.
    pub table: TableId,
    /// Membership epoch.
    pub epoch: Epoch,
    /// The members, as the latest entry says that names them.
    pub members: Vec<NodeId>,
    /// Those of them that hold the log only.
    pub log_replicas: Vec<NodeId>,
    /// What this replica does.
    pub role: Role,
    /// For a leader: its lease holds, its first entry is committed and every older lease has run out, so it
    /// serves.
    pub ready: bool,
    /// Who leads, as far as this replica knows.
    pub leader: Option<NodeId>,
    /// The promised ballot.
    pub ballot: Ballot,
    /// The last slot of its log.
    pub last: Slot,
    /// Up to where that is durable here.
    pub durable: Slot,
    /// Up to where it is committed, as far as this replica knows.
    pub commit: Slot,
    /// Whether the replica was damaged and may not vote until it is refilled.
    pub refilling: bool,
    /// Whether this replica holds the partition's items; a log replica does not.
    pub stores: bool,
    /// Items held.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The other members, as a leader sees them.
    pub followers: Vec<FollowerStatus>,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// The node.
    pub node: NodeId,
    /// Up to where its log is known to match and be durable.
    pub matched: Slot,
    /// Milliseconds since it last answered a heartbeat; none: never under this leader.
    pub heard_ms_ago: Option<u64>,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}

/// A core's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LogStatus {
    /// Log writes issued since the start.
    pub writes: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Segments in all.
    pub segments: u32,
    /// Segments free for use.
    pub segments_free: u32,
    /// Checkpoints completed, since the start.
    pub checkpoints: u64,
    /// Whether one is being written now.
    pub checkpointing: bool,
}

/// The trees of a core: their file, and their pages in memory. What is counted is counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TreeStatus {
    /// Length of the file, in blocks of 4 KiB.
    pub blocks: u64,
    /// Blocks of the present versions.
    pub blocks_live: u64,
    /// Blocks that nothing uses.
    pub blocks_free: u64,
    /// Blocks of older versions that are still held.
    pub blocks_retired: u64,
    /// Blocks of pages that stand in for damaged ones, or of trees being built.
    pub blocks_loose: u64,
    /// Memory of the pages in the cache, bytes.
    pub cache_bytes: u64,
    /// Its budget, bytes.
    pub cache_bytes_max: u64,
    /// Lookups that found their page in it.
    pub cache_hits: u64,
    /// Lookups that did not.
    pub cache_misses: u64,
    /// Pages given up to make room.
    pub cache_evictions: u64,
    /// Pages read from the file.
    pub page_reads: u64,
    /// Bytes of pages written to it.
    pub bytes_written: u64,
    /// Operations that wait for pages now.
    pub parked: u64,
    /// Pages that are damaged now.
    pub damaged_pages: u64,
    /// Pages found damaged.
    pub damage_found: u64,
    /// Of them, those that were repaired.
    pub damage_repaired: u64,
    /// Checks of everything that have ended.
    pub checks: u64,
    /// Lost blocks that checks have given back.
    pub blocks_swept: u64,
}

/// The answer to [`Kind::Scrub`], whose own body is empty: a check of all trees begins as soon as none runs
/// that began before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ScrubAnswer {
    /// It is done when [`TreeStatus::checks`] has come to this.
    pub checks: u64,
}

impl Body for ScrubAnswer {
    const KIND: Kind = Kind::ScrubAnswer;
}

/// A MemDS server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct MemdsStatus {
    /// Keys looked up, since the start.
    pub keys_looked_up: u64,
    /// Tables known.
    pub tables: u64,
    /// Routes known.
    pub routes: u64,
    /// How new its catalogue is.
    pub catalog_version: Slot,
}

/// A router core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Requests taken from clients, since the start.
    pub requests: u64,
    /// Keys in them that needed a route.
    pub keys: u64,
    /// Keys whose route was cached.
    pub cache_hits: u64,
    /// Keys whose route was not.
    pub cache_misses: u64,
    /// Keys sent to MemDS servers, summed over servers.
    pub lookups: u64,
    /// Routes in the cache.
    pub cached: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Requests refused because too many were under way.
    pub overloaded: u64,
    /// Requests sent a second time because the first core was not the leader.
    pub redirected: u64,
}

/// Where everything is. Any router answers with it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct TopologyAnswer {
    /// Storage nodes.
    pub nodes: Vec<TopologyNode>,
    /// MemDS servers.
    pub memds: Vec<Address>,
    /// Routers.
    pub routers: Vec<Address>,
}

impl Body for TopologyAnswer {
    const KIND: Kind = Kind::TopologyAnswer;
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct TopologyNode {
    /// The node.
    pub node: NodeId,
    /// Its availability zone.
    pub zone: String,
    /// Where its cores listen.
    pub cores: Vec<Address>,
}
