//! Operations: what each request puts into its body, and what it reads from its answer.
//!
//! An [`Operation`] is one call as its user means it, by table names and with its item and expressions
//! encoded. The [`call`](super::call) drives it: [`encode`](Operation::encode) makes the body of its next
//! request, [`absorb`](Operation::absorb) takes the answer and says what comes next. Most operations are one
//! request; creating a table and waiting for it, and what a batch leaves over, are several.
//!
//! Not here: retries, deadlines, connections.

pub mod batch_get;
pub mod batch_write;
pub mod get;
pub mod range;
pub mod status;
pub mod table;
pub mod write;

pub use batch_get::BatchGetOutput;
pub use batch_write::BatchWriteOutput;
pub use get::GetOutput;
pub use range::{PageOutput, PageToken};
pub use write::WriteOutput;

use super::answer::{Answer, Refusal};
use super::session::{Session, TokenLease};
use crate::error::{Error, Invalid, ProtocolError};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::item::{self, Item};
use evenkeel_wire::message::request::ArchivedRow;
use evenkeel_wire::message::{Body, Validator, access};
use evenkeel_wire::table::TableDescriptor;
use evenkeel_wire::turn::Boot;
use rkyv::bytecheck::CheckBytes;
use rkyv::{Archive, Portable};
use std::sync::Arc;

/// One call as its user means it.
pub trait Operation: Send + 'static {
    /// What it gives.
    type Output: Send + 'static;

    /// Appends the body of the next request to an empty vector.
    ///
    /// # Errors
    /// When a table must be described first, or the request cannot be sent as it is.
    fn encode(&mut self, context: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready>;

    /// Takes the answer to it.
    ///
    /// # Errors
    /// When the answer is not what the protocol says. The call ends.
    fn absorb(&mut self, answer: &Answer<'_>, session: &Session) -> Result<Progress<Self::Output>, Error>;

    /// What a refusal means to this operation, if something other than usual. `outcome_unknown` tells whether
    /// an earlier attempt may have been executed.
    fn refused(
        &mut self,
        refusal: &Refusal,
        outcome_unknown: bool,
        session: &Session,
    ) -> Option<Progress<Self::Output>> {
        let _ = (refusal, outcome_unknown, session);
        None
    }

    /// The call ends with an error: the last word of an operation that has a part of its output.
    ///
    /// # Errors
    /// That error, as a rule.
    fn give_up(&mut self, error: Error) -> Result<Self::Output, Error> {
        Err(error)
    }

    /// Whether a request whose answer is lost may have changed something.
    fn is_write(&self) -> bool {
        false
    }

    /// The one process that can answer, if not any router can.
    fn endpoint(&self) -> Option<&str> {
        None
    }
}

/// What an answer led to.
#[derive(Debug)]
pub enum Progress<T> {
    /// The call has its output.
    Done(T),
    /// Another request follows at once, and nothing about the one before it is open.
    Next,
    /// Questions follow about a change that the call has made, or may have made: from now on no error claims
    /// that the call had no effect.
    Follow,
    /// As if what is left of the request had been refused.
    Refused(Refusal),
}

/// Why there is no body yet.
#[derive(Debug)]
pub enum Unready {
    /// This table must be described first.
    TableNotKnown(String),
    /// The request cannot be sent.
    Invalid(Invalid),
}

impl<T: Into<Invalid>> From<T> for Unready {
    fn from(error: T) -> Self {
        Self::Invalid(error.into())
    }
}

/// What an operation can ask for while it encodes.
#[derive(Debug)]
pub struct Context<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) lease: &'a mut Option<Arc<TokenLease>>,
    pub(super) tables_used: &'a mut Vec<String>,
    pub(super) now: Boot,
}

impl Context<'_> {
    /// The table of this name.
    ///
    /// # Errors
    /// [`Unready::TableNotKnown`]. Once it is described, the operation is asked to encode again.
    pub fn table(&mut self, name: &str) -> Result<Arc<TableDescriptor>, Unready> {
        let table = self.session.table(name).ok_or_else(|| Unready::TableNotKnown(name.to_owned()))?;
        if !self.tables_used.iter().any(|used| used == name) {
            self.tables_used.push(name.to_owned());
        }
        Ok(table)
    }

    /// The tokens of this call: the same ones each time, until the call needs new ones. `count` never
    /// changes.
    pub fn tokens(&mut self, count: usize) -> &TokenLease {
        self.lease.get_or_insert_with(|| self.session.lease_tokens(count, self.now))
    }
}

/// The body of an answer that must be of the kind of `T`.
pub(super) fn expect<'a, T>(answer: &Answer<'a>) -> Result<&'a T::Archived, Error>
where
    T: Body + Archive,
    T::Archived: Portable + for<'v> CheckBytes<Validator<'v>>,
{
    let got = answer.header.kind;
    if got != T::KIND {
        return Err(ProtocolError::AnswerKind { got, expected: T::KIND }.into());
    }
    Ok(access::<T>(answer.body).map_err(ProtocolError::AnswerBody)?)
}

/// The item of a row, if it is the one that its writer's checksum was computed from.
pub(super) fn verified_item(row: &ArchivedRow<'_>) -> Result<Item, Error> {
    let (announced, computed) = (row.checksum.to_native(), crc32c(&row.item));
    if announced != computed {
        return Err(Error::CorruptItem { bytes: row.item.len(), announced, computed });
    }
    let item = item::access(&row.item).and_then(item::ArchivedItem::to_item);
    item.map_err(|error| ProtocolError::Item(error).into())
}
