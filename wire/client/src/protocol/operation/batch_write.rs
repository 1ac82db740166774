//! Batch write: up to 25 puts and deletes, each with a token of its own, each succeeding or failing alone.
//!
//! Like a [batch get](super::batch_get), what could not be done at once is repeated until the call's
//! deadline, under the same tokens.

use super::batch_get::{check_count, check_distinct, check_size, left_open, open_places, partial};
use super::{Context, Operation, Progress, Unready, expect};
use crate::error::{Error, Invalid};
use crate::protocol::answer::{Answer, Refusal};
use crate::protocol::session::Session;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::item::{self, Item};
use evenkeel_wire::limits::BATCH_WRITE_OPERATIONS_MAX;
use evenkeel_wire::message::batch::{self, ArchivedBatchWriteOutcome, BatchOperation, BatchWriteAnswer};
use evenkeel_wire::message::encode;
use evenkeel_wire::message::request::{Position, Row};
use std::borrow::Cow;

/// A write of several items.
#[derive(Clone, Debug)]
pub struct BatchWrite {
    operations: Vec<(String, Change)>,
    outcomes: Vec<Option<Result<Position, Error>>>,
    /// Places of the operations that the request under way holds.
    asked: Vec<usize>,
}

/// What a batch write does with one key.
#[derive(Clone, Debug)]
enum Change {
    Put { item: Vec<u8>, checksum: u32 },
    Delete { key: Item },
}

/// What a batch write led to.
#[derive(Clone, Debug)]
pub struct BatchWriteOutput {
    /// For each operation, in the order of the call: where it stands in its partition's log, or why it does
    /// not.
    pub outcomes: Vec<Result<Position, Error>>,
}

impl BatchWriteOutput {
    /// Where the operations stand, in the order of the call.
    ///
    /// # Errors
    /// The first error of any operation.
    pub fn into_positions(self) -> Result<Vec<Position>, Error> {
        self.outcomes.into_iter().collect()
    }
}

impl Default for BatchWrite {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchWrite {
    /// A batch of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { operations: Vec::new(), outcomes: Vec::new(), asked: Vec::new() }
    }

    /// Writes an item, too.
    ///
    /// # Errors
    /// When it is no item that a table can hold.
    pub fn put(&mut self, table: impl Into<String>, item: &Item) -> Result<(), Invalid> {
        let item = item::encode(item)?;
        let checksum = crc32c(&item);
        self.push(table.into(), Change::Put { item, checksum });
        Ok(())
    }

    /// Removes the item of a key, too.
    pub fn delete(&mut self, table: impl Into<String>, key: Item) {
        self.push(table.into(), Change::Delete { key });
    }

    fn push(&mut self, table: String, change: Change) {
        self.operations.push((table, change));
        self.outcomes.push(None);
    }
}

impl Operation for BatchWrite {
    type Output = BatchWriteOutput;

    fn encode(&mut self, context: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        check_size(self.operations.len(), BATCH_WRITE_OPERATIONS_MAX)?;
        let mut keys = Vec::with_capacity(self.operations.len());
        for (table, change) in &self.operations {
            let table = context.table(table)?;
            let key = match change {
                Change::Put { item, .. } => table.schema.storage_key(&table.hash_key, item::access(item)?)?,
                Change::Delete { key } => table.schema.storage_key_of_key(&table.hash_key, key)?,
            };
            keys.push((table.id, key));
        }
        check_distinct(&keys)?;
        self.asked = open_places(&self.outcomes);
        let tokens = context.tokens(self.operations.len());
        let operation = |place: &usize| {
            let ((table, key), (_, change)) = (&keys[*place], &self.operations[*place]);
            let put = match change {
                Change::Put { item, checksum } => {
                    Some(Row { checksum: *checksum, item: Cow::Borrowed(item) })
                }
                Change::Delete { .. } => None,
            };
            let (token, key) = (tokens.token(*place), Cow::Borrowed(key.as_bytes()));
            BatchOperation { table: *table, token, key, put }
        };
        encode(&batch::BatchWrite { operations: self.asked.iter().map(operation).collect() }, body);
        Ok(Kind::BatchWrite)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<BatchWriteOutput>, Error> {
        let answer = expect::<BatchWriteAnswer>(answer)?;
        check_count(answer.outcomes.len(), self.asked.len())?;
        let mut refusal = None;
        for (place, outcome) in self.asked.iter().zip(answer.outcomes.iter()) {
            self.outcomes[*place] = match outcome {
                ArchivedBatchWriteOutcome::Written(position) => Some(Ok(Position::from(position))),
                ArchivedBatchWriteOutcome::Failed(error) => left_open(Refusal::from(error), &mut refusal),
            };
        }
        Ok(match refusal {
            Some(refusal) => Progress::Refused(refusal),
            None => Progress::Done(BatchWriteOutput {
                outcomes: std::mem::take(&mut self.outcomes).into_iter().flatten().collect(),
            }),
        })
    }

    fn give_up(&mut self, error: Error) -> Result<BatchWriteOutput, Error> {
        Ok(BatchWriteOutput { outcomes: partial(&mut self.outcomes, error)? })
    }

    fn is_write(&self) -> bool {
        true
    }
}
