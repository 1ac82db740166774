//! Calls without sockets, in virtual time: what a shell is told to do, whatever happens to it.

use evenkeel_client::protocol::answer::Answer;
use evenkeel_client::protocol::call::{ANSWER_GRACE, Call, Failure, Sending, Step, Wish};
use evenkeel_client::protocol::connection::Connection;
use evenkeel_client::protocol::operation::Operation;
use evenkeel_client::protocol::operation::batch_write::BatchWrite;
use evenkeel_client::protocol::operation::get::Get;
use evenkeel_client::protocol::operation::write::{Write, WriteOutput};
use evenkeel_client::protocol::retry::RetryPolicy;
use evenkeel_client::protocol::session::Session;
use evenkeel_client::{Error, Invalid, Item, KeyType, Value};
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{self, Identity, Peer, PeerRole};
use evenkeel_wire::ids::{Incarnation, RequestId, TableId};
use evenkeel_wire::key::KeySchema;
use evenkeel_wire::message::request::{GetAnswer, Position, Put, Token, WriteAnswer};
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::table::TableDescriptor;
use evenkeel_wire::turn::Boot;
use proptest::prelude::*;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const SERVER_MS: u64 = 1_760_000_000_000;

fn session() -> Arc<Session> {
    let session = Session::new([1; 16], 7);
    session.learn_clock(SERVER_MS, Boot(0));
    session.remember_table(TableDescriptor {
        id: TableId(3),
        name: "t".to_owned(),
        schema: KeySchema::partition_only("pk", KeyType::S),
        ..TableDescriptor::system()
    });
    session
}

fn put() -> Write {
    Write::put("t", &Item::new().with("pk", "a")).expect("an item")
}

fn call<O: Operation>(session: &Arc<Session>, operation: O) -> Call<O> {
    Call::new(session, operation, RetryPolicy::default(), Boot(0))
}

fn at(milliseconds: u64) -> Boot {
    Boot(0).after(Duration::from_millis(milliseconds))
}

fn sending<'a, T: std::fmt::Debug>(step: Step<'a, T>) -> Sending<'a> {
    match step {
        Step::Send(sending) => sending,
        Step::Pause { .. } | Step::Done(_) => panic!("{step:?}"),
    }
}

fn ended<T: std::fmt::Debug>(step: Step<'_, T>) -> Result<T, Error> {
    match step {
        Step::Done(outcome) => outcome,
        Step::Pause { .. } | Step::Send(_) => panic!("{step:?}"),
    }
}

/// When the next attempt is due, after a failed one.
fn due<O: Operation>(call: &mut Call<O>, now: Boot) -> Boot {
    match call.next(now) {
        Step::Pause { until } => until,
        Step::Send(_) | Step::Done(_) => panic!("no pause after a failure"),
    }
}

fn answered<O: Operation, T: Body + for<'a> Encode<'a>>(call: &mut Call<O>, now: Boot, answer: &T) {
    let mut body = Vec::new();
    encode(answer, &mut body);
    call.answered(now, &Answer { header: Header::new(T::KIND, RequestId(1)), body: &body });
}

fn refused<O: Operation>(call: &mut Call<O>, now: Boot, code: ErrorCode) {
    answered(call, now, &ErrorAnswer::from(&Problem::new(code, "as the script says")));
}

fn lost() -> Error {
    let io = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
    Error::ConnectionLost { endpoint: "router:1".to_owned(), io }
}

fn written() -> WriteAnswer<'static> {
    WriteAnswer { position: Position::default(), timestamp: 5, item: None }
}

fn token(body: &[u8]) -> Token {
    Token::from(&access::<Put<'static>>(body).expect("a put").token)
}

#[test]
fn an_attempt_has_its_own_deadline_and_never_a_later_one_than_the_call() {
    let session = session();
    let mut call = call(&session, put());
    let sent = sending(call.next(at(0)));
    assert_eq!((sent.deadline, sent.answer_by), (at(2_000), at(2_000).after(ANSWER_GRACE)));
    assert_eq!(sent.wish, Wish::default());
    call.failed(at(14_000), Failure::Silent(lost()));
    let due = due(&mut call, at(14_000));
    let sent = sending(call.next(due));
    assert_eq!((sent.deadline, sent.answer_by), (at(15_000), at(15_000)));
    call.failed(at(15_000), Failure::Silent(lost()));
    let error = ended(call.next(at(15_000))).expect_err("the deadline has passed");
    assert!(matches!(error, Error::OutcomeUnknown { attempts: 2, .. }), "{error:?}");
}

#[test]
fn a_failed_connection_is_not_wished_for_again() {
    let session = session();
    let mut call = call(&session, put());
    sending(call.next(at(0)));
    call.failed(at(100), Failure::Lost(lost()));
    let due_at = due(&mut call, at(100));
    assert_eq!(sending(call.next(due_at)).wish, Wish { opened_after: at(100), elsewhere: false });
    call.failed(at(3_000), Failure::Silent(lost()));
    let due_at = due(&mut call, at(3_000));
    assert_eq!(sending(call.next(due_at)).wish, Wish { opened_after: at(3_000), elsewhere: true });
    call.failed(at(4_000), Failure::NotConnected(lost()));
    let due_at = due(&mut call, at(4_000));
    assert_eq!(sending(call.next(due_at)).wish, Wish { opened_after: at(3_000), elsewhere: true });
}

#[test]
fn a_pause_ends_when_it_says_and_with_the_deadline_at_the_latest() {
    let session = session();
    let mut call = call(&session, put());
    sending(call.next(at(0)));
    refused(&mut call, at(10), ErrorCode::NotLeader);
    let due_at = due(&mut call, at(10));
    assert!(due_at <= at(20), "the first wait is short");
    assert_eq!(due(&mut call, at(10)), due_at, "asking again changes nothing");
    let error = ended(call.next(at(20_000))).expect_err("whoever waited overslept");
    assert!(matches!(error, Error::Timeout { attempts: 1, .. }), "{error:?}");
}

#[test]
fn a_lease_outlives_its_call_while_an_attempt_is_under_way() {
    let session = session();
    let mut first = call(&session, put());
    let under_way = sending(first.next(at(0))).lease.cloned().expect("a write has a token");
    drop(first);
    assert_eq!(session.acknowledged_below(), 1);
    drop(under_way);
    assert_eq!(session.acknowledged_below(), 2);
    let mut get = call(&session, Get::new("t", Item::new().with("pk", "a"), true));
    assert!(sending(get.next(at(0))).lease.is_none(), "reads need none");
}

#[test]
fn a_request_that_no_server_would_read_is_refused() {
    let session = session();
    let mut batch = BatchWrite::new();
    let nulls = vec![Value::Null; 100_000];
    for number in 0..25 {
        let item = Item::new().with("pk", number.to_string()).with("l", nulls.clone());
        batch.put("t", &item).expect("an item");
    }
    let error = ended(call(&session, batch).next(at(0))).expect_err("it is too large");
    assert!(matches!(error, Error::Invalid(Invalid::TooLarge { .. })), "{error:?}");
    assert_eq!(session.acknowledged_below(), 26, "its tokens are given back");
}

#[test]
fn a_client_and_a_server_need_no_socket() {
    let (session, mut connection) = (session(), Connection::new());
    connection.greet();
    let mut to_client = Vec::new();
    let server = Identity { cluster: Incarnation([1; 16]), peer: Peer::of_role(PeerRole::Router) };
    let (header, body) = first_frame(connection.transmit(), BodyLimit::BEFORE_HELLO).unwrap().unwrap();
    handshake::answer(&server, header, body, SERVER_MS, &mut to_client).expect("a client is welcome");
    connection.transmitted(connection.transmit().len());
    connection.handle_input(&to_client);
    assert!(connection.poll_answer().expect("a greeting").is_none());
    let established = connection.established().expect("the handshake is done");
    session.learn_clock(established.server_ms, at(0));

    let mut call = call(&session, Get::new("t", Item::new().with("pk", "a"), true));
    let sent = sending(call.next(at(0)));
    let left = sent.deadline.since(at(0));
    connection.request(sent.kind, left, |out| out.extend_from_slice(sent.body));
    let (header, _) = first_frame(connection.transmit(), BodyLimit::AFTER_HELLO).unwrap().unwrap();
    assert_eq!((header.kind, header.deadline_us), (Kind::Get, 2_000_000));
    let mut to_client = Vec::new();
    let answer = GetAnswer { position: Position::default(), item: None };
    seal(&mut to_client, Header::new(Kind::GetAnswer, header.request), |out| encode(&answer, out));
    connection.handle_input(&to_client);
    let answer = connection.poll_answer().expect("an answer").expect("an answer");
    call.answered(at(1), &answer);
    assert_eq!(ended(call.next(at(1))).expect("read").item, None);
}

/// What may become of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Refused(ErrorCode),
    NotConnected,
    Lost,
    Silent,
    Written,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => prop::sample::select(ErrorCode::ALL.to_vec()).prop_map(Fate::Refused),
        2 => Just(Fate::Refused(ErrorCode::NotLeader)),
        1 => Just(Fate::NotConnected),
        2 => Just(Fate::Lost),
        1 => Just(Fate::Silent),
        1 => Just(Fate::Written),
    ]
}

/// What a put went through, and how it ended.
struct Story {
    outcome: Result<WriteOutput, Error>,
    ended_at: Boot,
    /// The tokens under which it was sent, and whether an attempt before had been risky.
    sent: Vec<(Token, bool)>,
    risky: bool,
    /// What was sent last, and what became of it.
    last: Option<(Kind, Fate)>,
}

/// Runs a put through these fates, the last of which goes on for ever.
fn live(session: &Arc<Session>, fates: &[(Fate, u64)]) -> Story {
    let mut call = call(session, put());
    let mut now = at(0);
    let mut fates = fates.iter().chain(std::iter::repeat(fates.last().expect("a fate")));
    let mut story = Story { outcome: Err(lost()), ended_at: now, sent: Vec::new(), risky: false, last: None };
    loop {
        let kind = match call.next(now) {
            Step::Done(outcome) => {
                story.outcome = outcome;
                story.ended_at = now;
                return story;
            }
            Step::Pause { until } => {
                now = until;
                continue;
            }
            Step::Send(sending) => {
                assert!(sending.answer_by <= at(15_000) && sending.answer_by > now);
                if sending.kind == Kind::Put {
                    story.sent.push((token(sending.body), story.risky));
                }
                sending.kind
            }
        };
        let (fate, took_ms) = *fates.next().expect("for ever");
        now = now.after(Duration::from_millis(took_ms)).min(at(15_000));
        let is_put = kind == Kind::Put;
        story.last = Some((kind, fate));
        match fate {
            Fate::Refused(code) => {
                story.risky |= is_put && code.may_have_executed();
                refused(&mut call, now, code);
            }
            Fate::NotConnected => call.failed(now, Failure::NotConnected(lost())),
            Fate::Lost => {
                story.risky |= is_put;
                call.failed(now, Failure::Lost(lost()));
            }
            Fate::Silent => {
                story.risky |= is_put;
                call.failed(now, Failure::Silent(lost()));
            }
            Fate::Written => answered(&mut call, now, &written()),
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_write_ends_in_time_and_never_claims_too_much(
        fates in prop::collection::vec((fate(), 0_u64..3_000), 1..30),
    ) {
        let session = session();
        let story = live(&session, &fates);
        prop_assert!(story.ended_at <= at(15_000));
        for pair in story.sent.windows(2) {
            let ((before, _), (after, risky)) = (pair[0], pair[1]);
            prop_assert!(!risky || before == after, "a new token after a risky attempt");
        }
        match &story.outcome {
            Ok(_) => prop_assert!(matches!(story.last, Some((Kind::Put, Fate::Written)))),
            Err(Error::OutcomeUnknown { .. }) => prop_assert!(story.risky),
            Err(error) => prop_assert!(
                !story.risky
                    || error.may_have_executed()
                    || matches!(story.last, Some((Kind::Put, Fate::Refused(_)))),
                "{error:?} claims that nothing was written"
            ),
        }
        let next = session.lease_tokens(1, at(0));
        prop_assert_eq!(next.token(0).acknowledged_below, next.token(0).sequence, "all tokens are retired");
    }

    #[test]
    fn no_answer_makes_a_call_panic(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        body: Vec<u8>,
        describe: bool,
    ) {
        let session = session();
        let table = if describe { "unknown" } else { "t" };
        let mut call = call(&session, Get::new(table, Item::new().with("pk", "a"), true));
        sending(call.next(at(0)));
        call.answered(at(1), &Answer { header: Header::new(kind, RequestId(1)), body: &body });
        let _ = call.next(at(1));
    }
}
