//! Tables: requests of clients, and the catalogue's orders to storage cores.

use super::Body;
use crate::frame::Kind;
use crate::ids::{Epoch, PartitionId, Slot, TableId};
use crate::key::KeySchema;
use crate::table::{Billing, GroupConfig, TableDescriptor};
use rkyv::{Archive, Deserialize, Serialize};

/// Create a table. Answered as soon as the catalogue holds it; it is usable once it is active.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// Its key attributes.
    pub schema: KeySchema,
    /// Its capacity.
    pub billing: Billing,
    /// How many partitions; 0: what the capacity asks for.
    pub partitions: u32,
}

impl Body for CreateTable {
    const KIND: Kind = Kind::CreateTable;
}

/// Describe a table.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct DescribeTable {
    /// Its name.
    pub name: String,
}

impl Body for DescribeTable {
    const KIND: Kind = Kind::DescribeTable;
}

/// Delete a table and everything in it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct DeleteTable {
    /// Its name.
    pub name: String,
}

impl Body for DeleteTable {
    const KIND: Kind = Kind::DeleteTable;
}

/// Divide the range of a table's partition. Answered when that is done. The table as it stands is the answer,
/// too, when it is not of the given generation any more: so a repetition divides nothing.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SplitTable {
    /// Its name.
    pub name: String,
    /// Its generation, as the asker knows it.
    pub generation: u64,
    /// The partition; [`PartitionId::NONE`]: the only one.
    pub partition: PartitionId,
    /// First storage key of the new partition; empty: one in the middle of what there is.
    pub border: Vec<u8>,
}

impl Body for SplitTable {
    const KIND: Kind = Kind::SplitTable;
}

/// The table as it now stands.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct TableAnswer {
    /// The table.
    pub table: TableDescriptor,
}

impl Body for TableAnswer {
    const KIND: Kind = Kind::TableAnswer;
}

/// The names of all tables.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct ListTables {
    /// Only names after this one; empty: from the first.
    pub after: String,
}

impl Body for ListTables {
    const KIND: Kind = Kind::ListTables;
}

/// Some names, ascending.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct ListTablesAnswer {
    /// The names.
    pub names: Vec<String>,
    /// Whether there are more after the last.
    pub more: bool,
}

impl Body for ListTablesAnswer {
    const KIND: Kind = Kind::ListTablesAnswer;
}

/// The catalogue tells a core what it must hold and what it must drop. Idempotent; repeated until answered.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct EnsureReplicas {
    /// Replicas to create where they do not exist.
    pub create: Vec<GroupConfig>,
    /// Replicas to remove where they exist.
    pub remove: Vec<Removal>,
    /// Memberships that the catalogue has written down: they need not be reported again.
    pub known: Vec<KnownEpoch>,
    /// Groups of which somebody holds a stray replica that knows this epoch: their leaders begin the next
    /// one, so that it may be removed.
    pub fence: Vec<KnownEpoch>,
    /// Set when `create` is everything that the core must hold: the number with which the core asked for
    /// that.
    pub everything: Option<u64>,
}

impl Body for EnsureReplicas {
    const KIND: Kind = Kind::EnsureReplicas;
}

/// A replica that is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Removal {
    /// Its group.
    pub partition: PartitionId,
    /// Only a replica of an epoch below this one: the node may have become a member again. None: the table is
    /// deleted.
    pub below: Option<Epoch>,
}

/// A replica that is no member, or that has not heard of a leader for long: perhaps it was replaced, or its
/// table was deleted, while its node was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Stray {
    /// Its group.
    pub partition: PartitionId,
    /// Its table.
    pub table: TableId,
    /// The epoch that it knows.
    pub epoch: Epoch,
}

/// How much the catalogue knows of a group's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct KnownEpoch {
    /// The group.
    pub partition: PartitionId,
    /// The epoch in the table's record.
    pub epoch: Epoch,
}

/// What of an [`EnsureReplicas`] is durably so.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct EnsureReplicasAnswer {
    /// They exist.
    pub created: Vec<PartitionId>,
    /// They do not exist any more.
    pub removed: Vec<Removal>,
    /// Groups that the core leads and whose members have changed, as committed.
    pub changed: Vec<GroupConfig>,
    /// Replicas that belong to nobody, as far as they know.
    pub strays: Vec<Stray>,
    /// Set when the core has lost acknowledged data and must be told everything that it held: a number of its
    /// choice.
    pub ask_everything: Option<u64>,
}

impl Body for EnsureReplicasAnswer {
    const KIND: Kind = Kind::EnsureReplicasAnswer;
}

/// The catalogue tells the members of a group, of whom its leader listens, to divide its range. Idempotent;
/// repeated until answered. The frame's header names the group.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SplitPartition {
    /// Who is to hold the upper part.
    pub child: PartitionId,
    /// Its first key; empty: nothing is divided, and the leader says which key is in the middle of its tree.
    pub border: Vec<u8>,
}

impl Body for SplitPartition {
    const KIND: Kind = Kind::SplitPartition;
}

/// What became of a [`SplitPartition`].
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SplitPartitionAnswer {
    /// Who was to hold the upper part.
    pub child: PartitionId,
    /// The split is committed; the group as it is now.
    pub parent: Option<GroupConfig>,
    /// Or the key that was asked for.
    pub border: Vec<u8>,
    /// Or why there is none.
    pub refused: String,
}

impl Body for SplitPartitionAnswer {
    const KIND: Kind = Kind::SplitPartitionAnswer;
}

/// How new a copy of the catalogue is: the slot of the system partition up to which it was read.
pub type CatalogVersion = Slot;
