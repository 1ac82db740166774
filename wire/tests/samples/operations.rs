//! Requests for items and their answers.

use super::{Sample, every, lower, number, position, row, sample, token};
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::ids::TableId;
use evenkeel_wire::message::batch::{
    BatchGet, BatchGetAnswer, BatchGetOutcome, BatchOperation, BatchWrite, BatchWriteAnswer,
    BatchWriteOutcome,
};
use evenkeel_wire::message::request::{
    Delete, Get, GetAnswer, PageAnswer, Put, Query, Range, ReturnItem, Scan, Update, WriteAnswer,
};
use evenkeel_wire::message::routing::TableKey;
use std::borrow::Cow;

const TABLE: TableId = TableId(0x0102_0304_0506_0708);
const KEY: Cow<'static, [u8]> = Cow::Borrowed(b"storage key");
const CONDITION: Cow<'static, [u8]> = Cow::Borrowed(b"archive of a condition");

pub(super) fn puts() -> Vec<Sample> {
    let put = |return_item| Put {
        table: TABLE,
        token: token(),
        key: KEY,
        item: Cow::Borrowed(b"archive of an item"),
        item_checksum: 0x1112_1314,
        condition: CONDITION,
        return_item,
    };
    every!(ReturnItem: None, Old, New)
        .map(|return_item| sample(format!("request.put_return_{}", lower(&return_item)), put(return_item)))
        .into()
}

pub(super) fn deletes() -> Vec<Sample> {
    let delete =
        Delete { table: TABLE, token: token(), key: KEY, condition: CONDITION, return_item: ReturnItem::Old };
    vec![sample("request.delete", delete)]
}

pub(super) fn updates() -> Vec<Sample> {
    let update = Update {
        table: TABLE,
        token: token(),
        key: KEY,
        key_item: Cow::Borrowed(b"archive of a key"),
        update: Cow::Borrowed(b"archive of an update"),
        condition: Cow::Borrowed(b""),
        return_item: ReturnItem::New,
    };
    vec![sample("request.update", update)]
}

pub(super) fn write_answers() -> Vec<Sample> {
    let answer = |item| WriteAnswer { position: position(), timestamp: number(0x11), item };
    vec![
        sample("request.write_answer", answer(None)),
        sample("request.write_answer_with_item", answer(Some(row()))),
    ]
}

pub(super) fn gets() -> Vec<Sample> {
    vec![sample("request.get", Get { table: TABLE, key: KEY, strong: true })]
}

pub(super) fn get_answers() -> Vec<Sample> {
    let answer = |item| GetAnswer { position: position(), item };
    vec![
        sample("request.get_answer", answer(None)),
        sample("request.get_answer_with_item", answer(Some(row()))),
    ]
}

fn range(forward: bool) -> Range<'static> {
    Range {
        table: TABLE,
        lower: Cow::Borrowed(b"lower bound"),
        upper: Cow::Borrowed(b"upper bound, longer"),
        forward,
        limit: 0x1112_1314,
        filter: CONDITION,
        strong: !forward,
    }
}

pub(super) fn queries() -> Vec<Sample> {
    vec![sample("request.query", Query(range(true)))]
}

pub(super) fn scans() -> Vec<Sample> {
    vec![sample("request.scan", Scan(range(false)))]
}

pub(super) fn page_answers() -> Vec<Sample> {
    let answer = |rows, resume| PageAnswer { position: position(), rows, scanned: 0x1112_1314, resume };
    vec![
        sample("request.page_answer", answer(vec![row(), row()], Some(b"where the rest begins".to_vec()))),
        sample("request.page_answer_last", answer(Vec::new(), None)),
    ]
}

pub(super) fn batch_gets() -> Vec<Sample> {
    let key = |key| TableKey { table: TABLE, key: Cow::Borrowed(key) };
    vec![sample("batch.batch_get", BatchGet { keys: vec![key(b"first"), key(b"second key")], strong: true })]
}

fn failed() -> ErrorAnswer {
    ErrorAnswer::from(&Problem::new(ErrorCode::Unavailable, "nobody can be reached"))
}

pub(super) fn batch_get_answers() -> Vec<Sample> {
    let outcomes = every!(
        BatchGetOutcome::Found(_) => BatchGetOutcome::Found(row()),
        BatchGetOutcome::Absent => BatchGetOutcome::Absent,
        BatchGetOutcome::Failed(_) => BatchGetOutcome::Failed(failed()),
        BatchGetOutcome::Unprocessed => BatchGetOutcome::Unprocessed,
    );
    vec![sample("batch.batch_get_answer", BatchGetAnswer { outcomes: outcomes.into() })]
}

pub(super) fn batch_writes() -> Vec<Sample> {
    let operation = |put| BatchOperation { table: TABLE, token: token(), key: KEY, put };
    let operations = vec![operation(Some(row())), operation(None)];
    vec![sample("batch.batch_write", BatchWrite { operations })]
}

pub(super) fn batch_write_answers() -> Vec<Sample> {
    let outcomes = every!(
        BatchWriteOutcome::Written(_) => BatchWriteOutcome::Written(position()),
        BatchWriteOutcome::Failed(_) => BatchWriteOutcome::Failed(failed()),
    );
    vec![sample("batch.batch_write_answer", BatchWriteAnswer { outcomes: outcomes.into() })]
}
