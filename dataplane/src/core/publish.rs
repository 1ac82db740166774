//! What MemDS is told: the groups that this core leads and serves. Storage cores are the authority (section
//! 6.6 of the ATC 2022 paper); a MemDS server that restarted has everything again a moment later.

use super::serving::Serving;
use crate::limits::PUBLISH_INTERVAL;
use crate::paxos::Replica;
use evenkeel_wire::ids::{PartitionId, RequestId};
use evenkeel_wire::message::routing::PublishRoutes;
use evenkeel_wire::table::{Route, RouteGeneration};
use evenkeel_wire::turn::{Boot, Effects, Endpoint};
use std::collections::BTreeMap;

/// Knows what was published.
#[derive(Debug)]
pub(super) struct Publisher {
    everything_at: Boot,
    published: BTreeMap<PartitionId, RouteGeneration>,
}

impl Publisher {
    pub(super) fn new(now: Boot) -> Self {
        Self { everything_at: now, published: BTreeMap::new() }
    }
}

impl Serving {
    pub(super) fn publish(&mut self, now: Boot, out: &mut Effects) {
        let everything = now >= self.publisher.everything_at;
        if everything {
            self.publisher.everything_at = now.after(PUBLISH_INTERVAL);
            self.publisher.published.clear();
        }
        let mut routes = Vec::new();
        for (partition, group) in &self.groups {
            let generation = generation_of(&group.replica);
            let known = self.publisher.published.get(partition) == Some(&generation);
            if !known && group.is_ready(now) {
                routes.push(self.route(*partition));
                self.publisher.published.insert(*partition, generation);
            }
        }
        if routes.is_empty() {
            return;
        }
        let publish = PublishRoutes { routes };
        for memds in &self.config.memds {
            out.ask(Endpoint::Outgoing(*memds), RequestId(0), &publish);
        }
    }

    /// The route of a group that this core leads.
    fn route(&self, partition: PartitionId) -> Route {
        let replica = &self.groups[&partition].replica;
        let config = replica.config();
        let members = self.config.route_members(config);
        let leader = members.iter().position(|member| member.node == self.config.node);
        Route {
            table: config.table,
            partition,
            start: config.start.clone(),
            end: config.end.clone(),
            generation: generation_of(replica),
            leader: leader.map(|place| place as u8),
            members,
        }
    }
}

/// How new what a replica says of its group is.
pub(super) fn generation_of(replica: &Replica) -> RouteGeneration {
    RouteGeneration {
        epoch: replica.epoch(),
        division: replica.config().division,
        ballot: replica.promised(),
    }
}
