//! The whole: three members, messages between them, true time, and what clients have seen.

use super::bounds::{Bound, Start};
use super::clients::{Read, Requests, acknowledged};
use super::clock;
use super::member::{EntryId, MEMBERS, Member, node, place};
use super::network::{Letter, Network, Said};
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::paxos::{Message, Output};
use evenkeel_wire::ids::{NodeId, Slot};
use evenkeel_wire::turn::{Boot, Effects};
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
}

/// A state.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) members: [Arc<Member>; MEMBERS],
    pub(crate) network: Network,
    pub(crate) history: Arc<History>,
    /// True time, in steps.
    pub(crate) steps: u8,
    /// By how much each clock is wrong.
    pub(crate) clocks: [i8; MEMBERS],
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
        let digests = |world: &Self| world.members.each_ref().map(|member| member.digest);
        digests(self) == digests(other)
            && self.network == other.network
            && (&self.history, self.steps, self.clocks) == (&other.history, other.steps, other.clocks)
            && (self.used, self.broken) == (other.used, other.broken)
    }
}

impl World {
    /// The states in which an exploration begins.
    pub(crate) fn beginnings(bound: &Bound, requests: &Requests) -> Vec<Self> {
        let begin = |clocks: &[i8; MEMBERS]| {
            let now = clock::shown(0, 0);
            let world = Self {
                members: std::array::from_fn(|place| Arc::new(Member::new(place, now))),
                network: Network::default(),
                history: Arc::default(),
                steps: 0,
                clocks: *clocks,
                used: Used::default(),
                broken: None,
                reads: false,
            };
            match bound.start {
                Start::New => world,
                Start::Led => world.led(requests),
                Start::Suspected => world.led(requests).suspected(requests),
                Start::Contested => world.led(requests).contested(requests),
                Start::Overtaken => world.led(requests).overtaken(requests),
            }
        };
        bound.clocks.iter().map(begin).collect()
    }

    /// Lets the first member become the leader, with nothing going wrong.
    fn led(mut self, requests: &Requests) -> Self {
        self.step(Action::Tick(0), requests, false);
        self.settle(requests);
        for _ in 0..2 {
            self.step(Action::Heartbeat(0), requests, false);
            self.settle(requests);
        }
        let group = &self.members[0].group;
        assert!(group.is_ready(self.now(0)), "it serves");
        assert!(self.members.iter().all(|member| member.durable.entries.len() == 1), "all have its entry");
        self
    }

    /// Lets the second member miss its leader for two steps of time, ask the third one about it, and stand.
    fn suspected(mut self, requests: &Requests) -> Self {
        self.step(Action::Time, requests, false);
        self.step(Action::Time, requests, false);
        self.step(Action::Tick(1), requests, false);
        self.deliver_between(1, 2, requests);
        self.deliver_between(2, 1, requests);
        self.lose_all(requests);
        assert!(self.members[1].group.replica.is_candidate(), "it stands");
        self
    }

    /// Lets the first leader propose two writes that reach nobody, and die; then the second member is elected
    /// by the third, with an entry that reaches nobody.
    fn parted(mut self, requests: &Requests) -> Self {
        let mut act = |action| assert!(self.step(action, requests, false), "{action:?} does something");
        act(Action::Submit(0, 1));
        act(Action::Submit(0, 2));
        act(Action::Persist(0));
        act(Action::Crash(0, 0));
        act(Action::Time);
        act(Action::Time);
        self.lose_all(requests);
        self.step(Action::Tick(1), requests, false);
        self.deliver_between(1, 2, requests);
        self.deliver_between(2, 1, requests);
        self.step(Action::Persist(1), requests, false);
        self.lose_all_but_prepare(requests);
        for voter in [0, 2] {
            self.deliver_between(1, voter, requests);
            self.step(Action::Persist(voter), requests, false);
        }
        self.deliver_between(2, 1, requests);
        self.step(Action::Persist(1), requests, false);
        self.used = Used { crashes: 0, ..self.used };
        self
    }

    /// The second leader dies, too.
    fn contested(self, requests: &Requests) -> Self {
        let mut world = self.parted(requests);
        world.lose_all(requests);
        world.step(Action::Crash(1, 0), requests, false);
        world.used = Used { crashes: 0, ..world.used };
        world.assert_stand([3, 2, 1]);
        world
    }

    /// The second leader's entry is committed, with the third member.
    fn overtaken(self, requests: &Requests) -> Self {
        let mut world = self.parted(requests);
        world.deliver_between(1, 2, requests);
        world.step(Action::Persist(2), requests, false);
        world.deliver_between(2, 1, requests);
        world.lose_all(requests);
        assert_eq!(world.history.committed.len(), 2, "it is committed");
        world.assert_stand([3, 2, 2]);
        world
    }

    fn assert_stand(&self, logs: [usize; MEMBERS]) {
        assert_eq!(self.members.each_ref().map(|member| member.durable.entries.len()), logs, "logs part");
        let rounds = self.members.each_ref().map(|member| member.durable.promised.round);
        assert_eq!(rounds, [2, 2, 2], "all have promised the second ballot");
    }

    fn lose_all_but_prepare(&mut self, requests: &Requests) {
        let is_other = |letter: &Arc<Letter>| !matches!(letter.said, Said::Message(Message::Prepare(_)));
        while let Some(index) = self.network.letters().iter().position(is_other) {
            self.step(Action::Lose(index), requests, false);
        }
    }

    fn lose_all(&mut self, requests: &Requests) {
        while !self.network.letters().is_empty() {
            self.step(Action::Lose(0), requests, false);
        }
    }

    fn deliver_between(&mut self, from: usize, to: usize, requests: &Requests) {
        let is_it = |letter: &Arc<Letter>| (letter.from, letter.to) == (node(from), node(to));
        let index = self.network.letters().iter().position(is_it).expect("such a message is on its way");
        self.step(Action::Deliver(index), requests, false);
    }

    fn settle(&mut self, requests: &Requests) {
        loop {
            let busy = self.members.iter().position(|member| !member.appended.is_empty());
            if let Some(busy) = busy {
                self.step(Action::Persist(busy), requests, false);
            } else if !self.network.letters().is_empty() {
                self.step(Action::Deliver(0), requests, false);
            } else {
                return;
            }
        }
    }

    /// What a member's clock shows.
    pub(crate) fn now(&self, place: usize) -> Boot {
        clock::shown(self.steps, self.clocks[place])
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
            if member.group.replica.is_leader() {
                actions.push(Action::Heartbeat(place));
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
    pub(crate) fn step(&mut self, action: Action, requests: &Requests, torn: bool) -> bool {
        match action {
            Action::Deliver(index) => {
                let letter = self.network.take(index);
                self.deliver(&letter);
            }
            Action::Duplicate(index) => {
                self.used.duplicates += 1;
                let letter = Arc::clone(&self.network.letters()[index]);
                self.deliver(&letter);
            }
            Action::Lose(index) => {
                self.network.take(index);
                return true;
            }
            Action::Persist(place) => self.persist(place, torn),
            Action::Tick(place) => {
                let before = self.members[place].digest;
                self.turn(place, |group, now, _, outputs| group.replica.tick(now, outputs));
                if self.members[place].digest == before {
                    return false;
                }
            }
            Action::Heartbeat(place) => return self.heartbeat(place),
            Action::Time => {
                self.steps += 1;
                for place in 0..MEMBERS {
                    let now = self.now(place);
                    Arc::make_mut(&mut self.members[place]).refresh(now);
                }
            }
            Action::Submit(place, write) => {
                let mut taken = false;
                self.turn(place, |group, now, out, outputs| {
                    taken = requests.submit(write, group, now, out, outputs);
                });
                if !taken {
                    return false;
                }
                self.used.submissions += 1;
                self.used.writes = self.used.writes.max(write);
            }
            Action::Crash(place, survive) => {
                self.used.crashes += 1;
                let now = self.now(place);
                let member = Arc::make_mut(&mut self.members[place]);
                member.crash(survive, now);
                member.refresh(now);
            }
            Action::HandOver(place) => {
                let mut found = false;
                self.turn(place, |group, now, _, outputs| {
                    found = group.is_quiet() && group.replica.hand_over(now, outputs);
                });
                if !found {
                    return false;
                }
                self.used.hand_overs += 1;
            }
        }
        let members = &self.members;
        self.network.forget_void(|place| &members[place].group.replica);
        self.look(requests);
        true
    }

    fn deliver(&mut self, letter: &Letter) {
        let to = place(letter.to);
        match &letter.said {
            Said::Message(message) => {
                let message = message.clone();
                self.turn(to, |group, now, _, outputs| {
                    group.replica.receive(now, letter.from, message, outputs);
                });
            }
            Said::Heartbeat { group: said, sent_at } => {
                let mut granted = Ok(());
                self.turn(to, |group, now, _, outputs| {
                    granted = group.replica.on_heartbeat(now, letter.from, said, outputs);
                });
                let answer = Said::HeartbeatAnswer { ballot: said.ballot, sent_at: *sent_at, granted };
                self.network.send(Letter::new(letter.to, letter.from, answer));
            }
            Said::HeartbeatAnswer { ballot, sent_at, granted } => {
                self.turn(to, |group, now, _, outputs| match granted {
                    Ok(()) => group.replica.on_grant(now, letter.from, *ballot, *sent_at),
                    Err(promised) => group.replica.on_lease_refused(now, letter.from, *promised, outputs),
                });
            }
        }
    }

    fn persist(&mut self, place: usize, torn: bool) {
        let count = if torn { 1 } else { self.members[place].appended.len() };
        let member = Arc::make_mut(&mut self.members[place]);
        (0..count).for_each(|_| member.becomes_durable());
        self.turn(place, |group, now, _, outputs| {
            (0..count).for_each(|_| group.replica.persisted(now, outputs));
        });
    }

    fn heartbeat(&mut self, place: usize) -> bool {
        let now = self.now(place);
        let member = &self.members[place];
        let said = member.group.replica.heartbeat(now).map(|group| (now, group));
        let Some((sent_at, group)) = said.filter(|_| member.said.is_none()) else {
            return false;
        };
        let others: Vec<NodeId> = member.group.replica.others().map(|other| other.node).collect();
        let member = Arc::make_mut(&mut self.members[place]);
        member.said = said;
        member.refresh(now);
        for to in others {
            self.network.send(Letter::new(node(place), to, Said::Heartbeat { group, sent_at }));
        }
        true
    }

    /// A turn of a member's core: one input, then what the end of a turn does, then the effects.
    fn turn(&mut self, place: usize, input: impl FnOnce(&mut Group, Boot, &mut Effects, &mut Vec<Output>)) {
        let now = self.now(place);
        let (mut out, mut outputs) = (Effects::new(), Vec::new());
        let member = Arc::make_mut(&mut self.members[place]);
        input(&mut member.group, now, &mut out, &mut outputs);
        perform(member, place, &mut self.network, &mut outputs, &mut out);
        member.group.apply_committed(&mut out);
        member.group.replica.end_turn(now, &mut outputs);
        perform(member, place, &mut self.network, &mut outputs, &mut out);
        member.refresh(now);
        for write in acknowledged(&mut out) {
            Arc::make_mut(&mut self.history).acknowledged |= 1 << write;
        }
    }

    /// Looks at everything that must hold.
    fn look(&mut self, requests: &Requests) {
        self.broken = self.broken.or_else(|| self.look_at_logs()).or_else(|| self.look_at_service(requests));
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
        let writes: Vec<u8> = self.history.committed.iter().filter_map(|entry| entry.write).collect();
        if writes.iter().enumerate().any(|(index, write)| writes[..index].contains(write)) {
            return Some(Broken::ExecutedTwice);
        }
        let acknowledged = self.slots_of_acknowledged()?;
        for slot in acknowledged {
            let Some(slot) = slot else {
                return Some(Broken::AcknowledgedLost);
            };
            let entry = self.history.committed[slot];
            let holders =
                self.members.iter().filter(|member| member.durable.entries.get(slot) == Some(&entry));
            if holders.count() <= MEMBERS / 2 {
                return Some(Broken::AcknowledgedLost);
            }
            let seen = Slot(slot as u64 + 1);
            if seen > self.history.seen {
                Arc::make_mut(&mut self.history).seen = seen;
            }
        }
        None
    }

    /// Where the acknowledged writes stand in the committed log; none: nowhere.
    fn slots_of_acknowledged(&self) -> Option<Vec<Option<usize>>> {
        let bits = self.history.acknowledged;
        let slot = |write| self.history.committed.iter().position(|entry| entry.write == Some(write));
        (bits != 0).then(|| (0..8).filter(|write| bits & (1 << write) != 0).map(slot).collect())
    }

    /// A strong read is asked of every member in every state; what it says counts as seen.
    fn look_at_service(&mut self, requests: &Requests) -> Option<Broken> {
        self.reads = false;
        let mut serving = 0;
        for place in 0..MEMBERS {
            let (now, member) = (self.now(place), &self.members[place]);
            if member.group.replica.is_ready(now) {
                serving += 1;
            }
            let Read::Item(write) = requests.read(&member.group, now) else {
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

fn perform(
    member: &mut Member,
    place: usize,
    network: &mut Network,
    outputs: &mut Vec<Output>,
    out: &mut Effects,
) {
    for output in outputs.drain(..) {
        match output {
            Output::Persist(record) => member.appended.push_back(record),
            Output::Send { to, message } => {
                network.send(Letter::new(node(place), to, Said::Message(message)));
            }
            Output::NeedsSnapshot { .. } => panic!("nothing is trimmed, so nobody needs a snapshot"),
            Output::MembersChanged => {}
            Output::LostLeadership => member.group.abandon(out),
        }
    }
}
