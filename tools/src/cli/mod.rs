//! The verbs of the `evenkeel` command.
//!
//! Data goes to stdout, messages to stderr. Every verb that prints data takes `--json`. Exit codes: 0 ok, 1
//! failed, 2 usage, 3 unhealthy, 4 measurement invalid, 77 skipped: this host cannot do it.

mod bench;
mod check;
mod cluster;
mod demo;
mod doctor;
mod export;
mod item;
mod load;
mod output;
mod query;
mod sim;
mod sim_hours;
mod sim_script;
mod start;
mod table;
mod tail;
mod torture;

use clap::{Args, Parser, Subcommand};
use evenkeel_client::{Client, ClientBuilder, ENDPOINT_VARIABLE};
use std::fmt;
use std::process::ExitCode;

/// How a verb ends when it does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Ok,
    /// A comparison found a regression.
    Worse,
    Unhealthy,
    Invalid,
    Skipped,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Ok => Self::SUCCESS,
            Ended::Worse => Self::FAILURE,
            Ended::Unhealthy => Self::from(3),
            Ended::Invalid => Self::from(4),
            Ended::Skipped => Self::from(77),
        }
    }
}

/// Why a verb fails: one sentence, or a few lines, for a person.
#[derive(Debug)]
struct Failed(String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A failure with this text.
fn failed(text: impl fmt::Display) -> Failed {
    Failed(text.to_string())
}

type Outcome = Result<Ended, Failed>;

/// A DynamoDB-style data plane whose first virtue is predictability.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a whole cluster in this process: three storage nodes, two MemDS servers and a router.
    Demo(demo::Demo),
    /// Run one process with the roles that a configuration file names.
    Start(start::Start),
    /// Format the data folder of a storage node, once.
    Format(start::Format),
    /// Run a cluster as separate processes on this host, and look at any cluster.
    Cluster(cluster::Cluster),
    /// Create, list, describe and delete tables.
    Table(table::Table),
    /// Write an item.
    Put(item::Put),
    /// Read an item by its key.
    Get(item::Get),
    /// Change an item, or create it.
    Update(item::Update),
    /// Remove an item.
    Delete(item::Delete),
    /// Read the items of one partition key, in order.
    Query(query::Query),
    /// Read all items of a table.
    Scan(query::Scan),
    /// Write the items of a file, one a line in DynamoDB JSON.
    Load(load::Load),
    /// Write all items of a table to stdout, one a line, in key order of each partition.
    Export(export::Export),
    /// Put load on a cluster, and measure it.
    Bench(Box<bench::Bench>),
    /// Tell why the slow requests were slow: where their time went, and what was behind it.
    Tail(tail::Tail),
    /// Read a storage node's data folder, running or not, and tell what in it is damaged.
    Check(check::Check),
    /// Look at this host: what would slow a storage node down, and how to mend it.
    Doctor(doctor::Doctor),
    /// Run the whole cluster in simulation, under faults.
    Sim(sim::Sim),
    /// Run a cluster of processes on a network of its own, under faults. Needs root.
    Torture(torture::Torture),
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
struct Global {
    /// A router, HOST:PORT; several with commas between them.
    #[arg(long, env = ENDPOINT_VARIABLE, default_value = evenkeel_client::DEFAULT_ENDPOINT, global = true)]
    endpoint: String,
    /// Print JSON. Items are always printed as JSON.
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    fn connect(&self) -> Result<Client, Failed> {
        Ok(client_of(&self.endpoint).connect()?)
    }
}

/// A client of routers that are written with commas between them.
fn client_of(endpoints: &str) -> ClientBuilder {
    let endpoints = endpoints.split(',').map(str::trim);
    endpoints.fold(Client::builder(), ClientBuilder::endpoint)
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = match command.verb {
        Verb::Demo(verb) => verb.run(&command.global),
        Verb::Start(verb) => verb.run(&command.global),
        Verb::Format(verb) => verb.run(&command.global),
        Verb::Cluster(verb) => verb.run(&command.global),
        Verb::Table(verb) => verb.run(&command.global),
        Verb::Put(verb) => verb.run(&command.global),
        Verb::Get(verb) => verb.run(&command.global),
        Verb::Update(verb) => verb.run(&command.global),
        Verb::Delete(verb) => verb.run(&command.global),
        Verb::Query(verb) => verb.run(&command.global),
        Verb::Scan(verb) => verb.run(&command.global),
        Verb::Load(verb) => verb.run(&command.global),
        Verb::Export(verb) => verb.run(&command.global),
        Verb::Bench(verb) => verb.run(&command.global),
        Verb::Tail(verb) => verb.run(&command.global),
        Verb::Check(verb) => verb.run(&command.global),
        Verb::Doctor(verb) => verb.run(&command.global),
        Verb::Sim(verb) => verb.run(&command.global),
        Verb::Torture(verb) => verb.run(&command.global),
    };
    match outcome {
        Ok(ended) => ended.into(),
        Err(Failed(text)) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_verb_names_only_options_that_it_has() {
        Command::command().debug_assert();
    }
}
