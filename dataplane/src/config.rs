//! What a storage core is told when it starts: who it is, and where the others are.

use evenkeel_wire::ids::{CoreId, Incarnation, NodeId};
use evenkeel_wire::table::{GroupConfig, Member, RouteMember};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A storage node, as every process of a cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its availability zone.
    pub zone: String,
    /// Its data folder.
    pub incarnation: Incarnation,
    /// Where its cores listen.
    pub cores: Vec<SocketAddr>,
}

/// A storage core's configuration.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// The data folder that was found; it need not be the one that the configuration names for this node.
    pub incarnation: Incarnation,
    /// All storage nodes.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// All MemDS servers.
    pub memds: Vec<SocketAddr>,
    /// Members of the system partition, in the order in which they stand for leadership.
    pub system: Vec<Member>,
    /// Bytes of the page cache.
    pub cache_bytes: usize,
    /// Seeds the core's generator.
    pub seed: u64,
}

impl CoreConfig {
    /// Where a core listens.
    #[must_use]
    pub fn address(&self, node: NodeId, core: CoreId) -> Option<SocketAddr> {
        self.nodes.get(&node)?.cores.get(usize::from(core.0)).copied()
    }

    /// All cores of the cluster.
    pub fn cores(&self) -> impl Iterator<Item = (NodeId, CoreId)> + '_ {
        let of_node = |(node, info): (&NodeId, &NodeInfo)| {
            let node = *node;
            (0..info.cores.len()).map(move |core| (node, CoreId(core as u16)))
        };
        self.nodes.iter().flat_map(of_node)
    }

    /// This core as a member of groups.
    #[must_use]
    pub fn member(&self) -> Member {
        Member { node: self.node, core: self.core, incarnation: self.incarnation }
    }

    /// The storage replicas of a group as routers need them. One whose node is not configured is left out.
    #[must_use]
    pub fn route_members(&self, group: &GroupConfig) -> Vec<RouteMember> {
        let route = |member: &Member| {
            let address = self.address(member.node, member.core)?.into();
            Some(RouteMember { node: member.node, core: member.core, address })
        };
        group.members.iter().filter(|member| group.stores(member.node)).filter_map(route).collect()
    }
}
