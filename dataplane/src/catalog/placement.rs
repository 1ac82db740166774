//! Where a new table's replicas go: each partition on three nodes in three availability zones.
//!
//! A cluster that is a single node has groups of one member, for measuring and development
//! (docs/decisions/0011-single-member.md).
//!
//! Within a zone the node with the fewest replicas is taken, then its cores in turn. The first member of a
//! group stands for leadership first, so the zones take turns in being first.

use crate::config::NodeInfo;
use crate::paxos::REPLICAS;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::ids::{CoreId, NodeId, PartitionId, TableId};
use evenkeel_wire::table::{GroupConfig, Member};
use std::collections::BTreeMap;

/// Places the partitions of a table. `held` says how many replicas each node holds already.
///
/// # Errors
/// When there are fewer than three zones, and more than one node.
pub fn place(
    table: TableId,
    partitions: u32,
    nodes: &BTreeMap<NodeId, NodeInfo>,
    held: &BTreeMap<NodeId, usize>,
) -> Result<Vec<GroupConfig>, Problem> {
    let replicas = if nodes.len() == 1 { 1 } else { REPLICAS };
    let mut zones: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for (node, info) in nodes.iter().filter(|(_, info)| !info.cores.is_empty()) {
        zones.entry(&info.zone).or_default().push(*node);
    }
    if zones.len() < replicas {
        let message =
            format!("a table needs nodes in {replicas} availability zones, the cluster has {}", zones.len());
        return Err(Problem::new(ErrorCode::Validation, message));
    }
    let zones: Vec<Vec<NodeId>> = zones.into_values().collect();
    let mut held = held.clone();
    let groups = (0..partitions).map(|index| {
        let members = (0..replicas).map(|offset| {
            let zone = &zones[(index as usize + offset) % zones.len()];
            let least = zone.iter().min_by_key(|node| held.get(node).copied().unwrap_or(0));
            let node = *least.expect("a zone has a node");
            let replicas = held.entry(node).or_insert(0);
            let core = CoreId((*replicas % nodes[&node].cores.len()) as u16);
            *replicas += 1;
            Member { node, core, incarnation: nodes[&node].incarnation }
        });
        GroupConfig {
            start: border(index, partitions),
            end: border(index + 1, partitions),
            ..GroupConfig::whole(PartitionId(table.0 << 16 | u64::from(index)), table, members.collect())
        }
    });
    Ok(groups.collect())
}

/// Where partition `index` of `partitions` begins: the hash space, which a storage key begins with, in equal
/// parts.
fn border(index: u32, partitions: u32) -> Vec<u8> {
    if index == 0 || index == partitions {
        return Vec::new();
    }
    let part = (u128::from(index) << 64) / u128::from(partitions);
    (part as u64).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::Incarnation;

    fn nodes(zones: &[&str], cores: usize) -> BTreeMap<NodeId, NodeInfo> {
        let node = |(number, zone): (usize, &&str)| {
            let cores = vec!["127.0.0.1:1".parse().unwrap(); cores];
            let info = NodeInfo { zone: (*zone).to_owned(), incarnation: Incarnation::default(), cores };
            (NodeId(number as u32), info)
        };
        zones.iter().enumerate().map(node).collect()
    }

    #[test]
    fn ranges_cover_everything_once() {
        let groups = place(TableId(2), 5, &nodes(&["a", "b", "c"], 1), &BTreeMap::new()).unwrap();
        assert!(groups[0].start.is_empty() && groups[4].end.is_empty());
        for pair in groups.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert!(!pair[0].end.is_empty());
        }
        assert_eq!(groups[1].partition, PartitionId(2 << 16 | 1));
    }

    #[test]
    fn each_partition_is_in_three_zones_and_leaders_and_cores_are_spread() {
        let nodes = nodes(&["a", "b", "c", "a"], 2);
        let groups = place(TableId(2), 12, &nodes, &BTreeMap::new()).unwrap();
        let mut firsts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut per_core: BTreeMap<(NodeId, CoreId), usize> = BTreeMap::new();
        for group in &groups {
            let mut zones: Vec<&str> =
                group.members.iter().map(|member| nodes[&member.node].zone.as_str()).collect();
            *firsts.entry(zones[0]).or_default() += 1;
            zones.sort_unstable();
            assert_eq!(zones, ["a", "b", "c"]);
            for member in &group.members {
                *per_core.entry((member.node, member.core)).or_default() += 1;
            }
        }
        assert_eq!(firsts, BTreeMap::from([("a", 4), ("b", 4), ("c", 4)]));
        assert_eq!(per_core[&(NodeId(0), CoreId(0))], 3, "zone a has two nodes of two cores each");
        assert_eq!(per_core[&(NodeId(1), CoreId(1))], 6);
    }

    #[test]
    fn two_zones_are_too_few() {
        assert!(place(TableId(2), 1, &nodes(&["a", "b", "a"], 1), &BTreeMap::new()).is_err());
    }

    #[test]
    fn one_node_holds_everything_alone_and_two_in_one_zone_nothing() {
        let groups = place(TableId(2), 4, &nodes(&["a"], 2), &BTreeMap::new()).unwrap();
        let cores: Vec<_> = groups.iter().map(|group| (group.members.len(), group.members[0].core)).collect();
        assert_eq!(cores, [(1, CoreId(0)), (1, CoreId(1)), (1, CoreId(0)), (1, CoreId(1))]);
        assert!(place(TableId(2), 1, &nodes(&["a", "a"], 1), &BTreeMap::new()).is_err());
    }
}
