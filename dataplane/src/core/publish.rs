//! What MemDS is told: the groups that this core leads and serves. Storage cores are the authority (section
//! 6.6 of the ATC 2022 paper).
//!
//! A server is told everything when a link to it comes up, so one that restarted has everything a moment
//! later, and then what changes. Once a second it is told a few routes again, in turn: that keeps the link
//! up, and mends in time what no rule foresees. What that costs does not depend on how many groups there are.

use super::serving::Serving;
use crate::group::Group;
use crate::limits::{PUBLISH_AGAIN_ROUTES, PUBLISH_INTERVAL, PUBLISH_ROUTES_MAX};
use crate::paxos::Replica;
use evenkeel_wire::ids::{PartitionId, RequestId};
use evenkeel_wire::message::routing::PublishRoutes;
use evenkeel_wire::table::{Route, RouteGeneration};
use evenkeel_wire::turn::{Boot, Effects, Endpoint};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;

/// Knows what was published.
#[derive(Debug)]
pub(super) struct Publisher {
    published: BTreeMap<PartitionId, RouteGeneration>,
    /// Servers that may know nothing.
    everything_to: BTreeSet<SocketAddr>,
    again_at: Boot,
    /// The last group that was published again.
    again_after: Option<PartitionId>,
}

impl Publisher {
    pub(super) fn new(now: Boot) -> Self {
        let (published, everything_to) = (BTreeMap::new(), BTreeSet::new());
        Self { published, everything_to, again_at: now, again_after: None }
    }

    /// A link to a server came up: it may have restarted, and what was sent before may be lost.
    pub(super) fn link_up(&mut self, memds: SocketAddr) {
        self.published.clear();
        self.everything_to.insert(memds);
    }

    /// Whether all servers were told that this core leads the group.
    pub(super) fn knows(&self, group: &Group) -> bool {
        self.published.get(&group.replica.partition()) == Some(&generation_of(&group.replica))
    }

    fn note(&mut self, group: &Group) {
        self.published.insert(group.replica.partition(), generation_of(&group.replica));
    }

    /// The groups whose turn it is to be published again.
    fn again(&mut self, groups: &BTreeMap<PartitionId, Group>) -> Vec<PartitionId> {
        let after = self.again_after.map_or(Bound::Unbounded, Bound::Excluded);
        let led = groups.range((after, Bound::Unbounded)).filter(|(_, group)| group.replica.is_leader());
        let again: Vec<PartitionId> =
            led.map(|(partition, _)| *partition).take(PUBLISH_AGAIN_ROUTES).collect();
        // At the end, from the beginning.
        self.again_after = again.last().copied();
        again
    }
}

impl Serving {
    pub(super) fn publish(&mut self, now: Boot, out: &mut Effects) {
        let mut news = Vec::new();
        for group in self.heartbeats.awake().filter_map(|partition| self.groups.get(&partition)) {
            if !self.publisher.knows(group) && group.is_ready(now) {
                news.push(self.route(group));
                self.publisher.note(group);
            }
        }
        self.publish_to(&self.config.memds, &news, out);
        let everything_to: Vec<SocketAddr> =
            std::mem::take(&mut self.publisher.everything_to).into_iter().collect();
        if !everything_to.is_empty() {
            let served = self.groups.values().filter(|group| self.may_serve(group, now));
            let served: Vec<&Group> = served.collect();
            let everything: Vec<Route> = served.iter().map(|group| self.route(group)).collect();
            self.publish_to(&everything_to, &everything, out);
            served.iter().for_each(|group| self.publisher.note(group));
        }
        if now >= self.publisher.again_at {
            self.publisher.again_at = now.after(PUBLISH_INTERVAL);
            let again = self.publisher.again(&self.groups);
            let again = again.iter().map(|partition| &self.groups[partition]);
            let routes = again.filter(|group| self.may_serve(group, now)).map(|group| self.route(group));
            let publish = PublishRoutes { routes: routes.collect() };
            for memds in &self.config.memds {
                out.ask(Endpoint::Outgoing(*memds), RequestId(0), &publish);
            }
        }
    }

    fn publish_to(&self, servers: &[SocketAddr], routes: &[Route], out: &mut Effects) {
        for routes in routes.chunks(PUBLISH_ROUTES_MAX) {
            let publish = PublishRoutes { routes: routes.to_vec() };
            for memds in servers {
                out.ask(Endpoint::Outgoing(*memds), RequestId(0), &publish);
            }
        }
    }

    /// The route of a group that this core leads.
    fn route(&self, group: &Group) -> Route {
        let replica = &group.replica;
        let config = replica.config().clone().with_membership(replica.committed_members().clone());
        let members = self.config.route_members(&config);
        let leader = members.iter().position(|member| member.node == self.config.node);
        Route {
            table: config.table,
            partition: config.partition,
            start: config.start.into(),
            end: config.end.into(),
            generation: generation_of(replica),
            leader: leader.map(|place| place as u8),
            members,
        }
    }
}

/// How new what a replica says of its group is.
pub(super) fn generation_of(replica: &Replica) -> RouteGeneration {
    RouteGeneration {
        // What is not committed may be superseded, and a later leader's routes would count as older.
        epoch: replica.committed_members().epoch,
        division: replica.config().division,
        ballot: replica.promised(),
    }
}
