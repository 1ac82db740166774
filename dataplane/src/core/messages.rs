//! Between [`Message`], as replicas speak, and frames.

use crate::paxos::Message;
use bytes::Bytes;
use evenkeel_wire::entry::ENTRY_HEADER_BYTES;
use evenkeel_wire::error::Problem;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{Ballot, RequestId, Slot};
use evenkeel_wire::message::peer::{
    Accept, Accepted, Fetch, Fetched, HandOver, Invite, Prepare, Promise, Refuse, Rejected, Rejection,
    Rejoin, RejoinAnswer, Suspect, SuspectAnswer,
};
use evenkeel_wire::message::{Body, Encode, access, to_owned};
use evenkeel_wire::turn::{Effects, Endpoint};
use std::borrow::Cow;

/// Sends a message. `header` names partition and epoch; its kind is filled in.
pub fn send(to: Endpoint, header: Header, message: &Message, out: &mut Effects) {
    match message {
        Message::Prepare(body) => put(to, header, body, out),
        Message::Promise(body) => put(to, header, body, out),
        Message::Refuse(body) => put(to, header, body, out),
        Message::Fetch(body) => put(to, header, body, out),
        Message::Fetched { ballot, previous, entries } => {
            let body = Fetched { ballot: *ballot, previous: *previous, entries: join(entries) };
            put(to, header, &body, out);
        }
        Message::Accept { ballot, previous, commit, settled, entries } => {
            let (ballot, previous, commit, settled) = (*ballot, *previous, *commit, *settled);
            let body = Accept { ballot, previous, commit, settled, entries: join(entries) };
            put(to, header, &body, out);
        }
        Message::Accepted(body) => put(to, header, body, out),
        Message::Rejected(body) => put(to, header, body, out),
        Message::Suspect(body) => put(to, header, body, out),
        Message::SuspectAnswer(body) => put(to, header, body, out),
        Message::HandOver(body) => put(to, header, body, out),
        Message::Invite(body) => put(to, header, &**body, out),
        Message::Rejoin(body) => put(to, header, body, out),
        Message::RejoinAnswer(body) => put(to, header, body, out),
    }
}

fn put<T: Body + for<'a> Encode<'a>>(to: Endpoint, header: Header, body: &T, out: &mut Effects) {
    out.send(to, Header { kind: T::KIND, ..header }, body);
}

fn join(entries: &[Bytes]) -> Cow<'_, [u8]> {
    match entries {
        [] => Cow::Borrowed(&[]),
        [only] => Cow::Borrowed(only),
        many => Cow::Owned(many.concat()),
    }
}

/// Reads a message, or none if the kind is not one of a replica's.
///
/// # Errors
/// When the body is not one of its kind.
pub fn read(kind: Kind, body: &[u8]) -> Result<Option<Message>, Problem> {
    let message = match kind {
        Kind::Prepare => Message::Prepare(to_owned::<Prepare>(access::<Prepare>(body)?)),
        Kind::Promise => Message::Promise(to_owned::<Promise>(access::<Promise>(body)?)),
        Kind::Refuse => Message::Refuse(to_owned::<Refuse>(access::<Refuse>(body)?)),
        Kind::Fetch => Message::Fetch(to_owned::<Fetch>(access::<Fetch>(body)?)),
        Kind::Fetched => {
            let fetched = access::<Fetched<'static>>(body)?;
            let entries = split(&fetched.entries);
            Message::Fetched {
                ballot: (&fetched.ballot).into(),
                previous: (&fetched.previous).into(),
                entries,
            }
        }
        Kind::Accept => {
            let accept = access::<Accept<'static>>(body)?;
            Message::Accept {
                ballot: Ballot::from(&accept.ballot),
                previous: (&accept.previous).into(),
                commit: Slot::from(&accept.commit),
                settled: Slot::from(&accept.settled),
                entries: split(&accept.entries),
            }
        }
        Kind::Accepted => Message::Accepted(to_owned::<Accepted>(access::<Accepted>(body)?)),
        Kind::Rejected => {
            let rejected = access::<Rejected>(body)?;
            Message::Rejected(Rejected {
                ballot: (&rejected.ballot).into(),
                promised: (&rejected.promised).into(),
                reason: Rejection::from(&rejected.reason),
            })
        }
        Kind::Suspect => Message::Suspect(to_owned::<Suspect>(access::<Suspect>(body)?)),
        Kind::SuspectAnswer => {
            Message::SuspectAnswer(to_owned::<SuspectAnswer>(access::<SuspectAnswer>(body)?))
        }
        Kind::HandOver => Message::HandOver(to_owned::<HandOver>(access::<HandOver>(body)?)),
        Kind::Invite => Message::Invite(Box::new(to_owned::<Invite>(access::<Invite>(body)?))),
        Kind::Rejoin => Message::Rejoin(to_owned::<Rejoin>(access::<Rejoin>(body)?)),
        Kind::RejoinAnswer => Message::RejoinAnswer(to_owned::<RejoinAnswer>(access::<RejoinAnswer>(body)?)),
        _ => return Ok(None),
    };
    Ok(Some(message))
}

/// Takes entries apart by the lengths in their headers. Each has bytes of its own, because an item lives in
/// its entry's for as long as it is in memory: one that outlives its neighbours must not hold theirs. Each is
/// checked where it is accepted, and a length that leads outside makes a last piece that will not pass that.
fn split(mut entries: &[u8]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while !entries.is_empty() {
        let payload = entries.get(28..32).map_or(0, |field| {
            u32::from_le_bytes(field.try_into().expect("four bytes were asked for")) as usize
        });
        let (piece, left) = entries.split_at((ENTRY_HEADER_BYTES + payload).min(entries.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        entries = left;
    }
    pieces
}

/// The header of a message of a group, without its kind.
#[must_use]
pub fn header(partition: evenkeel_wire::ids::PartitionId, epoch: evenkeel_wire::ids::Epoch) -> Header {
    Header::new(Kind::Accept, RequestId(0)).to_partition(partition, epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::checksum::Hash128;
    use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind};
    use evenkeel_wire::frame::{BodyLimit, first_frame};
    use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, NodeId, PartitionId, TableId};
    use evenkeel_wire::message::peer::{LogEnd, LogPoint, Relinquished};
    use evenkeel_wire::table::{GroupConfig, Member};

    fn entry(slot: u64) -> Bytes {
        let header = EntryHeader {
            partition: PartitionId(1),
            slot: Slot(slot),
            ballot: Ballot::ZERO,
            previous: Hash128::ZERO,
            timestamp: 0,
            kind: EntryKind::Noop,
            payload_bytes: 0,
        };
        Entry::build(header, slot as usize, |out| out.resize(out.len() + slot as usize, 7)).bytes
    }

    #[test]
    fn every_message_survives_its_frame() {
        let ballot = Ballot { round: 3, node: NodeId(2) };
        let point = LogPoint { slot: Slot(4), hash: Hash128::of(b"p") };
        let last = LogEnd { ballot, slot: Slot(4) };
        let promise =
            Promise { ballot, previous: Ballot::ZERO, last, last_hash: point.hash, commit: Slot(2), life: 0 };
        let member = Member { node: NodeId(4), core: CoreId(0), incarnation: Incarnation([7; 16]) };
        let config = GroupConfig::whole(PartitionId(6), TableId(1), vec![member]);
        let invite = Invite { ballot, member, config, at: point, at_ballot: ballot, timestamp: 5 };
        let entries = vec![entry(1), entry(20), entry(3)];
        let messages = [
            Message::Prepare(Prepare { ballot, life: 0 }),
            Message::Promise(promise),
            Message::Refuse(Refuse { promised: ballot }),
            Message::Fetch(Fetch { ballot, after: point }),
            Message::Fetched { ballot, previous: point, entries: entries.clone() },
            Message::Accept { ballot, previous: point, commit: Slot(1), settled: Slot(1), entries },
            Message::Accept { ballot, previous: point, commit: Slot(1), settled: Slot(0), entries: vec![] },
            Message::Invite(Box::new(invite)),
            Message::Accepted(Accepted { ballot, matched: Slot(9), votes: false, stores: true }),
            Message::Rejected(Rejected { ballot, promised: ballot, reason: Rejection::Gap(Slot(5)) }),
            Message::Suspect(Suspect { promised: ballot }),
            Message::SuspectAnswer(SuspectAnswer { healthy: true }),
            Message::HandOver(HandOver { relinquished: Relinquished { ballot, wait_us: 7 } }),
            Message::Rejoin(Rejoin { nonce: 8 }),
            Message::RejoinAnswer(RejoinAnswer { nonce: 8, ballot, slot: Slot(3) }),
        ];
        let to = Endpoint::Incoming(evenkeel_wire::turn::ConnectionId(1));
        for message in messages {
            let mut out = Effects::new();
            send(to, header(PartitionId(6), Epoch(2)), &message, &mut out);
            let (_, bytes) = out.take_outboxes().next().unwrap();
            let (header, body) = first_frame(&bytes, BodyLimit::AFTER_HELLO).unwrap().unwrap();
            assert_eq!((header.partition, header.epoch), (PartitionId(6), Epoch(2)));
            assert_eq!(read(header.kind, body), Ok(Some(message)));
        }
    }

    #[test]
    fn an_entry_does_not_hold_its_neighbours() {
        let pieces = split(&[entry(1), entry(20), entry(3)].concat());
        assert_eq!(pieces, [entry(1), entry(20), entry(3)]);
        assert!(pieces.iter().all(Bytes::is_unique), "each has bytes of its own");
    }

    #[test]
    fn an_entry_that_announces_too_much_becomes_a_short_piece() {
        let mut bytes = entry(5).to_vec();
        bytes[28] = 200;
        let pieces = split(&bytes);
        assert_eq!((pieces.len(), pieces[0].len()), (1, bytes.len()));
        assert!(Entry::take(&mut pieces[0].clone()).is_err());
    }
}
