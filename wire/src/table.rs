//! Tables, groups and routes: what the catalogue stores, what leaders publish, and what routers cache.

use crate::entry::Split;
use crate::ids::{Ballot, CoreId, Epoch, Incarnation, NodeId, PartitionId, Slot, TableId};
use crate::key::{HashKey, KeyBytes, KeySchema, KeyType};
use crate::membership::{Membership, REPLICAS};
use crate::message::peer::LogPoint;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A socket address as it is stored and sent: IPv4 is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Address {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        let ip = Ipv6Addr::from(address.ip);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Self::new(ip, address.port)
    }
}

impl From<&ArchivedAddress> for Address {
    fn from(archived: &ArchivedAddress) -> Self {
        Self { ip: archived.ip, port: archived.port.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// Provisioned capacity, units a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Throughput {
    /// Read capacity units: strong reads of 4 KB.
    pub read_units: u64,
    /// Write capacity units: writes of 1 KB.
    pub write_units: u64,
}

/// How a table's capacity is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Billing {
    /// Whatever the traffic needs (developer guide, on-demand capacity).
    OnDemand,
    /// A fixed number of units.
    Provisioned(Throughput),
}

/// Where a table is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy, PartialEq, Eq))]
pub enum TableStatus {
    /// Its replicas are being created.
    Creating,
    /// It serves requests.
    Active,
    /// Its replicas are being removed.
    Deleting,
}

impl From<ArchivedTableStatus> for TableStatus {
    fn from(archived: ArchivedTableStatus) -> Self {
        match archived {
            ArchivedTableStatus::Creating => Self::Creating,
            ArchivedTableStatus::Active => Self::Active,
            ArchivedTableStatus::Deleting => Self::Deleting,
        }
    }
}

/// A table as clients and routers know it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TableDescriptor {
    /// Its id, never used again.
    pub id: TableId,
    /// Its name, unique among living tables.
    pub name: String,
    /// Which attributes are the key.
    pub schema: KeySchema,
    /// Keys the placement hash; see `key`.
    pub hash_key: HashKey,
    /// Where it is in its life.
    pub status: TableStatus,
    /// How its capacity is given.
    pub billing: Billing,
    /// Milliseconds since 1970 of the create request.
    pub created_ms: u64,
    /// Position of the catalogue's last change to this record; newer wins.
    pub generation: u64,
    /// How many partitions it has.
    pub partitions: u32,
}

impl TableDescriptor {
    /// The table of tables: every process knows it without asking. Its key is a table's name, its hash key is
    /// zero.
    #[must_use]
    pub fn system() -> Self {
        Self {
            id: TableId::SYSTEM,
            name: SYSTEM_TABLE_NAME.to_owned(),
            schema: KeySchema::partition_only("name", KeyType::S),
            hash_key: HashKey([0; 16]),
            status: TableStatus::Active,
            billing: Billing::OnDemand,
            created_ms: 0,
            generation: 0,
            partitions: 1,
        }
    }
}

/// The name of the table of tables, which no other table can have.
pub const SYSTEM_TABLE_NAME: &str = "$system";

/// A member of a replication group: a core of a node, in one life of that node's data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The core that holds the replica.
    pub core: CoreId,
    /// The data folder. An emptied folder is another member.
    pub incarnation: Incarnation,
}

impl From<&ArchivedMember> for Member {
    fn from(archived: &ArchivedMember) -> Self {
        Self {
            node: (&archived.node).into(),
            core: (&archived.core).into(),
            incarnation: (&archived.incarnation).into(),
        }
    }
}

/// A replication group as it is created: who its members are and which storage keys it holds.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct GroupConfig {
    /// The partition, which is also the group's id.
    pub partition: PartitionId,
    /// The table.
    pub table: TableId,
    /// First storage key of the range, inclusive. Empty: from the beginning.
    pub start: Vec<u8>,
    /// End of the range, exclusive. Empty: to the end.
    pub end: Vec<u8>,
    /// Membership epoch.
    pub epoch: Epoch,
    /// The members. The first stands for leadership first.
    pub members: Vec<Member>,
    /// See [`Membership::log_replicas`].
    pub log_replicas: Vec<NodeId>,
    /// See [`Membership::former`].
    pub former: Option<Member>,
    /// The epoch that it was made in: only then are its members those that create it.
    pub birth: Epoch,
    /// How often its range, and before that its parent's, was divided.
    pub division: u32,
    /// The split that made it; none: it was created empty.
    pub origin: Option<Origin>,
    /// The last split of it.
    pub last_split: Option<LastSplit>,
}

/// The split that made a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Origin {
    /// The group that was split.
    pub parent: PartitionId,
    /// Where in its log.
    pub slot: Slot,
}

/// A split as the group remembers it that was split.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LastSplit {
    /// The entry.
    pub at: LogPoint,
    /// Who holds what was given away, from the group's present end on.
    pub child: PartitionId,
    /// End of that, exclusive. Empty: to the end.
    pub child_end: Vec<u8>,
    /// Who was in both then.
    pub members: Vec<Member>,
    /// Those of them that held the log only.
    pub log_replicas: Vec<NodeId>,
    /// See [`Membership::former`].
    pub former: Option<Member>,
    /// The membership epoch of that.
    pub epoch: Epoch,
}

impl GroupConfig {
    /// A group that is created empty, in its first epoch, and holds every key.
    #[must_use]
    pub fn whole(partition: PartitionId, table: TableId, members: Vec<Member>) -> Self {
        Self {
            partition,
            table,
            start: Vec::new(),
            end: Vec::new(),
            epoch: Epoch(1),
            members,
            log_replicas: Vec::new(),
            former: None,
            birth: Epoch(1),
            division: 0,
            origin: None,
            last_split: None,
        }
    }

    /// Who is in the group.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership {
            epoch: self.epoch,
            members: self.members.clone(),
            log_replicas: self.log_replicas.clone(),
            former: self.former,
        }
    }

    /// The group with these members.
    #[must_use]
    pub fn with_membership(self, membership: Membership) -> Self {
        let Membership { epoch, members, log_replicas, former } = membership;
        Self { epoch, members, log_replicas, former, ..self }
    }

    /// Whether the replica on a core is a member.
    #[must_use]
    pub fn has_member(&self, node: NodeId, core: CoreId) -> bool {
        self.members.iter().any(|member| (member.node, member.core) == (node, core))
    }

    /// Whether nothing is to be done about its members: all have the items, there are not too many, and
    /// nobody is to be taken back.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.members.len() <= REPLICAS && self.log_replicas.is_empty() && self.former.is_none()
    }

    /// Whether a node's replica holds the partition's items and may lead.
    #[must_use]
    pub fn stores(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node) && !self.log_replicas.contains(&node)
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        lies_within(key, &self.start, &self.end)
    }

    /// Whether a split may divide the range at `border`: both parts can hold keys.
    #[must_use]
    pub fn can_divide_at(&self, border: &[u8]) -> bool {
        border > self.start.as_slice() && self.contains(border)
    }

    /// The group that `split`, the entry at `at`, makes of a part of this one.
    #[must_use]
    pub fn child(&self, split: &Split, at: LogPoint) -> Self {
        let child = Self {
            partition: split.child,
            table: self.table,
            start: split.border.to_vec(),
            end: split.end.to_vec(),
            birth: split.members.epoch,
            division: split.division,
            origin: Some(Origin { parent: self.partition, slot: at.slot }),
            last_split: None,
            ..self.clone()
        };
        child.with_membership(split.members.clone())
    }

    /// Gives away what `split`, the entry at `at`, gives to the child. Nothing happens when this is so
    /// already.
    pub fn divide(&mut self, split: &Split, at: LogPoint) {
        if self.division >= split.division {
            return;
        }
        self.division = split.division;
        self.end = split.border.to_vec();
        let members = split.members.clone();
        self.last_split = Some(LastSplit {
            at,
            child: split.child,
            child_end: split.end.to_vec(),
            members: members.members,
            log_replicas: members.log_replicas,
            former: members.former,
            epoch: members.epoch,
        });
    }

    /// The group that the last split made.
    #[must_use]
    pub fn last_child(&self) -> Option<Self> {
        let last = self.last_split.as_ref()?;
        Some(Self {
            partition: last.child,
            start: self.end.clone(),
            end: last.child_end.clone(),
            epoch: last.epoch,
            members: last.members.clone(),
            log_replicas: last.log_replicas.clone(),
            former: last.former,
            birth: last.epoch,
            origin: Some(Origin { parent: self.partition, slot: last.at.slot }),
            last_split: None,
            ..self.clone()
        })
    }
}

/// A member as a router needs it: where it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RouteMember {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// The core's listening address.
    pub address: Address,
}

impl From<&ArchivedRouteMember> for RouteMember {
    fn from(archived: &ArchivedRouteMember) -> Self {
        Self {
            node: (&archived.node).into(),
            core: (&archived.core).into(),
            address: (&archived.address).into(),
        }
    }
}

/// How new a route is: a later membership, within one membership a range that was divided more often, and
/// within that a later leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct RouteGeneration {
    /// Membership epoch of the group.
    pub epoch: Epoch,
    /// How often the range was divided.
    pub division: u32,
    /// Ballot of the leader, zero while nobody led.
    pub ballot: Ballot,
}

impl From<&ArchivedRouteGeneration> for RouteGeneration {
    fn from(archived: &ArchivedRouteGeneration) -> Self {
        Self {
            epoch: (&archived.epoch).into(),
            division: archived.division.into(),
            ballot: (&archived.ballot).into(),
        }
    }
}

/// Whether a storage key lies in `start <= key < end`, where empty bounds are none.
fn lies_within(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    (start.is_empty() || key >= start) && (end.is_empty() || key < end)
}

/// Where a range of a table is served.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Route {
    /// The table.
    pub table: TableId,
    /// The partition.
    pub partition: PartitionId,
    /// First storage key, inclusive; empty: from the beginning.
    pub start: KeyBytes,
    /// End, exclusive; empty: to the end.
    pub end: KeyBytes,
    /// Older never overwrites newer.
    pub generation: RouteGeneration,
    /// Place of the leader in `members`, if one is known.
    pub leader: Option<u8>,
    /// The storage replicas.
    pub members: Vec<RouteMember>,
}

impl Route {
    /// The leader, if one is known.
    #[must_use]
    pub fn leader(&self) -> Option<&RouteMember> {
        self.members.get(usize::from(self.leader?))
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        lies_within(key, &self.start, &self.end)
    }
}

impl From<&ArchivedRoute> for Route {
    fn from(archived: &ArchivedRoute) -> Self {
        Self {
            table: (&archived.table).into(),
            partition: (&archived.partition).into(),
            start: KeyBytes::from_slice(&archived.start),
            end: KeyBytes::from_slice(&archived.end),
            generation: (&archived.generation).into(),
            leader: archived.leader.as_ref().copied(),
            members: archived.members.iter().map(RouteMember::from).collect(),
        }
    }
}

/// What a wrongly contacted core knows about who should have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RouteHint {
    /// The partition that was asked for.
    pub partition: PartitionId,
    /// How new this is.
    pub generation: RouteGeneration,
    /// Who leads.
    pub leader: RouteMember,
}

impl From<&ArchivedRouteHint> for RouteHint {
    fn from(archived: &ArchivedRouteHint) -> Self {
        Self {
            partition: (&archived.partition).into(),
            generation: (&archived.generation).into(),
            leader: (&archived.leader).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_wire_form() {
        for text in ["127.0.0.1:7400", "[::1]:7401", "[2001:db8::7]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).to_string(), text);
        }
    }

    #[test]
    fn an_empty_end_means_to_the_end() {
        let config = |start: &[u8], end: &[u8]| GroupConfig {
            start: start.to_vec(),
            end: end.to_vec(),
            ..GroupConfig::whole(PartitionId(1), TableId(1), Vec::new())
        };
        assert!(config(b"", b"").contains(b"anything"));
        assert!(config(b"b", b"").contains(b"b") && !config(b"b", b"").contains(b"a"));
        assert!(!config(b"a", b"c").contains(b"c"));
        assert!(config(b"a", b"c").can_divide_at(b"b"));
        assert!(!config(b"a", b"c").can_divide_at(b"a") && !config(b"a", b"c").can_divide_at(b"c"));
        assert!(!config(b"", b"").can_divide_at(b""));
    }
}
