//! Get: one item by its key.

use super::{Context, Operation, Progress, Unready, expect, verified_item};
use crate::error::Error;
use crate::protocol::answer::Answer;
use crate::protocol::session::Session;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::item::Item;
use evenkeel_wire::message::encode;
use evenkeel_wire::message::request::{self, GetAnswer, Position};
use std::borrow::Cow;

/// A read of one item.
#[derive(Clone, Debug)]
pub struct Get {
    table: String,
    key: Item,
    strong: bool,
}

/// What a get found.
#[derive(Clone, Debug, PartialEq)]
pub struct GetOutput {
    /// The item, if there is one.
    pub item: Option<Item>,
    /// Up to where the replica that answered had applied its partition's log.
    pub position: Position,
}

impl Get {
    /// Reads the item of a key: an item with exactly the key attributes. Strong: the latest; otherwise what
    /// any replica has.
    #[must_use]
    pub fn new(table: impl Into<String>, key: Item, strong: bool) -> Self {
        Self { table: table.into(), key, strong }
    }
}

impl Operation for Get {
    type Output = GetOutput;

    fn encode(&mut self, context: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        let table = context.table(&self.table)?;
        let key = table.schema.storage_key_of_key(&table.hash_key, &self.key)?;
        let key = Cow::Borrowed(key.as_bytes());
        encode(&request::Get { table: table.id, key, strong: self.strong }, body);
        Ok(Kind::Get)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<GetOutput>, Error> {
        let read = expect::<GetAnswer<'static>>(answer)?;
        Ok(Progress::Done(GetOutput {
            item: read.item.as_ref().map(verified_item).transpose()?,
            position: Position::from(&read.position),
        }))
    }
}
