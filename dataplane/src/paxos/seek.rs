//! Looking for the log that the leader has trimmed.
//!
//! A replica that is behind what its leader has at hand is sent the partition's state. Another member may
//! still have the log: a log replica keeps it until every storage replica has it. So while the state comes,
//! the others are asked for it. What they have is taken only when it reaches the state's own place: that is
//! committed, and an entry's hash names all that is before it. Then the state is not needed.
//!
//! This is more than a saving. A replica that is behind a split has the items of both halves. The state of
//! one of them, from behind the split, takes their place, and until the other half's state has come, too,
//! those items may be on one disk alone. So such a state waits until nobody is left who could have the log,
//! or for [`SEEK_FOR`].

use super::acceptor::check_entry;
use super::{MEMBERS_MAX, Message, Output, Replica, Role};
use crate::limits::{SEEK_AGAIN_AFTER, SEEK_BYTES_MAX, SEEK_FOR};
use arrayvec::ArrayVec;
use bytes::Bytes;
use evenkeel_wire::entry::Entry;
use evenkeel_wire::ids::{Ballot, NodeId, PartitionId};
use evenkeel_wire::message::peer::{Fetch, LogPoint};
use evenkeel_wire::turn::Boot;

/// A search.
#[derive(Clone, Debug)]
pub(super) struct Seek {
    /// The leader's, under which the others answer.
    ballot: Ballot,
    /// Where the leader's state is: this is committed.
    goal: LogPoint,
    until: Boot,
    /// Who may have it; the first is being asked.
    left: ArrayVec<NodeId, MEMBERS_MAX>,
    asked_at: Boot,
    /// What the one that is asked has given: entries up to here, which begin behind the commit position.
    reached: LogPoint,
    found: Vec<Bytes>,
    found_bytes: usize,
}

impl Seek {
    /// Takes an entry, if it is the one that follows what was found.
    fn take(&mut self, partition: PartitionId, bytes: &Bytes) -> bool {
        let reached = self.reached;
        let follows =
            |entry: &Entry| entry.header.slot == reached.slot.next() && entry.header.previous == reached.hash;
        let Some(entry) = check_entry(partition, bytes).ok().filter(follows) else {
            return false;
        };
        self.reached = LogPoint { slot: entry.header.slot, hash: entry.hash };
        self.found_bytes += bytes.len();
        self.found.push(bytes.clone());
        true
    }

    fn has_passed(&self) -> bool {
        self.reached.slot >= self.goal.slot
    }
}

impl Replica {
    /// The leader sends the state at `goal`. Asks the others for the log up to there, log replicas first.
    pub fn seek_log(&mut self, now: Boot, goal: LogPoint, out: &mut Vec<Output>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let Some(leader) = follower.leader.filter(|_| self.stores) else {
            return;
        };
        let under_way = self.seek.as_ref().is_some_and(|seek| seek.ballot == self.promised);
        if under_way || goal.slot <= self.commit {
            return;
        }
        let others = || self.others().map(|member| member.node).filter(|node| *node != leader);
        let is_log_replica = |node: &NodeId| self.config.log_replicas.contains(node);
        let left = others().filter(is_log_replica).chain(others().filter(|node| !is_log_replica(node)));
        self.seek = Some(Seek {
            ballot: self.promised,
            goal,
            until: now.after(SEEK_FOR),
            left: left.collect(),
            asked_at: now,
            reached: LogPoint::default(),
            found: Vec::new(),
            found_bytes: 0,
        });
        self.ask_anew(now, out);
    }

    /// Whether somebody may still have the log that this replica needs.
    #[must_use]
    pub fn is_seeking(&self) -> bool {
        self.seek.is_some()
    }

    pub(super) fn tick_seek(&mut self, now: Boot, out: &mut Vec<Output>) {
        let is_follower = matches!(self.role, Role::Follower(_));
        let Some(seek) = &mut self.seek else {
            return;
        };
        if !is_follower || seek.ballot != self.promised || now >= seek.until || seek.goal.slot <= self.commit
        {
            self.seek = None;
        } else if now.since(seek.asked_at) >= SEEK_AGAIN_AFTER {
            // It may be down, and another one not.
            seek.left.rotate_left(1);
            self.ask_anew(now, out);
        }
    }

    /// Asks the first that is left, from the commit position on. Without one, the search is over.
    fn ask_anew(&mut self, now: Boot, out: &mut Vec<Output>) {
        let commit = self.log.point(self.commit).expect("what is committed is at hand or the base");
        if let Some(seek) = &mut self.seek {
            (seek.reached, seek.found_bytes) = (commit, 0);
            seek.found.clear();
        }
        self.ask_on(now, out);
    }

    fn ask_on(&mut self, now: Boot, out: &mut Vec<Output>) {
        let Some(seek) = &mut self.seek else {
            return;
        };
        let Some(first) = seek.left.first().copied() else {
            self.seek = None;
            return;
        };
        seek.asked_at = now;
        let fetch = Fetch { ballot: seek.ballot, after: seek.reached };
        self.send(first, Message::Fetch(fetch), out);
    }

    /// Entries of another member have come, behind `previous`.
    pub(super) fn on_sought(
        &mut self,
        now: Boot,
        from: NodeId,
        ballot: Ballot,
        previous: LogPoint,
        entries: &[Bytes],
        out: &mut Vec<Output>,
    ) {
        let (partition, promised, last) = (self.partition(), self.promised, self.log.last());
        let Some(seek) = &mut self.seek else {
            return;
        };
        let is_answer = seek.left.first() == Some(&from) && seek.reached == previous;
        if !is_answer || ballot != promised || seek.ballot != promised {
            return;
        }
        if entries.is_empty() && seek.found.is_empty() && previous.slot < last.slot {
            // Its log begins further on, perhaps within this one: the chain can go on where that ends.
            seek.reached = last;
            return self.ask_on(now, out);
        }
        let chains = !entries.is_empty()
            && entries.iter().all(|bytes| seek.has_passed() || seek.take(partition, bytes));
        if seek.reached == seek.goal {
            let Seek { goal, found, .. } = self.seek.take().expect("it was just found");
            // The chain ends in what is committed: whatever differs here is not.
            if self.adopt(&found, out).is_ok() {
                self.confirm(goal);
            }
            return;
        }
        if !chains || seek.has_passed() || seek.found_bytes > SEEK_BYTES_MAX {
            // It has trimmed its log, or has another one.
            seek.left.remove(0);
            self.ask_anew(now, out);
        } else {
            self.ask_on(now, out);
        }
    }
}
