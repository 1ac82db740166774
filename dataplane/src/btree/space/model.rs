//! Checkpoints, pins, loose trees and crashes against sets of blocks.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Action {
    /// A checkpoint: it places these pages, replaces one page of the version in so many, and adopts the loose
    /// ones. Between its storing and its superblock, loose pages are placed.
    Checkpoint {
        pages: Vec<u16>,
        replaces: usize,
        between: Vec<u16>,
        crash: bool,
    },
    /// A checkpoint that is given up after it has placed these pages.
    GiveUp(Vec<u16>),
    Loose(u16),
    DropLoose(usize),
    Pin,
    Unpin(usize),
    Crash,
}

#[derive(Default)]
struct Model {
    durable: u64,
    /// The pages of the durable version, and the words stored with it.
    version: Vec<Run>,
    stored: Vec<u64>,
    loose: Vec<Run>,
    retired: Vec<(u64, Run)>,
    /// Each with the blocks that it must keep.
    pins: Vec<(PinId, BTreeSet<u64>)>,
}

fn blocks<'a>(runs: impl IntoIterator<Item = &'a Run>) -> BTreeSet<u64> {
    runs.into_iter().flat_map(|run| run.block..run.block + u64::from(run.blocks)).collect()
}

fn blocks_of(words: &[u64]) -> BTreeSet<u64> {
    (0..words.len() as u64 * 64)
        .filter(|block| words[*block as usize / 64] >> (block % 64) & 1 == 1)
        .collect()
}

impl Model {
    /// Everything that must not be handed out, beside `more`.
    fn used(&self, more: &[Run]) -> BTreeSet<u64> {
        let retired = self.retired.iter().map(|(_, run)| run);
        blocks(self.version.iter().chain(&self.loose).chain(retired).chain(more))
    }

    /// Places pages, none where something is.
    fn place(&self, space: &mut Space, pages: &[u16], loose: bool, placed: &mut Vec<Run>) {
        for page in pages {
            let used = self.used(placed);
            let block = if loose { space.allocate_loose(*page) } else { space.allocate(*page) };
            let run = Run { block, blocks: *page };
            assert!(blocks([&run]).is_disjoint(&used), "{run:?} is handed out twice");
            assert_eq!(block / REGION_BLOCKS, (block + u64::from(*page) - 1) / REGION_BLOCKS);
            placed.push(run);
        }
    }

    /// What is retired is free when its checkpoint is durable and no older version is pinned.
    fn settled(&mut self) {
        let oldest = self.pins.iter().map(|(pin, _)| pin.checkpoint).min().unwrap_or(u64::MAX);
        self.retired.retain(|(checkpoint, _)| *checkpoint > self.durable.min(oldest));
    }

    fn check(&self, space: &Space) {
        let used = self.used(&[]);
        assert_eq!(blocks_of(space.used_words()), used);
        assert!(self.pins.iter().all(|(_, kept)| kept.is_subset(&used)), "pinned blocks are in use");
        let restored = Space::restore(&self.stored);
        assert_eq!(
            blocks_of(restored.used_words()),
            blocks(&self.version),
            "after a crash: the version alone"
        );
        let SpaceStatus { blocks: all, used: count, free, retired, loose } = space.status();
        assert_eq!((all, count), (count + free, used.len() as u64));
        assert_eq!(retired, blocks(self.retired.iter().map(|(_, run)| run)).len() as u64);
        assert_eq!(loose, blocks(&self.loose).len() as u64);
        assert_eq!(space.regions.iter().map(|region| u64::from(region.free)).sum::<u64>(), free);
    }

    /// The process dies; the next one knows what is stored.
    fn crash(&mut self, space: &mut Space) {
        *space = Space::restore(&self.stored);
        space.settle(self.durable);
        (self.loose, self.retired, self.pins) = Default::default();
    }

    fn checkpoint(
        &mut self,
        space: &mut Space,
        pages: &[u16],
        replaces: usize,
        between: &[u16],
        crash: bool,
    ) {
        let checkpoint = self.durable + 1;
        let mut placed = Vec::new();
        self.place(space, pages, false, &mut placed);
        for run in &self.loose {
            space.adopt(run.block, run.blocks);
        }
        placed.append(&mut self.loose);
        let (mut kept, mut replaced) = (Vec::new(), Vec::new());
        for (index, run) in self.version.iter().enumerate() {
            let list = if (index + checkpoint as usize).is_multiple_of(replaces) {
                &mut replaced
            } else {
                &mut kept
            };
            list.push(*run);
        }
        for run in &replaced {
            space.retire(checkpoint, run.block, run.blocks);
        }
        let stored = space.stored_words(checkpoint);
        kept.append(&mut placed);
        // The version before still stands on the disk, and this one does too: neither may be written to.
        let mut loose = kept.clone();
        self.place(space, between, true, &mut loose);
        let loose = loose.split_off(kept.len());
        if crash {
            return self.crash(space);
        }
        (self.version, self.stored, self.loose, self.durable) = (kept, stored, loose, checkpoint);
        self.retired.extend(replaced.into_iter().map(|run| (checkpoint, run)));
        space.settle(checkpoint);
        self.settled();
    }

    fn act(&mut self, space: &mut Space, action: Action) {
        match action {
            Action::Checkpoint { pages, replaces, between, crash } => {
                self.checkpoint(space, &pages, replaces, &between, crash);
            }
            Action::GiveUp(pages) => {
                let mut placed = Vec::new();
                self.place(space, &pages, false, &mut placed);
                placed.iter().for_each(|run| space.release(run.block, run.blocks));
            }
            Action::Loose(page) => {
                let mut placed = Vec::new();
                self.place(space, &[page], true, &mut placed);
                self.loose.append(&mut placed);
            }
            Action::DropLoose(index) if !self.loose.is_empty() => {
                let run = self.loose.swap_remove(index % self.loose.len());
                space.release(run.block, run.blocks);
            }
            Action::Pin => self.pins.push((space.pin(self.durable), blocks(&self.version))),
            Action::Unpin(index) if !self.pins.is_empty() => {
                space.unpin(self.pins.swap_remove(index % self.pins.len()).0);
                self.settled();
            }
            Action::Crash => self.crash(space),
            Action::DropLoose(_) | Action::Unpin(_) => {}
        }
    }
}

fn page() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(2_u16), 2 => 1..20_u16, 1 => 100..=RUN_BLOCKS_MAX]
}

fn action() -> impl Strategy<Value = Action> {
    let checkpoint = (vec(page(), 0..30), 1..6_usize, vec(page(), 0..3), proptest::bool::weighted(0.1));
    prop_oneof![
        6 => checkpoint.prop_map(|(pages, replaces, between, crash)| {
            Action::Checkpoint { pages, replaces, between, crash }
        }),
        1 => vec(page(), 0..20).prop_map(Action::GiveUp),
        2 => page().prop_map(Action::Loose),
        1 => any::<usize>().prop_map(Action::DropLoose),
        2 => Just(Action::Pin),
        2 => any::<usize>().prop_map(Action::Unpin),
        1 => Just(Action::Crash),
    ]
}

proptest! {
    #[test]
    fn nothing_that_is_needed_is_handed_out_and_a_crash_finds_its_version(actions in vec(action(), 1..40)) {
        let (mut space, mut model) = (Space::restore(&[]), Model::default());
        for action in actions {
            model.act(&mut space, action);
            model.check(&space);
        }
    }
}
