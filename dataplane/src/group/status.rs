//! What a group says of itself: to people, and to those who tell states apart.

use super::Group;
use evenkeel_wire::message::status::{GroupStatus, Role};
use evenkeel_wire::turn::Boot;
use std::hash::{Hash, Hasher};

impl Group {
    /// Feeds `hasher` with what decides what this group does from now on (see `Replica::digest`). The
    /// applied state is named by the chain of entries that led to it.
    ///
    /// # Panics
    /// When a snapshot is staged: it is not named by this group's own log.
    pub fn digest(&self, now: Boot, hasher: &mut impl Hasher) {
        let Self {
            replica,
            staged,
            state,
            pending,
            given_up: _,
            resting_since,
            splitting,
            tree_given_up,
            arriving,
            born,
            successor_of,
            lease_wanted: _,
            milestones: _,
            last_settled: _,
        } = self;
        assert!(staged.is_none() && born.is_empty(), "a staged snapshot and a child have no digest");
        (splitting, tree_given_up, arriving).hash(hasher);
        successor_of.map(|(ballot, until)| (ballot, until.since(now))).hash(hasher);
        resting_since.map(|at| now.since(at)).hash(hasher);
        replica.digest(now, hasher);
        (state.applied.slot, state.applied.hash).hash(hasher);
        pending.digest(hasher);
    }

    /// What this replica says of itself.
    #[must_use]
    pub fn status(&self, now: Boot) -> GroupStatus {
        let replica = &self.replica;
        let role = if replica.is_leader() {
            Role::Leader
        } else if replica.is_candidate() {
            Role::Candidate
        } else {
            Role::Follower
        };
        GroupStatus {
            partition: replica.partition(),
            table: replica.config().table,
            epoch: replica.epoch(),
            members: replica.config().members.iter().map(|member| member.node).collect(),
            log_replicas: replica.config().log_replicas.clone(),
            role,
            ready: self.is_ready(now),
            leader: replica.leader(),
            ballot: replica.promised(),
            last: replica.log().last().slot,
            durable: replica.durable(),
            commit: replica.commit(),
            refilling: replica.is_refilling(),
            stores: replica.stores(),
            items: self.state.tree.items(),
            bytes: self.state.tree.bytes(),
            followers: replica.followers(now),
        }
    }
}
