//! Replay: from a checkpoint's images and the log's records to what each replica starts from.
//!
//! Records are taken in log order. Where the log was damaged, entries may not chain any more: the group keeps
//! what chains and comes back as a replica that may not vote. Without damage, a contradiction is an error: it
//! would be a bug, and guessing would hide it.

use super::record::{GroupState, Record, RecordBody};
use crate::btree::version::Version;
use crate::checkpoint::sink::Image;
use crate::partition::state::{Applied, State};
use crate::paxos::Seed;
use crate::paxos::log::{Fit, GroupLog};
use crate::planted::{self, Planted};
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
    ///
    /// # Errors
    /// When entries of one do not chain.
    pub fn new(images: Vec<Image>) -> Result<Self, ReplayError> {
        let mut replay = Self::default();
        for Image { group: record, state, open } in images {
            if let RecordBody::State(base) = record.body {
                let log = GroupLog::new(state.applied, state.applied_ballot);
                let state = State { log_only: !base.stores, ..state };
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
            for record in open {
                replay.take(record, false)?;
            }
        }
        Ok(replay)
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
            if let RecordBody::State(state) = &record.body
                && let Some(child) = self.born(state, record.promised)
            {
                self.groups.insert(partition, child);
                return Ok(());
            }
            return match record.body {
                RecordBody::State(state) if state.base.slot == Slot::ZERO || !state.stores || excused => {
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
        if !planted::active(Planted::ForgetPromise) {
            group.promised = group.promised.max(record.promised);
        }
        // Behind damage this log may hold an entry that was superseded by one that was lost: what is
        // committed there, the peers say.
        if !excused {
            group.commit = group.commit.max(record.commit);
        }
        match record.body {
            RecordBody::Promise => Ok(()),
            RecordBody::Removed => {
                self.groups.remove(&partition);
                Ok(())
            }
            RecordBody::State(state) => {
                group.refilling = state.refilling;
                if !state.stores && group.log.point(state.base.slot) != Some(state.base) {
                    // A log replica began anew: what it lacks, others have.
                    if state.base.slot > group.log.base().slot {
                        *group = Group::created(*state, group.promised);
                    }
                    return Ok(());
                }
                let installs = group.log.point(state.base.slot) != Some(state.base)
                    && state.base.slot > group.log.base().slot;
                group.installing |= installs;
                // Who the members are where that snapshot stands goes with it. The log that is here knows who
                // was one along its way, and a split on that way asks it.
                if !installs || excused {
                    group.config = state.config;
                }
                Ok(())
            }
            RecordBody::Supersede(slot) => {
                if slot > group.log.base().slot && !planted::active(Planted::KeepSuperseded) {
                    group.log.truncate_from(slot);
                }
                Ok(())
            }
            RecordBody::Entry(entry) => group.take_entry(entry, excused),
        }
    }

    /// The first record of a group that a split made: the split was applied, so it was committed. It is
    /// applied again, for the group's state.
    fn born(&mut self, of: &GroupState, promised: Ballot) -> Option<Group> {
        let origin = of.config.origin.filter(|origin| origin.slot == of.base.slot)?;
        let parent = self.groups.get_mut(&origin.parent)?;
        if parent.log.point(origin.slot) != Some(of.base) {
            return None;
        }
        let mut state = None;
        while parent.state.slot() < origin.slot {
            let entry = parent.log.get(parent.state.slot().next())?;
            if let Applied::Split { split, at, child } = parent.state.apply(entry) {
                parent.config.divide(&split, at);
                state = (at == of.base).then_some(*child);
            }
        }
        parent.commit = parent.commit.max(origin.slot);
        Some(Group {
            config: of.config.clone(),
            promised,
            state: state?,
            log: GroupLog::new(of.base, of.base_ballot),
            commit: of.base.slot,
            refilling: of.refilling,
            installing: false,
        })
    }

    /// What the groups start from. `damaged`: part of the log is missing, so none of them may vote.
    #[must_use]
    pub fn finish(self, damaged: bool) -> Vec<(Seed, State)> {
        let may_not_vote = (damaged || self.lost) && !planted::active(Planted::VoteWithDamage);
        self.groups.into_values().map(|group| group.finish(may_not_vote)).collect()
    }
}

impl Group {
    /// A group without a state: new, or its state is lost.
    fn created(state: GroupState, promised: Ballot) -> Self {
        let partition = state.config.partition;
        let GroupState { config, base, base_ballot, base_timestamp, refilling, stores } = state;
        if !stores {
            return Self {
                config,
                promised,
                state: State::of_log(partition, base, base_ballot, base_timestamp),
                log: GroupLog::new(base, base_ballot),
                commit: base.slot,
                refilling,
                installing: false,
            };
        }
        let lost = base.slot > Slot::ZERO;
        Self {
            config,
            promised,
            state: State::of(partition, Version::default()),
            log: GroupLog::new(LogPoint::default(), Ballot::ZERO),
            commit: Slot::ZERO,
            refilling: refilling || lost,
            installing: lost,
        }
    }

    fn take_entry(&mut self, entry: Entry, excused: bool) -> Result<(), ReplayError> {
        match self.log.fit(&entry) {
            Fit::Next => self.log.append(entry),
            Fit::Present => {}
            Fit::Conflict | Fit::Unchained if excused => {}
            // It may have been acknowledged: the replica is refilled before it votes again.
            Fit::Conflict | Fit::Unchained if self.installing => self.refilling = true,
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
            stores: !self.state.log_only,
        };
        (seed, self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::entry::{EntryHeader, EntryKind};
    use evenkeel_wire::ids::{Epoch, NodeId, TableId};

    const PARTITION: PartitionId = PartitionId(1);

    fn config() -> GroupConfig {
        GroupConfig::whole(PARTITION, TableId(1), Vec::new())
    }

    fn entry(log: &GroupLog, round: u64, payload: u8) -> Entry {
        let header = EntryHeader {
            partition: PARTITION,
            slot: log.last().slot.next(),
            ballot: Ballot { round, node: NodeId(1) },
            previous: log.last().hash,
            timestamp: 0,
            kind: EntryKind::Noop,
            payload_bytes: 0,
        };
        Entry::build(header, 1, |out| out.push(payload))
    }

    fn record(commit: u64, body: RecordBody) -> Record {
        let promised = Ballot { round: 9, node: NodeId(1) };
        Record { partition: PARTITION, promised, commit: Slot(commit), body }
    }

    fn state(base: LogPoint) -> RecordBody {
        let base_ballot = Ballot { round: u64::from(base.slot > Slot::ZERO), node: NodeId(1) };
        let state = GroupState {
            config: config(),
            base,
            base_ballot,
            base_timestamp: 0,
            refilling: false,
            stores: true,
        };
        RecordBody::State(Box::new(state))
    }

    #[test]
    fn behind_damage_a_superseded_entry_does_not_become_committed() {
        let mut log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        let first = entry(&log, 1, b'a');
        log.append(first.clone());
        let superseded = entry(&log, 1, b'X');
        log.append(entry(&log, 2, b'Y'));
        let third = entry(&log, 2, b'Z');
        let mut replay = Replay::default();
        replay.take(record(0, state(LogPoint::default())), false).unwrap();
        replay.take(record(0, RecordBody::Entry(first)), false).unwrap();
        replay.take(record(1, RecordBody::Entry(superseded.clone())), false).unwrap();
        // Lost: that slot 2 was superseded, and by what.
        replay.take(record(2, RecordBody::Entry(third)), true).unwrap();
        let (seed, _) = replay.finish(true).pop().unwrap();
        assert_eq!(seed.log.last().hash, superseded.hash, "it is still in the log");
        assert_eq!((seed.commit, seed.refilling), (Slot(1), true));
    }

    #[test]
    fn a_snapshot_that_was_not_installed_does_not_say_who_the_members_are() {
        let mut log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        for payload in 1..=9 {
            log.append(entry(&log, 1, payload));
        }
        // The log begins at 5, when the members were the first ones; a checkpoint recorded where it was going
        // to put the group, with the members of then, and is not there.
        let told = |at: u64, damaged| {
            let state_at = |slot, epoch| {
                let RecordBody::State(state) = state(log.point(Slot(slot)).unwrap()) else { unreachable!() };
                let config = GroupConfig { epoch: Epoch(epoch), ..state.config };
                record(5, RecordBody::State(Box::new(GroupState { config, ..*state })))
            };
            let state = State { applied: log.point(Slot(5)).unwrap(), ..State::default() };
            let image = Image { group: state_at(5, 1), state, open: Vec::new() };
            let mut replay = Replay::new(vec![image]).unwrap();
            replay.take(state_at(at, 3), damaged).unwrap();
            let (seed, _) = replay.finish(damaged).pop().unwrap();
            (seed.config.epoch, seed.log.last().slot)
        };
        assert_eq!(told(8, false), (Epoch(1), Slot(5)), "its entries will say who became a member");
        assert_eq!(told(5, false), (Epoch(3), Slot(5)));
        assert_eq!(told(8, true), (Epoch(3), Slot(5)), "what the log says is not all that it said");
    }

    #[test]
    fn a_replica_that_lacks_what_followed_an_installed_snapshot_does_not_vote() {
        let mut log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        let entries: Vec<Entry> = (1..=120)
            .map(|payload| {
                let entry = entry(&log, 1, payload);
                log.append(entry.clone());
                entry
            })
            .collect();
        let point = |slot| log.point(Slot(slot)).unwrap();
        let image = State { applied: point(50), ..State::default() };
        let image = Image { group: record(50, state(point(50))), state: image, open: Vec::new() };
        let mut replay = Replay::new(vec![image]).unwrap();
        // A snapshot at 100 was installed by a checkpoint of which nothing is left, and entries behind it
        // were accepted.
        replay.take(record(50, state(point(100))), false).unwrap();
        for entry in &entries[100..] {
            replay.take(record(100, RecordBody::Entry(entry.clone())), false).unwrap();
        }
        let (seed, _) = replay.finish(false).pop().unwrap();
        assert_eq!(seed.log.last().slot, Slot(50));
        assert!(seed.refilling);
    }
}
