//! Groups of three with their states: what a new leader knows, and when.

use evenkeel_dataplane::btree::lookup::Pages;
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::limits::HAND_OVER_PATIENCE;
use evenkeel_dataplane::partition::Stop;
use evenkeel_dataplane::partition::pending::Asker;
use evenkeel_dataplane::partition::state::State;
use evenkeel_dataplane::partition::writes::WriteRequest;
use evenkeel_dataplane::paxos::log::GroupLog;
use evenkeel_dataplane::paxos::{Message, Output, Seed};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::{BodyLimit, Kind, first_frame};
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, NodeId, PartitionId, RequestId, Slot, TableId};
use evenkeel_wire::item::{Item, encode as encode_item};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::message::request::{Get, Put, ReturnItem, Token};
use evenkeel_wire::message::{access, encode};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::timeline::{Causes, Packed};
use evenkeel_wire::turn::{Boot, ConnectionId, Effects, Endpoint, Now};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

fn config() -> GroupConfig {
    let member = |number: u32| Member {
        node: NodeId(number),
        core: CoreId(0),
        incarnation: Incarnation([number as u8; 16]),
    };
    GroupConfig::whole(PartitionId(1), TableId(1), (1..=3).map(member).collect())
}

/// A message on its way: from, to, what.
type Sent = (NodeId, NodeId, Message);

/// Three members, whose disks and links do at once what they are asked to, unless a test holds a message
/// back.
struct Stage {
    now: Boot,
    groups: BTreeMap<NodeId, Group>,
    /// Records that are not durable yet.
    unpersisted: BTreeMap<NodeId, usize>,
    messages: VecDeque<Sent>,
    out: Effects,
}

impl Stage {
    fn new() -> Self {
        let now = Boot(1_000_000_000);
        let group = |node: NodeId| {
            let seed = Seed {
                config: config(),
                promised: Ballot::ZERO,
                log: GroupLog::new(LogPoint::default(), Ballot::ZERO),
                commit: Slot::ZERO,
                timestamp: 0,
                refilling: false,
                stores: true,
            };
            (node, Group::new(seed, State::default(), node, now, Prng::new(node.0.into())))
        };
        Self {
            now,
            groups: (1..=3).map(NodeId).map(group).collect(),
            unpersisted: BTreeMap::new(),
            messages: VecDeque::new(),
            out: Effects::new(),
        }
    }

    /// The first one leads, under a lease.
    fn led() -> (Self, NodeId) {
        let (mut stage, first) = (Self::new(), NodeId(1));
        stage.act(first, |group, now, out| group.replica.tick(now, out));
        stage.run(|_| false);
        stage.grant_lease(first);
        (stage, first)
    }

    fn group(&mut self, node: NodeId) -> &mut Group {
        self.groups.get_mut(&node).unwrap()
    }

    fn act(&mut self, node: NodeId, act: impl FnOnce(&mut Group, Boot, &mut Vec<Output>)) {
        let (now, mut outputs) = (self.now, Vec::new());
        act(self.group(node), now, &mut outputs);
        for output in outputs {
            match output {
                Output::Persist(_) => *self.unpersisted.entry(node).or_default() += 1,
                Output::Send { to, message } => self.messages.push_back((node, to, message)),
                Output::NeedsSnapshot { .. } | Output::MembersChanged | Output::LostLeadership => {}
            }
        }
    }

    fn deliver(&mut self, (from, to, message): Sent) {
        self.act(to, |group, now, out| group.receive(now, from, message, Packed::NONE, out));
    }

    /// Goes on until nothing is left but the messages that `held` names.
    fn run(&mut self, held: impl Fn(&Sent) -> bool) {
        let mut idle = false;
        while !idle {
            idle = true;
            for (node, count) in std::mem::take(&mut self.unpersisted) {
                idle = false;
                (0..count).for_each(|_| self.act(node, |group, now, out| group.replica.persisted(now, out)));
            }
            for sent in std::mem::take(&mut self.messages) {
                if held(&sent) {
                    self.messages.push_back(sent);
                } else {
                    idle = false;
                    self.deliver(sent);
                }
            }
            for node in (1..=3).map(NodeId) {
                self.end_turn(node);
            }
        }
    }

    fn end_turn(&mut self, node: NodeId) {
        let mut out = std::mem::take(&mut self.out);
        let now = Now::new(self.now, WALL_MS);
        self.group(node).apply_committed(now, Causes::NONE, &mut out);
        self.out = out;
        self.act(node, |group, now, out| group.replica.end_turn(now, out));
    }

    /// The followers grant the leader a lease.
    fn grant_lease(&mut self, leader: NodeId) {
        let sent = self.now;
        let heartbeat = self.groups[&leader].replica.heartbeat(sent).unwrap();
        for node in (1..=3).map(NodeId).filter(|node| *node != leader) {
            self.act(node, |group, now, out| {
                group.replica.on_heartbeat(now, leader, &heartbeat, out).unwrap();
            });
            self.group(leader).replica.on_grant(sent, node, heartbeat.ballot, sent);
        }
    }

    fn write(&mut self, node: NodeId, body: &[u8]) -> Result<(), Stopped> {
        let now = Now::new(self.now, WALL_MS);
        let request = WriteRequest::read(Kind::Put, body).unwrap();
        let (mut out, mut result) = (std::mem::take(&mut self.out), Ok(()));
        let pages = Pages::default();
        self.act(node, |group, _, outputs| {
            result = group.write(now, asker(), &request, &pages, &mut out, outputs);
        });
        self.out = out;
        result.map_err(stopped)
    }

    fn read(&mut self, node: NodeId) -> Result<(), Stopped> {
        let (now, mut out) = (self.now, Effects::new());
        let (mut body, key) = (Vec::new(), Cow::Borrowed(&b"key"[..]));
        encode(&Get { table: TableId(1), key, strong: true }, &mut body);
        let get = access::<Get<'static>>(&body).unwrap();
        self.group(node).get(now, asker(), get, &Pages::default(), &mut out).map_err(stopped)
    }

    /// The kind of the one answer that clients were given since the last look.
    fn answer(&mut self) -> Option<Kind> {
        let (_, bytes) = self.out.take_outboxes().next()?;
        Some(first_frame(&bytes, BodyLimit::AFTER_HELLO).unwrap().unwrap().0.kind)
    }
}

/// Nothing here is on disk: whatever stops is refused or held.
#[derive(Debug, PartialEq)]
enum Stopped {
    Refused(ErrorCode),
    Held,
}

use Stopped::{Held, Refused};

fn stopped(stop: Stop) -> Stopped {
    match stop {
        Stop::Refuse(problem) => Refused(problem.code),
        Stop::Hold => Held,
        Stop::Wait(_) => panic!("{stop:?}"),
    }
}

const WALL_MS: u64 = 1_000_000;

fn asker() -> Asker {
    Asker::new(Endpoint::Incoming(ConnectionId(1)), RequestId(1))
}

fn put() -> Vec<u8> {
    let item = encode_item(&Item::new().with("pk", "k")).unwrap();
    let mut body = Vec::new();
    let put = Put {
        table: TableId(1),
        token: Token { client: [9; 16], sequence: 1, issued_ms: WALL_MS, acknowledged_below: 1 },
        key: Cow::Borrowed(b"key"),
        item_checksum: crc32c(&item),
        item: Cow::Borrowed(&item),
        condition: Cow::Borrowed(b""),
        return_item: ReturnItem::None,
    };
    encode(&put, &mut body);
    body
}

#[test]
fn a_new_leader_serves_nothing_before_it_has_applied_what_it_inherited() {
    let (mut stage, first) = Stage::led();
    stage.write(first, &put()).unwrap();
    stage.run(|_| false);
    assert_eq!(stage.answer(), Some(Kind::WriteAnswer), "the client has its acknowledgement");
    // The leader hands over before its followers have heard that the write is committed.
    stage.act(first, |group, now, out| assert!(group.replica.hand_over(now, out)));
    let next = stage.messages.front().unwrap().1;
    stage.run(|(_, to, message)| *to == next && matches!(message, Message::Accepted(_)));
    assert!(stage.group(next).replica.is_leader());
    stage.grant_lease(next);
    // In one turn its first entry commits, and a strong read and a repetition of the write arrive.
    for sent in std::mem::take(&mut stage.messages) {
        stage.deliver(sent);
    }
    let proposed = stage.group(next).replica.next_slot();
    assert!(stage.group(next).replica.commit() > stage.group(next).state().slot());
    assert_eq!(stage.read(next), Err(Held));
    assert_eq!(stage.write(next, &put()), Err(Held));
    // Afterwards it knows both.
    stage.end_turn(next);
    assert_eq!(stage.read(next), Ok(()));
    stage.write(next, &put()).unwrap();
    assert_eq!(stage.answer(), Some(Kind::WriteAnswer), "the first outcome");
    assert_eq!(stage.group(next).replica.next_slot(), proposed, "nothing is executed again");
}

#[test]
fn requests_wait_for_the_successor_of_a_leader_that_hands_over() {
    let (mut stage, first) = Stage::led();
    stage.write(first, &put()).unwrap();
    // It wants to hand over: no further write is taken, and what was proposed is waited for.
    stage.act(first, |group, now, out| {
        group.await_successor(now, group.replica.promised());
        assert!(!group.hand_over(now, out));
    });
    assert_eq!((stage.write(first, &put()), stage.read(first)), (Err(Held), Ok(())));
    stage.run(|_| false);
    assert_eq!(stage.answer(), Some(Kind::WriteAnswer));
    stage.act(first, |group, now, out| assert!(group.hand_over(now, out)));
    assert_eq!((stage.write(first, &put()), stage.read(first)), (Err(Held), Err(Held)));
    // The one that it chose holds requests from the first moment on.
    let next = stage.messages.front().unwrap().1;
    let other = NodeId(if next == NodeId(2) { 3 } else { 2 });
    stage.run(|(_, to, message)| *to == next && matches!(message, Message::Accepted(_)));
    stage.grant_lease(next);
    assert_eq!((stage.write(next, &put()), stage.read(next)), (Err(Held), Err(Held)));
    // The old one has heard of it: now it names it to those who wait.
    assert_eq!(stage.group(first).replica.leader(), Some(next));
    assert_eq!(stage.read(first), Err(Refused(ErrorCode::NotLeader)));
    assert_eq!(stage.read(other), Err(Refused(ErrorCode::NotLeader)));
    stage.run(|_| false);
    assert_eq!((stage.write(next, &put()), stage.read(next)), (Ok(()), Ok(())));
}

#[test]
fn nobody_waits_for_ever_for_a_successor_that_does_not_come() {
    let (mut stage, first) = Stage::led();
    // Nobody can be given it before the patience ends: it serves on.
    stage.act(first, |group, now, _| group.await_successor(now, group.replica.promised()));
    assert_eq!(stage.write(first, &put()), Err(Held));
    stage.now = stage.now.after(HAND_OVER_PATIENCE);
    assert_eq!(stage.write(first, &put()), Ok(()));
    stage.run(|_| false);
    // It was given away, and no word of that arrives.
    stage.act(first, |group, now, out| {
        group.await_successor(now, group.replica.promised());
        assert!(group.hand_over(now, out));
    });
    stage.messages.clear();
    assert_eq!(stage.read(first), Err(Held));
    stage.now = stage.now.after(HAND_OVER_PATIENCE);
    assert_eq!(stage.read(first), Err(Refused(ErrorCode::NotLeader)));
}
