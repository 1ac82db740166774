//! How a write is decided: token, condition, then the item as it will be. A refusal for a reason that lies in
//! the item is an outcome, and is proposed like any other.

use super::Stop;
use super::pending::Pending;
use super::sessions::{Outcome, Recognised, reused};
use super::state::State;
use crate::btree::lookup::Pages;
use crate::evaluate;
use crate::limits::REFUSAL_BYTES_MAX;
use crate::planted::{self, Planted};
use evenkeel_wire::checksum::{crc32c, hash64};
use evenkeel_wire::entry::{Effect, Refusal, Write, WrittenItem};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::expression::{access_condition, access_update};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::Slot;
use evenkeel_wire::item::{self, ArchivedItem, ItemError};
use evenkeel_wire::message::access;
use evenkeel_wire::message::request::{ArchivedReturnItem, Delete, Put, ReturnItem, Token, Update};
use std::borrow::Cow;

/// A write as it came, whatever its kind.
#[derive(Clone, Debug)]
pub struct WriteRequest<'a> {
    /// Recognises a repetition.
    pub token: Token,
    /// XXH3-64 of the body.
    pub hash: u64,
    /// The item's storage key.
    pub key: &'a [u8],
    operation: Operation<'a>,
    condition: &'a [u8],
    return_item: ReturnItem,
}

#[derive(Clone, Copy, Debug)]
enum Operation<'a> {
    Put { item: &'a [u8], checksum: u32 },
    Delete,
    Update { key_item: &'a [u8], update: &'a [u8] },
}

/// What is to be done with a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<'a> {
    /// Propose this: it may be a refusal.
    Propose(Write<Cow<'a, [u8]>>),
    /// It has been done: answer with what it led to.
    Repeated(Outcome),
    /// It is being done: answer once this slot is applied.
    Await(Slot),
}

impl<'a> WriteRequest<'a> {
    /// Reads a write from a frame's body.
    ///
    /// # Errors
    /// When the body is not one of its kind.
    pub fn read(kind: Kind, body: &'a [u8]) -> Result<Self, Problem> {
        let hash = hash64(body);
        let request = match kind {
            Kind::Delete => {
                let delete = access::<Delete<'static>>(body)?;
                Self {
                    token: (&delete.token).into(),
                    hash,
                    key: &delete.key,
                    operation: Operation::Delete,
                    condition: &delete.condition,
                    return_item: returns(delete.return_item),
                }
            }
            Kind::Update => {
                let update = access::<Update<'static>>(body)?;
                Self {
                    token: (&update.token).into(),
                    hash,
                    key: &update.key,
                    operation: Operation::Update { key_item: &update.key_item, update: &update.update },
                    condition: &update.condition,
                    return_item: returns(update.return_item),
                }
            }
            _ => {
                let put = access::<Put<'static>>(body)?;
                let operation = Operation::Put { item: &put.item, checksum: put.item_checksum.into() };
                Self {
                    token: (&put.token).into(),
                    hash,
                    key: &put.key,
                    operation,
                    condition: &put.condition,
                    return_item: returns(put.return_item),
                }
            }
        };
        Ok(request)
    }

    /// Decides what to do, without changing anything. The item as it is is looked for only if the outcome
    /// depends on it.
    ///
    /// # Errors
    /// When it cannot be done, or when pages must be read first.
    pub fn decide<'b>(
        &'b self,
        state: &'b State,
        pages: &Pages<'b>,
        pending: &'b Pending,
        timestamp: u64,
    ) -> Result<Decision<'b>, Stop> {
        if !planted::active(Planted::ReplayToken) {
            if let Some((slot, hash)) = pending.token(&self.token) {
                return if hash == self.hash {
                    Ok(Decision::Await(slot))
                } else {
                    Err(reused(&self.token).into())
                };
            }
            match state.sessions.recognise(&self.token, self.hash, timestamp >> 16)? {
                Recognised::Repeated(outcome) => return Ok(Decision::Repeated(outcome)),
                Recognised::Fresh => {}
            }
        }
        pending.admit()?;
        let overlay = pending.item(self.key).filter(|_| !planted::active(Planted::IgnorePending));
        let found = match overlay {
            Some(pending) => pending.item.as_ref().map(|item| (item.checksum, &item.archive[..])),
            None if self.depends_on_item() => {
                state.tree.get(pages, self.key)?.map(|found| (found.meta.checksum, found.archive))
            }
            None => None,
        };
        let current =
            found.map(|(_, archive)| item::access(archive)).transpose().map_err(|error| corrupt(&error))?;
        let effect = if self.condition_holds(current)? {
            self.effect(current)?
        } else {
            let message = "the condition does not hold for the item; nothing was written";
            Effect::Refused(Refusal { code: ErrorCode::ConditionFailed, message: message.to_owned() })
        };
        let carries_old = self.return_item == ReturnItem::Old && !matches!(effect, Effect::Refused(_));
        let old = found.filter(|_| carries_old);
        let old = old.map(|(checksum, archive)| WrittenItem { checksum, archive: Cow::Borrowed(archive) });
        Ok(Decision::Propose(Write {
            token: self.token,
            request_hash: self.hash,
            key: Cow::Borrowed(self.key),
            return_item: self.return_item,
            effect,
            old,
        }))
    }

    fn depends_on_item(&self) -> bool {
        let is_update = matches!(self.operation, Operation::Update { .. });
        is_update || !self.condition.is_empty() || self.return_item == ReturnItem::Old
    }

    fn condition_holds(&self, current: Option<&ArchivedItem>) -> Result<bool, Problem> {
        if self.condition.is_empty() {
            return Ok(true);
        }
        let condition = access_condition(self.condition).map_err(|error| Problem::from(&error))?;
        Ok(evaluate::evaluate(condition, current))
    }

    /// What the write does to the item as it is.
    fn effect(&self, current: Option<&ArchivedItem>) -> Result<Effect<Cow<'a, [u8]>>, Problem> {
        match self.operation {
            Operation::Delete => Ok(Effect::Delete),
            Operation::Put { item, checksum } => {
                let expected = crc32c(item);
                if checksum != expected {
                    let message =
                        format!("the item's checksum is {checksum:08x}, its bytes give {expected:08x}");
                    return Err(Problem::new(ErrorCode::ChecksumMismatch, message));
                }
                Ok(Effect::Put(WrittenItem { checksum, archive: Cow::Borrowed(item) }))
            }
            Operation::Update { key_item, update } => {
                let update = access_update(update).map_err(|error| Problem::from(&error))?;
                let key_item = item::access(key_item).map_err(|error| Problem::from(&error))?;
                Ok(match evaluate::apply(update, current, key_item) {
                    Ok(archive) => {
                        let checksum = crc32c(&archive);
                        Effect::Put(WrittenItem { checksum, archive: Cow::Owned(archive) })
                    }
                    Err(error) => Effect::Refused(refusal(&error)),
                })
            }
        }
    }
}

/// Why an update does not fit its item, at a bounded length: paths in it come from the client.
fn refusal(error: &evaluate::UpdateError) -> Refusal {
    let Problem { code, mut message, .. } = match error {
        evaluate::UpdateError::Item(error) => Problem::from(error),
        error => Problem::new(ErrorCode::Expression, error.to_string()),
    };
    message.truncate(message.floor_char_boundary(REFUSAL_BYTES_MAX));
    Refusal { code, message }
}

fn returns(archived: ArchivedReturnItem) -> ReturnItem {
    match archived {
        ArchivedReturnItem::None => ReturnItem::None,
        ArchivedReturnItem::Old => ReturnItem::Old,
        ArchivedReturnItem::New => ReturnItem::New,
    }
}

/// The error for a stored item that is not one.
pub(super) fn corrupt(error: &ItemError) -> Problem {
    Problem::new(ErrorCode::CorruptData, format!("a stored item cannot be read: {error}"))
}
