//! Partitions that are split: the order to do so, and taking the child in (docs/decisions/0014-split.md).
//!
//! * The order comes from the catalogue. The group's leader proposes the split; whoever has applied it can
//!   say so.
//! * Each member takes the child in when it applies the split. The record of that is the first of the child
//!   in the log: whatever it promises comes behind it.
//! * The trees of both share everything until the next checkpoint. One that runs already merges for both.

use super::serving::Serving;
use crate::btree::lookup;
use crate::btree::pointer::PagePointer;
use crate::group::Born;
use crate::paxos::Seed;
use crate::paxos::log::GroupLog;
use bytes::Bytes;
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
        self.wake(header.partition);
        let SplitPartition { child, border } = order;
        let Some(group) = self.groups.get_mut(&header.partition) else {
            return;
        };
        let (config, serves) = (group.replica.config(), group.is_ready(now.boot));
        let done = config.last_split.as_ref().is_some_and(|last| last.child == child);
        let mut answer =
            SplitPartitionAnswer { child, parent: None, border: Vec::new(), refused: String::new() };
        if done {
            answer.parent = Some(config.clone());
        } else if border.is_empty() && serves {
            match self.middle_of(header.partition) {
                Ok(Some(border)) => answer.border = border,
                Ok(None) => {
                    let message = "what is in it is too little to find a middle; name a key";
                    message.clone_into(&mut answer.refused);
                }
                // The question is repeated.
                Err(pages) => return self.store.read_ahead(&pages),
            }
        } else if !border.is_empty() && !self.groups.contains_key(&child) {
            let mut outputs = std::mem::take(&mut self.outputs);
            if let Some(group) = self.groups.get_mut(&header.partition) {
                // Whoever cannot do it says nothing: the order is repeated until it is done.
                let _ = group.split(now, child, Bytes::from(border), &mut outputs);
            }
            self.outputs = outputs;
            return self.perform(header.partition, now, out);
        } else {
            return;
        }
        let kind = Kind::SplitPartitionAnswer;
        out.send(
            from,
            Header::new(kind, header.request).to_partition(header.partition, header.epoch),
            &answer,
        );
    }

    /// A key in the middle of a partition's tree; or the pages to be read before that can be said. There are
    /// none to read while a checkpoint must first make a tree of what is in memory.
    fn middle_of(&mut self, partition: PartitionId) -> Result<Option<Vec<u8>>, Vec<PagePointer>> {
        let Some(group) = self.groups.get(&partition) else {
            return Ok(None);
        };
        let (tree, config) = (&group.state().tree, group.replica.config());
        if tree.keep().is_some() || tree.unwritten_bytes() > tree.version().bytes {
            self.checkpoint_wanted = true;
            return Err(Vec::new());
        }
        let middle = lookup::middle(tree.version(), &self.store.pages()).map_err(|miss| miss.pages)?;
        Ok(middle.filter(|middle| config.can_divide_at(middle)))
    }

    /// Takes in the groups that `parent` was split into, unless recovery has found them.
    pub(super) fn take_in_born(&mut self, parent: PartitionId, now: Now, out: &mut Effects) {
        let Some(group) = self.groups.get_mut(&parent) else {
            return;
        };
        let serves_from = group.replica.serves_from();
        for Born { config, state, forgetful } in group.take_born() {
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
                stores: !state.log_only,
                config,
                promised: Ballot::ZERO,
                log: GroupLog::new(state.applied, state.applied_ballot),
                commit: state.slot(),
                timestamp: state.timestamp,
                // Without the items, it learns late how far it may apply what it was refilled with.
                refilling: self.lost_memory.is_some() || self.memory_was_lost && state.log_only || forgetful,
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
