//! Batches: requests about several items.

use super::{Prepared, Request, Shell, sending_methods};
use crate::error::Invalid;
use crate::protocol::operation::{batch_get, batch_write};
use evenkeel_wire::item::Item;
use std::time::Duration;

/// Reads up to 100 items of any tables. Each key is found or not, or fails, on its own.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let batch = client.batch_get();
/// let batch = batch.get("users", Item::new().with("pk", "user#1"));
/// let batch = batch.get("orders", Item::new().with("pk", "user#1").with("sk", 7));
/// for item in batch.send()?.into_items()? {
///     println!("{item:?}");
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct BatchGet<S> {
    shell: S,
    keys: Vec<(String, Item)>,
    strong: bool,
    deadline: Option<Duration>,
}

/// Writes and removes up to 25 items of any tables. Each operation succeeds or fails on its own; a batch that
/// names a key twice is refused.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let batch = client.batch_write();
/// let batch = batch.put("users", Item::new().with("pk", "user#2").with("name", "Grace"));
/// let batch = batch.delete("users", Item::new().with("pk", "user#1"));
/// for outcome in batch.send()?.outcomes {
///     println!("{outcome:?}");
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct BatchWrite<S> {
    shell: S,
    batch: Result<batch_write::BatchWrite, Invalid>,
    deadline: Option<Duration>,
}

impl<S: Shell> BatchGet<S> {
    pub(crate) fn new(shell: &S) -> Self {
        Self { shell: shell.clone(), keys: Vec::new(), strong: true, deadline: None }
    }

    /// Reads the item of a key, too.
    pub fn get(mut self, table: impl Into<String>, key: Item) -> Self {
        self.keys.push((table.into(), key));
        self
    }

    /// Takes what any replica has: it can be a little old, and costs half.
    pub fn eventual(mut self) -> Self {
        self.strong = false;
        self
    }

    sending_methods!();
}

impl<S: Shell> BatchWrite<S> {
    pub(crate) fn new(shell: &S) -> Self {
        Self { shell: shell.clone(), batch: Ok(batch_write::BatchWrite::new()), deadline: None }
    }

    /// Writes an item, too.
    pub fn put(mut self, table: impl Into<String>, item: Item) -> Self {
        if let Ok(batch) = &mut self.batch
            && let Err(invalid) = batch.put(table, &item)
        {
            self.batch = Err(invalid);
        }
        self
    }

    /// Removes the item of a key, too.
    pub fn delete(mut self, table: impl Into<String>, key: Item) -> Self {
        if let Ok(batch) = &mut self.batch {
            batch.delete(table, key);
        }
        self
    }

    sending_methods!();
}

impl<S: Shell> Request for BatchGet<S> {
    type Operation = batch_get::BatchGet;

    fn prepare(self) -> Prepared<batch_get::BatchGet> {
        let operation = batch_get::BatchGet::new(self.keys, self.strong);
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for BatchWrite<S> {
    type Operation = batch_write::BatchWrite;

    fn prepare(self) -> Prepared<batch_write::BatchWrite> {
        Prepared { operation: self.batch, deadline: self.deadline }
    }
}
