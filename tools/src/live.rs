//! What in a core's files matters: the bytes that a start, a read or a repair would need.
//!
//! Superblocks, chunks of the checkpoint, pages of the trees' present versions, and of the log the writes
//! that a later one calls durable. What is *not* listed may be anything: free blocks, what recycled segments
//! held before, zeros behind what was written, and the last write of a log, which nothing tells from a torn
//! one.

use crate::files::ReadFiles;
use bytes::Bytes;
use evenkeel_dataplane::btree::leaf::{LeafView, Value};
use evenkeel_dataplane::btree::lookup::Place as TreePlace;
use evenkeel_dataplane::btree::node::NodeView;
use evenkeel_dataplane::btree::page::{PageKind, verify};
use evenkeel_dataplane::btree::pointer::PagePointer;
use evenkeel_dataplane::checkpoint::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkPlace};
use evenkeel_dataplane::checkpoint::image::ImageRecord;
use evenkeel_dataplane::checkpoint::superblock::{CheckpointName, SUPERBLOCK_FILE_BYTES, Superblock};
use evenkeel_dataplane::wal::block::{CameFrom, LogIdentity, WRITE_HEADER_BYTES, WriteHeader};
use evenkeel_dataplane::wal::record::{Record, RecordBody};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::ids::{Lsn, PartitionId};
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::File;

/// Bytes of a superblock that say something.
const SUPERBLOCK_BYTES: u64 = 132;

/// What bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The root of a tree.
    Root,
    /// A node below a root.
    Node,
    /// A leaf.
    Leaf,
    /// An overflow run.
    Run,
    /// The superblock that counts.
    Superblock,
    /// The one before it.
    OlderSuperblock,
    /// The header of a checkpoint's chunk.
    ChunkHeader,
    /// Records of partitions in a checkpoint: groups, tokens, resident items.
    ChunkImage,
    /// The bitmap of the trees' blocks in a checkpoint.
    ChunkBitmap,
    /// The header of a log write that says where the log came from.
    LogLink,
    /// The header of any other log write with records.
    LogHeader,
    /// A log write without records, that only says what is durable.
    LogWatermark,
    /// An entry in the log.
    LogEntry,
    /// A promise in the log.
    LogPromise,
    /// A record in the log that voids entries.
    LogSupersede,
    /// The state of a group in the log.
    LogState,
    /// The removal of a group in the log.
    LogRemoved,
}

impl Part {
    /// Every one, in the order of tables.
    pub const ALL: [Self; 17] = [
        Self::Root,
        Self::Node,
        Self::Leaf,
        Self::Run,
        Self::Superblock,
        Self::OlderSuperblock,
        Self::ChunkHeader,
        Self::ChunkImage,
        Self::ChunkBitmap,
        Self::LogLink,
        Self::LogHeader,
        Self::LogWatermark,
        Self::LogEntry,
        Self::LogPromise,
        Self::LogSupersede,
        Self::LogState,
        Self::LogRemoved,
    ];

    /// Whether it is a page of a tree, which is read when it is needed; the others are read at a start.
    #[must_use]
    pub fn is_page(self) -> bool {
        matches!(self, Self::Root | Self::Node | Self::Leaf | Self::Run)
    }
}

/// Bytes that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// What they are.
    pub part: Part,
    /// In which file.
    pub file: File,
    /// The first of them.
    pub at: u64,
    /// How many.
    pub bytes: u64,
    /// For a page: whose it is, and what it is there for.
    pub page: Option<LivePage>,
}

/// A page of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePage {
    /// Whose tree.
    pub partition: PartitionId,
    /// The page.
    pub pointer: PagePointer,
    /// The leaf or node that is repaired when it is damaged.
    pub place: TreePlace,
    /// The keys that cannot be read without it.
    pub low: Vec<u8>,
    /// The first key beyond them; empty: there is none.
    pub high: Vec<u8>,
}

/// All of a core's files that matters. Nothing may be damaged, and nobody may write meanwhile.
///
/// # Errors
/// What is not as it should be.
pub fn live(files: &dyn ReadFiles, identity: &LogIdentity) -> Result<Vec<Live>, String> {
    let mut lister = Lister { files, identity: *identity, found: Vec::new() };
    let superblock = lister.superblocks()?;
    if let Some(name) = superblock.checkpoint {
        lister.checkpoint(name, superblock.sequence)?;
    }
    lister.log(&superblock)?;
    Ok(lister.found)
}

struct Lister<'a> {
    files: &'a dyn ReadFiles,
    identity: LogIdentity,
    found: Vec<Live>,
}

impl Lister<'_> {
    fn read(&self, file: File, offset: u64, bytes: usize) -> Result<AlignedBuffer, String> {
        let mut buffer = AlignedBuffer::zeroed(bytes);
        self.files.read_at(file, offset, &mut buffer).map_err(|fault| format!("{file:?}: {fault}"))?;
        Ok(buffer)
    }

    fn add(&mut self, part: Part, file: File, at: u64, bytes: u64) {
        self.found.push(Live { part, file, at, bytes, page: None });
    }

    fn superblocks(&mut self) -> Result<Superblock, String> {
        let blocks = self.read(File::Superblock, 0, SUPERBLOCK_FILE_BYTES)?;
        let chosen = Superblock::choose(&blocks, &self.identity).map_err(|error| error.to_string())?;
        for (block, at) in blocks.chunks(BLOCK_BYTES).zip([0, BLOCK_BYTES as u64]) {
            let part = if at == chosen.offset() { Part::Superblock } else { Part::OlderSuperblock };
            if block.iter().any(|byte| *byte != 0) {
                self.add(part, File::Superblock, at, SUPERBLOCK_BYTES);
            }
        }
        Ok(chosen)
    }

    fn checkpoint(&mut self, name: CheckpointName, sequence: u64) -> Result<(), String> {
        let file = File::Checkpoint(name.file);
        let mut offset = 0;
        for index in 0..name.chunks {
            let place = ChunkPlace { file: name.file, checkpoint: sequence, index, offset };
            let block = self.read(file, offset, BLOCK_BYTES)?;
            let header = ChunkHeader::decode(&block, &self.identity, &place);
            let (header, _) = header.ok_or_else(|| format!("chunk {index} is damaged"))?;
            self.add(Part::ChunkHeader, file, offset, CHUNK_HEADER_BYTES as u64);
            let chunk = self.read(file, offset, header.disk_bytes())?;
            let mut at = offset + CHUNK_HEADER_BYTES as u64;
            let mut left =
                Bytes::copy_from_slice(&chunk[CHUNK_HEADER_BYTES..]).split_to(header.payload_bytes as usize);
            while !left.is_empty() {
                let before = left.len();
                let record = ImageRecord::take(&mut left).map_err(|error| error.to_string())?;
                let bytes = (before - left.len()) as u64;
                let is_space = matches!(record, ImageRecord::Space { .. });
                self.add(if is_space { Part::ChunkBitmap } else { Part::ChunkImage }, file, at, bytes);
                at += bytes;
                if let ImageRecord::Begin { group, version, .. } = record
                    && let (Some(root), RecordBody::State(state)) = (version.root, &group.body)
                {
                    let (low, high) = (state.config.start.clone(), state.config.end.clone());
                    self.tree(group.partition, TreePlace { unit: root, level: None, low, high })?;
                }
            }
            offset += header.disk_bytes() as u64;
        }
        Ok(())
    }

    fn tree(&mut self, partition: PartitionId, root: TreePlace) -> Result<(), String> {
        let mut left = vec![root];
        while let Some(place) = left.pop() {
            let page = self.page(&place.unit)?;
            let header = verify(&page, &self.identity, &place.unit).map_err(|fault| fault.to_string())?;
            let part = match (place.level, header.content.kind) {
                (None, _) => Part::Root,
                (Some(_), PageKind::Node) => Part::Node,
                (Some(_), PageKind::Leaf | PageKind::Overflow) => Part::Leaf,
            };
            let (low, high) = (place.low.clone(), place.high.clone());
            self.add_page(part, LivePage { partition, pointer: place.unit, place: place.clone(), low, high });
            if header.content.kind == PageKind::Node {
                let children = NodeView::new(&page).to_children();
                for (number, child) in children.iter().enumerate() {
                    let low = if number == 0 { &place.low } else { &child.separator };
                    let high = children.get(number + 1).map_or(&place.high, |next| &next.separator);
                    let (low, high) = (low.clone(), high.clone());
                    let level = Some(header.content.level - 1);
                    left.push(TreePlace { unit: child.pointer, level, low, high });
                }
                continue;
            }
            let leaf = LeafView::new(&page);
            for cell in (0..leaf.cells()).map(|number| leaf.cell(number)) {
                if let Value::Overflow { run, .. } = cell.value {
                    let low = [leaf.prefix(), cell.key_rest].concat();
                    let high = [&low[..], &[0]].concat();
                    let page = LivePage { partition, pointer: run, place: place.clone(), low, high };
                    self.add_page(Part::Run, page);
                }
            }
        }
        Ok(())
    }

    fn page(&self, pointer: &PagePointer) -> Result<AlignedBuffer, String> {
        self.read(File::Tree, pointer.offset(), pointer.bytes())
    }

    fn add_page(&mut self, part: Part, page: LivePage) {
        let (at, bytes) = (page.pointer.offset(), page.pointer.bytes() as u64);
        self.found.push(Live { part, file: File::Tree, at, bytes, page: Some(page) });
    }

    fn log(&mut self, superblock: &Superblock) -> Result<(), String> {
        let writes = self.log_writes(superblock)?;
        let durable = writes.iter().map(|write| write.durable_through).max().unwrap_or_default();
        for write in writes.iter().filter(|write| write.lsn <= durable) {
            let (file, offset) = (File::Segment(write.place.at.segment), write.place.offset);
            let part = match (write.came_from, write.records) {
                (Some(_), _) => Part::LogLink,
                (None, 0) => Part::LogWatermark,
                (None, _) => Part::LogHeader,
            };
            self.add(part, file, offset, WRITE_HEADER_BYTES as u64);
            let bytes = self.read(file, offset, write.disk_bytes() as usize)?;
            let mut left =
                Bytes::copy_from_slice(&bytes[WRITE_HEADER_BYTES..]).split_to(write.payload_bytes as usize);
            let mut at = offset + WRITE_HEADER_BYTES as u64;
            while !left.is_empty() {
                let before = left.len();
                let record = Record::take(&mut left).map_err(|error| error.to_string())?;
                let part = match record.body {
                    RecordBody::Entry(_) => Part::LogEntry,
                    RecordBody::Promise => Part::LogPromise,
                    RecordBody::Supersede(_) => Part::LogSupersede,
                    RecordBody::State(_) => Part::LogState,
                    RecordBody::Removed => Part::LogRemoved,
                };
                let bytes = (before - left.len()) as u64;
                self.add(part, file, at, bytes);
                at += bytes;
            }
        }
        Ok(())
    }

    /// The headers of the log's writes, in their order.
    fn log_writes(&self, superblock: &Superblock) -> Result<Vec<WriteHeader>, String> {
        let mut heads = Vec::new();
        for segment in 0..superblock.segments {
            heads.extend(self.log_write(segment, 0)?.filter(|head| head.came_from.is_some()));
        }
        let nowhere = |head: &&WriteHeader| head.came_from == Some(CameFrom::Nowhere);
        let begin = superblock.log_start.place.or_else(|| heads.iter().find(nowhere).map(|head| head.place));
        let mut writes: Vec<WriteHeader> = Vec::new();
        let Some(mut place) = begin else {
            return Ok(writes);
        };
        let mut last = Lsn(superblock.log_start.lsn.0 - 1);
        loop {
            let links = |head: &WriteHeader| head.came_from == Some(CameFrom::End(place)) && head.lsn > last;
            let here = if place.offset < superblock.segment_bytes {
                self.log_write(place.at.segment, place.offset)?
            } else {
                None
            };
            let here =
                here.filter(|write| write.place == place && (write.lsn == last.next() || links(write)));
            let elsewhere = heads.iter().filter(|head| links(head)).copied();
            let Some(write) = here.into_iter().chain(elsewhere).max_by_key(|write| write.lsn) else {
                return Ok(writes);
            };
            (last, place) = (write.lsn, write.end());
            writes.push(write);
        }
    }

    fn log_write(&self, segment: u32, offset: u64) -> Result<Option<WriteHeader>, String> {
        let block = self.read(File::Segment(segment), offset, BLOCK_BYTES)?;
        Ok(WriteHeader::decode(&block, &self.identity, segment, offset).ok().map(|(header, _)| header))
    }
}
