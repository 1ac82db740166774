//! Reading many items.

use super::item::Placeholders;
use super::output::line;
use super::{Ended, Failed, Global, Outcome};
use clap::Args;
use evenkeel_client::Item;
use evenkeel_client::json::to_json;

/// What queries and scans share.
#[derive(Debug, Args)]
struct Selection {
    /// Print only items for which this condition holds.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Print at most this many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Take what any replica has: it can be a little old.
    #[arg(long)]
    eventual: bool,
    #[command(flatten)]
    placeholders: Placeholders,
}

#[derive(Debug, Args)]
pub(super) struct Query {
    /// The table.
    table: String,
    /// The key condition: "pk = :p AND sk BETWEEN :a AND :b".
    condition: String,
    /// From the highest sort key to the lowest.
    #[arg(long)]
    backward: bool,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct Scan {
    /// The table.
    table: String,
    #[command(flatten)]
    selection: Selection,
}

/// Items to read at once, where fewer are wanted than a page holds. How many a filter lets through, nobody
/// knows.
fn page(limit: Option<usize>, filter: Option<&String>) -> Option<u32> {
    limit.filter(|limit| *limit > 0 && filter.is_none()).and_then(|limit| u32::try_from(limit).ok())
}

fn print(
    items: impl Iterator<Item = Result<Item, evenkeel_client::Error>>,
    limit: Option<usize>,
) -> Result<Ended, Failed> {
    for item in items.take(limit.unwrap_or(usize::MAX)) {
        line(&to_json(&item?))?;
    }
    Ok(Ended::Ok)
}

impl Query {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let Selection { filter, limit, eventual, placeholders } = self.selection;
        let client = global.connect()?;
        let mut request =
            client.query(&self.table).key_condition(self.condition).bindings(placeholders.bindings()?);
        if let Some(page) = page(limit, filter.as_ref()) {
            request = request.limit(page);
        }
        if let Some(filter) = filter {
            request = request.filter(filter);
        }
        if self.backward {
            request = request.backward();
        }
        if eventual {
            request = request.eventual();
        }
        print(request.items(), limit)
    }
}

impl Scan {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let Selection { filter, limit, eventual, placeholders } = self.selection;
        let client = global.connect()?;
        let mut request = client.scan(&self.table).bindings(placeholders.bindings()?);
        if let Some(page) = page(limit, filter.as_ref()) {
            request = request.limit(page);
        }
        if let Some(filter) = filter {
            request = request.filter(filter);
        }
        if eventual {
            request = request.eventual();
        }
        print(request.items(), limit)
    }
}
