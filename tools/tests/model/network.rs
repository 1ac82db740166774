//! Messages on their way: a set, from which any may be delivered next, or lost.

use super::digest::Collected;
use super::member::place;
use evenkeel_dataplane::core::messages;
use evenkeel_dataplane::paxos::{Message, Replica};
use evenkeel_wire::ids::{Ballot, Epoch, NodeId, PartitionId};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer, HeartbeatException, HeartbeatGroup};
use evenkeel_wire::turn::{Boot, ConnectionId, Effects, Endpoint};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// By one replica to another.
    Message(Message),
    /// By a leader's core, of this group.
    Heartbeat {
        /// What it says.
        group: HeartbeatGroup,
        /// When, by its clock.
        sent_at: Boot,
    },
    /// To a heartbeat.
    HeartbeatAnswer {
        /// The heartbeat's ballot.
        ballot: Ballot,
        /// When the heartbeat was sent.
        sent_at: Boot,
        /// Whether a lease is granted.
        granted: Result<(), Ballot>,
    },
    /// By a core, of all groups that it leads.
    Roll(Heartbeat),
    /// To that.
    RollAnswer(HeartbeatAnswer),
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    /// Who sent it.
    pub(crate) from: NodeId,
    /// To whom.
    pub(crate) to: NodeId,
    /// What it says.
    pub(crate) said: Said,
    /// Hash of all of it.
    pub(crate) digest: u64,
}

impl Letter {
    /// A letter. Messages enter its digest as the bytes that ship would send.
    pub(crate) fn new(from: NodeId, to: NodeId, said: Said) -> Self {
        let mut hasher = Collected::new();
        (from, to).hash(&mut hasher);
        match &said {
            Said::Message(message) => {
                let mut out = Effects::new();
                let endpoint = Endpoint::Incoming(ConnectionId(0));
                messages::send(endpoint, messages::header(PartitionId(1), Epoch(1)), message, &mut out);
                out.take_outboxes().for_each(|(_, bytes)| hasher.write(&bytes));
            }
            Said::Heartbeat { group, sent_at } => {
                let HeartbeatGroup { partition: _, epoch: _, ballot, commit, holds_lease } = group;
                (1u8, ballot, commit, holds_lease, sent_at.0).hash(&mut hasher);
            }
            Said::HeartbeatAnswer { ballot, sent_at, granted } => {
                (2u8, ballot, sent_at.0, granted).hash(&mut hasher);
            }
            Said::Roll(Heartbeat { sent_at, roll, since, version, changes }) => {
                (3u8, sent_at, roll, since, version).hash(&mut hasher);
                for HeartbeatGroup { partition, epoch, ballot, commit, holds_lease } in changes {
                    (partition, epoch, ballot, commit, holds_lease).hash(&mut hasher);
                }
            }
            Said::RollAnswer(HeartbeatAnswer { sent_at, version, exceptions }) => {
                (4u8, sent_at, version).hash(&mut hasher);
                for HeartbeatException { partition, promised } in exceptions {
                    (partition, promised).hash(&mut hasher);
                }
            }
        }
        Self { from, to, said, digest: hasher.finish() }
    }

    /// Whether it can never have an effect any more on the replica that it is for: an answer to a candidacy
    /// or leadership that is over. No replica stands or leads twice under one ballot.
    fn is_void(&self, replica: &Replica) -> bool {
        let (leads, stands) = (replica.is_leader(), replica.is_candidate());
        match &self.said {
            Said::Message(Message::Promise(promise)) => promise.ballot != replica.promised() || !stands,
            Said::Message(Message::Fetched { ballot, .. }) => *ballot != replica.promised() || !stands,
            Said::Message(Message::Accepted(accepted)) => accepted.ballot != replica.promised() || !leads,
            Said::HeartbeatAnswer { ballot, granted: Ok(()), .. } => *ballot != replica.promised() || !leads,
            Said::Message(_) | Said::Heartbeat { .. } | Said::HeartbeatAnswer { .. } => false,
            // The rolls of a core outlive a leadership.
            Said::Roll(_) | Said::RollAnswer(_) => false,
        }
    }
}

/// All messages on their way, ordered by their digests. One that is sent while an equal one is on its way is
/// not told from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Network {
    letters: Vec<Arc<Letter>>,
}

impl Network {
    /// All of them.
    pub(crate) fn letters(&self) -> &[Arc<Letter>] {
        &self.letters
    }

    /// Adds a letter.
    pub(crate) fn send(&mut self, letter: &Arc<Letter>) {
        let found = self.letters.binary_search_by_key(&letter.digest, |letter| letter.digest);
        if let Err(index) = found {
            self.letters.insert(index, Arc::clone(letter));
        }
    }

    /// Takes a letter out.
    pub(crate) fn take(&mut self, index: usize) -> Arc<Letter> {
        self.letters.remove(index)
    }

    /// Forgets letters without effect, and those to who holds no replica.
    pub(crate) fn forget_void<'a>(&mut self, replica: impl Fn(usize) -> Option<&'a Replica>) {
        self.letters.retain(|letter| replica(place(letter.to)).is_some_and(|to| !letter.is_void(to)));
    }
}
