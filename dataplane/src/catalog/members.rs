//! Who is in which group, as the groups' leaders say. They change members by themselves
//! (`core/members.rs`); what is written here lets orders reach the right cores, and has replicas removed that
//! were replaced.

use super::record::TableRecord;
use super::{Leading, Serving};
use evenkeel_wire::ids::{CoreId, Epoch, NodeId, PartitionId};
use evenkeel_wire::message::catalog::{KnownEpoch, Removal, Stray};
use evenkeel_wire::table::{GroupConfig, TableStatus};
use evenkeel_wire::turn::{Effects, Now};
use std::collections::BTreeMap;

impl Leading {
    fn group(&self, partition: PartitionId) -> Option<&GroupConfig> {
        let mut groups = self.tables.values().flat_map(|record| &record.groups);
        groups.find(|group| group.partition == partition)
    }

    /// A core has said which members groups have that it leads.
    pub(super) fn take_changed(&mut self, node: NodeId, core: CoreId, changed: &[GroupConfig]) {
        for config in changed {
            let partition = config.partition;
            let epoch = match self.group(partition) {
                Some(group) => group.epoch,
                // Its members stand in no record.
                None if partition == PartitionId::SYSTEM => config.epoch,
                None => continue,
            };
            if epoch >= config.epoch {
                self.known.entry((node, core)).or_default().push(KnownEpoch { partition, epoch });
            } else {
                let newest = self.changed.entry(partition).or_insert_with(|| config.clone());
                if newest.epoch < config.epoch {
                    newest.clone_from(config);
                }
            }
        }
    }

    /// A core has replicas that may belong to nobody. Those go whose table is gone, and those that are no
    /// members in an epoch that they do not know, once their group is whole without them: until then they may
    /// be taken back. A replica that does not know the present epoch cannot be made a member before it does.
    pub(super) fn take_strays(
        &mut self,
        node: NodeId,
        core: CoreId,
        strays: &[Stray],
        system: Option<&GroupConfig>,
    ) {
        for Stray { partition, table, epoch } in strays.iter().copied() {
            let is_system = partition == PartitionId::SYSTEM;
            let below = match if is_system { system } else { self.group(partition) } {
                Some(group) if !group.is_whole() || group.has_member(node, core) => continue,
                Some(group) if group.epoch > epoch => Some(group.epoch),
                Some(_) => {
                    self.fences.insert(partition, epoch);
                    continue;
                }
                // A split may have made it a moment ago.
                None if is_system || self.tables.values().any(|record| record.table.id == table) => continue,
                None => None,
            };
            self.strays.entry((node, core)).or_default().push(Removal { partition, below });
        }
    }

    /// Who is told that another epoch must begin: the members of such groups, of whom the leader listens.
    pub(super) fn take_fences(&mut self) -> Vec<((NodeId, CoreId), KnownEpoch)> {
        let fences = std::mem::take(&mut self.fences);
        let fences = fences.into_iter().filter_map(|(partition, epoch)| {
            let members = &self.group(partition)?.members;
            let fence = KnownEpoch { partition, epoch };
            Some(members.iter().map(move |member| ((member.node, member.core), fence)))
        });
        fences.flatten().collect()
    }

    /// The record with what leaders have said of its groups, if that is news.
    fn with_members(&self, record: &TableRecord) -> Option<TableRecord> {
        let mut next = record.clone();
        for group in &mut next.groups {
            let said = self.changed.get(&group.partition).filter(|said| said.epoch > group.epoch);
            if let Some(said) = said {
                *group = group.clone().with_membership(said.membership());
            }
        }
        (next != *record).then_some(next)
    }
}

impl Serving {
    /// Writes down what leaders have said.
    pub(super) fn advance_members(&mut self, now: Now, out: &mut Effects) {
        let Some(leading) = self.catalog.leading.as_mut().filter(|leading| !leading.changed.is_empty())
        else {
            return;
        };
        let tables = leading.tables.values();
        let free = tables.filter(|record| {
            let is_active = record.table.status == TableStatus::Active;
            is_active && !leading.proposed.contains_key(&record.table.name)
        });
        let due: Vec<TableRecord> = free.filter_map(|record| leading.with_members(record)).collect();
        for next in due {
            self.propose_change(&next, now, out);
        }
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        let groups = leading.tables.values().flat_map(|record| &record.groups);
        let known: BTreeMap<PartitionId, Epoch> =
            groups.map(|group| (group.partition, group.epoch)).collect();
        leading
            .changed
            .retain(|partition, said| known.get(partition).is_some_and(|epoch| *epoch < said.epoch));
    }
}
