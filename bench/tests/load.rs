//! The load generator against a server whose faults are planted: does it report what was planted, and
//! nothing else?

#[path = "load/server.rs"]
mod server;

use evenkeel_bench::interval::Interval;
use evenkeel_bench::load::{LoadError, Options};
use evenkeel_bench::plan::Pace;
use evenkeel_bench::report::{Report, SHORTFALL_MAX};
use evenkeel_bench::schedule::Arrivals;
use evenkeel_bench::threads::{Client, Event, Threads, preload, run};
use evenkeel_bench::trace::Trace;
use evenkeel_bench::workload::{Kind, Workload, key_item, key_name};
use evenkeel_wire::frame;
use evenkeel_wire::ids::TableId;
use evenkeel_wire::key::{HashKey, KeySchema, KeyType};
use evenkeel_wire::table::TableDescriptor;
use server::{Behaviour, Seen, Server};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn table() -> TableDescriptor {
    let (schema, hash_key) = (KeySchema::partition_only("pk", KeyType::S), HashKey([7; 16]));
    TableDescriptor { id: TableId(9), schema, hash_key, ..TableDescriptor::system() }
}

fn options(server: &Server, workload: &str, pace: Pace, measure: Duration) -> Options {
    Options {
        router: server.address,
        table: table(),
        workload: Workload::named(workload).unwrap(),
        pace,
        connections: 4,
        keys: 100,
        warm_up: Duration::ZERO,
        measure,
        seed: 1,
        client: [1; 16],
        spin: false,
        tick: Duration::ZERO,
    }
}

fn threads(count: usize, client: Client) -> Threads {
    Threads { count, pin: Vec::new(), client }
}

/// Runs a load. Returns also what each interval held.
fn measure(options: &Options, threads: &Threads) -> Result<(Report, Vec<Interval>), LoadError> {
    let looks = (0..threads.count).map(|_| channel().1).collect();
    let (mut intervals, mut borders) = (Vec::new(), Vec::new());
    let report = run(options, threads, looks, &mut |event| match event {
        Event::Interval(interval) => intervals.push(interval.clone()),
        Event::Soon => borders.push("soon"),
        Event::Begin => borders.push("begin"),
        Event::End => borders.push("end"),
    })?;
    assert_eq!(borders, ["soon", "begin", "end"]);
    Ok((report, intervals))
}

/// Latency in milliseconds.
fn ms(report: &Report, percentile: f64) -> f64 {
    report.latencies.percentile(percentile).expect("enough samples") as f64 / 1e3
}

/// For a fifth of each second nothing is answered. Of requests that come evenly, a fifth meet the stall, and
/// wait for 0 to 200 ms: one in ten waits for more than 100 ms, one in a hundred for more than 190 ms. In a
/// closed loop with one request under way, one request meets each stall, whatever the others do.
#[test]
fn a_stall_is_seen_in_an_open_loop_and_hidden_by_a_closed_one() {
    let stalls = Some((SECOND, Duration::from_millis(200)));
    let server = Server::start(Behaviour { stalls, ..Behaviour::default() });
    for (client, arrivals) in [(Client::Ring, Arrivals::Uniform), (Client::Epoll, Arrivals::Poisson)] {
        let open = options(&server, "put", Pace::Open(500.0, arrivals), 4 * SECOND);
        let (open, _) = measure(&open, &threads(1, client)).unwrap();
        assert!(ms(&open, 99.0) > 150.0, "{client:?}: p99 is {} ms", ms(&open, 99.0));
        assert!(ms(&open, 90.0) > 60.0, "{client:?}: p90 is {} ms", ms(&open, 90.0));
        let closed = options(&server, "put", Pace::Closed(1), 4 * SECOND);
        let (closed, _) = measure(&closed, &threads(1, client)).unwrap();
        assert!(
            closed.latencies.max() > 100_000,
            "{client:?}: it did meet one: {} us",
            closed.latencies.max()
        );
        let (hidden, seen) = (ms(&closed, 99.0), ms(&open, 99.0));
        assert!(
            hidden < seen / 4.0,
            "{client:?}: p99 of a closed loop is {hidden} ms, of an open one {seen} ms"
        );
    }
}

#[test]
fn a_server_that_is_slower_than_what_is_offered_makes_no_measurement() {
    let service = Duration::from_millis(2);
    let server = Server::start(Behaviour { service, ..Behaviour::default() });
    for client in [Client::Ring, Client::Epoll] {
        let overload = options(&server, "get", Pace::Open(2000.0, Arrivals::Uniform), SECOND);
        let (report, _) = measure(&overload, &threads(1, client)).unwrap();
        assert_eq!(report.offered, 2000, "what could not be sent was offered all the same");
        assert!(report.rate() < 600.0, "{client:?}: {} a second", report.rate());
        assert!(report.shortfall() > 0.5 && report.shortfall() > SHORTFALL_MAX, "{}", report.shortfall());
        assert!(report.latencies.count() + report.unanswered <= 2000);
    }
}

/// A tick makes requests wait, and they are charged for it: to send late and not to tell would flatter.
#[test]
fn what_is_due_within_a_tick_is_begun_together_and_counts_from_when_it_was_due() {
    let server = Server::start(Behaviour::default());
    let tick = Duration::from_millis(100);
    let paced = options(&server, "get", Pace::Open(1000.0, Arrivals::Uniform), 2 * SECOND);
    for client in [Client::Ring, Client::Epoll] {
        let (report, _) = measure(&Options { tick, ..paced.clone() }, &threads(1, client)).unwrap();
        assert_eq!((report.offered, report.latencies.count(), report.unanswered), (2000, 2000, 0));
        // Due evenly within a tick; only answers wake the thread sooner, and they come at its end.
        assert!(ms(&report, 50.0) > 20.0, "{client:?}: p50 is {} ms", ms(&report, 50.0));
        assert!(ms(&report, 90.0) > 70.0, "{client:?}: p90 is {} ms", ms(&report, 90.0));
        let late = report.late.percentile(50.0).expect("enough samples");
        assert!(late > 20_000, "{client:?}: and it is told: {late} us");
    }
}

#[test]
fn threads_share_the_rate_and_intervals_add_up_to_the_report() {
    let server = Server::start(Behaviour::default());
    let ways = [
        (1, Client::Ring, false),
        (3, Client::Ring, false),
        (1, Client::Ring, true),
        (2, Client::Epoll, false),
    ];
    for (count, client, spin) in ways {
        let pace = Pace::Open(300.0, Arrivals::Uniform);
        let mut options = options(&server, "ycsb-b", pace, 2 * SECOND);
        options.warm_up = Duration::from_millis(100);
        options.spin = spin;
        let (report, intervals) = measure(&options, &threads(count, client)).unwrap();
        assert_eq!(report.offered, 600);
        let counts: Vec<u64> = intervals.iter().map(|interval| interval.latencies.count()).collect();
        assert_eq!(counts.iter().sum::<u64>(), report.latencies.count(), "{counts:?}");
        let indexes: Vec<u64> = intervals.iter().map(|interval| interval.index).collect();
        assert!(indexes.starts_with(&[0, 1]), "{indexes:?}");
        assert_eq!(report.reads.count() + report.writes.count(), report.latencies.count());
        assert_eq!((report.missed, report.errors.len(), report.unanswered), (0, 0, 0));
    }
}

#[test]
fn a_seed_decides_which_requests_are_sent() {
    let sent = |seed| {
        let server = Server::start(Behaviour::default());
        let pace = Pace::Open(400.0, Arrivals::Poisson);
        let one = Options { seed, connections: 1, ..options(&server, "ycsb-a", pace, SECOND) };
        measure(&one, &threads(1, Client::Ring)).unwrap();
        server.seen()
    };
    let (first, again, other) = (sent(1), sent(1), sent(2));
    assert!(first.len() > 300);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

/// As everybody's client does: what a partition remembers for a client is what is under way, however fast it
/// writes and however many runs come one after the other.
#[test]
fn a_write_that_is_answered_is_acknowledged_by_the_next() {
    let server = Server::start(Behaviour::default());
    let options = Options { connections: 1, ..options(&server, "put", Pace::Closed(3), SECOND / 4) };
    measure(&options, &threads(1, Client::Ring)).unwrap();
    let tokens = server.tokens();
    assert!(tokens.len() > 100);
    for (place, token) in (1..).zip(&tokens) {
        assert_eq!((token.client, token.sequence), (tokens[0].client, place));
        assert!(token.sequence - token.acknowledged_below < 3, "{token:?} with three under way");
    }
}

/// Requests of five keys, a few of them at the same time.
fn trace() -> Trace {
    let mut text = String::new();
    for number in 0..300_u64 {
        let (op, key) =
            (["get", "put", "scan"][number as usize % 3], ["a", "b", "c", "d", "e"][number as usize % 5]);
        writeln!(text, "{{\"at_us\": {}, \"op\": \"{op}\", \"key\": \"{key}\"}}", number / 4 * 4000).unwrap();
    }
    Trace::read(text.as_bytes()).unwrap()
}

/// What a server sees of a trace.
fn expected(trace: &Trace) -> Vec<Seen> {
    let table = table();
    let seen = |recorded: &evenkeel_bench::trace::Recorded| {
        let name = &trace.keys[recorded.operation.key as usize];
        let kind = match recorded.operation.kind {
            Kind::Get => frame::Kind::Get,
            Kind::Put => frame::Kind::Put,
            Kind::Scan => frame::Kind::Scan,
            kind => panic!("the trace has no {kind:?}"),
        };
        (kind, table.schema.storage_key(&table.hash_key, &key_item(name)).unwrap().0)
    };
    trace.requests.iter().map(seen).collect()
}

#[test]
fn a_trace_replays_in_order() {
    let trace = Arc::new(trace());
    let expected = expected(&trace);
    for (count, connections, client) in
        [(1, 1, Client::Ring), (1, 1, Client::Epoll), (1, 5, Client::Ring), (2, 6, Client::Ring)]
    {
        let server = Server::start(Behaviour::default());
        let pace = Pace::Trace(Arc::clone(&trace), 2.0);
        let mut options = options(&server, "put", pace, trace.lasts() / 2 + Duration::from_millis(1));
        options.connections = connections;
        let (report, _) = measure(&options, &threads(count, client)).unwrap();
        assert_eq!((report.offered, report.latencies.count()), (300, 300));
        let seen = server.seen();
        if connections == 1 {
            assert_eq!(seen, expected);
        }
        let keys: Vec<&Vec<u8>> = expected[..5].iter().map(|(_, key)| key).collect();
        for key in keys {
            let of =
                |all: &[Seen]| -> Vec<Seen> { all.iter().filter(|(_, of)| of == key).cloned().collect() };
            assert_eq!(of(&seen), of(&expected), "{count} threads, {connections} connections");
        }
    }
}

#[test]
fn a_preload_writes_every_key_once() {
    for client in [Client::Ring, Client::Epoll] {
        let server = Server::start(Behaviour::default());
        let mut options = options(&server, "get", Pace::Closed(1), SECOND);
        options.keys = 5000;
        let mut last = 0;
        preload(&options, client, 100, &mut |written| last = written).unwrap();
        assert_eq!(last, 5000);
        let table = table();
        let key = |number| table.schema.storage_key(&table.hash_key, &key_item(&key_name(number))).unwrap().0;
        let mut seen: Vec<Vec<u8>> = server.seen().into_iter().map(|(_, key)| key).collect();
        let mut all: Vec<Vec<u8>> = (100..5000).map(key).collect();
        seen.sort();
        all.sort();
        assert_eq!(seen, all);
    }
}

#[test]
fn a_thread_that_cannot_go_on_ends_the_run_with_its_reason() {
    let server = Server::start(Behaviour::default());
    let pace = || Pace::Open(100.0, Arrivals::Uniform);
    let nowhere = Threads { pin: vec![100_000], ..threads(2, Client::Ring) };
    let refused =
        run(&options(&server, "get", pace(), SECOND), &nowhere, vec![channel().1, channel().1], &mut |_| ());
    assert!(matches!(refused, Err(LoadError::Thread { .. })), "{refused:?}");
    for client in [Client::Ring, Client::Epoll] {
        let server = Server::start(Behaviour { closes_after: Some(5), ..Behaviour::default() });
        let lost = run(
            &options(&server, "get", pace(), SECOND),
            &threads(1, client),
            vec![channel().1],
            &mut |_| (),
        );
        assert!(matches!(lost, Err(LoadError::Socket { .. })), "{client:?}: {lost:?}");
    }
}
