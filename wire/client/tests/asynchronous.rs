//! What only the async client does: many calls at once on few connections, futures that are dropped,
//! executors of any kind, and an end.

mod harness;

use evenkeel_client::{AsyncClient, Error};
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::message::request::WriteAnswer;
use harness::{Reply, Seen, Server, TestShell, block_on, in_turn, key, position, table};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn connect(server: &Server) -> AsyncClient {
    AsyncClient::connect(server.builder()).expect("a connection")
}

fn written(seen: &Seen) -> Reply {
    seen.answer(&WriteAnswer { position: position(), timestamp: seen.token().sequence, item: None })
}

/// Waits for all of some futures at once.
async fn all<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<(F, Option<F::Output>)> = futures.into_iter().map(|future| (future, None)).collect();
    std::future::poll_fn(|context| {
        let mut open = 0;
        for (future, output) in &mut futures {
            if output.is_none() {
                match Pin::new(future).poll(context) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => open += 1,
                }
            }
        }
        if open == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

#[test]
fn many_calls_share_a_connection_and_answers_come_in_any_order() {
    let mut held: Vec<Seen> = Vec::new();
    let server = Server::start(vec![table(1, "t")], move |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        held.push(seen.clone());
        if held.len() < 50 {
            return Some(vec![]);
        }
        Some(held.drain(..).rev().map(|seen| written(&seen)).collect())
    });
    let client = connect(&server);
    block_on(client.describe_table("t").send()).expect("a table");
    let puts = (0..200).map(|number| client.put("t", key(&format!("k{number}"))).send()).collect();
    let outputs = futures_lite::future::block_on(all(puts));
    let timestamps: BTreeSet<u64> =
        outputs.into_iter().map(|output| output.expect("written").timestamp).collect();
    assert_eq!(timestamps.len(), 200);
    assert!(server.seen(&[Kind::Put]).iter().all(|put| put.connection == 0));
}

#[test]
fn a_call_can_be_made_from_any_thread_at_any_time() {
    let server =
        Server::start(vec![table(1, "t")], in_turn(Kind::Put, vec![Box::new(|seen| vec![written(seen)])]));
    let client = connect(&server);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..50 {
                    let put = client.put("t", key(&format!("k{thread}.{number}")));
                    block_on(put.send()).expect("written");
                }
            });
        }
    });
    assert_eq!(server.seen(&[Kind::Put]).len(), 200);
}

/// Polls a future once, without anyone to wake.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_dropped_write_keeps_its_token_until_it_is_answered() {
    let held: Arc<Mutex<Option<Seen>>> = Arc::default();
    let for_script = Arc::clone(&held);
    let server = Server::start(vec![table(1, "t")], move |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        if seen.token().sequence == 1 {
            *for_script.lock().unwrap() = Some(seen.clone());
            return Some(vec![]);
        }
        Some(vec![written(seen)])
    });
    let client = connect(&server);
    block_on(client.describe_table("t").send()).expect("a table");
    let mut abandoned = Box::pin(client.put("t", key("a")).send());
    assert!(poll_once(abandoned.as_mut()).is_pending());
    server.wait_for(Kind::Put, 1);
    drop(abandoned);
    block_on(client.put("t", key("b")).send()).expect("written");
    let tokens: Vec<_> = server.seen(&[Kind::Put]).iter().map(Seen::token).collect();
    assert_eq!((tokens[1].sequence, tokens[1].acknowledged_below), (2, 1), "the first may still be executed");
    let answer = written(held.lock().unwrap().as_ref().expect("it arrived"));
    server.send(0, &answer);
    // The answer is read before that of a later request.
    block_on(client.put("t", key("c")).send()).expect("written");
    block_on(client.put("t", key("d")).send()).expect("written");
    let last = server.seen(&[Kind::Put]).last().expect("a put").token();
    assert_eq!((last.sequence, last.acknowledged_below), (4, 4));
}

#[test]
fn a_dropped_read_leaves_the_connection_as_it_was() {
    let server = Server::start(vec![table(1, "t")], |seen| {
        let reads = (seen.header.kind == Kind::Get).then(Vec::new);
        reads.or_else(|| (seen.header.kind == Kind::Put).then(|| vec![written(seen)]))
    });
    let client = connect(&server);
    block_on(client.describe_table("t").send()).expect("a table");
    for _ in 0..10 {
        let mut get = pin!(client.get("t", key("a")).send());
        assert!(poll_once(get.as_mut()).is_pending());
    }
    block_on(client.put("t", key("a")).send()).expect("written");
    assert_eq!(server.seen(&[Kind::Put])[0].connection, 0);
}

#[test]
fn a_call_that_is_never_polled_sends_nothing() {
    let server = Server::start(vec![table(1, "t")], |_| None);
    let client = connect(&server);
    drop(client.put("t", key("a")).send());
    block_on(client.describe_table("t").send()).expect("a table");
    assert_eq!(server.seen(Kind::ALL).len(), 1);
}

#[test]
fn dropping_the_client_closes_its_connections() {
    let server =
        Server::start(vec![table(1, "t")], in_turn(Kind::Put, vec![Box::new(|seen| vec![written(seen)])]));
    let client = AsyncClient::connect(server.builder().connections(3)).expect("a connection");
    let clone = client.clone();
    let put = client.put("t", key("a")).send();
    drop(client);
    block_on(put).expect("a clone and a future keep the client alive");
    drop(clone);
    server.wait_until_deserted();
}

#[test]
fn a_lost_connection_fails_all_that_was_under_way_and_each_is_repeated() {
    let mut count = 0;
    let server = Server::start(vec![table(1, "t")], move |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        count += 1;
        Some(match count {
            1..20 => vec![],
            20 => vec![Reply::Close],
            _ => vec![written(seen)],
        })
    });
    let client = connect(&server);
    block_on(client.describe_table("t").send()).expect("a table");
    let puts = (0..20).map(|number| client.put("t", key(&format!("k{number}"))).send()).collect();
    let outputs = block_on(all(puts));
    assert!(outputs.iter().all(Result::is_ok), "{outputs:?}");
    let puts = server.seen(&[Kind::Put]);
    assert_eq!(puts.len(), 40);
    for sequence in 1..=20 {
        let tries: Vec<&Seen> = puts.iter().filter(|put| put.token().sequence == sequence).collect();
        assert!(tries.len() == 2 && tries[0].body == tries[1].body, "write {sequence}");
    }
}

#[test]
fn requests_are_spread_over_connections() {
    let server = Server::start(vec![table(1, "t")], |seen| (seen.header.kind == Kind::Put).then(Vec::new));
    let builder = server.builder().connections(4).deadline(Duration::from_millis(100));
    let client = AsyncClient::connect(builder).expect("a connection");
    let puts =
        |count: usize| (0..count).map(|number| client.put("t", key(&number.to_string())).send()).collect();
    let _ = block_on(all(puts(1)));
    let outcomes = block_on(all(puts(8)));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::OutcomeUnknown { .. }))));
    let used: BTreeSet<usize> = server.seen(&[Kind::Put]).iter().map(|put| put.connection).collect();
    assert!(used.len() > 1, "{used:?}");
}

#[test]
fn a_pause_between_attempts_holds_no_thread() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| vec![seen.refuse(ErrorCode::NotLeader)]),
                Box::new(|seen| vec![written(seen)]),
            ],
        ),
    );
    let client = connect(&server);
    block_on(client.describe_table("t").send()).expect("a table");
    let mut put = Box::pin(client.put("t", key("a")).send());
    assert!(poll_once(put.as_mut()).is_pending());
    server.wait_for(Kind::Put, 1);
    block_on(put).expect("written");
}
