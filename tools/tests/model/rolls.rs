//! A member's core and its rolls: what it does beside the heartbeats, as `core/heartbeats.rs` does it for all
//! groups of a core.

use super::member::{Core, Member, PARTITION, incarnation, node, place};
use super::network::{Letter, Said};
use super::turn::Turn;
use evenkeel_dataplane::core::heartbeats::Heartbeats;
use evenkeel_dataplane::group::Group;
use evenkeel_wire::ids::{Ballot, CoreId, NodeId, PartitionId};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer};
use std::collections::BTreeMap;

/// The core of a node.
fn core_of(node: NodeId) -> (NodeId, CoreId) {
    (node, CoreId(0))
}

/// Lets a core's rolls look at its groups, of which it has one.
fn with_groups<T>(
    member: &mut Member,
    look: impl FnOnce(&mut Heartbeats, &mut BTreeMap<PartitionId, Group>) -> T,
) -> T {
    let core = member.core.as_mut().expect("only a core with rolls is sent any");
    let mut groups = BTreeMap::from([(PARTITION, member.group.clone())]);
    let result = look(&mut core.heartbeats, &mut groups);
    member.group = groups.remove(&PARTITION).expect("nobody removes it");
    result
}

impl Turn {
    /// Whoever uses the group wakes it first.
    pub(super) fn wake(&mut self) {
        if let Some(Core { heartbeats, .. }) = &mut self.member.core {
            heartbeats.wake(&mut self.member.group);
        }
    }

    /// A tick passes a group at rest by, and lays one to rest for which there is nothing to do.
    pub(super) fn tick(&mut self) {
        if self.member.core.is_some() {
            let now = self.now;
            with_groups(&mut self.member, |heartbeats, groups| heartbeats.wake_unheard(now, groups));
        }
        if self.member.is_at_rest() {
            return;
        }
        self.run(|group, now, _, outputs| group.replica.tick(now, outputs));
        if let Some(Core { heartbeats, .. }) = &mut self.member.core {
            heartbeats.lay_to_rest(&mut self.member.group, self.now);
        }
    }

    pub(super) fn renew_by_rolls(&mut self) -> bool {
        let (now, from) = (self.now, node(self.member.place));
        let told = with_groups(&mut self.member, |heartbeats, groups| {
            if heartbeats.is_due(now) { heartbeats.next(now, groups) } else { Vec::new() }
        });
        let said = |((to, _), heartbeat)| Letter::new(from, to, Said::Roll(heartbeat));
        self.sent.extend(told.into_iter().map(said));
        !self.sent.is_empty()
    }

    pub(super) fn receive_roll(&mut self, from: NodeId, heartbeat: &Heartbeat) {
        let (now, peer, folder) = (self.now, core_of(from), incarnation(place(from)));
        let taken = with_groups(&mut self.member, |heartbeats, groups| {
            heartbeats.take(now, peer, folder, heartbeat, groups)
        });
        let is_taken = taken.is_some();
        for said in taken.into_iter().flatten() {
            let granted = if said.partition == PARTITION {
                self.run(|group, now, _, outputs| group.replica.on_heartbeat(now, from, &said, outputs))
            } else {
                Err(Ballot::ZERO)
            };
            self.heartbeats().settle(peer, said.partition, granted);
        }
        let answer = self.heartbeats().answer(peer, heartbeat, is_taken);
        self.sent.push(Letter::new(node(self.member.place), from, Said::RollAnswer(answer)));
    }

    pub(super) fn receive_roll_answer(&mut self, from: NodeId, answer: &HeartbeatAnswer) {
        let (now, peer) = (self.now, core_of(from));
        let awake = with_groups(&mut self.member, |heartbeats, groups| {
            heartbeats.answered(now, peer, answer, groups)
        });
        let Some(awake) = awake else {
            return;
        };
        for _ in awake {
            let core = self.member.core.as_ref().expect("it has rolls");
            if let Some(sent_at) = core.heartbeats.granted_at(peer, &self.member.group) {
                self.run(|group, now, _, _| {
                    group.replica.on_grant(now, from, group.replica.promised(), sent_at);
                });
            }
        }
        for exception in answer.exceptions.iter().filter(|exception| exception.partition == PARTITION) {
            self.run(|group, now, _, outputs| {
                group.replica.on_lease_refused(now, from, exception.promised, outputs);
            });
        }
    }

    fn heartbeats(&mut self) -> &mut Heartbeats {
        &mut self.member.core.as_mut().expect("it has rolls").heartbeats
    }
}
