//! Reads a log back after a restart.
//!
//! The log is followed from the start that the superblock names: write by write within a segment, and by
//! links: the first write of a segment, and the first write of each process, say where the log came from. A
//! link supersedes what stood behind the end that it names, because it was written when an earlier recovery
//! had declared that end. New writes get an lsn above every one that was ever seen, so that of two links from
//! one end the later one is known.
//!
//! Where the next write is invalid, the log itself says what that means: if any later write names an lsn at
//! or above the missing one as durable, acknowledged data is damaged; otherwise nothing behind this place was
//! ever acknowledged, and the log ends here. Damage is reported, never cut off: reading goes on behind it.
//!
//! This is a state machine: [`LogRecovery::next`] asks for one read at a time and collects records.

use super::block::{CameFrom, LogIdentity, NotAHeader, Place, SegmentLife, WRITE_HEADER_BYTES, WriteHeader};
use super::record::{Record, RecordError};
use super::segments::SegmentUse;
use super::writer::LogTail;
use crate::limits::{BLANK_READ_PART, RECOVERY_READ_BYTES};
use crate::planted::{self, Planted};
use bytes::Bytes;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::Lsn;
use evenkeel_wire::limits::BLOCK_BYTES;
use std::collections::VecDeque;
use thiserror::Error;

/// Where the log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// The first write that is needed.
    pub lsn: Lsn,
    /// Where it stands; none: nothing was written yet when the superblock was.
    pub place: Option<Place>,
}

/// A stretch of the log that was durable once and cannot be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the unreadable write stands.
    pub place: Place,
    /// Its lsn.
    pub from: Lsn,
    /// The next lsn that could be read; none: none could.
    pub until: Option<Lsn>,
}

/// Why a log cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// It was written by a newer version.
    #[error("log segment {segment} was written in format {format}; start a version that knows it")]
    NewerFormat {
        /// The segment.
        segment: u32,
        /// Its format.
        format: u16,
    },
    /// A record is malformed although its write is whole: a bug, or a newer version.
    #[error("log write {lsn}: {error}")]
    Record {
        /// The write.
        lsn: Lsn,
        /// What is wrong with its record.
        error: RecordError,
    },
}

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Read this much of a segment, then call again with the bytes.
    Read {
        /// The segment.
        segment: u32,
        /// Byte offset, a whole number of blocks.
        offset: u64,
        /// How much, a whole number of blocks.
        bytes: usize,
    },
    /// The log has been read.
    Done(RecoveredLog),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    /// Where a writer goes on.
    pub tail: LogTail,
    /// The segments that hold the log, oldest first.
    pub used: VecDeque<SegmentUse>,
    /// What could not be read although it was durable once.
    pub damage: Vec<Damage>,
}

#[derive(Debug)]
enum Phase {
    /// Reading the first block of every segment.
    Heads { segment: u32 },
    /// Following the log.
    Follow,
    /// The write at the cursor is invalid: looking for evidence that it was durable.
    Evidence(Evidence),
}

/// The search for later writes when one is invalid.
#[derive(Debug)]
struct Evidence {
    /// What is still to be scanned.
    left: Vec<Place>,
    at: Place,
    durable_through: Lsn,
    resume: Option<(Lsn, Place, Hash128)>,
}

/// Reads a log.
#[derive(Debug)]
pub struct LogRecovery {
    identity: LogIdentity,
    segment_count: u32,
    segment_bytes: u64,
    phase: Phase,
    heads: Vec<WriteHeader>,
    /// Segments whose first write cannot be read.
    headless: Vec<u32>,
    /// Segments that begin with zeros: they were never used, or their first write was acknowledged and is not
    /// there.
    blank: Vec<u32>,
    /// The superblock names this write, so it was durable; zero: it knew of none.
    known_durable: Lsn,
    /// Where the next write is expected.
    cursor: Option<Place>,
    last: Lsn,
    last_hash: Option<Hash128>,
    highest: Lsn,
    /// Where the log came from when it entered the present segment.
    came_from: CameFrom,
    window: Window,
    used: VecDeque<SegmentUse>,
    damage: Vec<Damage>,
    /// Records read so far, in order; the caller drains them.
    pub records: Vec<Record>,
}

/// The bytes that were read last.
#[derive(Debug, Default)]
struct Window {
    segment: u32,
    offset: u64,
    bytes: Bytes,
}

impl Window {
    fn get(&self, place: Place, bytes: usize) -> Option<Bytes> {
        let start = place.offset.checked_sub(self.offset)? as usize;
        let inside = place.at.segment == self.segment && start + bytes <= self.bytes.len();
        inside.then(|| self.bytes.slice(start..start + bytes))
    }
}

impl LogRecovery {
    /// Begins to read the log that starts at `start`.
    #[must_use]
    pub fn new(identity: LogIdentity, segment_count: u32, segment_bytes: u64, start: LogStart) -> Self {
        Self {
            identity,
            segment_count,
            segment_bytes,
            phase: Phase::Heads { segment: 0 },
            heads: Vec::new(),
            headless: Vec::new(),
            blank: Vec::new(),
            known_durable: start.place.map_or(Lsn::ZERO, |_| start.lsn),
            cursor: start.place,
            last: Lsn(start.lsn.0 - 1),
            last_hash: None,
            highest: Lsn(start.lsn.0 - 1),
            came_from: CameFrom::Nowhere,
            window: Window::default(),
            used: VecDeque::new(),
            damage: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Whether damage has been found so far.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }

    /// Takes the bytes of the last read, if one was asked for, and says what to do next.
    ///
    /// # Errors
    /// When the log cannot be used by this version.
    pub fn next(&mut self, read: Option<(u32, u64, Bytes)>) -> Result<Next, LogError> {
        if let Some((segment, offset, bytes)) = read {
            self.window = Window { segment, offset, bytes };
        }
        loop {
            let step = match &self.phase {
                Phase::Heads { segment } => self.read_head(*segment)?,
                Phase::Follow => self.follow()?,
                Phase::Evidence(_) => self.search(),
            };
            if let Some(next) = step {
                return Ok(next);
            }
        }
    }

    fn read_head(&mut self, segment: u32) -> Result<Option<Next>, LogError> {
        if segment == self.segment_count {
            self.enter_log();
            self.phase = Phase::Follow;
            return Ok(None);
        }
        let place = Place { at: SegmentLife { segment, life: Lsn::ZERO }, offset: 0 };
        let Some(block) = self.window.get(place, BLOCK_BYTES) else {
            return Ok(Some(Next::Read { segment, offset: 0, bytes: BLOCK_BYTES }));
        };
        match WriteHeader::decode(&block, &self.identity, segment, 0) {
            Ok((header, _)) if header.came_from.is_some() && header.place.at.life == header.lsn => {
                self.highest = self.highest.max(header.lsn);
                self.heads.push(header);
            }
            Ok(_) | Err(NotAHeader::Invalid) => {
                let is_blank = block.iter().all(|byte| *byte == 0) && !planted::active(Planted::TrustBlank);
                let unread = if is_blank { &mut self.blank } else { &mut self.headless };
                // Later writes of it may be whole.
                unread.push(segment);
            }
            Err(NotAHeader::Format(format)) => return Err(LogError::NewerFormat { segment, format }),
        }
        self.phase = Phase::Heads { segment: segment + 1 };
        Ok(None)
    }

    /// Finds the first segment of a log of which the superblock knew no place.
    fn enter_log(&mut self) {
        if self.cursor.is_none() {
            let first = |head: &&WriteHeader| head.came_from == Some(CameFrom::Nowhere);
            // Where the first write stands if it cannot be read, or none was ever made.
            let unread = Place { at: SegmentLife { segment: 0, life: self.last.next() }, offset: 0 };
            self.cursor = Some(self.heads.iter().find(first).map_or(unread, |head| head.place));
        }
        if let Some(place) = self.cursor {
            self.used.push_back(SegmentUse { at: place.at, last: self.last });
        }
    }

    fn follow(&mut self) -> Result<Option<Next>, LogError> {
        let Some(place) = self.cursor else {
            return Ok(Some(self.finish()));
        };
        let head = self.linked_from(place);
        if place.offset + BLOCK_BYTES as u64 > self.segment_bytes {
            return Ok(match head {
                Some(head) => self.enter(place, &head),
                None => self.begin_search(place),
            });
        }
        let Some(block) = self.window.get(place, BLOCK_BYTES) else {
            return Ok(Some(self.read_at(place, BLOCK_BYTES)));
        };
        let here = match WriteHeader::decode(&block, &self.identity, place.at.segment, place.offset) {
            Ok((header, hash)) if self.is_expected(&header, place) => Some((header, hash)),
            Ok(_) | Err(NotAHeader::Invalid) => None,
            Err(NotAHeader::Format(format)) => {
                return Err(LogError::NewerFormat { segment: place.at.segment, format });
            }
        };
        let (header, hash) = match (here, head) {
            (Some((header, _)), Some(head)) if head.lsn > header.lsn => return Ok(self.enter(place, &head)),
            (None, Some(head)) => return Ok(self.enter(place, &head)),
            (None, None) => return Ok(self.begin_search(place)),
            (Some(here), Some(_) | None) => here,
        };
        let bytes = header.disk_bytes() as usize;
        if header.end().offset > self.segment_bytes {
            return Ok(self.begin_search(place));
        }
        let Some(write) = self.window.get(place, bytes) else {
            return Ok(Some(self.read_at(place, bytes)));
        };
        let payload = write.slice(WRITE_HEADER_BYTES..WRITE_HEADER_BYTES + header.payload_bytes as usize);
        if Hash128::of(&payload) != header.payload_hash {
            return Ok(self.begin_search(place));
        }
        self.take_records(&header, payload)?;
        self.last = header.lsn;
        self.highest = self.highest.max(header.lsn);
        self.last_hash = Some(hash);
        self.cursor = Some(header.end());
        self.used.back_mut().expect("the log is followed inside a segment").last = header.lsn;
        Ok(None)
    }

    /// Goes on in another segment.
    fn enter(&mut self, from: Place, head: &WriteHeader) -> Option<Next> {
        self.came_from = CameFrom::End(from);
        self.used.push_back(SegmentUse { at: head.place.at, last: head.lsn });
        self.last = Lsn(head.lsn.0 - 1);
        self.cursor = Some(head.place);
        None
    }

    /// The latest link from `place` to another segment.
    fn linked_from(&self, place: Place) -> Option<WriteHeader> {
        let links = |head: &&WriteHeader| {
            head.came_from == Some(CameFrom::End(place))
                && head.place != place
                && head.lsn > self.last
                && self.last_hash.is_none_or(|hash| head.previous_hash == hash)
        };
        self.heads.iter().filter(links).max_by_key(|head| head.lsn).copied()
    }

    fn is_expected(&self, header: &WriteHeader, place: Place) -> bool {
        let links_here = header.came_from == Some(CameFrom::End(place)) && header.lsn > self.last;
        // The first write of all has a later lsn when an earlier one was torn.
        let begins_here = header.came_from == Some(CameFrom::Nowhere)
            && self.known_durable == Lsn::ZERO
            && self.last_hash.is_none()
            && header.lsn > self.last;
        header.place == place
            && (links_here || begins_here || header.lsn == self.last.next())
            && self.last_hash.is_none_or(|hash| header.previous_hash == hash)
    }

    fn take_records(&mut self, header: &WriteHeader, mut payload: Bytes) -> Result<(), LogError> {
        for _ in 0..header.records {
            let record = Record::take(&mut payload);
            self.records.push(record.map_err(|error| LogError::Record { lsn: header.lsn, error })?);
        }
        Ok(())
    }

    fn read_at(&self, place: Place, at_least: usize) -> Next {
        let left = (self.segment_bytes - place.offset) as usize;
        let bytes = RECOVERY_READ_BYTES.max(at_least).min(left);
        Next::Read { segment: place.at.segment, offset: place.offset, bytes }
    }

    /// The write at `place` is invalid: what remains of this segment and every later one may say whether it
    /// was durable.
    fn begin_search(&mut self, place: Place) -> Option<Next> {
        let later = |head: &&WriteHeader| head.lsn > self.last.next();
        let later = self.heads.iter().filter(later).map(|head| head.place.at.segment);
        let suspects = later.chain(self.headless.iter().chain(&self.blank).copied());
        let elsewhere = suspects.filter(|segment| *segment != place.at.segment);
        let left =
            elsewhere.map(|segment| Place { at: SegmentLife { segment, ..place.at }, offset: 0 }).collect();
        let at = Place { offset: place.offset + BLOCK_BYTES as u64, ..place };
        self.phase = Phase::Evidence(Evidence { left, at, durable_through: Lsn::ZERO, resume: None });
        None
    }

    fn search(&mut self) -> Option<Next> {
        let Phase::Evidence(evidence) = &mut self.phase else {
            return None;
        };
        let missing = self.last.next();
        let begun_in = self.cursor.expect("a search begins at a place").at.segment;
        loop {
            let at = evidence.at;
            let is_blank = self.blank.contains(&at.at.segment) && at.at.segment != begun_in;
            let end = if is_blank { self.segment_bytes / BLANK_READ_PART } else { self.segment_bytes };
            if at.offset + BLOCK_BYTES as u64 > end {
                let Some(next) = evidence.left.pop() else {
                    break;
                };
                evidence.at = next;
                continue;
            }
            let Some(block) = self.window.get(at, BLOCK_BYTES) else {
                let bytes = RECOVERY_READ_BYTES.min((self.segment_bytes - at.offset) as usize);
                return Some(Next::Read { segment: at.at.segment, offset: at.offset, bytes });
            };
            evidence.at.offset += BLOCK_BYTES as u64;
            let decoded = WriteHeader::decode(&block, &self.identity, at.at.segment, at.offset);
            let Ok((header, _)) = decoded else {
                continue;
            };
            // Lives need not be compared: what a recycled segment held before has lower numbers than the
            // log's start.
            if header.lsn <= missing {
                continue;
            }
            self.highest = self.highest.max(header.lsn);
            evidence.durable_through = evidence.durable_through.max(header.durable_through);
            if evidence.resume.is_none_or(|(lsn, ..)| header.lsn < lsn) {
                evidence.resume = Some((header.lsn, header.place, header.previous_hash));
            }
        }
        self.conclude_search()
    }

    fn conclude_search(&mut self) -> Option<Next> {
        let Phase::Evidence(Evidence { durable_through, resume, .. }) =
            std::mem::replace(&mut self.phase, Phase::Follow)
        else {
            return None;
        };
        let missing = self.last.next();
        let place = self.cursor.expect("a search begins at a place");
        if durable_through.max(self.known_durable) < missing || planted::active(Planted::IgnoreWatermark) {
            return Some(self.finish());
        }
        self.damage.push(Damage { place, from: missing, until: resume.map(|(lsn, ..)| lsn) });
        let Some((lsn, resume_at, previous_hash)) = resume else {
            return Some(self.finish());
        };
        self.last = Lsn(lsn.0 - 1);
        self.last_hash = Some(previous_hash);
        self.cursor = Some(resume_at);
        if self.used.back().is_some_and(|newest| newest.at != resume_at.at) {
            self.used.push_back(SegmentUse { at: resume_at.at, last: lsn });
        }
        None
    }

    fn finish(&mut self) -> Next {
        // A torn first write leaves its segment unused: the log ended where it came from.
        let unwritten = self.known_durable == Lsn::ZERO || matches!(self.came_from, CameFrom::End(_));
        let end = match self.cursor {
            None => CameFrom::Nowhere,
            Some(cursor) if cursor.offset == 0 && unwritten => {
                self.used.pop_back();
                self.came_from
            }
            Some(cursor) => CameFrom::End(cursor),
        };
        let hash = self.last_hash.unwrap_or(Hash128::ZERO);
        let tail = LogTail { highest: self.highest, last: self.last, hash, end };
        Next::Done(RecoveredLog { tail, used: std::mem::take(&mut self.used), damage: self.damage.clone() })
    }
}
