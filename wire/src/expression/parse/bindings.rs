//! What the placeholders of an expression stand for.
//!
//! One set of bindings serves all expressions of a request; after the last of them, [`Bindings::finish`]
//! tells which placeholders no expression used, which DynamoDB takes for a mistake.

use crate::item::Value;
use std::collections::BTreeMap;

/// Names and values by placeholder, and which of them were used.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    names: BTreeMap<String, Binding<String>>,
    values: BTreeMap<String, Binding<Value>>,
}

#[derive(Clone, Debug)]
struct Binding<T> {
    target: T,
    used: bool,
}

/// Placeholders that no expression used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no expression uses {}", .placeholders.join(", "))]
pub struct UnusedBindings {
    /// The placeholders: names, then values, each in order.
    pub placeholders: Vec<String>,
}

impl Bindings {
    /// No placeholders.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These bindings and one for a name: `placeholder` with its `#`.
    #[must_use]
    pub fn with_name(mut self, placeholder: impl Into<String>, name: impl Into<String>) -> Self {
        self.names.insert(placeholder.into(), Binding { target: name.into(), used: false });
        self
    }

    /// These bindings and one for a value: `placeholder` with its `:`.
    #[must_use]
    pub fn with_value(mut self, placeholder: impl Into<String>, value: impl Into<Value>) -> Self {
        self.values.insert(placeholder.into(), Binding { target: value.into(), used: false });
        self
    }

    pub(super) fn name(&mut self, placeholder: &str) -> Option<String> {
        let binding = self.names.get_mut(placeholder)?;
        binding.used = true;
        Some(binding.target.clone())
    }

    pub(super) fn value(&mut self, placeholder: &str) -> Option<Value> {
        let binding = self.values.get_mut(placeholder)?;
        binding.used = true;
        Some(binding.target.clone())
    }

    /// Checks, after the last expression, that every placeholder was used.
    ///
    /// # Errors
    /// [`UnusedBindings`] with those that were not.
    pub fn finish(&self) -> Result<(), UnusedBindings> {
        let names =
            self.names.iter().filter(|(_, binding)| !binding.used).map(|(placeholder, _)| placeholder);
        let values =
            self.values.iter().filter(|(_, binding)| !binding.used).map(|(placeholder, _)| placeholder);
        let placeholders: Vec<String> = names.chain(values).cloned().collect();
        if placeholders.is_empty() { Ok(()) } else { Err(UnusedBindings { placeholders }) }
    }
}
