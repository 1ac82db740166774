//! The catalogue: the table of tables, kept by whoever leads the system partition.
//!
//! A table's record is an item of the system table ([`record`]). The leader reads all of them when it begins
//! to lead and after every change, and works towards what they say: it orders cores to create and remove
//! replicas, repeats orders until they are confirmed, and moves tables from creating to active and from
//! deleting to gone. All of that can be done again by the next leader: orders are idempotent and
//! confirmations are not stored.
//!
//! * [`members`]: what leaders say of their groups' members.
//! * [`split`]: dividing a partition's range.
//! * [`placement`]: where a new table's replicas go.

pub mod members;
pub mod placement;
pub mod record;
pub mod split;

use crate::btree::lookup::Pages;
use crate::core::requests::routed;
use crate::core::serving::Serving;
use crate::group::answer_error;
use crate::limits::{
    CATALOG_GREETING, CATALOG_RETRY, ON_DEMAND_PARTITIONS, PARTITION_READ_UNITS, PARTITION_WRITE_UNITS,
    PUBLISH_INTERVAL, TABLE_PARTITIONS_MAX,
};
use crate::partition::pending::Asker;
use evenkeel_wire::entry::{Effect, Write, WrittenItem};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, NodeId, PartitionId, RequestId, Slot, TableId};
use evenkeel_wire::key::{HashKey, KeySchema};
use evenkeel_wire::limits::TABLE_NAME_BYTES_MAX;
use evenkeel_wire::message::catalog::{
    CreateTable, DeleteTable, EnsureReplicas, EnsureReplicasAnswer, KnownEpoch, ListTables, ListTablesAnswer,
    Removal, TableAnswer,
};
use evenkeel_wire::message::request::{ReturnItem, Token};
use evenkeel_wire::message::routing::PublishTables;
use evenkeel_wire::message::{access, to_owned};
use evenkeel_wire::table::{Billing, GroupConfig, TableDescriptor, TableStatus, Throughput};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Now};
use record::TableRecord;
use split::Splits;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Names in one answer to "list tables".
const NAMES_MAX: usize = 1000;

/// A replica on a core.
type Replica = (NodeId, CoreId, PartitionId);

/// What the leader of the system partition knows and is doing; empty elsewhere.
#[derive(Debug, Default)]
pub struct Catalog {
    /// A record was written since the tables were last read.
    changed: bool,
    leading: Option<Leading>,
}

#[derive(Debug)]
struct Leading {
    ballot: Ballot,
    tables: BTreeMap<String, TableRecord>,
    version: Slot,
    /// Replicas that are confirmed to exist, or not to.
    created: BTreeSet<Replica>,
    removed: BTreeSet<Replica>,
    /// Memberships that leaders have reported and no record has.
    changed: BTreeMap<PartitionId, GroupConfig>,
    /// What each core is to be told that it is known.
    known: BTreeMap<(NodeId, CoreId), Vec<KnownEpoch>>,
    /// Replicas that nobody needs any more, by their cores.
    strays: BTreeMap<(NodeId, CoreId), Vec<Removal>>,
    /// Groups that must begin another epoch before a stray replica of theirs may be removed.
    fences: BTreeMap<PartitionId, Epoch>,
    /// Changes that are proposed and not yet applied, by table.
    proposed: BTreeMap<String, Slot>,
    /// There was nothing to order, and nothing has changed since.
    orders_done: bool,
    waiting: Vec<Waiting>,
    order_at: Boot,
    publish_at: Boot,
    /// How much of the catalogue each MemDS server has said to have.
    memds: BTreeMap<SocketAddr, Slot>,
    /// When every core is spoken to, even if there is no order for it.
    greet_at: Boot,
    splits: Splits,
    /// Cores that asked for everything that they must hold, with their number.
    asked: BTreeMap<(NodeId, CoreId), u64>,
}

/// Somebody who waits for a change to be applied.
#[derive(Debug)]
struct Waiting {
    slot: Slot,
    asker: Asker,
    table: TableDescriptor,
}

impl Catalog {
    /// A record was written.
    pub fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// This core no longer leads the system partition.
    pub fn lost_leadership(&mut self, out: &mut Effects) {
        let Some(Leading { waiting, splits, .. }) = self.leading.take() else {
            return;
        };
        for asker in waiting.into_iter().map(|waiting| waiting.asker).chain(splits.askers()) {
            let message = "the catalogue's leader changed; look at the table";
            answer_error(asker, &Problem::new(ErrorCode::OutcomeUnknown, message), out);
        }
    }

    /// A core has said what it holds. `system`: the system partition's group, if the core need not keep a
    /// replica of it for ever.
    pub fn on_ensured(
        &mut self,
        node: NodeId,
        core: CoreId,
        answer: &EnsureReplicasAnswer,
        system: Option<&GroupConfig>,
    ) {
        if let Some(leading) = &mut self.leading {
            let known = leading.created.len() + leading.removed.len();
            leading.created.extend(answer.created.iter().map(|partition| (node, core, *partition)));
            let removed = answer.removed.iter().filter(|removal| removal.below.is_none());
            leading.removed.extend(removed.map(|removal| (node, core, removal.partition)));
            leading.take_strays(node, core, &answer.strays, system);
            leading.take_changed(node, core, &answer.changed);
            self.changed |= leading.created.len() + leading.removed.len() > known;
            if let Some(number) = answer.ask_everything {
                leading.asked.insert((node, core), number);
            }
        }
    }

    /// A MemDS server has said how much it has.
    pub fn on_published(&mut self, memds: SocketAddr, version: Slot) {
        if let Some(leading) = &mut self.leading {
            leading.memds.insert(memds, version);
        }
    }

    fn led(&self, name: &str) -> Option<&TableRecord> {
        self.leading.as_ref()?.tables.get(name)
    }
}

impl Leading {
    fn new(ballot: Ballot, now: Boot) -> Self {
        Self {
            ballot,
            tables: BTreeMap::new(),
            version: Slot::ZERO,
            created: BTreeSet::new(),
            removed: BTreeSet::new(),
            changed: BTreeMap::new(),
            known: BTreeMap::new(),
            strays: BTreeMap::new(),
            fences: BTreeMap::new(),
            proposed: BTreeMap::new(),
            orders_done: false,
            waiting: Vec::new(),
            order_at: now,
            publish_at: now,
            memds: BTreeMap::new(),
            greet_at: now,
            splits: Splits::default(),
            asked: BTreeMap::new(),
        }
    }

    /// What cores must be told: replicas that are not confirmed.
    fn orders(&self) -> BTreeMap<(NodeId, CoreId), EnsureReplicas> {
        let mut orders: BTreeMap<(NodeId, CoreId), EnsureReplicas> = BTreeMap::new();
        for (group, member) in self.replicas() {
            let deleting = self.is_deleting(group.table);
            let replica = (member.0, member.1, group.partition);
            let done = if deleting { &self.removed } else { &self.created };
            if done.contains(&replica) {
                continue;
            }
            let order = orders.entry(member).or_insert_with(no_order);
            if deleting {
                order.remove.push(Removal { partition: group.partition, below: None });
            } else {
                order.create.push(group.clone());
            }
        }
        orders
    }

    /// Everything that a core must hold.
    fn everything(&self, member: (NodeId, CoreId), number: u64) -> EnsureReplicas {
        let of_member = self.replicas().filter(|(_, other)| *other == member).map(|(group, _)| group);
        let create = of_member.filter(|group| !self.is_deleting(group.table)).cloned().collect();
        EnsureReplicas { create, everything: Some(number), ..no_order() }
    }

    fn replicas(&self) -> impl Iterator<Item = (&GroupConfig, (NodeId, CoreId))> {
        let groups = self.tables.values().flat_map(|record| &record.groups);
        groups.flat_map(|group| group.members.iter().map(move |member| (group, (member.node, member.core))))
    }

    fn is_deleting(&self, table: TableId) -> bool {
        let mut records = self.tables.values();
        records.any(|record| record.table.id == table && record.table.status == TableStatus::Deleting)
    }

    /// The next state of a table, if its replicas are far enough; `Some(None)`: it is gone.
    fn transition(&self, record: &TableRecord) -> Option<Option<TableRecord>> {
        let confirmed = |group: &GroupConfig, done: &BTreeSet<Replica>| {
            let mut members = group.members.iter();
            let confirmed =
                members.by_ref().filter(|member| done.contains(&(member.node, member.core, group.partition)));
            confirmed.count()
        };
        match record.table.status {
            TableStatus::Creating => {
                let quorum = |group: &GroupConfig| confirmed(group, &self.created) > group.members.len() / 2;
                record.groups.iter().all(quorum).then(|| Some(with_status(record, TableStatus::Active)))
            }
            TableStatus::Active => None,
            TableStatus::Deleting => {
                let all = |group: &GroupConfig| confirmed(group, &self.removed) == group.members.len();
                record.groups.iter().all(all).then_some(None)
            }
        }
    }
}

fn no_order() -> EnsureReplicas {
    EnsureReplicas {
        create: Vec::new(),
        remove: Vec::new(),
        known: Vec::new(),
        fence: Vec::new(),
        everything: None,
    }
}

fn with_status(record: &TableRecord, status: TableStatus) -> TableRecord {
    let table = TableDescriptor { status, ..record.table.clone() };
    TableRecord { table, ..record.clone() }
}

impl Serving {
    /// Does the catalogue's work, if this core leads the system partition.
    pub(crate) fn tend_catalog(&mut self, now: Now, out: &mut Effects) {
        if !self.is_ready(PartitionId::SYSTEM, now.boot) {
            return;
        }
        self.read_catalog(now.boot, out);
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        if now.boot >= leading.order_at {
            leading.order_at = now.boot.after(CATALOG_RETRY);
            let mut orders = if leading.orders_done { BTreeMap::new() } else { leading.orders() };
            leading.orders_done = orders.is_empty();
            if now.boot >= leading.greet_at {
                leading.greet_at = now.boot.after(CATALOG_GREETING);
                for member in self.config.cores() {
                    orders.entry(member).or_insert_with(no_order);
                }
            }
            for (member, known) in std::mem::take(&mut leading.known) {
                orders.entry(member).or_insert_with(no_order).known = known;
            }
            for (member, strays) in std::mem::take(&mut leading.strays) {
                orders.entry(member).or_insert_with(no_order).remove.extend(strays);
            }
            let system_fence = leading.fences.remove(&PartitionId::SYSTEM);
            for (member, fence) in leading.take_fences() {
                orders.entry(member).or_insert_with(no_order).fence.push(fence);
            }
            for (member, number) in std::mem::take(&mut leading.asked) {
                orders.insert(member, leading.everything(member, number));
            }
            for ((node, core), order) in orders {
                if let Some(address) = self.config.address(node, core) {
                    out.ask(Endpoint::Outgoing(address), RequestId(0), &order);
                }
            }
            self.order_splits(out);
            if let Some(epoch) = system_fence {
                self.begin_next_epoch(now, KnownEpoch { partition: PartitionId::SYSTEM, epoch }, out);
            }
        }
        self.publish_tables(now.boot, out);
        self.advance_tables(now, out);
        self.advance_splits(now, out);
        self.advance_members(now, out);
    }

    /// Reads the tables, if that is due, and answers those who waited for a change.
    fn read_catalog(&mut self, now: Boot, out: &mut Effects) {
        let group = &self.groups[&PartitionId::SYSTEM];
        let ballot = group.replica.promised();
        let fresh = self.catalog.leading.as_ref().is_none_or(|leading| leading.ballot != ballot);
        if fresh {
            self.catalog.lost_leadership(out);
            self.catalog.leading = Some(Leading::new(ballot, now));
        }
        if !fresh && !self.catalog.changed {
            return;
        }
        self.catalog.changed = false;
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        let state = group.state();
        let mut walk = state.tree.walk(Pages::default(), b"", b"", true);
        let mut tables = BTreeMap::new();
        while let Some(found) = walk.next().expect("the system partition's items are in memory") {
            if let Some(record) = TableRecord::from_found(&found) {
                tables.insert(record.table.name.clone(), record);
            }
        }
        if fresh || tables != leading.tables {
            leading.tables = tables;
            leading.orders_done = false;
            leading.version = state.slot();
            leading.order_at = now;
            leading.publish_at = now;
        }
        let applied = state.slot();
        leading.proposed.retain(|_, slot| *slot > applied);
        let (done, waiting) = leading.waiting.drain(..).partition(|waiting| waiting.slot <= applied);
        leading.waiting = waiting;
        let done: Vec<Waiting> = done;
        for Waiting { asker, table, .. } in done {
            let header = Header::new(Kind::TableAnswer, asker.request);
            out.send(asker.endpoint, header, &TableAnswer { table });
        }
    }

    fn publish_tables(&mut self, now: Boot, out: &mut Effects) {
        let Some(leading) = &mut self.catalog.leading else {
            return;
        };
        if now < leading.publish_at {
            return;
        }
        leading.publish_at = now.after(PUBLISH_INTERVAL);
        for memds in &self.config.memds {
            let current = leading.memds.get(memds).is_some_and(|version| *version >= leading.version);
            let tables = || leading.tables.values().map(|record| record.table.clone()).collect();
            let publish = PublishTables { version: leading.version, tables: (!current).then(tables) };
            out.ask(Endpoint::Outgoing(*memds), RequestId(0), &publish);
        }
    }

    /// Moves tables on whose replicas are far enough.
    fn advance_tables(&mut self, now: Now, out: &mut Effects) {
        let Some(leading) = &self.catalog.leading else {
            return;
        };
        let due = leading.tables.values().filter(|record| !leading.proposed.contains_key(&record.table.name));
        let due = due.filter_map(|record| Some((record.table.name.clone(), leading.transition(record)?)));
        let due: Vec<(String, Option<TableRecord>)> = due.collect();
        for (name, next) in due {
            let slot = self.propose_record(&name, next.map(|record| record.to_item()), now, out);
            if let Some(leading) = &mut self.catalog.leading {
                leading.proposed.insert(name, slot);
            }
        }
    }

    /// Proposes a table's record, or its end.
    fn propose_record(&mut self, name: &str, item: Option<WrittenItem>, now: Now, out: &mut Effects) -> Slot {
        let mut outputs = std::mem::take(&mut self.outputs);
        let group = self.groups.get_mut(&PartitionId::SYSTEM).expect("only its leader proposes");
        let timestamp = group.replica.next_timestamp(now.wall_ms);
        let sequence = group.replica.next_slot().0;
        // The catalogue is its own client: each write acknowledges those before it.
        let token =
            Token { client: [0; 16], sequence, issued_ms: timestamp >> 16, acknowledged_below: sequence };
        let write = Write {
            token,
            request_hash: sequence,
            key: TableRecord::key(name),
            return_item: ReturnItem::None,
            effect: item.map_or(Effect::Delete, Effect::Put),
            old: None,
        };
        let slot = group.propose(timestamp, None, &write, &mut outputs);
        self.outputs = outputs;
        self.perform(PartitionId::SYSTEM, now, out);
        slot
    }

    /// Checks that a request about tables is for this core, which leads the system partition.
    fn check_catalog(&mut self, now: Now, header: Header, out: &mut Effects) -> Result<(), Problem> {
        if header.partition != PartitionId::SYSTEM {
            let message = "requests about tables go to the system partition";
            return Err(Problem::new(ErrorCode::WrongPartition, message));
        }
        routed(&mut self.groups, &mut self.heartbeats, header)?.check_ready(now.boot)?;
        self.read_catalog(now.boot, out);
        Ok(())
    }

    pub(crate) fn on_create_table(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        self.check_catalog(now, header, out)?;
        self.check_takes_orders()?;
        let create = to_owned::<CreateTable>(access::<CreateTable>(body)?);
        check_name(&create.name)?;
        check_schema(&create.schema)?;
        self.check_free(&create.name)?;
        let partitions = partitions_of(&create)?;
        let system = &self.groups[&PartitionId::SYSTEM].replica;
        let id = TableId(system.next_slot().0);
        let groups = placement::place(id, partitions, &self.config.nodes, &self.replicas_held())?;
        let mut hash_key = [0; 16];
        self.prng.fill(&mut hash_key);
        let table = TableDescriptor {
            id,
            name: create.name.clone(),
            schema: create.schema,
            hash_key: HashKey(hash_key),
            status: TableStatus::Creating,
            billing: create.billing,
            created_ms: now.wall_ms,
            generation: id.0,
            partitions,
        };
        let record =
            TableRecord { table: table.clone(), groups, splitting: None, next_partition: partitions };
        let item = record.to_item();
        self.change_table(now, asker, table, item, out);
        Ok(())
    }

    pub(crate) fn on_delete_table(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        self.check_catalog(now, header, out)?;
        self.check_takes_orders()?;
        let name = to_owned::<DeleteTable>(access::<DeleteTable>(body)?).name;
        let Some(record) = self.catalog.led(&name) else {
            return Err(Problem::new(ErrorCode::TableNotFound, format!("there is no table named {name}")));
        };
        let changing = self.catalog.leading.as_ref().is_some_and(|leading| {
            leading.proposed.contains_key(&name)
                || record.splitting.is_some()
                || record.table.status != TableStatus::Active
        });
        if changing {
            let message =
                format!("the table {name} is being created, deleted or split; try again in a moment");
            return Err(Problem::new(ErrorCode::TableNotReady, message));
        }
        let next = with_status(record, TableStatus::Deleting);
        let item = next.to_item();
        self.change_table(now, asker, next.table, item, out);
        Ok(())
    }

    /// Proposes a change that a client asked for, and lets the client wait for it.
    fn change_table(
        &mut self,
        now: Now,
        asker: Asker,
        table: TableDescriptor,
        item: WrittenItem,
        out: &mut Effects,
    ) {
        let slot = self.propose_record(&table.name, Some(item), now, out);
        if let Some(leading) = &mut self.catalog.leading {
            leading.proposed.insert(table.name.clone(), slot);
            leading.waiting.push(Waiting { slot, asker, table });
        }
    }

    pub(crate) fn on_list_tables(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        self.check_catalog(now, header, out)?;
        let after = to_owned::<ListTables>(access::<ListTables>(body)?).after;
        let Some(leading) = &self.catalog.leading else {
            return Ok(());
        };
        let mut names: Vec<String> =
            leading.tables.keys().filter(|name| **name > after).take(NAMES_MAX + 1).cloned().collect();
        let more = names.len() > NAMES_MAX;
        names.truncate(NAMES_MAX);
        let header = Header::new(Kind::ListTablesAnswer, asker.request);
        out.send(asker.endpoint, header, &ListTablesAnswer { names, more });
        Ok(())
    }

    /// Checks that no table has this name. One that is proposed may still come to nothing: the asker must
    /// wait.
    fn check_free(&self, name: &str) -> Result<(), Problem> {
        let Some(leading) = &self.catalog.leading else {
            return Ok(());
        };
        if leading.tables.contains_key(name) {
            return Err(Problem::new(ErrorCode::TableExists, format!("a table named {name} exists")));
        }
        if leading.proposed.contains_key(name) {
            let message = format!("a table named {name} is just being created; try again in a moment");
            return Err(Problem::new(ErrorCode::TableNotReady, message));
        }
        Ok(())
    }

    fn replicas_held(&self) -> BTreeMap<NodeId, usize> {
        let mut held = BTreeMap::new();
        let replicas = self.catalog.leading.iter().flat_map(Leading::replicas);
        for (_, (node, _)) in replicas {
            *held.entry(node).or_default() += 1;
        }
        held
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let message = format!(
            "{name:?} is no table name: it has 1 to {TABLE_NAME_BYTES_MAX} letters, digits, '_', '-' and '.'"
        );
        return Err(Problem::new(ErrorCode::Validation, message));
    }
    Ok(())
}

fn check_schema(schema: &KeySchema) -> Result<(), Problem> {
    schema.check().map_err(|error| Problem::new(ErrorCode::Validation, error.to_string()))
}

/// How many partitions a new table gets: what was asked for, or what its capacity needs (section 3 of the ATC
/// 2022 paper: 3000 read and 1000 write units each).
fn partitions_of(create: &CreateTable) -> Result<u32, Problem> {
    let partitions = match (create.partitions, create.billing) {
        (0, Billing::OnDemand) => u64::from(ON_DEMAND_PARTITIONS),
        (0, Billing::Provisioned(Throughput { read_units, write_units })) => {
            let units = read_units
                .saturating_mul(PARTITION_WRITE_UNITS)
                .saturating_add(write_units.saturating_mul(PARTITION_READ_UNITS));
            units.div_ceil(PARTITION_READ_UNITS * PARTITION_WRITE_UNITS).max(1)
        }
        (asked, _) => u64::from(asked),
    };
    if partitions > u64::from(TABLE_PARTITIONS_MAX) {
        let message =
            format!("a table begins with at most {TABLE_PARTITIONS_MAX} partitions, not {partitions}");
        return Err(Problem::new(ErrorCode::Validation, message));
    }
    Ok(partitions as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::key::KeyType;

    fn create(billing: Billing, partitions: u32) -> CreateTable {
        let schema = KeySchema::partition_only("pk", KeyType::S);
        CreateTable { name: "t".to_owned(), schema, billing, partitions }
    }

    fn check(read_units: u64, write_units: u64, expected: u32) {
        let billing = Billing::Provisioned(Throughput { read_units, write_units });
        assert_eq!(partitions_of(&create(billing, 0)), Ok(expected));
    }

    #[test]
    fn capacity_chooses_the_number_of_partitions() {
        check(1, 1, 1);
        check(3000, 0, 1);
        check(3000, 1, 2);
        check(6000, 2000, 4);
        assert_eq!(partitions_of(&create(Billing::OnDemand, 0)), Ok(4));
        assert_eq!(partitions_of(&create(Billing::OnDemand, 7)), Ok(7));
        assert!(partitions_of(&create(Billing::OnDemand, 257)).is_err());
    }

    #[test]
    fn names_are_checked() {
        for name in ["", "a b", "ä", "$system", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("Orders_2026-11.v1").is_ok());
    }
}
