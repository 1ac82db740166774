//! Metadata: routers ask MemDS, storage cores tell it.

use super::Body;
use super::catalog::CatalogVersion;
use super::lent::Lent;
use crate::frame::Kind;
use crate::ids::TableId;
use crate::table::{Route, TableDescriptor};
use rkyv::with::AsOwned;
use rkyv::{Archive, Deserialize, Serialize};
use std::borrow::Cow;

/// A storage key of a table.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TableKey<'a> {
    /// The table.
    pub table: TableId,
    /// The key.
    #[rkyv(with = AsOwned)]
    pub key: Cow<'a, [u8]>,
}

/// What one look-up asks for.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LookupKey<'a> {
    /// The route of the partition that holds this key.
    At(TableKey<'a>),
    /// The route of the partition that holds the keys just below this one; empty: the last of the table.
    Below(TableKey<'a>),
    /// The table with this name.
    Name(String),
}

/// All look-ups of one turn of a router. The answer is in the same order.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Lookup<'a> {
    /// The keys.
    pub keys: Vec<LookupKey<'a>>,
}

impl Body for Lookup<'_> {
    const KIND: Kind = Kind::Lookup;
}

/// What MemDS knows about one key.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum LookupOutcome<'a> {
    /// A route, with its table.
    Route(#[rkyv(with = Lent)] Cow<'a, Route>, #[rkyv(with = Lent)] Cow<'a, TableDescriptor>),
    /// A table.
    Table(#[rkyv(with = Lent)] Cow<'a, TableDescriptor>),
    /// There is no such table.
    TableNotFound,
    /// The table exists; nobody has said who serves this key.
    RouteNotKnown(#[rkyv(with = Lent)] Cow<'a, TableDescriptor>),
    /// This server has not yet heard from the catalogue: it cannot say.
    Warming,
}

/// One outcome for each key of the look-up, in its order.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct LookupAnswer<'a> {
    /// The outcomes.
    pub outcomes: Vec<LookupOutcome<'a>>,
}

impl Body for LookupAnswer<'_> {
    const KIND: Kind = Kind::LookupAnswer;
}

/// Groups that a core leads: all of them when the link comes up, so that a MemDS server that restarted knows
/// everything a moment later, then what changes, and each second a few again.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct PublishRoutes {
    /// Their routes.
    pub routes: Vec<Route>,
}

impl Body for PublishRoutes {
    const KIND: Kind = Kind::PublishRoutes;
}

/// Every table, from the leader of the system partition.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct PublishTables {
    /// How new this is.
    pub version: CatalogVersion,
    /// Every table, in the order of their names; absent when only the version is announced.
    pub tables: Option<Vec<TableDescriptor>>,
}

impl Body for PublishTables {
    const KIND: Kind = Kind::PublishTables;
}

/// How much of the catalogue a MemDS server has.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct PublishAnswer {
    /// Zero: nothing yet.
    pub version: CatalogVersion,
}

impl Body for PublishAnswer {
    const KIND: Kind = Kind::PublishAnswer;
}
