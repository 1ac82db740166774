//! Leaderships that are given away in good order, so that no request fails and few notice.
//!
//! ```text
//!   the leader                            its follower
//!   holds new writes, serves reads
//!   nobody waits for a write any more
//!   HandOver ───────────────────────────► holds requests, stands, leads, asks for its lease
//!   holds all requests                    its first entry commits: serves what it held
//!   hears its first entry: answers what
//!   it held with the new leader's name
//! ```
//!
//! Routers go where that answer sends them. Nobody is held for longer than `HAND_OVER_PATIENCE`: then a
//! leader that could not give its leadership away serves on, and who hears of no successor says so. Few
//! groups are handed over at once; the others are served meanwhile.
//!
//! A core gives everything away when it drains, and when its log has become slow while followers acknowledge
//! what it has not yet on its own disk.

use super::serving::Serving;
use crate::group::Group;
use crate::limits::{
    DRAIN_LINGER, DRAIN_PATIENCE, DRAIN_TIME_MAX, HAND_OVERS_MAX, LEAVE_AGAIN_AFTER, LEAVE_WITHIN, LOG_SLOW,
    LOG_SLOW_FOR,
};
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::turn::{Boot, Effects, Now};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Leaderships on their way to others.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    under_way: BTreeSet<PartitionId>,
    /// The last group whose hand-over was begun.
    last: Option<PartitionId>,
    /// When a leadership was last given away.
    given_at: Option<Boot>,
    /// Since when the log is slow.
    slow_since: Option<Boot>,
    /// When the core began to give everything away because of that.
    left_at: Option<Boot>,
}

impl Serving {
    /// Begins to hand a group over, if this core leads it.
    fn begin_hand_over(&mut self, partition: PartitionId, now: Boot) {
        if let Some(group) = self.groups.get_mut(&partition)
            && group.replica.is_leader()
        {
            self.heartbeats.wake(group);
            group.await_successor(now, group.replica.promised());
            self.hand_overs.under_way.insert(partition);
        }
    }

    /// Looks whether the core has to give everything away because its log is slow.
    pub(super) fn watch_log(&mut self, now: Boot) {
        if self.log.write_takes(now) < LOG_SLOW {
            self.hand_overs.slow_since = None;
            return;
        }
        let since = *self.hand_overs.slow_since.get_or_insert(now);
        let again = self.hand_overs.left_at.is_none_or(|at| now.since(at) >= LEAVE_AGAIN_AFTER);
        let overtaken = |group: &Group| {
            let replica = &group.replica;
            replica.is_leader() && replica.commit() > replica.durable()
        };
        if now.since(since) >= LOG_SLOW_FOR && again && self.groups.values().any(overtaken) {
            let (node, core) = (self.config.node, self.config.core);
            tracing::warn!(%node, %core, "the log is slow: leaderships go to faster members");
            self.hand_overs.left_at = Some(now);
        }
    }

    fn gives_everything_away(&self, now: Boot) -> bool {
        let left_at = self.hand_overs.left_at;
        self.draining_since.is_some() || left_at.is_some_and(|at| now.since(at) < LEAVE_WITHIN)
    }

    /// Goes on with what is under way; `ticks`: and begins to hand over what else this core is to give away.
    pub(super) fn advance_hand_overs(&mut self, now: Now, ticks: bool, out: &mut Effects) {
        let everything = self.gives_everything_away(now.boot);
        if !everything && self.hand_overs.under_way.is_empty() {
            return;
        }
        if everything && ticks {
            self.begin_more(now.boot);
        }
        loop {
            let given = self.give_away(now, out);
            if !everything || !given {
                break;
            }
            self.begin_more(now.boot);
        }
        if let Some(since) = self.draining_since {
            out.drained = self.is_drained(now.boot, since);
        }
    }

    /// Gives away what nobody waits for. Returns whether a hand-over came to its end.
    fn give_away(&mut self, now: Now, out: &mut Effects) -> bool {
        let mut ended = false;
        for partition in self.hand_overs.under_way.clone() {
            let Some(group) = self.groups.get_mut(&partition) else {
                self.hand_overs.under_way.remove(&partition);
                continue;
            };
            if !group.awaits_successor(now.boot) {
                ended |= !group.replica.is_leader();
                self.hand_overs.under_way.remove(&partition);
            } else if group.hand_over(now.boot, &mut self.outputs) {
                self.hand_overs.given_at = Some(now.boot);
                self.perform(partition, now, out);
            }
        }
        ended
    }

    /// Begins as many hand-overs as may be under way, in turn: one that cannot be done holds up no other.
    fn begin_more(&mut self, now: Boot) {
        let room = HAND_OVERS_MAX.saturating_sub(self.hand_overs.under_way.len());
        let after = self.hand_overs.last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.groups.range((after, Bound::Unbounded));
        let all = behind.chain(self.groups.iter());
        let led = all.filter(|(partition, group)| {
            group.replica.is_leader() && !self.hand_overs.under_way.contains(*partition)
        });
        let next: Vec<PartitionId> = led.map(|(partition, _)| *partition).take(room).collect();
        for partition in next {
            self.begin_hand_over(partition, now);
            self.hand_overs.last = Some(partition);
        }
    }

    /// Whether a draining core may end: it has given away what it could, and routers have had time to learn
    /// of it. Killing is safe, so a log that others keep busy is no reason to stay.
    fn is_drained(&self, now: Boot, since: Boot) -> bool {
        let given_at = self.hand_overs.given_at;
        let idle_for = now.since(given_at.map_or(since, |at| at.max(since)));
        if idle_for >= DRAIN_PATIENCE || now.since(since) >= DRAIN_TIME_MAX {
            return true;
        }
        let leads = self.groups.values().any(|group| group.replica.is_leader());
        let told = given_at.is_none() || idle_for >= DRAIN_LINGER;
        !leads && told && self.store.held() == 0 && self.log.is_idle()
    }
}
