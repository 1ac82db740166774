//! Merging changes into a tree: copy-on-write, from the first changed key to the last.
//!
//! A merge walks down to the leaves that change, in the order of keys, and keeps the path to the present one
//! open: a *frame* for each level, with the children that the new node will have. A child without changes is
//! taken over by its pointer. When a frame's children are all done, its node is written, if anything below it
//! changed. So every page is read at most once, written at most once, and children come before parents.
//!
//! What it needs from the file it asks a [`Feed`] for, and goes on when it is there. What it writes goes to
//! [`Batches`]. It changes nothing that anybody else can see: the new version counts when a superblock says
//! so.

use super::batch::Batches;
use super::cache::{Cache, PageClass};
use super::delta::{Change, Delta, bounds, compare_keys};
use super::feed::Feed;
use super::leaf::{CellMeta, INLINE_BYTES_MAX, LeafView, Value};
use super::lookup::Place;
use super::node::{Child, NODE_CHILDREN_MIN, NodeView, separator_between};
use super::page::{Content, PAGE_HEADER_BYTES, PageKind, Stamp, level_of, seal};
use super::pending::Pending;
use super::pointer::PagePointer;
use super::space::Space;
use super::version::{Redirects, Version};
use super::{PAGE_BYTES, leaf, node};
use crate::limits::MERGE_READ_AHEAD;
use crate::planted::{self, Planted};
use evenkeel_wire::aligned::round_up;
use evenkeel_wire::limits::BLOCK_BYTES;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

/// Changes that are looked up at once.
const UPCOMING_CHANGES: usize = 256;

/// Longest node, bytes: its entries are found by 16-bit offsets.
const NODE_BYTES_MAX: usize = 60 * 1024;

/// What a merge works on.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// What every page will say.
    pub stamp: Stamp,
    /// Where they go.
    pub space: &'a mut Space,
    /// Where new versions of cached pages go.
    pub cache: &'a mut Cache,
    /// Pages that stand in for damaged ones.
    pub redirects: &'a Redirects,
    /// On their way to the file.
    pub batches: &'a mut Batches,
    /// The pages belong to no version yet: a crash takes them.
    pub loose: bool,
}

/// How a merge stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for pages that it has asked the feed for.
    Waits,
    /// There is more to do.
    More,
    /// The new version is complete.
    Done,
}

/// The part of a tree to keep: `low <= key < high`, an empty `high` being no end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clip {
    /// First key.
    pub low: Vec<u8>,
    /// First key beyond.
    pub high: Vec<u8>,
}

impl Clip {
    /// Whether `key` is kept.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        *key >= self.low[..] && is_below(key, &self.high)
    }

    /// What is kept of `lower <= key < upper`, an empty `upper` being no end.
    #[must_use]
    pub fn within<'a>(&'a self, lower: &'a [u8], upper: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let lower = lower.max(&self.low);
        let ends_earlier = !self.high.is_empty() && is_below(&self.high, upper);
        (lower, if ends_earlier { &self.high } else { upper })
    }
}

/// An open node.
#[derive(Debug)]
struct Frame {
    /// Of the node; its children stand one below.
    level: u8,
    /// The first key that the node may hold, and the first beyond.
    low: Vec<u8>,
    high: Vec<u8>,
    /// What it was; none: there was no such node.
    old: Option<OldNode>,
    children: Vec<Child>,
    next: usize,
    /// Children that were looked at for reading ahead.
    ahead: usize,
    new: Vec<Child>,
    changed: bool,
    /// How much of the tree hangs below it, if all children of a node hold alike.
    share: f64,
}

/// The node that a frame was opened from.
#[derive(Clone, Copy, Debug)]
struct OldNode {
    /// As its parent points to it.
    pointer: PagePointer,
    /// What stands in for it, if it is damaged.
    instead: Option<PagePointer>,
}

impl OldNode {
    fn new(pointer: PagePointer, resolved: PagePointer) -> Self {
        Self { pointer, instead: (resolved != pointer).then_some(resolved) }
    }
}

impl Frame {
    fn share_of_child(&self) -> f64 {
        self.share / self.children.len().max(1) as f64
    }

    fn end_of(&self, place: usize) -> &[u8] {
        self.children.get(place + 1).map_or(&self.high, |next| &next.separator)
    }
}

/// The leaf that is being merged.
#[derive(Debug)]
struct OpenLeaf {
    page: Vec<u8>,
    next: usize,
    high: Vec<u8>,
}

/// A merge under way.
#[derive(Debug)]
pub struct Merge {
    old: Version,
    changes: Delta,
    /// The next few of them that are not merged.
    upcoming: VecDeque<Arc<Change>>,
    clip: Clip,
    /// The new root must stand so high, and there must be one.
    height: Option<u8>,
    /// The last change that is merged.
    merged: Option<Arc<Change>>,
    frames: Vec<Frame>,
    leaf: Option<OpenLeaf>,
    pending: Pending,
    new: Option<Version>,
    items: i64,
    bytes: i64,
    /// How much of the old tree was left out without looking into it.
    left_out: f64,
    /// A damaged page is replaced: what it held was counted, and what stands in for it may be less.
    estimated: bool,
    /// Blocks of pages that were written, and of pages that the new version does without.
    written: Vec<(u64, u16)>,
    replaced: Vec<(u64, u16)>,
    page: Vec<u8>,
    done: u64,
}

/// What a merge did to the file.
#[derive(Debug)]
pub struct Merged {
    /// The new version.
    pub version: Version,
    /// Blocks that it does without.
    pub replaced: Vec<(u64, u16)>,
    /// Blocks that were written for it.
    pub written: Vec<(u64, u16)>,
}

impl Merge {
    /// Begins to merge `changes` into `old`. The new version holds the keys within `clip`, as of the
    /// position that `old` is moved to with the stamp.
    #[must_use]
    pub fn new(old: Version, changes: &Delta, clip: Clip) -> Self {
        Self {
            old,
            changes: changes.clone(),
            upcoming: VecDeque::with_capacity(UPCOMING_CHANGES),
            clip,
            height: None,
            merged: None,
            frames: Vec::new(),
            leaf: None,
            pending: Pending::default(),
            new: None,
            items: old.items as i64,
            bytes: old.bytes as i64,
            left_out: 0.0,
            estimated: old.estimated,
            written: Vec::new(),
            replaced: Vec::new(),
            page: Vec::new(),
            done: 0,
        }
    }

    /// Begins to build what is to stand in for a damaged leaf or node of the height `level`, from all cells
    /// of its keys, `clip`.
    #[must_use]
    pub fn instead(cells: &Delta, clip: Clip, level: u8) -> Self {
        Self { height: Some(level), ..Self::new(Version::default(), cells, clip) }
    }

    /// How many changes there are, and how many are merged.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.changes.len() as u64, self.done)
    }

    /// The outcome of a merge that is done.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn finish(self) -> Merged {
        let Self { new, replaced, written, .. } = self;
        Merged { version: new.expect("the merge is done"), replaced, written }
    }

    /// Gives the merge up: what it has written is free again.
    pub fn abandon(self, space: &mut Space) {
        for (block, blocks) in self.written {
            space.release(block, blocks);
        }
    }

    /// Goes on for up to `leaves` leaves.
    pub fn advance(&mut self, shop: &mut Workshop<'_>, feed: &mut Feed, leaves: usize) -> Progress {
        if self.new.is_some() {
            return Progress::Done;
        }
        if self.frames.is_empty() && !self.open_root(shop, feed) {
            return Progress::Waits;
        }
        let mut left = leaves;
        while self.new.is_none() {
            if left == 0 || shop.batches.is_full() {
                return Progress::More;
            }
            if self.leaf.is_some() {
                self.merge_leaf(shop);
                left -= 1;
                continue;
            }
            let frame = self.frames.last().expect("a frame is open until the merge is done");
            if frame.next == frame.children.len() {
                self.close(shop);
            } else if !self.take_child(shop, feed) {
                return Progress::Waits;
            }
        }
        Progress::Done
    }

    fn open_root(&mut self, shop: &Workshop<'_>, feed: &mut Feed) -> bool {
        let Clip { low, high } = self.clip.clone();
        let share = 1.0;
        let frame = match self.old.root {
            None => {
                self.leaf = Some(OpenLeaf { page: Vec::new(), next: 0, high: high.clone() });
                self.pending.low = Some(low.clone());
                let (children, new) = (Vec::new(), Vec::new());
                let changed = true;
                Frame { level: 1, low, high, old: None, children, next: 0, ahead: 0, new, changed, share }
            }
            Some(root) => {
                let pointer = shop.redirects.resolve(&root);
                let Some(page) = feed.page(shop.cache, &pointer) else {
                    feed.need(pointer);
                    return false;
                };
                let whole = low.is_empty() && high.is_empty();
                let changed = !whole || pointer != root;
                // The old root holds every key: its outermost children may reach beyond the clip.
                let (low, high) = (Vec::new(), Vec::new());
                if level_of(page) == 0 {
                    let children = vec![Child { separator: Vec::new(), pointer: root }];
                    let new = Vec::new();
                    Frame { level: 1, low, high, old: None, children, next: 0, ahead: 0, new, changed, share }
                } else {
                    let (level, children) = (level_of(page), NodeView::new(page).to_children());
                    let (old, new) = (Some(OldNode::new(root, pointer)), Vec::new());
                    feed.done_with(&pointer);
                    Frame { level, low, high, old, children, next: 0, ahead: 0, new, changed, share }
                }
            }
        };
        self.frames.push(frame);
        true
    }

    /// The first change that is not merged yet.
    fn next_change(&mut self) -> Option<&Change> {
        if self.upcoming.is_empty() {
            let from: (Bound<&[u8]>, Bound<&[u8]>) = match &self.merged {
                Some(merged) => (Bound::Excluded(&merged.key), Bound::Unbounded),
                None => (Bound::Included(&self.clip.low), Bound::Unbounded),
            };
            let changes = self.changes.range(from).take(UPCOMING_CHANGES);
            let within = changes.take_while(|change| is_below(&change.key, &self.clip.high));
            self.upcoming.extend(within.cloned());
        }
        self.upcoming.front().map(|change| &**change)
    }

    /// Whether a change is to come for a key that is not below `start`, and below `end`.
    fn changes_within(&self, start: &[u8], end: &[u8]) -> bool {
        let place = self.upcoming.partition_point(|change| compare_keys(&change.key, start).is_lt());
        match self.upcoming.get(place) {
            Some(change) => is_below(&change.key, end),
            None => bounds(start, end).is_some_and(|range| self.changes.range(range).next().is_some()),
        }
    }

    /// Takes the next child of the innermost frame. Returns false when a page is wanted first.
    fn take_child(&mut self, shop: &mut Workshop<'_>, feed: &mut Feed) -> bool {
        let frame = self.frames.last().expect("a frame is open");
        let child = &frame.children[frame.next];
        let end = frame.end_of(frame.next).to_vec();
        // The first child also takes what lies before its separator.
        let start = if frame.next == 0 { frame.low.clone() } else { child.separator.clone() };
        let (separator, pointer, is_leaf) = (child.separator.clone(), child.pointer, frame.level == 1);
        let outside = (!end.is_empty() && end <= self.clip.low) || !is_below(&start, &self.clip.high);
        if outside {
            let frame = self.frames.last_mut().expect("a frame is open");
            frame.next += 1;
            frame.changed = true;
            self.left_out += frame.share_of_child();
            return true;
        }
        let cut =
            start < self.clip.low || (!self.clip.high.is_empty() && (end.is_empty() || end > self.clip.high));
        let changes = self.next_change().is_some_and(|change| is_below(&change.key, &end));
        let redirected = shop.redirects.within(shop.stamp.tree, &start, &end);
        let fills_up = is_leaf && !self.pending.is_empty() && self.pending.is_small();
        if !(changes || cut || fills_up || redirected) {
            if is_leaf {
                self.write_pending(shop, false);
            }
            let frame = self.frames.last_mut().expect("a frame is open");
            frame.new.push(Child { separator, pointer });
            frame.next += 1;
            return true;
        }
        let resolved = shop.redirects.resolve(&pointer);
        if is_leaf {
            self.read_ahead(shop, feed);
        }
        let Some(page) = feed.page(shop.cache, &resolved) else {
            feed.need(resolved);
            return false;
        };
        let hot = shop.cache.contains(&resolved);
        let level = level_of(page);
        let frame = self.frames.last_mut().expect("a frame is open");
        frame.next += 1;
        frame.changed = true;
        let share = frame.share_of_child();
        if is_leaf {
            let page = page.to_vec();
            self.pending.low.get_or_insert(separator);
            self.pending.hot |= hot;
            self.leaf = Some(OpenLeaf { page, next: 0, high: end });
            self.replace(shop, OldNode::new(pointer, resolved));
        } else {
            let children = NodeView::new(page).to_children();
            let (old, new) = (Some(OldNode::new(pointer, resolved)), Vec::new());
            let changed = resolved != pointer;
            let (low, high) = (separator, end);
            let frame = Frame { level, low, high, old, children, next: 0, ahead: 0, new, changed, share };
            self.frames.push(frame);
        }
        feed.done_with(&resolved);
        true
    }

    /// The leaf or node that the merge waits for as `page`.
    #[must_use]
    pub fn place_of(&self, page: &PagePointer, redirects: &Redirects) -> Option<Place> {
        let Some(frame) = self.frames.last() else {
            let unit = self.old.root.filter(|root| redirects.resolve(root) == *page)?;
            return Some(Place { unit, level: None, low: Vec::new(), high: Vec::new() });
        };
        let place = frame.children.iter().position(|child| redirects.resolve(&child.pointer) == *page)?;
        let Child { separator, pointer } = &frame.children[place];
        let high = frame.end_of(place).to_vec();
        Some(Place { unit: *pointer, level: Some(frame.level - 1), low: separator.clone(), high })
    }

    /// Asks for the leaves that will change next.
    fn read_ahead(&mut self, shop: &Workshop<'_>, feed: &mut Feed) {
        let frame = self.frames.last().expect("a frame is open");
        let mut ahead = frame.ahead.max(frame.next);
        // Many at a time: those that stand next to each other are read together.
        if feed.pages() > MERGE_READ_AHEAD / 2 {
            return;
        }
        while ahead < frame.children.len() && feed.pages() < MERGE_READ_AHEAD {
            let child = &frame.children[ahead];
            let pointer = shop.redirects.resolve(&child.pointer);
            let (start, end) = self.clip.within(&child.separator, frame.end_of(ahead));
            if self.changes_within(start, end) && !shop.cache.contains(&pointer) {
                feed.want(pointer);
            }
            ahead += 1;
        }
        self.frames.last_mut().expect("a frame is open").ahead = ahead;
    }

    /// The new version does without this page, and without what stood in for it.
    fn replace(&mut self, shop: &mut Workshop<'_>, old: OldNode) {
        for page in [Some(old.pointer), old.instead].into_iter().flatten() {
            self.give_up(shop, page.block, page.blocks);
        }
        self.estimated |= old.instead.is_some();
    }

    fn give_up(&mut self, shop: &mut Workshop<'_>, block: u64, blocks: u16) {
        if planted::active(Planted::ReuseTooEarly) {
            shop.space.release(block, blocks);
        } else {
            self.replaced.push((block, blocks));
        }
    }

    /// Moves the open leaf's cells and the changes of its range to the pending cells; a part of them when
    /// there are many.
    fn merge_leaf(&mut self, shop: &mut Workshop<'_>) {
        let OpenLeaf { page, mut next, high } = self.leaf.take().expect("a leaf is open");
        let view = (!page.is_empty()).then(|| LeafView::new(&page));
        let cells = view.map_or(0, |view| view.cells());
        let mut key = Vec::new();
        while !self.pending.is_large() {
            let cell = view.filter(|_| next < cells).map(|view| (view.prefix(), view.cell(next)));
            if let Some((prefix, cell)) = &cell {
                key.clear();
                key.extend_from_slice(prefix);
                key.extend_from_slice(cell.key_rest);
            }
            let change = self.next_change().filter(|change| is_below(&change.key, &high));
            let order = match (&cell, change) {
                (None, None) => {
                    // The last leaf of a node is written with it.
                    if !self.pending.is_small() {
                        self.write_pending(shop, false);
                    }
                    return;
                }
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), Some(change)) => compare_keys(&key, &change.key),
            };
            if let Some((prefix, cell)) = cell.filter(|_| order.is_le()) {
                next += 1;
                if order.is_eq() {
                    self.uncount(shop, &key, &cell.value);
                } else if self.clip.holds(&key) {
                    self.pending.push(prefix, cell.key_rest, cell.meta, cell.value);
                } else {
                    // Whoever holds that half holds the run of an item, too.
                    self.items -= 1;
                    self.bytes -= (key.len() + cell.value.item_bytes()) as i64;
                }
            }
            if order.is_ge() {
                let change = self.upcoming.pop_front().expect("it was just looked at");
                self.take_change(shop, &change);
                self.merged = Some(change);
            }
        }
        self.leaf = Some(OpenLeaf { page, next, high });
        self.write_pending(shop, true);
    }

    fn uncount(&mut self, shop: &mut Workshop<'_>, key: &[u8], value: &Value<'_>) {
        self.items -= 1;
        self.bytes -= (key.len() + value.item_bytes()) as i64;
        if let Value::Overflow { run, .. } = value {
            self.give_up(shop, run.block, run.blocks);
        }
    }

    fn take_change(&mut self, shop: &mut Workshop<'_>, change: &Change) {
        self.done += 1;
        let Change { key, cell: Some(cell) } = change else {
            return;
        };
        self.items += 1;
        self.bytes += (key.len() + cell.archive.len()) as i64;
        let meta = CellMeta { slot: cell.slot, timestamp: cell.timestamp, checksum: cell.checksum };
        let value = if cell.archive.len() > INLINE_BYTES_MAX {
            let run = self.write_overflow(shop, &cell.archive);
            Value::Overflow { run, bytes: cell.archive.len() as u32 }
        } else {
            Value::Inline(&cell.archive)
        };
        self.pending.push(b"", key, meta, value);
    }

    fn write_overflow(&mut self, shop: &mut Workshop<'_>, item: &[u8]) -> PagePointer {
        let mut page = std::mem::take(&mut self.page);
        page.clear();
        page.resize(PAGE_HEADER_BYTES, 0);
        page.extend_from_slice(item);
        page.resize(round_up(page.len()), 0);
        let content = Content {
            kind: PageKind::Overflow,
            level: 0,
            cells: 0,
            bytes: item.len() as u32,
            prefix_bytes: 0,
            overflow: false,
        };
        let pointer = self.write_page(shop, &mut page, &content, None);
        self.page = page;
        pointer
    }

    fn write_page(
        &mut self,
        shop: &mut Workshop<'_>,
        page: &mut [u8],
        content: &Content,
        cache_as: Option<PageClass>,
    ) -> PagePointer {
        let blocks = (page.len() / BLOCK_BYTES) as u16;
        let block = if shop.loose { shop.space.allocate_loose(blocks) } else { shop.space.allocate(blocks) };
        self.written.push((block, blocks));
        let pointer = seal(page, &shop.stamp, content, block);
        shop.batches.add(block, page);
        shop.cache.forget(block);
        if let Some(class) = cache_as {
            let mut frame = shop.cache.take_frame(page.len());
            frame.copy_from_slice(page);
            shop.cache.insert(pointer, class, frame);
        }
        pointer
    }

    /// Writes pending cells as leaves into the innermost frame: all of them, or while more are to come as
    /// many as make full pages.
    fn write_pending(&mut self, shop: &mut Workshop<'_>, more_to_come: bool) {
        let pending = std::mem::take(&mut self.pending);
        let pages = pending.divide(more_to_come);
        let mut page = std::mem::take(&mut self.page);
        let mut separator = pending.low.clone().unwrap_or_default();
        let mut cut = 0;
        let cache_as = pending.hot.then_some(PageClass::Leaf);
        for range in pages {
            cut = range.end;
            let cells = pending.cells(range.start..range.end);
            let content = leaf::lay_out(&cells, &mut page);
            let pointer = self.write_page(shop, &mut page, &content, cache_as);
            let frame = self.frames.last_mut().expect("a frame is open");
            frame.new.push(Child { separator, pointer });
            let next = pending.cells(range.end..range.end + 1 - usize::from(range.end == pending.len()));
            separator = match (cells.last(), next.first()) {
                (Some(left), Some(right)) => separator_between(left.key, right.key),
                (_, None) | (None, _) => Vec::new(),
            };
        }
        self.page = page;
        if more_to_come {
            self.pending = pending;
            if cut > 0 {
                self.pending.cut(cut);
                self.pending.low = Some(separator);
            }
        }
    }

    /// All children of the innermost frame are done.
    fn close(&mut self, shop: &mut Workshop<'_>) {
        if self.frames.last().is_some_and(|frame| frame.level == 1) {
            self.write_pending(shop, false);
        }
        let mut frame = self.frames.pop().expect("a frame is open");
        // What stands in for a damaged node is written anew with its parent, whatever its children are.
        let as_before = frame.old.is_some_and(|old| old.instead.is_none()) && frame.new == frame.children;
        let changed = frame.changed && !as_before;
        if let Some(first) = frame.new.first_mut() {
            first.separator.clone_from(&frame.low);
        }
        if let Some(old) = frame.old.filter(|_| changed) {
            self.replace(shop, old);
        }
        if self.frames.is_empty() {
            let root = if changed { self.build_root(shop, frame) } else { self.old.root };
            let kept = |counted: i64, old: u64| (counted as f64 - self.left_out * old as f64).max(0.0) as u64;
            let exact = self.left_out == 0.0;
            let items = if exact { self.items.max(0) as u64 } else { kept(self.items, self.old.items) };
            let bytes = if exact { self.bytes.max(0) as u64 } else { kept(self.bytes, self.old.bytes) };
            let none = root.is_none();
            self.new = Some(Version {
                root,
                items: if none { 0 } else { items },
                bytes: if none { 0 } else { bytes },
                position: shop.stamp.position,
                estimated: !none && (self.estimated || !exact),
            });
            return;
        }
        let nodes = match frame.old {
            Some(old) if !changed => vec![Child { separator: frame.low, pointer: old.pointer }],
            Some(_) | None => self.write_nodes(shop, frame.new, frame.level),
        };
        self.frames.last_mut().expect("there is a parent").new.extend(nodes);
    }

    /// Builds levels above `frame`'s children until there is one root.
    fn build_root(&mut self, shop: &mut Workshop<'_>, frame: Frame) -> Option<PagePointer> {
        let (mut tops, mut level) = (frame.new, frame.level);
        if let Some(height) = self.height
            && tops.is_empty()
        {
            tops.push(self.write_empty_leaf(shop));
            assert!(height < u8::MAX, "a tree has few levels");
        }
        while tops.len() > 1 || self.height.is_some_and(|height| level <= height) {
            tops = self.write_nodes(shop, tops, level);
            level += 1;
        }
        tops.pop().map(|top| top.pointer)
    }

    fn write_empty_leaf(&mut self, shop: &mut Workshop<'_>) -> Child {
        let mut page = std::mem::take(&mut self.page);
        let content = leaf::lay_out(&[], &mut page);
        let pointer = self.write_page(shop, &mut page, &content, None);
        self.page = page;
        Child { separator: self.clip.low.clone(), pointer }
    }

    /// Writes nodes over `children`, evenly filled.
    fn write_nodes(&mut self, shop: &mut Workshop<'_>, children: Vec<Child>, level: u8) -> Vec<Child> {
        if children.is_empty() {
            return Vec::new();
        }
        let top = self.height == Some(level);
        // What stands in for a node is one node, be it longer than others.
        let limit = if top { NODE_BYTES_MAX } else { PAGE_BYTES - PAGE_HEADER_BYTES };
        let total: usize = children.iter().map(Child::bytes).sum();
        let even = total.div_ceil(total.div_ceil(limit)).min(limit);
        let mut page = std::mem::take(&mut self.page);
        let mut nodes = Vec::new();
        let mut rest = &children[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|child| {
                bytes += child.bytes();
                bytes <= limit && bytes - child.bytes() < even
            });
            let mut count = fits.count().max(NODE_CHILDREN_MIN).min(rest.len());
            if rest.len() - count == 1 {
                // A node with a single child helps nobody.
                count = if count > NODE_CHILDREN_MIN { count - 1 } else { rest.len() };
            }
            let (now, later) = rest.split_at(count);
            let content = node::lay_out(now, level, &mut page);
            let pointer = self.write_page(shop, &mut page, &content, Some(PageClass::Inner));
            nodes.push(Child { separator: now[0].separator.clone(), pointer });
            rest = later;
        }
        self.page = page;
        nodes
    }
}

/// Whether a key lies before an end, an empty end being none.
fn is_below(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || compare_keys(key, end).is_lt()
}
