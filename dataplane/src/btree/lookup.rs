//! Reading a version of the tree: one key, or the cells of a range in either direction. Nothing here waits: a
//! page that is not in memory is a [`Miss`], and whoever asked asks again when it has come.

use super::cache::Cache;
use super::feed::Feed;
use super::leaf::{CellMeta, LeafView, Value};
use super::node::NodeView;
use super::page::{level_of, overflow_item};
use super::pointer::PagePointer;
use super::version::{Redirects, Version};
use arrayvec::ArrayVec;

/// Pages that a scan names at once: the one that it needs, and those that it will need next.
pub const READ_AHEAD: usize = 32;

/// Levels of a tree, at most: with four children a node, more than a file can hold.
const LEVELS_MAX: usize = 24;

/// Pages that are not in memory. The first is needed, the others will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Which.
    pub pages: Vec<PagePointer>,
    /// What the first is good for: should it be damaged, that must be built anew.
    pub place: Box<Place>,
}

/// A leaf or node with the keys that it may hold, `low <= key < high`; an empty `high` is no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The leaf or node, as its parent points to it. For an overflow run: the leaf that points to it.
    pub unit: PagePointer,
    /// How high it stands; none: it is the root.
    pub level: Option<u8>,
    /// First key.
    pub low: Vec<u8>,
    /// First key beyond.
    pub high: Vec<u8>,
}

impl Place {
    /// Whether `key` is among the keys that it may hold.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        self.low[..] <= *key && (self.high.is_empty() || *key < self.high[..])
    }
}

/// The way down to a page: each node, and which of its children was taken.
#[derive(Debug, Default)]
struct Path<'a> {
    steps: ArrayVec<(NodeView<'a>, usize, u8), LEVELS_MAX>,
}

impl<'a> Path<'a> {
    fn parent(&self) -> Option<(NodeView<'a>, usize)> {
        self.steps.last().map(|(node, place, _)| (*node, *place))
    }

    fn place(&self, unit: PagePointer) -> Place {
        let low = self.parent().map_or_else(Vec::new, |(node, place)| node.separator(place));
        let next = self.steps.iter().rev().find(|(node, place, _)| place + 1 < node.children());
        let high = next.map_or_else(Vec::new, |(node, place, _)| node.separator(place + 1));
        Place { unit, level: self.steps.last().map(|(_, _, level)| level - 1), low, high }
    }

    fn miss(&self, missing: PagePointer, unit: PagePointer) -> Miss {
        Miss { pages: vec![missing], place: Box::new(self.place(unit)) }
    }
}

/// Where pages are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pages<'a> {
    /// The core's cache.
    pub cache: Option<&'a Cache>,
    /// Pages that were read for the one who asks.
    pub feed: Option<&'a Feed>,
    /// Pages that stand in for damaged ones.
    pub redirects: Option<&'a Redirects>,
}

impl<'a> Pages<'a> {
    fn resolve(&self, pointer: &PagePointer) -> PagePointer {
        self.redirects.map_or(*pointer, |redirects| redirects.resolve(pointer))
    }

    /// The page that `path` leads to, verified.
    fn page(&self, pointer: &PagePointer, path: &Path<'a>) -> Result<&'a [u8], Miss> {
        let resolved = self.resolve(pointer);
        self.find(&resolved).ok_or_else(|| path.miss(resolved, *pointer))
    }

    fn find(&self, pointer: &PagePointer) -> Option<&'a [u8]> {
        match (self.feed, self.cache) {
            (Some(feed), Some(cache)) => feed.page(cache, pointer),
            (None, Some(cache)) => cache.get(pointer),
            (_, None) => None,
        }
    }

    fn has(&self, pointer: &PagePointer) -> bool {
        match (self.feed, self.cache) {
            (Some(feed), Some(cache)) => feed.page(cache, pointer).is_some(),
            (None, Some(cache)) => cache.contains(pointer),
            (_, None) => false,
        }
    }

    /// The item of a cell in the leaf `unit`.
    fn item(&self, value: &Value<'a>, unit: PagePointer, path: &Path<'a>) -> Result<&'a [u8], Miss> {
        match value {
            Value::Inline(item) => Ok(item),
            Value::Overflow { run, .. } => {
                self.find(run).map(overflow_item).ok_or_else(|| path.miss(*run, unit))
            }
        }
    }
}

/// An item that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// What stands beside it.
    pub meta: CellMeta,
    /// Its archive.
    pub archive: &'a [u8],
}

/// The item under `key`.
///
/// # Errors
/// When a page on the way is not in memory.
pub fn get<'a>(version: &Version, pages: &Pages<'a>, key: &[u8]) -> Result<Option<Found<'a>>, Miss> {
    let Some(mut pointer) = version.root else {
        return Ok(None);
    };
    let mut path = Path::default();
    loop {
        let page = pages.page(&pointer, &path)?;
        let level = level_of(page);
        if level == 0 {
            let leaf = LeafView::new(page);
            let Ok(place) = leaf.find(key) else {
                return Ok(None);
            };
            let cell = leaf.cell(place);
            let archive = pages.item(&cell.value, pointer, &path)?;
            return Ok(Some(Found { meta: cell.meta, archive }));
        }
        let node = NodeView::new(page);
        let place = node.find(key);
        pointer = node.pointer(place);
        path.steps.push((node, place, level));
    }
}

/// A key in the middle of a version, as far as children of a node hold alike; none in one that holds less
/// than two items.
///
/// # Errors
/// When a page on the way is not in memory.
pub fn middle(version: &Version, pages: &Pages<'_>) -> Result<Option<Vec<u8>>, Miss> {
    let Some(mut pointer) = version.root else {
        return Ok(None);
    };
    let mut path = Path::default();
    // Of what hangs below: so much is to lie before the key.
    let mut before = 0.5;
    loop {
        let page = pages.page(&pointer, &path)?;
        let level = level_of(page);
        let children = if level == 0 { LeafView::new(page).cells() } else { NodeView::new(page).children() };
        let at = before * children as f64;
        let place = (at as usize).min(children.saturating_sub(1));
        before = at - place as f64;
        if level == 0 {
            let leaf = LeafView::new(page);
            let splits = children > 1 || (children == 1 && path.parent().is_some());
            return Ok(splits.then(|| [leaf.prefix(), leaf.cell(place).key_rest].concat()));
        }
        let node = NodeView::new(page);
        pointer = node.pointer(place);
        path.steps.push((node, place, level));
    }
}

/// Walks over the cells with `lower <= key < upper` in one direction. An empty `upper` is no end.
#[derive(Debug)]
pub struct Cursor<'a> {
    pages: Pages<'a>,
    root: Option<PagePointer>,
    /// What is left of the range.
    lower: Vec<u8>,
    upper: Vec<u8>,
    forward: bool,
    leaf: Option<LeafView<'a>>,
    /// The leaf, as its parent points to it, and the way to it.
    unit: Option<PagePointer>,
    path: Path<'a>,
    /// The next cell, or when walking back one behind it.
    place: usize,
    /// Where the next leaf begins, or when walking back where it ends.
    border: Option<Vec<u8>>,
    key: Vec<u8>,
}

impl<'a> Cursor<'a> {
    /// Begins at the range's beginning, in its direction.
    #[must_use]
    pub fn new(version: &Version, pages: Pages<'a>, lower: &[u8], upper: &[u8], forward: bool) -> Self {
        let empty = !upper.is_empty() && lower >= upper;
        Self {
            pages,
            root: version.root.filter(|_| !empty),
            lower: lower.to_vec(),
            upper: upper.to_vec(),
            forward,
            leaf: None,
            unit: None,
            path: Path::default(),
            place: 0,
            border: None,
            key: Vec::new(),
        }
    }

    /// The key of the cell that [`next`](Self::next) gave last.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The next cell.
    ///
    /// # Errors
    /// When a page is not in memory. The cursor stays where it is.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and its key is read from the cursor")]
    pub fn next(&mut self) -> Result<Option<Found<'a>>, Miss> {
        loop {
            let Some(leaf) = self.leaf else {
                if !self.open_leaf()? {
                    return Ok(None);
                }
                continue;
            };
            let ended = if self.forward { self.place >= leaf.cells() } else { self.place == 0 };
            if ended {
                self.leave_leaf();
                continue;
            }
            let place = if self.forward { self.place } else { self.place - 1 };
            let cell = leaf.cell(place);
            self.key.clear();
            self.key.extend_from_slice(leaf.prefix());
            self.key.extend_from_slice(cell.key_rest);
            let outside = if self.forward {
                !self.upper.is_empty() && self.key >= self.upper
            } else {
                self.key < self.lower
            };
            if outside {
                self.root = None;
                self.leaf = None;
                return Ok(None);
            }
            let unit = self.unit.expect("a leaf is open");
            let item = self.pages.item(&cell.value, unit, &self.path);
            let archive = item.map_err(|miss| self.and_further_runs(miss, leaf))?;
            if self.forward {
                self.place += 1;
            } else {
                self.place -= 1;
            }
            return Ok(Some(Found { meta: cell.meta, archive }));
        }
    }

    /// Names the other overflow runs of the leaf that are still to be walked over.
    fn and_further_runs(&self, mut miss: Miss, leaf: LeafView<'a>) -> Miss {
        let rest = if self.forward { self.place + 1..leaf.cells() } else { 0..self.place.saturating_sub(1) };
        for place in rest {
            if let Value::Overflow { run, .. } = leaf.cell(place).value
                && !self.pages.has(&run)
                && miss.pages.len() < READ_AHEAD
            {
                miss.pages.push(run);
            }
        }
        miss
    }

    fn leave_leaf(&mut self) {
        self.leaf = None;
        match self.border.take() {
            Some(border) if self.forward => self.lower = border,
            Some(border) => self.upper = border,
            None => self.root = None,
        }
        if !self.upper.is_empty() && self.lower >= self.upper {
            self.root = None;
        }
    }

    /// Goes down to the leaf with which the rest of the range begins. Returns whether there is one.
    fn open_leaf(&mut self) -> Result<bool, Miss> {
        let Some(mut pointer) = self.root else {
            return Ok(false);
        };
        let mut border = None;
        self.path.steps.clear();
        loop {
            let page = match self.pages.page(&pointer, &self.path) {
                Ok(page) => page,
                Err(miss) => return Err(self.and_siblings(miss, self.path.parent())),
            };
            let level = level_of(page);
            if level == 0 {
                let leaf = LeafView::new(page);
                self.place = if self.forward {
                    leaf.find(&self.lower).unwrap_or_else(|place| place)
                } else if self.upper.is_empty() {
                    leaf.cells()
                } else {
                    leaf.find(&self.upper).unwrap_or_else(|place| place)
                };
                self.leaf = Some(leaf);
                self.unit = Some(pointer);
                self.border = border;
                return Ok(true);
            }
            let node = NodeView::new(page);
            let place = if self.forward { node.find(&self.lower) } else { node.find_below(&self.upper) };
            if self.forward && place + 1 < node.children() {
                border = Some(node.separator(place + 1));
            } else if !self.forward && place > 0 {
                border = Some(node.separator(place));
            }
            pointer = node.pointer(place);
            self.path.steps.push((node, place, level));
        }
    }

    /// Names the siblings that the walk will come to.
    fn and_siblings(&self, mut miss: Miss, parent: Option<(NodeView<'a>, usize)>) -> Miss {
        let Some((node, place)) = parent else {
            return miss;
        };
        let mut sibling = place;
        while miss.pages.len() < READ_AHEAD {
            if self.forward {
                sibling += 1;
                let wanted = sibling < node.children()
                    && (self.upper.is_empty() || node.separator(sibling) < self.upper);
                if !wanted {
                    break;
                }
            } else {
                if sibling == 0 || node.separator(sibling) <= self.lower {
                    break;
                }
                sibling -= 1;
            }
            let pointer = self.pages.resolve(&node.pointer(sibling));
            if !self.pages.has(&pointer) {
                miss.pages.push(pointer);
            }
        }
        miss
    }
}
