//! The check of the trees in the background, so that damage is found while peers still have what it took.
//!
//! Every few hours all partitions are checked, one after the other, each from its version as it is then. A
//! *sweep* walks over inner nodes only, of all partitions at once, and finds blocks that are lost: those of a
//! partition that was removed, of a tree that a snapshot replaced, or of what hung below a damaged page.
//!
//! * Whatever is walked over is pinned: a checkpoint that ends meanwhile frees nothing of it. When that has
//!   become much, the walk goes on in the version that is there by then, with the ranges of keys that are
//!   left; a sweep, which is quick, goes to its end.
//! * A sweep begins while no checkpoint runs, with the blocks that the last one stored. What no tree in
//!   memory reaches then, no later checkpoint will refer to: it writes what is in memory and new pages.
//! * Lost blocks are retired with the next checkpoint, not freed: until it is durable, a crash brings back
//!   the one before, which may refer to them; and snapshots on their way to members hold pins.
//! * Reading is paced, and goes past the cache.

use super::serving::Serving;
use crate::btree::check::{Check, CheckedTree, Depth, Recount};
use crate::btree::feed::Feed;
use crate::btree::finding::Finding;
use crate::btree::merge::Progress;
use crate::btree::page::PageFault;
use crate::btree::pointer::PagePointer;
use crate::btree::space::PinId;
use crate::btree::store::FeedId;
use crate::btree::version::Redirects;
use crate::group::Group;
use crate::limits::{SCRUB_AFTER_START, SCRUB_INTERVAL, SCRUB_PAGES_PER_TICK, SCRUB_TICK};
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::turn::Boot;
use std::collections::{BTreeSet, VecDeque};

/// Checks of a core.
#[derive(Debug)]
pub(super) struct Scrub {
    running: Option<Box<Running>>,
    pub(super) feed: Feed,
    /// Partitions that the walk over everything has still to come to.
    left: VecDeque<PartitionId>,
    /// Such a walk has begun and not ended.
    walking: bool,
    /// When the next one begins…
    begins_at: Boot,
    /// …unless somebody has asked for it.
    wanted: bool,
    paced_at: Boot,
    /// Trees that were counted; their versions are put right when no checkpoint runs.
    recounts: Vec<Recount>,
    /// Blocks may be lost.
    pub(super) sweep_wanted: bool,
    /// Walks over everything that have ended.
    pub(super) completed: u64,
    /// Lost blocks that were given back.
    pub(super) swept: u64,
}

#[derive(Debug)]
struct Running {
    check: Check,
    pin: PinId,
    /// For a sweep: the blocks that the durable checkpoint stored.
    stored: Option<Vec<u64>>,
    /// Pages that had been repaired when it began.
    repaired: u64,
}

impl Scrub {
    /// After a start, what earlier processes lost is swept first.
    pub(super) fn new(now: Boot) -> Self {
        Self {
            running: None,
            feed: Feed::default(),
            left: VecDeque::new(),
            walking: false,
            begins_at: now.after(SCRUB_AFTER_START),
            wanted: false,
            paced_at: now,
            recounts: Vec::new(),
            sweep_wanted: true,
            completed: 0,
            swept: 0,
        }
    }

    /// Whether nothing is being checked, and nothing came of a check that is still to be seen to.
    pub(super) fn is_at_rest(&self) -> bool {
        let begins = self.wanted || self.walking || self.sweep_wanted;
        !begins && self.running.is_none() && self.recounts.is_empty()
    }

    /// A page that was wanted will not come.
    pub(super) fn failed(&mut self, pointer: &PagePointer, fault: PageFault, redirects: &Redirects) {
        if let Some(running) = &mut self.running {
            running.check.failed(pointer, fault, redirects);
        }
    }
}

/// The version of a group's tree. Until a checkpoint has divided it, those that were split share one, which
/// holds the keys of all.
fn tree_of(group: &Group) -> CheckedTree {
    let (config, tree) = (group.replica.config(), &group.state().tree);
    let (start, end) = match tree.keep() {
        Some(_) => (Vec::new(), Vec::new()),
        None => (config.start.clone(), config.end.clone()),
    };
    CheckedTree { partition: config.partition, start, end, version: *tree.version() }
}

impl Serving {
    /// Asks for a check of everything that begins after this. Returns how many of them will have ended since
    /// the start when it has.
    pub fn want_check(&mut self) -> u64 {
        self.scrub.wanted = true;
        self.scrub.completed + 1 + u64::from(self.scrub.walking)
    }

    /// Goes on with the check, as far as its pace allows.
    pub(super) fn advance_scrub(&mut self, now: Boot) {
        if now.since(self.scrub.paced_at) < SCRUB_TICK {
            return;
        }
        self.scrub.paced_at = now;
        if self.scrub.running.is_none() {
            self.begin_scrub(now);
        }
        let Some(mut running) = self.scrub.running.take() else {
            return;
        };
        if running.stored.is_none() && self.store.space.holds_much(&running.pin) {
            self.scrub.feed.forget_wanted();
            // What is being read belongs to the version that is pinned.
            self.scrub.running =
                if self.scrub.feed.under_way() == 0 { self.hop(*running) } else { Some(running) };
            return;
        }
        let (cache, redirects) = (&self.store.cache, &self.store.redirects);
        let feed = &mut self.scrub.feed;
        let progress = running.check.advance(feed, Some(cache), redirects, SCRUB_PAGES_PER_TICK);
        let depth = if running.stored.is_some() { Depth::NodesOnly } else { Depth::Everything };
        for finding in std::mem::take(&mut running.check.findings) {
            self.take_finding(finding, depth);
        }
        match progress {
            Progress::Done => self.end_scrub(*running),
            Progress::Waits | Progress::More => {
                self.store.serve_feed(FeedId::Check, &mut self.scrub.feed);
                // Who found these may have been content with something else: they are found here, too.
                if self.store.damaged_pages() > 0 {
                    running.check.find_known(|page| self.store.damage(page), &self.store.redirects);
                }
                self.scrub.running = Some(running);
            }
        }
    }

    /// Begins what is due: a sweep, the next partition, or a walk over all of them.
    fn begin_scrub(&mut self, now: Boot) {
        if self.scrub.sweep_wanted {
            if !self.checkpointer.may_begin() {
                return;
            }
            self.scrub.sweep_wanted = false;
            let space = &self.store.space;
            let stored = space.stored_words(space.durable_checkpoint());
            let mut seen = BTreeSet::new();
            let mut is_first = |tree: &CheckedTree| tree.version.root.is_none_or(|root| seen.insert(root));
            let trees = self.groups.values().map(tree_of).filter(|tree| is_first(tree)).collect();
            self.begin_check(trees, Depth::NodesOnly, Some(stored));
            return;
        }
        if !self.scrub.walking && (self.scrub.wanted || now >= self.scrub.begins_at) {
            self.scrub.wanted = false;
            self.scrub.left = self.groups.keys().copied().collect();
            self.scrub.walking = true;
        }
        while let Some(partition) = self.scrub.left.pop_front() {
            if let Some(group) = self.groups.get(&partition) {
                let trees = vec![tree_of(group)];
                return self.begin_check(trees, Depth::Everything, None);
            }
        }
        if self.scrub.walking {
            self.scrub.walking = false;
            self.scrub.completed += 1;
            self.scrub.begins_at = now.after(SCRUB_INTERVAL);
            // What hung below pages that were damaged and are repaired is lost.
            self.scrub.sweep_wanted = true;
        }
    }

    fn begin_check(&mut self, trees: Vec<CheckedTree>, depth: Depth, stored: Option<Vec<u64>>) {
        let space = &mut self.store.space;
        let check = Check::new(trees, space.used_words().to_vec(), depth);
        let pin = space.pin(space.durable_checkpoint());
        let repaired = self.store.redirects.added();
        self.scrub.running = Some(Box::new(Running { check, pin, stored, repaired }));
    }

    /// Goes on in the present version: what is held of the old one is too much.
    fn hop(&mut self, running: Running) -> Option<Box<Running>> {
        let Running { mut check, pin, repaired, .. } = running;
        for finding in std::mem::take(&mut check.findings) {
            self.take_finding(finding, Depth::Everything);
        }
        self.store.space.unpin(pin);
        self.scrub.feed.clear();
        let group = self.groups.get(&check.trees().first()?.partition)?;
        let space = &mut self.store.space;
        let check = Check::resume(tree_of(group), space.used_words().to_vec(), check.remaining());
        let pin = space.pin(space.durable_checkpoint());
        Some(Box::new(Running { check, pin, stored: None, repaired }))
    }

    fn end_scrub(&mut self, running: Running) {
        let Running { check, pin, stored, repaired } = running;
        // What was repaired or split meanwhile has made the estimates others.
        let divided = check.trees().iter().any(|tree| {
            self.groups.get(&tree.partition).is_none_or(|group| {
                let now = tree_of(group);
                (&now.start, &now.end) != (&tree.start, &tree.end)
            })
        });
        if repaired == self.store.redirects.added() && !divided {
            self.scrub.recounts.extend(&check.recounts);
        }
        if let (Some(stored), Some(reached)) = (&stored, check.reached()) {
            let lost = stored.iter().zip(reached).map(|(stored, reached)| stored & !reached);
            let swept = self.store.space.retire_lost(&lost.collect::<Vec<u64>>());
            self.scrub.swept += swept;
            // They are free when the next checkpoint is durable.
            self.checkpoint_wanted |= swept > 0;
            self.store.forget_unreachable_damage();
        }
        self.store.space.unpin(pin);
    }

    /// Puts versions right that had estimates only: what they were counted to be wrong by, they are wrong by
    /// until then, whatever was merged since. No checkpoint may run.
    pub(super) fn take_recounts(&mut self) {
        for Recount { partition, items, bytes } in std::mem::take(&mut self.scrub.recounts) {
            let group = self.groups.get_mut(&partition);
            if let Some(group) = group.filter(|group| group.state().tree.keep().is_none()) {
                group.recount(items, bytes);
                self.checkpoint_wanted = true;
            }
        }
    }

    fn take_finding(&mut self, finding: Finding, depth: Depth) {
        let Finding { partition, place, pointer, what } = &finding;
        if !self.groups.contains_key(partition) {
            return;
        }
        match what.fault() {
            // The present version does without that leaf or node, which was repaired or replaced: the walk
            // goes through an older one. A sweep has not seen what hangs below it, and begins again.
            Some(fault) if self.store.space.is_retired(place.unit.block) => {
                self.scrub.sweep_wanted |= depth == Depth::NodesOnly;
                if *pointer != place.unit && self.store.space.is_held(pointer.block) {
                    // A run, for which the leaf that has it now is to be found.
                    self.store.note_damage(*pointer, fault);
                    self.scrub.wanted = true;
                }
            }
            Some(fault) => {
                self.store.note_damage(*pointer, fault);
                self.found_damage(*partition, *pointer, place.clone(), fault);
            }
            None => {
                tracing::error!(node = %self.config.node, core = %self.config.core, "{finding}");
            }
        }
    }
}
