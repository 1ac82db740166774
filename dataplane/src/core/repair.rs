//! Damaged pages are built anew from what a member of the group holds, without an operator.
//!
//! 1. Whoever needs a page that fails verification twice says which leaf or node it is, and between which
//!    keys it stands.
//! 2. A member is asked for the items of these keys, a frame at a time. It must have applied at least what
//!    the tree here holds. Of its answer counts what was last written at or before the tree's position; the
//!    rest is in the changes since, which are in memory here.
//! 3. When this replica has itself applied as much as the member had, pages are built from the items and
//!    written. Until then a key that the member has changed might be missing.
//! 4. From then on they are read wherever the damaged page is pointed to, and the next checkpoint writes
//!    their parents anew. Until it is durable a crash takes them, and the damage is found again.
//!
//! Groups that were split share their pages until the next checkpoint. What such a page holds is asked of the
//! members of each of them, one after the other.
//!
//! One page is repaired at a time. Requests that need it are refused meanwhile, with an error that says so
//! and can be retried.

use super::messages;
use super::serving::Serving;
use crate::btree::batch::Batches;
use crate::btree::delta::Delta;
use crate::btree::feed::Feed;
use crate::btree::finding::KeyRange;
use crate::btree::lookup::Place;
use crate::btree::merge::{Clip, Merge, Progress, Workshop};
use crate::btree::page::{PageFault, Stamp};
use crate::btree::pointer::PagePointer;
use crate::btree::version::Blocks;
use crate::checkpoint::cells::CellBatch;
use crate::checkpoint::image::ImageRecord;
use crate::group::Group;
use crate::limits::{REPAIR_LEAVES_PER_TURN, REPAIR_PATIENCE, STEP_ASIDE_EVERY};
use crate::operations::Owner;
use crate::partition::Stop;
use crate::planted::{self, Planted};
use bytes::Bytes;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::{ArchivedFetchRange, ArchivedRangeCells, FetchRange, RangeCells};
use evenkeel_wire::message::to_owned;
use evenkeel_wire::turn::{
    Boot, DiskCompletion, DiskFault, DiskOperation, Effects, Endpoint, File, Halt, Now,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Damaged leaves and nodes, and the one that is being repaired.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// By the pointer of their parents.
    waiting: BTreeMap<PagePointer, Damage>,
    running: Option<Repair>,
    /// One that was given up while its pages were being written: their blocks are free when all writes have
    /// ended.
    abandoned: Option<Box<Merge>>,
    batches: Batches,
    operations: u64,
    questions: u64,
    retry_at: Boot,
    /// Leaderships that this core gave up lately because it could not repair a page.
    stepped_aside: BTreeMap<PartitionId, Boot>,
}

#[derive(Clone, Debug)]
struct Damage {
    partition: PartitionId,
    /// The page that fails: the leaf or node itself, or a run of its.
    page: PagePointer,
    place: Place,
}

#[derive(Debug)]
struct Repair {
    damage: Damage,
    /// The position of the tree: what was written later is in memory.
    position: Slot,
    /// By their keys; the first `complete` of them are here.
    pieces: Vec<Piece>,
    complete: usize,
    /// Who has answered last.
    came_from: NodeId,
    /// Who is asked, and since when.
    member: NodeId,
    asked_at: Boot,
    /// How many were asked in vain since somebody has answered.
    in_vain: usize,
    number: u64,
    merge: Option<Box<Merge>>,
}

/// What a group holds of a page.
#[derive(Debug)]
struct Piece {
    partition: PartitionId,
    low: Vec<u8>,
    high: Vec<u8>,
    /// The key to go on from.
    from: Vec<u8>,
    cells: Delta,
    /// As much must be applied here.
    applied: Slot,
}

impl Repair {
    /// What is being asked for.
    fn piece(&mut self) -> Option<&mut Piece> {
        self.pieces.get_mut(self.complete)
    }

    fn is_complete(&self) -> bool {
        self.complete == self.pieces.len()
    }
}

impl Repairs {
    /// Puts the repair that runs back among those that wait.
    fn give_up(&mut self) {
        if let Some(Repair { damage, merge, .. }) = self.running.take() {
            self.batches.abandon();
            self.abandoned = merge;
            self.waiting.insert(damage.place.unit, damage);
        }
    }
}

impl Serving {
    /// A page that somebody needs is damaged. Says so, once, and has it repaired.
    pub(super) fn found_damage(
        &mut self,
        partition: PartitionId,
        page: PagePointer,
        place: Place,
        fault: PageFault,
    ) {
        let known = self.repairs.waiting.contains_key(&place.unit)
            || self.repairs.running.as_ref().is_some_and(|repair| repair.damage.place.unit == place.unit);
        if known {
            return;
        }
        tracing::error!(
            node = %self.config.node,
            core = %self.config.core,
            "a page of {partition} at block {} is damaged: {fault}; {} are fetched from the other members",
            page.block,
            KeyRange(&place),
        );
        self.repairs.waiting.insert(place.unit, Damage { partition, page, place });
    }

    /// Goes on with the repair that runs, or begins one.
    pub(super) fn advance_repairs(&mut self, now: Now, out: &mut Effects) {
        self.repair(now.boot, out);
        self.leave_to_others(now, out);
    }

    fn repair(&mut self, now: Boot, out: &mut Effects) {
        if self.repairs.batches.is_idle()
            && let Some(merge) = self.repairs.abandoned.take()
        {
            merge.abandon(&mut self.store.space);
        }
        if self.repairs.running.is_none() {
            self.begin_repair(now, out);
        }
        let Some(repair) = &self.repairs.running else {
            return;
        };
        let groups = &self.groups;
        if let Some(gone) = repair.pieces.iter().find(|piece| !groups.contains_key(&piece.partition)) {
            let (gone, of) = (gone.partition, repair.damage.partition);
            self.forget_damage(gone);
            // The damage itself is found again by who needs the page.
            return self.forget_damage(of);
        }
        if repair.pieces.iter().any(|piece| groups[&piece.partition].gives_tree_up()) {
            // It begins again without that one.
            return self.repairs.give_up();
        }
        let behind = repair.pieces.iter().map(|piece| (&groups[&piece.partition], piece.applied));
        let mut behind = behind.filter(|(group, applied)| group.state().slot() < *applied).peekable();
        if !repair.is_complete() {
            if now.since(repair.asked_at) >= REPAIR_PATIENCE {
                if let Some(repair) = &mut self.repairs.running {
                    repair.in_vain += 1;
                }
                self.ask_next_member(now, out);
            }
        } else if behind.peek().is_none() {
            self.build_repair(now, out);
        } else {
            // This replica comes no further by its log, but by a snapshot, which a checkpoint installs.
            match behind.find_map(|(group, _)| group.staged.as_ref().map(|staged| staged.in_checkpoint)) {
                // The one that runs may wait for the very page: it makes room.
                Some(false) => self.checkpointer.cancel(),
                // It runs already, and may wait for another damaged page.
                Some(true) => self.repairs.give_up(),
                None => {}
            }
        }
    }

    /// Whether a repair has what it needs, and waits until this group has applied as much as the member had
    /// that it came from. The checkpoint that runs may wait for the repaired page, and the room for those
    /// entries in the log for that checkpoint.
    pub(super) fn waits_for_entries(&self, partition: PartitionId) -> bool {
        let Some(repair) = self.repairs.running.as_ref().filter(|repair| repair.is_complete()) else {
            return false;
        };
        let applied = self.groups.get(&partition).map(|group| group.state().slot());
        let piece = repair.pieces.iter().find(|piece| piece.partition == partition);
        piece.zip(applied).is_some_and(|(piece, applied)| applied < piece.applied)
    }

    /// Nobody has what the page that is being repaired needs, because who stores the items is behind, and
    /// waits for a snapshot of what is damaged: both wait for each other. If this replica leads, it lets that
    /// one stand, which may find what it lacks in the log of a log replica.
    fn leave_to_others(&mut self, now: Now, out: &mut Effects) {
        let Some(Repair { pieces, complete, in_vain, .. }) = &self.repairs.running else {
            return;
        };
        let Some(partition) = pieces.get(*complete).map(|piece| piece.partition) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&partition) else {
            return;
        };
        self.repairs.stepped_aside.retain(|_, at| now.boot.since(*at) < STEP_ASIDE_EVERY);
        let lately = self.repairs.stepped_aside.contains_key(&partition);
        let all_were_asked = *in_vain >= group.replica.others().count();
        let stays = lately || planted::active(Planted::NeverStepAside);
        if stays || !all_were_asked || !group.replica.owes_a_snapshot() {
            return;
        }
        tracing::warn!(
            node = %self.config.node,
            core = %self.config.core,
            "nobody has what a damaged page of {partition} held, and a member waits for it: others may lead",
        );
        self.repairs.stepped_aside.insert(partition, now.boot);
        group.replica.step_aside(now.boot, &mut self.outputs);
        self.perform(partition, now, out);
    }

    /// What the groups that share the damaged page hold of it: those with the same version, each its keys.
    fn pieces_of(&self, damage: &Damage) -> Vec<Piece> {
        let Some(damaged) = self.groups.get(&damage.partition) else {
            return Vec::new();
        };
        let root = damaged.state().tree.version().root;
        let sharing = self.groups.iter().filter(|(partition, group)| {
            let tree = &group.state().tree;
            let shares = tree.keep().is_some() && tree.version().root == root;
            // One that gives the tree up reads nothing of it any more, and may be too far behind to help.
            (**partition == damage.partition || shares) && !group.gives_tree_up()
        });
        let Place { low, high, .. } = &damage.place;
        let pieces = sharing.map(|(partition, group)| {
            let keep = group.state().tree.keep();
            let (low, high) = keep.map_or((&low[..], &high[..]), |keep| keep.within(low, high));
            Piece {
                partition: *partition,
                low: low.to_vec(),
                high: high.to_vec(),
                from: low.to_vec(),
                cells: Delta::default(),
                applied: Slot::ZERO,
            }
        });
        let mut pieces: Vec<Piece> =
            pieces.filter(|piece| piece.high.is_empty() || piece.low < piece.high).collect();
        pieces.sort_by(|a, b| a.low.cmp(&b.low));
        pieces
    }

    /// A split: what the repair that runs asks for is another's now. It begins again.
    pub(super) fn forget_repair(&mut self, partition: PartitionId) {
        let of = |repair: &Repair| repair.pieces.iter().any(|piece| piece.partition == partition);
        if self.repairs.running.as_ref().is_some_and(of) {
            self.repairs.give_up();
        }
    }

    /// A checkpoint is durable that does without these blocks: what was damaged there matters no more. The
    /// cache may have held it. A damaged run may hang below the leaf that has replaced its own: a check finds
    /// out.
    pub(super) fn forget_replaced(&mut self, replaced: &BTreeSet<Blocks>) {
        let is_replaced = |damage: &Damage| {
            let PagePointer { block, blocks, .. } = damage.place.unit;
            replaced.contains(&(block, blocks))
        };
        let repairs = &mut self.repairs;
        if repairs.running.as_ref().is_some_and(|repair| is_replaced(&repair.damage)) {
            repairs.give_up();
        }
        let mut runs_are_left = false;
        for (_, Damage { page, place, .. }) in repairs.waiting.extract_if(.., |_, damage| is_replaced(damage))
        {
            if page != place.unit && self.store.space.is_held(page.block) {
                runs_are_left = true;
            } else {
                self.store.repaired(&page);
            }
        }
        if runs_are_left {
            self.want_check();
        }
    }

    /// A partition is gone, or a snapshot has taken the place of its tree: what was damaged matters no more.
    pub(super) fn forget_damage(&mut self, partition: PartitionId) {
        let repairs = &mut self.repairs;
        if repairs.running.as_ref().is_some_and(|repair| repair.damage.partition == partition) {
            repairs.give_up();
        }
        for (_, damage) in repairs.waiting.extract_if(.., |_, damage| damage.partition == partition) {
            self.store.repaired(&damage.page);
        }
    }

    /// Whether a repair has something to do although nothing happens.
    pub(super) fn repairs_wake_at(&self) -> Boot {
        match &self.repairs.running {
            Some(repair) if !repair.is_complete() => repair.asked_at.after(REPAIR_PATIENCE),
            Some(_) => Boot::NEVER,
            None if self.repairs.waiting.is_empty() || self.repairs.abandoned.is_some() => Boot::NEVER,
            None => self.repairs.retry_at,
        }
    }

    fn begin_repair(&mut self, now: Boot, out: &mut Effects) {
        if now < self.repairs.retry_at || self.repairs.abandoned.is_some() {
            return;
        }
        let groups = &self.groups;
        let matters = |(_, damage): &(&PagePointer, &Damage)| {
            // The checkpoint that runs replaces the tree, if it comes to its end.
            let in_checkpoint =
                |group: &Group| group.staged.as_ref().is_some_and(|staged| staged.in_checkpoint);
            let group = groups.get(&damage.partition);
            !group.is_some_and(|group| in_checkpoint(group) && !group.gives_tree_up())
        };
        let next = self.repairs.waiting.iter().find(matters).map(|(unit, _)| *unit);
        let Some(damage) = next.and_then(|unit| self.repairs.waiting.remove(&unit)) else {
            return;
        };
        let pieces = self.pieces_of(&damage);
        let Some(group) = self.groups.get(&damage.partition).filter(|_| !pieces.is_empty()) else {
            if !self.groups.contains_key(&damage.partition) && !planted::active(Planted::MergeTheRemoved) {
                // Nobody needs the page but the checkpoint that runs, which began before the partition went:
                // it would find the damage again and again.
                self.checkpointer.cancel();
            }
            return self.store.repaired(&damage.page);
        };
        let (position, root) = (group.state().tree.version().position, group.state().tree.version().root);
        for group in self.groups.values_mut() {
            if group.gives_tree_up() && group.state().tree.version().root == root {
                group.give_tree_up();
            }
        }
        self.repairs.running = Some(Repair {
            damage,
            position,
            pieces,
            complete: 0,
            came_from: self.config.node,
            member: self.config.node,
            asked_at: now,
            in_vain: 0,
            number: 0,
            merge: None,
        });
        self.ask_next_member(now, out);
    }

    /// Asks the member behind the one that was asked last.
    fn ask_next_member(&mut self, now: Boot, out: &mut Effects) {
        let Some(repair) = &mut self.repairs.running else {
            return;
        };
        let last = repair.member;
        repair.asked_at = now;
        let Some(piece) = repair.piece() else {
            return;
        };
        let Some(group) = self.groups.get(&piece.partition) else {
            return;
        };
        let others: BTreeSet<NodeId> = group.replica.others().map(|member| member.node).collect();
        let Some(first) = others.first() else {
            // Nobody else has it. The damage stays, and is found again by who needs the page.
            self.repairs.give_up();
            self.repairs.retry_at = now.after(REPAIR_PATIENCE);
            return;
        };
        // Another member begins anew: what the last one sent is of another position.
        piece.from.clone_from(&piece.low);
        piece.cells = Delta::default();
        piece.applied = Slot::ZERO;
        repair.member =
            others.range((Bound::Excluded(last), Bound::Unbounded)).next().copied().unwrap_or(*first);
        self.ask_for_range(out);
    }

    fn ask_for_range(&mut self, out: &mut Effects) {
        self.repairs.questions += 1;
        let number = self.repairs.questions;
        let Some(repair) = &mut self.repairs.running else {
            return;
        };
        repair.number = number;
        let (member, at_least) = (repair.member, repair.position);
        let Some(piece) = repair.piece() else {
            return;
        };
        let (lower, upper, partition) = (piece.from.clone(), piece.high.clone(), piece.partition);
        let fetch = FetchRange { number, lower, upper, at_least };
        if let Some((endpoint, epoch)) = self.member_endpoint(partition, member) {
            let header = Header { kind: Kind::FetchRange, ..messages::header(partition, epoch) };
            out.send(endpoint, header, &fetch);
        }
    }

    /// A member asks for a range.
    pub(super) fn on_fetch_range(
        &mut self,
        from: Endpoint,
        peer: Peer,
        header: Header,
        fetch: &ArchivedFetchRange,
        out: &mut Effects,
    ) -> Result<(), Stop> {
        if !self.speaks_for(peer, header) {
            return Ok(());
        }
        let fetch = to_owned::<FetchRange>(fetch);
        let group = &self.groups[&header.partition];
        let position = group.state().slot();
        let mut batch = CellBatch::default();
        // One that is being refilled has a position, and not all that belongs to it.
        let can_answer = position >= fetch.at_least && group.can_read_items();
        if can_answer {
            let mut walk = group.state().tree.walk(self.store.pages(), &fetch.lower, &fetch.upper, true);
            loop {
                match walk.next() {
                    Ok(Some(_)) if batch.is_full() => {
                        batch.resume = Some(walk.key().to_vec());
                        break;
                    }
                    Ok(Some(found)) if found.meta.slot <= fetch.at_least => batch.add(walk.key(), &found),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(miss) if batch.cells == 0 => return Err(miss.into()),
                    Err(_) => {
                        batch.resume = Some(batch.behind_last());
                        break;
                    }
                }
            }
        }
        let answer = RangeCells {
            number: fetch.number,
            position: if can_answer { position } else { Slot::ZERO },
            records: Cow::Borrowed(&batch.records),
            resume: batch.resume,
        };
        let header =
            Header::new(Kind::RangeCells, header.request).to_partition(header.partition, header.epoch);
        out.send(from, header, &answer);
        Ok(())
    }

    /// A member answers.
    pub(super) fn on_range_cells(
        &mut self,
        now: Boot,
        peer: Peer,
        cells: &ArchivedRangeCells<'static>,
        out: &mut Effects,
    ) {
        let Some(repair) = &mut self.repairs.running else {
            return;
        };
        let position = Slot::from(&cells.position);
        let tree_at = repair.position;
        let awaited = cells.number == repair.number && peer.node == repair.member;
        if !awaited || position < tree_at {
            return;
        }
        let Some(piece) = repair.piece() else {
            return;
        };
        let mut records = Bytes::copy_from_slice(&cells.records);
        while !records.is_empty() {
            match ImageRecord::take(&mut records) {
                Ok(ImageRecord::Cell { key, cell }) if cell.slot <= tree_at => {
                    piece.cells.set(key, Some(cell));
                }
                // Another member is asked when nothing comes of this one.
                Ok(_) | Err(_) => return,
            }
        }
        piece.applied = piece.applied.max(position);
        match cells.resume.as_ref() {
            Some(resume) => {
                piece.from = resume.to_vec();
                (repair.asked_at, repair.in_vain) = (now, 0);
                self.ask_for_range(out);
            }
            None => {
                repair.in_vain = 0;
                repair.complete += 1;
                repair.came_from = peer.node;
                repair.member = self.config.node;
                self.ask_next_member(now, out);
            }
        }
    }

    /// Builds pages from the items, and puts them in the place of the damaged one when they are written.
    fn build_repair(&mut self, now: Boot, out: &mut Effects) {
        let Some(repair) = &mut self.repairs.running else {
            return;
        };
        let Damage { partition, place, page } = repair.damage.clone();
        let group = &self.groups[&partition];
        let stamp = Stamp {
            identity: self.store.identity(),
            tree: partition,
            epoch: group.replica.epoch(),
            checkpoint: self.store.space.durable_checkpoint() + 1,
            position: repair.position,
        };
        let pieces = &repair.pieces;
        let merge = repair.merge.get_or_insert_with(|| {
            let mut cells = Delta::default();
            let everything = (Bound::Unbounded, Bound::Unbounded);
            for change in pieces.iter().flat_map(|piece| piece.cells.range(everything)) {
                cells.insert(change.clone());
            }
            let clip = Clip { low: place.low.clone(), high: place.high.clone() };
            Box::new(Merge::instead(&cells, clip, place.level.unwrap_or(0)))
        });
        let (space, cache, redirects) = self.store.workshop();
        let batches = &mut self.repairs.batches;
        let mut shop = Workshop { stamp, space, cache, redirects, batches, loose: true };
        // It reads nothing: what it builds begins with an empty tree.
        let progress = merge.advance(&mut shop, &mut Feed::default(), REPAIR_LEAVES_PER_TURN);
        while let Some(action) = self.repairs.batches.next_write(progress == Progress::Done) {
            self.repairs.operations += 1;
            let id = Owner::Repair(self.repairs.operations).id();
            out.disk.push(DiskOperation { id, file: File::Tree, action });
        }
        if progress == Progress::Done && self.repairs.batches.is_idle() {
            self.end_repair(now, partition, page, &place);
        }
    }

    fn end_repair(&mut self, now: Boot, partition: PartitionId, page: PagePointer, place: &Place) {
        let repair = self.repairs.running.take().expect("it was just advanced");
        let merged = repair.merge.expect("it was just advanced").finish();
        let instead = merged.version.root.expect("what stands in for a page is a page");
        // The checkpoint that divides a shared page comes to it on its way to the border.
        let tree = repair.pieces.first().map_or(partition, |piece| piece.partition);
        let low = place.low.clone();
        self.store.redirects.add(tree, low, place.unit, instead, merged.written);
        self.store.repaired(&page);
        self.store.repaired(&place.unit);
        self.repairs.retry_at = now;
        // Its parents point to the damaged page until then.
        self.checkpoint_wanted = true;
        // What hung below the damaged page is lost with it.
        self.scrub.sweep_wanted = true;
        // How much it held is not known; and a page is seldom damaged alone.
        self.want_check();
        tracing::warn!(
            node = %self.config.node,
            core = %self.config.core,
            "the page of {partition} at block {} is repaired: {} items came from {}",
            page.block,
            merged.version.items,
            repair.came_from,
        );
    }

    /// Takes the completion of a write of repaired pages.
    ///
    /// # Errors
    /// [`Halt`] when it failed for another reason than space.
    pub(super) fn repair_written(&mut self, now: Boot, completion: DiskCompletion) -> Result<(), Halt> {
        match completion.outcome {
            Ok(buffer) => self.repairs.batches.ended(buffer),
            Err(DiskFault::Full) => {
                self.repairs.batches.ended(None);
                self.repairs.give_up();
                self.repairs.retry_at = now.after(REPAIR_PATIENCE);
            }
            Err(fault) => return Err(Halt(format!("writing repaired pages failed: {fault}"))),
        }
        Ok(())
    }
}
