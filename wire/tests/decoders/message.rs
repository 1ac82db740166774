//! Bodies of frames. What is fuzzed begins with the number of a kind (2 bytes), as the header of a frame
//! would tell it.
//!
//! An archive has more than one form, so other bytes may be read as the same value. They are never fewer than
//! those that a sender would write: parts do not overlap, so what a few bytes can make of memory is bounded
//! by their number.

use crate::golden::Golden;
use evenkeel_wire::error::{ErrorAnswer, Problem};
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame};
use evenkeel_wire::handshake::{Hello, HelloAnswer, Identity, Peer, PeerRole, answer, conclude, greet};
use evenkeel_wire::ids::{Incarnation, RequestId};
use evenkeel_wire::message::batch::{BatchGet, BatchGetAnswer, BatchWrite, BatchWriteAnswer};
use evenkeel_wire::message::catalog::{
    CreateTable, DeleteTable, DescribeTable, EnsureReplicas, EnsureReplicasAnswer, ListTables,
    ListTablesAnswer, SplitPartition, SplitPartitionAnswer, SplitTable, TableAnswer,
};
use evenkeel_wire::message::peer::{
    Accept, Accepted, Fetch, FetchRange, Fetched, HandOver, Heartbeat, HeartbeatAnswer, Invite, Prepare,
    Promise, RangeCells, Refuse, Rejected, Rejoin, RejoinAnswer, SnapshotAck, SnapshotChunk, Suspect,
    SuspectAnswer,
};
use evenkeel_wire::message::request::{
    Delete, Get, GetAnswer, PageAnswer, Put, Query, Scan, Update, WriteAnswer,
};
use evenkeel_wire::message::routing::{Lookup, LookupAnswer, PublishAnswer, PublishRoutes, PublishTables};
use evenkeel_wire::message::status::{ScrubAnswer, StatusAnswer, TopologyAnswer};
use evenkeel_wire::message::tail::{Tail, TailAnswer};
use evenkeel_wire::message::{Body, Encode, Validator, access, encode, to_owned};
use rkyv::bytecheck::CheckBytes;
use rkyv::de::Pool;
use rkyv::rancor::{Failure, Strategy};
use rkyv::{Archive, Deserialize, Portable};
use std::fmt::Debug;

/// Messages that belong together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Handshake,
    Request,
    Batch,
    Catalog,
    Routing,
    Status,
    Peer,
}

/// The messages of a connection's beginning, and errors.
pub(crate) fn handshake(bytes: &[u8]) -> bool {
    let taken = of_family(Family::Handshake, bytes);
    if let Some((kind, body)) = split_kind(bytes) {
        shake(kind, body);
    }
    taken
}

/// Requests for single items and ranges.
pub(crate) fn request(bytes: &[u8]) -> bool {
    of_family(Family::Request, bytes)
}

/// Batches.
pub(crate) fn batch(bytes: &[u8]) -> bool {
    of_family(Family::Batch, bytes)
}

/// Tables and replicas.
pub(crate) fn catalog(bytes: &[u8]) -> bool {
    of_family(Family::Catalog, bytes)
}

/// Routes.
pub(crate) fn routing(bytes: &[u8]) -> bool {
    of_family(Family::Routing, bytes)
}

/// What processes say of themselves.
pub(crate) fn status(bytes: &[u8]) -> bool {
    of_family(Family::Status, bytes)
}

/// Replication.
pub(crate) fn peer(bytes: &[u8]) -> bool {
    of_family(Family::Peer, bytes)
}

/// Golden bytes as they are fuzzed: those of a body after the number of its kind.
pub(crate) fn with_kind(golden: Golden) -> Vec<u8> {
    let Golden { title, bytes } = golden;
    let number =
        title.split_once(", kind ").and_then(|(_, rest)| rest.split_once(':')?.0.parse::<u16>().ok());
    match number {
        Some(number) => [&number.to_le_bytes(), bytes.as_slice()].concat(),
        None => bytes,
    }
}

fn split_kind(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let (number, body) = bytes.split_first_chunk::<2>()?;
    Some((Kind::from_u16(u16::from_le_bytes(*number))?, body))
}

fn of_family(family: Family, bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = split_kind(bytes) else { return false };
    let (of, check) = decoder(kind);
    of == family && check(bytes)
}

/// What decodes the bodies of a kind.
fn decoder(kind: Kind) -> (Family, fn(&[u8]) -> bool) {
    match kind {
        Kind::Hello => (Family::Handshake, body::<Hello>),
        Kind::HelloAnswer => (Family::Handshake, body::<HelloAnswer>),
        Kind::Error => (Family::Handshake, body::<ErrorAnswer>),

        Kind::Put => (Family::Request, body::<Put<'static>>),
        Kind::Get => (Family::Request, body::<Get<'static>>),
        Kind::GetAnswer => (Family::Request, body::<GetAnswer<'static>>),
        Kind::Delete => (Family::Request, body::<Delete<'static>>),
        Kind::Update => (Family::Request, body::<Update<'static>>),
        Kind::WriteAnswer => (Family::Request, body::<WriteAnswer<'static>>),
        Kind::Query => (Family::Request, body::<Query<'static>>),
        Kind::Scan => (Family::Request, body::<Scan<'static>>),
        Kind::PageAnswer => (Family::Request, body::<PageAnswer<'static>>),

        Kind::BatchGet => (Family::Batch, body::<BatchGet<'static>>),
        Kind::BatchGetAnswer => (Family::Batch, body::<BatchGetAnswer<'static>>),
        Kind::BatchWrite => (Family::Batch, body::<BatchWrite<'static>>),
        Kind::BatchWriteAnswer => (Family::Batch, body::<BatchWriteAnswer>),

        Kind::CreateTable => (Family::Catalog, body::<CreateTable>),
        Kind::DescribeTable => (Family::Catalog, body::<DescribeTable>),
        Kind::DeleteTable => (Family::Catalog, body::<DeleteTable>),
        Kind::TableAnswer => (Family::Catalog, body::<TableAnswer>),
        Kind::SplitTable => (Family::Catalog, body::<SplitTable>),
        Kind::ListTables => (Family::Catalog, body::<ListTables>),
        Kind::ListTablesAnswer => (Family::Catalog, body::<ListTablesAnswer>),
        Kind::EnsureReplicas => (Family::Catalog, body::<EnsureReplicas>),
        Kind::EnsureReplicasAnswer => (Family::Catalog, body::<EnsureReplicasAnswer>),
        Kind::SplitPartition => (Family::Catalog, body::<SplitPartition>),
        Kind::SplitPartitionAnswer => (Family::Catalog, body::<SplitPartitionAnswer>),

        Kind::Status | Kind::Topology | Kind::Scrub => (Family::Status, <[u8]>::is_empty),
        Kind::StatusAnswer => (Family::Status, body::<StatusAnswer>),
        Kind::TopologyAnswer => (Family::Status, body::<TopologyAnswer>),
        Kind::ScrubAnswer => (Family::Status, body::<ScrubAnswer>),
        Kind::Tail => (Family::Status, body::<Tail>),
        Kind::TailAnswer => (Family::Status, body::<TailAnswer>),

        Kind::Lookup => (Family::Routing, body::<Lookup<'static>>),
        Kind::LookupAnswer => (Family::Routing, body::<LookupAnswer<'static>>),
        Kind::PublishRoutes => (Family::Routing, body::<PublishRoutes>),
        Kind::PublishTables => (Family::Routing, body::<PublishTables>),
        Kind::PublishAnswer => (Family::Routing, body::<PublishAnswer>),

        Kind::Prepare => (Family::Peer, body::<Prepare>),
        Kind::Promise => (Family::Peer, body::<Promise>),
        Kind::Refuse => (Family::Peer, body::<Refuse>),
        Kind::Fetch => (Family::Peer, body::<Fetch>),
        Kind::Fetched => (Family::Peer, body::<Fetched<'static>>),
        Kind::Accept => (Family::Peer, body::<Accept<'static>>),
        Kind::Invite => (Family::Peer, body::<Invite>),
        Kind::Accepted => (Family::Peer, body::<Accepted>),
        Kind::Rejected => (Family::Peer, body::<Rejected>),
        Kind::Heartbeat => (Family::Peer, body::<Heartbeat>),
        Kind::HeartbeatAnswer => (Family::Peer, body::<HeartbeatAnswer>),
        Kind::Suspect => (Family::Peer, body::<Suspect>),
        Kind::SuspectAnswer => (Family::Peer, body::<SuspectAnswer>),
        Kind::HandOver => (Family::Peer, body::<HandOver>),
        Kind::Rejoin => (Family::Peer, body::<Rejoin>),
        Kind::RejoinAnswer => (Family::Peer, body::<RejoinAnswer>),
        Kind::SnapshotChunk => (Family::Peer, body::<SnapshotChunk<'static>>),
        Kind::SnapshotAck => (Family::Peer, body::<SnapshotAck>),
        Kind::FetchRange => (Family::Peer, body::<FetchRange>),
        Kind::RangeCells => (Family::Peer, body::<RangeCells<'static>>),
    }
}

fn body<T>(bytes: &[u8]) -> bool
where
    T: Body + Archive + PartialEq + Debug + for<'a> Encode<'a>,
    T::Archived: Portable + for<'a> CheckBytes<Validator<'a>> + Deserialize<T, Strategy<Pool, Failure>>,
{
    let Ok(archived) = access::<T>(bytes) else { return false };
    let value = to_owned::<T>(archived);
    let mut written = Vec::new();
    encode(&value, &mut written);
    assert!(written.len() <= bytes.len(), "{} bytes hold {} of {value:?}", bytes.len(), written.len());
    let again = access::<T>(&written).expect("what was written can be read");
    assert_eq!(to_owned::<T>(again), value);
    true
}

/// Both sides of a handshake: whatever a stranger sends, the answer is a frame that it may be sent.
fn shake(kind: Kind, body: &[u8]) {
    let us = |role| Identity { cluster: Incarnation([0xc1; 16]), peer: Peer::of_role(role) };
    let (header, us) = (Header::new(kind, RequestId(7)), us(PeerRole::Router));
    let mut out = Vec::new();
    let seen = answer(&us, header, body, 77, &mut out);
    let (answer_header, _) = first_frame(&out, BodyLimit::BEFORE_HELLO).expect("a frame").expect("all of it");
    assert_eq!(answer_header.frame_bytes(), out.len());
    if let Ok(peer) = seen {
        // Who was understood to be there is understood again.
        let (mut greeting, mut out) = (Vec::new(), Vec::new());
        greet(&Identity { cluster: Incarnation::default(), peer }, &mut greeting);
        let (header, body) =
            first_frame(&greeting, BodyLimit::BEFORE_HELLO).expect("a frame").expect("all of it");
        assert_eq!(answer(&us, header, body, 77, &mut out), Ok(peer));
    }
    if let Err(problem) = conclude(&us, header, body) {
        let repeated = Problem::from(access::<ErrorAnswer>(&error_body(&problem)).expect("an archive"));
        assert_eq!(repeated, problem);
    }
}

fn error_body(problem: &Problem) -> Vec<u8> {
    let mut body = Vec::new();
    encode(&ErrorAnswer::from(problem), &mut body);
    body
}
