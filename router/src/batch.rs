//! Batches: taken apart into requests of one key each, and put together again when all are answered.

use crate::flight::FlightId;
use crate::limits::BATCH_ANSWER_BYTES_MAX;
use bytes::Bytes;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::limits::{BATCH_GET_KEYS_MAX, BATCH_WRITE_OPERATIONS_MAX};
use evenkeel_wire::message::batch::{
    BatchGet, BatchGetAnswer, BatchGetOutcome, BatchWrite, BatchWriteAnswer, BatchWriteOutcome,
};
use evenkeel_wire::message::request::{Delete, Get, GetAnswer, Position, Put, ReturnItem, Row, WriteAnswer};
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::turn::{Effects, Endpoint};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A request of one key that a batch consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its kind.
    pub kind: Kind,
    /// Its body.
    pub body: Bytes,
}

/// What became of a part.
#[derive(Clone, Debug)]
pub enum PartAnswer {
    /// The body of its answer.
    Answered(Bytes),
    /// The error.
    Failed(ErrorAnswer),
}

#[derive(Debug)]
struct Batch {
    client: Endpoint,
    request: RequestId,
    kind: Kind,
    answers: Vec<Option<PartAnswer>>,
    left: usize,
}

/// Batches under way.
#[derive(Debug, Default)]
pub struct Batches {
    batches: BTreeMap<FlightId, Batch>,
    next: u64,
}

/// Takes a batch apart.
///
/// # Errors
/// When the body is not a batch, or has too many parts or none.
pub fn take_apart(kind: Kind, body: &[u8]) -> Result<Vec<Part>, Problem> {
    let (parts, most) = if kind == Kind::BatchGet { get_parts(body)? } else { write_parts(body)? };
    if parts.is_empty() || parts.len() > most {
        let message = format!("a batch of {} keys; 1 to {most} are allowed", parts.len());
        return Err(Problem::new(ErrorCode::Validation, message));
    }
    Ok(parts)
}

fn get_parts(body: &[u8]) -> Result<(Vec<Part>, usize), Problem> {
    let batch = access::<BatchGet<'static>>(body)?;
    let part = |key: &evenkeel_wire::message::routing::ArchivedTableKey<'static>| {
        let get = Get { table: (&key.table).into(), key: Cow::Borrowed(&key.key), strong: batch.strong };
        part(&get)
    };
    Ok((batch.keys.iter().take(BATCH_GET_KEYS_MAX + 1).map(part).collect(), BATCH_GET_KEYS_MAX))
}

fn write_parts(body: &[u8]) -> Result<(Vec<Part>, usize), Problem> {
    let batch = access::<BatchWrite<'static>>(body)?;
    let operations = batch.operations.iter().take(BATCH_WRITE_OPERATIONS_MAX + 1);
    let parts = operations.map(|operation| {
        let (table, token) = ((&operation.table).into(), (&operation.token).into());
        let key = Cow::Borrowed(&*operation.key);
        let (condition, return_item) = (Cow::Borrowed(&[][..]), ReturnItem::None);
        match operation.put.as_ref() {
            Some(row) => {
                let (item, item_checksum) = (Cow::Borrowed(&*row.item), row.checksum.into());
                part(&Put { table, token, key, item, item_checksum, condition, return_item })
            }
            None => part(&Delete { table, token, key, condition, return_item }),
        }
    });
    Ok((parts.collect(), BATCH_WRITE_OPERATIONS_MAX))
}

fn part<T: Body + for<'a> Encode<'a>>(body: &T) -> Part {
    let mut bytes = Vec::new();
    encode(body, &mut bytes);
    Part { kind: T::KIND, body: Bytes::from(bytes) }
}

impl Batches {
    /// Begins a batch of `parts` parts.
    pub fn begin(&mut self, client: Endpoint, request: RequestId, kind: Kind, parts: usize) -> FlightId {
        self.next += 1;
        let id = FlightId(self.next);
        let answers = vec![None; parts];
        self.batches.insert(id, Batch { client, request, kind, answers, left: parts });
        id
    }

    /// A part is answered. Sends the batch's answer when it was the last.
    pub fn answer(&mut self, id: FlightId, place: usize, answer: PartAnswer, out: &mut Effects) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        if batch.answers[place].replace(answer).is_none() {
            batch.left -= 1;
        }
        if batch.left == 0 {
            let batch = self.batches.remove(&id).expect("it was just seen");
            batch.send(out);
        }
    }
}

impl Batch {
    fn send(self, out: &mut Effects) {
        let answers = self.answers.into_iter().flatten();
        if self.kind == Kind::BatchGet {
            let mut bytes = 0;
            let answers: Vec<PartAnswer> = answers.collect();
            let outcomes = answers.iter().map(|answer| get_outcome(answer, &mut bytes)).collect();
            let header = Header::new(Kind::BatchGetAnswer, self.request);
            out.send(self.client, header, &BatchGetAnswer { outcomes });
        } else {
            let outcomes = answers.map(write_outcome).collect();
            let header = Header::new(Kind::BatchWriteAnswer, self.request);
            out.send(self.client, header, &BatchWriteAnswer { outcomes });
        }
    }
}

fn get_outcome<'a>(answer: &'a PartAnswer, bytes: &mut usize) -> BatchGetOutcome<'a> {
    let body = match answer {
        PartAnswer::Answered(body) => body,
        PartAnswer::Failed(error) => return BatchGetOutcome::Failed(error.clone()),
    };
    let read = match access::<GetAnswer<'static>>(body) {
        Ok(read) => read,
        Err(problem) => return BatchGetOutcome::Failed(ErrorAnswer::from(&problem)),
    };
    let Some(row) = read.item.as_ref() else {
        return BatchGetOutcome::Absent;
    };
    *bytes += row.item.len();
    if *bytes > BATCH_ANSWER_BYTES_MAX {
        return BatchGetOutcome::Unprocessed;
    }
    BatchGetOutcome::Found(Row { checksum: row.checksum.into(), item: Cow::Borrowed(&row.item) })
}

fn write_outcome(answer: PartAnswer) -> BatchWriteOutcome {
    match answer {
        PartAnswer::Failed(error) => BatchWriteOutcome::Failed(error),
        PartAnswer::Answered(body) => match access::<WriteAnswer<'static>>(&body) {
            Ok(written) => BatchWriteOutcome::Written(Position::from(&written.position)),
            Err(problem) => BatchWriteOutcome::Failed(ErrorAnswer::from(&problem)),
        },
    }
}
