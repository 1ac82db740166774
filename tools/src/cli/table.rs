//! Tables.

use super::output::{columns, count, json, line};
use super::{Ended, Failed, Global, Outcome, failed};
use clap::{Args, Subcommand};
use evenkeel_client::{Client, KeyType};
use evenkeel_wire::table::{Billing, TableDescriptor, Throughput};
use serde_json::json;

#[derive(Debug, Args)]
pub(super) struct Table {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a table, and wait until it can be used.
    Create(Create),
    /// List all tables.
    List,
    /// Describe a table.
    Describe {
        /// Its name.
        table: String,
    },
    /// Delete a table with all its items, and wait until it is gone.
    Delete {
        /// Its name.
        table: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// Its name.
    table: String,
    /// The key: NAME:TYPE of the partition key, then perhaps of the sort key; types are S, N and B.
    #[arg(long, value_name = "PK:TYPE[,SK:TYPE]")]
    key: String,
    /// Whatever capacity the traffic needs (the default).
    #[arg(long, conflicts_with_all = ["rcu", "wcu"])]
    on_demand: bool,
    /// Read capacity units: strong reads of 4 KB a second.
    #[arg(long, requires = "wcu")]
    rcu: Option<u64>,
    /// Write capacity units: writes of 1 KB a second.
    #[arg(long, requires = "rcu")]
    wcu: Option<u64>,
    /// Partitions to begin with, in place of what the capacity asks for.
    #[arg(long)]
    partitions: Option<u32>,
}

impl Table {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let client = global.connect()?;
        match self.verb {
            Verb::Create(create) => create.run(&client, global),
            Verb::List => {
                let names = client.list_tables().send()?;
                if global.json {
                    json(&json!(names))?;
                } else {
                    names.iter().try_for_each(|name| line(name))?;
                }
                Ok(Ended::Ok)
            }
            Verb::Describe { table } => {
                print(&client.describe_table(&table).send()?, global)?;
                Ok(Ended::Ok)
            }
            Verb::Delete { table } => {
                client.delete_table(&table).wait_until_gone().send()?;
                Ok(Ended::Ok)
            }
        }
    }
}

impl Create {
    fn run(self, client: &Client, global: &Global) -> Outcome {
        let mut request = create(client, &self.table, &self.key)?;
        if let (Some(rcu), Some(wcu)) = (self.rcu, self.wcu) {
            request = request.provisioned(rcu, wcu);
        }
        if let Some(partitions) = self.partitions {
            request = request.partitions(partitions);
        }
        print(&request.wait_until_active().send()?, global)?;
        Ok(Ended::Ok)
    }
}

/// A request to create a table whose key is written as `pk:S[,sk:N]`.
pub(super) fn create(
    client: &Client,
    table: &str,
    key: &str,
) -> Result<evenkeel_client::request::CreateTable<Client>, Failed> {
    let mut parts = key.split(',');
    let (name, key_type) = attribute(parts.next().unwrap_or_default())?;
    let mut request = client.create_table(table).partition_key(name, key_type);
    if let Some(sort) = parts.next() {
        let (name, key_type) = attribute(sort)?;
        request = request.sort_key(name, key_type);
    }
    if parts.next().is_some() {
        return Err(failed(format!("{key:?} has more than a partition key and a sort key")));
    }
    Ok(request)
}

fn attribute(text: &str) -> Result<(String, KeyType), Failed> {
    let (name, key_type) = text.rsplit_once(':').unwrap_or((text, ""));
    let key_type = match key_type {
        "S" => KeyType::S,
        "N" => KeyType::N,
        "B" => KeyType::B,
        _ => return Err(failed(format!("{text:?} is no key attribute; write NAME:S, NAME:N or NAME:B"))),
    };
    Ok((name.to_owned(), key_type))
}

fn print(table: &TableDescriptor, global: &Global) -> Result<(), Failed> {
    let key: Vec<String> = table
        .schema
        .attributes()
        .map(|attribute| format!("{}:{}", attribute.name, attribute.key_type.name()))
        .collect();
    let capacity = match table.billing {
        Billing::OnDemand => "on demand".to_owned(),
        Billing::Provisioned(Throughput { read_units, write_units }) => {
            format!("{} read units, {} write units", count(read_units), count(write_units))
        }
    };
    let status = format!("{:?}", table.status);
    if global.json {
        return json(&json!({
            "name": table.name, "id": table.id.0, "status": status, "key": key, "capacity": capacity,
            "partitions": table.partitions, "created_ms": table.created_ms,
        }));
    }
    columns(&[
        vec!["table".to_owned(), table.name.clone()],
        vec!["status".to_owned(), status],
        vec!["key".to_owned(), key.join(", ")],
        vec!["capacity".to_owned(), capacity],
        vec!["partitions".to_owned(), table.partitions.to_string()],
    ])
}
