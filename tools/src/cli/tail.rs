//! `evenkeel tail`: why the slow requests were slow.

use super::output::{json, line, say};
use super::{Ended, Failed, Global, Outcome, failed};
use crate::tail::report::Report;
use crate::tail::sample::Sample;
use crate::tail::{html, words};
use clap::Args;
use evenkeel_client::Client;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::message::tail::{TailAnswer, Trace};
use std::path::PathBuf;
use std::time::Duration;

/// How long a router may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Look at the requests of this time from now on: 30s, 5m. Without it, at what routers remember: the last
    /// sixty seconds with requests.
    #[arg(long = "for", value_name = "TIME", value_parser = super::demo::duration)]
    time: Option<Duration>,
    /// Percentiles to explain. From 90 on, everything above counts.
    #[arg(long, value_delimiter = ',', default_values_t = [50.0, 99.0, 99.9])]
    percentiles: Vec<f64>,
    /// Only requests to this table.
    #[arg(long)]
    table: Option<String>,
    /// Only requests to this partition, by its number.
    #[arg(long)]
    partition: Option<u64>,
    /// Only reads, or only writes.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// How many of the slowest requests to list.
    #[arg(long, default_value_t = 10)]
    slowest: usize,
    /// Write an HTML page with pictures there, too.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    Reads,
    Writes,
}

impl Tail {
    pub(super) fn run(self, global: &Global) -> Outcome {
        if self.percentiles.iter().any(|percentile| !(0.0..100.0).contains(percentile)) {
            return Err(failed("percentiles lie between 0 and 100"));
        }
        let client = global.connect()?;
        let routers: Vec<String> =
            client.topology().send()?.routers.iter().map(ToString::to_string).collect();
        let table = match &self.table {
            Some(name) => Some(client.describe_table(name.as_str()).send()?.id),
            None => None,
        };
        let from = match self.time {
            Some(time) => wait(&client, &routers, time)?,
            None => vec![0; routers.len()],
        };
        let mut intervals = Vec::new();
        let mut silent = Vec::new();
        for (router, from) in routers.iter().zip(from) {
            match ask(&client, router, from) {
                Ok(of_router) => intervals.extend(of_router),
                Err(error) => silent.push(format!("router {router} is not in this: {error}")),
            }
        }
        silent.iter().for_each(|silence| say(silence));
        if silent.len() == routers.len() {
            return Err(failed("no router of the cluster answers"));
        }
        let wanted = |trace: &Trace| {
            let of_kind = self.only.is_none_or(|only| is_write(trace) == (only == Only::Writes));
            let of_table = table.is_none_or(|table| trace.table == table);
            of_kind && of_table && self.partition.is_none_or(|number| trace.partition.0 == number)
        };
        let sample = Sample::of(&intervals, wanted);
        let Some(report) = Report::of(&sample, &self.percentiles, self.slowest) else {
            return Err(failed("routers remember no such request; put load on the cluster and ask again"));
        };
        if let Some(path) = &self.out {
            let about = format!("{} of {} routers", routers.len() - silent.len(), routers.len());
            std::fs::write(path, html::page(&report, &about))
                .map_err(|error| failed(format!("{} cannot be written: {error}", path.display())))?;
        }
        if global.json {
            json(&words::to_json(&report))?;
        } else {
            words::lines(&report).iter().try_for_each(|text| line(text))?;
        }
        Ok(Ended::Ok)
    }
}

fn is_write(trace: &Trace) -> bool {
    [Kind::Put, Kind::Update, Kind::Delete].iter().any(|kind| *kind as u16 == trace.kind)
}

/// Lets time pass, and returns for each router the interval to begin with.
#[allow(clippy::disallowed_methods, reason = "waiting is a door's work")]
fn wait(client: &Client, routers: &[String], time: Duration) -> Result<Vec<u64>, Failed> {
    let newest = |router: &String| -> u64 {
        let answers = ask(client, router, 0).unwrap_or_default();
        answers.last().map_or(0, |newest| newest.interval)
    };
    let from = routers.iter().map(|router| newest(router) + 1).collect();
    std::thread::sleep(time);
    Ok(from)
}

/// All that a router remembers, from an interval on.
fn ask(client: &Client, router: &str, mut from: u64) -> Result<Vec<TailAnswer>, evenkeel_client::Error> {
    let mut answers = Vec::new();
    loop {
        let answer = client.tail_of(router, from).deadline(ANSWER_WITHIN).send()?;
        if answer.interval == 0 {
            return Ok(answers);
        }
        let (more, next) = (answer.more, answer.interval + 1);
        answers.push(answer);
        if !more {
            return Ok(answers);
        }
        from = next;
    }
}
