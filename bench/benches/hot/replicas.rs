//! Three replicas of a group, whose logs and links do at once what they are asked to.

use bytes::Bytes;
use evenkeel_dataplane::paxos::log::GroupLog;
use evenkeel_dataplane::paxos::{Message, Output, Replica, Seed};
use evenkeel_wire::entry::{Effect, EntryKind, Write, WrittenItem};
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, NodeId, PartitionId, Slot, TableId};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::message::request::{ReturnItem, Token};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::Boot;
use std::collections::VecDeque;

const NOW: Boot = Boot(1_000_000_000);

/// A write of an item of 1 KiB, as an entry carries it.
pub(crate) fn write() -> Vec<u8> {
    let write = Write {
        token: Token { client: [1; 16], sequence: 1, issued_ms: 1, acknowledged_below: 1 },
        request_hash: 1,
        key: Bytes::from_static(b"key"),
        return_item: ReturnItem::None,
        effect: Effect::Put(WrittenItem { checksum: 1, archive: Bytes::from(vec![7; 1024]) }),
        old: None,
    };
    let mut payload = Vec::new();
    write.encode(&mut payload);
    payload
}

/// The replicas, the first of which leads.
#[derive(Clone)]
pub(crate) struct Stage {
    replicas: Vec<Replica>,
    messages: VecDeque<(NodeId, NodeId, Message)>,
}

impl Stage {
    /// A group whose leader has committed its first entry.
    pub(crate) fn led() -> Self {
        let member = |number: u32| Member {
            node: NodeId(number),
            core: CoreId(0),
            incarnation: Incarnation([number as u8; 16]),
        };
        let config = GroupConfig::whole(PartitionId(1), TableId(1), (1..=3).map(member).collect());
        let replica = |node: u32| {
            let seed = Seed {
                config: config.clone(),
                promised: Ballot::ZERO,
                log: GroupLog::new(LogPoint::default(), Ballot::ZERO),
                commit: Slot::ZERO,
                timestamp: 0,
                refilling: false,
                stores: true,
            };
            Replica::new(seed, NodeId(node), NOW, Prng::new(node.into()))
        };
        let mut stage = Self { replicas: (1..=3).map(replica).collect(), messages: VecDeque::new() };
        stage.act(NodeId(1), |replica, outputs| replica.tick(NOW, outputs));
        stage.run();
        assert!(stage.replicas[0].is_leader() && stage.replicas[0].commit() > Slot::ZERO);
        stage
    }

    /// Proposes entries in one turn, and goes on until the leader knows that they are committed.
    pub(crate) fn commit(&mut self, entries: u64, payload: &[u8]) {
        let last = Slot(self.replicas[0].commit().0 + entries);
        self.act(NodeId(1), |replica, outputs| {
            for _ in 0..entries {
                let timestamp = replica.next_timestamp(1);
                let encode = |out: &mut Vec<u8>| out.extend_from_slice(payload);
                replica.propose(EntryKind::Write, timestamp, payload.len(), encode, outputs);
            }
        });
        self.run();
        assert_eq!(self.replicas[0].commit(), last, "a majority has them");
    }

    /// One replica acts. Its records are durable at once.
    fn act(&mut self, node: NodeId, act: impl FnOnce(&mut Replica, &mut Vec<Output>)) {
        let replica = &mut self.replicas[node.0 as usize - 1];
        let mut outputs = Vec::new();
        act(replica, &mut outputs);
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    Output::Persist(_) => replica.persisted(NOW, &mut outputs),
                    Output::Send { to, message } => self.messages.push_back((node, to, message)),
                    Output::NeedsSnapshot { .. } | Output::MembersChanged | Output::LostLeadership => {}
                }
            }
        }
    }

    /// Goes on, turn by turn, until nobody says anything.
    fn run(&mut self) {
        for _ in 0..100 {
            for node in (1..=3).map(NodeId) {
                self.act(node, |replica, outputs| replica.end_turn(NOW, outputs));
            }
            if self.messages.is_empty() {
                return;
            }
            for (from, to, message) in std::mem::take(&mut self.messages) {
                self.act(to, |replica, outputs| replica.receive(NOW, from, message, outputs));
            }
        }
        panic!("they do not agree: {:?}", self.messages);
    }
}
