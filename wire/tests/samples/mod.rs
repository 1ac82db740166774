//! A value of every message, and of every variant of what messages hold, no two fields of one message alike.
//!
//! The matches here have no wildcard, and [`every!`] is a match too: a new kind of frame, and a new variant
//! of what a message holds, do not compile until there is a sample of it.

mod operations;
mod replication;
mod tables;

use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::handshake::{Hello, HelloAnswer, PeerRole};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, Incarnation, NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::message::request::{Position, Row, Token};
use evenkeel_wire::message::{Body, Encode, Validator, access, encode, to_owned};
use evenkeel_wire::table::{Address, RouteGeneration, RouteHint, RouteMember};
use rkyv::bytecheck::CheckBytes;
use rkyv::de::Pool;
use rkyv::rancor::{Failure, Strategy};
use rkyv::{Archive, Deserialize, Portable};
use std::borrow::Cow;
use std::fmt::Debug;

/// Values, once a match over all variants has shown that none is missing.
macro_rules! every {
    ($type:ident: $($variant:ident),+ $(,)?) => { every!($($type::$variant => $type::$variant),+) };
    ($($variant:pat => $value:expr),+ $(,)?) => {{
        let values = [$($value),+];
        for value in &values {
            match value { $($variant => (),)+ }
        }
        values
    }};
}
pub(crate) use every;

/// Something that is true or false of bytes.
type Question = Box<dyn Fn(&[u8]) -> bool>;

/// The body of a frame.
pub(crate) struct Sample {
    /// The name of its golden bytes.
    pub(crate) name: String,
    /// Which message it is.
    pub(crate) kind: Kind,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Whether bytes are read as the value that this was made from.
    pub(crate) is_read_from: Question,
}

/// A sample of `value`.
pub(crate) fn sample<T>(name: impl Into<String>, value: T) -> Sample
where
    T: Body + Archive + PartialEq + Debug + for<'a> Encode<'a> + 'static,
    T::Archived: Portable + for<'a> CheckBytes<Validator<'a>> + Deserialize<T, Strategy<Pool, Failure>>,
{
    let mut bytes = Vec::new();
    encode(&value, &mut bytes);
    let is_read_from = move |bytes: &[u8]| access::<T>(bytes).map(to_owned::<T>).as_ref() == Ok(&value);
    Sample { name: name.into(), kind: T::KIND, bytes, is_read_from: Box::new(is_read_from) }
}

/// Samples of the bodies of a kind; none if frames of that kind have no body.
pub(crate) fn samples(kind: Kind) -> Vec<Sample> {
    match kind {
        Kind::Hello => hellos(),
        Kind::HelloAnswer => vec![sample("handshake.hello_answer", hello_answer())],
        Kind::Error => errors(),

        Kind::Put => operations::puts(),
        Kind::Get => operations::gets(),
        Kind::GetAnswer => operations::get_answers(),
        Kind::Delete => operations::deletes(),
        Kind::Update => operations::updates(),
        Kind::WriteAnswer => operations::write_answers(),
        Kind::Query => operations::queries(),
        Kind::Scan => operations::scans(),
        Kind::PageAnswer => operations::page_answers(),
        Kind::BatchGet => operations::batch_gets(),
        Kind::BatchGetAnswer => operations::batch_get_answers(),
        Kind::BatchWrite => operations::batch_writes(),
        Kind::BatchWriteAnswer => operations::batch_write_answers(),

        Kind::CreateTable => tables::create_tables(),
        Kind::DescribeTable => tables::describe_tables(),
        Kind::DeleteTable => tables::delete_tables(),
        Kind::TableAnswer => tables::table_answers(),
        Kind::SplitTable => tables::split_tables(),
        Kind::ListTables => tables::list_tables(),
        Kind::ListTablesAnswer => tables::list_tables_answers(),
        Kind::Status | Kind::Topology | Kind::Scrub => Vec::new(),
        Kind::StatusAnswer => tables::status_answers(),
        Kind::TopologyAnswer => tables::topology_answers(),
        Kind::ScrubAnswer => tables::scrub_answers(),
        Kind::Tail => tables::tails(),
        Kind::TailAnswer => tables::tail_answers(),
        Kind::Lookup => tables::lookups(),
        Kind::LookupAnswer => tables::lookup_answers(),
        Kind::PublishRoutes => tables::publish_routes(),
        Kind::PublishTables => tables::publish_tables(),
        Kind::PublishAnswer => tables::publish_answers(),
        Kind::EnsureReplicas => tables::ensure_replicas(),
        Kind::EnsureReplicasAnswer => tables::ensure_replicas_answers(),
        Kind::SplitPartition => tables::split_partitions(),
        Kind::SplitPartitionAnswer => tables::split_partition_answers(),

        Kind::Prepare => replication::prepares(),
        Kind::Promise => replication::promises(),
        Kind::Refuse => replication::refuses(),
        Kind::Fetch => replication::fetches(),
        Kind::Fetched => replication::fetcheds(),
        Kind::Accept => replication::accepts(),
        Kind::Invite => replication::invites(),
        Kind::Accepted => replication::accepteds(),
        Kind::Rejected => replication::rejecteds(),
        Kind::Heartbeat => replication::heartbeats(),
        Kind::HeartbeatAnswer => replication::heartbeat_answers(),
        Kind::Suspect => replication::suspects(),
        Kind::SuspectAnswer => replication::suspect_answers(),
        Kind::HandOver => replication::hand_overs(),
        Kind::Rejoin => replication::rejoins(),
        Kind::RejoinAnswer => replication::rejoin_answers(),
        Kind::SnapshotChunk => replication::snapshot_chunks(),
        Kind::SnapshotAck => replication::snapshot_acks(),
        Kind::FetchRange => replication::fetch_ranges(),
        Kind::RangeCells => replication::range_cells(),
    }
}

fn hellos() -> Vec<Sample> {
    let hello = |role| Hello {
        version_min: 0x0102,
        version_max: 0x0304,
        role,
        cluster: incarnation(0xc1),
        node: NodeId(0x0506_0708),
        core: CoreId(0x090a),
        incarnation: incarnation(0xd1),
        authentication_scheme: "a scheme".to_owned(),
        credential: b"a credential".to_vec(),
    };
    every!(PeerRole: Client, Router, Memds, Storage)
        .map(|role| sample(format!("handshake.hello_{}", lower(&role)), hello(role)))
        .into()
}

fn hello_answer() -> HelloAnswer {
    HelloAnswer {
        version: 0x0102,
        role: PeerRole::Memds,
        cluster: incarnation(0xc1),
        node: NodeId(0x0506_0708),
        core: CoreId(0x090a),
        incarnation: incarnation(0xd1),
        server_ms: number(0x11),
    }
}

fn errors() -> Vec<Sample> {
    let plain = Problem::new(ErrorCode::ConditionFailed, "the condition did not hold");
    let hint = RouteHint { partition: partition(), generation: generation(), leader: route_member(1) };
    let unknown = Problem::new(ErrorCode::OutcomeUnknown, "its leader changed").with_hint(Some(hint));
    vec![
        sample("handshake.error", ErrorAnswer::from(&plain)),
        sample("handshake.error_with_hint", ErrorAnswer::from(&unknown)),
    ]
}

/// The name of a variant, as golden bytes are named.
pub(crate) fn lower(variant: &impl Debug) -> String {
    let text = format!("{variant:?}");
    let name = text.split(|character: char| !character.is_ascii_alphanumeric()).next().unwrap_or_default();
    let mut lower = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !lower.is_empty() {
            lower.push('_');
        }
        lower.push(character.to_ascii_lowercase());
    }
    lower
}

/// A number with eight different bytes, the lowest of which is `low`.
pub(crate) fn number(low: u8) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|place| low + place as u8))
}

pub(crate) fn incarnation(first: u8) -> Incarnation {
    Incarnation(std::array::from_fn(|place| first + place as u8))
}

pub(crate) fn partition() -> PartitionId {
    PartitionId(number(0x21))
}

pub(crate) fn slot(low: u8) -> Slot {
    Slot(number(low))
}

pub(crate) fn ballot(low: u8) -> Ballot {
    Ballot { round: number(low), node: NodeId(0x0b0c_0d00 + u32::from(low)) }
}

pub(crate) fn hash(first: u8) -> Hash128 {
    Hash128(incarnation(first).0)
}

pub(crate) fn point(low: u8) -> LogPoint {
    LogPoint { slot: slot(low), hash: hash(low + 8) }
}

pub(crate) fn token() -> Token {
    Token {
        client: incarnation(0xe1).0,
        sequence: number(0x31),
        issued_ms: number(0x41),
        acknowledged_below: number(0x51),
    }
}

pub(crate) fn position() -> Position {
    Position { partition: partition(), slot: slot(0x61) }
}

pub(crate) fn row() -> Row<'static> {
    Row { checksum: 0x7172_7374, item: Cow::Borrowed(b"archive of an item") }
}

pub(crate) fn generation() -> RouteGeneration {
    RouteGeneration { epoch: Epoch(0x8182_8384), division: 0xa1a2_a3a4, ballot: ballot(0x91) }
}

pub(crate) fn address(last: u8) -> Address {
    Address::from(std::net::SocketAddr::from(([10, 0, 0, last], 0x1d00 + u16::from(last))))
}

pub(crate) fn route_member(low: u8) -> RouteMember {
    RouteMember {
        node: NodeId(0xa1a2_a300 + u32::from(low)),
        core: CoreId(0xb100 + u16::from(low)),
        address: address(low),
    }
}
