//! Replication: what the cores of a group say to each other. The frame's header names the partition and the
//! epoch; the handshake has told who the sender is.
//!
//! The rules behind these messages are in `dataplane/src/paxos`.

use super::Body;
use crate::checksum::Hash128;
use crate::frame::Kind;
use crate::ids::{Ballot, Epoch, PartitionId, Slot};
use crate::table::{GroupConfig, Member};
use rkyv::with::AsOwned;
use rkyv::{Archive, Deserialize, Serialize};
use std::borrow::Cow;

macro_rules! bodies {
    ($($name:ident => $kind:ident;)*) => {
        $(impl Body for $name { const KIND: Kind = Kind::$kind; })*
    };
}

bodies! {
    Prepare => Prepare;
    Promise => Promise;
    Refuse => Refuse;
    Fetch => Fetch;
    Accepted => Accepted;
    Rejected => Rejected;
    Heartbeat => Heartbeat;
    HeartbeatAnswer => HeartbeatAnswer;
    Suspect => Suspect;
    SuspectAnswer => SuspectAnswer;
    HandOver => HandOver;
    Rejoin => Rejoin;
    RejoinAnswer => RejoinAnswer;
    Invite => Invite;
    SnapshotAck => SnapshotAck;
    FetchRange => FetchRange;
}

/// The end of a replica's log: which log is better is decided by (ballot, slot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct LogEnd {
    /// Ballot in which the last entry was first proposed.
    pub ballot: Ballot,
    /// Slot of the last entry.
    pub slot: Slot,
}

/// A place in a group's log, with the hash of the chain up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LogPoint {
    /// The slot.
    pub slot: Slot,
    /// Hash of that slot's entry, which covers everything before it.
    pub hash: Hash128,
}

impl From<&ArchivedLogPoint> for LogPoint {
    fn from(archived: &ArchivedLogPoint) -> Self {
        Self { slot: (&archived.slot).into(), hash: (&archived.hash).into() }
    }
}

/// What a leader that gave up its lease says to the one it chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Relinquished {
    /// The ballot whose lease was given up.
    pub ballot: Ballot,
    /// Microseconds that the leader itself still had to wait for a lease before its own.
    pub wait_us: u64,
}

/// A candidate asks for a promise.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Prepare {
    /// The candidate's ballot.
    pub ballot: Ballot,
    /// Not zero: the candidate has lost a part of its memory, and may have used this ballot before. Whoever
    /// has promised it already refuses; a promise repeats this number, which tells its lives apart.
    pub life: u64,
}

/// An acceptor promises, durably, to take nothing below this ballot.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Promise {
    /// The ballot that is promised.
    pub ballot: Ballot,
    /// What was promised before: shows whose lease may be alive.
    pub previous: Ballot,
    /// The end of the acceptor's durable log.
    pub last: LogEnd,
    /// Hash of its last entry.
    pub last_hash: Hash128,
    /// Up to where the acceptor knows its log to be committed.
    pub commit: Slot,
    /// That of the question.
    pub life: u64,
}

/// No promise.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Refuse {
    /// What the acceptor has promised instead.
    pub promised: Ballot,
}

/// A candidate asks the promiser with the best log for what it lacks.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Fetch {
    /// The candidate's ballot.
    pub ballot: Ballot,
    /// The entries after this one.
    pub after: LogPoint,
}

/// Entries for a candidate.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Fetched<'a> {
    /// The candidate's ballot.
    pub ballot: Ballot,
    /// The entry before the first.
    pub previous: LogPoint,
    /// The entries, one behind the other; none: they are not at hand, or the logs part before `previous`.
    #[rkyv(with = AsOwned)]
    pub entries: Cow<'a, [u8]>,
}

impl Body for Fetched<'_> {
    const KIND: Kind = Kind::Fetched;
}

/// A leader sends entries. Without entries it tells its commit position and asks how far the follower is.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Accept<'a> {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The entry before the first.
    pub previous: LogPoint,
    /// Up to where the leader knows the log to be committed.
    pub commit: Slot,
    /// Up to where every storage replica has the log durably: log replicas need not keep that.
    pub settled: Slot,
    /// The entries, one behind the other.
    #[rkyv(with = AsOwned)]
    pub entries: Cow<'a, [u8]>,
}

impl Body for Accept<'_> {
    const KIND: Kind = Kind::Accept;
}

/// The follower's log equals the leader's up to here, durably.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Accepted {
    /// The ballot of the Accept.
    pub ballot: Ballot,
    /// The last slot that is known to match and durable.
    pub matched: Slot,
    /// Whether this counts towards the quorum: not while the replica is being refilled after damage.
    pub votes: bool,
    /// Whether this replica holds the partition's items: not while it is a log replica.
    pub stores: bool,
}

/// Why an acceptor does not take entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Rejection {
    /// It has promised a higher ballot.
    Ballot,
    /// It lacks entries after this slot.
    Gap(Slot),
    /// Its entry at `previous` is another one; its log is surely right up to this slot.
    Conflict(Slot),
    /// It has no room now; send the same again later.
    Busy(Slot),
    /// It has no room, and will have none before it is sent the partition's state: its log is full of what a
    /// damaged tree lacks.
    Stuck(Slot),
}

impl From<&ArchivedRejection> for Rejection {
    fn from(archived: &ArchivedRejection) -> Self {
        match archived {
            ArchivedRejection::Ballot => Self::Ballot,
            ArchivedRejection::Gap(slot) => Self::Gap(slot.into()),
            ArchivedRejection::Conflict(slot) => Self::Conflict(slot.into()),
            ArchivedRejection::Busy(slot) => Self::Busy(slot.into()),
            ArchivedRejection::Stuck(slot) => Self::Stuck(slot.into()),
        }
    }
}

/// Entries are not taken.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Rejected {
    /// The ballot of the Accept.
    pub ballot: Ballot,
    /// What the acceptor has promised.
    pub promised: Ballot,
    /// Why.
    pub reason: Rejection,
}

/// What a leader says of one group in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HeartbeatGroup {
    /// The group.
    pub partition: PartitionId,
    /// Its membership epoch.
    pub epoch: Epoch,
    /// The leader's ballot; zero: the sender no longer leads the group.
    pub ballot: Ballot,
    /// Its commit position.
    pub commit: Slot,
    /// Whether the leader holds a quorum lease at this moment: what makes it "healthy".
    pub holds_lease: bool,
}

/// One frame renews the leases of every group on the sender's *roll*: the groups that the sending core leads
/// and the receiving core is a member of. The receiver keeps a copy of the roll, and a heartbeat brings only
/// what has changed in it; what it does not name is said again as it was.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's clock when it sent this, repeated in the answer: the grants count from here.
    pub sent_at: u64,
    /// Tells the roll from that of an earlier process of the sender.
    pub roll: u64,
    /// The version from which the changes lead to the next one. Zero: they are the whole roll.
    pub since: u64,
    /// The version that the receiver's copy has with the changes.
    pub version: u64,
    /// The groups that changed.
    pub changes: Vec<HeartbeatGroup>,
}

/// Every group of the roll is granted but the exceptions, if the receiver has the heartbeat's version of it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// As in the heartbeat.
    pub sent_at: u64,
    /// The version of the receiver's copy; less than the heartbeat's: it could not use the changes, and
    /// grants nothing.
    pub version: u64,
    /// Groups for which no lease is granted, with the ballot that the acceptor has promised.
    pub exceptions: Vec<HeartbeatException>,
}

/// A group without a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HeartbeatException {
    /// The group.
    pub partition: PartitionId,
    /// The promised ballot; zero when the core does not hold the group, or may not vote.
    pub promised: Ballot,
}

/// A follower has not heard its leader and asks a peer before it stands for election (gray failure, section
/// 6.2 of the ATC 2022 paper).
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Suspect {
    /// The asker's promised ballot.
    pub promised: Ballot,
}

/// Whether, within one lease term, the leader has said to this peer that it holds a quorum lease.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SuspectAnswer {
    /// One "yes" cancels the election.
    pub healthy: bool,
}

/// A leader has given up its lease; the receiver should stand for election at once.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct HandOver {
    /// What was given up.
    pub relinquished: Relinquished,
}

/// A replica whose log was damaged below its durable watermark may not vote; it asks to be refilled.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Rejoin {
    /// Tells this damage from an earlier one.
    pub nonce: u64,
}

/// Once the replica has this slot durable and knows it committed, it may vote again: the slot was proposed
/// after the question and committed without the asker.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct RejoinAnswer {
    /// As in the question.
    pub nonce: u64,
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The slot.
    pub slot: Slot,
}

/// A leader makes the receiver a *learner*: a replica that takes the log and does not vote. It becomes a
/// member by an entry of the log, when it has caught up. One that holds the group already goes on with what
/// it has.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Invite {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// Who is meant. Another life of the node's data folder is not.
    pub member: Member,
    /// The group as of `at`.
    pub config: GroupConfig,
    /// A committed place in the log, from which a log replica's log can begin.
    pub at: LogPoint,
    /// Ballot in which its entry was first proposed.
    pub at_ballot: Ballot,
    /// Its entry's timestamp, or an earlier one.
    pub timestamp: u64,
}

/// A piece of a partition's state as of one slot.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SnapshotChunk<'a> {
    /// Names the transfer, per sender.
    pub transfer: u64,
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The slot that the state is of.
    pub at: LogPoint,
    /// Ballot in which that slot's entry was first proposed.
    pub at_ballot: Ballot,
    /// Counts the pieces from zero.
    pub index: u32,
    /// Whether this is the last piece.
    pub last: bool,
    /// The records, as in a checkpoint.
    #[rkyv(with = AsOwned)]
    pub records: Cow<'a, [u8]>,
}

impl Body for SnapshotChunk<'_> {
    const KIND: Kind = Kind::SnapshotChunk;
}

/// The receiver has every piece below `next`.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct SnapshotAck {
    /// The transfer.
    pub transfer: u64,
    /// The next piece that the receiver expects.
    pub next: u32,
}

/// A replica with damaged pages asks a member for the items of their keys.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct FetchRange {
    /// Repeated in the answer.
    pub number: u64,
    /// First key.
    pub lower: Vec<u8>,
    /// First key beyond; empty: no end.
    pub upper: Vec<u8>,
    /// The member must have applied this slot: the asker's tree is of it.
    pub at_least: Slot,
}

/// Items of a range, as far as they go into one frame. What was written after the slot that the asker named
/// is left out: the asker has it in its log.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct RangeCells<'a> {
    /// As in the question.
    pub number: u64,
    /// Up to where the member has applied its log; below `at_least`: it cannot answer yet.
    pub position: Slot,
    /// Cells, as records of a checkpoint.
    #[rkyv(with = AsOwned)]
    pub records: Cow<'a, [u8]>,
    /// The key to go on from.
    pub resume: Option<Vec<u8>>,
}

impl Body for RangeCells<'_> {
    const KIND: Kind = Kind::RangeCells;
}
