//! Putting load on a cluster, and measuring it.
//!
//! * [`run`]: one load. [`sweep`]: one after the other, until the knee is found. [`compare`]: what was
//!   measured before and after.
//! * [`setup`]: what the loads share. [`live`]: what is seen meanwhile. [`folder`]: reports on disk.
//! * [`bare`]: the disk alone, in the same run. [`servers`]: what the processes use. [`measured`]: all of it,
//!   as it is told. [`build`]: which program measured.

mod bare;
mod build;
mod compare;
mod folder;
mod live;
mod measured;
mod run;
mod servers;
mod setup;
mod sweep;

use super::{Failed, Global, Outcome};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Bench {
    #[command(subcommand)]
    more: Option<More>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum More {
    /// Are two sides of reports different, or by chance? Exit code 1 when the second is significantly worse.
    Compare(compare::Compare),
    /// Look for the highest rate that is served without a queue growing or the tail exploding.
    Sweep(Box<sweep::Sweep>),
}

impl Bench {
    pub(super) fn run(self, global: &Global) -> Outcome {
        match self.more {
            None => self.run.run(global),
            Some(More::Compare(compare)) => compare.run(global),
            Some(More::Sweep(sweep)) => sweep.run(global),
        }
    }
}
