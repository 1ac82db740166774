//! A whole cluster in this process, to look at.

use super::load::{Loaded, Loading};
use super::output::{bar, count, line, say};
use super::start::show_messages;
use super::{Ended, Failed, Global, Outcome, client_of, failed, table};
use crate::local::{Cluster, temporary_folder};
use clap::Args;
use evenkeel_link::preflight;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep the data in this folder; without it, in a temporary one that is removed at the end.
    #[arg(long)]
    data: Option<PathBuf>,
    /// End after this time, as in 30s, 5m; without it, at ^C.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Load this file: items in DynamoDB JSON, one a line; also .gz.
    #[arg(long, requires = "table", requires = "key")]
    load: Option<PathBuf>,
    /// The table to load it into.
    #[arg(long)]
    table: Option<String>,
    /// That table's key: NAME:TYPE[,NAME:TYPE].
    #[arg(long, value_name = "PK:TYPE[,SK:TYPE]")]
    key: Option<String>,
    /// The router's port; 0: any free one.
    #[arg(long, default_value_t = 7400)]
    port: u16,
}

/// Reads a time with its unit: 500ms, 30s, 5m, 2h.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || format!("{text:?} is no time; write 100us, 500ms, 30s, 5m or 2h");
    for (unit, seconds) in units {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong());
        }
    }
    Err(wrong())
}

impl Demo {
    pub(super) fn run(self, _: &Global) -> Outcome {
        show_messages();
        preflight()?;
        // Signals are taken from here on, so that a temporary folder is removed whenever ^C comes.
        let signals = Signals::new([SIGINT, SIGTERM])?;
        let temporary = match &self.data {
            Some(_) => None,
            None => Some(temporary_folder("evenkeel-demo-")?),
        };
        let directory =
            self.data.clone().or_else(|| temporary.as_ref().map(|folder| folder.path().to_owned()));
        let directory = directory.ok_or_else(|| failed("there is no folder for the data"))?;
        let progress = bar(0, "formatting {bar:30} {bytes} of {total_bytes}");
        let started = Cluster::builder(&directory).port(self.port).start_with_progress(&mut |done, total| {
            progress.set_length(total);
            progress.set_position(done);
        });
        progress.finish_and_clear();
        let cluster = started?;
        self.introduce(&cluster, &directory)?;
        let outcome = self.load_file(&cluster).and_then(|()| wait(signals, self.time, &cluster));
        cluster.stop();
        drop(temporary);
        outcome
    }

    fn introduce(&self, cluster: &Cluster, directory: &std::path::Path) -> Result<(), Failed> {
        let endpoint = cluster.endpoint();
        line(&format!(
            "A cluster runs: 3 storage nodes in zones a, b and c, 2 MemDS servers, a router at {endpoint}"
        ))?;
        line(&format!("Its data is in {}", directory.display()))?;
        line("")?;
        line("Try, in another terminal:")?;
        line(&format!("  export EVENKEEL_ENDPOINT={endpoint}"))?;
        let table = self.table.as_deref().unwrap_or("users");
        if self.load.is_none() {
            line("  evenkeel table create users --key id:S")?;
            line("  evenkeel put users '{\"id\":{\"S\":\"ada\"},\"born\":{\"N\":\"1815\"}}'")?;
            line("  evenkeel get users '{\"id\":{\"S\":\"ada\"}}'")?;
        } else {
            line(&format!("  evenkeel table describe {table}"))?;
        }
        line(&format!("  evenkeel scan {table} --limit 3"))?;
        line("  evenkeel cluster status")?;
        line("")
    }

    fn load_file(&self, cluster: &Cluster) -> Result<(), Failed> {
        let (Some(file), Some(name), Some(key)) = (&self.load, &self.table, &self.key) else {
            return Ok(());
        };
        let client = client_of(&cluster.endpoint()).connect()?;
        let names = client.list_tables().send()?;
        if !names.contains(name) {
            table::create(&client, name, key)?.wait_until_active().send()?;
        }
        let loading = Loading { client, table: name.clone(), file: file.clone(), acknowledged: None };
        let Loaded { items, rate, .. } = loading.run()?;
        line(&format!(
            "{} items of {} are in table {name}, {} items/s",
            count(items),
            file.display(),
            count(rate)
        ))
    }
}

/// Waits for a signal, the time, or a fault.
#[allow(clippy::disallowed_methods, reason = "waiting is a door's work")]
fn wait(mut signals: Signals, time: Option<Duration>, cluster: &Cluster) -> Outcome {
    let step = Duration::from_millis(100);
    let mut left = time;
    match time {
        Some(time) => say(&format!("ending in {time:?}")),
        None => say("^C ends it"),
    }
    while left.is_none_or(|left| !left.is_zero()) {
        if signals.pending().next().is_some() {
            return Ok(Ended::Ok);
        }
        if let Some(ended) = cluster.ended().first() {
            return Err(failed(format!("{} has ended: {:?}", ended.name, ended.outcome)));
        }
        std::thread::sleep(step);
        left = left.map(|left| left.saturating_sub(step));
    }
    Ok(Ended::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("1.5m", 90_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["30", "s", "-1s", "1d", "NaNs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
