//! One process, as its configuration says; and the formatting of its data folder.

use super::output::{bar, say};
use super::{Ended, Failed, Global, Outcome, failed};
use crate::config::Config;
use crate::folder;
use crate::process::Process;
use clap::Args;
use evenkeel_link::{Ended as MachineEnded, OnEnd, Outcome as MachineOutcome, preflight};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Args)]
pub(super) struct Start {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Format {
    /// The configuration file of the storage node.
    #[arg(long)]
    config: PathBuf,
}

impl Format {
    pub(super) fn run(self, _: &Global) -> Outcome {
        let config = Config::read(&self.config)?;
        let Some(storage) = &config.storage else {
            return Err(failed("this configuration has no [storage] to format"));
        };
        let node = config.cluster.nodes.iter().find(|node| node.id == storage.node);
        let cores = node.map_or(0, |node| node.cores.len());
        let progress =
            bar(folder::format_bytes(storage, cores), "formatting {bar:30} {bytes} of {total_bytes}");
        let formatted = folder::format(&config.cluster, storage, &mut |bytes| progress.set_position(bytes));
        progress.finish_and_clear();
        formatted?;
        say(&format!("{} is formatted for node {}", storage.data.display(), storage.node));
        Ok(Ended::Ok)
    }
}

/// Lets warnings and errors be seen; `RUST_LOG` says more.
pub(super) fn show_messages() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let colour =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    // In a test another one may be there already; then that one shows them.
    let _already_set = subscriber.try_init();
}

impl Start {
    pub(super) fn run(self, _: &Global) -> Outcome {
        show_messages();
        let config = Config::read(&self.config)?;
        preflight()?;
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        // A machine that ends unasked ends the wait for signals, and the process.
        let on_end = || -> OnEnd {
            let handle = handle.clone();
            Box::new(move |_| handle.close())
        };
        let process = Process::from_config(&config, &on_end)?;
        say(&format!("serving; configuration {}", self.config.display()));
        let asked = Arc::new(AtomicBool::new(false));
        for _ in signals.forever() {
            if asked.swap(true, Ordering::Relaxed) {
                // Asked twice: end at once.
                process.stop();
                break;
            }
            process.drain();
        }
        if !asked.load(Ordering::Relaxed) {
            // One machine could not go on. Its neighbours in this process end in good order.
            process.drain();
        }
        report(&process.join())
    }
}

/// How the machines of a process ended: a failure if one stopped itself.
fn report(ended: &[MachineEnded]) -> Result<Ended, Failed> {
    let halted: Vec<String> = ended
        .iter()
        .filter_map(|machine| match &machine.outcome {
            MachineOutcome::Halted(halt) => Some(format!("{}: {halt}", machine.name)),
            MachineOutcome::Drained | MachineOutcome::Stopped => None,
        })
        .collect();
    if halted.is_empty() { Ok(Ended::Ok) } else { Err(failed(halted.join("\n"))) }
}
