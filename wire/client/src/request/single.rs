//! Put, get, update and delete: requests about one item.

use super::{Placeholders, Prepared, Request, Shell, placeholder_methods, sending_methods};
use crate::error::Invalid;
use crate::protocol::operation::{get, write};
use evenkeel_wire::expression;
use evenkeel_wire::item::Item;
use evenkeel_wire::message::request::ReturnItem;
use std::time::Duration;

/// Writes an item.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let user = Item::new().with("pk", "user#1").with("name", "Ada").with("visits", 1);
/// let written = client.put("users", user).condition("attribute_not_exists(pk)").send();
/// match written {
///     Ok(output) => println!("stored at {:?}", output.position),
///     Err(error) if error.is_condition_failed() => println!("that user exists"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Put<S> {
    shell: S,
    table: String,
    item: Item,
    condition: Option<String>,
    placeholders: Placeholders,
    return_item: ReturnItem,
    deadline: Option<Duration>,
}

impl<S: Shell> Put<S> {
    pub(crate) fn new(shell: &S, table: String, item: Item) -> Self {
        Self {
            shell: shell.clone(),
            table,
            item,
            condition: None,
            placeholders: Placeholders::default(),
            return_item: ReturnItem::None,
            deadline: None,
        }
    }

    /// Only if the item that is there, or its absence, meets a condition.
    pub fn condition(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Answers with the item that was there before.
    pub fn return_old(mut self) -> Self {
        self.return_item = ReturnItem::Old;
        self
    }

    placeholder_methods!();
    sending_methods!();

    fn operation(mut self) -> Result<write::Write, Invalid> {
        let condition = self.placeholders.read_condition("condition", self.condition.as_deref())?;
        self.placeholders.0.finish()?;
        conditional(write::Write::put(self.table, &self.item)?, condition, self.return_item)
    }
}

/// Reads an item by its key.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let found = client.get("users", Item::new().with("pk", "user#1")).send()?;
/// if let Some(user) = found.item {
///     println!("{:?}", user.get("name"));
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Get<S> {
    shell: S,
    table: String,
    key: Item,
    strong: bool,
    deadline: Option<Duration>,
}

impl<S: Shell> Get<S> {
    pub(crate) fn new(shell: &S, table: String, key: Item) -> Self {
        Self { shell: shell.clone(), table, key, strong: true, deadline: None }
    }

    /// Takes what any replica has: it can be a little old, and costs half.
    pub fn eventual(mut self) -> Self {
        self.strong = false;
        self
    }

    sending_methods!();
}

/// Changes an item, or creates it.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let key = Item::new().with("pk", "user#1");
/// let changed = client
///     .update("users", key)
///     .expression("SET visits = if_not_exists(visits, :zero) + :one REMOVE #draft")
///     .name("#draft", "draft")
///     .value(":zero", 0)
///     .value(":one", 1)
///     .return_new()
///     .send()?;
/// println!("{:?}", changed.item.and_then(|user| user.get("visits").cloned()));
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Update<S> {
    shell: S,
    table: String,
    key: Item,
    expression: Option<String>,
    condition: Option<String>,
    placeholders: Placeholders,
    return_item: ReturnItem,
    deadline: Option<Duration>,
}

impl<S: Shell> Update<S> {
    pub(crate) fn new(shell: &S, table: String, key: Item) -> Self {
        Self {
            shell: shell.clone(),
            table,
            key,
            expression: None,
            condition: None,
            placeholders: Placeholders::default(),
            return_item: ReturnItem::None,
            deadline: None,
        }
    }

    /// What to change: SET, REMOVE, ADD and DELETE clauses.
    pub fn expression(mut self, expression: impl Into<String>) -> Self {
        self.expression = Some(expression.into());
        self
    }

    /// Only if the item, as it is before, meets a condition.
    pub fn condition(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Answers with the item as it was before.
    pub fn return_old(mut self) -> Self {
        self.return_item = ReturnItem::Old;
        self
    }

    /// Answers with the item as it is now.
    pub fn return_new(mut self) -> Self {
        self.return_item = ReturnItem::New;
        self
    }

    placeholder_methods!();
    sending_methods!();

    fn operation(mut self) -> Result<write::Write, Invalid> {
        let text = self.expression.as_deref();
        let update = self.placeholders.read("update expression", text, expression::Update::parse)?;
        let update = update.ok_or(Invalid::Missing { what: "an update expression" })?;
        let condition = self.placeholders.read_condition("condition", self.condition.as_deref())?;
        self.placeholders.0.finish()?;
        conditional(write::Write::update(self.table, self.key, &update)?, condition, self.return_item)
    }
}

/// Removes an item.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let key = Item::new().with("pk", "user#1");
/// let removed = client.delete("users", key).return_old().send()?;
/// println!("it was {:?}", removed.item);
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Delete<S> {
    shell: S,
    table: String,
    key: Item,
    condition: Option<String>,
    placeholders: Placeholders,
    return_item: ReturnItem,
    deadline: Option<Duration>,
}

impl<S: Shell> Delete<S> {
    pub(crate) fn new(shell: &S, table: String, key: Item) -> Self {
        Self {
            shell: shell.clone(),
            table,
            key,
            condition: None,
            placeholders: Placeholders::default(),
            return_item: ReturnItem::None,
            deadline: None,
        }
    }

    /// Only if the item that is there, or its absence, meets a condition.
    pub fn condition(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Answers with the item that was removed.
    pub fn return_old(mut self) -> Self {
        self.return_item = ReturnItem::Old;
        self
    }

    placeholder_methods!();
    sending_methods!();

    fn operation(mut self) -> Result<write::Write, Invalid> {
        let condition = self.placeholders.read_condition("condition", self.condition.as_deref())?;
        self.placeholders.0.finish()?;
        conditional(write::Write::delete(self.table, self.key), condition, self.return_item)
    }
}

fn conditional(
    write: write::Write,
    condition: Option<expression::Condition>,
    return_item: ReturnItem,
) -> Result<write::Write, Invalid> {
    let write = write.returning(return_item);
    match condition {
        Some(condition) => write.with_condition(&condition),
        None => Ok(write),
    }
}

impl<S: Shell> Request for Put<S> {
    type Operation = write::Write;

    fn prepare(self) -> Prepared<write::Write> {
        Prepared { deadline: self.deadline, operation: self.operation() }
    }
}

impl<S: Shell> Request for Get<S> {
    type Operation = get::Get;

    fn prepare(self) -> Prepared<get::Get> {
        let operation = Ok(get::Get::new(self.table, self.key, self.strong));
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for Update<S> {
    type Operation = write::Write;

    fn prepare(self) -> Prepared<write::Write> {
        Prepared { deadline: self.deadline, operation: self.operation() }
    }
}

impl<S: Shell> Request for Delete<S> {
    type Operation = write::Write;

    fn prepare(self) -> Prepared<write::Write> {
        Prepared { deadline: self.deadline, operation: self.operation() }
    }
}
