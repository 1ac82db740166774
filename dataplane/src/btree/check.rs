//! Checking trees: everything that their pages promise each other, and which blocks they take.
//!
//! A check walks down from the roots of a set of versions. What it needs it asks a [`Feed`] for, a few pages
//! at a time, and goes on when they are there; children are visited in the order of their blocks. That a page
//! is whole, in its place and of the right birth is verified when it is read
//! ([`verify`](super::page::verify)); the check adds what only the way down can tell: levels, ranges of keys,
//! items' checksums, counts, and that no block belongs to two pages or to none.
//!
//! Who runs a check sees to it that the versions stay on disk meanwhile, or asks afterwards whether they did.
//! Nothing is changed by it.

use super::cache::Cache;
use super::feed::Feed;
use super::finding::{Finding, FindingKind};
use super::leaf::{LeafView, Value};
use super::lookup::Place;
use super::merge::Progress;
use super::node::NodeView;
use super::page::{PageFault, PageKind, overflow_item, read_header};
use super::pointer::PagePointer;
use super::version::{Redirects, Version};
use crate::limits::{CHECK_FINDINGS_MAX, CHECK_READ_AHEAD};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::ids::PartitionId;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// How often a page is read before it counts as damaged: the first time it may have been on its way.
const READS: u8 = 2;

/// A tree to be checked.
#[derive(Clone, Debug)]
pub struct CheckedTree {
    /// Whose it is.
    pub partition: PartitionId,
    /// The first key that the partition may hold.
    pub start: Vec<u8>,
    /// The first key beyond; empty: there is no end.
    pub end: Vec<u8>,
    /// The tree.
    pub version: Version,
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every page, from the file even when the cache has it.
    Everything,
    /// Inner nodes, and leaves from which overflow runs hang: enough to know every block that is in use.
    NodesOnly,
}

/// What a check has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckStatus {
    /// Pages that were read.
    pub pages: u64,
    /// Blocks that pages take.
    pub blocks: u64,
    /// Items in the leaves that were read.
    pub items: u64,
    /// Bytes of their keys and of them.
    pub bytes: u64,
    /// What was found to be wrong.
    pub findings: u64,
}

#[derive(Clone, Debug)]
enum What {
    /// A leaf or a node.
    Unit,
    /// The run of an item, with what the leaf says of it.
    Run { key: Vec<u8>, bytes: u32, checksum: u32 },
}

/// A page to look at.
#[derive(Debug)]
struct Visit {
    tree: usize,
    /// As its parent points to it.
    pointer: PagePointer,
    what: What,
    /// For a run: of the leaf that points to it.
    place: Place,
    /// Below a page that stands in for a damaged one: its blocks are of no version yet.
    redirected: bool,
    /// The page that was asked for.
    asked: Option<PagePointer>,
    failures: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    items: u64,
    bytes: u64,
    /// A part of the tree could not be looked at.
    incomplete: bool,
}

/// What was counted in a tree whose version only has estimates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recount {
    /// Whose tree.
    pub partition: PartitionId,
    /// Items that there are more than the version says.
    pub items: i64,
    /// Bytes of keys and items likewise.
    pub bytes: i64,
}

/// The first key of a range, and the first beyond; empty: there is no end.
pub type KeyBounds = (Vec<u8>, Vec<u8>);

/// Whether a range has keys in common with `low <= key < high`.
fn meets((start, end): &KeyBounds, low: &[u8], high: &[u8]) -> bool {
    (end.is_empty() || *low < end[..]) && (high.is_empty() || start[..] < *high)
}

/// A check under way.
#[derive(Debug)]
pub struct Check {
    trees: Vec<CheckedTree>,
    counted: Vec<Counted>,
    /// The bitmap of the blocks in use.
    used: Vec<u64>,
    reached: Vec<u64>,
    depth: Depth,
    /// Ranges of keys that are left to look at, when others were looked at before.
    only: Option<Vec<KeyBounds>>,
    /// The last comes first.
    left: Vec<Visit>,
    /// Asked for.
    open: VecDeque<Visit>,
    /// Blocks may be in use below a page that could not be looked into.
    hidden: bool,
    ended: bool,
    status: CheckStatus,
    /// What was found since they were taken from here. When nobody takes them, the later ones are only
    /// counted.
    pub findings: Vec<Finding>,
    /// Trees that were counted, where that was due; once the check is done.
    pub recounts: Vec<Recount>,
}

impl Check {
    /// Begins to check `trees`, in a file of which `used` says which blocks are in use.
    #[must_use]
    pub fn new(trees: Vec<CheckedTree>, used: Vec<u64>, depth: Depth) -> Self {
        let mut check = Self {
            counted: vec![Counted::default(); trees.len()],
            trees,
            reached: vec![0; used.len()],
            used,
            depth,
            only: None,
            left: Vec::new(),
            open: VecDeque::new(),
            hidden: false,
            ended: false,
            status: CheckStatus::default(),
            findings: Vec::new(),
            recounts: Vec::new(),
        };
        for tree in (0..check.trees.len()).rev() {
            let CheckedTree { start, end, version, .. } = &check.trees[tree];
            if let Some(pointer) = version.root {
                let place = Place { unit: pointer, level: None, low: start.clone(), high: end.clone() };
                let (what, redirected) = (What::Unit, false);
                let root = Visit { tree, pointer, what, place, redirected, asked: None, failures: 0 };
                check.left.push(root);
            }
        }
        check
    }

    /// Goes on with the check of a tree in a later version of it, where [`remaining`](Self::remaining) says.
    /// Counts are not compared then.
    #[must_use]
    pub fn resume(tree: CheckedTree, used: Vec<u64>, remaining: Vec<KeyBounds>) -> Self {
        let mut check = Self::new(vec![tree], used, Depth::Everything);
        check.counted[0].incomplete = true;
        check.only = Some(remaining);
        check
    }

    /// What is checked.
    #[must_use]
    pub fn trees(&self) -> &[CheckedTree] {
        &self.trees
    }

    /// The ranges of keys that it has not looked at, in no order.
    #[must_use]
    pub fn remaining(&self) -> Vec<KeyBounds> {
        let visits = self.left.iter().chain(&self.open);
        visits.map(|visit| (visit.place.low.clone(), visit.place.high.clone())).collect()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn status(&self) -> CheckStatus {
        self.status
    }

    /// The blocks that the trees take, a bit each. Once the check is done; none when a part of a tree could
    /// not be looked into, and may take more.
    #[must_use]
    pub fn reached(&self) -> Option<&[u64]> {
        (self.ended && !self.hidden).then_some(&self.reached[..])
    }

    /// The blocks that are in use and that no tree takes, under the same conditions.
    #[must_use]
    pub fn lost(&self) -> Option<Vec<u64>> {
        let reached = self.reached()?;
        Some(self.used.iter().zip(reached).map(|(used, reached)| used & !reached).collect())
    }

    /// Goes on for up to `pages` pages, of those that are in `feed`; for nodes the cache will do when only
    /// they are wanted.
    pub fn advance(
        &mut self,
        feed: &mut Feed,
        cache: Option<&Cache>,
        redirects: &Redirects,
        pages: usize,
    ) -> Progress {
        let cache = cache.filter(|_| self.depth == Depth::NodesOnly);
        let mut left = pages;
        loop {
            self.open_next(redirects);
            let place = self.open.iter_mut().position(|visit| {
                let pointer = *visit.asked.get_or_insert_with(|| redirects.resolve(&visit.pointer));
                visit.redirected |= pointer != visit.pointer;
                let here =
                    feed.held(&pointer).is_some() || cache.is_some_and(|cache| cache.contains(&pointer));
                if !here {
                    feed.want(pointer);
                }
                here
            });
            let Some(place) = place else {
                if !self.open.is_empty() {
                    return Progress::Waits;
                }
                self.end();
                return Progress::Done;
            };
            if left == 0 {
                return Progress::More;
            }
            left -= 1;
            let visit = self.open.remove(place).expect("it was just found");
            let pointer = visit.asked.expect("it was asked for");
            let page = feed.held(&pointer).or_else(|| cache.and_then(|cache| cache.peek(&pointer)));
            self.look_at(visit, page.expect("it was just seen"));
            feed.done_with(&pointer);
        }
    }

    /// A page that was asked for could not be read, or is not what it should be. It is asked for once more,
    /// or what stands in for it by then.
    pub fn failed(&mut self, pointer: &PagePointer, fault: PageFault, redirects: &Redirects) {
        let Some(place) = self.open.iter().position(|visit| visit.asked.as_ref() == Some(pointer)) else {
            return;
        };
        let visit = &mut self.open[place];
        visit.asked = None;
        visit.failures += 1;
        if redirects.resolve(&visit.pointer) != *pointer {
            visit.failures = 0;
        } else if visit.failures == READS {
            self.find_unusable(place, fault, redirects);
        }
    }

    /// Finds those of the pages that were asked for of which it is known that they are damaged: they are read
    /// no more.
    pub fn find_known(&mut self, damage: impl Fn(&PagePointer) -> Option<PageFault>, redirects: &Redirects) {
        for place in (0..self.open.len()).rev() {
            let fault = self.open[place].asked.as_ref().and_then(&damage);
            if let Some(fault) = fault {
                self.find_unusable(place, fault, redirects);
            }
        }
    }

    fn find_unusable(&mut self, place: usize, fault: PageFault, redirects: &Redirects) {
        let visit = self.open.remove(place).expect("it is open");
        self.hide(&visit);
        // The run of a leaf that something stands in for by now is nobody's.
        let unit = &visit.place.unit;
        if visit.redirected || redirects.resolve(unit) == *unit {
            self.find(&visit, FindingKind::Unusable(fault));
        }
    }

    /// Takes up visits, up to what may be asked for at a time.
    fn open_next(&mut self, redirects: &Redirects) {
        while self.open.len() < CHECK_READ_AHEAD
            && let Some(mut visit) = self.left.pop()
        {
            if !self.mark(&visit, &visit.pointer, visit.redirected) {
                self.hide(&visit);
                continue;
            }
            let resolved = redirects.resolve(&visit.pointer);
            if resolved != visit.pointer {
                visit.redirected = true;
                self.mark(&visit, &resolved, true);
            }
            let is_leaf = visit.place.level == Some(0) || matches!(visit.what, What::Run { .. });
            let holds_runs = matches!(visit.what, What::Unit) && resolved.overflow;
            if self.depth == Depth::Everything || !is_leaf || holds_runs {
                self.open.push_back(visit);
            }
        }
    }

    /// Notes that a page takes its blocks. Returns whether it can be looked at.
    fn mark(&mut self, visit: &Visit, pointer: &PagePointer, loose: bool) -> bool {
        let blocks = pointer.block..pointer.block + u64::from(pointer.blocks);
        if blocks.end > self.used.len() as u64 * u64::from(u64::BITS) || blocks.is_empty() {
            // Redirected pages may have come after the bitmap.
            if !loose {
                self.find(visit, FindingKind::Free);
            }
            return loose;
        }
        let (mut free, mut twice) = (false, false);
        for block in blocks {
            let (word, bit) = ((block / 64) as usize, 1 << (block % 64));
            free |= self.used[word] & bit == 0;
            twice |= self.reached[word] & bit != 0;
            self.reached[word] |= bit;
        }
        if free && !loose {
            self.find(visit, FindingKind::Free);
        }
        if twice {
            self.find(visit, FindingKind::ReachedTwice);
            return false;
        }
        self.status.blocks += u64::from(pointer.blocks);
        true
    }

    fn find(&mut self, visit: &Visit, what: FindingKind) {
        let partition = self.trees[visit.tree].partition;
        self.note(Finding { partition, place: visit.place.clone(), pointer: visit.pointer, what });
    }

    fn note(&mut self, finding: Finding) {
        self.status.findings += 1;
        if self.findings.len() < CHECK_FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// What stands below a page is not looked at.
    fn hide(&mut self, visit: &Visit) {
        self.counted[visit.tree].incomplete = true;
        let is_leaf = visit.place.level == Some(0);
        self.hidden |= matches!(visit.what, What::Unit) && (!is_leaf || visit.pointer.overflow);
    }

    fn look_at(&mut self, visit: Visit, page: &[u8]) {
        self.status.pages += 1;
        let header = read_header(page).expect("the page was verified when it came");
        let content = header.content;
        let expected = match (&visit.what, visit.place.level.unwrap_or(content.level)) {
            (What::Run { .. }, _) => PageKind::Overflow,
            (What::Unit, 0) => PageKind::Leaf,
            (What::Unit, _) => PageKind::Node,
        };
        if content.kind != expected {
            self.hide(&visit);
            return self.find(&visit, FindingKind::Kind { got: content.kind, expected });
        }
        if let (What::Unit, Some(level)) = (&visit.what, visit.place.level)
            && content.level != level
        {
            self.hide(&visit);
            return self.find(&visit, FindingKind::Level { got: content.level, expected: level });
        }
        match (&visit.what, content.kind) {
            (What::Run { key, bytes, checksum }, _) => {
                let item = overflow_item(page);
                if item.len() != *bytes as usize {
                    let (key, got, expected) = (key.clone(), item.len() as u64, u64::from(*bytes));
                    return self.find(&visit, FindingKind::ItemLength { key, got, expected });
                }
                self.check_item(&visit, key, item, *checksum);
            }
            (What::Unit, PageKind::Node) => self.look_at_node(&visit, NodeView::new(page), content.level),
            (What::Unit, PageKind::Leaf | PageKind::Overflow) => {
                self.look_at_leaf(&visit, LeafView::new(page));
            }
        }
    }

    fn check_item(&mut self, visit: &Visit, key: &[u8], item: &[u8], checksum: u32) {
        if crc32c(item) != checksum {
            self.find(visit, FindingKind::ItemChecksum { key: key.to_vec() });
        }
    }

    fn look_at_node(&mut self, visit: &Visit, node: NodeView<'_>, level: u8) {
        let children = node.to_children();
        let mut visits = Vec::with_capacity(children.len());
        let (mut overflow, mut misplaced) = (false, None);
        for (place, child) in children.iter().enumerate() {
            // The first child takes all that lies before the second, whatever its separator says.
            let low = if place == 0 { &visit.place.low } else { &child.separator };
            let high = children.get(place + 1).map_or(&visit.place.high, |next| &next.separator);
            if place > 0 && !visit.place.holds(&child.separator) {
                misplaced.get_or_insert_with(|| child.separator.clone());
            }
            overflow |= child.pointer.overflow;
            if self.only.as_ref().is_some_and(|only| !only.iter().any(|bounds| meets(bounds, low, high))) {
                continue;
            }
            let (low, high) = (low.clone(), high.clone());
            visits.push(Visit {
                tree: visit.tree,
                pointer: child.pointer,
                what: What::Unit,
                place: Place { unit: child.pointer, level: Some(level - 1), low, high },
                redirected: visit.redirected,
                asked: None,
                failures: 0,
            });
        }
        if let Some(separator) = misplaced {
            self.find(visit, FindingKind::Separator { separator });
        }
        self.check_flag(visit, overflow);
        visits.sort_by_key(|visit| Reverse(visit.pointer.block));
        self.left.append(&mut visits);
    }

    /// The flag by which those who look for runs pass over everything else.
    fn check_flag(&mut self, visit: &Visit, overflow: bool) {
        if overflow && !visit.pointer.overflow && !visit.redirected {
            self.find(visit, FindingKind::NoOverflowFlag);
        }
    }

    fn look_at_leaf(&mut self, visit: &Visit, leaf: LeafView<'_>) {
        let mut runs = Vec::new();
        let mut outside = None;
        for place in 0..leaf.cells() {
            let cell = leaf.cell(place);
            let key = [leaf.prefix(), cell.key_rest].concat();
            let bytes = (key.len() + cell.value.item_bytes()) as u64;
            let counted = &mut self.counted[visit.tree];
            counted.items += 1;
            counted.bytes += bytes;
            self.status.items += 1;
            self.status.bytes += bytes;
            if !visit.place.holds(&key) {
                outside.get_or_insert_with(|| key.clone());
            }
            match cell.value {
                Value::Inline(item) => self.check_item(visit, &key, item, cell.meta.checksum),
                Value::Overflow { run, bytes } => runs.push(Visit {
                    tree: visit.tree,
                    pointer: run,
                    what: What::Run { key, bytes, checksum: cell.meta.checksum },
                    place: visit.place.clone(),
                    redirected: visit.redirected,
                    asked: None,
                    failures: 0,
                }),
            }
        }
        if let Some(key) = outside {
            self.find(visit, FindingKind::KeyOutside { key });
        }
        self.check_flag(visit, !runs.is_empty());
        runs.sort_by_key(|run| Reverse(run.pointer.block));
        self.left.append(&mut runs);
    }

    /// Every page was looked at: compares counts.
    fn end(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        if self.depth == Depth::NodesOnly {
            return;
        }
        for (tree, counted) in self.trees.clone().into_iter().zip(self.counted.clone()) {
            let CheckedTree { partition, start, end, version } = tree;
            let got = (counted.items, counted.bytes);
            let expected = (version.items, version.bytes);
            if version.estimated && !counted.incomplete {
                let (items, bytes) = (got.0 as i64 - expected.0 as i64, got.1 as i64 - expected.1 as i64);
                self.recounts.push(Recount { partition, items, bytes });
                continue;
            }
            if counted.incomplete || got == expected {
                continue;
            }
            let none = PagePointer { block: 0, blocks: 0, overflow: false, birth: 0, checksum: 0 };
            let pointer = version.root.unwrap_or(none);
            let place = Place { unit: pointer, level: None, low: start, high: end };
            self.note(Finding { partition, place, pointer, what: FindingKind::Count { got, expected } });
        }
    }
}

#[cfg(test)]
mod tests;
