//! A tree whose file is in memory: what the engine costs without a device.

use bytes::Bytes;
use evenkeel_dataplane::btree::batch::Batches;
use evenkeel_dataplane::btree::cache::Cache;
use evenkeel_dataplane::btree::delta::{Cell, Delta};
use evenkeel_dataplane::btree::feed::Feed;
use evenkeel_dataplane::btree::lookup::{Cursor, Miss, Pages, get};
use evenkeel_dataplane::btree::merge::{Clip, Merge, Progress, Workshop};
use evenkeel_dataplane::btree::page::{PageKind, Stamp, verify};
use evenkeel_dataplane::btree::pointer::PagePointer;
use evenkeel_dataplane::btree::space::Space;
use evenkeel_dataplane::btree::version::{Redirects, Version};
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, PartitionId, Slot};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::turn::DiskAction;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([1; 16]), core: CoreId(0) };

/// The tree, its file and its cache.
pub(crate) struct MemoryTree {
    /// Its present version.
    pub(crate) version: Version,
    /// Pages in memory.
    pub(crate) cache: Cache,
    redirects: Redirects,
    file: Vec<u8>,
    space: Space,
    checkpoint: u64,
}

/// The key of an item: hashed keys are spread like this.
#[must_use]
pub(crate) fn key(number: u64) -> [u8; 16] {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&spread.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// An item of about 1 KiB.
#[must_use]
pub(crate) fn cell(slot: u64) -> Cell {
    Cell {
        slot: Slot(slot),
        timestamp: slot << 16,
        checksum: 0,
        archive: Bytes::from(vec![slot as u8; 1000]),
    }
}

impl MemoryTree {
    /// A tree of `items` items, with a cache of `cache_bytes`.
    #[must_use]
    pub(crate) fn new(items: u64, cache_bytes: usize) -> Self {
        let mut tree = Self {
            version: Version::default(),
            cache: Cache::new(cache_bytes),
            redirects: Redirects::default(),
            file: Vec::new(),
            space: Space::restore(&[]),
            checkpoint: 0,
        };
        let mut delta = Delta::default();
        for number in 0..items {
            delta.set(KeyBytes::from_slice(&key(number)), Some(cell(number)));
        }
        tree.merge(&delta);
        tree
    }

    /// Merges changes into the next version, as a checkpoint does. Returns the bytes of pages written.
    pub(crate) fn merge(&mut self, delta: &Delta) -> u64 {
        self.checkpoint += 1;
        let stamp = Stamp {
            identity: IDENTITY,
            tree: PartitionId(1),
            epoch: Epoch(1),
            checkpoint: self.checkpoint,
            position: Slot(self.checkpoint),
        };
        let (mut merge, mut feed) = (Merge::new(self.version, delta, Clip::default()), Feed::default());
        let mut batches = Batches::default();
        loop {
            let mut shop = Workshop {
                stamp,
                space: &mut self.space,
                cache: &mut self.cache,
                redirects: &self.redirects,
                batches: &mut batches,
                loose: false,
            };
            let progress = merge.advance(&mut shop, &mut feed, 64);
            while let Some(action) = batches.next_write(progress == Progress::Done) {
                let DiskAction::Write { offset, buffer, .. } = action else {
                    panic!("batches only write");
                };
                let end = offset as usize + buffer.len();
                self.file.resize(self.file.len().max(end), 0);
                self.file[offset as usize..end].copy_from_slice(&buffer);
                batches.ended(Some(buffer));
            }
            while let Some(pointer) = feed.take_wanted() {
                let page = AlignedBuffer::copy_of(self.page(&pointer));
                verify(&page, &IDENTITY, &pointer).expect("nothing damages memory");
                feed.arrived(&pointer, page);
            }
            if progress == Progress::Done {
                break;
            }
        }
        let merged = merge.finish();
        for (block, blocks) in merged.replaced {
            self.space.retire(self.checkpoint, block, blocks);
        }
        self.space.settle(self.checkpoint);
        self.version = merged.version;
        batches.bytes
    }

    fn page(&self, pointer: &PagePointer) -> &[u8] {
        let offset = pointer.offset() as usize;
        &self.file[offset..offset + pointer.bytes()]
    }

    fn load(&mut self, miss: &Miss) {
        for pointer in &miss.pages {
            let mut frame = self.cache.take_frame(pointer.bytes());
            frame.copy_from_slice(self.page(pointer));
            let header = verify(&frame, &IDENTITY, pointer).expect("nothing damages memory");
            let class = match header.content.kind {
                PageKind::Leaf => evenkeel_dataplane::btree::cache::PageClass::Leaf,
                PageKind::Node => evenkeel_dataplane::btree::cache::PageClass::Inner,
                PageKind::Overflow => evenkeel_dataplane::btree::cache::PageClass::Overflow,
            };
            self.cache.insert(*pointer, class, frame);
        }
    }

    /// Where readers look.
    #[must_use]
    pub(crate) fn pages(&self) -> Pages<'_> {
        Pages { cache: Some(&self.cache), feed: None, redirects: Some(&self.redirects) }
    }

    /// Reads an item, whatever it takes. Returns its length.
    pub(crate) fn read(&mut self, number: u64) -> usize {
        loop {
            let miss = match get(&self.version, &self.pages(), &key(number)) {
                Ok(found) => return found.map_or(0, |found| found.archive.len()),
                Err(miss) => miss,
            };
            self.load(&miss);
        }
    }

    /// Walks over `items` items from an item on, whatever it takes. Returns their bytes.
    pub(crate) fn scan(&mut self, number: u64, items: usize) -> usize {
        loop {
            let miss = {
                let mut cursor = Cursor::new(&self.version, self.pages(), &key(number), b"", true);
                let (mut left, mut bytes) = (items, 0);
                loop {
                    match cursor.next() {
                        Ok(Some(found)) if left > 0 => {
                            left -= 1;
                            bytes += found.archive.len();
                        }
                        Ok(_) => return bytes,
                        Err(miss) => break miss,
                    }
                }
            };
            self.load(&miss);
        }
    }
}
