//! Many requests on one connection: in any order, with failures among them, and within bounds.

mod harness;

use evenkeel_client::blocking::PIPELINE_REQUESTS_MAX;
use evenkeel_client::{Error, Submitted};
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::message::access;
use evenkeel_wire::message::request::{GetAnswer, Put, WriteAnswer};
use harness::{Reply, Seen, Server, in_turn, key, position, row, table};
use std::collections::BTreeSet;
use std::time::Duration;

/// Answers with the timestamp that the request's id gives.
fn written(seen: &Seen) -> Reply {
    seen.answer(&WriteAnswer { position: position(), timestamp: seen.token().sequence, item: None })
}

#[test]
fn answers_in_any_order_find_their_requests() {
    let mut held: Vec<Seen> = Vec::new();
    let server = Server::start(vec![table(1, "t")], move |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        held.push(seen.clone());
        // Ten at a time, the last one first.
        if held.len() < 10 {
            return Some(vec![]);
        }
        Some(held.drain(..).rev().map(|seen| written(&seen)).collect())
    });
    let client = server.builder().connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    let puts: Vec<Submitted<_>> =
        (0..100).map(|number| pipeline.submit(client.put("t", key(&format!("k{number}"))))).collect();
    for (place, put) in puts.into_iter().enumerate() {
        let output = pipeline.collect(put).expect("written");
        assert_eq!(output.timestamp, place as u64 + 1, "each request has its own answer");
    }
    assert_eq!(pipeline.unfinished(), 0);
    let puts = server.seen(&[Kind::Put]);
    assert!(puts.iter().all(|put| put.connection == puts[0].connection), "one connection");
    assert_eq!(server.seen(&[Kind::DescribeTable]).len(), 1);
    let sequences: Vec<u64> = puts.iter().map(|put| put.token().sequence).collect();
    assert!(sequences.is_sorted(), "sent in the order of submission");
}

#[test]
fn a_connection_that_breaks_costs_no_request() {
    let mut count = 0;
    let server = Server::start(vec![table(1, "t")], move |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        count += 1;
        Some(if count == 30 { vec![Reply::Close] } else { vec![written(seen)] })
    });
    let client = server.builder().connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    let puts: Vec<Submitted<_>> =
        (0..50).map(|number| pipeline.submit(client.put("t", key(&format!("k{number}"))))).collect();
    for (place, put) in puts.into_iter().enumerate() {
        assert_eq!(pipeline.collect(put).expect("written").timestamp, place as u64 + 1);
    }
    let puts = server.seen(&[Kind::Put]);
    let connections: BTreeSet<usize> = puts.iter().map(|put| put.connection).collect();
    assert_eq!(connections.len(), 2);
    for put in &puts {
        let same = |other: &&Seen| other.token().sequence == put.token().sequence;
        assert!(puts.iter().filter(same).all(|other| other.body == put.body), "repeated byte for byte");
    }
}

#[test]
fn a_request_that_fails_leaves_the_others_alone() {
    let server = Server::start(vec![table(1, "t")], |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        let put = access::<Put<'static>>(&seen.body).expect("a put");
        let refused = put.key.windows(3).any(|part| part == b"bad");
        Some(vec![if refused { seen.refuse(ErrorCode::ConditionFailed) } else { written(seen) }])
    });
    let client = server.builder().connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    let good = pipeline.submit(client.put("t", key("good")));
    let bad = pipeline.submit(client.put("t", key("bad")));
    let invalid = pipeline.submit(client.put("t", key("")));
    let wrong = pipeline.submit(client.put("t", key("x")).condition("pk ="));
    let absent = pipeline.submit(client.put("absent", key("x")));
    let last = pipeline.submit(client.put("t", key("last")));
    assert!(pipeline.collect(last).is_ok());
    assert!(pipeline.collect(bad).expect_err("refused").is_condition_failed());
    assert!(matches!(pipeline.collect(invalid), Err(Error::Invalid(_))));
    assert!(matches!(pipeline.collect(wrong), Err(Error::Invalid(_))));
    assert!(pipeline.collect(absent).expect_err("there is no such table").is_table_not_found());
    assert!(pipeline.collect(good).is_ok());
}

#[test]
fn a_request_that_nobody_answers_goes_to_a_new_connection_and_the_others_are_waited_for() {
    let mut late: Option<Seen> = None;
    let server = Server::start(vec![table(1, "t")], move |seen| {
        if seen.header.kind != Kind::Put {
            return None;
        }
        if seen.token().sequence == 2 && late.is_none() {
            late = Some(seen.clone());
            return Some(vec![]);
        }
        Some(vec![written(seen)])
    });
    let builder = server.builder().attempt_deadline(Duration::from_millis(30));
    let client = builder.connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    let puts: Vec<Submitted<_>> =
        (0..5).map(|number| pipeline.submit(client.put("t", key(&format!("k{number}"))))).collect();
    for (place, put) in puts.into_iter().enumerate() {
        assert_eq!(pipeline.collect(put).expect("written").timestamp, place as u64 + 1);
    }
    let silent: Vec<Seen> =
        server.seen(&[Kind::Put]).into_iter().filter(|put| put.token().sequence == 2).collect();
    assert!(silent.len() == 2 && silent[0].body == silent[1].body);
    assert_ne!(silent[0].connection, silent[1].connection);
}

#[test]
fn submitting_waits_when_too_much_is_unanswered() {
    let server =
        Server::start(vec![table(1, "t")], in_turn(Kind::Put, vec![Box::new(|seen| vec![written(seen)])]));
    let client = server.builder().connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    for number in 0..3 * PIPELINE_REQUESTS_MAX {
        let _ = pipeline.submit(client.put("t", key(&format!("k{number}"))));
        assert!(pipeline.unfinished() < PIPELINE_REQUESTS_MAX);
    }
    pipeline.finish();
    assert_eq!(pipeline.unfinished(), 0);
    assert_eq!(server.seen(&[Kind::Put]).len(), 3 * PIPELINE_REQUESTS_MAX);
    let last = server.seen(&[Kind::Put]).last().expect("a put").token();
    assert!(last.acknowledged_below > 1, "tokens are retired on the way");
}

#[test]
fn large_answers_are_read_while_large_requests_are_written() {
    const BYTES: usize = 300_000;
    let server = Server::start(vec![table(1, "t")], |seen| {
        if seen.header.kind == Kind::Get {
            let item = key("a").with("b", vec![7_u8; BYTES]);
            return Some(vec![seen.answer(&GetAnswer { position: position(), item: Some(row(&item)) })]);
        }
        (seen.header.kind == Kind::Put).then(|| vec![written(seen)])
    });
    let client = server.builder().connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    let mut gets = Vec::new();
    let mut puts = Vec::new();
    for number in 0..40 {
        gets.push(pipeline.submit(client.get("t", key("a"))));
        let item = key(&format!("k{number}")).with("b", vec![1_u8; BYTES]);
        puts.push(pipeline.submit(client.put("t", item)));
    }
    for get in gets {
        assert_eq!(pipeline.collect(get).expect("answered").item.expect("an item").len(), 2);
    }
    for put in puts {
        pipeline.collect(put).expect("written");
    }
}

#[test]
fn a_pipeline_that_is_dropped_gives_its_tokens_back() {
    let server = Server::start(vec![table(1, "t")], |seen| {
        (seen.header.kind == Kind::Put)
            .then(|| if seen.token().sequence == 1 { vec![] } else { vec![written(seen)] })
    });
    let client = server.builder().connect().expect("a connection");
    let mut pipeline = client.pipeline().expect("a pipeline");
    let unanswered = pipeline.submit(client.put("t", key("a")));
    pipeline.flush();
    server.wait_for(Kind::Put, 1);
    drop((unanswered, pipeline));
    client.put("t", key("b")).send().expect("written");
    let token = server.seen(&[Kind::Put]).last().expect("a put").token();
    assert_eq!((token.sequence, token.acknowledged_below), (2, 2));
}
