//! Tables.

use super::output::{columns, count, json, line};
use super::{Ended, Failed, Global, Outcome, failed};
use crate::health;
use clap::{Args, Subcommand};
use evenkeel_client::json::parse_line;
use evenkeel_client::{Client, KeyType};
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::table::{Billing, TableDescriptor, Throughput};
use serde_json::json;
use std::time::Duration;

/// How long a split may take: it may wait for a checkpoint, and for a new leader.
const SPLIT_WITHIN: Duration = Duration::from_secs(60);

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
    /// Divide a partition's range in two, and wait until that is done. Nothing is copied for it.
    Split(Split),
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

#[derive(Debug, Args)]
struct Split {
    /// The table.
    table: String,
    /// The partition, as `cluster status` names it; else the one that holds the key, or the largest.
    #[arg(long, value_name = "ID", value_parser = partition_id)]
    partition: Option<PartitionId>,
    /// At a key in the middle of what it holds (the default).
    #[arg(long, conflicts_with = "key")]
    at_middle: bool,
    /// At this key in DynamoDB JSON, which will be the first of the new partition. Partitions are ranges of
    /// the key's hash, then of the sort key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

fn partition_id(text: &str) -> Result<PartitionId, String> {
    let number = text.strip_prefix('p').unwrap_or(text).parse();
    number.map(PartitionId).map_err(|_| "a partition is named by a number, like p131072".to_owned())
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
            Verb::Split(split) => split.run(&client, global),
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

impl Split {
    fn run(self, client: &Client, global: &Global) -> Outcome {
        let mut request = client.split_table(&self.table).deadline(SPLIT_WITHIN);
        if let Some(key) = &self.key {
            let table = client.describe_table(&self.table).send()?;
            let item = parse_line(key).map_err(|error| failed(format!("--key: {error}")))?;
            let key = table.schema.storage_key_of_key(&table.hash_key, &item);
            request = request.at(key.map_err(|error| failed(format!("--key: {error}")))?.0);
        }
        let partition = match self.partition {
            None if self.key.is_none() => largest(client, &self.table)?,
            named => named,
        };
        if let Some(partition) = partition {
            request = request.partition(partition);
        }
        print(&request.send()?, global)?;
        Ok(Ended::Ok)
    }
}

/// The partition of a table that holds most, if it has several.
fn largest(client: &Client, name: &str) -> Result<Option<PartitionId>, Failed> {
    let table = client.describe_table(name).send()?;
    if table.partitions == 1 {
        return Ok(None);
    }
    let health = health::ask(client, &client.topology().send()?);
    let of_table = health.partitions.iter().filter(|(_, partition)| partition.table == table.id.0);
    let largest = of_table.max_by_key(|(_, partition)| partition.bytes);
    let largest = largest.map(|(partition, _)| *partition);
    largest.map(Some).ok_or_else(|| failed(format!("no node says anything of a partition of {name}")))
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
