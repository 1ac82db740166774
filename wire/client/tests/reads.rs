//! Gets, pages and batches, with both clients.

mod harness;

use evenkeel_client::protocol::operation::batch_get::BatchGet;
use evenkeel_client::protocol::operation::batch_write::BatchWrite;
use evenkeel_client::protocol::operation::get::Get;
use evenkeel_client::protocol::operation::range::RangeRead;
use evenkeel_client::{AsyncClient, Client, Error, Invalid, Item, ProtocolError};
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::message::batch::{
    self, BatchGetAnswer, BatchGetOutcome, BatchWriteAnswer, BatchWriteOutcome,
};
use evenkeel_wire::message::request::{GetAnswer, PageAnswer, Query, Token};
use evenkeel_wire::message::{access, to_owned};
use harness::{Reply, Seen, Server, TestShell, block_on, in_turn, key, position, row, sorted_table, table};
use std::time::Duration;

on_both_clients! {
    a_get_finds_an_item_or_none
    a_damaged_item_is_never_given_out
    a_read_that_is_lost_is_no_risk
    a_page_says_where_the_rest_begins
    a_server_that_repeats_itself_is_found_out
    what_a_batch_get_leaves_over_is_asked_for_again
    a_batch_get_tells_each_keys_fate
    a_batch_write_repeats_what_failed_under_the_same_tokens
    a_batch_write_that_runs_out_of_time_tells_what_was_written
}

fn get(text: &str) -> Get {
    Get::new("t", key(text), true)
}

fn found(seen: &Seen, item: Option<&Item>) -> Vec<Reply> {
    vec![seen.answer(&GetAnswer { position: position(), item: item.map(row) })]
}

fn a_get_finds_an_item_or_none<S: TestShell>() {
    let item = key("a").with("n", 1);
    let stored = item.clone();
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Get,
            vec![Box::new(move |seen| found(seen, Some(&stored))), Box::new(|seen| found(seen, None))],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let output = client.run(get("a")).expect("answered");
    assert_eq!((output.item, output.position), (Some(item), position()));
    assert_eq!(client.run(get("b")).expect("answered").item, None);
    assert_eq!(server.seen(&[Kind::DescribeTable]).len(), 1, "the table is remembered");
}

fn a_damaged_item_is_never_given_out<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Get,
            vec![Box::new(|seen| {
                let mut row = row(&key("a"));
                row.checksum ^= 1;
                vec![seen.answer(&GetAnswer { position: position(), item: Some(row) })]
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(get("a")).expect_err("the item is damaged");
    let Error::CorruptItem { announced, computed, .. } = error else { panic!("{error:?}") };
    assert_eq!(announced, computed ^ 1);
}

fn a_read_that_is_lost_is_no_risk<S: TestShell>() {
    let server =
        Server::start(vec![table(1, "t")], in_turn(Kind::Get, vec![Box::new(|_| vec![Reply::Close])]));
    let client = S::connect(server.builder().deadline(Duration::from_millis(150))).expect("a connection");
    let error = client.run(get("a")).expect_err("nobody answers");
    assert!(matches!(&error, Error::Timeout { last: Some(_), .. }), "{error:?}");
    assert!(!error.may_have_executed());
}

/// A page of items by their numbers.
fn page(numbers: &[i32], resume: Option<Vec<u8>>) -> PageAnswer<'static> {
    let rows = numbers.iter().map(|number| row(&key("p").with("sk", *number))).collect();
    PageAnswer { position: position(), rows, scanned: 10, resume }
}

/// Where a query asked to begin, as a range that goes on `steps` bytes later.
fn rest(seen: &Seen, last: u8) -> Option<Vec<u8>> {
    let query = access::<Query<'static>>(&seen.body).expect("a query");
    let mut key = query.0.lower.to_vec();
    key.push(last);
    Some(key)
}

fn query() -> RangeRead {
    let bindings = evenkeel_wire::expression::Bindings::new().with_value(":p", "p");
    RangeRead::query("t", "pk = :p", bindings)
}

fn a_page_says_where_the_rest_begins<S: TestShell>() {
    let server = Server::start(
        vec![sorted_table(1, "t")],
        in_turn(
            Kind::Query,
            vec![
                Box::new(|seen| vec![seen.answer(&page(&[1], rest(seen, 0)))]),
                Box::new(|seen| vec![seen.answer(&page(&[2], None))]),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let first = client.run(query().limit(3)).expect("a page");
    assert_eq!((first.items, first.scanned), (vec![key("p").with("sk", 1)], 10));
    let second = client.run(query().page_from(first.resume)).expect("a page");
    assert_eq!((second.items, second.resume), (vec![key("p").with("sk", 2)], None));
    let queries = server.seen(&[Kind::Query]);
    let range = |place: usize| access::<Query<'static>>(&queries[place].body).expect("a query");
    assert_eq!(range(0).0.limit.to_native(), 3);
    assert_eq!(&*range(1).0.lower, rest(&queries[0], 0).expect("a rest"));
    assert_eq!(&*range(1).0.upper, &*range(0).0.upper);
}

fn a_server_that_repeats_itself_is_found_out<S: TestShell>() {
    let server = Server::start(
        vec![sorted_table(1, "t")],
        in_turn(
            Kind::Query,
            vec![Box::new(|seen| {
                let query = access::<Query<'static>>(&seen.body).expect("a query");
                vec![seen.answer(&page(&[1], Some(query.0.lower.to_vec())))]
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(query()).expect_err("it would go on for ever");
    assert!(matches!(error, Error::Protocol(ProtocolError::PageStuck)), "{error:?}");
}

/// A server with three pages: one item, none, two items.
fn three_pages() -> Server {
    Server::start(
        vec![sorted_table(1, "t")],
        in_turn(
            Kind::Query,
            vec![
                Box::new(|seen| vec![seen.answer(&page(&[1], rest(seen, 0)))]),
                Box::new(|seen| vec![seen.answer(&page(&[], rest(seen, 0)))]),
                Box::new(|seen| vec![seen.answer(&page(&[2, 3], None))]),
            ],
        ),
    )
}

#[test]
fn an_iterator_passes_over_empty_pages() {
    let server = three_pages();
    let client = server.builder().connect().expect("a connection");
    let query = client.query("t").key_condition("pk = :p").value(":p", "p");
    let numbers: Result<Vec<_>, Error> =
        query.items().map(|item| item.map(|item| item.get("sk").cloned().expect("a number"))).collect();
    assert_eq!(numbers.expect("three items"), [1.into(), 2.into(), 3.into()]);
    assert_eq!(server.seen(&[Kind::Query]).len(), 3);
}

#[test]
fn an_async_pager_passes_over_empty_pages() {
    let server = three_pages();
    let client = block_on(server.builder().connect_async()).expect("a connection");
    let mut items = client.query("t").key_condition("pk = :p").value(":p", "p").items();
    let mut numbers = Vec::new();
    futures_lite::future::block_on(async {
        while let Some(item) = items.next().await {
            numbers.push(item.expect("an item").get("sk").cloned().expect("a number"));
        }
    });
    assert_eq!(numbers, [1.into(), 2.into(), 3.into()]);
}

#[test]
fn pages_can_be_read_on_after_an_error() {
    let server = Server::start(
        vec![sorted_table(1, "t")],
        in_turn(
            Kind::Query,
            vec![
                Box::new(|seen| vec![seen.answer(&page(&[1], rest(seen, 0)))]),
                Box::new(|seen| vec![seen.refuse(ErrorCode::Internal)]),
                Box::new(|seen| vec![seen.answer(&page(&[2], None))]),
            ],
        ),
    );
    let client = server.builder().connect().expect("a connection");
    let query = client.query("t").key_condition("pk = :p").value(":p", "p");
    let mut pages = query.clone().pages();
    assert!(pages.next().expect("a page").is_ok());
    assert!(pages.next().expect("an error").is_err());
    assert!(pages.next().is_none());
    let resume = pages.resume().cloned().expect("there is a rest");
    let rest: Vec<_> = query.page_from(resume).items().collect();
    assert!(rest.len() == 1 && rest[0].is_ok());
}

fn batch_get(keys: &[&str]) -> BatchGet {
    let keys = keys.iter().map(|text| ("t".to_owned(), key(text))).collect();
    BatchGet::new(keys, false).expect("a batch")
}

fn failed(code: ErrorCode) -> ErrorAnswer {
    ErrorAnswer::from(&Problem::new(code, "as the script says"))
}

fn what_a_batch_get_leaves_over_is_asked_for_again<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::BatchGet,
            vec![
                Box::new(|seen| {
                    let not_leader = BatchGetOutcome::Failed(failed(ErrorCode::NotLeader));
                    let outcomes = vec![
                        BatchGetOutcome::Unprocessed,
                        BatchGetOutcome::Found(row(&key("b"))),
                        not_leader,
                    ];
                    vec![seen.answer(&BatchGetAnswer { outcomes })]
                }),
                Box::new(|seen| {
                    let outcomes = vec![BatchGetOutcome::Found(row(&key("a"))), BatchGetOutcome::Absent];
                    vec![seen.answer(&BatchGetAnswer { outcomes })]
                }),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let items = client.run(batch_get(&["a", "b", "c"])).expect("answered").into_items().expect("all");
    assert_eq!(items, [Some(key("a")), Some(key("b")), None]);
    let asked: Vec<usize> = server
        .seen(&[Kind::BatchGet])
        .iter()
        .map(|seen| access::<batch::BatchGet<'static>>(&seen.body).expect("a batch").keys.len())
        .collect();
    assert_eq!(asked, [3, 2]);
}

fn a_batch_get_tells_each_keys_fate<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::BatchGet,
            vec![Box::new(|seen| {
                let mut damaged = row(&key("b"));
                damaged.checksum ^= 8;
                let outcomes = vec![
                    BatchGetOutcome::Absent,
                    BatchGetOutcome::Found(damaged),
                    BatchGetOutcome::Failed(failed(ErrorCode::Internal)),
                ];
                vec![seen.answer(&BatchGetAnswer { outcomes })]
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let outcomes = client.run(batch_get(&["a", "b", "c"])).expect("answered").outcomes;
    assert!(
        matches!(outcomes[..], [Ok(None), Err(Error::CorruptItem { .. }), Err(Error::Problem(_))]),
        "{outcomes:?}"
    );
    let error = client.run(batch_get(&["a", "b"])).expect_err("three outcomes for two keys");
    assert!(matches!(error, Error::Protocol(ProtocolError::BatchCount { got: 3, expected: 2 })), "{error:?}");
}

fn batch_write(texts: &[&str]) -> BatchWrite {
    let mut batch = BatchWrite::new();
    for text in texts {
        batch.put("t", &key(text)).expect("an item");
    }
    batch.delete("t", key("gone"));
    batch
}

fn tokens(seen: &Seen) -> Vec<Token> {
    let batch = to_owned::<batch::BatchWrite<'static>>(
        access::<batch::BatchWrite<'static>>(&seen.body).expect("a batch"),
    );
    batch.operations.iter().map(|operation| operation.token).collect()
}

fn a_batch_write_repeats_what_failed_under_the_same_tokens<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::BatchWrite,
            vec![
                Box::new(|seen| {
                    let outcomes = vec![
                        BatchWriteOutcome::Failed(failed(ErrorCode::OutcomeUnknown)),
                        BatchWriteOutcome::Written(position()),
                        BatchWriteOutcome::Failed(failed(ErrorCode::LeaderNotReady)),
                    ];
                    vec![seen.answer(&BatchWriteAnswer { outcomes })]
                }),
                Box::new(|seen| {
                    let outcomes = vec![BatchWriteOutcome::Written(position()); 2];
                    vec![seen.answer(&BatchWriteAnswer { outcomes })]
                }),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let output = client.run(batch_write(&["a", "b"])).expect("written");
    assert_eq!(output.into_positions().expect("all of them"), [position(); 3]);
    let batches: Vec<Vec<Token>> = server.seen(&[Kind::BatchWrite]).iter().map(tokens).collect();
    assert_eq!(batches[0].iter().map(|token| token.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(batches[1], [batches[0][0], batches[0][2]]);
}

fn a_batch_write_that_runs_out_of_time_tells_what_was_written<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::BatchWrite,
            vec![
                Box::new(|seen| {
                    let outcomes = vec![
                        BatchWriteOutcome::Written(position()),
                        BatchWriteOutcome::Failed(failed(ErrorCode::NotLeader)),
                    ];
                    vec![seen.answer(&BatchWriteAnswer { outcomes })]
                }),
                Box::new(|seen| {
                    let outcomes = vec![BatchWriteOutcome::Failed(failed(ErrorCode::NotLeader))];
                    vec![seen.answer(&BatchWriteAnswer { outcomes })]
                }),
            ],
        ),
    );
    let client = S::connect(server.builder().deadline(Duration::from_millis(150))).expect("a connection");
    let outcomes = client.run(batch_write(&["a"])).expect("a part is written").outcomes;
    assert!(matches!(outcomes[..], [Ok(_), Err(Error::Timeout { .. })]), "{outcomes:?}");
}

/// Whether a request is refused by the client itself, after no more than describing the table.
fn check_invalid<T: std::fmt::Debug>(server: &Server, outcome: Result<T, Error>, says: &str) {
    let error = outcome.expect_err(says);
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains(says), "{error}");
    let sent = server.seen(Kind::ALL);
    assert!(sent.iter().all(|seen| seen.header.kind == Kind::DescribeTable), "{sent:?}");
}

#[test]
fn mistakes_are_found_before_anything_is_sent() {
    let server = Server::start(vec![table(1, "t"), sorted_table(2, "s")], |_| None);
    let client = server.builder().connect().expect("a connection");
    let put = client.put("t", key("a"));
    check_invalid(
        &server,
        put.clone().condition("pk = :p").send(),
        ":p is not among the expression's values",
    );
    check_invalid(&server, put.clone().condition("pk = = :p").value(":p", 1).send(), "\n       ^ byte 5");
    check_invalid(&server, put.value(":p", 1).name("#x", "x").send(), "no expression uses #x, :p");
    check_invalid(&server, client.put("t", Item::new().with("x", 1)).send(), "key attribute pk is missing");
    check_invalid(&server, client.get("t", key("a").with("x", 1)).send(), "x is not an attribute of");
    check_invalid(&server, client.get("t", Item::new().with("pk", 1)).send(), "is of type N");
    check_invalid(&server, client.update("t", key("a")).send(), "needs an update expression");
    let update = client.update("t", key("a")).expression("SET pk = :p").value(":p", "b");
    check_invalid(&server, update.send(), "cannot change pk");
    check_invalid(&server, client.query("s").send(), "needs a key condition");
    let query = client.query("s").key_condition("sk = :n").value(":n", 1);
    check_invalid(&server, query.send(), "key condition: a key condition needs pk = :value");
    let query = client.query("s").key_condition("pk = :p").value(":p", "p").value(":q", 1);
    check_invalid(&server, query.send(), "no expression uses :q");
    check_invalid(&server, client.scan("t").segment(2, 2).send(), "no segment 2 of 2");
    check_invalid(&server, client.batch_get().send(), "a batch of 0 keys");
    let twice = client.batch_get().get("t", key("a")).get("t", key("b")).get("t", key("a"));
    check_invalid(&server, twice.send(), "the same key at 0 and at 2");
    let large = client.batch_write();
    let large = (0..26).fold(large, |batch, number| batch.put("t", key(&number.to_string())));
    check_invalid(&server, large.send(), "a batch of 26 keys");
    check_invalid(&server, client.create_table("x").send(), "needs a partition key");
    check_invalid(&server, client.status_of("nowhere").send(), "is no endpoint");
    let nested = (0..40).fold(evenkeel_client::Value::Null, |value, _| vec![value].into());
    check_invalid(&server, client.put("t", key("a").with("deep", nested)).send(), "nested more than 32");
}

#[test]
fn a_token_of_another_range_is_refused() {
    let server = three_pages();
    let client = server.builder().connect().expect("a connection");
    let query = client.query("t").key_condition("pk = :p").value(":p", "p");
    let resume = query.send().expect("a page").resume.expect("a rest");
    let other = client.query("t").key_condition("pk = :p").value(":p", "q").page_from(resume);
    assert!(matches!(other.send(), Err(Error::Invalid(Invalid::PageToken { .. }))));
}

#[test]
fn clients_and_their_requests_can_be_sent_between_threads() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    fn check_send<T: Send + 'static>(_: &T) {}
    check::<Client>();
    check::<AsyncClient>();
    let server = Server::start(vec![table(1, "t")], |_| None);
    let client = block_on(server.builder().connect_async()).expect("a connection");
    check_send(&client.get("t", key("a")).send());
    check_send(&client.scan("t").items());
    check_send(&server.builder().connect().expect("a connection").pipeline().expect("a pipeline"));
}
