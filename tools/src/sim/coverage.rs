//! What faults struck: how often each kind met a replica in each role. What stays at zero was never tried.

use super::cluster::Cluster;
use super::faults::Fault;
use super::network::HostId;
use super::world::{Node, World};
use evenkeel_dataplane::core::serving::Serving;
use evenkeel_dataplane::group::Group;
use evenkeel_wire::turn::Boot;
use std::collections::BTreeMap;
use std::fmt;

/// What a replica, or a host without replicas, was doing when a fault struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Leads and may serve.
    Ready,
    /// Leads, but waits for an older lease, its quorum or what it inherited.
    Leader,
    /// Asks for promises.
    Candidate,
    /// Follows.
    Follower,
    /// Lost what it had acknowledged, and does not vote yet.
    Refilling,
    /// Is being sent a snapshot.
    Receiving,
    /// A member that holds the log only.
    LogReplica,
    /// No member: not yet, or not any more.
    Learner,
    /// A storage core that reads its files.
    Starting,
    /// A process that is not alive.
    Down,
    /// A router.
    Router,
    /// A MemDS server.
    Memds,
    /// A client.
    Client,
    /// The fault found nobody to strike.
    Nobody,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 14] = [
        Self::Ready,
        Self::Leader,
        Self::Candidate,
        Self::Follower,
        Self::Refilling,
        Self::Receiving,
        Self::LogReplica,
        Self::Learner,
        Self::Starting,
        Self::Down,
        Self::Router,
        Self::Memds,
        Self::Client,
        Self::Nobody,
    ];

    fn of_replica(core: &Serving, group: &Group, now: Boot) -> Self {
        let replica = &group.replica;
        if replica.is_refilling() {
            Self::Refilling
        } else if core.is_receiving(replica.partition()) {
            Self::Receiving
        } else if core.may_serve(group, now) {
            Self::Ready
        } else if replica.is_leader() {
            Self::Leader
        } else if replica.is_candidate() {
            Self::Candidate
        } else if !replica.takes_part() {
            Self::Learner
        } else if !replica.stores() {
            Self::LogReplica
        } else {
            Self::Follower
        }
    }

    /// The roles on a host: one for each replica of a storage core.
    #[must_use]
    pub fn of_host(world: &World, id: HostId) -> Vec<Self> {
        let host = &world.hosts[id];
        match &host.node {
            None => vec![Self::Down],
            Some(Node::Storage(core)) => match core.serving() {
                None => vec![Self::Starting],
                Some(core) => {
                    let now = host.boot_now(world.now);
                    core.groups().map(|group| Self::of_replica(core, group, now)).collect()
                }
            },
            Some(Node::Router(_)) => vec![Self::Router],
            Some(Node::Memds(_)) => vec![Self::Memds],
            Some(Node::Client(_) | Node::Probe(_)) => vec![Self::Client],
        }
    }

    /// The roles of everybody.
    #[must_use]
    pub fn of_all(world: &World, cluster: &Cluster) -> BTreeMap<HostId, Vec<Self>> {
        let front = [&cluster.routers, &cluster.memds, &cluster.clients].into_iter().flatten().copied();
        cluster.storage().chain(front).map(|host| (host, Self::of_host(world, host))).collect()
    }
}

/// How often each kind of fault struck each role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The counts that are not zero.
    pub struck: BTreeMap<(Fault, Role), u64>,
}

impl Coverage {
    /// A fault struck a role so many times.
    pub fn count(&mut self, fault: Fault, role: Role, times: u64) {
        *self.struck.entry((fault, role)).or_default() += times;
    }

    /// Adds what another run covered.
    pub fn add(&mut self, other: &Self) {
        other.struck.iter().for_each(|((fault, role), times)| self.count(*fault, *role, *times));
    }

    /// How often a fault struck a role.
    #[must_use]
    pub fn of(&self, fault: Fault, role: Role) -> u64 {
        self.struck.get(&(fault, role)).copied().unwrap_or_default()
    }
}

/// A table: a row for each kind, a column for each role, and a dot for what was never struck.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<14}", "struck")?;
        for role in Role::ALL {
            write!(f, "{:>10}", format!("{role:?}"))?;
        }
        for fault in Fault::ALL {
            write!(f, "\n{:<14}", format!("{fault:?}"))?;
            for role in Role::ALL {
                match self.of(fault, role) {
                    0 => write!(f, "{:>10}", "·")?,
                    times => write!(f, "{times:>10}")?,
                }
            }
        }
        Ok(())
    }
}
