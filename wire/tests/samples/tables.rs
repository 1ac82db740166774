//! The catalogue, metadata and status.

use super::{
    Sample, address, ballot, every, generation, incarnation, lower, number, partition, point, route_member,
    sample, slot,
};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::{CoreId, Epoch, NodeId, PartitionId, TableId};
use evenkeel_wire::key::{HashKey, KeyBytes, KeySchema, KeyType};
use evenkeel_wire::message::catalog::{
    CreateTable, DeleteTable, DescribeTable, EnsureReplicas, EnsureReplicasAnswer, KnownEpoch, ListTables,
    ListTablesAnswer, Removal, SplitPartition, SplitPartitionAnswer, SplitTable, Stray, TableAnswer,
};
use evenkeel_wire::message::routing::{
    Lookup, LookupAnswer, LookupKey, LookupOutcome, PublishAnswer, PublishRoutes, PublishTables, TableKey,
};
use evenkeel_wire::message::status::{
    CoreState, FollowerStatus, GroupStatus, LogStatus, MemdsStatus, Role, RouterStatus, ScrubAnswer,
    StatusAnswer, StorageStatus, TopologyAnswer, TopologyNode, TreeStatus,
};
use evenkeel_wire::message::tail::{Tail, TailAnswer, Trace};
use evenkeel_wire::table::{
    Billing, GroupConfig, LastSplit, Member, Origin, Route, TableDescriptor, TableStatus, Throughput,
};
use std::borrow::Cow;

const TABLE: TableId = TableId(0x0102_0304_0506_0708);

fn billings() -> [Billing; 2] {
    let throughput = Throughput { read_units: number(0x11), write_units: number(0x21) };
    every!(
        Billing::OnDemand => Billing::OnDemand,
        Billing::Provisioned(_) => Billing::Provisioned(throughput),
    )
}

pub(super) fn create_tables() -> Vec<Sample> {
    let create = |schema, billing| CreateTable {
        name: "a table's name".to_owned(),
        schema,
        billing,
        partitions: 0x3132_3334,
    };
    let of_billing = billings().map(|billing| {
        let schema = KeySchema::partition_only("partition", KeyType::S).with_sort("sort", KeyType::N);
        sample(format!("catalog.create_table_{}", lower(&billing)), create(schema, billing))
    });
    let of_key_type = every!(KeyType: S, N, B).map(|key_type| {
        let schema = KeySchema::partition_only("partition", key_type);
        sample(format!("catalog.create_table_key_{}", lower(&key_type)), create(schema, Billing::OnDemand))
    });
    of_billing.into_iter().chain(of_key_type).collect()
}

pub(super) fn describe_tables() -> Vec<Sample> {
    vec![sample("catalog.describe_table", DescribeTable { name: "a table's name".to_owned() })]
}

pub(super) fn delete_tables() -> Vec<Sample> {
    vec![sample("catalog.delete_table", DeleteTable { name: "short".to_owned() })]
}

fn table(status: TableStatus) -> TableDescriptor {
    TableDescriptor {
        id: TABLE,
        name: "a table's name".to_owned(),
        schema: KeySchema::partition_only("partition", KeyType::S).with_sort("sort key", KeyType::B),
        hash_key: HashKey(incarnation(0x41).0),
        status,
        billing: billings()[1],
        created_ms: number(0x61),
        generation: number(0x71),
        partitions: 0x8182_8384,
    }
}

pub(super) fn table_answers() -> Vec<Sample> {
    every!(TableStatus: Creating, Active, Deleting)
        .map(|status| {
            sample(format!("catalog.table_answer_{}", lower(&status)), TableAnswer { table: table(status) })
        })
        .into()
}

pub(super) fn list_tables() -> Vec<Sample> {
    vec![sample("catalog.list_tables", ListTables { after: "the last name".to_owned() })]
}

pub(super) fn list_tables_answers() -> Vec<Sample> {
    let names = vec!["short".to_owned(), "a longer name".to_owned()];
    vec![sample("catalog.list_tables_answer", ListTablesAnswer { names, more: true })]
}

pub(super) fn member(low: u8) -> Member {
    Member {
        node: NodeId(0x1112_1300 + u32::from(low)),
        core: CoreId(0x2100 + u16::from(low)),
        incarnation: incarnation(0xd0 + low),
    }
}

pub(super) fn group_config() -> GroupConfig {
    GroupConfig {
        partition: partition(),
        table: TABLE,
        start: b"start of the range".to_vec(),
        end: b"end".to_vec(),
        epoch: Epoch(0x3132_3334),
        members: vec![member(1), member(2), member(3)],
        log_replicas: vec![member(3).node],
        former: Some(member(4)),
        birth: Epoch(0x2122_2324),
        division: 0x5152_5354,
        origin: Some(Origin { parent: PartitionId(number(0x61)), slot: slot(0x71) }),
        last_split: Some(LastSplit {
            at: point(0x81),
            child: PartitionId(number(0x91)),
            child_end: b"end of the child".to_vec(),
            members: vec![member(1), member(5)],
            log_replicas: vec![member(5).node],
            former: Some(member(6)),
            epoch: Epoch(0x4142_4344),
        }),
    }
}

pub(super) fn split_tables() -> Vec<Sample> {
    let (name, partition) = ("a table's name".to_owned(), PartitionId(number(0x61)));
    let split = SplitTable { name, generation: number(0x71), partition, border: b"border".to_vec() };
    vec![sample("catalog.split_table", split)]
}

pub(super) fn split_partitions() -> Vec<Sample> {
    let child = PartitionId(number(0x91));
    vec![sample("catalog.split_partition", SplitPartition { child, border: b"border".to_vec() })]
}

pub(super) fn split_partition_answers() -> Vec<Sample> {
    let answer = |parent, border: &[u8], refused: &str| SplitPartitionAnswer {
        child: PartitionId(number(0x91)),
        parent,
        border: border.to_vec(),
        refused: refused.to_owned(),
    };
    vec![
        sample("catalog.split_partition_answer", answer(Some(group_config()), b"", "")),
        sample("catalog.split_partition_answer_middle", answer(None, b"border", "")),
        sample("catalog.split_partition_answer_refused", answer(None, b"", "it holds too little")),
    ]
}

pub(super) fn ensure_replicas() -> Vec<Sample> {
    let config = group_config();
    let known = vec![KnownEpoch { partition: partition(), epoch: Epoch(0x3132_3334) }];
    let ensure = |create, everything| EnsureReplicas {
        create,
        remove: removals(),
        known: known.clone(),
        fence: known.clone(),
        everything,
    };
    vec![
        sample("catalog.ensure_replicas", ensure(vec![config.clone()], None)),
        sample("catalog.ensure_replicas_everything", ensure(vec![config], Some(number(0x51)))),
    ]
}

fn removals() -> Vec<Removal> {
    let partition = PartitionId(number(0x41));
    vec![Removal { partition, below: None }, Removal { partition, below: Some(Epoch(0x3132_3334)) }]
}

pub(super) fn ensure_replicas_answers() -> Vec<Sample> {
    let answer = |ask_everything| EnsureReplicasAnswer {
        created: vec![partition()],
        removed: removals(),
        changed: vec![group_config()],
        strays: vec![Stray { partition: partition(), table: TABLE, epoch: Epoch(0x5152_5354) }],
        ask_everything,
    };
    vec![
        sample("catalog.ensure_replicas_answer", answer(None)),
        sample("catalog.ensure_replicas_answer_ask", answer(Some(number(0x51)))),
    ]
}

pub(super) fn lookups() -> Vec<Sample> {
    let key = || TableKey { table: TABLE, key: Cow::Borrowed(&b"storage key"[..]) };
    let keys = every!(
        LookupKey::At(_) => LookupKey::At(key()),
        LookupKey::Below(_) => LookupKey::Below(key()),
        LookupKey::Name(_) => LookupKey::Name("a table's name".to_owned()),
    );
    vec![sample("routing.lookup", Lookup { keys: keys.into() })]
}

fn route(leader: Option<u8>) -> Route {
    Route {
        table: TABLE,
        partition: partition(),
        start: KeyBytes::from_slice(b"start of the range"),
        end: KeyBytes::from_slice(b"end"),
        generation: generation(),
        leader,
        members: vec![route_member(1), route_member(2)],
    }
}

pub(super) fn lookup_answers() -> Vec<Sample> {
    let table = || Cow::Owned(table(TableStatus::Active));
    let outcomes = every!(
        LookupOutcome::Route(_, _) => LookupOutcome::Route(Cow::Owned(route(Some(1))), table()),
        LookupOutcome::Table(_) => LookupOutcome::Table(table()),
        LookupOutcome::TableNotFound => LookupOutcome::TableNotFound,
        LookupOutcome::RouteNotKnown(_) => LookupOutcome::RouteNotKnown(table()),
        LookupOutcome::Warming => LookupOutcome::Warming,
    );
    vec![sample("routing.lookup_answer", LookupAnswer { outcomes: outcomes.into() })]
}

pub(super) fn publish_routes() -> Vec<Sample> {
    vec![sample("routing.publish_routes", PublishRoutes { routes: vec![route(None), route(Some(0))] })]
}

pub(super) fn publish_tables() -> Vec<Sample> {
    let tables = vec![table(TableStatus::Active), table(TableStatus::Creating)];
    vec![
        sample("routing.publish_tables", PublishTables { version: slot(0x11), tables: Some(tables) }),
        sample("routing.publish_tables_version", PublishTables { version: slot(0x11), tables: None }),
    ]
}

pub(super) fn publish_answers() -> Vec<Sample> {
    vec![sample("routing.publish_answer", PublishAnswer { version: slot(0x11) })]
}

fn group(role: Role) -> GroupStatus {
    let follower = |heard_ms_ago| FollowerStatus {
        node: NodeId(0x1112_1314),
        matched: slot(0x21),
        heard_ms_ago,
        snapshot: true,
    };
    GroupStatus {
        partition: partition(),
        table: TABLE,
        epoch: Epoch(0x3132_3334),
        members: vec![NodeId(0x4142_4344), NodeId(0x1112_1314)],
        log_replicas: vec![NodeId(0x1112_1314)],
        role,
        ready: role == Role::Leader,
        leader: (role != Role::Candidate).then_some(NodeId(0x4142_4344)),
        ballot: ballot(0x51),
        last: slot(0x61),
        durable: slot(0x71),
        commit: slot(0x81),
        refilling: role == Role::Candidate,
        stores: role != Role::Candidate,
        items: number(0x91),
        bytes: number(0xa1),
        followers: vec![follower(None), follower(Some(number(0xb1)))],
    }
}

fn storage_status(state: CoreState) -> StorageStatus {
    StorageStatus {
        node: NodeId(0x1112_1314),
        core: CoreId(0x2122),
        incarnation: incarnation(0x31),
        state,
        groups: every!(Role: Leader, Candidate, Follower).map(group).into(),
        log: LogStatus {
            writes: number(0x41),
            bytes: number(0x51),
            records: number(0x61),
            segments: 0x7172_7374,
            segments_free: 0x8182_8384,
            checkpoints: number(0x91),
            checkpointing: true,
        },
        tree: TreeStatus {
            blocks: number(0x11),
            blocks_live: number(0x21),
            blocks_free: number(0x31),
            blocks_retired: number(0x41),
            blocks_loose: number(0x51),
            cache_bytes: number(0x61),
            cache_bytes_max: number(0x71),
            cache_hits: number(0x81),
            cache_misses: number(0x91),
            cache_evictions: number(0xa1),
            page_reads: number(0xb1),
            bytes_written: number(0xc1),
            parked: number(0xd1),
            damaged_pages: number(0xe1),
            damage_found: number(0x12),
            damage_repaired: number(0x22),
            checks: number(0x32),
            blocks_swept: number(0x42),
        },
        recovery: "what recovery found".to_owned(),
    }
}

pub(super) fn status_answers() -> Vec<Sample> {
    let memds = MemdsStatus {
        keys_looked_up: number(0x11),
        tables: number(0x21),
        routes: number(0x31),
        catalog_version: slot(0x41),
    };
    let router = RouterStatus {
        requests: number(0x11),
        keys: number(0x21),
        cache_hits: number(0x31),
        cache_misses: number(0x41),
        lookups: number(0x51),
        cached: number(0x61),
        in_flight: number(0x71),
        errors: number(0x81),
        overloaded: number(0x91),
        redirected: number(0xa1),
    };
    let of_state = every!(CoreState: Recovering, Serving, Draining).map(|state| {
        let name = format!("status.storage_{}", lower(&state));
        sample(name, StatusAnswer::Storage(storage_status(state)))
    });
    let others = every!(
        StatusAnswer::Storage(_) => StatusAnswer::Storage(storage_status(CoreState::Serving)),
        StatusAnswer::Memds(_) => StatusAnswer::Memds(memds),
        StatusAnswer::Router(_) => StatusAnswer::Router(router),
    );
    let [_, memds, router] = others;
    of_state.into_iter().chain([sample("status.memds", memds), sample("status.router", router)]).collect()
}

pub(super) fn topology_answers() -> Vec<Sample> {
    let node = TopologyNode {
        node: NodeId(0x1112_1314),
        zone: "a zone's name".to_owned(),
        cores: vec![address(1), address(2)],
    };
    let answer = TopologyAnswer { nodes: vec![node], memds: vec![address(3)], routers: vec![address(4)] };
    vec![sample("status.topology_answer", answer)]
}

pub(super) fn scrub_answers() -> Vec<Sample> {
    vec![sample("status.scrub_answer", ScrubAnswer { checks: number(0x11) })]
}

pub(super) fn tails() -> Vec<Sample> {
    vec![sample("status.tail", Tail { from: number(0x11) })]
}

pub(super) fn tail_answers() -> Vec<Sample> {
    let trace = |first: u8| Trace {
        wall_ms: number(first),
        kind: Kind::Put as u16,
        causes: 0x8102,
        attempts: 3,
        run_queue_in: 4,
        table: TableId(number(first + 1)),
        partition: PartitionId(number(first + 2)),
        node: NodeId(0x1112_1314),
        core: CoreId(0x1516),
        awaited: NodeId(0x1718_191a),
        total_ns: number(first + 3),
        stages: std::array::from_fn(|place| number(first + 4 + place as u8)),
    };
    let answer = TailAnswer {
        interval: number(0x11),
        more: true,
        requests: number(0x12),
        slowest: vec![trace(0x20)],
        sample: vec![trace(0x40), trace(0x60)],
    };
    vec![sample("status.tail_answer", answer)]
}
