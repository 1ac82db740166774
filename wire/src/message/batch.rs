//! Batches. A router takes them apart: storage cores see single items only.

use super::Body;
use super::request::{Position, Row, Token};
use super::routing::TableKey;
use crate::error::ErrorAnswer;
use crate::frame::Kind;
use crate::ids::TableId;
use rkyv::with::AsOwned;
use rkyv::{Archive, Deserialize, Serialize};
use std::borrow::Cow;

/// Read up to [`BATCH_GET_KEYS_MAX`](crate::limits::BATCH_GET_KEYS_MAX) items.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct BatchGet<'a> {
    /// The keys.
    pub keys: Vec<TableKey<'a>>,
    /// As in [`Get`](super::request::Get).
    pub strong: bool,
}

impl Body for BatchGet<'_> {
    const KIND: Kind = Kind::BatchGet;
}

/// What became of one key of a batch get.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum BatchGetOutcome<'a> {
    /// The item.
    Found(Row<'a>),
    /// There is none.
    Absent,
    /// This key failed; the others are not affected.
    Failed(ErrorAnswer),
    /// It did not fit into the answer; ask again for it.
    Unprocessed,
}

/// One outcome for each key, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct BatchGetAnswer<'a> {
    /// The outcomes.
    pub outcomes: Vec<BatchGetOutcome<'a>>,
}

impl Body for BatchGetAnswer<'_> {
    const KIND: Kind = Kind::BatchGetAnswer;
}

/// Put or delete up to [`BATCH_WRITE_OPERATIONS_MAX`](crate::limits::BATCH_WRITE_OPERATIONS_MAX) items. The
/// operations are independent: each succeeds or fails alone.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct BatchWrite<'a> {
    /// The operations.
    pub operations: Vec<BatchOperation<'a>>,
}

/// One operation of a batch write.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct BatchOperation<'a> {
    /// The table.
    pub table: TableId,
    /// Recognises a repetition of this operation.
    pub token: Token,
    /// The item's storage key.
    #[rkyv(with = AsOwned)]
    pub key: Cow<'a, [u8]>,
    /// The item to put; absent: delete.
    pub put: Option<Row<'a>>,
}

impl Body for BatchWrite<'_> {
    const KIND: Kind = Kind::BatchWrite;
}

/// What became of one operation of a batch write.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum BatchWriteOutcome {
    /// It is durable on a quorum.
    Written(Position),
    /// It failed; the others are not affected.
    Failed(ErrorAnswer),
}

/// One outcome for each operation, in their order.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct BatchWriteAnswer {
    /// The outcomes.
    pub outcomes: Vec<BatchWriteOutcome>,
}

impl Body for BatchWriteAnswer {
    const KIND: Kind = Kind::BatchWriteAnswer;
}
