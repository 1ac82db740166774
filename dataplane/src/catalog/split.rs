//! Splitting a table's partition (docs/decisions/0014-split.md): what the catalogue has to do with it.
//!
//! 1. A client names a table as of a generation, and perhaps a partition and a key. Without a key the
//!    partition's leader is asked for one in the middle of its tree.
//! 2. That the split is wanted is written into the table's record, with the number that the child gets. From
//!    then on it is ordered from the partition's members until one of them says that it is committed,
//!    whoever leads the catalogue. It is never given up: an order that is late may still be followed.
//! 3. The record gets the child among its groups. The client is answered.
//!
//! The record is the only place where ranges are changed on purpose, so what it says of a partition that is
//! not being split is what the partition's members say.

use super::record::{Splitting, TableRecord};
use super::{Catalog, Leading};
use crate::core::serving::Serving;
use crate::group::answer_error;
use crate::limits::{CATALOG_RECORD_BYTES_MAX, PARTITION_NUMBERS_MAX};
use crate::partition::pending::Asker;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{PartitionId, RequestId};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::catalog::{SplitPartition, SplitPartitionAnswer, SplitTable, TableAnswer};
use evenkeel_wire::message::{access, to_owned};
use evenkeel_wire::table::{GroupConfig, TableDescriptor, TableStatus};
use evenkeel_wire::turn::{Effects, Endpoint, Now};
use std::collections::BTreeMap;

/// What a group's record takes beside the keys in it, about, bytes.
const GROUP_BYTES: usize = 256;

/// Splits that clients wait for.
#[derive(Debug, Default)]
pub(super) struct Splits {
    /// The partition whose middle is asked for, by table.
    middles: BTreeMap<String, (PartitionId, Asker)>,
    /// Who waits until a table's split is done.
    waiting: Vec<(String, Asker)>,
    /// What members said and nobody has taken.
    answers: Vec<(PartitionId, SplitPartitionAnswer)>,
}

impl Splits {
    /// Everybody who waits.
    pub(super) fn askers(self) -> impl Iterator<Item = Asker> {
        let middles = self.middles.into_values().map(|(_, asker)| asker);
        middles.chain(self.waiting.into_iter().map(|(_, asker)| asker))
    }
}

impl Catalog {
    /// A member of a partition has said what became of an order to split it.
    pub fn on_split_answer(&mut self, parent: PartitionId, answer: SplitPartitionAnswer) {
        if let Some(leading) = &mut self.leading {
            leading.splits.answers.push((parent, answer));
        }
    }
}

impl Leading {
    /// The partition to split: the one that is named, or that holds the border, or the only one.
    fn parent<'a>(
        &self,
        record: &'a TableRecord,
        named: PartitionId,
        border: &[u8],
    ) -> Result<&'a GroupConfig, Problem> {
        let refuse = |code, message| Err(Problem::new(code, message));
        let name = &record.table.name;
        let parent = match &record.groups[..] {
            [only] if named == PartitionId::NONE => only,
            groups => match groups.iter().find(|group| {
                let holds = named == PartitionId::NONE && !border.is_empty() && group.contains(border);
                holds || group.partition == named
            }) {
                Some(group) => group,
                None if named == PartitionId::NONE => {
                    let message = format!("the table {name} has {} partitions; name one", groups.len());
                    return refuse(ErrorCode::Validation, message);
                }
                None => {
                    let message = format!("the table {name} has no partition {named}");
                    return refuse(ErrorCode::Validation, message);
                }
            },
        };
        // A snapshot of the parent names its last split alone.
        let youngest = record
            .groups
            .iter()
            .filter(|group| group.origin.is_some_and(|origin| origin.parent == parent.partition))
            .max_by_key(|group| group.origin.map(|origin| origin.slot));
        let missing = youngest.is_some_and(|child| {
            let mut members = child.members.iter();
            !members.all(|member| self.created.contains(&(member.node, member.core, child.partition)))
        });
        if missing {
            let message = format!(
                "not every member of {} has what its last split made of it; try again in a moment",
                parent.partition
            );
            return refuse(ErrorCode::TableNotReady, message);
        }
        Ok(parent)
    }

    /// Whether a table is being changed.
    fn is_changing(&self, record: &TableRecord) -> bool {
        let name = &record.table.name;
        self.proposed.contains_key(name)
            || self.splits.middles.contains_key(name)
            || record.splitting.is_some()
            || record.table.status != TableStatus::Active
    }
}

impl Serving {
    pub(crate) fn on_split_table(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        self.check_catalog(now, header, out)?;
        self.check_takes_orders()?;
        let SplitTable { name, generation, partition, border } =
            to_owned::<SplitTable>(access::<SplitTable>(body)?);
        let Some(record) = self.catalog.led(&name).cloned() else {
            return Err(Problem::new(ErrorCode::TableNotFound, format!("there is no table named {name}")));
        };
        let Some(leading) = &mut self.catalog.leading else {
            return Ok(());
        };
        if record.table.generation != generation && !leading.proposed.contains_key(&name) {
            // It has changed since, perhaps by this very request when it came before.
            if record.splitting.is_some() {
                leading.splits.waiting.push((name, asker));
            } else {
                answer_table(asker, record.table, out);
            }
            return Ok(());
        }
        if leading.is_changing(&record) {
            let message = format!("the table {name} is just being changed; try again in a moment");
            return Err(Problem::new(ErrorCode::TableNotReady, message));
        }
        let parent = leading.parent(&record, partition, &border)?.partition;
        if border.is_empty() {
            leading.splits.middles.insert(name, (parent, asker));
            leading.order_at = now.boot;
            return Ok(());
        }
        self.begin_split(now, asker, &record, parent, border, out)
    }

    /// Writes down that a partition is to be split.
    fn begin_split(
        &mut self,
        now: Now,
        asker: Asker,
        record: &TableRecord,
        parent: PartitionId,
        border: Vec<u8>,
        out: &mut Effects,
    ) -> Result<(), Problem> {
        let refuse = |message| Err(Problem::new(ErrorCode::Validation, message));
        let can_divide = |group: &GroupConfig| group.partition == parent && group.can_divide_at(&border);
        if !record.groups.iter().any(can_divide) {
            return refuse(format!("the key is not within {parent}, or is its first"));
        }
        let number = record.next_partition;
        let bytes = record.groups.iter().map(|group| GROUP_BYTES + group.start.len() + 2 * group.end.len());
        if number >= PARTITION_NUMBERS_MAX
            || bytes.sum::<usize>() + 8 * border.len() > CATALOG_RECORD_BYTES_MAX
        {
            return refuse(format!("the table {} has as many partitions as it can", record.table.name));
        }
        let child = PartitionId(record.table.id.0 << 16 | u64::from(number));
        let splitting = Some(Splitting { parent, child, border });
        let next = TableRecord { splitting, next_partition: number + 1, ..record.clone() };
        self.propose_change(&next, now, out);
        if let Some(leading) = &mut self.catalog.leading {
            leading.splits.waiting.push((next.table.name, asker));
        }
        Ok(())
    }

    pub(super) fn propose_change(&mut self, next: &TableRecord, now: Now, out: &mut Effects) {
        let slot = self.propose_record(&next.table.name, Some(next.to_item()), now, out);
        if let Some(leading) = &mut self.catalog.leading {
            leading.proposed.insert(next.table.name.clone(), slot);
        }
    }

    /// Orders the splits that are wanted, and asks for middles. Whoever does not lead is silent.
    pub(super) fn order_splits(&self, out: &mut Effects) {
        let Some(leading) = &self.catalog.leading else {
            return;
        };
        for record in leading.tables.values() {
            let wanted = record.splitting.as_ref().map(|Splitting { parent, child, border }| {
                (*parent, SplitPartition { child: *child, border: border.clone() })
            });
            let middle = leading.splits.middles.get(&record.table.name).map(|(parent, _)| {
                (*parent, SplitPartition { child: PartitionId::NONE, border: Vec::new() })
            });
            for (parent, order) in wanted.into_iter().chain(middle) {
                let group = record.groups.iter().find(|group| group.partition == parent);
                for (group, member) in group
                    .into_iter()
                    .flat_map(|group| group.members.iter().map(move |member| (group, member)))
                {
                    if let Some(address) = self.config.address(member.node, member.core) {
                        let header = Header::new(Kind::SplitPartition, RequestId(0));
                        let header = header.to_partition(parent, group.epoch);
                        out.send(Endpoint::Outgoing(address), header, &order);
                    }
                }
            }
        }
    }

    /// Takes what members have said, and answers clients whose splits are done.
    pub(super) fn advance_splits(&mut self, now: Now, out: &mut Effects) {
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        for (parent, answer) in std::mem::take(&mut leading.splits.answers) {
            match answer.parent {
                Some(config) => self.split_is_committed(now, parent, answer.child, &config, out),
                None => self.middle_came(now, parent, answer.border, answer.refused, out),
            }
        }
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        let (tables, proposed) = (&leading.tables, &leading.proposed);
        leading.splits.waiting.retain(|(name, asker)| {
            let Some(record) = tables.get(name) else {
                let message = format!("there is no table named {name} any more");
                answer_error(*asker, &Problem::new(ErrorCode::TableNotFound, message), out);
                return false;
            };
            let done = record.splitting.is_none() && !proposed.contains_key(name);
            if done {
                answer_table(*asker, record.table.clone(), out);
            }
            !done
        });
    }

    fn split_is_committed(
        &mut self,
        now: Now,
        parent: PartitionId,
        child: PartitionId,
        config: &GroupConfig,
        out: &mut Effects,
    ) {
        let Some(leading) = &self.catalog.leading else {
            return;
        };
        let wanted = |record: &&TableRecord| {
            let splitting = record.splitting.as_ref();
            splitting.is_some_and(|splitting| (splitting.parent, splitting.child) == (parent, child))
                && !leading.proposed.contains_key(&record.table.name)
        };
        let record = leading.tables.values().find(wanted);
        let (Some(record), Some(child)) = (record, config.last_child()) else {
            return;
        };
        let Some(place) = record.groups.iter().position(|group| group.partition == parent) else {
            return;
        };
        let mut next = TableRecord { splitting: None, ..record.clone() };
        next.groups[place] = config.clone().with_membership(newer(config, &record.groups[place]));
        next.groups.insert(place + 1, child);
        next.table.partitions += 1;
        self.propose_change(&next, now, out);
    }

    /// A leader has said which key is in the middle of its tree.
    fn middle_came(
        &mut self,
        now: Now,
        parent: PartitionId,
        border: Vec<u8>,
        refused: String,
        out: &mut Effects,
    ) {
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        let asked = leading.splits.middles.iter().find(|(_, (asked, _))| *asked == parent);
        let Some(name) = asked.map(|(name, _)| name.clone()) else {
            return;
        };
        let Some((_, asker)) = leading.splits.middles.remove(&name) else {
            return;
        };
        let outcome = match leading.tables.get(&name).cloned() {
            Some(_) if border.is_empty() => Err(Problem::new(ErrorCode::Validation, refused)),
            Some(record) if !leading.is_changing(&record) => {
                self.begin_split(now, asker, &record, parent, border, out)
            }
            Some(_) | None => {
                let message = format!("the table {name} is just being changed; try again in a moment");
                Err(Problem::new(ErrorCode::TableNotReady, message))
            }
        };
        if let Err(problem) = outcome {
            answer_error(asker, &problem, out);
        }
    }
}

/// The later of two memberships of a group.
fn newer(one: &GroupConfig, other: &GroupConfig) -> Membership {
    if one.epoch >= other.epoch { one.membership() } else { other.membership() }
}

fn answer_table(asker: Asker, table: TableDescriptor, out: &mut Effects) {
    out.send(asker.endpoint, Header::new(Kind::TableAnswer, asker.request), &TableAnswer { table });
}
