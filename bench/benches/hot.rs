//! What a request of 1 KiB costs a CPU on its way, piece by piece, without sockets and disks, beside one pass
//! over its bytes (CRC-32C), which nothing can do without. Read the ratios of one run:
//! `cargo bench -p evenkeel-bench --bench hot`; `bench/history.py` writes them down.

#[path = "hot/core.rs"]
mod core;
#[path = "hot/replicas.rs"]
mod replicas;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use evenkeel_router::cache::{Cache, CacheMode, Routed};
use evenkeel_router::memds::RoutingMap;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, forward, seal};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, NodeId, PartitionId, RequestId, Slot, TableId};
use evenkeel_wire::item::{self, Item, Value};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::message::request::{Put, ReturnItem, Token};
use evenkeel_wire::message::routing::{Lookup, LookupKey, TableKey};
use evenkeel_wire::message::{access, encode};
use evenkeel_wire::table::{Route, RouteGeneration, RouteMember, TableDescriptor};
use std::borrow::Cow;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Requests that a turn of a busy core takes.
const TURN: u64 = 32;
const TABLE: TableId = TableId(2);
/// Partitions of a large table.
const ROUTES: u64 = 100_000;

/// The body of a put of about 1 KiB.
pub(crate) fn put(sequence: u64, table: TableId) -> Vec<u8> {
    let key = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let item = Item::new().with("pk", format!("user{sequence:012}")).with("v", Value::B(vec![7; 1000]));
    let archive = item::encode(&item).expect("the item keeps the rules");
    let put = Put {
        table,
        token: Token { client: [1; 16], sequence, issued_ms: core::WALL_MS, acknowledged_below: sequence },
        key: Cow::Borrowed(&key),
        item_checksum: crc32c(&archive),
        item: Cow::Borrowed(&archive),
        condition: Cow::Borrowed(&[]),
        return_item: ReturnItem::None,
    };
    let mut body = Vec::new();
    encode(&put, &mut body);
    body
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    let body = put(1, TABLE);
    let mut frame = Vec::new();
    seal(&mut frame, Header::new(Kind::Put, RequestId(1)), |out| out.extend_from_slice(&body));
    group.bench_function("reference: one pass over the bytes", |bencher| {
        bencher.iter(|| crc32c(black_box(&frame)));
    });
    let mut out = Vec::with_capacity(2 * frame.len());
    group.bench_function("frame: seal", |bencher| {
        bencher.iter(|| {
            out.clear();
            let header = Header::new(Kind::Put, RequestId(1));
            seal(&mut out, header, |out| out.extend_from_slice(black_box(&body)));
        });
    });
    group.bench_function("frame: check", |bencher| {
        bencher.iter(|| first_frame(black_box(&frame), BodyLimit::AFTER_HELLO).expect("sound").is_some());
    });
    group.bench_function("frame: forward", |bencher| {
        bencher.iter(|| {
            out.clear();
            forward(&mut out, Header::new(Kind::Put, RequestId(2)), black_box(&body), 7);
        });
    });
    group.bench_function("access: a put", |bencher| {
        bencher.iter(|| access::<Put<'static>>(black_box(&body)).expect("a put").key.len());
    });
    group.finish();
}

fn route(number: u64) -> Route {
    let key = |number: u64| (number << 40).to_be_bytes().to_vec();
    let member = |node: u32| {
        let address: std::net::SocketAddr = ([127, 0, 0, 1], node as u16).into();
        RouteMember { node: NodeId(node), core: CoreId(0), address: address.into() }
    };
    let ballot = Ballot { round: 1, node: NodeId(1) };
    Route {
        table: TABLE,
        partition: PartitionId(number + 1),
        start: if number == 0 { KeyBytes::new() } else { key(number).into() },
        end: if number + 1 == ROUTES { KeyBytes::new() } else { key(number + 1).into() },
        generation: RouteGeneration { epoch: Epoch(1), division: 0, ballot },
        leader: Some(0),
        members: vec![member(1), member(2), member(3)],
    }
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    let table = TableDescriptor { id: TABLE, name: "t".to_owned(), ..TableDescriptor::system() };
    let (mut cache, mut map) = (Cache::new(CacheMode::On), RoutingMap::new());
    map.take_tables(Slot(1), vec![table.clone()]);
    let table = Rc::new(table);
    for number in 0..ROUTES {
        // A router remembers fewer than MemDS holds.
        if number < 50_000 {
            cache.insert(&Routed { table: Rc::clone(&table), route: Rc::new(route(number)) });
        }
        map.take_route(route(number));
    }
    let mut next = 0_u64;
    let mut key = move |routes: u64| {
        next = next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((next % routes) << 40 | 77).to_be_bytes()
    };
    group.bench_function("router: look a route up in the cache", |bencher| {
        bencher.iter(|| cache.at(TABLE, &key(50_000)).expect("it is cached").route.partition);
    });
    let lookups: Vec<Vec<u8>> = (0..256)
        .map(|_| {
            let key = Cow::Owned(key(ROUTES).to_vec());
            let (lookup, mut body) =
                (Lookup { keys: vec![LookupKey::At(TableKey { table: TABLE, key })] }, Vec::new());
            encode(&lookup, &mut body);
            body
        })
        .collect();
    let mut turn = 0;
    group.bench_function("memds: look a route up among 100000", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % lookups.len();
            let lookup = access::<Lookup<'static>>(&lookups[turn]).expect("a look-up");
            map.look_up(&lookup.keys[0])
        });
    });
    group.finish();
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    let stage = replicas::Stage::led();
    let payload = replicas::write();
    group.bench_function("paxos: 32 entries, from proposal to commit on three replicas", |bencher| {
        let commit = |mut stage: replicas::Stage| {
            stage.commit(TURN, &payload);
            stage
        };
        bencher.iter_batched(|| stage.clone(), commit, BatchSize::SmallInput);
    });
    let mut engine = core::Engine::serving();
    let mut sequence = 0;
    group.bench_function("core: a turn of 32 puts, from frames to answers", |bencher| {
        // Frames are made outside of what is measured.
        bencher.iter_custom(|turns| {
            let mut spent = Duration::ZERO;
            for _ in 0..turns {
                sequence += TURN;
                let put = |number| engine.framed(Kind::Put, RequestId(number), &put(number, engine.table()));
                let frames: Vec<Vec<u8>> = (sequence..sequence + TURN).map(put).collect();
                let begun = now();
                engine.serve(&frames);
                spent += begun.elapsed();
            }
            spent
        });
    });
    group.finish();
}

#[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

criterion_group!(benches, frames, routes, turns);
criterion_main!(benches);
