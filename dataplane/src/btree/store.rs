//! The pages of a core in memory and on their way there: the cache, the reads under way, and the operations
//! that wait for them.
//!
//! An operation that misses a page is parked with its frame. When the page has come, the frame is executed
//! again from its beginning, by whoever parked it. The slab is fixed: when it is full, the operation is
//! refused.
//!
//! Pages that an operation has waited for may be given up again before it has all that it needs, when the
//! cache is small for what is asked of it. One that has been executed several times *keeps* the pages that
//! come for it until it is answered, so that it always is.
//!
//! A page that fails verification is read once more, for the one who needs it: in the meantime a checkpoint
//! may have ended, and the block may hold another page by now. What fails twice is damaged, and stays so
//! until it is repaired.
//!
//! Pages that only background work wants, and that stand next to each other, are read together: a merge takes
//! the leaves that the one before it wrote in the same order.

use super::PAGE_BYTES;
use super::cache::{Cache, PageClass};
use super::feed::Feed;
use super::lookup::{Pages, READ_AHEAD};
use super::page::{PageFault, PageKind, verify};
use super::pointer::PagePointer;
use super::space::Space;
use super::version::Redirects;
use crate::limits::{FEED_READS_IN_FLIGHT_MAX, PAGE_READS_IN_FLIGHT_MAX, PARKED_OPERATIONS_MAX};
use crate::operations::Owner;
use crate::partition::pending::Asker;
use crate::wal::block::LogIdentity;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{NodeId, PartitionId};
use evenkeel_wire::turn::{DiskAction, DiskCompletion, DiskOperation, Effects, File};
use std::collections::{BTreeMap, VecDeque};

/// Background work that reads pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeedId {
    /// The checkpoint's merges.
    Checkpoint,
    /// A snapshot on its way to a member.
    Snapshot(PartitionId, NodeId),
    /// The state that is being received and merged.
    Arrival,
    /// The check of everything.
    Check,
}

/// An operation that waits for pages.
#[derive(Debug)]
pub struct Parked {
    /// Who sent it, and how long it has waited.
    pub asker: Asker,
    /// Its frame's header.
    pub header: Header,
    /// Its frame's body. Give it back with [`Store::unpark`].
    pub body: Vec<u8>,
    waits_for: usize,
    attempt: Attempt,
}

/// How often an operation was executed, and what it keeps.
#[derive(Debug, Default)]
struct Attempt {
    count: u32,
    kept: Feed,
}

/// A page that background work gets, or why not.
#[derive(Debug)]
pub struct Delivery {
    /// For whom.
    pub feed: FeedId,
    /// Which page.
    pub pointer: PagePointer,
    /// The page, verified.
    pub page: Result<AlignedBuffer, PageFault>,
}

#[derive(Debug, Default)]
struct Reading {
    /// Places of parked operations.
    operations: Vec<usize>,
    feeds: Vec<FeedId>,
    /// It was read together with others, and the read failed: whose fault that was is not known.
    alone: bool,
}

/// Pages of a core.
#[derive(Debug)]
pub struct Store {
    identity: LogIdentity,
    /// Pages in memory.
    pub cache: Cache,
    /// Blocks of the file.
    pub space: Space,
    /// Pages that stand in for damaged ones.
    pub redirects: Redirects,
    reading: BTreeMap<PagePointer, Reading>,
    /// Those of them that are not asked for yet.
    queue: VecDeque<PagePointer>,
    /// Reads under way, with the pages that each brings, in the order of the file.
    under_way: BTreeMap<u64, Vec<PagePointer>>,
    /// Buffers for several pages.
    run_buffers: Vec<AlignedBuffer>,
    reads: u64,
    parked: Vec<Option<Parked>>,
    /// Of the operation that is executed again at this moment.
    current: Attempt,
    free: Vec<usize>,
    /// Places of requests that wait for a checkpoint or a new leader, not for pages.
    held: VecDeque<usize>,
    bodies: Vec<Vec<u8>>,
    /// Failed once. A few are remembered; the others may fail again.
    suspects: VecDeque<(PagePointer, PageFault)>,
    damaged: BTreeMap<PagePointer, PageFault>,
    /// Pages that were found damaged, and whether they were repaired: who reads an older version may find one
    /// again when a checkpoint has long done without it.
    counted: BTreeMap<PagePointer, bool>,
    damage_found: u64,
    damage_repaired: u64,
}

/// An operation that was executed as often as that keeps what comes for it: more than a tree has levels.
const ATTEMPTS_WITHOUT_KEEPING: u32 = 6;
/// Bytes that one read brings, if it brings several pages.
const RUN_BYTES_MAX: usize = 16 * PAGE_BYTES;
/// Bytes between two pages that are read and not used, so that one read brings both.
const RUN_GAP_MAX: u64 = PAGE_BYTES as u64;
/// Buffers of that length that are kept.
const RUN_BUFFERS_MAX: usize = 8;
/// Suspects that are remembered.
const SUSPECTS_MAX: usize = 64;

/// Damaged pages that are remembered to be counted once, when they are repaired.
const COUNTED_MAX: usize = 1024;
/// Bodies that are kept for the next parked operation.
const BODIES_MAX: usize = 64;
/// Longer ones are not.
const BODY_BYTES_MAX: usize = 16 * 1024;

impl Store {
    /// A store of the pages in the file whose blocks `space` knows, as of the durable `checkpoint`, with a
    /// cache of `cache_bytes`.
    #[must_use]
    pub fn new(identity: LogIdentity, cache_bytes: usize, mut space: Space, checkpoint: u64) -> Self {
        space.settle(checkpoint);
        Self {
            identity,
            cache: Cache::new(cache_bytes),
            space,
            redirects: Redirects::default(),
            reading: BTreeMap::new(),
            queue: VecDeque::new(),
            under_way: BTreeMap::new(),
            run_buffers: Vec::new(),
            reads: 0,
            parked: (0..PARKED_OPERATIONS_MAX).map(|_| None).collect(),
            current: Attempt::default(),
            free: (0..PARKED_OPERATIONS_MAX).rev().collect(),
            held: VecDeque::with_capacity(PARKED_OPERATIONS_MAX),
            bodies: Vec::new(),
            suspects: VecDeque::new(),
            damaged: BTreeMap::new(),
            counted: BTreeMap::new(),
            damage_found: 0,
            damage_repaired: 0,
        }
    }

    /// Whose pages they are.
    #[must_use]
    pub fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// What a merge works with.
    pub fn workshop(&mut self) -> (&mut Space, &mut Cache, &Redirects) {
        (&mut self.space, &mut self.cache, &self.redirects)
    }

    /// Where requests look for pages.
    #[must_use]
    pub fn pages(&self) -> Pages<'_> {
        let kept = &self.current.kept;
        let feed = (kept.pages() > 0).then_some(kept);
        Pages { cache: Some(&self.cache), feed, redirects: Some(&self.redirects) }
    }

    /// Where background work looks for them.
    #[must_use]
    pub fn pages_with<'a>(&'a self, feed: &'a Feed) -> Pages<'a> {
        Pages { feed: Some(feed), ..self.pages() }
    }

    /// What is wrong with a page, if it is damaged.
    #[must_use]
    pub fn damage(&self, pointer: &PagePointer) -> Option<PageFault> {
        self.damaged.get(pointer).copied()
    }

    /// Notes that a page is damaged.
    pub fn note_damage(&mut self, pointer: PagePointer, fault: PageFault) {
        self.damaged.insert(pointer, fault);
        if self.counted.len() >= COUNTED_MAX {
            self.counted.retain(|_, repaired| !*repaired);
        }
        self.counted.entry(pointer).or_insert_with(|| {
            self.damage_found += 1;
            false
        });
    }

    /// Forgets damage: something stands in for the page.
    pub fn repaired(&mut self, pointer: &PagePointer) {
        let was_damaged = self.damaged.remove(pointer).is_some();
        if let Some(repaired) = self.counted.get_mut(pointer).filter(|repaired| was_damaged && !**repaired) {
            *repaired = true;
            self.damage_repaired += 1;
        }
    }

    /// Forgets damage in blocks that the present version does without: nobody comes to repair it. A page may
    /// be noted by who read it too late, or hang below one that was built anew.
    pub fn forget_unreachable_damage(&mut self) {
        let unreachable = |page: &&PagePointer| !self.space.is_held(page.block);
        let unreachable: Vec<PagePointer> = self.damaged.keys().filter(unreachable).copied().collect();
        unreachable.iter().for_each(|page| self.repaired(page));
    }

    /// How many pages are known to be damaged.
    #[must_use]
    pub fn damaged_pages(&self) -> usize {
        self.damaged.len()
    }

    /// How many pages were found damaged since the start, and how many of them were repaired.
    #[must_use]
    pub fn damage_counts(&self) -> (u64, u64) {
        (self.damage_found, self.damage_repaired)
    }

    /// How many operations are parked.
    #[must_use]
    pub fn parked_operations(&self) -> usize {
        self.parked.len() - self.free.len()
    }

    /// How often the file was read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Parks an operation until `pages` have come; the first is needed, the others are read for what comes
    /// after. Returns false when the slab is full.
    pub fn park(&mut self, asker: Asker, header: Header, body: &[u8], pages: &[PagePointer]) -> bool {
        let Some(place) = self.free.pop() else {
            return false;
        };
        let mut kept = self.bodies.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(body);
        for pointer in pages {
            self.reading(*pointer).operations.push(place);
        }
        let mut attempt = std::mem::take(&mut self.current);
        attempt.count += 1;
        self.parked[place] = Some(Parked { asker, header, body: kept, waits_for: pages.len(), attempt });
        true
    }

    /// Holds a request until [`take_held`](Self::take_held). Returns false when the slab is full.
    pub fn hold(&mut self, asker: Asker, header: Header, body: &[u8]) -> bool {
        let Some(place) = self.free.last().copied() else {
            return false;
        };
        self.held.push_back(place);
        self.park(asker, header, body, &[])
    }

    /// The request of such a kind that was held first.
    pub fn take_held(&mut self, kind: impl Fn(Kind) -> bool) -> Option<Parked> {
        let is_such = |place: &usize| self.parked[*place].as_ref().is_some_and(|it| kind(it.header.kind));
        let first = self.held.iter().position(is_such)?;
        let place = self.held.remove(first)?;
        self.free.push(place);
        self.parked[place].take()
    }

    /// How many requests are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many pages may be asked for at once, so that they all fit the cache together.
    #[must_use]
    pub fn read_ahead_max(&self) -> usize {
        (self.cache.status().capacity_bytes / (8 * PAGE_BYTES)).clamp(1, READ_AHEAD)
    }

    /// Reads pages that somebody will want.
    pub fn read_ahead(&mut self, pages: &[PagePointer]) {
        for pointer in pages {
            self.reading(*pointer);
        }
    }

    /// Takes what background work wants, as far as it may have reads under way.
    pub fn serve_feed(&mut self, id: FeedId, feed: &mut Feed) {
        while feed.under_way() < FEED_READS_IN_FLIGHT_MAX {
            let Some(pointer) = feed.take_wanted() else {
                return;
            };
            if self.damaged.contains_key(&pointer) {
                feed.failed(&pointer);
                continue;
            }
            self.reading(pointer).feeds.push(id);
        }
    }

    fn reading(&mut self, pointer: PagePointer) -> &mut Reading {
        let queue = &mut self.queue;
        self.reading.entry(pointer).or_insert_with(|| {
            queue.push_back(pointer);
            Reading::default()
        })
    }

    /// Issues reads.
    pub fn end_turn(&mut self, out: &mut Effects) {
        while self.under_way.len() < PAGE_READS_IN_FLIGHT_MAX {
            let run = self.next_run();
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                return;
            };
            let (offset, bytes) = (first.offset(), (last.offset() - first.offset()) as usize + last.bytes());
            let buffer = if run.len() == 1 {
                self.cache.take_frame(bytes)
            } else {
                let kept = self.run_buffers.pop();
                let mut buffer = kept.unwrap_or_else(|| AlignedBuffer::with_capacity(RUN_BYTES_MAX));
                buffer.resize(bytes);
                buffer
            };
            self.reads += 1;
            self.under_way.insert(self.reads, run);
            let action = DiskAction::Read { offset, buffer };
            out.disk.push(DiskOperation { id: Owner::Page(self.reads).id(), file: File::Tree, action });
        }
    }

    /// The next pages to be read together, in the order of the file; empty when none is wanted.
    fn next_run(&mut self) -> Vec<PagePointer> {
        let mut run: Vec<PagePointer> = Vec::new();
        while let Some(next) = self.queue.front() {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                let gap = next.offset().checked_sub(last.offset() + last.bytes() as u64);
                let bytes = next.offset().saturating_sub(first.offset()) as usize + next.bytes();
                let near = gap.is_some_and(|gap| gap <= RUN_GAP_MAX) && bytes <= RUN_BYTES_MAX;
                if !(near && self.is_sociable(first) && self.is_sociable(next)) {
                    break;
                }
            }
            run.extend(self.queue.pop_front());
        }
        run
    }

    /// Whether a page may be read with others: no request waits for it.
    fn is_sociable(&self, pointer: &PagePointer) -> bool {
        self.reading.get(pointer).is_some_and(|reading| reading.operations.is_empty() && !reading.alone)
    }

    /// Takes what was read, or why it was not. Operations that wait for nothing more are moved to `ready`,
    /// what background work gets to `deliveries`.
    pub fn completed(
        &mut self,
        completion: DiskCompletion,
        ready: &mut Vec<Parked>,
        deliveries: &mut Vec<Delivery>,
    ) {
        let Owner::Page(read) = Owner::of(completion.id) else {
            return;
        };
        let Some(run) = self.under_way.remove(&read) else {
            return;
        };
        match (&run[..], completion.outcome) {
            (_, Ok(None)) => unreachable!("a read gives its buffer back"),
            ([pointer], Ok(Some(mut page))) => {
                let outcome = self.check(pointer, &page);
                match self.deliver(*pointer, outcome.map(|class| (class, &page[..])), ready, deliveries) {
                    Some(class) => self.cache.insert(*pointer, class, page),
                    None => {
                        page.resize(pointer.bytes());
                        self.cache.give_back(page);
                    }
                }
            }
            ([pointer], Err(fault)) => {
                // The buffer is gone with the operation: another takes its place.
                self.cache.give_back(AlignedBuffer::zeroed(pointer.bytes()));
                self.deliver(*pointer, Err(PageFault::Disk(fault)), ready, deliveries);
            }
            (run, Ok(Some(buffer))) => {
                for pointer in run {
                    let start = (pointer.offset() - run[0].offset()) as usize;
                    let page = buffer.get(start..start + pointer.bytes()).unwrap_or_default();
                    let outcome = self.check(pointer, page).map(|class| (class, page));
                    if let Some(class) = self.deliver(*pointer, outcome, ready, deliveries) {
                        let mut frame = self.cache.take_frame(page.len());
                        frame.copy_from_slice(page);
                        self.cache.insert(*pointer, class, frame);
                    }
                }
                if self.run_buffers.len() < RUN_BUFFERS_MAX {
                    self.run_buffers.push(buffer);
                }
            }
            (run, Err(_)) => {
                for pointer in run.iter().rev() {
                    self.reading(*pointer).alone = true;
                    self.queue.push_front(*pointer);
                }
            }
        }
    }

    /// Hands a page, or why there is none, to those who wait for it. Returns as what it is to be cached, if
    /// it is.
    fn deliver(
        &mut self,
        pointer: PagePointer,
        outcome: Result<(PageClass, &[u8]), PageFault>,
        ready: &mut Vec<Parked>,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<PageClass> {
        let Reading { operations, feeds, .. } = self.reading.remove(&pointer).unwrap_or_default();
        // What background work alone wanted is not for the cache.
        let for_feeds_only = operations.is_empty() && !feeds.is_empty();
        for feed in feeds {
            let page = outcome.map(|(_, page)| AlignedBuffer::copy_of(page));
            deliveries.push(Delivery { feed, pointer, page });
        }
        for place in operations {
            let parked = self.parked[place].as_mut().expect("it waits for this page");
            if parked.attempt.count > ATTEMPTS_WITHOUT_KEEPING
                && let Ok((_, page)) = &outcome
            {
                parked.attempt.kept.arrived(&pointer, AlignedBuffer::copy_of(page));
            }
            parked.waits_for -= 1;
            if parked.waits_for == 0 {
                ready.extend(self.parked[place].take());
                self.free.push(place);
            }
        }
        match outcome {
            Ok((class, _)) => (!for_feeds_only).then_some(class),
            Err(fault) => {
                self.suspect(pointer, fault);
                None
            }
        }
    }

    fn check(&self, pointer: &PagePointer, page: &[u8]) -> Result<PageClass, PageFault> {
        let header = verify(page, &self.identity, pointer)?;
        Ok(match header.content.kind {
            PageKind::Leaf => PageClass::Leaf,
            PageKind::Node => PageClass::Inner,
            PageKind::Overflow => PageClass::Overflow,
        })
    }

    fn suspect(&mut self, pointer: PagePointer, fault: PageFault) {
        if let Some(place) = self.suspects.iter().position(|(suspect, _)| *suspect == pointer) {
            self.suspects.remove(place);
            // It may have been asked for before something stood in for it.
            if self.redirects.resolve(&pointer) == pointer {
                self.note_damage(pointer, fault);
            }
            return;
        }
        if self.suspects.len() == SUSPECTS_MAX {
            self.suspects.pop_front();
        }
        self.suspects.push_back((pointer, fault));
    }

    /// An operation that was parked is executed again now.
    pub fn resume(&mut self, parked: &mut Parked) {
        self.current = std::mem::take(&mut parked.attempt);
    }

    /// Gives the memory of an operation back that was executed again.
    pub fn unpark(&mut self, parked: Parked) {
        self.current = Attempt::default();
        if self.bodies.len() < BODIES_MAX && parked.body.capacity() <= BODY_BYTES_MAX {
            self.bodies.push(parked.body);
        }
    }
}
