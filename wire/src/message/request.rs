//! Requests for single items and for ranges, and their answers. The same bodies go from client to router and
//! from router to storage core.

use super::Body;
use crate::frame::Kind;
use crate::ids::{PartitionId, Slot, TableId};
use rkyv::with::AsOwned;
use rkyv::{Archive, Deserialize, Serialize};
use std::borrow::Cow;

/// Identifies one write of one client, so that a repetition is recognised (docs/decisions/0005-tokens.md).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct Token {
    /// The client: random, chosen when it starts.
    pub client: [u8; 16],
    /// Counts the client's writes.
    pub sequence: u64,
    /// Milliseconds since 1970 when the write was first tried, by the server's clock as the client knows it.
    pub issued_ms: u64,
    /// The client will never again ask about any sequence below this one.
    pub acknowledged_below: u64,
}

impl From<&ArchivedToken> for Token {
    fn from(archived: &ArchivedToken) -> Self {
        Self {
            client: archived.client,
            sequence: archived.sequence.into(),
            issued_ms: archived.issued_ms.into(),
            acknowledged_below: archived.acknowledged_below.into(),
        }
    }
}

/// Which item a write answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy, PartialEq, Eq))]
pub enum ReturnItem {
    /// None.
    #[default]
    None,
    /// The item as it was before.
    Old,
    /// The item as it is now.
    New,
}

/// Write an item.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Put<'a> {
    /// The table.
    pub table: TableId,
    /// Recognises a repetition.
    pub token: Token,
    /// The item's storage key.
    #[rkyv(with = AsOwned)]
    pub key: Cow<'a, [u8]>,
    /// The item's archive.
    #[rkyv(with = AsOwned)]
    pub item: Cow<'a, [u8]>,
    /// CRC-32C of `item`, computed by the client and kept with the item.
    pub item_checksum: u32,
    /// Archive of a condition; empty: none.
    #[rkyv(with = AsOwned)]
    pub condition: Cow<'a, [u8]>,
    /// What to answer with.
    pub return_item: ReturnItem,
}

impl Body for Put<'_> {
    const KIND: Kind = Kind::Put;
}

/// Remove an item.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Delete<'a> {
    /// The table.
    pub table: TableId,
    /// Recognises a repetition.
    pub token: Token,
    /// The item's storage key.
    #[rkyv(with = AsOwned)]
    pub key: Cow<'a, [u8]>,
    /// Archive of a condition; empty: none.
    #[rkyv(with = AsOwned)]
    pub condition: Cow<'a, [u8]>,
    /// What to answer with.
    pub return_item: ReturnItem,
}

impl Body for Delete<'_> {
    const KIND: Kind = Kind::Delete;
}

/// Change an item, or create it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Update<'a> {
    /// The table.
    pub table: TableId,
    /// Recognises a repetition.
    pub token: Token,
    /// The item's storage key.
    #[rkyv(with = AsOwned)]
    pub key: Cow<'a, [u8]>,
    /// Archive of an item that has exactly the key attributes: what an absent item starts from.
    #[rkyv(with = AsOwned)]
    pub key_item: Cow<'a, [u8]>,
    /// Archive of the update.
    #[rkyv(with = AsOwned)]
    pub update: Cow<'a, [u8]>,
    /// Archive of a condition; empty: none.
    #[rkyv(with = AsOwned)]
    pub condition: Cow<'a, [u8]>,
    /// What to answer with.
    pub return_item: ReturnItem,
}

impl Body for Update<'_> {
    const KIND: Kind = Kind::Update;
}

/// Where a write stands in its partition's log: its commit position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The slot of its log.
    pub slot: Slot,
}

impl From<&ArchivedPosition> for Position {
    fn from(archived: &ArchivedPosition) -> Self {
        Self { partition: (&archived.partition).into(), slot: (&archived.slot).into() }
    }
}

/// An item in an answer: its archive and the checksum that its client computed.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Row<'a> {
    /// CRC-32C of `item`.
    pub checksum: u32,
    /// The archive.
    #[rkyv(with = AsOwned)]
    pub item: Cow<'a, [u8]>,
}

/// A write is durable on a quorum and applied.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct WriteAnswer<'a> {
    /// Where it stands.
    pub position: Position,
    /// The leader's hybrid logical timestamp of the write: milliseconds since 1970 in the upper 48 bits.
    pub timestamp: u64,
    /// The item that was asked for, if there is one.
    pub item: Option<Row<'a>>,
}

impl Body for WriteAnswer<'_> {
    const KIND: Kind = Kind::WriteAnswer;
}

/// Read an item.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Get<'a> {
    /// The table.
    pub table: TableId,
    /// The item's storage key.
    #[rkyv(with = AsOwned)]
    pub key: Cow<'a, [u8]>,
    /// Strong: from the leader under its lease. Otherwise from any storage replica.
    pub strong: bool,
}

impl Body for Get<'_> {
    const KIND: Kind = Kind::Get;
}

/// The item, if there is one.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct GetAnswer<'a> {
    /// Up to where the replica that answered had applied its log.
    pub position: Position,
    /// The item.
    pub item: Option<Row<'a>>,
}

impl Body for GetAnswer<'_> {
    const KIND: Kind = Kind::GetAnswer;
}

/// Read a page of a range of storage keys: the body of both [`Kind::Query`] and [`Kind::Scan`].
///
/// One request visits one partition: the one that holds `lower` (forward) or the keys just below `upper`
/// (backward). The answer says where to go on.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Range<'a> {
    /// The table.
    pub table: TableId,
    /// First storage key, inclusive; empty: from the beginning.
    #[rkyv(with = AsOwned)]
    pub lower: Cow<'a, [u8]>,
    /// End, exclusive; empty: to the end.
    #[rkyv(with = AsOwned)]
    pub upper: Cow<'a, [u8]>,
    /// Ascending storage order, or descending.
    pub forward: bool,
    /// Most items to look at, before the filter; 0: as many as a page holds.
    pub limit: u32,
    /// Archive of a condition that selects what is answered; empty: everything.
    #[rkyv(with = AsOwned)]
    pub filter: Cow<'a, [u8]>,
    /// As in [`Get`].
    pub strong: bool,
}

/// A range read as a query: within one partition key.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Query<'a>(pub Range<'a>);

impl Body for Query<'_> {
    const KIND: Kind = Kind::Query;
}

/// A range read as a scan.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Scan<'a>(pub Range<'a>);

impl Body for Scan<'_> {
    const KIND: Kind = Kind::Scan;
}

/// One page of a range.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct PageAnswer<'a> {
    /// Up to where the replica that answered had applied its log.
    pub position: Position,
    /// What the filter let through, in the order asked for.
    pub rows: Vec<Row<'a>>,
    /// How many items were looked at.
    pub scanned: u32,
    /// Where the rest begins: the new `lower` of a forward range or `upper` of a backward one. Absent: no
    /// rest.
    pub resume: Option<Vec<u8>>,
}

impl Body for PageAnswer<'_> {
    const KIND: Kind = Kind::PageAnswer;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::message::{access, encode};

    #[test]
    fn a_put_borrows_what_it_sends_and_is_read_in_place() {
        let put = Put {
            table: TableId(4),
            token: Token { client: [1; 16], sequence: 2, issued_ms: 3, acknowledged_below: 1 },
            key: Cow::Borrowed(b"key"),
            item: Cow::Borrowed(b"item"),
            item_checksum: 5,
            condition: Cow::Borrowed(b""),
            return_item: ReturnItem::Old,
        };
        let mut bytes = vec![0xff; 3];
        encode(&put, &mut bytes);
        let read = access::<Put<'static>>(&bytes[3..]).unwrap();
        assert_eq!((&*read.key, &*read.item), (&b"key"[..], &b"item"[..]));
        assert_eq!(Token::from(&read.token), put.token);
        assert!(read.return_item == ArchivedReturnItem::Old);
    }

    #[test]
    fn truncated_bodies_are_errors() {
        let mut bytes = Vec::new();
        encode(&Get { table: TableId(1), key: Cow::Borrowed(b"some key"), strong: true }, &mut bytes);
        assert!(access::<Get<'static>>(&bytes[8..]).is_err(), "the key is gone");
        let problem = access::<Get<'static>>(b"").err().unwrap();
        assert_eq!(problem.code, ErrorCode::Malformed);
        assert!(problem.message.contains("well-formed Get;"), "{problem}");
    }
}
