//! Checking the data folder of a storage node: superblocks, checkpoints, logs, and every page of every tree.
//!
//! Nothing is written and nothing is locked, so a node may serve the folder meanwhile. Then what is read can
//! change under the check: a finding counts only if the superblock is still the one that the check began
//! with. Otherwise it begins again.

use crate::files::ReadFiles;
use crate::folder::{FolderError, ReadOnlyFolder};
use bytes::Bytes;
use evenkeel_dataplane::btree::check::{Check, CheckStatus, CheckedTree, Depth};
use evenkeel_dataplane::btree::feed::Feed;
use evenkeel_dataplane::btree::finding::Finding as TreeFinding;
use evenkeel_dataplane::btree::merge::Progress;
use evenkeel_dataplane::btree::page::{PageFault, verify};
use evenkeel_dataplane::btree::pointer::PagePointer;
use evenkeel_dataplane::btree::version::Redirects;
use evenkeel_dataplane::checkpoint::chunk::ChunkPlace;
use evenkeel_dataplane::checkpoint::reader::{Advance, CheckpointReader};
use evenkeel_dataplane::checkpoint::sink::Image;
use evenkeel_dataplane::checkpoint::superblock::{SUPERBLOCK_FILE_BYTES, Superblock, SuperblockError};
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_dataplane::wal::record::{RecordBody, RecordError};
use evenkeel_dataplane::wal::recovery::{Damage, LogError, LogRecovery, Next};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::ids::CoreId;
use evenkeel_wire::turn::{DiskFault, File};
use std::fmt;
use thiserror::Error;

/// How often the check of a core begins again because a checkpoint ended meanwhile.
const ATTEMPTS: u32 = 5;
/// Pages that are looked at between two looks at the feed.
const PAGES_AT_ONCE: usize = 256;
/// Bytes of pages side by side that are read at once.
const READ_BYTES: usize = 512 * 1024;

/// Why a folder cannot be checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no such core.
    #[error("there is no core {core} in this folder; it has {cores}, the first is 0")]
    NoSuchCore {
        /// The one that was named.
        core: u16,
        /// How many there are.
        cores: usize,
    },
    /// A newer version wrote it.
    #[error("core {core}: {error}")]
    NewerSuperblock {
        /// The core.
        core: CoreId,
        /// In what way.
        error: SuperblockError,
    },
    /// The device refuses.
    #[error("core {core}: reading {file:?} failed: {fault}")]
    Disk {
        /// The core.
        core: CoreId,
        /// Which file.
        file: File,
        /// How.
        fault: DiskFault,
    },
    /// The node writes checkpoints faster than this reads them.
    #[error(
        "core {core}: a checkpoint ended during each of {ATTEMPTS} attempts, so what was found may have been \
         reused by then; check again when less is written, or stop the node first"
    )]
    Moved {
        /// The core.
        core: CoreId,
    },
}

/// Something that is damaged.
#[derive(Debug)]
pub enum Finding {
    /// Neither superblock is valid.
    NoSuperblock(SuperblockError),
    /// One of them is not.
    Superblock,
    /// A chunk of the checkpoint.
    Chunk(ChunkPlace),
    /// A record of the checkpoint, although its chunk is whole.
    Image(RecordError),
    /// A stretch of the log.
    Log(Damage),
    /// A record of the log, or its format.
    LogRecord(LogError),
    /// A page of a tree.
    Tree(TreeFinding),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refilled = "started, the node refills its replicas from its peers";
        match self {
            Self::NoSuperblock(error) => write!(f, "{error}"),
            Self::Superblock => write!(f, "one of the two superblocks is damaged; {refilled}"),
            Self::Chunk(ChunkPlace { file, index, offset, .. }) => {
                write!(f, "checkpoint file {file} is damaged at byte {offset} (chunk {index}); {refilled}")
            }
            Self::Image(error) => {
                write!(
                    f,
                    "a record of the checkpoint is malformed in a whole chunk: {error}; a bug wrote it, or "
                )?;
                write!(f, "a newer version: start that one, or format the node as a new member")
            }
            Self::Log(Damage { place, from, until }) => {
                let until = until.map_or("the end".to_owned(), |until| format!("before {until}"));
                let segment = place.at.segment;
                write!(
                    f,
                    "log segment {segment} is damaged at byte {}: writes {from} to {until} ",
                    place.offset
                )?;
                write!(f, "were durable and cannot be read; {refilled}")
            }
            Self::LogRecord(error) => write!(f, "{error}"),
            Self::Tree(finding) => write!(f, "{finding}"),
        }
    }
}

/// What a core's files hold.
#[derive(Debug, Default)]
pub struct CoreReport {
    /// The core.
    pub core: CoreId,
    /// The checkpoint that was checked; 0: none was ever written.
    pub checkpoint: u64,
    /// Partitions in it.
    pub partitions: usize,
    /// What was seen of their trees.
    pub trees: CheckStatus,
    /// Blocks that are not in use.
    pub free: u64,
    /// Blocks that are in use and that nothing reaches: space that the node gives back when it runs. None:
    /// unknown, because of damage.
    pub lost: Option<u64>,
    /// What is damaged. Very many findings in trees are cut off; all are counted.
    pub findings: Vec<Finding>,
}

impl CoreReport {
    /// How many findings there are.
    #[must_use]
    pub fn found(&self) -> u64 {
        let trees = self.findings.iter().filter(|finding| matches!(finding, Finding::Tree(_))).count();
        (self.findings.len() - trees) as u64 + self.trees.findings
    }
}

/// Checks a core. `progress` is told how many blocks are checked, and how many there are.
///
/// # Errors
/// [`CheckError`], when nothing can be said.
pub fn check_core(
    folder: &ReadOnlyFolder,
    core: u16,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CoreReport, CheckError> {
    let cores = folder.cores.len();
    let files = folder.cores.get(usize::from(core)).ok_or(CheckError::NoSuchCore { core, cores })?;
    let core = CoreId(core);
    check_files(files, LogIdentity { incarnation: folder.incarnation, core }, progress)
}

/// Checks the files of a core, wherever they are.
///
/// # Errors
/// [`CheckError`], when nothing can be said.
pub fn check_files(
    files: &dyn ReadFiles,
    identity: LogIdentity,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CoreReport, CheckError> {
    let core = identity.core;
    let reader = Reader { files, identity };
    let mut begun_with = reader.superblocks()?;
    for _ in 0..ATTEMPTS {
        let report = reader.check(&begun_with, progress)?;
        if report.findings.is_empty() {
            return Ok(report);
        }
        let now = reader.superblocks()?;
        if now == begun_with {
            return Ok(report);
        }
        begun_with = now;
    }
    Err(CheckError::Moved { core })
}

struct Reader<'a> {
    files: &'a dyn ReadFiles,
    identity: LogIdentity,
}

impl Reader<'_> {
    fn read(&self, file: File, offset: u64, bytes: usize) -> Result<AlignedBuffer, CheckError> {
        let mut buffer = AlignedBuffer::zeroed(bytes);
        let outcome = self.files.read_at(file, offset, &mut buffer);
        outcome.map_err(|fault| CheckError::Disk { core: self.identity.core, file, fault })?;
        Ok(buffer)
    }

    fn superblocks(&self) -> Result<Bytes, CheckError> {
        let blocks = self.read(File::Superblock, 0, SUPERBLOCK_FILE_BYTES)?;
        Ok(Bytes::copy_from_slice(&blocks))
    }

    /// Checks what the superblocks name.
    fn check(
        &self,
        superblocks: &[u8],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<CoreReport, CheckError> {
        let core = self.identity.core;
        let mut report = CoreReport { core, lost: Some(0), ..CoreReport::default() };
        let superblock = match Superblock::choose(superblocks, &self.identity) {
            Ok(superblock) => superblock,
            Err(error @ SuperblockError::NewerFormat { .. }) => {
                return Err(CheckError::NewerSuperblock { core, error });
            }
            Err(error @ SuperblockError::Invalid) => {
                report.findings.push(Finding::NoSuperblock(error));
                return Ok(report);
            }
        };
        if Superblock::is_damaged(superblocks, &self.identity) {
            report.findings.push(Finding::Superblock);
        }
        self.check_log(&superblock, &mut report)?;
        self.check_trees(&superblock, &mut report, progress)?;
        Ok(report)
    }

    /// Reads the log. What is still being written can look damaged once, and not twice.
    fn check_log(&self, superblock: &Superblock, report: &mut CoreReport) -> Result<(), CheckError> {
        let mut damage = match self.read_log(superblock)? {
            Ok(damage) => damage,
            Err(error) => {
                report.findings.push(Finding::LogRecord(error));
                return Ok(());
            }
        };
        if !damage.is_empty() {
            let again = self.read_log(superblock)?.unwrap_or_default();
            damage.retain(|damage| again.iter().any(|other| other.from == damage.from));
        }
        report.findings.extend(damage.into_iter().map(Finding::Log));
        Ok(())
    }

    fn read_log(&self, superblock: &Superblock) -> Result<Result<Vec<Damage>, LogError>, CheckError> {
        let Superblock { segments, segment_bytes, log_start, .. } = *superblock;
        let mut log = LogRecovery::new(self.identity, segments, segment_bytes, log_start);
        let mut read = None;
        loop {
            let next = log.next(read.take());
            log.records.clear();
            match next {
                Ok(Next::Read { segment, offset, bytes }) => {
                    let buffer = self.read(File::Segment(segment), offset, bytes)?;
                    read = Some((segment, offset, Bytes::copy_from_slice(&buffer)));
                }
                Ok(Next::Done(log)) => return Ok(Ok(log.damage)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn check_trees(
        &self,
        superblock: &Superblock,
        report: &mut CoreReport,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), CheckError> {
        let Some(name) = superblock.checkpoint else {
            return Ok(());
        };
        report.checkpoint = superblock.sequence;
        let mut reader = CheckpointReader::new(name, superblock.sequence);
        loop {
            match reader.advance(&self.identity) {
                Ok(Advance::Read { offset, bytes }) => {
                    let buffer = self.read(reader.file(), offset, bytes)?;
                    reader.take(offset, Bytes::copy_from_slice(&buffer));
                }
                Ok(Advance::Complete) => break,
                Ok(Advance::Damaged) => {
                    report.lost = None;
                    report.findings.push(Finding::Chunk(reader.place()));
                    return Ok(());
                }
                Err(error) => {
                    report.lost = None;
                    report.findings.push(Finding::Image(error));
                    return Ok(());
                }
            }
        }
        let image = reader.finish();
        let trees = image.complete.iter().filter_map(|Image { group, state, .. }| match &group.body {
            RecordBody::State(of) => Some(CheckedTree {
                partition: group.partition,
                start: of.config.start.clone(),
                end: of.config.end.clone(),
                version: *state.tree.version(),
            }),
            RecordBody::Entry(_) | RecordBody::Promise | RecordBody::Supersede(_) | RecordBody::Removed => {
                None
            }
        });
        let trees: Vec<CheckedTree> = trees.collect();
        report.partitions = trees.len();
        let in_use = count(&image.space);
        let mut check = Check::new(trees, image.space, Depth::Everything);
        self.read_trees(&mut check, in_use, progress);
        report.trees = check.status();
        report.lost = check.lost().map(|lost| count(&lost));
        report.findings.extend(std::mem::take(&mut check.findings).into_iter().map(Finding::Tree));
        let file_blocks = self.files.tree_blocks().map_err(|fault| CheckError::Disk {
            core: self.identity.core,
            file: File::Tree,
            fault,
        })?;
        report.free = file_blocks.saturating_sub(in_use);
        Ok(())
    }

    fn read_trees(&self, check: &mut Check, in_use: u64, progress: &mut dyn FnMut(u64, u64)) {
        let mut feed = Feed::default();
        while check.advance(&mut feed, None, &Redirects::default(), PAGES_AT_ONCE) != Progress::Done {
            let mut wanted: Vec<PagePointer> = std::iter::from_fn(|| feed.take_wanted()).collect();
            wanted.sort_by_key(|pointer| pointer.block);
            let mut rest = &wanted[..];
            while !rest.is_empty() {
                let (together, later) = rest.split_at(side_by_side(rest));
                self.read_pages(together, &mut feed, check);
                rest = later;
            }
            progress(check.status().blocks, in_use);
        }
    }

    /// Reads pages that lie side by side.
    fn read_pages(&self, pages: &[PagePointer], feed: &mut Feed, check: &mut Check) {
        let bytes = pages.iter().map(PagePointer::bytes).sum();
        let mut buffer = AlignedBuffer::zeroed(bytes);
        let outcome = self.files.read_at(File::Tree, pages[0].offset(), &mut buffer);
        if outcome.is_err() && pages.len() > 1 {
            // One of them is unreadable.
            return pages.iter().for_each(|page| self.read_pages(std::slice::from_ref(page), feed, check));
        }
        let mut start = 0;
        for pointer in pages {
            let end = start + pointer.bytes();
            let page = &buffer[start.min(buffer.len())..end.min(buffer.len())];
            let verified = match outcome {
                Ok(()) => verify(page, &self.identity, pointer).map(|_| ()),
                Err(fault) => Err(PageFault::Disk(fault)),
            };
            match verified {
                Ok(()) => feed.arrived(pointer, AlignedBuffer::copy_of(page)),
                Err(fault) => {
                    feed.failed(pointer);
                    check.failed(pointer, fault, &Redirects::default());
                }
            }
            start = end;
        }
    }
}

/// How many of the first pages, which ascend, lie side by side and are read at once.
fn side_by_side(pages: &[PagePointer]) -> usize {
    let (mut end, mut bytes, mut count) = (pages[0].block, 0, 0);
    for pointer in pages {
        bytes += pointer.bytes();
        if pointer.block != end || (count > 0 && bytes > READ_BYTES) {
            break;
        }
        end += u64::from(pointer.blocks);
        count += 1;
    }
    count
}

fn count(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}
