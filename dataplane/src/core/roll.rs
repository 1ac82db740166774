//! Rolls: what one core says of the groups that it leads to one of its peers, told once and then by number.
//!
//! The leader core keeps a `Roll` for each peer core: every group that it leads and the peer is a member
//! of, as it was last said, in the order in which things changed. The peer keeps a copy, a `Copied`. A
//! heartbeat names the version that the copy has with the changes that it brings; a copy that would have
//! another one says so, and the next heartbeat brings the whole roll. So a heartbeat costs what has
//! changed, and a group of which nothing changes costs nothing.
//!
//! * A grant belongs to a ballot: an answer grants to a group only if the group's ballot was on the roll at
//!   the version that was answered, and the answer does not except it.
//! * Whom a copy refuses stays refused until a heartbeat finds otherwise (`Copied::settle`).
//!
//! Which groups must be looked at, and when, is not known here: [`heartbeats`](super::heartbeats).

use crate::limits::{HEARTBEAT_CHANGES_MAX, LEASE_TERM, PEER_SILENT_AFTER, ROLL_GROUPS_MAX};
use crate::planted::{self, Planted};
use evenkeel_wire::ids::{Ballot, Incarnation, PartitionId, Slot};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer, HeartbeatException, HeartbeatGroup};
use evenkeel_wire::turn::Boot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// Heartbeats to one peer that may be unanswered; older ones are forgotten, and their answers mean nothing.
const UNANSWERED_MAX: usize = 16;

/// A leader gives up one term after its lease has run out: nothing older than this matters.
const GRANT_MATTERS_FOR: Duration = LEASE_TERM.saturating_mul(2);

/// The roll of a peer, as its leader core keeps it.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    id: u64,
    lines: BTreeMap<PartitionId, Line>,
    /// Groups by the version of their last change.
    order: BTreeMap<u64, PartitionId>,
    /// Those of them that have left: their lines are kept until the peer knows.
    left: BTreeSet<u64>,
    version: u64,
    /// The version that the peer is known to have.
    held: u64,
    sent: VecDeque<Sent>,
    grant: Option<Grant>,
    refused: BTreeSet<PartitionId>,
    /// Its silence was noticed: no group counts on it any more.
    silent: bool,
}

#[derive(Clone, Debug)]
struct Line {
    said: HeartbeatGroup,
    changed: u64,
    /// The version with which this ballot came.
    ballot_since: u64,
}

#[derive(Clone, Debug)]
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
            left: BTreeSet::new(),
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
            self.left.remove(&line.changed);
            if (line.said.ballot, line.said.epoch) == (said.ballot, said.epoch) {
                ballot_since = line.ballot_since;
            }
        }
        self.order.insert(self.version, said.partition);
        if said.ballot == Ballot::ZERO {
            self.left.insert(self.version);
        }
        self.lines.insert(said.partition, Line { said, changed: self.version, ballot_since });
    }

    /// The group is no longer led, or no longer here.
    pub(super) fn leave(&mut self, partition: PartitionId) {
        if let Some(line) = self.lines.get(&partition) {
            let said =
                HeartbeatGroup { ballot: Ballot::ZERO, commit: Slot::ZERO, holds_lease: false, ..line.said };
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
        let unknown = self.left.split_off(&(sent.version + 1));
        for changed in std::mem::replace(&mut self.left, unknown) {
            let partition = self.order.remove(&changed).expect("every change is in the order");
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

    /// Feeds `hasher` with what decides what it does from now on. To what was sent before `answered_since` no
    /// answer comes any more.
    pub(super) fn digest(&self, now: Boot, answered_since: Boot, hasher: &mut impl Hasher) {
        let Self { id, lines, order: _, left, version, held, sent, grant, refused, silent } = self;
        (id, left, version, held, refused, silent).hash(hasher);
        for Line { said, changed, ballot_since } in lines.values() {
            digest_said(said, hasher);
            (changed, ballot_since).hash(hasher);
        }
        for Sent { at, version } in sent.iter().filter(|sent| sent.at >= answered_since) {
            (now.since(*at), version).hash(hasher);
        }
        if let Some(Grant { sent_at, answered_at, version }) = grant {
            let age = |at| now.since(at).min(GRANT_MATTERS_FOR);
            (age(*sent_at), age(*answered_at), version).hash(hasher);
        }
    }

    /// Whether the peer has not answered for so long that its grants must be looked at one by one.
    pub(super) fn is_silent(&self, now: Boot) -> bool {
        self.grant.is_none_or(|grant| now.since(grant.sent_at) >= PEER_SILENT_AFTER)
    }
}

/// A peer's roll, as the one who grants keeps it.
#[derive(Clone, Debug)]
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
        let old = (heartbeat.since == 0).then(|| self.lines.keys().copied());
        old.into_iter().flatten().chain(heartbeat.changes.iter().map(|said| said.partition))
    }

    /// Whether the changes that a heartbeat brings can be used; else the answer is that nothing is held.
    pub(super) fn fits(&self, incarnation: Incarnation, heartbeat: &Heartbeat) -> bool {
        let same = (self.id, self.incarnation) == (heartbeat.roll, incarnation);
        let whole = heartbeat.since == 0;
        let groups = heartbeat.changes.len() + if whole { 0 } else { self.lines.len() };
        let follows = same && heartbeat.since <= self.version && self.version <= heartbeat.version;
        groups <= ROLL_GROUPS_MAX && (whole || follows)
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
            Err(_) if planted::active(Planted::RollIgnoresBallot) => {}
            Err(promised) if self.lines.contains_key(&partition) => {
                self.refused.insert(partition, promised);
            }
            Ok(()) | Err(_) => {
                self.refused.remove(&partition);
            }
        }
    }

    /// What was last said of a group to which a lease is granted under `ballot`, and when.
    pub(super) fn granted(&self, partition: PartitionId, ballot: Ballot) -> Option<(Boot, &HeartbeatGroup)> {
        let said = self.lines.get(&partition).filter(|said| said.ballot == ballot)?;
        (!self.refused.contains_key(&partition)).then_some((self.heard_at, said))
    }

    /// The answer to a heartbeat whose changes were taken.
    pub(super) fn answer(&self, heartbeat: &Heartbeat) -> HeartbeatAnswer {
        let exceptions = self.refused.iter();
        let exceptions = exceptions
            .map(|(partition, promised)| HeartbeatException { partition: *partition, promised: *promised });
        let exceptions = exceptions.collect();
        HeartbeatAnswer { sent_at: heartbeat.sent_at, version: self.version, exceptions }
    }

    /// Feeds `hasher` with what decides what it does from now on.
    pub(super) fn digest(&self, now: Boot, hasher: &mut impl Hasher) {
        let Self { id, incarnation, version, lines, refused, heard_at, silent } = self;
        (id, incarnation, version, refused, silent).hash(hasher);
        lines.values().for_each(|said| digest_said(said, hasher));
        now.since(*heard_at).hash(hasher);
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

fn digest_said(said: &HeartbeatGroup, hasher: &mut impl Hasher) {
    let HeartbeatGroup { partition, epoch, ballot, commit, holds_lease } = said;
    (partition, epoch, ballot, commit, holds_lease).hash(hasher);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEARTBEAT_INTERVAL;
    use evenkeel_wire::ids::{Epoch, NodeId};

    const FOLDER: Incarnation = Incarnation([7; 16]);

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn said(partition: u64, round: u64) -> HeartbeatGroup {
        let (partition, epoch, commit) = (PartitionId(partition), Epoch(1), Slot(1));
        HeartbeatGroup { partition, epoch, ballot: ballot(round), commit, holds_lease: true }
    }

    fn partition(heartbeat: &Heartbeat) -> Vec<u64> {
        heartbeat.changes.iter().map(|said| said.partition.0).collect()
    }

    /// A leader core, its peer, and the time between them.
    struct Pair {
        now: Boot,
        roll: Roll,
        copy: Copied,
    }

    impl Pair {
        fn new(groups: u64) -> Self {
            let mut roll = Roll::new(1);
            (1..=groups).for_each(|partition| roll.say(said(partition, 1)));
            Self { now: Boot(1_000_000_000), roll, copy: Copied::new(FOLDER) }
        }

        fn send(&mut self) -> Heartbeat {
            self.now = self.now.after(HEARTBEAT_INTERVAL);
            self.roll.heartbeat(self.now)
        }

        fn take(&mut self, heartbeat: &Heartbeat) -> HeartbeatAnswer {
            if !self.copy.fits(FOLDER, heartbeat) {
                return HeartbeatAnswer { sent_at: heartbeat.sent_at, version: 0, exceptions: Vec::new() };
            }
            self.copy.take(self.now, FOLDER, heartbeat);
            self.copy.answer(heartbeat)
        }

        /// A heartbeat and its answer. Returns what was said.
        fn beat(&mut self) -> (Vec<u64>, Answered) {
            let heartbeat = self.send();
            let answer = self.take(&heartbeat);
            (partition(&heartbeat), self.roll.answered(self.now, &answer))
        }

        fn granted_at(&self, partition: u64, round: u64) -> Option<Boot> {
            self.roll.grant_of(PartitionId(partition), ballot(round)).map(|grant| grant.sent_at)
        }
    }

    #[test]
    fn what_does_not_change_is_said_once_and_renewed_each_time() {
        let mut pair = Pair::new(3);
        assert_eq!(pair.beat(), (vec![1, 2, 3], Answered::Granted));
        let first = pair.granted_at(2, 1);
        assert_eq!(pair.beat(), (vec![], Answered::Granted));
        assert!(first.is_some() && pair.granted_at(2, 1) > first);
        assert!(pair.roll.is_settled(pair.now, &said(2, 1)));
        let moved = HeartbeatGroup { commit: Slot(2), ..said(2, 1) };
        pair.roll.say(moved);
        assert!(!pair.roll.is_settled(pair.now, &moved), "the peer has not been told");
        assert_eq!(pair.granted_at(2, 1), Some(pair.now), "a commit position is no new ballot");
        assert_eq!(pair.beat(), (vec![2], Answered::Granted));
        assert!(pair.roll.is_settled(pair.now, &moved));
    }

    #[test]
    fn a_grant_belongs_to_the_ballot_that_was_on_the_roll() {
        let mut pair = Pair::new(1);
        let heartbeat = pair.send();
        let answer = pair.take(&heartbeat);
        pair.roll.say(said(1, 2));
        assert_eq!(pair.roll.answered(pair.now, &answer), Answered::Granted);
        assert_eq!((pair.granted_at(1, 1), pair.granted_at(1, 2)), (None, None));
        assert_eq!(pair.beat(), (vec![1], Answered::Granted));
        assert_eq!((pair.granted_at(1, 1), pair.granted_at(1, 2)), (None, Some(pair.now)));
    }

    #[test]
    fn an_answer_that_comes_after_the_next_question_grants_all_the_same() {
        let mut pair = Pair::new(1);
        let first = pair.send();
        let first_answer = pair.take(&first);
        for slot in 2..6 {
            pair.roll.say(HeartbeatGroup { commit: Slot(slot), ..said(1, 1) });
            pair.send();
        }
        assert_eq!(pair.roll.answered(pair.now, &first_answer), Answered::Granted);
        assert_eq!(pair.granted_at(1, 1), Some(Boot(first.sent_at)), "counted from the question");
        assert_eq!(pair.roll.answered(pair.now, &first_answer), Answered::Unknown, "and only once");
    }

    #[test]
    fn whom_the_peer_refuses_is_granted_nothing_until_it_is_settled() {
        let mut pair = Pair::new(2);
        pair.beat();
        pair.copy.settle(PartitionId(1), Err(ballot(9)));
        let heartbeat = pair.send();
        let answer = pair.take(&heartbeat);
        let refused = HeartbeatException { partition: PartitionId(1), promised: ballot(9) };
        assert_eq!(answer.exceptions, [refused]);
        pair.roll.answered(pair.now, &answer);
        assert_eq!((pair.granted_at(1, 1), pair.granted_at(2, 1)), (None, Some(pair.now)));
        assert_eq!(pair.copy.granted(PartitionId(1), ballot(1)), None);
        pair.beat();
        assert_eq!(pair.granted_at(1, 1), None, "heartbeats that say nothing new settle nothing");
        pair.copy.settle(PartitionId(1), Ok(()));
        pair.beat();
        assert_eq!(pair.granted_at(1, 1), Some(pair.now));
    }

    #[test]
    fn a_lost_heartbeat_is_made_up_for_by_the_next() {
        let mut pair = Pair::new(1);
        pair.beat();
        pair.roll.say(said(2, 1));
        pair.send();
        pair.roll.say(said(3, 1));
        assert_eq!(pair.beat(), (vec![2, 3], Answered::Granted));
    }

    #[test]
    fn a_peer_that_has_restarted_is_told_everything_and_grants_nothing_before() {
        let mut pair = Pair::new(2);
        pair.beat();
        pair.copy = Copied::new(FOLDER);
        assert_eq!(pair.beat(), (vec![], Answered::Behind));
        assert_eq!(pair.beat(), (vec![1, 2], Answered::Granted));
        assert!(pair.copy.line(PartitionId(2)).is_some());
    }

    #[test]
    fn a_leader_that_has_restarted_begins_a_roll_of_its_own() {
        let mut pair = Pair::new(2);
        pair.beat();
        pair.roll = Roll::new(2);
        pair.roll.say(said(3, 5));
        let heartbeat = pair.send();
        let news: Vec<u64> = pair.copy.news(&heartbeat).map(|partition| partition.0).collect();
        assert_eq!(news, [1, 2, 3], "those that are no longer named concern somebody, too");
        pair.take(&heartbeat);
        assert_eq!(pair.copy.partitions().collect::<Vec<_>>(), [PartitionId(3)]);
    }

    #[test]
    fn a_heartbeat_that_was_overtaken_changes_nothing() {
        let mut pair = Pair::new(1);
        pair.beat();
        let late = pair.send();
        pair.roll.say(said(1, 2));
        pair.beat();
        assert!(!pair.copy.fits(FOLDER, &late));
        assert!(pair.copy.fits(FOLDER, &pair.roll.heartbeat(pair.now)));
        assert!(!pair.copy.fits(Incarnation([8; 16]), &pair.roll.heartbeat(pair.now)));
    }

    #[test]
    fn who_has_left_is_named_until_the_peer_knows() {
        let mut pair = Pair::new(2);
        pair.beat();
        pair.roll.leave(PartitionId(1));
        pair.send();
        assert_eq!(pair.beat(), (vec![1], Answered::Granted));
        assert_eq!(pair.copy.line(PartitionId(1)), None);
        assert_eq!(pair.beat(), (vec![], Answered::Granted));
        pair.roll.leave(PartitionId(2));
        pair.beat();
        assert!(pair.roll.is_empty());
    }

    #[test]
    fn silence_is_noticed_once() {
        let mut pair = Pair::new(1);
        pair.beat();
        assert!(!pair.roll.falls_silent(pair.now) && !pair.copy.falls_silent(pair.now));
        let later = pair.now.after(PEER_SILENT_AFTER);
        assert!(pair.roll.falls_silent(later) && pair.copy.falls_silent(later));
        assert!(!pair.roll.falls_silent(later) && !pair.copy.falls_silent(later));
        pair.now = later;
        pair.beat();
        assert!(!pair.roll.is_silent(pair.now) && !pair.copy.is_silent(pair.now));
    }
}
