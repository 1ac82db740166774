//! Put, delete and update: one item, one token.

use super::{Context, Operation, Progress, Unready, expect, verified_item};
use crate::error::{Error, Invalid};
use crate::protocol::answer::Answer;
use crate::protocol::session::Session;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::expression::{Condition, Update, access_update, encode_condition, encode_update};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::item::{self, Item};
use evenkeel_wire::message::encode;
use evenkeel_wire::message::request::{self, Position, ReturnItem, WriteAnswer};
use std::borrow::Cow;

/// A write of one item.
#[derive(Clone, Debug)]
pub struct Write {
    table: String,
    action: Action,
    /// Archive of a condition; empty: none.
    condition: Vec<u8>,
    return_item: ReturnItem,
}

/// What is written. Archives are made once, whatever the table turns out to be.
#[derive(Clone, Debug)]
enum Action {
    Put { item: Vec<u8>, checksum: u32 },
    Delete { key: Item },
    Update { key: Item, key_item: Vec<u8>, update: Vec<u8> },
}

/// What a write led to.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteOutput {
    /// Where it stands in its partition's log.
    pub position: Position,
    /// The leader's hybrid logical timestamp of the write: milliseconds since 1970 in the upper 48 bits.
    pub timestamp: u64,
    /// The item that was asked for, before or after the write, if there is one.
    pub item: Option<Item>,
}

impl Write {
    /// Writes an item, in place of any that has its key.
    ///
    /// # Errors
    /// When it is no item that a table can hold.
    pub fn put(table: impl Into<String>, item: &Item) -> Result<Self, Invalid> {
        let item = item::encode(item)?;
        let checksum = crc32c(&item);
        Ok(Self::new(table.into(), Action::Put { item, checksum }))
    }

    /// Removes the item of a key: an item with exactly the key attributes.
    #[must_use]
    pub fn delete(table: impl Into<String>, key: Item) -> Self {
        Self::new(table.into(), Action::Delete { key })
    }

    /// Changes the item of a key, or creates it.
    ///
    /// # Errors
    /// When the key is no item, or the update breaks a rule.
    pub fn update(table: impl Into<String>, key: Item, update: &Update) -> Result<Self, Invalid> {
        let (key_item, update) = (item::encode(&key)?, encode_update(update)?);
        Ok(Self::new(table.into(), Action::Update { key, key_item, update }))
    }

    fn new(table: String, action: Action) -> Self {
        Self { table, action, condition: Vec::new(), return_item: ReturnItem::None }
    }

    /// Only if the item, as it is before, meets a condition.
    ///
    /// # Errors
    /// When the condition breaks a rule.
    pub fn with_condition(mut self, condition: &Condition) -> Result<Self, Invalid> {
        self.condition = encode_condition(condition)?;
        Ok(self)
    }

    /// Which item to answer with.
    #[must_use]
    pub fn returning(mut self, return_item: ReturnItem) -> Self {
        self.return_item = return_item;
        self
    }
}

impl Operation for Write {
    type Output = WriteOutput;

    fn encode(&mut self, context: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        let table = context.table(&self.table)?;
        let (schema, hash_key, id) = (&table.schema, &table.hash_key, table.id);
        let (condition, return_item) = (Cow::Borrowed(self.condition.as_slice()), self.return_item);
        match &self.action {
            Action::Put { item, checksum } => {
                let key = schema.storage_key(hash_key, item::access(item)?)?;
                let token = context.tokens(1).token(0);
                let put = request::Put {
                    table: id,
                    token,
                    key: Cow::Borrowed(key.as_bytes()),
                    item: Cow::Borrowed(item),
                    item_checksum: *checksum,
                    condition,
                    return_item,
                };
                encode(&put, body);
                Ok(Kind::Put)
            }
            Action::Delete { key } => {
                let key = schema.storage_key_of_key(hash_key, key)?;
                let token = context.tokens(1).token(0);
                let key = Cow::Borrowed(key.as_bytes());
                encode(&request::Delete { table: id, token, key, condition, return_item }, body);
                Ok(Kind::Delete)
            }
            Action::Update { key, key_item, update } => {
                let key = schema.storage_key_of_key(hash_key, key)?;
                access_update(update)?.check_keys(schema)?;
                let token = context.tokens(1).token(0);
                let update = request::Update {
                    table: id,
                    token,
                    key: Cow::Borrowed(key.as_bytes()),
                    key_item: Cow::Borrowed(key_item),
                    update: Cow::Borrowed(update),
                    condition,
                    return_item,
                };
                encode(&update, body);
                Ok(Kind::Update)
            }
        }
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<WriteOutput>, Error> {
        let written = expect::<WriteAnswer<'static>>(answer)?;
        Ok(Progress::Done(WriteOutput {
            position: Position::from(&written.position),
            timestamp: written.timestamp.to_native(),
            item: written.item.as_ref().map(verified_item).transpose()?,
        }))
    }

    fn is_write(&self) -> bool {
        true
    }
}
