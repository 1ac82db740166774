//! A write whose first attempt was never answered: whatever becomes of the second one, no client is told that
//! the write had no effect unless a partition decided that on the write's token.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod harness;

use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::item::Item;
use evenkeel_wire::message::access;
use evenkeel_wire::message::batch::{
    ArchivedBatchWriteOutcome, BatchOperation, BatchWrite, BatchWriteAnswer,
};
use evenkeel_wire::message::request::{Delete, Get, ReturnItem, Token};
use evenkeel_wire::message::routing::LookupOutcome;
use harness::{CLIENT, Frame, TABLE, TestRouter, body, code, found, memds, node, refused, route, table};
use std::borrow::Cow;

const TOKEN: Token = Token { client: [1; 16], sequence: 1, issued_ms: 1, acknowledged_below: 1 };

fn key() -> Vec<u8> {
    let table = table();
    let key = table.schema.storage_key_of_key(&table.hash_key, &Item::new().with("pk", "a"));
    key.expect("a key").as_bytes().to_vec()
}

fn delete() -> Frame {
    let (condition, return_item) = (Cow::Borrowed(&b""[..]), ReturnItem::None);
    let delete = Delete { table: TABLE, token: TOKEN, key: Cow::Owned(key()), condition, return_item };
    (CLIENT, Header::new(Kind::Delete, RequestId(77)), body(&delete))
}

fn get() -> Frame {
    let get = Get { table: TABLE, key: Cow::Owned(key()), strong: true };
    (CLIENT, Header::new(Kind::Get, RequestId(77)), body(&get))
}

fn batch() -> Frame {
    let operation = BatchOperation { table: TABLE, token: TOKEN, key: Cow::Owned(key()), put: None };
    (CLIENT, Header::new(Kind::BatchWrite, RequestId(77)), body(&BatchWrite { operations: vec![operation] }))
}

fn known(round: u64, leader: u8) -> LookupOutcome<'static> {
    LookupOutcome::Route(Cow::Owned(route(round, Some(leader))), Cow::Owned(table()))
}

/// The first attempt goes to node 1, and the link to it breaks. MemDS then says `second`; if that leads to
/// another attempt, it is refused with `refusal`. What the client is sent.
fn story(request: Frame, second: &LookupOutcome<'_>, refusal: Option<ErrorCode>) -> Vec<Frame> {
    let mut router = TestRouter::new();
    let asked = router.turn(&[request]);
    let forwarded = router.turn(&found(&asked, &memds(), &[known(5, 0)]));
    assert!(forwarded.iter().any(|(to, _, _)| *to == node(1)), "the first attempt goes to node 1");
    let asked = router.down(node(1));
    let mut sent = router.turn(&found(&asked, &memds(), std::slice::from_ref(second)));
    if let Some(refusal) = refusal {
        let attempt = sent.iter().find(|(to, _, _)| *to == node(2)).expect("a second attempt").clone();
        sent = router.turn(&[refused(&attempt, refusal)]);
    }
    sent
}

#[test]
fn a_refused_second_attempt_leaves_the_outcome_of_the_first_unknown() {
    for refusal in [
        ErrorCode::NotLeader,
        ErrorCode::StaleEpoch,
        ErrorCode::WrongPartition,
        ErrorCode::LeaderNotReady,
        ErrorCode::TokenExpired,
        ErrorCode::TokenAcknowledged,
        ErrorCode::TooManyTokens,
        ErrorCode::Overloaded,
        ErrorCode::DeadlineExceeded,
        ErrorCode::StorageFull,
        ErrorCode::TableNotFound,
    ] {
        let sent = story(delete(), &known(6, 1), Some(refusal));
        assert_eq!(code(&sent), Some(ErrorCode::OutcomeUnknown), "{refusal:?}");
    }
}

#[test]
fn a_second_attempt_that_cannot_be_made_leaves_the_outcome_of_the_first_unknown() {
    let nobody_leads = LookupOutcome::Route(Cow::Owned(route(6, None)), Cow::Owned(table()));
    for second in [
        LookupOutcome::Warming,
        LookupOutcome::RouteNotKnown(Cow::Owned(table())),
        LookupOutcome::TableNotFound,
        known(5, 0),
        nobody_leads,
    ] {
        assert_eq!(code(&story(delete(), &second, None)), Some(ErrorCode::OutcomeUnknown), "{second:?}");
    }
}

#[test]
fn what_a_partition_decides_on_the_token_is_told_as_it_is() {
    for refusal in [
        ErrorCode::ConditionFailed,
        ErrorCode::Expression,
        ErrorCode::ItemTooLarge,
        ErrorCode::NestingTooDeep,
        ErrorCode::Validation,
        ErrorCode::TokenReused,
        ErrorCode::Internal,
    ] {
        assert_eq!(code(&story(delete(), &known(6, 1), Some(refusal))), Some(refusal));
    }
}

#[test]
fn a_read_has_no_outcome_that_could_be_unknown() {
    let sent = story(get(), &known(6, 1), Some(ErrorCode::LeaderNotReady));
    assert_eq!(code(&sent), Some(ErrorCode::LeaderNotReady));
    assert_eq!(code(&story(get(), &LookupOutcome::Warming, None)), Some(ErrorCode::MetadataWarming));
}

#[test]
fn a_part_of_a_batch_is_told_the_same() {
    let sent = story(batch(), &known(6, 1), Some(ErrorCode::TokenExpired));
    let (_, _, answer) = sent.iter().find(|(to, _, _)| *to == CLIENT).expect("the batch is answered");
    let answer = access::<BatchWriteAnswer>(answer).expect("an answer");
    let ArchivedBatchWriteOutcome::Failed(error) = &answer.outcomes[0] else {
        panic!("the part was refused");
    };
    assert_eq!((error.code.to_native(), error.may_have_executed), (ErrorCode::OutcomeUnknown as u16, true));
}

#[test]
fn a_write_whose_attempts_were_all_refused_had_no_effect() {
    let mut router = TestRouter::new();
    let asked = router.turn(&[delete()]);
    let forwarded = router.turn(&found(&asked, &memds(), &[known(5, 0)]));
    let attempt = forwarded.iter().find(|(to, _, _)| *to == node(1)).expect("an attempt");
    let asked = router.turn(&[refused(attempt, ErrorCode::NotLeader)]);
    let sent = router.turn(&found(&asked, &memds(), &[LookupOutcome::RouteNotKnown(Cow::Owned(table()))]));
    assert_eq!(code(&sent), Some(ErrorCode::NotLeader));
}

#[test]
fn a_late_answer_to_the_first_look_up_does_not_count_for_the_second() {
    let mut router = TestRouter::new();
    let [quick, slow] = memds();
    let first = router.turn(&[get()]);
    router.turn(&found(&first, &[quick], &[known(5, 0)]));
    let second = router.down(node(1));
    assert_eq!(code(&router.turn(&found(&first, &[slow], &[LookupOutcome::Warming]))), None);
    assert_eq!(
        code(&router.turn(&found(&second, &[quick], &[LookupOutcome::RouteNotKnown(Cow::Owned(table()))]))),
        None
    );
    let sent = router.turn(&found(&second, &[slow], &[known(6, 1)]));
    assert!(sent.iter().any(|(to, _, _)| *to == node(2)), "the last answer names the new leader");
}
