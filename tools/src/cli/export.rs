//! Exporting a table.

use super::output::{bar, count, keep_moving, say};
use super::{Ended, Failed, Global, Outcome};
use clap::Args;
use evenkeel_client::json::append_json;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The table.
    table: String,
    /// Take what any replica has: it can be a little old.
    #[arg(long)]
    eventual: bool,
}

impl Export {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let client = global.connect()?;
        let mut request = client.scan(&self.table);
        if self.eventual {
            request = request.eventual();
        }
        let progress = bar(0, "{spinner} {pos} items, {per_sec}");
        keep_moving(&progress);
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut text = String::new();
        let mut items: u64 = 0;
        for page in request.pages() {
            for item in page?.items {
                text.clear();
                append_json(&item, &mut text);
                text.push('\n');
                write(&mut out, &text)?;
                items += 1;
            }
            progress.set_position(items);
        }
        out.flush()?;
        progress.finish_and_clear();
        say(&format!("{} items", count(items)));
        Ok(Ended::Ok)
    }
}

/// A reader that has gone away is no error.
fn write(out: &mut impl Write, text: &str) -> Result<(), Failed> {
    match out.write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(error.into()),
    }
}
