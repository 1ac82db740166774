//! Where explorations begin: scripts of events, run through the code that ships.

use super::bounds::{Bound, FORGOTTEN_STEPS, Start};
use super::clock::Clocks;
use super::member::{MEMBERS, Member, PLACES, node};
use super::memory::Memory;
use super::network::{Letter, Network, Said};
use super::turn::Input;
use super::world::{Action, Used, World};
use evenkeel_dataplane::limits::FORGETFUL_STANDS_AFTER;
use evenkeel_dataplane::paxos::Message;
use evenkeel_wire::ids::Ballot;
use std::sync::Arc;

impl World {
    /// The states in which an exploration begins.
    pub(crate) fn beginnings(bound: &Bound, memory: &Memory) -> Vec<Self> {
        let begin = |drift: &[i8; PLACES]| {
            let clocks = Clocks { drift: *drift, pace: bound.pace };
            let member = |place| Member::new(place, clocks.shown(place, 0), bound, memory.requests());
            let world = Self {
                members: (0..MEMBERS).map(|place| Arc::new(member(place))).collect(),
                network: Network::default(),
                history: Arc::default(),
                steps: 0,
                clocks,
                used: Used::default(),
                broken: None,
                reads: false,
            };
            let mut world = match bound.start {
                Start::New => world,
                Start::Led => world.led(memory),
                Start::Resting => world.led(memory).resting(memory),
                Start::Missed => world.led(memory).resting(memory).missed(memory),
                Start::Replaced => world.led(memory).resting(memory).missed(memory).replaced(memory),
                Start::Granted => world.led(memory).suspected(memory).granted(memory),
                Start::Contested => world.led(memory).contested(memory),
                Start::Restored => world.led(memory).contested(memory).restored(memory),
                Start::Overtaken => world.led(memory).overtaken(memory),
                Start::Forgotten => world.led(memory).forgotten(memory),
                Start::Refused => world.led(memory).forgotten(memory).refused(memory),
            };
            world.used.renewals_left = bound.renewals;
            world
        };
        bound.clocks.iter().map(begin).collect()
    }

    /// Lets the first member become the leader, with nothing going wrong.
    fn led(mut self, memory: &Memory) -> Self {
        self.step(Action::Tick(0), memory, false);
        self.settle(memory);
        for _ in 0..2 {
            self.step(Action::Heartbeat(0), memory, false);
            self.settle(memory);
        }
        let group = &self.members[0].group;
        assert!(group.is_ready(self.now(0)), "it serves");
        assert!(self.members.iter().all(|member| member.durable.entries.len() == 1), "all have its entry");
        self
    }

    /// Lets everybody hear that the leader holds its lease, and come to rest.
    fn resting(mut self, memory: &Memory) -> Self {
        self.step(Action::Time, memory, false);
        self.step(Action::Heartbeat(0), memory, false);
        self.settle(memory);
        (0..MEMBERS).for_each(|place| _ = self.step(Action::Tick(place), memory, false));
        assert!(self.members.iter().all(|member| member.is_at_rest()), "all of them are at rest");
        self
    }

    /// Lets a whole lease term pass in silence; then the second member asks the third one, and stands.
    fn missed(mut self, memory: &Memory) -> Self {
        (0..self.clocks.pace).for_each(|_| _ = self.step(Action::Time, memory, false));
        self.stands(1, memory);
        self.lose_if(memory, |letter| letter.to == node(0));
        assert!(self.members[0].is_at_rest() && !self.members[0].serves, "the leader has not noticed");
        self
    }

    /// The first leader asks the third member to renew its lease, and the second one is elected before that
    /// arrives; its entry is committed.
    fn replaced(mut self, memory: &Memory) -> Self {
        self.step(Action::Heartbeat(0), memory, false);
        self.lose_if(memory, |letter| letter.to == node(1));
        self.deliver_between(1, 2, memory);
        self.step(Action::Persist(2), memory, false);
        self.deliver_between(2, 1, memory);
        self.step(Action::Persist(1), memory, false);
        self.deliver_between(1, 2, memory);
        self.step(Action::Persist(2), memory, false);
        self.deliver_between(2, 1, memory);
        self.lose_if(memory, |letter| !matches!(letter.said, Said::Roll(_)));
        assert_eq!(self.history.committed.len(), 2, "its entry is committed");
        assert_eq!(self.network.letters().len(), 1, "a question is on its way");
        self
    }

    /// Lets the second member miss its leader for two steps of time, ask the third one about it, and stand.
    fn suspected(mut self, memory: &Memory) -> Self {
        self.step(Action::Time, memory, false);
        self.step(Action::Time, memory, false);
        self.step(Action::Tick(1), memory, false);
        self.deliver_between(1, 2, memory);
        self.deliver_between(2, 1, memory);
        self.lose_all(memory);
        assert!(self.members[1].group.replica.is_candidate(), "it stands");
        self
    }

    /// Lets the third member grant the first leader its lease once more.
    fn granted(mut self, memory: &Memory) -> Self {
        self.step(Action::Heartbeat(0), memory, false);
        self.deliver_between(0, 2, memory);
        self.lose_if(memory, |letter| letter.from != node(2));
        assert!(matches!(self.network.letters()[0].said, Said::HeartbeatAnswer { granted: Ok(()), .. }));
        self
    }

    /// Lets the first leader propose two writes that reach nobody, and die; then the second member is elected
    /// by the third, with an entry that reaches nobody.
    fn parted(mut self, memory: &Memory) -> Self {
        let mut act = |action| assert!(self.step(action, memory, false), "{action:?} does something");
        act(Action::Submit(0, 1));
        act(Action::Submit(0, 2));
        act(Action::Persist(0));
        act(Action::Crash(0, 0));
        act(Action::Time);
        act(Action::Time);
        self.lose_all(memory);
        self.step(Action::Tick(1), memory, false);
        self.deliver_between(1, 2, memory);
        self.deliver_between(2, 1, memory);
        self.step(Action::Persist(1), memory, false);
        self.lose_if(memory, |letter| !matches!(letter.said, Said::Message(Message::Prepare(_))));
        for voter in [0, 2] {
            self.deliver_between(1, voter, memory);
            self.step(Action::Persist(voter), memory, false);
        }
        self.deliver_between(2, 1, memory);
        self.step(Action::Persist(1), memory, false);
        self.used = Used { crashes: 0, ..self.used };
        self
    }

    /// The second leader dies, too.
    fn contested(self, memory: &Memory) -> Self {
        let mut world = self.parted(memory);
        world.lose_all(memory);
        world.step(Action::Crash(1, 0), memory, false);
        world.used = Used { crashes: 0, ..world.used };
        world.assert_stand([3, 2, 1]);
        world
    }

    /// The first leader comes back, elected by the third member, and sends it what it has; the second one has
    /// not heard of it, and stands, too.
    fn restored(mut self, memory: &Memory) -> Self {
        self.step(Action::Time, memory, false);
        self.step(Action::Time, memory, false);
        self.stands(0, memory);
        self.deliver_between(0, 2, memory);
        self.step(Action::Persist(2), memory, false);
        self.deliver_between(2, 0, memory);
        self.step(Action::Persist(0), memory, false);
        self.lose_if(memory, |letter| letter.to == node(1));
        self.stands(1, memory);
        self.lose_if(memory, |letter| letter.to == node(0));
        let replica = |place: usize| &self.members[place].group.replica;
        assert!(replica(0).is_leader() && replica(1).is_candidate(), "each of them wants to lead");
        assert_eq!(self.network.letters().len(), 2, "an Accept and a Prepare are on their way");
        self
    }

    /// Lets a member ask the third one about the leader, and stand.
    fn stands(&mut self, place: usize, memory: &Memory) {
        let kept = self.network.letters().len();
        self.step(Action::Tick(place), memory, false);
        let is_suspect = |letter: &Letter| matches!(letter.said, Said::Message(Message::Suspect(_)));
        self.lose_if(memory, |letter| is_suspect(letter) && letter.to != node(2));
        self.deliver_if(memory, is_suspect);
        self.deliver_between(2, place, memory);
        assert!(self.members[place].group.replica.is_candidate(), "it stands");
        assert_eq!(self.network.letters().len(), kept, "nothing of it is left on its way");
        self.step(Action::Persist(place), memory, false);
    }

    /// The second leader's entry is committed, with the third member.
    fn overtaken(self, memory: &Memory) -> Self {
        let mut world = self.parted(memory);
        world.deliver_between(1, 2, memory);
        world.step(Action::Persist(2), memory, false);
        world.deliver_between(2, 1, memory);
        world.lose_all(memory);
        assert_eq!(world.history.committed.len(), 2, "it is committed");
        world.assert_stand([3, 2, 2]);
        world
    }

    /// The first leader, which died, promises the second member what it stands for, and loses the memory of
    /// that, but not the letter. When nobody has led for long, it stands itself.
    fn forgotten(mut self, memory: &Memory) -> Self {
        self.step(Action::Crash(0, 0), memory, false);
        self.used = Used { crashes: 0, ..self.used };
        self.step(Action::Time, memory, false);
        self.step(Action::Time, memory, false);
        self.stands(1, memory);
        self.lose_if(memory, |letter| letter.to == node(2));
        self.deliver_between(1, 0, memory);
        self.step(Action::Persist(0), memory, false);
        self.turn(0, Input::Forget(1), memory);
        let since = self.now(0);
        while self.now(0).since(since) < FORGETFUL_STANDS_AFTER {
            self.step(Action::Time, memory, false);
        }
        assert_eq!(self.steps, FORGOTTEN_STEPS);
        self.stands(0, memory);
        let promises = self.members.iter().map(|member| member.group.replica.promised());
        assert!(
            promises.eq([(2, 0), (2, 1), (1, 0)].map(|(round, place)| Ballot { round, node: node(place) }))
        );
        assert_eq!(self.network.letters().len(), 3, "its promise, and two Prepares of its own");
        self
    }

    /// The second member refuses the first one, which stands again, above what it has heard of.
    fn refused(mut self, memory: &Memory) -> Self {
        let is_prepare = |letter: &Letter| matches!(letter.said, Said::Message(Message::Prepare(_)));
        self.deliver_if(memory, |letter| is_prepare(letter) && letter.to == node(1));
        self.deliver_if(memory, |letter| matches!(letter.said, Said::Message(Message::Refuse(_))));
        self.lose_if(memory, |letter| letter.to == node(2));
        (0..3).for_each(|_| _ = self.step(Action::Time, memory, false));
        self.stands(0, memory);
        assert_eq!(self.members[0].group.replica.promised(), Ballot { round: 3, node: node(0) });
        assert_eq!(self.network.letters().len(), 3, "a promise of before, and two Prepares");
        self
    }

    fn assert_stand(&self, logs: [usize; MEMBERS]) {
        let durable = || self.members.iter().map(|member| &member.durable);
        assert!(durable().map(|durable| durable.entries.len()).eq(logs), "logs part");
        assert!(durable().all(|durable| durable.promised.round == 2), "all have promised the second ballot");
    }

    fn lose_if(&mut self, memory: &Memory, is_lost: impl Fn(&Letter) -> bool) {
        while let Some(index) = self.network.letters().iter().position(|letter| is_lost(letter)) {
            self.step(Action::Lose(index), memory, false);
        }
    }

    fn lose_all(&mut self, memory: &Memory) {
        self.lose_if(memory, |_| true);
    }

    fn deliver_if(&mut self, memory: &Memory, is_it: impl Fn(&Letter) -> bool) {
        let index = self.network.letters().iter().position(|letter| is_it(letter));
        self.step(Action::Deliver(index.expect("such a message is on its way")), memory, false);
    }

    fn deliver_between(&mut self, from: usize, to: usize, memory: &Memory) {
        self.deliver_if(memory, |letter| (letter.from, letter.to) == (node(from), node(to)));
    }

    fn settle(&mut self, memory: &Memory) {
        loop {
            let busy = self.members.iter().position(|member| !member.appended.is_empty());
            if let Some(busy) = busy {
                self.step(Action::Persist(busy), memory, false);
            } else if !self.network.letters().is_empty() {
                self.step(Action::Deliver(0), memory, false);
            } else {
                return;
            }
        }
    }
}
