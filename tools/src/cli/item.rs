//! Single items. They are written in DynamoDB JSON: `{"pk":{"S":"a"},"n":{"N":"1"}}`.

use super::output::{line, say};
use super::{Ended, Failed, Global, Outcome, failed};
use clap::Args;
use evenkeel_client::Item;
use evenkeel_client::json::{parse_line, to_json};
use evenkeel_wire::expression::Bindings;
use std::io::Read;

/// What `:value` and `#name` placeholders of a verb's expressions stand for.
#[derive(Clone, Debug, Args)]
pub(super) struct Placeholders {
    /// What `:placeholders` stand for, in DynamoDB JSON: {":v":{"N":"1"}}.
    #[arg(long, value_name = "JSON")]
    values: Option<String>,
    /// What `#placeholders` stand for: {"#n":"name"}.
    #[arg(long, value_name = "JSON")]
    names: Option<String>,
}

impl Placeholders {
    pub(super) fn bindings(&self) -> Result<Bindings, Failed> {
        let mut bindings = Bindings::new();
        if let Some(values) = &self.values {
            let values = parse_line(values).map_err(|error| failed(format!("--values: {error}")))?;
            for attribute in values.into_attributes() {
                bindings = bindings.with_value(attribute.name, attribute.value);
            }
        }
        if let Some(names) = &self.names {
            let names: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(names).map_err(|error| failed(format!("--names: {error}")))?;
            for (placeholder, name) in names {
                let name =
                    name.as_str().ok_or_else(|| failed(format!("--names: {placeholder} is no text")))?;
                bindings = bindings.with_name(placeholder, name);
            }
        }
        Ok(bindings)
    }
}

/// On what a write depends.
#[derive(Debug, Args)]
struct Guard {
    /// Only if this condition holds for the item that is there, or for its absence.
    #[arg(long = "if", value_name = "EXPR")]
    condition: Option<String>,
    #[command(flatten)]
    placeholders: Placeholders,
}

#[derive(Debug, Args)]
pub(super) struct Put {
    /// The table.
    table: String,
    /// The item in DynamoDB JSON; "-": read it from stdin.
    item: String,
    /// Print the item that was there before.
    #[arg(long)]
    old: bool,
    #[command(flatten)]
    guard: Guard,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// The table.
    table: String,
    /// The key in DynamoDB JSON.
    key: String,
    /// Take what any replica has: it can be a little old.
    #[arg(long)]
    eventual: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The table.
    table: String,
    /// The key in DynamoDB JSON.
    key: String,
    /// What to set: "n = n + :one, seen = :now".
    #[arg(long, value_name = "EXPR")]
    set: Option<String>,
    /// What to remove: "draft, tags[0]".
    #[arg(long, value_name = "PATHS")]
    remove: Option<String>,
    /// What to add to numbers and sets: "visits :one".
    #[arg(long, value_name = "EXPR")]
    add: Option<String>,
    /// What to take out of sets: "tags :old".
    #[arg(long, value_name = "EXPR")]
    delete: Option<String>,
    /// Print the item as it was before, in place of the new one.
    #[arg(long)]
    old: bool,
    #[command(flatten)]
    guard: Guard,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The table.
    table: String,
    /// The key in DynamoDB JSON.
    key: String,
    /// Print the item that was there before.
    #[arg(long)]
    old: bool,
    #[command(flatten)]
    guard: Guard,
}

fn read(what: &str, text: &str) -> Result<Item, Failed> {
    let mut input = String::new();
    let text = if text == "-" {
        std::io::stdin().read_to_string(&mut input)?;
        input.trim()
    } else {
        text
    };
    parse_line(text).map_err(|error| failed(format!("{what}: {error}")))
}

fn print(item: Option<&Item>) -> Result<(), Failed> {
    item.map_or(Ok(()), |item| line(&to_json(item)))
}

impl Put {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let item = read("the item", &self.item)?;
        let client = global.connect()?;
        let mut request = client.put(&self.table, item).bindings(self.guard.placeholders.bindings()?);
        if let Some(condition) = self.guard.condition {
            request = request.condition(condition);
        }
        if self.old {
            request = request.return_old();
        }
        print(request.send()?.item.as_ref())?;
        Ok(Ended::Ok)
    }
}

impl Get {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let key = read("the key", &self.key)?;
        let client = global.connect()?;
        let mut request = client.get(&self.table, key);
        if self.eventual {
            request = request.eventual();
        }
        match request.send()?.item {
            Some(item) => {
                print(Some(&item))?;
                Ok(Ended::Ok)
            }
            None => Err(failed("there is no item with this key")),
        }
    }
}

impl Update {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let key = read("the key", &self.key)?;
        let clauses =
            [("SET", &self.set), ("REMOVE", &self.remove), ("ADD", &self.add), ("DELETE", &self.delete)];
        let clauses = clauses.iter().filter_map(|(word, text)| Some(format!("{word} {}", text.as_ref()?)));
        let expression = clauses.collect::<Vec<_>>().join(" ");
        if expression.is_empty() {
            return Err(failed("nothing to change; give --set, --remove, --add or --delete"));
        }
        let client = global.connect()?;
        let bindings = self.guard.placeholders.bindings()?;
        let mut request = client.update(&self.table, key).expression(expression).bindings(bindings);
        if let Some(condition) = self.guard.condition {
            request = request.condition(condition);
        }
        request = if self.old { request.return_old() } else { request.return_new() };
        print(request.send()?.item.as_ref())?;
        Ok(Ended::Ok)
    }
}

impl Delete {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let key = read("the key", &self.key)?;
        let client = global.connect()?;
        let mut request = client.delete(&self.table, key).bindings(self.guard.placeholders.bindings()?);
        if let Some(condition) = self.guard.condition {
            request = request.condition(condition);
        }
        if self.old {
            request = request.return_old();
        }
        let deleted = request.send()?.item;
        print(deleted.as_ref())?;
        if self.old && deleted.is_none() {
            say("there was no item with this key");
        }
        Ok(Ended::Ok)
    }
}
