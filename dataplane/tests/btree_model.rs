//! The tree beside a sorted map: merges, splits and reads of any keys and items, and after each merge what
//! must hold of every page and block.

use bytes::Bytes;
use evenkeel_dataplane::btree::batch::Batches;
use evenkeel_dataplane::btree::cache::Cache;
use evenkeel_dataplane::btree::delta::{Cell, Delta};
use evenkeel_dataplane::btree::feed::Feed;
use evenkeel_dataplane::btree::leaf::{LeafView, Value};
use evenkeel_dataplane::btree::lookup::{self, Cursor, Miss, Pages};
use evenkeel_dataplane::btree::merge::{Clip, Merge, Merged, Progress, Workshop};
use evenkeel_dataplane::btree::node::NodeView;
use evenkeel_dataplane::btree::page::{Stamp, level_of, overflow_item, verify};
use evenkeel_dataplane::btree::pointer::PagePointer;
use evenkeel_dataplane::btree::space::Space;
use evenkeel_dataplane::btree::version::{Redirects, Version};
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, PartitionId, Slot};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::DiskAction;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([7; 16]), core: CoreId(1) };
/// The longest storage key, bytes.
const KEY_BYTES_MAX: usize = 6156;

type Model = BTreeMap<Vec<u8>, Bytes>;

/// A file in memory, and what a checkpoint writer would know of it.
struct File {
    bytes: Vec<u8>,
    space: Space,
    cache: Cache,
    checkpoint: u64,
}

impl File {
    fn new() -> Self {
        Self { bytes: Vec::new(), space: Space::restore(&[]), cache: Cache::new(128 << 10), checkpoint: 0 }
    }

    fn page(&self, pointer: &PagePointer) -> AlignedBuffer {
        let start = pointer.offset() as usize;
        let page = AlignedBuffer::copy_of(&self.bytes[start..start + pointer.bytes()]);
        verify(&page, &IDENTITY, pointer).expect("every page is what its pointer says");
        page
    }

    fn serve(&self, feed: &mut Feed) {
        while let Some(pointer) = feed.take_wanted() {
            feed.arrived(&pointer, self.page(&pointer));
        }
    }

    fn write(&mut self, batches: &mut Batches, finish: bool) {
        while let Some(DiskAction::Write { offset, buffer, .. }) = batches.next_write(finish) {
            let (start, end) = (offset as usize, offset as usize + buffer.len());
            self.bytes.resize(self.bytes.len().max(end), 0);
            self.bytes[start..end].copy_from_slice(&buffer);
            batches.ended(Some(buffer));
        }
    }

    /// Merges for the next checkpoint.
    fn merge(&mut self, old: Version, delta: &Delta, clip: Clip, leaves: usize) -> Merged {
        let stamp = Stamp {
            identity: IDENTITY,
            tree: PartitionId(3),
            epoch: Epoch(1),
            checkpoint: self.checkpoint,
            position: Slot(self.checkpoint),
        };
        let (mut feed, mut batches, redirects) = (Feed::default(), Batches::default(), Redirects::default());
        let mut merge = Merge::new(old, delta, clip);
        loop {
            let (space, cache) = (&mut self.space, &mut self.cache);
            let mut shop =
                Workshop { stamp, space, cache, redirects: &redirects, batches: &mut batches, loose: false };
            let progress = merge.advance(&mut shop, &mut feed, leaves);
            self.serve(&mut feed);
            self.write(&mut batches, progress == Progress::Done);
            if progress == Progress::Done {
                assert!(batches.is_idle());
                return merge.finish();
            }
        }
    }

    /// Makes a checkpoint durable that does without `replaced`.
    fn settle(&mut self, replaced: impl IntoIterator<Item = (u64, u16)>) {
        for (block, blocks) in replaced.into_iter().collect::<BTreeSet<_>>() {
            self.space.retire(self.checkpoint, block, blocks);
        }
        self.space.settle(self.checkpoint);
    }

    /// Asks until no page is missing.
    fn read<T>(&self, mut ask: impl FnMut(Pages<'_>) -> Result<T, Miss>) -> T {
        let mut feed = Feed::default();
        loop {
            let pages = Pages { cache: Some(&self.cache), feed: Some(&feed), redirects: None };
            match ask(pages) {
                Ok(answer) => return answer,
                Err(miss) => miss.pages.into_iter().for_each(|pointer| feed.want(pointer)),
            }
            self.serve(&mut feed);
        }
    }

    fn walk(&self, version: &Version, lower: &[u8], upper: &[u8], forward: bool) -> Vec<(Vec<u8>, Bytes)> {
        self.read(|pages| {
            let mut cursor = Cursor::new(version, pages, lower, upper, forward);
            let mut cells = Vec::new();
            while let Some(found) = cursor.next()? {
                cells.push((cursor.key().to_vec(), Bytes::copy_from_slice(found.archive)));
            }
            Ok(cells)
        })
    }

    /// Looks at every page below `pointer`: `low <= key < high` for all that it holds. Notes blocks, and
    /// gives the cells in their order.
    fn look(
        &self,
        pointer: &PagePointer,
        (low, high): (&[u8], &[u8]),
        blocks: &mut BTreeSet<u64>,
        cells: &mut Vec<(Vec<u8>, Bytes)>,
    ) {
        let page = self.page(pointer);
        for block in pointer.block..pointer.block + u64::from(pointer.blocks) {
            assert!(self.space.is_used(block), "a version holds block {block}, which is free");
            assert!(blocks.insert(block), "block {block} is held twice");
        }
        if level_of(&page) > 0 {
            let children = NodeView::new(&page).to_children();
            for (place, child) in children.iter().enumerate() {
                assert_eq!(level_of(&self.page(&child.pointer)) + 1, level_of(&page));
                let from = if place == 0 { low } else { &child.separator };
                let to = children.get(place + 1).map_or(high, |next| &next.separator);
                self.look(&child.pointer, (from, to), blocks, cells);
            }
            return;
        }
        let leaf = LeafView::new(&page);
        for place in 0..leaf.cells() {
            let cell = leaf.cell(place);
            let key = [leaf.prefix(), cell.key_rest].concat();
            assert!(&key[..] >= low && (high.is_empty() || &key[..] < high), "a key is in the wrong leaf");
            assert!(cells.last().is_none_or(|(before, _)| *before < key), "keys ascend");
            let item = match cell.value {
                Value::Inline(item) => Bytes::copy_from_slice(item),
                Value::Overflow { run, bytes } => {
                    let page = self.page(&run);
                    let blocks_of = run.block..run.block + u64::from(run.blocks);
                    assert!(blocks_of.into_iter().all(|block| blocks.insert(block)), "a run is held twice");
                    assert_eq!(overflow_item(&page).len(), bytes as usize);
                    Bytes::copy_from_slice(overflow_item(&page))
                }
            };
            cells.push((key, item));
        }
    }

    /// What must hold of trees that lie beside each other and are all that the file holds.
    fn check(&self, trees: &[(Version, &Model)]) {
        let mut blocks = BTreeSet::new();
        for (version, model) in trees {
            let mut cells = Vec::new();
            if let Some(root) = &version.root {
                self.look(root, (b"", b""), &mut blocks, &mut cells);
            }
            let expected: Vec<_> = model.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
            assert!(cells == expected, "the tree holds exactly what the model does");
            assert_eq!(version.root.is_none(), model.is_empty());
        }
        assert_eq!(self.space.status().used, blocks.len() as u64, "every block in use is reachable");
    }

    /// Compares reads with the model.
    fn check_reads(&self, version: &Version, model: &Model, keys: &[Vec<u8>]) {
        for key in keys {
            let found = self.read(|pages| {
                lookup::get(version, &pages, key).map(|found| found.map(|found| found.archive.to_vec()))
            });
            assert_eq!(found.as_deref(), model.get(key).map(|item| &item[..]));
        }
        for bounds in keys.chunks(2).take(8) {
            let (lower, upper) = (&bounds[0][..], bounds.get(1).map_or(&b""[..], |key| &key[..]));
            let end = if upper.is_empty() { Bound::Unbounded } else { Bound::Excluded(upper) };
            let mut expected: Vec<(Vec<u8>, Bytes)> = Vec::new();
            if upper.is_empty() || lower < upper {
                let range = model.range::<[u8], _>((Bound::Included(lower), end));
                expected.extend(range.map(|(key, item)| (key.clone(), item.clone())));
            }
            assert!(self.walk(version, lower, upper, true) == expected, "a walk upwards");
            expected.reverse();
            assert!(self.walk(version, lower, upper, false) == expected, "a walk downwards");
        }
    }
}

fn totals(model: &Model) -> (u64, u64) {
    let bytes = model.iter().map(|(key, item)| key.len() + item.len()).sum::<usize>();
    (model.len() as u64, bytes as u64)
}

fn delta(changes: &[(Vec<u8>, Option<usize>)], model: &mut Model) -> Delta {
    let mut delta = Delta::default();
    for (number, (key, change)) in changes.iter().enumerate() {
        let archive = change.map(|bytes| Bytes::from(vec![number as u8; bytes]));
        let cell = archive.clone().map(|archive| Cell { slot: Slot(1), timestamp: 1, checksum: 0, archive });
        delta.set(KeyBytes::from_slice(key), cell);
        match archive {
            Some(archive) => model.insert(key.clone(), archive),
            None => model.remove(key),
        };
    }
    delta
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let tail = vec(0u8..6, 1..6);
    // Short ones; with a common beginning; so long that few fit a node, or not even one fits a usual page.
    let length = prop_oneof![
        6 => Just(0usize),
        4 => Just(40usize),
        2 => 200..1500usize,
        1 => 5000..KEY_BYTES_MAX - 6,
    ];
    (length, tail).prop_map(|(length, tail)| [std::vec![b'k'; length], tail].concat())
}

fn change() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![
        3 => Just(None),
        6 => (0..300usize).prop_map(Some),
        2 => (1900..2200usize).prop_map(Some),
        1 => (2200..30_000usize).prop_map(Some),
    ]
}

/// The outermost children of a root have no bounds but the tree's own, so they must be looked into as well.
#[test]
fn a_split_within_the_first_or_the_last_leaf_divides_it() {
    for (count, borders) in [(3u32, [1, 2]), (600, [1, 599])] {
        let key = |number: u32| number.to_be_bytes().to_vec();
        let puts: Vec<_> = (0..count).map(|number| (key(number), Some(100))).collect();
        for border in borders {
            let (mut file, mut model) = (File::new(), Model::new());
            file.checkpoint = 1;
            let whole = file.merge(Version::default(), &delta(&puts, &mut model), Clip::default(), 8);
            file.checkpoint = 2;
            let right = model.split_off(&key(border));
            let none = Delta::default();
            let low = Clip { low: Vec::new(), high: key(border) };
            let high = Clip { low: key(border), high: Vec::new() };
            let below = file.merge(whole.version, &none, low, 8);
            let above = file.merge(whole.version, &none, high, 8);
            file.settle(below.replaced.into_iter().chain(above.replaced));
            file.check(&[(below.version, &model), (above.version, &right)]);
        }
    }
}

#[test]
fn the_middle_of_a_tree_divides_it_about_evenly() {
    for count in [0u32, 1, 2, 3, 50, 3000, 20_000] {
        let puts: Vec<_> = (0..count).map(|number| (number.to_be_bytes().to_vec(), Some(100))).collect();
        let (mut file, mut model) = (File::new(), Model::new());
        file.checkpoint = 1;
        let version = file.merge(Version::default(), &delta(&puts, &mut model), Clip::default(), 8).version;
        let middle = file.read(|pages| lookup::middle(&version, &pages));
        let below = middle.map(|middle| u32::from_be_bytes(middle.try_into().unwrap()));
        match below {
            None => assert!(count < 2),
            Some(below) => assert!(count >= 2 && below >= count / 3 && below <= count - count / 3),
        }
    }
}

#[test]
fn the_halves_of_a_split_count_about_what_they_hold() {
    let puts: Vec<_> = (0..20_000u32).map(|number| (number.to_be_bytes().to_vec(), Some(100))).collect();
    for border in [100u32, 7000, 10_000, 19_990] {
        let (mut file, mut model) = (File::new(), Model::new());
        file.checkpoint = 1;
        let whole = file.merge(Version::default(), &delta(&puts, &mut model), Clip::default(), 8).version;
        file.checkpoint = 2;
        let border_key = border.to_be_bytes().to_vec();
        let low = Clip { low: Vec::new(), high: border_key.clone() };
        let below = file.merge(whole, &Delta::default(), low, 8).version;
        let above = file.merge(whole, &Delta::default(), Clip { low: border_key, high: vec![] }, 8).version;
        assert!(below.estimated || above.estimated);
        let near = |got: u64, expected: u32| got.abs_diff(expected.into()) < 20_000 / 50;
        assert!(near(below.items, border) && near(above.items, 20_000 - border), "{below:?} {above:?}");
        assert!(below.bytes + above.bytes <= whole.bytes + whole.bytes / 50);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_holds_what_the_model_does(
        rounds in vec((vec((key(), change()), 0..120), 1..9usize), 1..8),
    ) {
        let (mut file, mut model, mut version) = (File::new(), Model::new(), Version::default());
        for (changes, leaves) in &rounds {
            file.checkpoint += 1;
            let delta = delta(changes, &mut model);
            let merged = file.merge(version, &delta, Clip::default(), *leaves);
            version = merged.version;
            file.settle(merged.replaced);
            file.check(&[(version, &model)]);
            prop_assert_eq!((version.items, version.bytes), totals(&model));
            let keys: Vec<Vec<u8>> = changes.iter().map(|(key, _)| key.clone()).collect();
            file.check_reads(&version, &model, &keys);
        }
        // Everything is deleted, and nothing is left of it.
        file.checkpoint += 1;
        let all: Vec<_> = model.keys().map(|key| (key.clone(), None)).collect();
        let merged = file.merge(version, &delta(&all, &mut model), Clip::default(), 4);
        file.settle(merged.replaced);
        file.check(&[(merged.version, &model)]);
        prop_assert_eq!((merged.version.root, merged.version.items, file.space.status().used), (None, 0, 0));
    }

    #[test]
    fn two_halves_of_a_version_hold_exactly_what_it_held(
        before in vec((key(), change()), 0..300),
        since in vec((key(), change()), 0..60),
        border in key(),
    ) {
        let (mut file, mut model) = (File::new(), Model::new());
        file.checkpoint = 1;
        let merged = file.merge(Version::default(), &delta(&before, &mut model), Clip::default(), 8);
        file.settle(merged.replaced);
        let whole = merged.version;
        file.checkpoint = 2;
        let delta = delta(&since, &mut model);
        let right = model.split_off(&border);
        let low = Clip { low: Vec::new(), high: border.clone() };
        let high = Clip { low: border.clone(), high: Vec::new() };
        let (below, above) = (file.merge(whole, &delta, low, 3), file.merge(whole, &delta, high, 3));
        file.settle(below.replaced.into_iter().chain(above.replaced));
        file.check(&[(below.version, &model), (above.version, &right)]);
        let keys: Vec<Vec<u8>> = since.iter().map(|(key, _)| key.clone()).collect();
        file.check_reads(&below.version, &model, &keys);
        file.check_reads(&above.version, &right, &keys);
    }
}

const _: () = assert!(KEY_BYTES_MAX > BLOCK_BYTES);
