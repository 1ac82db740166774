//! A snapshot on its way to being a group's state: it waits for a checkpoint that holds it, and takes the
//! present state's place when that is durable.

use super::Group;
use crate::btree::delta::Delta;
use crate::btree::space::LoosePages;
use crate::btree::version::Version;
use crate::partition::state::State;
use crate::planted::{self, Planted};
use evenkeel_wire::ids::Slot;
use evenkeel_wire::table::{GroupConfig, LastSplit};

/// A state that was received as a snapshot and waits to become durable.
#[derive(Clone, Debug)]
pub struct Staged {
    /// The group, with the range that it has in the state.
    pub config: GroupConfig,
    /// The state.
    pub state: State,
    /// Pages of its tree, which are of no version until a checkpoint has taken them over.
    pub pages: LoosePages,
    /// Whether the running checkpoint holds it.
    pub in_checkpoint: bool,
}

impl Group {
    /// Whether `state` is ahead of what this replica knows to be committed, and not already covered by its
    /// log, or has the items that a log replica lacks. A log that covers it is never given up: the leader may
    /// count on what lies behind.
    pub(super) fn needs(&self, state: &State) -> bool {
        let covered = self.replica.log().point(state.slot()) == Some(state.applied);
        let newer = if covered { self.state.log_only } else { state.slot() > self.replica.commit() };
        newer || planted::active(Planted::SnapshotOverNewer)
    }

    /// Takes a received snapshot, to be installed once a checkpoint holds it. If it is not needed, the leader
    /// is told how far this replica is.
    ///
    /// One that a checkpoint is writing stays: were it replaced, and replaced again before the checkpoint is
    /// complete, none would ever be installed.
    ///
    /// A snapshot from behind a split says that the split is committed. If its entry is in this log, it may
    /// be here that a quorum has it: it is applied, so that the child has its state here, too.
    pub fn stage(&mut self, config: GroupConfig, state: State, pages: LoosePages) {
        if let Some(LastSplit { at, .. }) = &config.last_split
            && self.replica.log().point(at.slot) == Some(*at)
        {
            self.replica.confirm(*at);
        }
        let needed = self.needs(&state);
        if !needed {
            self.replica.confirm(state.applied);
        }
        if needed && !self.checkpoint_holds_snapshot() {
            let replaced = self.staged.replace(Staged { config, state, pages, in_checkpoint: false });
            self.given_up.extend(replaced.map(|staged| staged.pages));
        } else {
            self.given_up.push(pages);
        }
    }

    /// Whether the checkpoint that runs holds the staged snapshot.
    #[must_use]
    pub fn checkpoint_holds_snapshot(&self) -> bool {
        self.staged.as_ref().is_some_and(|staged| staged.in_checkpoint)
    }

    /// Whether the staged snapshot waits: it passes over a split, of which this replica has the items of both
    /// halves, and somebody may still have the log up to there.
    #[must_use]
    pub fn holds_snapshot_back(&self) -> bool {
        let split = self.staged.as_ref().and_then(|staged| staged.config.last_split.as_ref());
        let passes = split.is_some_and(|split| split.at.slot > self.state.slot());
        passes && self.replica.is_seeking() && !self.state.log_only
    }

    /// Whether the checkpoint that runs holds a snapshot in place of this replica's state. Nothing is taken
    /// and applied meanwhile. The log could catch up with the snapshot, and a split on the way would make a
    /// child of the present state: that checkpoint knows it as little as the snapshot does, and what the
    /// child consists of is gone when it is durable.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.checkpoint_holds_snapshot()
            && !self.state.log_only
            && !planted::active(Planted::CatchUpMeanwhile)
    }

    /// Whether the running checkpoint must end with the staged state taking the place of the present one. The
    /// others that share the present tree are divided by that checkpoint, and it does not come through that:
    /// nobody reads it here any more.
    #[must_use]
    pub fn gives_tree_up(&self) -> bool {
        self.tree_given_up
            || self.checkpoint_holds_snapshot()
                && self.state.tree.frozen().is_none()
                && self.state.tree.keep().is_some()
    }

    /// A shared page is repaired without what this one has in it: even if that checkpoint is cancelled, the
    /// tree is not read again.
    pub fn give_tree_up(&mut self) {
        assert!(self.staged.is_some(), "a snapshot is to replace the tree");
        self.tree_given_up = true;
    }

    /// The checkpoint that ran was cancelled.
    pub fn checkpoint_cancelled(&mut self) {
        self.state.tree.thaw();
        if let Some(staged) = &mut self.staged {
            staged.state.tree.thaw();
            staged.in_checkpoint = false;
        }
    }

    /// A checkpoint is durable, and holds the tree as `version`: installs the staged state if it is in there
    /// and still needed. Returns changes that were merged and are not needed any more.
    pub fn checkpointed(&mut self, version: Version) -> Option<Delta> {
        if !self.checkpoint_holds_snapshot() {
            return self.state.tree.adopt(version);
        }
        let Staged { config, mut state, .. } = self.staged.take().expect("it was just seen");
        let merged = state.tree.adopt(version);
        if self.needs(&state) {
            let covered = self.replica.log().point(state.slot()) == Some(state.applied);
            if covered && !planted::active(Planted::SnapshotOverNewer) {
                self.replica.confirm(state.applied);
                self.pass_to(state.slot());
                self.replica.has_items();
            } else {
                self.replica.install(config, state.applied, state.applied_ballot, state.timestamp);
            }
            self.state = state;
            self.tree_given_up = false;
            self.arriving = None;
        } else {
            self.replica.confirm(state.applied);
        }
        merged
    }

    /// A log replica applies only what is settled, and the state with its items is of a later slot. A split
    /// between the two divides the group here as everywhere.
    fn pass_to(&mut self, slot: Slot) {
        self.follow_log();
        while self.state.slot() < slot && !planted::active(Planted::PassOverSplits) {
            let entry = self.replica.log().get(self.state.slot().next()).cloned();
            self.apply(&entry.expect("the log covers the state that has come"));
        }
    }
}
