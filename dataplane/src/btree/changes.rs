//! Changes in the order of their keys: a B+tree in memory whose nodes are shared by its clones.
//!
//! ```text
//!  inner   starts [ .  | s1 | s2 ]      keys begin with a hash: its eight bytes nearly always tell which
//!          nodes  [ n0 | n1 | n2 ]      way to go, and stand side by side
//!  leaf    starts [ a | b | c | d ]     a key is compared only where its start is equal
//!          changes[ A | B | C | D ]
//! ```
//!
//! With a hundred thousand keys of which each turn writes others, what a write costs is memory that no cache
//! has: three levels, and one look at the change that is replaced, which is written in place.
//!
//! A node that is full is divided on the way down. One that loses its last change is taken out, and none is
//! merged with its neighbour: "B-trees with inserts and deletes: why free-at-empty is better than
//! merge-at-half" (Johnson, Shasha 1993).
//!
//! What holds: all keys in a node are below those in the next one; `s1` is at most the start of every key in
//! `n1`, and at least that of every key in `n0`. It need not be the start of a key that is still there.

use super::delta::{Cell, Change, Range};
use crate::limits::ENTRIES_SEEN_AHEAD;
use arrayvec::ArrayVec;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// Changes or nodes in a node: with both arrays, a kilobyte.
const NODE_WIDTH: usize = 60;

/// Most levels. A node is divided when it is full, so each level takes thirty times as many writes as the one
/// below it, whatever is removed meanwhile.
const LEVELS_MAX: usize = 16;

/// The first bytes of a key, as a number that orders as they do. A key that is shorter is filled with zeros,
/// and so is equal to some that are longer, and never above one.
pub(super) fn start_of(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(start) => u64::from_be_bytes(*start),
        None => {
            let mut start = [0; 8];
            start[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(start)
        }
    }
}

/// Changes, one for each key, in their order. Cloning costs a pointer.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes<const WIDTH: usize = NODE_WIDTH> {
    root: Arc<Node<WIDTH>>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Node<const WIDTH: usize> {
    /// Of a leaf, the start of each key; of others, what lies between a node and the one before it.
    starts: ArrayVec<u64, WIDTH>,
    below: Below<WIDTH>,
}

#[derive(Clone, Debug)]
enum Below<const WIDTH: usize> {
    Changes(ArrayVec<Arc<Change>, WIDTH>),
    /// None of them is empty.
    Nodes(ArrayVec<Arc<Node<WIDTH>>, WIDTH>),
}

/// The place of a key.
pub(super) enum Place<'a, const WIDTH: usize> {
    /// It has a change.
    Taken(&'a mut Arc<Change>),
    /// It has none.
    Free(Vacancy<'a, WIDTH>),
}

/// Where a change that is not there would stand.
pub(super) struct Vacancy<'a, const WIDTH: usize> {
    starts: &'a mut ArrayVec<u64, WIDTH>,
    changes: &'a mut ArrayVec<Arc<Change>, WIDTH>,
    at: usize,
    len: &'a mut usize,
}

impl<const WIDTH: usize> Vacancy<'_, WIDTH> {
    /// Puts the change of the key that was looked for.
    pub(super) fn fill(self, change: Arc<Change>) {
        self.starts.insert(self.at, start_of(&change.key));
        self.changes.insert(self.at, change);
        *self.len += 1;
    }
}

impl<const WIDTH: usize> Changes<WIDTH> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The change of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Change> {
        let (mut node, start) = (&*self.root, start_of(key));
        loop {
            match &node.below {
                Below::Nodes(nodes) => node = &nodes[towards(&node.starts, nodes, start, key)],
                Below::Changes(changes) => {
                    let at = find(&node.starts, changes, start, key).ok()?;
                    return Some(&changes[at]);
                }
            }
        }
    }

    /// Reads what writes of these keys will touch, and returns how many of the items there are nobody else's.
    /// Whoever goes down the tree waits for memory at each step. Here all keys take a step together, and none
    /// waits for another's: "Improving hash join performance through prefetching" (Chen, Ailamaki, Gibbons,
    /// Mowry 2004) calls it group prefetching.
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> usize {
        let ways = keys.map(|key| (start_of(key), key, &*self.root));
        let mut ways: ArrayVec<_, ENTRIES_SEEN_AHEAD> = ways.take(ENTRIES_SEEN_AHEAD).collect();
        while ways.first().is_some_and(|(_, _, node)| matches!(node.below, Below::Nodes(_))) {
            for (start, key, node) in &mut ways {
                if let Below::Nodes(nodes) = &node.below {
                    *node = &nodes[towards(&node.starts, nodes, *start, key)];
                }
            }
        }
        let places = ways.iter().filter_map(|(start, _, node)| match &node.below {
            Below::Changes(changes) => Some((*start, changes.get(below(&node.starts, *start))?)),
            Below::Nodes(_) => None,
        });
        let places: ArrayVec<(u64, &Arc<Change>), ENTRIES_SEEN_AHEAD> = places.collect();
        let found = places.iter().filter(|(start, change)| start_of(&change.key) == *start);
        let cells = found.filter_map(|(_, change)| change.cell.as_ref());
        let cells: ArrayVec<&Cell, ENTRIES_SEEN_AHEAD> = cells.collect();
        cells.iter().filter(|cell| cell.archive.is_unique()).count()
    }

    /// The place of a key, to write there.
    pub(super) fn place(&mut self, key: &[u8]) -> Place<'_, WIDTH> {
        let start = start_of(key);
        if self.root.starts.is_full() {
            let nodes = Below::Nodes([std::mem::take(&mut self.root)].into_iter().collect());
            self.root = Arc::new(Node { starts: [0].into_iter().collect(), below: nodes });
        }
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            let starts = &mut node.starts;
            match &mut node.below {
                Below::Nodes(nodes) => {
                    let mut at = towards(starts, nodes, start, key);
                    if nodes[at].starts.is_full() {
                        let upper = Arc::make_mut(&mut nodes[at]).divide();
                        starts.insert(at + 1, upper.starts[0]);
                        nodes.insert(at + 1, Arc::new(upper));
                        at = towards(starts, nodes, start, key);
                    }
                    node = Arc::make_mut(&mut nodes[at]);
                }
                Below::Changes(changes) => {
                    return match find(starts, changes, start, key) {
                        Ok(at) => Place::Taken(&mut changes[at]),
                        Err(at) => Place::Free(Vacancy { starts, changes, at, len: &mut self.len }),
                    };
                }
            }
        }
    }

    /// Takes the change of a key out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Arc<Change>> {
        self.take_out(Some((start_of(key), key)))
    }

    /// Takes the first one out.
    pub(super) fn remove_first(&mut self) -> Option<Arc<Change>> {
        self.take_out(None)
    }

    fn take_out(&mut self, sought: Option<(u64, &[u8])>) -> Option<Arc<Change>> {
        let taken = Arc::make_mut(&mut self.root).take_out(sought)?;
        self.len -= 1;
        while let Below::Nodes(nodes) = &self.root.below {
            match &nodes[..] {
                [] => self.root = Arc::default(),
                [only] => self.root = only.clone(),
                _ => break,
            }
        }
        Some(taken)
    }

    /// The changes within a range, in the order of their keys.
    pub(super) fn range(&self, (lower, upper): Range<'_>) -> Within<'_, WIDTH> {
        if is_empty(lower, upper) {
            let nowhere = Position::first(&self.root);
            return Within { next: nowhere.clone(), end: nowhere };
        }
        let next = match lower {
            Bound::Unbounded => Position::first(&self.root),
            Bound::Included(key) => Position::seek(&self.root, key, false),
            Bound::Excluded(key) => Position::seek(&self.root, key, true),
        };
        let end = match upper {
            Bound::Unbounded => Position::last(&self.root),
            Bound::Included(key) => Position::seek(&self.root, key, true),
            Bound::Excluded(key) => Position::seek(&self.root, key, false),
        };
        Within { next, end }
    }
}

impl<const WIDTH: usize> Default for Node<WIDTH> {
    fn default() -> Self {
        Self { starts: ArrayVec::new(), below: Below::Changes(ArrayVec::new()) }
    }
}

impl<const WIDTH: usize> Node<WIDTH> {
    /// Takes the upper half away.
    fn divide(&mut self) -> Self {
        let half = self.starts.len() / 2;
        let below = match &mut self.below {
            Below::Changes(changes) => Below::Changes(changes.drain(half..).collect()),
            Below::Nodes(nodes) => Below::Nodes(nodes.drain(half..).collect()),
        };
        Self { starts: self.starts.drain(half..).collect(), below }
    }

    /// Takes the change of a key out, or the first one; the node may be empty then.
    fn take_out(&mut self, sought: Option<(u64, &[u8])>) -> Option<Arc<Change>> {
        match &mut self.below {
            Below::Changes(changes) => {
                let at = match sought {
                    Some((start, key)) => find(&self.starts, changes, start, key).ok()?,
                    None => 0,
                };
                let taken = changes.pop_at(at)?;
                self.starts.remove(at);
                Some(taken)
            }
            Below::Nodes(nodes) => {
                let at = sought.map_or(0, |(start, key)| towards(&self.starts, nodes, start, key));
                let node = Arc::make_mut(&mut nodes[at]);
                let taken = node.take_out(sought)?;
                if node.starts.is_empty() {
                    nodes.remove(at);
                    self.starts.remove(at);
                }
                Some(taken)
            }
        }
    }

    /// The first change; only an empty tree has none.
    fn first(&self) -> &Change {
        match &self.below {
            Below::Changes(changes) => &changes[0],
            Below::Nodes(nodes) => nodes[0].first(),
        }
    }
}

/// Which of `nodes` a key belongs to.
fn towards<const WIDTH: usize>(starts: &[u64], nodes: &[Arc<Node<WIDTH>>], start: u64, key: &[u8]) -> usize {
    let ahead = 1 + below(&starts[1..], start);
    let equal = starts[ahead..].iter().take_while(|other| **other == start).count();
    ahead + nodes[ahead..ahead + equal].partition_point(|node| compare(node.first(), key).is_le()) - 1
}

/// Where the change of a key stands, or would stand.
fn find(starts: &[u64], changes: &[Arc<Change>], start: u64, key: &[u8]) -> Result<usize, usize> {
    let ahead = below(starts, start);
    let equal = starts[ahead..].iter().take_while(|other| **other == start).count();
    let found = changes[ahead..ahead + equal].binary_search_by(|change| compare(change, key));
    found.map(|at| ahead + at).map_err(|at| ahead + at)
}

/// How many of `starts` lie below `start`.
fn below(starts: &[u64], start: u64) -> usize {
    starts.partition_point(|other| *other < start)
}

/// Whether no key can lie between.
fn is_empty(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower >= upper,
    }
}

fn compare(change: &Change, key: &[u8]) -> Ordering {
    change.key[..].cmp(key)
}

/// A place between two changes.
#[derive(Clone, Debug)]
struct Position<'a, const WIDTH: usize> {
    /// The nodes from the root, each with which of those below it is meant.
    above: ArrayVec<(&'a [Arc<Node<WIDTH>>], usize), LEVELS_MAX>,
    leaf: &'a [Arc<Change>],
    at: usize,
}

impl<'a, const WIDTH: usize> Position<'a, WIDTH> {
    /// Goes down from `node`, as `choose` says.
    fn descend(&mut self, mut node: &'a Node<WIDTH>, mut choose: impl FnMut(&'a Node<WIDTH>) -> usize) {
        loop {
            let at = choose(node);
            match &node.below {
                Below::Nodes(nodes) => {
                    self.above.push((nodes, at));
                    node = &nodes[at];
                }
                Below::Changes(changes) => {
                    (self.leaf, self.at) = (changes, at);
                    return;
                }
            }
        }
    }

    fn of(root: &'a Node<WIDTH>, choose: impl FnMut(&'a Node<WIDTH>) -> usize) -> Self {
        let mut position = Self { above: ArrayVec::new(), leaf: &[], at: 0 };
        position.descend(root, choose);
        position
    }

    fn first(root: &'a Node<WIDTH>) -> Self {
        Self::of(root, |_| 0)
    }

    fn last(root: &'a Node<WIDTH>) -> Self {
        Self::of(root, last_of)
    }

    /// Before the change of a key, or behind it.
    fn seek(root: &'a Node<WIDTH>, key: &[u8], behind: bool) -> Self {
        let start = start_of(key);
        Self::of(root, |node| match &node.below {
            Below::Nodes(nodes) => towards(&node.starts, nodes, start, key),
            Below::Changes(changes) => match find(&node.starts, changes, start, key) {
                Ok(at) => at + usize::from(behind),
                Err(at) => at,
            },
        })
    }

    /// Goes to the beginning of the next leaf, if there is one.
    fn next_leaf(&mut self) -> Option<()> {
        loop {
            let (nodes, at) = self.above.pop()?;
            if let Some(node) = nodes.get(at + 1) {
                self.above.push((nodes, at + 1));
                self.descend(node, |_| 0);
                return Some(());
            }
        }
    }

    /// Goes to the end of the leaf before, if there is one.
    fn leaf_before(&mut self) -> Option<()> {
        loop {
            let (nodes, at) = self.above.pop()?;
            if let Some(before) = at.checked_sub(1) {
                self.above.push((nodes, before));
                self.descend(&nodes[before], last_of);
                return Some(());
            }
        }
    }

    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.leaf, other.leaf) && self.at == other.at
    }
}

/// The last of the nodes below, or the end of the changes.
fn last_of<const WIDTH: usize>(node: &Node<WIDTH>) -> usize {
    match &node.below {
        Below::Nodes(nodes) => nodes.len() - 1,
        Below::Changes(changes) => changes.len(),
    }
}

/// Changes between two positions.
#[derive(Clone, Debug)]
pub(super) struct Within<'a, const WIDTH: usize> {
    next: Position<'a, WIDTH>,
    end: Position<'a, WIDTH>,
}

impl<'a, const WIDTH: usize> Iterator for Within<'a, WIDTH> {
    type Item = &'a Arc<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.next.is(&self.end) {
            if let Some(change) = self.next.leaf.get(self.next.at) {
                self.next.at += 1;
                return Some(change);
            }
            self.next.next_leaf()?;
        }
        None
    }
}

impl<const WIDTH: usize> DoubleEndedIterator for Within<'_, WIDTH> {
    fn next_back(&mut self) -> Option<Self::Item> {
        while !self.next.is(&self.end) {
            if let Some(before) = self.end.at.checked_sub(1) {
                self.end.at = before;
                return Some(&self.end.leaf[before]);
            }
            self.end.leaf_before()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use evenkeel_wire::ids::Slot;
    use evenkeel_wire::key::KeyBytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Vec<u8>, Arc<Change>>;

    /// Keys of which many have one start, and some are prefixes of others.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(0u8..3, 0..5),
            prop::collection::vec(0u8..3, 2).prop_map(|end| [&[1; 8][..], &end].concat()),
            prop::collection::vec(any::<u8>(), 0..12),
        ]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>),
        Remove(Vec<u8>),
        RemoveFirst,
        Clone,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => key().prop_map(Step::Put),
            3 => key().prop_map(Step::Remove),
            1 => Just(Step::RemoveFirst),
            1 => Just(Step::Clone),
        ]
    }

    fn put(changes: &mut Changes<4>, key: &[u8]) -> Arc<Change> {
        let change = Arc::new(Change { key: KeyBytes::from_slice(key), cell: None });
        match changes.place(key) {
            Place::Taken(place) => *place = change.clone(),
            Place::Free(vacancy) => vacancy.fill(change.clone()),
        }
        change
    }

    fn is_one(a: &Arc<Change>, b: &Arc<Change>) -> bool {
        Arc::ptr_eq(a, b)
    }

    /// Its changes are the model's, within all bounds and from both ends; and its nodes are in order.
    fn check(changes: &Changes<4>, model: &Model, bounds: &[Vec<u8>]) {
        assert_eq!(changes.len(), model.len());
        check_node(&changes.root, true);
        for key in bounds {
            let found = changes.get(key).map(std::ptr::from_ref);
            assert_eq!(found, model.get(key).map(Arc::as_ptr));
        }
        let ends = bounds.iter().map(|key| &key[..]);
        let ends = ends.flat_map(|key| [Bound::Included(key), Bound::Excluded(key)]);
        let ends: Vec<Bound<&[u8]>> = ends.chain([Bound::Unbounded]).collect();
        for (lower, upper) in ends.iter().flat_map(|lower| ends.iter().map(move |upper| (*lower, *upper))) {
            let expected: Vec<&Arc<Change>> = match is_empty(lower, upper) {
                true => vec![],
                false => model.range::<[u8], _>((lower, upper)).map(|(_, change)| change).collect(),
            };
            let forward: Vec<&Arc<Change>> = changes.range((lower, upper)).collect();
            assert!(forward.len() == expected.len());
            assert!(forward.iter().zip(&expected).all(|(a, b)| is_one(a, b)));
            let backward = changes.range((lower, upper)).rev();
            assert!(backward.zip(expected.iter().rev()).all(|(a, b)| is_one(a, b)));
            let (mut within, mut met) = (changes.range((lower, upper)), 0);
            while within.next().is_some() {
                met += 1 + usize::from(within.next_back().is_some());
            }
            assert_eq!(met, expected.len());
        }
    }

    fn check_node(node: &Node<4>, is_root: bool) {
        match &node.below {
            Below::Changes(changes) => {
                assert!(is_root || !changes.is_empty());
                let starts = changes.iter().map(|change| start_of(&change.key));
                assert!(starts.eq(node.starts.iter().copied()));
                assert!(changes.is_sorted_by(|a, b| a.key < b.key));
            }
            Below::Nodes(nodes) => {
                assert!(!nodes.is_empty() && nodes.len() == node.starts.len());
                nodes.iter().for_each(|node| check_node(node, false));
                for (pair, between) in nodes.windows(2).zip(&node.starts[1..]) {
                    let last = Position::last(&pair[0]).leaf.last().expect("no node is empty");
                    let first = pair[1].first();
                    assert!(last.key < first.key);
                    assert!(start_of(&last.key) <= *between && *between <= start_of(&first.key));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn changes_are_a_sorted_map_and_clones_stay_as_they_were(
            steps in prop::collection::vec(step(), 1..400),
            bounds in prop::collection::vec(key(), 1..6),
        ) {
            let (mut changes, mut model) = (Changes::<4>::default(), Model::new());
            let mut clones = Vec::new();
            for step in steps {
                match step {
                    Step::Put(key) => {
                        let change = put(&mut changes, &key);
                        model.insert(key, change);
                    }
                    Step::Remove(key) => {
                        let (taken, expected) = (changes.remove(&key), model.remove(&key));
                        prop_assert_eq!(taken.is_some(), expected.is_some());
                        prop_assert!(taken.iter().zip(&expected).all(|(a, b)| is_one(a, b)));
                    }
                    Step::RemoveFirst => {
                        let (taken, expected) = (changes.remove_first(), model.pop_first());
                        let expected = expected.map(|(key, _)| key);
                        prop_assert_eq!(taken.map(|change| change.key.to_vec()), expected);
                    }
                    Step::Clone => clones.push((changes.clone(), model.clone())),
                }
            }
            clones.push((changes.clone(), model.clone()));
            for (changes, model) in &clones {
                check(changes, model, &bounds);
            }
            while let Some(first) = changes.remove_first() {
                prop_assert_eq!(model.pop_first().map(|(key, _)| key), Some(first.key.to_vec()));
            }
            prop_assert!(model.is_empty());
            check(&changes, &model, &bounds);
        }
    }

    #[test]
    fn looking_ahead_reads_the_very_items_that_will_be_written_over() {
        let mut changes = Changes::<4>::default();
        let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut shared = Vec::new();
        for number in 0..300 {
            let archive = Bytes::from(vec![1; 8]);
            if number % 3 == 0 {
                shared.push(archive.clone());
            }
            let cell =
                (number % 5 != 0).then(|| Cell { slot: Slot(number), timestamp: 0, checksum: 0, archive });
            let change = Arc::new(Change { key: KeyBytes::from_slice(&key(number)), cell });
            let Place::Free(vacancy) = changes.place(&key(number)) else { panic!("it has no change") };
            vacancy.fill(change);
        }
        let count = |numbers: std::ops::Range<u64>| {
            let keys: Vec<_> = numbers.map(key).collect();
            changes.look_ahead(keys.iter().map(|key| &key[..]))
        };
        let expected = |numbers: std::ops::Range<u64>| numbers.filter(|n| n % 3 != 0 && n % 5 != 0).count();
        assert_eq!(count(0..0), 0);
        assert_eq!(count(300..360), 0, "keys that have no change");
        for first in 0..240 {
            assert_eq!(count(first..first + 60), expected(first..first + 60));
        }
        let most = ENTRIES_SEEN_AHEAD as u64;
        assert_eq!(count(0..300), expected(0..most), "of so many at once");
        assert_eq!(Changes::<4>::default().look_ahead([&key(1)[..]].into_iter()), 0);
    }

    #[test]
    fn keys_of_one_start_fill_many_nodes() {
        let (mut changes, mut model) = (Changes::<4>::default(), Model::new());
        for number in (0..500_u16).rev().chain(500..1000) {
            let key = [&[7; 8][..], &number.to_be_bytes()].concat();
            model.insert(key.clone(), put(&mut changes, &key));
        }
        let middle = [&[7; 8][..], &500_u16.to_be_bytes()].concat();
        check(&changes, &model, &[middle, vec![7; 8], vec![8]]);
        for number in (0..1000_u16).step_by(3) {
            let key = [&[7; 8][..], &number.to_be_bytes()].concat();
            assert!(changes.remove(&key).is_some() && changes.remove(&key).is_none());
            model.remove(&key);
        }
        check(&changes, &model, &[]);
    }
}
