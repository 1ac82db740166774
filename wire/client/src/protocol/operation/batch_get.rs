//! Batch get: up to 100 items of any tables, each found or not on its own.
//!
//! What a router leaves over, because the answer was full or a partition was between two leaders, is asked
//! for again until the call's deadline; only what is still open then is an error, of that key alone.

use super::{Context, Operation, Progress, Unready, expect, verified_item};
use crate::error::{Error, Invalid, ProtocolError};
use crate::protocol::answer::{Answer, Refusal};
use crate::protocol::session::Session;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::TableId;
use evenkeel_wire::item::Item;
use evenkeel_wire::key::StorageKey;
use evenkeel_wire::limits::BATCH_GET_KEYS_MAX;
use evenkeel_wire::message::batch::{self, ArchivedBatchGetOutcome, BatchGetAnswer};
use evenkeel_wire::message::encode;
use evenkeel_wire::message::routing::TableKey;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A read of several items.
#[derive(Clone, Debug)]
pub struct BatchGet {
    keys: Vec<(String, Item)>,
    strong: bool,
    outcomes: Vec<Option<Result<Option<Item>, Error>>>,
    /// Places of the keys that the request under way asks for.
    asked: Vec<usize>,
}

/// What a batch get found.
#[derive(Clone, Debug)]
pub struct BatchGetOutput {
    /// For each key, in the order of the call: the item if there is one, or why nobody could say.
    pub outcomes: Vec<Result<Option<Item>, Error>>,
}

impl BatchGetOutput {
    /// The items, in the order of the call's keys.
    ///
    /// # Errors
    /// The first error of any key.
    pub fn into_items(self) -> Result<Vec<Option<Item>>, Error> {
        self.outcomes.into_iter().collect()
    }
}

impl BatchGet {
    /// Reads the items of these keys, each with the name of its table.
    ///
    /// # Errors
    /// [`Invalid::BatchSize`].
    pub fn new(keys: Vec<(String, Item)>, strong: bool) -> Result<Self, Invalid> {
        check_size(keys.len(), BATCH_GET_KEYS_MAX)?;
        let outcomes = vec![None; keys.len()];
        Ok(Self { keys, strong, outcomes, asked: Vec::new() })
    }
}

impl Operation for BatchGet {
    type Output = BatchGetOutput;

    fn encode(&mut self, context: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for (table, key) in &self.keys {
            let table = context.table(table)?;
            keys.push((table.id, table.schema.storage_key_of_key(&table.hash_key, key)?));
        }
        check_distinct(&keys)?;
        self.asked = open_places(&self.outcomes);
        let key = |(table, key): &'_ (TableId, StorageKey)| TableKey {
            table: *table,
            key: Cow::Owned(key.as_bytes().to_vec()),
        };
        let keys = self.asked.iter().map(|place| key(&keys[*place])).collect();
        encode(&batch::BatchGet { keys, strong: self.strong }, body);
        Ok(Kind::BatchGet)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<BatchGetOutput>, Error> {
        let answer = expect::<BatchGetAnswer<'static>>(answer)?;
        check_count(answer.outcomes.len(), self.asked.len())?;
        let mut refusal = None;
        for (place, outcome) in self.asked.iter().zip(answer.outcomes.iter()) {
            self.outcomes[*place] = match outcome {
                ArchivedBatchGetOutcome::Found(row) => Some(verified_item(row).map(Some)),
                ArchivedBatchGetOutcome::Absent => Some(Ok(None)),
                ArchivedBatchGetOutcome::Failed(error) => left_open(Refusal::from(error), &mut refusal),
                ArchivedBatchGetOutcome::Unprocessed => None,
            };
        }
        let open = open_places(&self.outcomes).len();
        if open == 0 {
            return Ok(Progress::Done(BatchGetOutput {
                outcomes: std::mem::take(&mut self.outcomes).into_iter().flatten().collect(),
            }));
        }
        Ok(match refusal {
            Some(refusal) => Progress::Refused(refusal),
            None if open < self.asked.len() => Progress::Next,
            None => Progress::Refused(nothing_processed(open)),
        })
    }

    fn give_up(&mut self, error: Error) -> Result<BatchGetOutput, Error> {
        Ok(BatchGetOutput { outcomes: partial(&mut self.outcomes, error)? })
    }
}

pub(super) fn check_size(got: usize, limit: usize) -> Result<(), Invalid> {
    if (1..=limit).contains(&got) { Ok(()) } else { Err(Invalid::BatchSize { got, limit }) }
}

/// Refuses a batch that names one key twice: which of two writes would win nobody could say.
pub(super) fn check_distinct(keys: &[(TableId, StorageKey)]) -> Result<(), Invalid> {
    let mut places = BTreeMap::new();
    for (second, key) in keys.iter().enumerate() {
        if let Some(first) = places.insert(key, second) {
            return Err(Invalid::BatchKeyTwice { first, second });
        }
    }
    Ok(())
}

pub(super) fn check_count(got: usize, expected: usize) -> Result<(), ProtocolError> {
    if got == expected { Ok(()) } else { Err(ProtocolError::BatchCount { got, expected }) }
}

pub(super) fn open_places<T>(outcomes: &[Option<T>]) -> Vec<usize> {
    let open = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
    open.map(|(place, _)| place).collect()
}

/// The outcome of a key that was refused: final, or open because the call can do something about it. Of the
/// latter, the refusal that says most about how to go on is kept in `kept`.
pub(super) fn left_open<T>(refusal: Refusal, kept: &mut Option<Refusal>) -> Option<Result<T, Error>> {
    let code = refusal.problem.code;
    let mendable = matches!(code, ErrorCode::TableNotFound | ErrorCode::TokenExpired);
    if !refusal.retryable && !mendable {
        return Some(Err(refusal.problem.into()));
    }
    let weight = |refusal: &Refusal| (refusal.may_have_executed, !refusal.retryable);
    if kept.as_ref().is_none_or(|kept| weight(kept) < weight(&refusal)) {
        *kept = Some(refusal);
    }
    None
}

/// All outcomes, with `error` for those that are open; only the error when all are.
pub(super) fn partial<T>(
    outcomes: &mut Vec<Option<Result<T, Error>>>,
    error: Error,
) -> Result<Vec<Result<T, Error>>, Error> {
    if outcomes.iter().all(Option::is_none) {
        return Err(error);
    }
    let outcomes = std::mem::take(outcomes).into_iter();
    Ok(outcomes.map(|outcome| outcome.unwrap_or_else(|| Err(error.clone()))).collect())
}

fn nothing_processed(open: usize) -> Refusal {
    Problem::new(ErrorCode::Overloaded, format!("none of {open} keys was processed")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: ErrorCode) -> Refusal {
        Problem::new(code, "told").into()
    }

    #[test]
    fn the_refusal_that_says_most_is_kept() {
        let mut kept = None;
        for (code, expected) in [
            (ErrorCode::NotLeader, ErrorCode::NotLeader),
            (ErrorCode::TableNotFound, ErrorCode::TableNotFound),
            (ErrorCode::Overloaded, ErrorCode::TableNotFound),
            (ErrorCode::OutcomeUnknown, ErrorCode::OutcomeUnknown),
            (ErrorCode::TokenExpired, ErrorCode::OutcomeUnknown),
        ] {
            assert!(left_open::<()>(refusal(code), &mut kept).is_none());
            assert_eq!(kept.as_ref().unwrap().problem.code, expected, "after {code:?}");
        }
        let settled = left_open::<()>(refusal(ErrorCode::Validation), &mut kept);
        assert!(matches!(settled, Some(Err(Error::Problem(_)))));
    }

    #[test]
    fn what_is_open_at_the_end_gets_the_error_and_the_rest_its_outcome() {
        let error = || Error::Timeout { deadline: std::time::Duration::ZERO, attempts: 1, last: None };
        let outcomes = partial(&mut vec![Some(Ok(1)), None], error()).expect("a part is known");
        assert!(matches!(outcomes[..], [Ok(1), Err(Error::Timeout { .. })]));
        assert!(partial::<()>(&mut vec![None, None], error()).is_err());
    }

    #[test]
    fn a_batch_names_each_key_once() {
        let key = |table, key: u8| (TableId(table), StorageKey(vec![key]));
        assert_eq!(check_distinct(&[key(1, 1), key(2, 1), key(1, 2)]), Ok(()));
        let twice = Invalid::BatchKeyTwice { first: 0, second: 2 };
        assert_eq!(check_distinct(&[key(1, 1), key(2, 1), key(1, 1)]), Err(twice));
    }
}
