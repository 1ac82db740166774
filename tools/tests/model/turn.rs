//! What an input makes of a member: the code that ships, called as the driver calls it.

use super::clients::{Requests, acknowledged};
use super::member::{Member, node};
use super::network::{Letter, Said};
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::paxos::Output;
use evenkeel_wire::ids::NodeId;
use evenkeel_wire::timeline::Causes;
use evenkeel_wire::turn::{Boot, Effects, Now};
use std::sync::Arc;

/// What happens to one member.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// A message arrives.
    Receive(&'a Letter),
    /// So many of its oldest records are durable.
    Persist(usize),
    /// It looks at the time.
    Tick,
    /// It renews its lease.
    Renew,
    /// A client sends this write.
    Submit(u8),
    /// It gives its lease up.
    HandOver,
    /// It dies, and this many of the records that were on their way to its disk survive.
    Crash(usize),
    /// Time has moved on to now.
    Time,
    /// It dies, and its disk has lost so many of its last records.
    Forget(usize),
}

impl Input<'_> {
    /// Tells it from every other input. A letter's digest is a hash; the others are small.
    pub(crate) fn digest(&self) -> u64 {
        let numbered = |kind: u64, number: usize| kind << 32 | number as u64;
        match *self {
            Self::Receive(letter) => letter.digest,
            Self::Persist(count) => numbered(1, count),
            Self::Tick => numbered(2, 0),
            Self::Renew => numbered(3, 0),
            Self::Submit(write) => numbered(4, write.into()),
            Self::HandOver => numbered(5, 0),
            Self::Crash(survive) => numbered(6, survive),
            Self::Time => numbered(7, 0),
            Self::Forget(lost) => numbered(8, lost),
        }
    }
}

/// What came of an input.
#[derive(Debug)]
pub(crate) struct Turned {
    /// The member afterwards.
    pub(crate) member: Arc<Member>,
    /// What it sends.
    pub(crate) sent: Vec<Arc<Letter>>,
    /// The writes that it acknowledges, a bit for each.
    pub(crate) acknowledged: u8,
    /// Whether anything happened at all.
    pub(crate) done: bool,
}

impl Turned {
    /// Lets `input` happen to `member`.
    pub(crate) fn of(member: &Member, now: Boot, input: Input<'_>, requests: &Requests) -> Self {
        let mut turn = Turn { member: member.clone(), now, sent: Vec::new(), acknowledged: 0 };
        let done = turn.take(input, requests);
        turn.member.refresh(now, requests);
        let changed = turn.member.digest != member.digest || !turn.sent.is_empty();
        let done = done && (changed || !matches!(input, Input::Tick));
        let Turn { member, sent, acknowledged, .. } = turn;
        Self { member: Arc::new(member), sent: sent.into_iter().map(Arc::new).collect(), acknowledged, done }
    }
}

/// A turn of a member's core.
pub(super) struct Turn {
    pub(super) member: Member,
    pub(super) now: Boot,
    pub(super) sent: Vec<Letter>,
    acknowledged: u8,
}

impl Turn {
    fn take(&mut self, input: Input<'_>, requests: &Requests) -> bool {
        match input {
            Input::Receive(letter) => self.receive(letter),
            Input::Persist(count) => {
                (0..count).for_each(|_| self.member.becomes_durable());
                self.run(|group, now, _, outputs| {
                    (0..count).for_each(|_| group.replica.persisted(now, outputs));
                });
            }
            Input::Tick => self.tick(),
            Input::Renew if self.member.core.is_some() => return self.renew_by_rolls(),
            Input::Renew => return self.renew(),
            Input::Submit(write) => {
                return self.run(|group, now, out, outputs| requests.submit(write, group, now, out, outputs));
            }
            Input::HandOver => {
                return self
                    .run(|group, now, _, outputs| group.is_quiet() && group.replica.hand_over(now, outputs));
            }
            Input::Crash(survive) => self.member.crash(survive, self.now),
            Input::Time => {}
            Input::Forget(lost) => self.member.forget(lost, self.now),
        }
        true
    }

    fn receive(&mut self, letter: &Letter) {
        let from = letter.from;
        match &letter.said {
            Said::Message(message) => {
                let message = message.clone();
                self.run(|group, now, _, outputs| group.replica.receive(now, from, message, outputs));
            }
            Said::Heartbeat { group: said, sent_at } => {
                let granted =
                    self.run(|group, now, _, outputs| group.replica.on_heartbeat(now, from, said, outputs));
                let answer = Said::HeartbeatAnswer { ballot: said.ballot, sent_at: *sent_at, granted };
                self.sent.push(Letter::new(letter.to, from, answer));
            }
            Said::HeartbeatAnswer { ballot, sent_at, granted } => {
                self.run(|group, now, _, outputs| match granted {
                    Ok(()) => group.replica.on_grant(now, from, *ballot, *sent_at),
                    Err(promised) => group.replica.on_lease_refused(now, from, *promised, outputs),
                });
            }
            Said::Roll(heartbeat) => self.receive_roll(from, heartbeat),
            Said::RollAnswer(answer) => self.receive_roll_answer(from, answer),
        }
    }

    fn renew(&mut self) -> bool {
        let (member, sent_at) = (&mut self.member, self.now);
        let Some(group) = member.group.replica.heartbeat(sent_at).filter(|_| member.said.is_none()) else {
            return false;
        };
        member.said = Some((sent_at, group));
        let others: Vec<NodeId> = member.group.replica.others().map(|other| other.node).collect();
        let from = node(member.place);
        let heartbeats =
            others.into_iter().map(|to| Letter::new(from, to, Said::Heartbeat { group, sent_at }));
        self.sent.extend(heartbeats);
        true
    }

    /// One input, then what the end of a turn does, then the effects.
    pub(super) fn run<T>(
        &mut self,
        input: impl FnOnce(&mut Group, Boot, &mut Effects, &mut Vec<Output>) -> T,
    ) -> T {
        self.wake();
        let (mut out, mut outputs) = (Effects::new(), Vec::new());
        let result = input(&mut self.member.group, self.now, &mut out, &mut outputs);
        self.perform(&mut outputs, &mut out);
        self.member.group.apply_committed(Now::new(self.now, 0), Causes::NONE, &mut out);
        self.member.group.replica.end_turn(self.now, &mut outputs);
        self.perform(&mut outputs, &mut out);
        for write in acknowledged(&mut out) {
            self.acknowledged |= 1 << write;
        }
        result
    }

    fn perform(&mut self, outputs: &mut Vec<Output>, out: &mut Effects) {
        for output in outputs.drain(..) {
            match output {
                Output::Persist(record) => self.member.appended.push_back(record),
                Output::Send { to, message } => {
                    let letter = Letter::new(node(self.member.place), to, Said::Message(message));
                    self.sent.push(letter);
                }
                Output::NeedsSnapshot { .. } => panic!("nothing is trimmed, so nobody needs a snapshot"),
                Output::MembersChanged => {}
                Output::LostLeadership => self.member.group.abandon(out),
            }
        }
    }
}
