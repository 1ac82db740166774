use super::*;
use crate::btree::batch::Batches;
use crate::btree::delta::{Cell, Delta};
use crate::btree::merge::{Clip, Merge, Merged, Workshop};
use crate::btree::node::{Child, lay_out};
use crate::btree::page::{Stamp, seal, verify};
use crate::btree::space::Space;
use crate::wal::block::LogIdentity;
use bytes::Bytes;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, Slot};
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::DiskAction;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([5; 16]), core: CoreId(0) };
const PARTITION: PartitionId = PartitionId(3);

fn stamp(checkpoint: u64) -> Stamp {
    Stamp { identity: IDENTITY, tree: PARTITION, epoch: Epoch(1), checkpoint, position: Slot(9) }
}

/// A file with a tree in it.
struct Shelf {
    file: Vec<u8>,
    space: Space,
    version: Version,
}

impl Shelf {
    /// A tree of so many items, every hundredth a large one.
    fn of(items: u64) -> Self {
        let mut changes = Delta::default();
        for number in 0..items {
            let archive = Bytes::from(vec![number as u8; if number % 100 == 7 { 5000 } else { 150 }]);
            let checksum = crc32c(&archive);
            let cell = Cell { slot: Slot(number), timestamp: number, checksum, archive };
            changes.set(format!("key {number:08}").into_bytes().into(), Some(cell));
        }
        let (mut space, mut cache) = (Space::restore(&[]), Cache::new(1 << 20));
        let (mut batches, mut feed, mut file) = (Batches::default(), Feed::default(), Vec::new());
        let mut merge = Merge::new(Version::default(), &changes, Clip::default());
        let redirects = Redirects::default();
        loop {
            let (space, cache, batches) = (&mut space, &mut cache, &mut batches);
            let mut shop =
                Workshop { stamp: stamp(2), space, cache, redirects: &redirects, batches, loose: false };
            let done = merge.advance(&mut shop, &mut feed, 64) == Progress::Done;
            while let Some(DiskAction::Write { offset, buffer, .. }) = shop.batches.next_write(done) {
                let end = offset as usize + buffer.len();
                file.resize(file.len().max(end), 0);
                file[offset as usize..end].copy_from_slice(&buffer);
                shop.batches.ended(None);
            }
            if done && shop.batches.is_idle() {
                break;
            }
        }
        let Merged { version, .. } = merge.finish();
        Self { file, space, version }
    }

    fn page(&mut self, pointer: &PagePointer) -> &mut [u8] {
        &mut self.file[pointer.offset() as usize..][..pointer.bytes()]
    }

    fn children(&mut self) -> Vec<Child> {
        let root = self.version.root.unwrap();
        NodeView::new(self.page(&root)).to_children()
    }

    /// Writes a root over these children.
    fn plant_root(&mut self, children: &[Child], level: u8) {
        let root = self.version.root.unwrap();
        let mut page = Vec::new();
        let content = lay_out(children, level, &mut page);
        let pointer = seal(&mut page, &stamp(2), &content, root.block);
        self.page(&pointer).copy_from_slice(&page);
        self.version.root = Some(pointer);
    }

    fn check(&self, depth: Depth) -> Check {
        let mut check = Check::new(vec![self.tree()], self.space.used_words().to_vec(), depth);
        self.go_on(&mut check, u64::MAX);
        check
    }

    /// Goes on until so many pages were looked at.
    fn go_on(&self, check: &mut Check, pages: u64) {
        let mut feed = Feed::default();
        while check.status().pages < pages
            && check.advance(&mut feed, None, &Redirects::default(), 10) != Progress::Done
        {
            while let Some(pointer) = feed.take_wanted() {
                match self.read(&pointer) {
                    Ok(page) => feed.arrived(&pointer, page),
                    Err(fault) => {
                        feed.failed(&pointer);
                        check.failed(&pointer, fault, &Redirects::default());
                    }
                }
            }
        }
    }

    fn read(&self, pointer: &PagePointer) -> Result<AlignedBuffer, PageFault> {
        let start = (pointer.offset() as usize).min(self.file.len());
        let page = &self.file[start..(start + pointer.bytes()).min(self.file.len())];
        verify(page, &IDENTITY, pointer).map(|_| AlignedBuffer::copy_of(page))
    }

    fn tree(&self) -> CheckedTree {
        CheckedTree { partition: PARTITION, start: vec![], end: vec![], version: self.version }
    }

    /// What is found, without where.
    fn found(&self) -> Vec<FindingKind> {
        self.check(Depth::Everything).findings.into_iter().map(|finding| finding.what).collect()
    }
}

#[test]
fn a_whole_tree_is_counted_and_every_block_is_accounted_for() {
    let shelf = Shelf::of(3000);
    let everything = shelf.check(Depth::Everything);
    let status = everything.status();
    assert_eq!(everything.findings, []);
    assert_eq!((status.items, status.bytes), (shelf.version.items, shelf.version.bytes));
    assert_eq!(status.blocks, shelf.space.status().used);
    assert!(everything.lost().unwrap().iter().all(|word| *word == 0));
    let nodes = shelf.check(Depth::NodesOnly);
    assert_eq!(nodes.reached(), everything.reached());
    assert!(nodes.status().pages < status.pages, "leaves without runs are passed over");
    assert_eq!(Shelf::of(0).found(), [], "an empty tree has no pages");
}

#[test]
fn a_check_that_goes_on_elsewhere_looks_at_what_was_left_and_little_more() {
    let shelf = Shelf::of(3000);
    let used = || shelf.space.used_words().to_vec();
    let whole = shelf.check(Depth::Everything).status();
    for pages in [0, 1, 30, 70, u64::MAX] {
        let mut first = Check::new(vec![shelf.tree()], used(), Depth::Everything);
        shelf.go_on(&mut first, pages);
        let mut second = Check::resume(shelf.tree(), used(), first.remaining());
        shelf.go_on(&mut second, u64::MAX);
        let (before, after) = (first.status(), second.status());
        assert!(before.items + after.items >= whole.items, "{pages}: {before:?} {after:?}");
        // The root is looked at again, and leaves whose runs were left, with the runs that were not.
        assert!(
            before.pages + after.pages <= whole.pages + 2 * CHECK_READ_AHEAD as u64,
            "{pages}: {before:?} {after:?}"
        );
        assert!(first.findings.is_empty() && second.findings.is_empty());
    }
}

#[test]
fn a_flipped_bit_is_found_with_its_keys_and_hides_only_what_hangs_below() {
    let mut shelf = Shelf::of(3000);
    let children = shelf.children();
    let leaf = children.iter().position(|child| !child.pointer.overflow).unwrap();
    let pointer = children[leaf].pointer;
    shelf.page(&pointer)[1000] ^= 4;
    let check = shelf.check(Depth::Everything);
    let [finding] = &check.findings[..] else { panic!("{:?}", check.findings) };
    assert_eq!((&finding.what, finding.pointer), (&FindingKind::Unusable(PageFault::Checksum), pointer));
    assert_eq!(finding.place.low, children[leaf].separator);
    assert_eq!(finding.place.high, children[leaf + 1].separator);
    let told = finding.to_string();
    assert!(told.starts_with("p3, keys from \"key 00"), "{told}");
    assert!(told.contains("its checksum does not hold") && told.contains("a peer"), "{told}");
    assert!(check.lost().is_some(), "a leaf without runs hides no blocks");
    let with_runs = children.iter().find(|child| child.pointer.overflow).unwrap().pointer;
    shelf.page(&with_runs)[1000] ^= 4;
    assert!(shelf.check(Depth::NodesOnly).lost().is_none());
}

#[test]
fn a_page_of_which_others_know_that_it_is_damaged_is_found_although_nobody_reads_it_again() {
    let mut shelf = Shelf::of(3000);
    let damaged = shelf.children()[3].pointer;
    let mut check = Check::new(vec![shelf.tree()], shelf.space.used_words().to_vec(), Depth::Everything);
    let (mut feed, none) = (Feed::default(), Redirects::default());
    while check.advance(&mut feed, None, &none, 10) != Progress::Done {
        while let Some(pointer) = feed.take_wanted() {
            // As a store does that knows it.
            if pointer == damaged {
                feed.failed(&pointer);
            } else {
                feed.arrived(&pointer, shelf.read(&pointer).unwrap());
            }
        }
        check.find_known(|page| (*page == damaged).then_some(PageFault::Checksum), &none);
    }
    let [finding] = &check.findings[..] else { panic!("{:?}", check.findings) };
    assert_eq!((&finding.what, finding.pointer), (&FindingKind::Unusable(PageFault::Checksum), damaged));
}

#[test]
fn a_page_that_was_repaired_while_it_was_read_is_not_found() {
    let mut shelf = Shelf::of(3000);
    let leaf = shelf.children()[3].clone();
    let Child { pointer: damaged, separator } = leaf;
    let mut page = shelf.page(&damaged).to_vec();
    shelf.page(&damaged)[1000] ^= 4;
    let block = shelf.space.allocate_loose(damaged.blocks);
    let content = read_header(&page).unwrap().content;
    let instead = seal(&mut page, &stamp(3), &content, block);
    shelf.file.resize(shelf.file.len().max(instead.offset() as usize + page.len()), 0);
    shelf.page(&instead).copy_from_slice(&page);
    // It is repaired behind the first time that it is read, or behind the second.
    for behind in [1, 2] {
        let mut check = Check::new(vec![shelf.tree()], shelf.space.used_words().to_vec(), Depth::Everything);
        let (mut feed, mut redirects, mut reads, mut reads_instead) =
            (Feed::default(), Redirects::default(), 0, 0);
        while check.advance(&mut feed, None, &redirects, 10) != Progress::Done {
            while let Some(pointer) = feed.take_wanted() {
                reads += u64::from(pointer == damaged);
                reads_instead += u64::from(pointer == instead);
                if pointer == damaged && reads == behind {
                    let written = vec![(instead.block, instead.blocks)];
                    redirects.add(PARTITION, separator.clone(), damaged, instead, written);
                }
                match shelf.read(&pointer) {
                    Ok(page) => feed.arrived(&pointer, page),
                    Err(fault) => {
                        feed.failed(&pointer);
                        check.failed(&pointer, fault, &redirects);
                    }
                }
            }
        }
        assert_eq!((&check.findings[..], reads, reads_instead), (&[][..], behind, 1));
    }
}

#[test]
fn pages_that_are_whole_and_in_the_wrong_place_are_found() {
    let mut shelf = Shelf::of(3000);
    let children = shelf.children();
    let mut swapped = children.clone();
    (swapped[2].pointer, swapped[3].pointer) = (children[3].pointer, children[2].pointer);
    shelf.plant_root(&swapped, 1);
    let found = shelf.found();
    assert!(
        matches!(found[..], [FindingKind::KeyOutside { .. }, FindingKind::KeyOutside { .. }]),
        "{found:?}"
    );
    let mut twice = children.clone();
    twice[2].pointer = children[3].pointer;
    shelf.plant_root(&twice, 1);
    assert!(shelf.found().contains(&FindingKind::ReachedTwice));
    shelf.plant_root(&children, 2);
    let found = shelf.found();
    assert!(found.iter().all(|what| matches!(what, FindingKind::Kind { got: PageKind::Leaf, .. })));
    assert_eq!(found.len(), children.len());
    // A node may be pointed to by any page above: a child is missing, and the counts tell.
    shelf.plant_root(&children[..children.len() - 1], 1);
    let check = shelf.check(Depth::Everything);
    assert!(matches!(check.findings[..], [Finding { what: FindingKind::Count { .. }, .. }]));
    let lost: u32 = check.lost().unwrap().iter().map(|word| word.count_ones()).sum();
    assert!(lost > 0, "nothing reaches its blocks any more");
}

#[test]
fn an_item_that_is_not_what_was_written_and_blocks_that_count_as_free_are_found() {
    let mut shelf = Shelf::of(3000);
    let children = shelf.children();
    let leaf = children.iter().find(|child| child.pointer.overflow).unwrap().pointer;
    let view = LeafView::new(shelf.page(&leaf));
    let run = (0..view.cells()).find_map(|place| match view.cell(place).value {
        Value::Overflow { run, .. } => Some(run),
        Value::Inline(_) => None,
    });
    shelf.space.release(run.unwrap().block, run.unwrap().blocks);
    assert_eq!(shelf.found(), [FindingKind::Free]);
    // A page that was written with another item in it: only the item's own checksum can tell.
    let leaf = children.iter().find(|child| !child.pointer.overflow).unwrap();
    let mut page = shelf.page(&leaf.pointer).to_vec();
    let header = read_header(&page).unwrap();
    let end = crate::btree::page::PAGE_HEADER_BYTES + header.content.bytes as usize;
    page[end - 1] ^= 1;
    let pointer = seal(&mut page, &stamp(2), &header.content, leaf.pointer.block);
    shelf.page(&pointer).copy_from_slice(&page);
    let changed = |child: &Child| {
        let changed = if child.pointer.block == pointer.block { pointer } else { child.pointer };
        Child { pointer: changed, ..child.clone() }
    };
    let children: Vec<Child> = children.iter().map(changed).collect();
    shelf.plant_root(&children, 1);
    let found = shelf.found();
    assert!(matches!(found[..], [FindingKind::Free, FindingKind::ItemChecksum { .. }]), "{found:?}");
    assert_eq!(shelf.file.len() % BLOCK_BYTES, 0);
}
