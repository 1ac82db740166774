//! Replay: from a checkpoint's images and the log's records to what each replica starts from.
//!
//! Records are taken in log order. Where the log was damaged, entries may not chain any more: the group keeps
//! what chains and comes back as a replica that may not vote. Without damage, a contradiction is an error: it
//! would be a bug, and guessing would hide it.

use super::record::{GroupState, Record, RecordBody};
use crate::partition::state::State;
use crate::paxos::Seed;
use crate::paxos::log::{Fit, GroupLog};
use evenkeel_wire::entry::Entry;
use evenkeel_wire::ids::{Ballot, PartitionId, Slot};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::table::GroupConfig;
use std::collections::BTreeMap;
use thiserror::Error;

/// Why records contradict each other although none is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// An entry does not chain to the one before it.
    #[error(
        "the log of {partition} does not chain at {slot}, and no block is damaged: this is a bug, please \
         report it"
    )]
    Chain {
        /// The group.
        partition: PartitionId,
        /// The entry.
        slot: Slot,
    },
    /// A record of a group that was never created.
    #[error("the log speaks of {partition}, which it never created: this is a bug, please report it")]
    Orphan {
        /// The group.
        partition: PartitionId,
    },
}

/// What is known of a group so far.
#[derive(Debug)]
struct Group {
    config: GroupConfig,
    promised: Ballot,
    state: State,
    log: GroupLog,
    commit: Slot,
    refilling: bool,
    /// A snapshot was being installed: its state is not here, and entries behind it do not chain to this log.
    /// None of them was acknowledged.
    installing: bool,
}

/// Builds groups from records.
#[derive(Debug, Default)]
pub struct Replay {
    groups: BTreeMap<PartitionId, Group>,
    /// The checkpoint was damaged: states begin empty.
    lost: bool,
}

impl Replay {
    /// Begins with a checkpoint's images.
    #[must_use]
    pub fn new(images: Vec<(Record, State)>) -> Self {
        let mut replay = Self::default();
        for (record, state) in images {
            if let RecordBody::State(base) = record.body {
                let log = GroupLog::new(state.applied, state.applied_ballot);
                let group = Group {
                    config: base.config,
                    promised: record.promised,
                    commit: state.applied.slot,
                    state,
                    log,
                    refilling: base.refilling,
                    installing: false,
                };
                replay.groups.insert(record.partition, group);
            }
        }
        replay
    }

    /// Begins without the checkpoint, which cannot be read.
    #[must_use]
    pub fn without_checkpoint() -> Self {
        Self { lost: true, ..Self::default() }
    }

    /// Takes the next record. `damaged`: the log was damaged at or before it.
    ///
    /// # Errors
    /// When it contradicts what came before, without any damage to explain it.
    pub fn take(&mut self, record: Record, damaged: bool) -> Result<(), ReplayError> {
        let excused = damaged || self.lost;
        let partition = record.partition;
        let Some(group) = self.groups.get_mut(&partition) else {
            return match record.body {
                RecordBody::State(state) if state.base.slot == Slot::ZERO || excused => {
                    self.groups.insert(partition, Group::created(*state, record.promised));
                    Ok(())
                }
                _ if excused => Ok(()),
                RecordBody::State(_)
                | RecordBody::Entry(_)
                | RecordBody::Promise
                | RecordBody::Supersede(_)
                | RecordBody::Removed => Err(ReplayError::Orphan { partition }),
            };
        };
        group.promised = group.promised.max(record.promised);
        group.commit = group.commit.max(record.commit);
        match record.body {
            RecordBody::Promise => Ok(()),
            RecordBody::Removed => {
                self.groups.remove(&partition);
                Ok(())
            }
            RecordBody::State(state) => {
                group.refilling = state.refilling;
                group.installing |= group.log.point(state.base.slot).is_none_or(|point| point != state.base)
                    && state.base.slot > group.log.base().slot;
                group.config = state.config;
                Ok(())
            }
            RecordBody::Supersede(slot) => {
                if slot > group.log.base().slot {
                    group.log.truncate_from(slot);
                }
                Ok(())
            }
            RecordBody::Entry(entry) => group.take_entry(entry, excused),
        }
    }

    /// What the groups start from. `damaged`: part of the log is missing, so none of them may vote.
    #[must_use]
    pub fn finish(self, damaged: bool) -> Vec<(Seed, State)> {
        let may_not_vote = damaged || self.lost;
        self.groups.into_values().map(|group| group.finish(may_not_vote)).collect()
    }
}

impl Group {
    /// A group without a state: new, or its state is lost.
    fn created(state: GroupState, promised: Ballot) -> Self {
        let lost = state.base.slot > Slot::ZERO;
        Self {
            config: state.config,
            promised,
            state: State::default(),
            log: GroupLog::new(LogPoint::default(), Ballot::ZERO),
            commit: Slot::ZERO,
            refilling: state.refilling || lost,
            installing: lost,
        }
    }

    fn take_entry(&mut self, entry: Entry, excused: bool) -> Result<(), ReplayError> {
        match self.log.fit(&entry) {
            Fit::Next => self.log.append(entry),
            Fit::Present => {}
            Fit::Conflict | Fit::Unchained if self.installing || excused => {}
            Fit::Conflict | Fit::Unchained => {
                return Err(ReplayError::Chain {
                    partition: entry.header.partition,
                    slot: entry.header.slot,
                });
            }
        }
        Ok(())
    }

    fn finish(self, may_not_vote: bool) -> (Seed, State) {
        let last = self.log.after(self.log.base().slot).last();
        let timestamp = last.map_or(self.state.timestamp, |entry| entry.header.timestamp);
        let seed = Seed {
            config: self.config,
            promised: self.promised,
            commit: self.commit.min(self.log.last().slot),
            log: self.log,
            timestamp,
            refilling: self.refilling || may_not_vote,
        };
        (seed, self.state)
    }
}
