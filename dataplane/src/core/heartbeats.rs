//! Leases between cores: one frame covers every group that this core leads and the peer core is a member of.

use super::serving::Serving;
use crate::limits::HEARTBEAT_INTERVAL;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{Ballot, CoreId, NodeId, PartitionId, RequestId};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer, HeartbeatException, HeartbeatGroup};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Now};
use std::collections::{BTreeMap, VecDeque};

/// Heartbeats to one peer that may be unanswered; older ones are forgotten, and their answers mean nothing.
const UNANSWERED_MAX: usize = 16;

/// What was sent and not yet answered.
#[derive(Debug)]
pub(super) struct Heartbeats {
    next_at: Boot,
    sent: BTreeMap<(NodeId, CoreId), VecDeque<Sent>>,
}

#[derive(Debug)]
struct Sent {
    at: Boot,
    groups: Vec<(PartitionId, Ballot)>,
}

impl Heartbeats {
    pub(super) fn new(now: Boot) -> Self {
        Self { next_at: now, sent: BTreeMap::new() }
    }

    /// Sends the next heartbeats in this turn: a new leader wants its lease.
    pub(super) fn hurry(&mut self) {
        self.next_at = Boot(0);
    }

    fn take(&mut self, peer: (NodeId, CoreId), at: Boot) -> Option<Sent> {
        let sent = self.sent.get_mut(&peer)?;
        let place = sent.iter().position(|sent| sent.at == at)?;
        sent.drain(..=place).next_back()
    }
}

impl Serving {
    pub(super) fn heartbeat(&mut self, now: Boot, out: &mut Effects) {
        if now < self.heartbeats.next_at {
            return;
        }
        self.heartbeats.next_at = now.after(HEARTBEAT_INTERVAL);
        let mut frames: BTreeMap<(NodeId, CoreId), Vec<HeartbeatGroup>> = BTreeMap::new();
        for group in self.groups.values() {
            if let Some(heartbeat) = group.replica.heartbeat(now) {
                for member in group.replica.others() {
                    frames.entry((member.node, member.core)).or_default().push(heartbeat);
                }
            }
        }
        for ((node, core), groups) in frames {
            let Some(address) = self.config.address(node, core) else {
                continue;
            };
            let sent = self.heartbeats.sent.entry((node, core)).or_default();
            if sent.len() == UNANSWERED_MAX {
                sent.pop_front();
            }
            let ballots = groups.iter().map(|group| (group.partition, group.ballot)).collect();
            sent.push_back(Sent { at: now, groups: ballots });
            out.ask(Endpoint::Outgoing(address), RequestId(0), &Heartbeat { sent_at: now.0, groups });
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Now,
        from: Endpoint,
        peer: Peer,
        header: Header,
        heartbeat: &Heartbeat,
        out: &mut Effects,
    ) {
        let mut exceptions = Vec::new();
        for said in &heartbeat.groups {
            let of_group = header.to_partition(said.partition, said.epoch);
            let granted = if self.speaks_for(peer, of_group) {
                let group = self.groups.get_mut(&said.partition).expect("it speaks for a group we hold");
                let granted = group.replica.on_heartbeat(now.boot, peer.node, said, &mut self.outputs);
                self.perform(said.partition, now, out);
                granted
            } else {
                Err(Ballot::ZERO)
            };
            if let Err(promised) = granted {
                exceptions.push(HeartbeatException { partition: said.partition, promised });
            }
        }
        let answer = HeartbeatAnswer { sent_at: heartbeat.sent_at, exceptions };
        out.send(from, Header::new(Kind::HeartbeatAnswer, header.request), &answer);
    }

    pub(super) fn on_heartbeat_answer(
        &mut self,
        now: Now,
        peer: Peer,
        answer: &HeartbeatAnswer,
        out: &mut Effects,
    ) {
        let sent_at = Boot(answer.sent_at);
        let Some(sent) = self.heartbeats.take((peer.node, peer.core), sent_at) else {
            return;
        };
        for (partition, ballot) in sent.groups {
            let exception = answer.exceptions.iter().find(|exception| exception.partition == partition);
            let Some(group) = self.groups.get_mut(&partition) else {
                continue;
            };
            match exception {
                None => group.replica.on_grant(now.boot, peer.node, ballot, sent_at),
                Some(exception) => {
                    let promised = exception.promised;
                    group.replica.on_lease_refused(now.boot, peer.node, promised, &mut self.outputs);
                }
            }
            self.perform(partition, now, out);
        }
    }
}
