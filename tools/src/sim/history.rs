//! What clients did and saw, and what a key does: the model that histories are checked against.

use crate::linearizability::{Call, Model, NotLinearizable, check};
use std::collections::BTreeSet;

/// An item, as far as the workload looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The value of the last put; zero: it was created by counting.
    pub value: u64,
    /// How often it was counted up since.
    pub count: i64,
}

/// An operation on one key, with what was observed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Put a new value.
    Put {
        /// The value.
        value: u64,
    },
    /// Put a new value if the item has a certain one, or is absent.
    PutIf {
        /// The condition.
        expected: Option<u64>,
        /// The value.
        value: u64,
        /// Whether it held, if that is known.
        held: Option<bool>,
    },
    /// Remove the item.
    Delete,
    /// Read the item, strongly.
    Get {
        /// What was read.
        seen: Option<Seen>,
    },
    /// Count up, creating the item if it is absent.
    Count {
        /// The new count, if it is known.
        count: Option<i64>,
    },
}

/// One item, as a sequential thing.
#[derive(Debug)]
pub struct ItemModel;

impl Model for ItemModel {
    type State = Option<Seen>;
    type Operation = Operation;

    fn initial(&self) -> Option<Seen> {
        None
    }

    fn apply(&self, state: &Option<Seen>, operation: &Operation) -> Option<Option<Seen>> {
        let put = |value| Some(Seen { value, count: 0 });
        match *operation {
            Operation::Put { value } => Some(put(value)),
            Operation::PutIf { expected, value, held } => {
                let holds = state.map(|seen| seen.value) == expected;
                let possible = held.is_none_or(|held| held == holds);
                possible.then(|| if holds { put(value) } else { *state })
            }
            Operation::Delete => Some(None),
            Operation::Get { seen } => (seen == *state).then_some(*state),
            Operation::Count { count } => {
                let old = state.unwrap_or(Seen { value: 0, count: 0 });
                let new = Seen { count: old.count + 1, ..old };
                let possible = count.is_none_or(|count| count == new.count);
                possible.then_some(Some(new))
            }
        }
    }

    fn reads(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::Get { .. } | Operation::PutIf { held: Some(false), .. })
    }

    fn mentions(&self, operation: &Operation) -> Option<u64> {
        match operation {
            Operation::Get { seen } => seen.map(|seen| seen.value),
            Operation::PutIf { expected, .. } => *expected,
            Operation::Put { .. } | Operation::Delete | Operation::Count { .. } => None,
        }
    }

    fn blur(&self, state: Option<Seen>, is_mentioned: &dyn Fn(u64) -> bool) -> Option<Seen> {
        state.map(|seen| Seen { value: blurred(seen.value, is_mentioned), ..seen })
    }

    fn blur_operation(&self, operation: &Operation, is_mentioned: &dyn Fn(u64) -> bool) -> Operation {
        match *operation {
            Operation::Put { value } => Operation::Put { value: blurred(value, is_mentioned) },
            Operation::PutIf { expected, value, held } => {
                Operation::PutIf { expected, value: blurred(value, is_mentioned), held }
            }
            Operation::Delete | Operation::Get { .. } | Operation::Count { .. } => operation.clone(),
        }
    }
}

/// Stands for every value that nobody tells from others: no client puts it.
const ANY_OTHER: u64 = u64::MAX;

fn blurred(value: u64, is_mentioned: &dyn Fn(u64) -> bool) -> u64 {
    if is_mentioned(value) { value } else { ANY_OTHER }
}

/// All operations of a run, by key.
#[derive(Debug, Default)]
pub struct History {
    keys: Vec<Vec<Call<Operation>>>,
    /// What anybody tried to write, with its key. Counting creates an item with the value zero.
    written: BTreeSet<(usize, u64)>,
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    key: usize,
    place: usize,
}

impl History {
    /// An empty history of `keys` keys.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self { keys: vec![Vec::new(); keys], written: BTreeSet::new() }
    }

    /// What was written down elsewhere, by key.
    #[must_use]
    pub fn of(keys: Vec<Vec<Call<Operation>>>) -> Self {
        let mut history = Self { keys: Vec::new(), written: BTreeSet::new() };
        for (key, calls) in keys.iter().enumerate() {
            calls.iter().for_each(|call| history.note_written(key, &call.operation));
        }
        Self { keys, ..history }
    }

    /// Everything, by key.
    #[must_use]
    pub fn into_keys(self) -> Vec<Vec<Call<Operation>>> {
        self.keys
    }

    fn note_written(&mut self, key: usize, operation: &Operation) {
        match operation {
            Operation::Put { value } | Operation::PutIf { value, .. } => self.written.insert((key, *value)),
            Operation::Count { .. } => self.written.insert((key, 0)),
            Operation::Delete | Operation::Get { .. } => false,
        };
    }

    /// An operation begins.
    pub fn call(&mut self, key: usize, now: u64, operation: Operation) -> CallId {
        self.note_written(key, &operation);
        self.keys[key].push(Call { called: now, returned: None, operation });
        CallId { key, place: self.keys[key].len() - 1 }
    }

    /// It returns, with what was observed.
    pub fn returned(&mut self, id: CallId, now: u64, operation: Operation) {
        let call = &mut self.keys[id.key][id.place];
        call.returned = Some(now);
        call.operation = operation;
    }

    /// Whether anybody ever tried to write `value` to `key`.
    #[must_use]
    pub fn was_written(&self, key: usize, value: u64) -> bool {
        self.written.contains(&(key, value))
    }

    /// How many operations returned, and how many never did.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let returned = self.keys.iter().flatten().filter(|call| call.returned.is_some()).count();
        (returned, self.keys.iter().map(Vec::len).sum::<usize>() - returned)
    }

    /// The same without strong reads that were called before `time`, and conditions that failed: what clocks
    /// can make old.
    #[must_use]
    pub fn without_reads_before(&self, time: u64) -> Self {
        let needs_no_clock = |call: &&Call<Operation>| match call.operation {
            Operation::Get { .. } | Operation::PutIf { held: Some(false), .. } => call.called >= time,
            Operation::Put { .. } | Operation::PutIf { .. } | Operation::Delete | Operation::Count { .. } => {
                true
            }
        };
        let keys = self.keys.iter().map(|calls| calls.iter().filter(needs_no_clock).cloned().collect());
        Self::of(keys.collect())
    }

    /// Checks every key.
    ///
    /// # Errors
    /// The story of the first key whose history cannot be explained.
    pub fn check(&self) -> Result<(), String> {
        for (key, calls) in self.keys.iter().enumerate() {
            check(&ItemModel, calls).map_err(|failure| story(key, calls, &failure))?;
        }
        Ok(())
    }
}

/// What was possible, and what was not.
fn story(key: usize, calls: &[Call<Operation>], failure: &NotLinearizable) -> String {
    let line = |index: &usize| {
        let Call { called, returned, operation } = &calls[*index];
        let returned = returned.map_or("never".to_owned(), |at| format!("{:.6}", at as f64 / 1e9));
        format!("    {:.6} .. {returned}  {operation:?}", *called as f64 / 1e9)
    };
    let tail = failure.longest.len().saturating_sub(8);
    let possible: Vec<String> = failure.longest[tail..].iter().map(line).collect();
    let stuck: Vec<String> = failure.stuck.iter().take(8).map(line).collect();
    format!(
        "the history of key {key} is not linearizable\n  the longest order that is possible ends with\n{}\n  \
         and none of \
         these can follow\n{}",
        possible.join("\n"),
        stuck.join("\n")
    )
}
