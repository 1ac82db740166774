//! The whole: three members, messages between them, true time, and what clients have seen.

use super::bounds::{Bound, Start};
use super::clients::Read;
use super::clock::Clocks;
use super::member::{EntryId, Member, place};
use super::memory::Memory;
use super::network::Network;
use super::turn::Input;
use evenkeel_wire::ids::Slot;
use evenkeel_wire::turn::Boot;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// One thing that happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A message arrives.
    Deliver(usize),
    /// A message arrives, and will once more.
    Duplicate(usize),
    /// A message is lost.
    Lose(usize),
    /// A member's log write is durable: its oldest record, or all of them.
    Persist(usize),
    /// A member looks at the time.
    Tick(usize),
    /// A leader renews its lease.
    Heartbeat(usize),
    /// True time moves on by one step.
    Time,
    /// A client sends a write to a member.
    Submit(usize, u8),
    /// A member dies with so many of the records that were on their way to its disk, and starts again.
    Crash(usize, usize),
    /// A leader gives its lease up.
    HandOver(usize),
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// Two entries were committed in one slot.
    Agreement,
    /// Two logs hold one entry, and differ before it.
    LogMatching,
    /// Two members would serve at the same true time.
    LeaseExclusivity,
    /// An acknowledged write is not durable on a majority.
    AcknowledgedLost,
    /// A strong read does not return what was acknowledged, or read, before.
    StaleRead,
    /// A write was executed twice.
    ExecutedTwice,
    /// Code that ships found that it had a bug.
    Assertion,
}

/// What clients and an observer of everything know. It grows, and takes part in nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// The longest log that any member has known to be committed.
    pub(crate) committed: Vec<EntryId>,
    /// The acknowledged writes, a bit for each.
    pub(crate) acknowledged: u8,
    /// A client has seen the effect of the log up to here, or could have.
    pub(crate) seen: Slot,
}

/// What is left of the bound's allowances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Used {
    pub(crate) submissions: u8,
    pub(crate) writes: u8,
    pub(crate) crashes: u8,
    pub(crate) duplicates: u8,
    pub(crate) hand_overs: u8,
    /// Renewals that are left, if they are counted.
    pub(crate) renewals_left: Option<u8>,
}

/// A state.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// Who holds a replica, by place.
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) network: Network,
    pub(crate) history: Arc<History>,
    /// True time, in steps.
    pub(crate) steps: u8,
    /// The members' clocks.
    pub(crate) clocks: Clocks,
    pub(crate) used: Used,
    /// What must not be, and is.
    pub(crate) broken: Option<Broken>,
    /// Somebody serves a read of an acknowledged write.
    pub(crate) reads: bool,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { members, network, history, steps, clocks, used, broken, reads: _ } = self;
        for member in members {
            hasher.write_u64(member.digest);
        }
        for letter in network.letters() {
            hasher.write_u64(letter.digest);
        }
        (history, steps, clocks, used, broken).hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let digests = |world: &Self| world.members.iter().map(|member| member.digest).collect::<Vec<_>>();
        digests(self) == digests(other)
            && self.network == other.network
            && (&self.history, self.steps, self.clocks) == (&other.history, other.steps, other.clocks)
            && (self.used, self.broken) == (other.used, other.broken)
    }
}

impl World {
    /// What a member's clock shows.
    pub(crate) fn now(&self, place: usize) -> Boot {
        self.clocks.shown(place, self.steps)
    }

    /// Everything that may happen next.
    pub(crate) fn actions(&self, bound: &Bound, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        for index in 0..self.network.letters().len() {
            actions.push(Action::Deliver(index));
            actions.push(Action::Lose(index));
            if self.used.duplicates < bound.duplicates {
                actions.push(Action::Duplicate(index));
            }
        }
        for (place, member) in self.members.iter().enumerate() {
            let appended = member.appended.len();
            if appended > 0 {
                actions.push(Action::Persist(place));
            }
            if bound.watchful.contains(&place) || bound.start == Start::New && place == 0 {
                actions.push(Action::Tick(place));
            }
            let renews = member.group.replica.is_leader() || member.core.is_some();
            if renews && self.used.renewals_left != Some(0) {
                actions.push(Action::Heartbeat(place));
            }
            if member.group.replica.is_leader() {
                if self.used.hand_overs < bound.hand_overs {
                    actions.push(Action::HandOver(place));
                }
                if self.used.submissions < bound.submissions {
                    let known = (self.used.writes + 1).min(bound.writes);
                    actions.extend((1..=known).map(|write| Action::Submit(place, write)));
                }
            }
            if self.used.crashes < bound.crashes {
                let some = (0..=appended).filter(|some| bound.torn || *some == 0 || *some == appended);
                actions.extend(some.map(|some| Action::Crash(place, some)));
            }
        }
        if self.steps < bound.ticks && self.network.letters().len() <= bound.late {
            actions.push(Action::Time);
        }
    }

    /// Does what `action` says, and looks at what comes of it. Returns whether anything changed.
    pub(crate) fn step(&mut self, action: Action, memory: &Memory, torn: bool) -> bool {
        match action {
            Action::Deliver(index) => {
                let letter = self.network.take(index);
                self.turn(place(letter.to), Input::Receive(&letter), memory);
            }
            Action::Duplicate(index) => {
                self.used.duplicates += 1;
                let letter = Arc::clone(&self.network.letters()[index]);
                self.turn(place(letter.to), Input::Receive(&letter), memory);
            }
            Action::Lose(index) => {
                self.network.take(index);
                return true;
            }
            Action::Persist(place) => {
                let count = if torn { 1 } else { self.members[place].appended.len() };
                self.turn(place, Input::Persist(count), memory);
            }
            Action::Tick(place) => {
                if !self.turn(place, Input::Tick, memory) {
                    return false;
                }
            }
            Action::Heartbeat(place) => {
                self.used.renewals_left = self.used.renewals_left.map(|left| left.saturating_sub(1));
                return self.turn(place, Input::Renew, memory);
            }
            Action::Time => {
                self.steps += 1;
                (0..self.members.len()).for_each(|place| _ = self.turn(place, Input::Time, memory));
            }
            Action::Submit(place, write) => {
                if !self.turn(place, Input::Submit(write), memory) {
                    return false;
                }
                self.used.submissions += 1;
                self.used.writes = self.used.writes.max(write);
            }
            Action::Crash(place, survive) => {
                self.used.crashes += 1;
                self.turn(place, Input::Crash(survive), memory);
            }
            Action::HandOver(place) => {
                if !self.turn(place, Input::HandOver, memory) {
                    return false;
                }
                self.used.hand_overs += 1;
            }
        }
        let members = &self.members;
        self.network.forget_void(|place| Some(&members.get(place)?.group.replica));
        self.look();
        true
    }

    /// Lets something happen to a member. Returns whether anything did.
    pub(super) fn turn(&mut self, place: usize, input: Input<'_>, memory: &Memory) -> bool {
        let turned = memory.turn(&self.members[place], self.now(place), input);
        self.members[place] = Arc::clone(&turned.member);
        turned.sent.iter().for_each(|letter| self.network.send(letter));
        if turned.acknowledged & !self.history.acknowledged != 0 {
            Arc::make_mut(&mut self.history).acknowledged |= turned.acknowledged;
        }
        turned.done
    }

    /// Looks at everything that must hold.
    fn look(&mut self) {
        self.broken = self.broken.or_else(|| self.look_at_logs()).or_else(|| self.look_at_service());
    }

    fn look_at_logs(&mut self) -> Option<Broken> {
        for member in &self.members {
            let committed = &member.entries[..member.group.replica.commit().0 as usize];
            let known = self.history.committed.len().min(committed.len());
            if committed[..known] != self.history.committed[..known] {
                return Some(Broken::Agreement);
            }
            if committed.len() > known {
                Arc::make_mut(&mut self.history).committed = committed.to_vec();
            }
        }
        for (index, one) in self.members.iter().enumerate() {
            for other in &self.members[..index] {
                let pairs = one.entries.iter().zip(&other.entries);
                if pairs.into_iter().any(|(one, other)| one.ballot == other.ballot && one != other) {
                    return Some(Broken::LogMatching);
                }
            }
        }
        let mut lost = self.history.acknowledged;
        let mut executed = 0u8;
        let mut seen = self.history.seen;
        for (slot, entry) in self.history.committed.iter().enumerate() {
            let Some(write) = entry.write else {
                continue;
            };
            if executed & 1 << write != 0 {
                return Some(Broken::ExecutedTwice);
            }
            executed |= 1 << write;
            if lost & 1 << write != 0 {
                let holds = |member: &&Arc<Member>| member.durable.entries.get(slot) == Some(entry);
                if self.members.iter().filter(holds).count() < self.quorum() {
                    return Some(Broken::AcknowledgedLost);
                }
                seen = seen.max(Slot(slot as u64 + 1));
            }
        }
        lost &= !executed;
        if seen > self.history.seen {
            Arc::make_mut(&mut self.history).seen = seen;
        }
        (lost != 0).then_some(Broken::AcknowledgedLost)
    }

    /// How many members make a quorum, in the latest epoch that anybody knows.
    fn quorum(&self) -> usize {
        let replicas = self.members.iter().map(|member| &member.group.replica);
        let latest = replicas.max_by_key(|replica| replica.epoch());
        latest.expect("there are members").quorum()
    }

    /// A strong read is asked of every member in every state; what it says counts as seen.
    fn look_at_service(&mut self) -> Option<Broken> {
        self.reads = false;
        let mut serving = 0;
        for member in &self.members {
            serving += usize::from(member.serves);
            let Read::Item(write) = member.read else {
                continue;
            };
            let committed = &self.history.committed;
            let read = committed.iter().rposition(|entry| write.is_some() && entry.write == write);
            let last = committed.iter().take(self.history.seen.0 as usize);
            let due = last.enumerate().rfind(|(_, entry)| entry.write.is_some());
            if read < due.map(|(slot, _)| slot) || (write.is_some() && read.is_none()) {
                return Some(Broken::StaleRead);
            }
            self.reads |= due.is_some();
            let seen = read.map_or(Slot::ZERO, |slot| Slot(slot as u64 + 1));
            if seen > self.history.seen {
                Arc::make_mut(&mut self.history).seen = seen;
            }
        }
        (serving > 1).then_some(Broken::LeaseExclusivity)
    }

    /// Whether the state lies within the bound.
    pub(crate) fn is_within(&self, bound: &Bound) -> bool {
        let rounds = self.members.iter().map(|member| member.group.replica.promised().round);
        self.network.letters().len() <= bound.in_flight && rounds.max() <= Some(bound.rounds)
    }
}
