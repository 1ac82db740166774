//! Partitions that are split: the order to do so, and taking the child in (docs/decisions/0013-split.md).
//!
//! * The order comes from the catalogue. The group's leader proposes the split; whoever has applied it can
//!   say so.
//! * Each member takes the child in when it applies the split. The record of that is the first of the child
//!   in the log: whatever it promises comes behind it.
//! * The trees of both share everything until the next checkpoint. One that runs already merges for both.

use super::serving::Serving;
use crate::group::Born;
use crate::paxos::Seed;
use crate::paxos::log::GroupLog;
use bytes::Bytes;
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{Ballot, PartitionId};
use evenkeel_wire::message::catalog::{SplitPartition, SplitPartitionAnswer};
use evenkeel_wire::turn::{Effects, Endpoint, Now};

impl Serving {
    /// The catalogue wants a group to be split.
    pub(super) fn on_split_partition(
        &mut self,
        now: Now,
        from: Endpoint,
        header: Header,
        order: SplitPartition,
        out: &mut Effects,
    ) {
        let SplitPartition { child, border } = order;
        let Some(group) = self.groups.get_mut(&header.partition) else {
            return;
        };
        let config = group.replica.config();
        let answer = |parent, refused| SplitPartitionAnswer { child, parent, refused };
        let answer = if config.last_split.as_ref().is_some_and(|last| last.child == child) {
            answer(Some(config.clone()), String::new())
        } else {
            let mut outputs = std::mem::take(&mut self.outputs);
            let outcome = group.split(now, child, Bytes::from(border), &mut outputs);
            self.outputs = outputs;
            self.perform(header.partition, now, out);
            match outcome {
                Err(problem) if problem.code == ErrorCode::Validation => answer(None, problem.message),
                // The order is repeated until it is done, by whoever leads then.
                Ok(()) | Err(_) => return,
            }
        };
        let kind = Kind::SplitPartitionAnswer;
        out.send(
            from,
            Header::new(kind, header.request).to_partition(header.partition, header.epoch),
            &answer,
        );
    }

    /// Takes in the groups that `parent` was split into, unless recovery has found them.
    pub(super) fn take_in_born(&mut self, parent: PartitionId, now: Now, out: &mut Effects) {
        let Some(group) = self.groups.get_mut(&parent) else {
            return;
        };
        let serves_from = group.replica.serves_from();
        for Born { config, state } in group.take_born() {
            let child = config.partition;
            // What waits for a page of both is looked at again: it may be the child's.
            self.forget_repair(parent);
            self.store.redirects.divide(parent, &config.start, child);
            if self.groups.contains_key(&child) {
                continue;
            }
            if state.tree.frozen().is_some() {
                let merged_as = self.merged_as.get(&parent).copied().unwrap_or(parent);
                self.merged_as.insert(child, merged_as);
            }
            let seed = Seed {
                config,
                promised: Ballot::ZERO,
                log: GroupLog::new(state.applied, state.applied_ballot),
                commit: state.slot(),
                timestamp: state.timestamp,
                refilling: self.lost_memory.is_some(),
            };
            self.take_in(seed, state, now.boot);
            if let Some(group) = self.groups.get_mut(&child) {
                group.replica.succeed(now.boot, serves_from);
                group.replica.tick(now.boot, &mut self.outputs);
                self.perform(child, now, out);
            }
        }
    }
}
