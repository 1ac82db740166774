//! The check of a node's data folder: whether everything in it is what was written. It changes nothing, and
//! may run beside the node.

use super::output::{bar, columns, count, json, line};
use super::{Ended, Failed, Global, Outcome};
use crate::check::{CoreReport, Finding, check_core};
use crate::folder::{self, ReadOnlyFolder};
use clap::Args;
use evenkeel_dataplane::btree::finding::{Finding as TreeFinding, KeyText};
use evenkeel_wire::limits::BLOCK_BYTES;
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The data folder of a storage node, which holds node.toml.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// One core only.
    #[arg(long)]
    core: Option<u16>,
}

impl Check {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let folder = folder::open_read_only(&self.data)?;
        let cores = match self.core {
            Some(core) => vec![core],
            None => (0..folder.cores.len() as u16).collect(),
        };
        let progress = bar(0, "checking {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {msg}");
        let mut reports = Vec::new();
        for core in cores {
            progress.set_message(format!("core {core}"));
            progress.reset();
            reports.push(check_core(&folder, core, &mut |checked, all| {
                progress.set_length(all * BLOCK_BYTES as u64);
                progress.set_position(checked * BLOCK_BYTES as u64);
            })?);
        }
        progress.finish_and_clear();
        let damaged = reports.iter().any(|report| report.found() > 0);
        if global.json {
            let cores: Vec<Value> = reports.iter().map(core_json).collect();
            json(&json!({"clean": !damaged, "node": folder.node.0, "cores": cores}))?;
        } else {
            print(&folder, &reports)?;
        }
        Ok(if damaged { Ended::Unhealthy } else { Ended::Ok })
    }
}

fn bytes_of(blocks: u64) -> u64 {
    blocks * BLOCK_BYTES as u64
}

fn print(folder: &ReadOnlyFolder, reports: &[CoreReport]) -> Result<(), Failed> {
    let heads =
        ["core", "checkpoint", "partitions", "pages", "in use", "free", "lost", "items", "bytes", "findings"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for report in reports {
        let trees = &report.trees;
        rows.push(vec![
            format!("{}.{}", folder.node, report.core),
            if report.checkpoint == 0 { "none".to_owned() } else { report.checkpoint.to_string() },
            report.partitions.to_string(),
            count(trees.pages),
            HumanBytes(bytes_of(trees.blocks)).to_string(),
            HumanBytes(bytes_of(report.free)).to_string(),
            report.lost.map_or("unknown".to_owned(), |lost| HumanBytes(bytes_of(lost)).to_string()),
            count(trees.items),
            HumanBytes(trees.bytes).to_string(),
            count(report.found()),
        ]);
    }
    columns(&rows)?;
    line("")?;
    if reports.iter().any(|report| report.lost.is_some_and(|lost| lost > 0)) {
        line("lost space is no damage: the node gives it back when it runs")?;
    }
    if reports.iter().all(|report| report.found() == 0) {
        return line("clean");
    }
    line("damaged:")?;
    for report in reports {
        let name = format!("{}.{}", folder.node, report.core);
        for finding in &report.findings {
            line(&format!("  {name}: {finding}"))?;
        }
        let more = report.found() - report.findings.len() as u64;
        if more > 0 {
            line(&format!("  {name}: and {} more", count(more)))?;
        }
    }
    Ok(())
}

fn core_json(report: &CoreReport) -> Value {
    let findings: Vec<Value> = report.findings.iter().map(finding_json).collect();
    json!({
        "core": report.core.0, "checkpoint": report.checkpoint, "partitions": report.partitions,
        "pages": report.trees.pages, "blocks_live": report.trees.blocks, "blocks_free": report.free,
        "blocks_lost": report.lost, "items": report.trees.items, "bytes": report.trees.bytes,
        "found": report.found(), "findings": findings,
    })
}

fn finding_json(finding: &Finding) -> Value {
    let mut value = json!({"text": finding.to_string()});
    if let Finding::Tree(TreeFinding { partition, place, pointer, .. }) = finding {
        value["partition"] = json!(partition.0);
        value["low"] = json!(KeyText(&place.low).to_string());
        value["high"] = json!(KeyText(&place.high).to_string());
        value["block"] = json!(pointer.block);
    }
    value
}
