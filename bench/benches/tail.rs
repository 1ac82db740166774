//! What it costs to tell where the time of a write went: on the storage core, in its answer's header, and in
//! the router. Beside it, what checking the frame of such a write of 1 KiB costs, which nothing can do
//! without. `cargo bench -p evenkeel-bench --bench tail`.

use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel_dataplane::partition::waited::{Agreed, Durable, Milestones, Moment, Waited};
use evenkeel_router::journey::{Journey, Turns};
use evenkeel_router::recorder::Recorder;
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::ids::{CoreId, NodeId, PartitionId, RequestId, Slot, TableId};
use evenkeel_wire::message::request::{Position, WriteAnswer};
use evenkeel_wire::table::RouteMember;
use evenkeel_wire::timeline::{Causes, Packed};
use evenkeel_wire::turn::{Boot, Delays, Effects, Endpoint, Now};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

fn now(boot: u64) -> Now {
    let now = Now::new(Boot(boot), 0);
    let delays = Delays { looked: Boot(boot - 900), performed: Boot(boot - 300), ..now.delays };
    Now { delays, ..now }
}

/// A write, from its arrival at the core to the header of its answer.
fn on_the_core(milestones: &mut Milestones, slot: Slot) -> Packed {
    let waited = Waited::arrived(&now(1_000_000), Causes::NONE);
    let durable = now(1_200_000);
    milestones.durable(Durable {
        through: slot,
        at: Moment::of(&durable),
        issued_in: Boot(1_000_000),
        submitted: Boot(1_020_000),
    });
    milestones.agreed(Agreed { through: slot, node: NodeId(2), log_ns: 150_000, was_kept: false });
    let (durable, agreed) = milestones.of(slot);
    waited.written(durable, agreed, &now(1_250_000)).pack()
}

/// The same write in the router, from its arrival to the recorder.
fn in_the_router(turns: &mut Turns, recorder: &mut Recorder, at: &mut u64, core: Packed) -> Packed {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let member = RouteMember { node: NodeId(1), core: CoreId(0), address: address.into() };
    turns.at(now(*at));
    let mut journey = Journey::begin(turns);
    journey.sent(turns, PartitionId(3), TableId(2), member);
    *at += 400_000;
    turns.at(now(*at));
    journey.answered(turns, core);
    recorder.note(Boot(1), journey.total_ns(), || journey.trace(Kind::Put as u16, 1, false));
    *at += 10_000;
    journey.for_client()
}

fn tail(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tail");
    let mut frame = Vec::new();
    seal(&mut frame, Header::new(Kind::Put, RequestId(1)), |body| body.resize(body.len() + 1200, 7));
    group.bench_function("check a frame of 1 KiB, for comparison", |bencher| {
        bencher.iter(|| first_frame(black_box(&frame), BodyLimit::AFTER_HELLO).map(|found| found.is_some()));
    });
    let (mut milestones, mut slot) = (Milestones::default(), Slot(1));
    group.bench_function("storage core: stages of a write", |bencher| {
        bencher.iter(|| {
            slot = slot.next();
            on_the_core(&mut milestones, slot)
        });
    });
    let core = on_the_core(&mut Milestones::default(), Slot(1));
    let (mut turns, mut recorder, mut at) = (Turns::default(), Recorder::new(1), 1_000_000);
    group.bench_function("router: stages, header and recorder", |bencher| {
        bencher.iter(|| in_the_router(&mut turns, &mut recorder, &mut at, black_box(core)));
    });
    let to = Endpoint::Outgoing(SocketAddr::from(([127, 0, 0, 1], 1)));
    let answer = WriteAnswer {
        position: Position { partition: PartitionId(3), slot: Slot(4) },
        timestamp: 1,
        item: None,
    };
    for (name, timeline) in [("answers without stages", Packed::NONE), ("answers with stages", core)] {
        let mut effects = Effects::new();
        group.bench_function(format!("storage core: a turn's 64 {name}"), |bencher| {
            bencher.iter(|| {
                for request in 0..64 {
                    let header = Header { timeline, ..Header::new(Kind::WriteAnswer, RequestId(request)) };
                    effects.send(to, header, black_box(&answer));
                }
                effects.took(Duration::from_micros(100));
                let sent: Vec<Vec<u8>> = effects.take_outboxes().map(|(_, bytes)| bytes).collect();
                sent.into_iter().for_each(|bytes| effects.recycle(bytes));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tail);
criterion_main!(benches);
