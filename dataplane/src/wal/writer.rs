//! The writer: gathers the records of a turn, issues them as one write, and knows what is durable.
//!
//! Invariants:
//! * A record is durable when its write is in the *contiguous* durable prefix: write n counts only after n−1.
//! * Writes are issued in the order of their lsn, each on a fresh block.
//! * A failed write is never tried again: the core halts, because the kernel may have dropped the data.
//! * Within `WATERMARK_WITHIN` of the last completion, a write names it in `durable_through`.
//!
//! What it does not do: decide whether a client write may be taken. [`Writer::is_nearly_full`] tells those
//! who do.

use super::block::{CameFrom, LogIdentity, Place, WRITE_HEADER_BYTES, WriteHeader};
use super::record::Record;
use super::segments::Segments;
use crate::limits::{
    LOG_BUFFER_BYTES, LOG_BUFFERS, LOG_WRITES_IN_FLIGHT_MAX, SEGMENTS_RESERVED, WATERMARK_WITHIN,
};
use crate::planted::{self, Planted};
use arrayvec::ArrayVec;
use evenkeel_wire::aligned::{AlignedBuffer, round_up};
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::Lsn;
use evenkeel_wire::message::status::LogStatus;
use evenkeel_wire::turn::{
    Boot, DiskAction, DiskCompletion, DiskOperation, Effects, File, Halt, OperationId,
};
use std::collections::VecDeque;
use std::time::Duration;

/// Where a log ended, so that a writer can go on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTail {
    /// The highest lsn that was ever seen, in the log or behind its end; zero: none. New writes go on above
    /// it, so that no lsn is used twice.
    pub highest: Lsn,
    /// The log's last write. What lies between it and `highest` is not in the log.
    pub last: Lsn,
    /// Hash of the header of the log's last write.
    pub hash: Hash128,
    /// Where the log ended: the next write says so.
    pub end: CameFrom,
}

/// Records that will be written together.
#[derive(Debug)]
struct Batch {
    lsn: Lsn,
    buffer: AlignedBuffer,
    records: u32,
}

/// The write at which the next checkpoint's log begins.
#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: Lsn,
    place: Option<Place>,
}

#[derive(Debug)]
struct InFlight {
    lsn: Lsn,
    issued_at: Boot,
    /// When it had been handed to the device; none: in this turn.
    submitted: Option<Boot>,
    done: bool,
}

/// When a log write began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// The turn that issued it.
    pub issued_in: Boot,
    /// When it had been handed to the device.
    pub submitted: Boot,
}

/// The log's writer.
#[derive(Debug)]
pub struct Writer {
    identity: LogIdentity,
    segments: Segments,
    /// Where the next write goes, while the newest segment has room.
    place: Option<Place>,
    /// The next write is the first of this process, and a link.
    is_first: bool,
    tail: LogTail,
    /// Where the log ended when this process began: the highest lsn, and the last write.
    found: (Lsn, Lsn),
    /// Batches that wait for their turn; records are added to the last.
    queue: VecDeque<Batch>,
    in_flight: VecDeque<InFlight>,
    pool: Vec<AlignedBuffer>,
    next_lsn: Lsn,
    durable: Lsn,
    /// The last write that carries records.
    last_with_records: Lsn,
    /// The highest `durable_through` that was issued.
    watermark: Lsn,
    watermark_due: Boot,
    mark: Option<Mark>,
    /// Writes that have become durable by the last completion.
    settled: ArrayVec<(Lsn, LogWrite), LOG_WRITES_IN_FLIGHT_MAX>,
    /// How long writes took of late; the last one counts for a quarter.
    took: Duration,
    status: LogStatus,
}

impl Writer {
    /// A writer that goes on behind `tail`. `pool` are the buffers it may use; more are made
    /// when they do not suffice.
    #[must_use]
    pub fn new(identity: LogIdentity, segments: Segments, tail: LogTail, pool: Vec<AlignedBuffer>) -> Self {
        let place = match tail.end {
            CameFrom::Nowhere => None,
            CameFrom::End(place) => Some(place),
        };
        Self {
            identity,
            segments,
            place,
            is_first: true,
            tail,
            found: (tail.highest, tail.last),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            pool,
            next_lsn: tail.highest.next(),
            durable: tail.highest,
            last_with_records: tail.highest,
            watermark: tail.highest,
            watermark_due: Boot::NEVER,
            mark: None,
            settled: ArrayVec::new(),
            took: Duration::ZERO,
            status: LogStatus::default(),
        }
    }

    /// Appends a record to the write that is being gathered, and returns that write's lsn.
    pub fn append(&mut self, record: &Record) -> Lsn {
        let encoded = record.encode();
        if self.queue.back().is_none_or(|batch| batch.buffer.room() < encoded.bytes()) {
            self.begin_batch(encoded.bytes());
        }
        let batch = self.queue.back_mut().expect("a batch with room was just made sure of");
        batch.buffer.extend(&encoded.header);
        batch.buffer.extend(&encoded.payload);
        batch.records += 1;
        self.status.records += 1;
        batch.lsn
    }

    /// Makes the next record begin a write of its own, and remembers where that write will stand.
    pub fn begin_marked_write(&mut self) -> Lsn {
        let lsn = self.begin_batch(0);
        self.mark = Some(Mark { lsn, place: None });
        lsn
    }

    /// Where the marked write stands, once it has been issued.
    #[must_use]
    pub fn marked_place(&self) -> Option<Place> {
        self.mark?.place
    }

    fn begin_batch(&mut self, payload_bytes: usize) -> Lsn {
        let capacity = LOG_BUFFER_BYTES.max(WRITE_HEADER_BYTES + payload_bytes);
        let pooled = self.pool.iter().rposition(|buffer| buffer.capacity() >= capacity);
        let mut buffer = match pooled {
            Some(place) => self.pool.swap_remove(place),
            None => AlignedBuffer::with_capacity(capacity),
        };
        buffer.clear();
        buffer.resize(WRITE_HEADER_BYTES);
        let lsn = self.next_lsn;
        self.queue.push_back(Batch { lsn, buffer, records: 0 });
        self.next_lsn = lsn.next();
        lsn
    }

    /// Issues what has been gathered, as far as the device takes it, and the watermark when it is due.
    pub fn end_turn(&mut self, now: Boot, out: &mut Effects) {
        let idle = self.queue.is_empty() && self.in_flight.is_empty();
        let unnamed = self.durable >= self.last_with_records && self.watermark < self.last_with_records;
        if idle && unnamed && now >= self.watermark_due {
            self.begin_batch(0);
        }
        while self.in_flight.len() < LOG_WRITES_IN_FLIGHT_MAX && !self.queue.is_empty() {
            if !self.issue_first(now, out) {
                break;
            }
        }
    }

    /// Issues the first batch; false when no segment is free for it.
    fn issue_first(&mut self, now: Boot, out: &mut Effects) -> bool {
        let bytes = round_up(self.queue[0].buffer.len()) as u64;
        let fits = |place: &Place| place.offset + bytes <= self.segments.segment_bytes();
        let end = self.place.map_or(CameFrom::Nowhere, CameFrom::End);
        let (place, came_from) = match self.place.filter(fits) {
            Some(place) => (place, self.is_first.then_some(end)),
            None => {
                let Some(place) = self.segments.take(self.queue[0].lsn) else {
                    return false;
                };
                (place, Some(end))
            }
        };
        self.is_first = false;
        let mut batch = self.queue.pop_front().expect("the caller has looked");
        let payload = &batch.buffer[WRITE_HEADER_BYTES..];
        let header = WriteHeader {
            place,
            lsn: batch.lsn,
            durable_through: self.durable_write(),
            payload_bytes: payload.len() as u32,
            records: batch.records,
            previous_hash: self.tail.hash,
            payload_hash: Hash128::of(payload),
            came_from,
        };
        let (bytes, hash) = header.encode(&self.identity);
        batch.buffer[..WRITE_HEADER_BYTES].copy_from_slice(&bytes);
        batch.buffer.pad_to_block();
        self.segments.wrote(batch.lsn);
        self.place = Some(header.end());
        self.tail = LogTail { highest: batch.lsn, last: batch.lsn, hash, ..self.tail };
        if let Some(mark) = &mut self.mark
            && mark.lsn == batch.lsn
        {
            mark.place = Some(place);
        }
        self.watermark = self.watermark.max(self.durable);
        if batch.records > 0 {
            self.last_with_records = batch.lsn;
        }
        self.status.writes += 1;
        self.status.bytes += batch.buffer.len() as u64;
        self.in_flight.push_back(InFlight { lsn: batch.lsn, issued_at: now, submitted: None, done: false });
        let durable = !planted::active(Planted::SkipFlush);
        let action = DiskAction::Write { offset: place.offset, buffer: batch.buffer, durable };
        out.disk.push(DiskOperation {
            id: OperationId(batch.lsn.0),
            file: File::Segment(place.at.segment),
            action,
        });
        true
    }

    /// Takes the completion of a log write: its operation id is its lsn. Returns up to where the log is
    /// durable now.
    ///
    /// # Errors
    /// [`Halt`] when the write failed.
    pub fn completed(&mut self, now: Boot, completion: DiskCompletion) -> Result<Lsn, Halt> {
        let lsn = Lsn(completion.id.0);
        let buffer = completion.outcome.map_err(|fault| Halt(format!("log write {lsn} failed: {fault}")))?;
        if let Some(buffer) = buffer
            && self.pool.len() < LOG_BUFFERS
        {
            self.pool.push(buffer);
        }
        let write = self.in_flight.iter_mut().find(|write| write.lsn == lsn);
        let write = write.expect("completions belong to writes in flight");
        write.done = true;
        self.settled.clear();
        self.took = (self.took * 3 + now.since(write.issued_at)) / 4;
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("there is a first");
            self.durable = write.lsn;
            let submitted = write.submitted.unwrap_or(write.issued_at);
            self.settled.push((write.lsn, LogWrite { issued_in: write.issued_at, submitted }));
        }
        if planted::active(Planted::CountAnyCompletion) {
            self.durable = self.durable.max(lsn);
        }
        self.watermark_due = now.after(WATERMARK_WITHIN);
        Ok(self.durable)
    }

    /// The effects of the turn before had been performed at `at`.
    pub fn performed(&mut self, at: Boot) {
        for write in self.in_flight.iter_mut().rev().take_while(|write| write.submitted.is_none()) {
            write.submitted = Some(at.max(write.issued_at));
        }
    }

    /// When the write `lsn` began, if the last completion has made it durable.
    #[must_use]
    pub fn settled(&self, lsn: Lsn) -> Option<LogWrite> {
        self.settled.iter().find(|(settled, _)| *settled == lsn).map(|(_, write)| *write)
    }

    /// The last durable write that is in the log. Until the first write of this process is durable, that is
    /// where the log ended: lsns that were seen behind its end are no writes of it, and nobody may take them
    /// for lost.
    fn durable_write(&self) -> Lsn {
        let (highest, last) = self.found;
        if self.durable == highest { last } else { self.durable }
    }

    /// Up to where the log is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        if planted::active(Planted::AcknowledgeBeforeDurable) {
            return self.tail.highest;
        }
        self.durable
    }

    /// The last write that anything was appended to.
    #[must_use]
    pub fn appended(&self) -> Lsn {
        Lsn(self.next_lsn.0 - 1)
    }

    /// Frees what lies before the write `start`, where the log now begins.
    pub fn recycle_before(&mut self, start: Lsn) {
        self.segments.recycle_before(start);
    }

    /// Whether only the reserve is left: client writes must wait for a checkpoint.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        let waiting: usize = self.queue.iter().map(|batch| batch.buffer.len()).sum();
        let waiting = (waiting as u64).div_ceil(self.segments.segment_bytes()) as usize;
        self.segments.free() < SEGMENTS_RESERVED + waiting.max(1)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.segments.count() as u64 * self.segments.segment_bytes()
    }

    /// How many segments are free, the unwritten part of the newest one included.
    #[must_use]
    pub fn free_segments(&self) -> f64 {
        let segment_bytes = self.segments.segment_bytes();
        let left = self.place.map_or(0, |place| segment_bytes.saturating_sub(place.offset));
        self.segments.free() as f64 + left as f64 / segment_bytes as f64
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// How long a write takes: as those of late did, or as the oldest in flight already has.
    #[must_use]
    pub fn write_takes(&self, now: Boot) -> Duration {
        let waits = self.in_flight.front().map(|write| now.since(write.issued_at));
        self.took.max(waits.unwrap_or_default())
    }

    /// When the writer wants to be woken.
    #[must_use]
    pub fn wake_at(&self) -> Boot {
        let unnamed = self.is_idle() && self.watermark < self.last_with_records;
        if unnamed { self.watermark_due } else { Boot::NEVER }
    }

    /// Counters for people.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        LogStatus {
            segments: self.segments.count() as u32,
            segments_free: self.segments.free() as u32,
            ..self.status
        }
    }
}
