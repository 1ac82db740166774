//! Loading a file into a table.
//!
//! Several threads write, each with many requests under way. Every line whose item is acknowledged is noted
//! in a file, so that a load that was interrupted goes on where it stopped: run the same command again.

use super::output::{bar, count, line, say};
use super::{Ended, Failed, Global, Outcome, failed};
use clap::Args;
use evenkeel_client::json::parse_line;
use evenkeel_client::{Client, Error, Item, Submitted};
use evenkeel_wire::table::TableDescriptor;
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Threads that write.
const WRITERS: usize = 4;
/// Requests under way per writer.
const UNDER_WAY: usize = 64;
/// Lines on their way to a writer.
const LINES_WAITING: usize = 1024;

#[derive(Debug, Args)]
pub(super) struct Load {
    /// The table.
    table: String,
    /// The file: items in DynamoDB JSON, one a line; also .gz.
    file: PathBuf,
    /// Note acknowledged lines here, and skip those that are noted; "none": note nothing. By default a file
    /// in the present folder, named after file and table, that goes when the load is complete.
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,
}

/// A load that is about to run.
pub(super) struct Loading {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) file: PathBuf,
    /// Where acknowledged lines are noted, if anywhere.
    pub(super) acknowledged: Option<PathBuf>,
}

/// What a load did.
pub(super) struct Loaded {
    /// Items written by this run.
    pub(super) items: u64,
    /// Items that an earlier run had written.
    pub(super) skipped: u64,
    /// Items a second.
    pub(super) rate: u64,
}

impl Load {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let (acknowledged, keep) = match self.acknowledged {
            Some(path) if path.as_os_str() == "none" => (None, true),
            Some(path) => (Some(path), true),
            None => (Some(default_notes(&self.file, &self.table)), false),
        };
        let client = global.connect()?;
        let notes = acknowledged.clone();
        let loading = Loading { client, table: self.table.clone(), file: self.file.clone(), acknowledged };
        let Loaded { items, skipped, rate } = loading.run()?;
        if global.json {
            super::output::json(&json!({"items": items, "skipped": skipped, "items_per_second": rate}))?;
        } else {
            let before =
                if skipped > 0 { format!(" ({} were there before)", count(skipped)) } else { String::new() };
            line(&format!(
                "{} items loaded into {}{before}, {} items/s",
                count(items),
                self.table,
                count(rate)
            ))?;
        }
        match notes {
            Some(notes) if keep => say(&format!("acknowledged lines are noted in {}", notes.display())),
            Some(notes) => std::fs::remove_file(notes)?,
            None => {}
        }
        Ok(Ended::Ok)
    }
}

fn default_notes(file: &Path, table: &str) -> PathBuf {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    PathBuf::from(format!("{name}.{table}.acknowledged"))
}

/// What the threads of a load share.
struct Shared {
    table: TableDescriptor,
    notes: Mutex<Option<BufWriter<File>>>,
    done: AtomicU64,
    progress: ProgressBar,
    stop: AtomicBool,
    failure: Mutex<Option<Failed>>,
}

/// A line to be written.
struct Line {
    number: u64,
    item: Item,
}

impl Loading {
    /// Loads the file.
    pub(super) fn run(self) -> Result<Loaded, Failed> {
        let table = self.client.describe_table(&self.table).send()?;
        let (source, length) = open(&self.file)?;
        let (noted, notes) = match &self.acknowledged {
            Some(path) => {
                let (noted, notes) = open_notes(path, &title(&table, length))?;
                (noted, Some(notes))
            }
            None => (HashSet::new(), None),
        };
        let progress = bar(length, "{bar:30} {percent}%, {msg}, {eta} left");
        let shared = Arc::new(Shared {
            table,
            notes: Mutex::new(notes),
            done: AtomicU64::new(0),
            progress,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let skipped = std::thread::scope(|scope| {
            let mut senders = Vec::new();
            for _ in 0..WRITERS {
                let (sender, receiver) = sync_channel(LINES_WAITING);
                senders.push(sender);
                let (shared, client, table) = (Arc::clone(&shared), self.client.clone(), self.table.clone());
                scope.spawn(move || {
                    if let Err(error) = write(&client, &table, &receiver, &shared) {
                        shared.fail(error);
                    }
                });
            }
            self.read(source, &noted, &senders, &shared)
        });
        shared.flush_notes()?;
        let seconds = shared.progress.elapsed().as_secs_f64().max(0.001);
        shared.progress.finish_and_clear();
        if let Some(failure) = shared.failure.lock().expect("no writer panicked").take() {
            let done = count(shared.done.load(Ordering::Relaxed));
            let again =
                if self.acknowledged.is_some() { "; run the same command again to go on" } else { "" };
            return Err(failed(format!("{}\n{done} items were acknowledged before{again}", failure.0)));
        }
        let items = shared.done.load(Ordering::Relaxed);
        Ok(Loaded { items, skipped: skipped?, rate: (items as f64 / seconds) as u64 })
    }

    /// Reads lines and hands them to the writers, in turn. Returns how many were skipped.
    fn read(
        &self,
        source: Source,
        noted: &HashSet<u64>,
        senders: &[SyncSender<Line>],
        shared: &Shared,
    ) -> Result<u64, Failed> {
        let consumed = Arc::clone(&source.consumed);
        let mut skipped = 0;
        for (number, text) in (1..).zip(BufReader::new(source).lines()) {
            let text = text.map_err(|error| failed(format!("{}: {error}", self.file.display())))?;
            if shared.stop.load(Ordering::Relaxed) {
                break;
            }
            if noted.contains(&number) {
                skipped += 1;
                continue;
            }
            if text.trim().is_empty() {
                continue;
            }
            let item = parse_line(&text);
            let item = item.map_err(|error| {
                shared.stop.store(true, Ordering::Relaxed);
                failed(format!("{}:{number}: {error}", self.file.display()))
            })?;
            if senders[number as usize % senders.len()].send(Line { number, item }).is_err() {
                break;
            }
            shared.progress.set_position(consumed.load(Ordering::Relaxed));
        }
        Ok(skipped)
    }
}

impl Shared {
    fn fail(&self, failure: Failed) {
        self.stop.store(true, Ordering::Relaxed);
        self.failure.lock().expect("no writer panicked").get_or_insert(failure);
    }

    /// A line is acknowledged: it is noted with its key, for whoever wants to check.
    fn acknowledge(&self, number: u64, key: &str) -> Result<(), Failed> {
        if let Some(notes) = &mut *self.notes.lock().expect("no writer panicked") {
            writeln!(notes, "{number} {key}")?;
            // A line that is noted was acknowledged; one that is acknowledged and not noted is written again,
            // which changes nothing. So notes may be late, but not by much: every few hundred are handed to
            // the system.
            if number.is_multiple_of(64) {
                notes.flush()?;
            }
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(256) {
            let rate = done as f64 / self.progress.elapsed().as_secs_f64().max(0.001);
            self.progress.set_message(format!("{} items, {} items/s", count(done), count(rate as u64)));
        }
        Ok(())
    }

    fn flush_notes(&self) -> Result<(), Failed> {
        match &mut *self.notes.lock().expect("no writer panicked") {
            Some(notes) => Ok(notes.flush()?),
            None => Ok(()),
        }
    }

    fn key_of(&self, item: &Item) -> String {
        let attributes = self.table.schema.attributes();
        let key = attributes.fold(Item::new(), |key, attribute| match item.get(&attribute.name) {
            Some(value) => key.with(attribute.name.clone(), value.clone()),
            None => key,
        });
        evenkeel_client::json::to_json(&key)
    }
}

type Written = Submitted<evenkeel_client::protocol::operation::WriteOutput>;

/// A writer: keeps many puts under way on one connection.
fn write(client: &Client, table: &str, lines: &Receiver<Line>, shared: &Shared) -> Result<(), Failed> {
    let mut pipeline = client.pipeline()?;
    let mut under_way: VecDeque<(u64, String, Written)> = VecDeque::new();
    loop {
        let line = lines.recv().ok();
        let end = line.is_none();
        if let Some(Line { number, item }) = line {
            let key = shared.key_of(&item);
            under_way.push_back((number, key, pipeline.submit(client.put(table, item))));
        }
        while under_way.len() >= UNDER_WAY || (end && !under_way.is_empty()) {
            let (number, key, submitted) = under_way.pop_front().expect("it is not empty");
            match pipeline.collect(submitted) {
                Ok(_) => shared.acknowledge(number, &key)?,
                Err(error) => return Err(named(number, &error)),
            }
        }
        if end || shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

fn named(number: u64, error: &Error) -> Failed {
    failed(format!("line {number}: {error}"))
}

/// The first line of a file of notes: it is about this table, as long as it lives, and this file.
fn title(table: &TableDescriptor, bytes: u64) -> String {
    let TableDescriptor { id, hash_key, created_ms, .. } = table;
    let life: String = hash_key.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("# table {} of {created_ms}, {life}; a file of {bytes} bytes", id.0)
}

/// Opens a file of notes. Returns the numbers of the lines that an earlier run has noted, and where to note
/// more. A last line that was torn by a crash does not count, and notes about another table or another file
/// do not: they are dropped.
fn open_notes(path: &Path, title: &str) -> Result<(HashSet<u64>, BufWriter<File>), Failed> {
    let named = |error: std::io::Error| failed(format!("{}: {error}", path.display()));
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(named)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(named)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut lines = text[..whole].lines();
    let same = lines.next() == Some(title);
    if !same && !text.is_empty() {
        say(&format!("{} is about another table or file: it is begun anew", path.display()));
    }
    file.set_len(if same { whole as u64 } else { 0 }).map_err(named)?;
    file.seek(SeekFrom::End(0)).map_err(named)?;
    let mut notes = BufWriter::new(file);
    if !same {
        writeln!(notes, "{title}").map_err(named)?;
        return Ok((HashSet::new(), notes));
    }
    Ok((lines.filter_map(|line| line.split(' ').next()?.parse().ok()).collect(), notes))
}

/// The bytes of a file, unpacked if its name ends with .gz, with a count of how many of its own were read.
struct Source {
    inner: Box<dyn Read>,
    consumed: Arc<AtomicU64>,
}

struct Counted {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.consumed.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}

fn open(path: &Path) -> Result<(Source, u64), Failed> {
    let named = |error: std::io::Error| failed(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(named)?;
    let length = file.metadata().map_err(named)?.len();
    let consumed = Arc::new(AtomicU64::new(0));
    let counted = Counted { file, consumed: Arc::clone(&consumed) };
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let inner: Box<dyn Read> =
        if packed { Box::new(MultiGzDecoder::new(counted)) } else { Box::new(counted) };
    Ok((Source { inner, consumed }, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLE: &str = "# a table and a file";

    /// What a run finds that opens these notes, and what is in the file once it has noted line 9.
    fn reopened(notes: &str, title: &str) -> (Vec<u64>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, notes).unwrap();
        let (noted, mut more) = open_notes(&path, title).unwrap();
        writeln!(more, "9 key").unwrap();
        drop(more);
        let mut noted: Vec<u64> = noted.into_iter().collect();
        noted.sort_unstable();
        (noted, std::fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn a_torn_last_line_was_not_noted_and_does_not_become_another() {
        let (noted, text) = reopened(&format!("{TITLE}\n1 a\n12 b\n123"), TITLE);
        assert_eq!(noted, [1, 12]);
        assert_eq!(text, format!("{TITLE}\n1 a\n12 b\n9 key\n"));
    }

    #[test]
    fn notes_about_another_table_or_none_at_all_are_begun_anew() {
        for notes in ["", "# a table", "# another table\n1 a\n", "1 a\n2 b\n"] {
            assert_eq!(reopened(notes, TITLE), (vec![], format!("{TITLE}\n9 key\n")), "{notes:?}");
        }
    }
}
