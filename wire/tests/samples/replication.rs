//! What the cores of a group say to each other.

use super::tables::{group_config, member};
use super::{Sample, ballot, every, hash, lower, number, partition, point, sample, slot};
use evenkeel_wire::ids::Epoch;
use evenkeel_wire::message::peer::{
    Accept, Accepted, Fetch, FetchRange, Fetched, HandOver, Heartbeat, HeartbeatAnswer, HeartbeatException,
    HeartbeatGroup, Invite, LogEnd, Prepare, Promise, RangeCells, Refuse, Rejected, Rejection, Rejoin,
    RejoinAnswer, Relinquished, SnapshotAck, SnapshotChunk, Suspect, SuspectAnswer,
};
use std::borrow::Cow;

pub(super) fn prepares() -> Vec<Sample> {
    vec![sample("peer.prepare", Prepare { ballot: ballot(0x11), life: 0x2122_2324_2526_2728 })]
}

pub(super) fn promises() -> Vec<Sample> {
    let promise = Promise {
        ballot: ballot(0x11),
        previous: ballot(0x21),
        last: LogEnd { ballot: ballot(0x31), slot: slot(0x41) },
        last_hash: hash(0x51),
        commit: slot(0x61),
        life: 0x3132_3334_3536_3738,
    };
    vec![sample("peer.promise", promise)]
}

pub(super) fn refuses() -> Vec<Sample> {
    vec![sample("peer.refuse", Refuse { promised: ballot(0x11) })]
}

pub(super) fn fetches() -> Vec<Sample> {
    vec![sample("peer.fetch", Fetch { ballot: ballot(0x11), after: point(0x21) })]
}

pub(super) fn fetcheds() -> Vec<Sample> {
    let entries = Cow::Borrowed(&b"entries, one behind the other"[..]);
    vec![sample("peer.fetched", Fetched { ballot: ballot(0x11), previous: point(0x21), entries })]
}

pub(super) fn accepts() -> Vec<Sample> {
    let entries = Cow::Borrowed(&b"entries, one behind the other"[..]);
    let accept = Accept {
        ballot: ballot(0x11),
        previous: point(0x21),
        commit: slot(0x41),
        settled: slot(0x31),
        entries,
    };
    vec![sample("peer.accept", accept)]
}

pub(super) fn invites() -> Vec<Sample> {
    let invite = Invite {
        ballot: ballot(0x11),
        member: member(4),
        config: group_config(),
        at: point(0x21),
        at_ballot: ballot(0x31),
        timestamp: number(0x41),
    };
    vec![sample("peer.invite", invite)]
}

pub(super) fn accepteds() -> Vec<Sample> {
    vec![sample(
        "peer.accepted",
        Accepted { ballot: ballot(0x11), matched: slot(0x21), votes: true, stores: false },
    )]
}

pub(super) fn rejecteds() -> Vec<Sample> {
    let rejected = |reason| Rejected { ballot: ballot(0x11), promised: ballot(0x21), reason };
    every!(
        Rejection::Ballot => Rejection::Ballot,
        Rejection::Gap(_) => Rejection::Gap(slot(0x31)),
        Rejection::Conflict(_) => Rejection::Conflict(slot(0x31)),
        Rejection::Busy(_) => Rejection::Busy(slot(0x31)),
        Rejection::Stuck(_) => Rejection::Stuck(slot(0x31)),
    )
    .map(|reason| sample(format!("peer.rejected_{}", lower(&reason)), rejected(reason)))
    .into()
}

pub(super) fn heartbeats() -> Vec<Sample> {
    let group = |holds_lease| HeartbeatGroup {
        partition: partition(),
        epoch: Epoch(0x3132_3334),
        ballot: ballot(0x41),
        commit: slot(0x51),
        holds_lease,
    };
    let heartbeat = Heartbeat {
        sent_at: number(0x11),
        roll: number(0x21),
        since: number(0x61),
        version: number(0x71),
        changes: vec![group(true), group(false)],
    };
    vec![sample("peer.heartbeat", heartbeat)]
}

pub(super) fn heartbeat_answers() -> Vec<Sample> {
    let exceptions = vec![HeartbeatException { partition: partition(), promised: ballot(0x31) }];
    let answer = HeartbeatAnswer { sent_at: number(0x11), version: number(0x21), exceptions };
    vec![sample("peer.heartbeat_answer", answer)]
}

pub(super) fn suspects() -> Vec<Sample> {
    vec![sample("peer.suspect", Suspect { promised: ballot(0x11) })]
}

pub(super) fn suspect_answers() -> Vec<Sample> {
    vec![sample("peer.suspect_answer", SuspectAnswer { healthy: true })]
}

pub(super) fn hand_overs() -> Vec<Sample> {
    let relinquished = Relinquished { ballot: ballot(0x11), wait_us: number(0x21) };
    vec![sample("peer.hand_over", HandOver { relinquished })]
}

pub(super) fn rejoins() -> Vec<Sample> {
    vec![sample("peer.rejoin", Rejoin { nonce: number(0x11) })]
}

pub(super) fn rejoin_answers() -> Vec<Sample> {
    vec![sample(
        "peer.rejoin_answer",
        RejoinAnswer { nonce: number(0x11), ballot: ballot(0x21), slot: slot(0x31) },
    )]
}

pub(super) fn snapshot_chunks() -> Vec<Sample> {
    let chunk = SnapshotChunk {
        transfer: number(0x11),
        ballot: ballot(0x21),
        at: point(0x31),
        at_ballot: ballot(0x61),
        index: 0x7172_7374,
        last: true,
        records: Cow::Borrowed(b"records, as in a checkpoint"),
    };
    vec![sample("peer.snapshot_chunk", chunk)]
}

pub(super) fn snapshot_acks() -> Vec<Sample> {
    vec![sample("peer.snapshot_ack", SnapshotAck { transfer: number(0x11), next: 0x2122_2324 })]
}

pub(super) fn fetch_ranges() -> Vec<Sample> {
    let (lower, upper) = (b"lower".to_vec(), b"upper".to_vec());
    let fetch = FetchRange { number: number(0x11), lower, upper, at_least: slot(0x21) };
    vec![sample("peer.fetch_range", fetch)]
}

pub(super) fn range_cells() -> Vec<Sample> {
    let records = Cow::Borrowed(&b"records, as in a checkpoint"[..]);
    let resume = Some(b"resume".to_vec());
    vec![sample(
        "peer.range_cells",
        RangeCells { number: number(0x11), position: slot(0x21), records, resume },
    )]
}
