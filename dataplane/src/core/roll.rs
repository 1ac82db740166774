//! Rolls: what one core says of the groups that it leads to one of its peers, told once and then by number.
//!
//! The leader core keeps a [`Roll`] for each peer core: every group that it leads and the peer is a member of,
//! as it was last said, in the order in which things changed. The peer keeps a copy, a [`Copied`]. A heartbeat
//! names the version that the copy has with the changes that it brings; a copy that would have another one
//! says so, and the next heartbeat brings the whole roll. So a heartbeat costs what has changed, and a group
//! of which nothing changes costs nothing.
//!
//! * A grant belongs to a ballot: an answer grants to a group only if the group's ballot was on the roll at
//!   the version that was answered, and the answer does not except it.
//! * Whom a copy refuses stays refused until a heartbeat finds otherwise ([`Copied::settle`]).
//!
//! Which groups must be looked at, and when, is not known here: [`heartbeats`](super::heartbeats).

use crate::limits::{HEARTBEAT_CHANGES_MAX, PEER_SILENT_AFTER};
use evenkeel_wire::ids::{Ballot, Incarnation, PartitionId, Slot};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer, HeartbeatException, HeartbeatGroup};
use evenkeel_wire::turn::Boot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Heartbeats to one peer that may be unanswered; older ones are forgotten, and their answers mean nothing.
const UNANSWERED_MAX: usize = 16;

/// The roll of a peer, as its leader core keeps it.
#[derive(Debug)]
pub(super) struct Roll {
    id: u64,
    lines: BTreeMap<PartitionId, Line>,
    /// Groups by the version of their last change.
    order: BTreeMap<u64, PartitionId>,
    version: u64,
    /// The version that the peer is known to have.
    held: u64,
    sent: VecDeque<Sent>,
    grant: Option<Grant>,
    refused: BTreeSet<PartitionId>,
    /// Its silence was noticed: no group counts on it any more.
    silent: bool,
}

#[derive(Debug)]
struct Line {
    said: HeartbeatGroup,
    changed: u64,
    /// The version with which this ballot came.
    ballot_since: u64,
}

#[derive(Debug)]
struct Sent {
    at: Boot,
    version: u64,
}

/// What the last answer has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// It counts from here.
    pub(super) sent_at: Boot,
    /// When the answer came.
    pub(super) answered_at: Boot,
    version: u64,
}

/// What an answer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nobody waited for it.
    Unknown,
    /// The peer lacks what was not repeated: nothing is granted.
    Behind,
    /// The roll is granted, but for the exceptions.
    Granted,
}

impl Roll {
    /// An empty roll. `id` tells it from any other one of this core.
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            lines: BTreeMap::new(),
            order: BTreeMap::new(),
            version: 0,
            held: 0,
            sent: VecDeque::new(),
            grant: None,
            refused: BTreeSet::new(),
            silent: false,
        }
    }

    /// Says this of a group from now on.
    pub(super) fn say(&mut self, said: HeartbeatGroup) {
        let known = self.lines.get(&said.partition);
        if known.is_some_and(|line| line.said == said) {
            return;
        }
        self.version += 1;
        let mut ballot_since = self.version;
        if let Some(line) = known {
            self.order.remove(&line.changed);
            if (line.said.ballot, line.said.epoch) == (said.ballot, said.epoch) {
                ballot_since = line.ballot_since;
            }
        }
        self.order.insert(self.version, said.partition);
        self.lines.insert(said.partition, Line { said, changed: self.version, ballot_since });
    }

    /// The group is no longer led, or no longer here.
    pub(super) fn leave(&mut self, partition: PartitionId) {
        if let Some(line) = self.lines.get(&partition) {
            let said = HeartbeatGroup {
                ballot: Ballot::ZERO,
                commit: Slot::ZERO,
                holds_lease: false,
                ..line.said
            };
            self.say(said);
        }
    }

    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The groups.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.lines.keys().copied()
    }

    /// The next heartbeat.
    pub(super) fn heartbeat(&mut self, now: Boot) -> Heartbeat {
        let mut version = self.version;
        let mut changes = Vec::new();
        for (changed, partition) in self.order.range(self.held + 1..) {
            if changes.len() == HEARTBEAT_CHANGES_MAX {
                break;
            }
            version = *changed;
            changes.push(self.lines[partition].said);
        }
        if changes.len() < HEARTBEAT_CHANGES_MAX {
            version = self.version;
        }
        if self.sent.len() == UNANSWERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { at: now, version });
        Heartbeat { sent_at: now.0, roll: self.id, since: self.held, version, changes }
    }

    /// The peer has answered.
    pub(super) fn answered(&mut self, now: Boot, answer: &HeartbeatAnswer) -> Answered {
        let sent_at = Boot(answer.sent_at);
        let Some(place) = self.sent.iter().position(|sent| sent.at == sent_at) else {
            return Answered::Unknown;
        };
        let sent = self.sent.drain(..=place).next_back().expect("it was just found");
        if answer.version < sent.version {
            // Of what the peer lacks, groups that have left may no longer be named: all of it is said again.
            self.held = 0;
            return Answered::Behind;
        }
        self.held = sent.version;
        self.grant = Some(Grant { sent_at, answered_at: now, version: sent.version });
        self.silent = false;
        self.refused.clear();
        self.refused.extend(answer.exceptions.iter().map(|exception| exception.partition));
        let gone = |line: &Line| line.said.ballot == Ballot::ZERO && line.changed <= sent.version;
        let answered = self.order.range(..=sent.version);
        let gone: Vec<u64> = answered
            .filter(|(_, partition)| gone(&self.lines[*partition]))
            .map(|(changed, _)| *changed)
            .collect();
        for changed in gone {
            let partition = self.order.remove(&changed).expect("it was just found");
            self.lines.remove(&partition);
        }
        Answered::Granted
    }

    /// Forgets what the peer has granted: whoever counts on it has been told.
    pub(super) fn forget_grant(&mut self) {
        self.grant = None;
    }

    /// What the peer has granted to a group under `ballot`.
    pub(super) fn grant_of(&self, partition: PartitionId, ballot: Ballot) -> Option<Grant> {
        let grant = self.grant?;
        let line = self.lines.get(&partition)?;
        let granted = line.said.ballot == ballot && line.ballot_since <= grant.version;
        (granted && !self.refused.contains(&partition)).then_some(grant)
    }

    /// Whether the peer knows exactly this of the group, grants it, and was heard just now.
    pub(super) fn is_settled(&self, now: Boot, said: &HeartbeatGroup) -> bool {
        let known = self.lines.get(&said.partition).filter(|line| line.said == *said);
        let grant = self.grant_of(said.partition, said.ballot);
        let known = known.zip(grant).is_some_and(|(line, grant)| line.changed <= grant.version);
        known && !self.is_silent(now)
    }

    /// Whether the peer has just fallen silent.
    pub(super) fn falls_silent(&mut self, now: Boot) -> bool {
        let silent = self.is_silent(now);
        !std::mem::replace(&mut self.silent, silent) && silent
    }

    /// Whether the peer has not answered for so long that its grants must be looked at one by one.
    pub(super) fn is_silent(&self, now: Boot) -> bool {
        self.grant.is_none_or(|grant| now.since(grant.sent_at) >= PEER_SILENT_AFTER)
    }
}

/// A peer's roll, as the one who grants keeps it.
#[derive(Debug)]
pub(super) struct Copied {
    id: u64,
    incarnation: Incarnation,
    version: u64,
    lines: BTreeMap<PartitionId, HeartbeatGroup>,
    /// Groups to which no lease is granted, with what is promised instead.
    refused: BTreeMap<PartitionId, Ballot>,
    /// When the peer last said all this.
    heard_at: Boot,
    /// Its silence was noticed: no group counts on it any more.
    silent: bool,
}

impl Copied {
    /// Of a peer that has not said anything yet.
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self {
            id: 0,
            incarnation,
            version: 0,
            lines: BTreeMap::new(),
            refused: BTreeMap::new(),
            heard_at: Boot(0),
            silent: false,
        }
    }

    /// The groups of which a heartbeat says something new. Look at each of them before and after.
    pub(super) fn news<'a>(
        &'a self,
        heartbeat: &'a Heartbeat,
    ) -> impl Iterator<Item = PartitionId> + use<'a> {
        let whole = heartbeat.since == 0;
        let old = self.lines.keys().copied().filter(move |_| whole);
        old.chain(heartbeat.changes.iter().map(|said| said.partition))
    }

    /// Whether the changes that a heartbeat brings can be used; else the answer is that nothing is held.
    pub(super) fn fits(&self, incarnation: Incarnation, heartbeat: &Heartbeat) -> bool {
        let same = (self.id, self.incarnation) == (heartbeat.roll, incarnation);
        heartbeat.since == 0
            || (same && heartbeat.since <= self.version && self.version <= heartbeat.version)
    }

    /// Takes what a heartbeat that [`fits`](Self::fits) says.
    pub(super) fn take(&mut self, now: Boot, incarnation: Incarnation, heartbeat: &Heartbeat) {
        if heartbeat.since == 0 {
            self.lines.clear();
            self.refused.clear();
        }
        (self.id, self.incarnation) = (heartbeat.roll, incarnation);
        self.version = heartbeat.version;
        self.heard_at = now;
        self.silent = false;
        for said in &heartbeat.changes {
            if said.ballot == Ballot::ZERO {
                self.lines.remove(&said.partition);
                self.refused.remove(&said.partition);
            } else {
                self.lines.insert(said.partition, *said);
            }
        }
    }

    /// What the peer says of a group.
    pub(super) fn line(&self, partition: PartitionId) -> Option<&HeartbeatGroup> {
        self.lines.get(&partition)
    }

    /// The groups.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.lines.keys().copied()
    }

    /// Whether a lease is granted to a group of the roll from now on, or what is promised instead.
    pub(super) fn settle(&mut self, partition: PartitionId, granted: Result<(), Ballot>) {
        match granted {
            Err(promised) if self.lines.contains_key(&partition) => {
                self.refused.insert(partition, promised);
            }
            Ok(()) | Err(_) => {
                self.refused.remove(&partition);
            }
        }
    }

    /// What was last said of a group to which a lease is granted under `ballot`, and when.
    pub(super) fn granted(
        &self,
        partition: PartitionId,
        ballot: Ballot,
    ) -> Option<(Boot, &HeartbeatGroup)> {
        let said = self.lines.get(&partition).filter(|said| said.ballot == ballot)?;
        (!self.refused.contains_key(&partition)).then_some((self.heard_at, said))
    }

    /// The answer to a heartbeat whose changes were taken.
    pub(super) fn answer(&self, heartbeat: &Heartbeat) -> HeartbeatAnswer {
        let exceptions = self.refused.iter();
        let exceptions =
            exceptions.map(|(partition, promised)| HeartbeatException { partition: *partition, promised: *promised });
        let exceptions = exceptions.collect();
        HeartbeatAnswer { sent_at: heartbeat.sent_at, version: self.version, exceptions }
    }

    /// Whether the peer has just fallen silent.
    pub(super) fn falls_silent(&mut self, now: Boot) -> bool {
        let silent = self.is_silent(now);
        !std::mem::replace(&mut self.silent, silent) && silent
    }

    /// Whether the peer has been silent for so long that its groups must be looked at one by one.
    pub(super) fn is_silent(&self, now: Boot) -> bool {
        now.since(self.heard_at) >= PEER_SILENT_AFTER
    }
}
