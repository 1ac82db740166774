//! What becomes of a write when something goes wrong, with both clients.

mod harness;

use evenkeel_client::protocol::call::REFUSALS_PER_ENDPOINT;
use evenkeel_client::protocol::operation::write::Write;
use evenkeel_client::{Error, ProtocolError};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::TableId;
use evenkeel_wire::message::access;
use evenkeel_wire::message::request::{Put, ReturnItem, Row, WriteAnswer};
use harness::{Greeting, Reply, SERVER_MS, Seen, Server, TestShell, in_turn, key, position, row, table};
use std::borrow::Cow;
use std::time::Duration;

on_both_clients! {
    a_write_whose_connection_breaks_is_repeated_byte_for_byte_on_a_new_one
    a_write_that_meets_no_leader_is_repeated_until_there_is_one
    a_write_that_nobody_answers_is_repeated_on_a_new_connection
    tokens_acknowledge_the_writes_that_ended
    a_token_that_was_refused_unseen_is_renewed_with_a_corrected_clock
    a_token_that_expires_after_a_risky_attempt_leaves_the_outcome_unknown
    a_token_is_renewed_only_once
    a_deadline_after_a_risky_attempt_leaves_the_outcome_unknown
    a_deadline_without_a_risky_attempt_is_a_timeout
    a_condition_that_does_not_hold_is_told_at_once
    an_item_that_comes_back_damaged_is_noticed
    an_answer_of_another_kind_is_a_protocol_error
    a_damaged_answer_is_asked_for_again
    a_table_that_was_created_again_is_described_again
    a_table_that_is_gone_is_told_after_one_more_look
    a_table_that_is_not_ready_is_waited_for
    a_router_that_shuts_down_is_left_for_the_next
    a_router_that_refuses_again_and_again_is_left_for_the_next
    an_endpoint_that_cannot_be_reached_is_passed_over
}

fn put(text: &str) -> Write {
    Write::put("t", &key(text)).expect("an item")
}

/// Whether two requests are the same but for their connection and id.
fn same(left: &Seen, right: &Seen) -> bool {
    left.header.kind == right.header.kind && left.body == right.body
}

fn a_write_whose_connection_breaks_is_repeated_byte_for_byte_on_a_new_one<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|_| vec![Reply::Close]), Box::new(|seen| vec![seen.written()])]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let output = client.run(put("a")).expect("written");
    assert_eq!((output.position, output.timestamp, output.item), (position(), 77, None));
    let puts = server.seen(&[Kind::Put]);
    assert!(puts.len() == 2 && same(&puts[0], &puts[1]));
    assert_ne!(puts[0].connection, puts[1].connection);
}

fn a_write_that_meets_no_leader_is_repeated_until_there_is_one<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| vec![seen.refuse(ErrorCode::NotLeader)]),
                Box::new(|seen| vec![seen.refuse(ErrorCode::LeaderNotReady)]),
                Box::new(|seen| vec![seen.refuse(ErrorCode::OutcomeUnknown)]),
                Box::new(|seen| vec![seen.written()]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(put("a")).expect("written");
    let puts = server.seen(&[Kind::Put]);
    assert!(puts.len() == 4 && puts.iter().all(|put| same(put, &puts[0])));
    assert!(puts.iter().all(|put| put.connection == 0), "the connection is good");
    assert!(puts.iter().all(|put| (1..=2_000_000).contains(&put.header.deadline_us)));
}

fn a_write_that_nobody_answers_is_repeated_on_a_new_connection<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|_| vec![]), Box::new(|seen| vec![seen.written()])]),
    );
    let builder = server.builder().attempt_deadline(Duration::from_millis(20));
    let client = S::connect(builder).expect("a connection");
    client.run(put("a")).expect("written");
    let puts = server.seen(&[Kind::Put]);
    assert!(puts.len() == 2 && same(&puts[0], &puts[1]));
    assert_ne!(puts[0].connection, puts[1].connection);
}

fn tokens_acknowledge_the_writes_that_ended<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| vec![seen.written()]),
                Box::new(|seen| vec![seen.refuse(ErrorCode::ConditionFailed)]),
                Box::new(|seen| vec![seen.written()]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    for text in ["a", "b", "c"] {
        let _ = client.run(put(text));
    }
    let tokens: Vec<_> = server.seen(&[Kind::Put]).iter().map(Seen::token).collect();
    let told = |place: usize| (tokens[place].sequence, tokens[place].acknowledged_below);
    assert_eq!([told(0), told(1), told(2)], [(1, 1), (2, 2), (3, 3)]);
    assert!(tokens.iter().all(|token| token.client == tokens[0].client && token.issued_ms >= SERVER_MS));
    let other = S::connect(server.builder()).expect("a connection");
    other.run(put("d")).expect("written");
    let token = server.seen(&[Kind::Put])[3].token();
    assert!(token.client != tokens[0].client && token.sequence == 1, "each client is another");
}

fn a_token_that_was_refused_unseen_is_renewed_with_a_corrected_clock<S: TestShell>() {
    const CORRECTED_MS: u64 = SERVER_MS + 3_600_000;
    let server = Server::greeting(
        vec![table(1, "t")],
        |connection| Greeting::Welcome(if connection == 0 { SERVER_MS } else { CORRECTED_MS }),
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| vec![seen.refuse(ErrorCode::TokenExpired)]),
                Box::new(|seen| vec![seen.written()]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(put("a")).expect("written");
    let tokens: Vec<_> = server.seen(&[Kind::Put]).iter().map(Seen::token).collect();
    assert_eq!((tokens[0].sequence, tokens[1].sequence, tokens[1].acknowledged_below), (1, 2, 2));
    assert!(tokens[0].issued_ms < CORRECTED_MS && tokens[1].issued_ms >= CORRECTED_MS);
}

fn a_token_that_expires_after_a_risky_attempt_leaves_the_outcome_unknown<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|_| vec![Reply::Close]),
                Box::new(|seen| vec![seen.refuse(ErrorCode::TokenExpired)]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(put("a")).expect_err("nobody knows");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::TokenExpired));
    assert_eq!(server.seen(&[Kind::Put]).len(), 2, "it was not written under another token");
}

fn a_token_is_renewed_only_once<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.refuse(ErrorCode::TokenExpired)])]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(put("a")).expect_err("the clocks differ");
    assert!(matches!(error, Error::Problem(Problem { code: ErrorCode::TokenExpired, .. })), "{error:?}");
    assert_eq!(server.seen(&[Kind::Put]).len(), 2);
}

fn a_deadline_after_a_risky_attempt_leaves_the_outcome_unknown<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![Box::new(|_| vec![Reply::Close]), Box::new(|seen| vec![seen.refuse(ErrorCode::NotLeader)])],
        ),
    );
    let client = S::connect(server.builder().deadline(Duration::from_millis(300))).expect("a connection");
    let error = client.run(put("a")).expect_err("there is no leader");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    assert!(error.may_have_executed() && !error.is_retryable());
    let puts = server.seen(&[Kind::Put]);
    assert!(puts.len() > 2 && puts.iter().all(|put| same(put, &puts[0])), "{} attempts", puts.len());
}

fn a_deadline_without_a_risky_attempt_is_a_timeout<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.refuse(ErrorCode::LeaderNotReady)])]),
    );
    let client = S::connect(server.builder().deadline(Duration::from_millis(200))).expect("a connection");
    let error = client.run(put("a")).expect_err("there is no leader");
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::LeaderNotReady));
    assert!(!error.may_have_executed());
}

fn a_condition_that_does_not_hold_is_told_at_once<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.refuse(ErrorCode::ConditionFailed)])]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(put("a")).expect_err("the condition does not hold");
    assert!(error.is_condition_failed());
    assert_eq!(server.seen(&[Kind::Put]).len(), 1);
}

fn an_item_that_comes_back_damaged_is_noticed<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![Box::new(|seen| {
                let Row { checksum, item } = row(&key("before").with("n", 1));
                let mut damaged = item.into_owned();
                damaged[3] ^= 1;
                let item = Some(Row { checksum, item: Cow::Owned(damaged) });
                vec![seen.answer(&WriteAnswer { position: position(), timestamp: 1, item })]
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(put("a").returning(ReturnItem::Old)).expect_err("the item is damaged");
    assert!(matches!(error, Error::CorruptItem { .. }), "{error:?}");
    assert!(error.may_have_executed());
}

fn an_answer_of_another_kind_is_a_protocol_error<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![Box::new(|seen| {
                vec![Reply::Send(harness::frame(Kind::GetAnswer, seen.header.request, b""))]
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(put("a")).expect_err("that is no answer to a put");
    let expected = ProtocolError::AnswerKind { got: Kind::GetAnswer, expected: Kind::WriteAnswer };
    assert!(matches!(&error, Error::Protocol(got) if *got == expected), "{error:?}");
}

fn a_damaged_answer_is_asked_for_again<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| {
                    let Reply::Send(mut bytes) = seen.written() else { unreachable!("an answer") };
                    let last = bytes.len() - 1;
                    bytes[last] ^= 0x40;
                    vec![Reply::Send(bytes)]
                }),
                Box::new(|seen| vec![seen.written()]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(put("a")).expect("written");
    let puts = server.seen(&[Kind::Put]);
    assert!(puts.len() == 2 && same(&puts[0], &puts[1]) && puts[0].connection != puts[1].connection);
}

/// A script that serves puts into one table id and knows no other.
fn only_table(id: u64) -> impl FnMut(&Seen) -> Option<Vec<Reply>> + Send + 'static {
    move |seen| {
        (seen.header.kind == Kind::Put).then(|| {
            let put = access::<Put<'static>>(&seen.body).expect("a put");
            vec![match TableId::from(&put.table) == TableId(id) {
                true => seen.written(),
                false => seen.refuse(ErrorCode::TableNotFound),
            }]
        })
    }
}

fn a_table_that_was_created_again_is_described_again<S: TestShell>() {
    let server = Server::start(vec![table(1, "t")], only_table(2));
    let client = S::connect(server.builder()).expect("a connection");
    assert!(client.run(put("a")).expect_err("only the new table is served").is_table_not_found());
    server.set_tables(vec![table(2, "t")]);
    client.run(put("a")).expect("written");
    let ids: Vec<u64> = server
        .seen(&[Kind::Put])
        .iter()
        .map(|seen| access::<Put<'static>>(&seen.body).expect("a put").table.0.to_native())
        .collect();
    assert_eq!(ids.last(), Some(&2));
}

fn a_table_that_is_gone_is_told_after_one_more_look<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| vec![seen.written()]),
                Box::new(|seen| vec![seen.refuse(ErrorCode::TableNotFound)]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(put("a")).expect("written");
    server.set_tables(vec![]);
    assert!(client.run(put("b")).expect_err("there is no table").is_table_not_found());
    let kinds = [Kind::Put, Kind::DescribeTable];
    let asked: Vec<Kind> = server.seen(&kinds).iter().map(|seen| seen.header.kind).collect();
    assert_eq!(asked, [Kind::DescribeTable, Kind::Put, Kind::Put, Kind::DescribeTable]);
}

fn a_table_that_is_not_ready_is_waited_for<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Put,
            vec![
                Box::new(|seen| vec![seen.refuse(ErrorCode::TableNotReady)]),
                Box::new(|seen| vec![seen.written()]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(put("a")).expect("written");
}

fn a_router_that_shuts_down_is_left_for_the_next<S: TestShell>() {
    let leaving = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.refuse(ErrorCode::ShuttingDown)])]),
    );
    let staying =
        Server::start(vec![table(1, "t")], in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.written()])]));
    let builder = leaving.builder().endpoint(staying.endpoint()).connections(1);
    let client = S::connect(builder).expect("a connection");
    client.run(put("a")).expect("written");
    client.run(put("b")).expect("written");
    assert_eq!((leaving.seen(&[Kind::Put]).len(), staying.seen(&[Kind::Put]).len()), (1, 2));
}

fn a_router_that_refuses_again_and_again_is_left_for_the_next<S: TestShell>() {
    // It hears of no leader: whatever is asked of it, it refuses.
    let refusing = Server::start(
        vec![table(1, "t")],
        in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.refuse(ErrorCode::NotLeader)])]),
    );
    let serving =
        Server::start(vec![table(1, "t")], in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.written()])]));
    let builder = refusing.builder().endpoint(serving.endpoint()).connections(1);
    let client = S::connect(builder).expect("a connection");
    client.run(put("a")).expect("written");
    client.run(put("b")).expect("written");
    let refusals = refusing.seen(&[Kind::Put]).len();
    assert_eq!((refusals, serving.seen(&[Kind::Put]).len()), (REFUSALS_PER_ENDPOINT as usize, 2));
}

fn an_endpoint_that_cannot_be_reached_is_passed_over<S: TestShell>() {
    let server =
        Server::start(vec![table(1, "t")], in_turn(Kind::Put, vec![Box::new(|seen| vec![seen.written()])]));
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let builder = evenkeel_client::Client::builder().endpoint(nobody.to_string());
    let client = S::connect(builder.clone().endpoint(server.endpoint())).expect("a connection");
    client.run(put("a")).expect("written");
    let error = S::connect(builder).err().expect("nobody listens");
    assert!(
        matches!(&error, Error::Connect { endpoint, .. } if *endpoint == nobody.to_string()),
        "{error:?}"
    );
}
