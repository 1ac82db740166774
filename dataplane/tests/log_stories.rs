//! Failure stories of the log: what a crash, a torn write or a flipped bit leaves behind, and what recovery
//! makes of it. The disk is a map of files in memory; a story decides which writes reach it.

use bytes::Bytes;
use evenkeel_dataplane::limits::{SEGMENT_BYTES_MIN, WATERMARK_WITHIN};
use evenkeel_dataplane::wal::block::{CameFrom, LogIdentity, WRITE_HEADER_BYTES, WriteHeader};
use evenkeel_dataplane::wal::record::{Record, RecordBody};
use evenkeel_dataplane::wal::recovery::{LogError, LogRecovery, LogStart, Next, RecoveredLog};
use evenkeel_dataplane::wal::segments::Segments;
use evenkeel_dataplane::wal::writer::{LogTail, Writer};
use evenkeel_wire::checksum::{Hash128, crc32c};
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, Lsn, NodeId, PartitionId, Slot};
use evenkeel_wire::turn::{Boot, DiskAction, DiskCompletion, DiskOperation, Effects, File};
use std::collections::VecDeque;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([7; 16]), core: CoreId(0) };
const SEGMENTS: u32 = 4;

/// A log with the disk under it.
struct Log {
    segments: Vec<Vec<u8>>,
    writer: Writer,
    effects: Effects,
    now: Boot,
    rounds: u64,
}

impl Log {
    fn new() -> Self {
        let segments = Segments::new(SEGMENTS, SEGMENT_BYTES_MIN, VecDeque::new());
        let tail =
            LogTail { highest: Lsn::ZERO, last: Lsn::ZERO, hash: Hash128::ZERO, end: CameFrom::Nowhere };
        Self {
            segments: vec![vec![0; SEGMENT_BYTES_MIN as usize]; SEGMENTS as usize],
            writer: Writer::new(IDENTITY, segments, tail, Vec::new()),
            effects: Effects::new(),
            now: Boot(0),
            rounds: 0,
        }
    }

    /// Appends a promise of the next round and issues it as a write of its own.
    fn issue(&mut self) -> DiskOperation {
        self.rounds += 1;
        self.writer.append(&promise(self.rounds));
        self.writer.end_turn(self.now, &mut self.effects);
        self.effects.disk.pop().expect("the device has room")
    }

    /// Lets a write reach the disk, and reports it.
    fn land(&mut self, operation: DiskOperation) {
        let id = operation.id;
        self.put(operation);
        self.writer.completed(self.now, DiskCompletion { id, outcome: Ok(None) }).unwrap();
    }

    /// Lets a write reach the disk; the process never learns.
    fn put(&mut self, operation: DiskOperation) {
        let (File::Segment(segment), DiskAction::Write { offset, buffer, durable }) =
            (operation.file, operation.action)
        else {
            panic!("the log only writes segments");
        };
        assert!(durable, "log writes are flushed");
        let at = offset as usize;
        self.segments[segment as usize][at..at + buffer.len()].copy_from_slice(&buffer);
    }

    fn write(&mut self, count: usize) {
        for _ in 0..count {
            let operation = self.issue();
            self.land(operation);
        }
    }

    /// Waits until the writer names its last write as durable, and lets that write land, too.
    fn settle(&mut self) {
        self.now = self.now.after(WATERMARK_WITHIN);
        self.writer.end_turn(self.now, &mut self.effects);
        let operation = self.effects.disk.pop().expect("a watermark is due");
        self.land(operation);
    }

    /// Reads the log back: the rounds that were found, and what recovery says.
    fn recover(&self) -> (Vec<u64>, RecoveredLog) {
        self.try_recover().unwrap()
    }

    fn try_recover(&self) -> Result<(Vec<u64>, RecoveredLog), LogError> {
        let start = LogStart { lsn: Lsn(1), place: None };
        self.read_with(&mut LogRecovery::new(IDENTITY, SEGMENTS, SEGMENT_BYTES_MIN, start))
    }

    fn read_with(&self, recovery: &mut LogRecovery) -> Result<(Vec<u64>, RecoveredLog), LogError> {
        let mut read = None;
        loop {
            match recovery.next(read.take())? {
                Next::Read { segment, offset, bytes } => {
                    let file = &self.segments[segment as usize];
                    let end = (offset as usize + bytes).min(file.len());
                    read = Some((segment, offset, Bytes::copy_from_slice(&file[offset as usize..end])));
                }
                Next::Done(log) => {
                    let rounds = recovery.records.iter().map(|record| record.promised.round).collect();
                    return Ok((rounds, log));
                }
            }
        }
    }

    /// Crashes and starts again on the same disk.
    fn restart(&mut self) -> (Vec<u64>, RecoveredLog) {
        let (rounds, log) = self.recover();
        let segments = Segments::new(SEGMENTS, SEGMENT_BYTES_MIN, log.used.clone());
        self.writer = Writer::new(IDENTITY, segments, log.tail, Vec::new());
        self.effects = Effects::new();
        (rounds, log)
    }
}

fn promise(round: u64) -> Record {
    let promised = Ballot { round, node: NodeId(1) };
    Record { partition: PartitionId(1), promised, commit: Slot::ZERO, body: RecordBody::Promise }
}

fn rounds(through: u64) -> Vec<u64> {
    (1..=through).collect()
}

#[test]
fn an_empty_log_is_empty_and_a_written_one_comes_back() {
    let mut log = Log::new();
    assert!(log.recover().0.is_empty());
    log.write(5);
    let (found, recovered) = log.recover();
    assert_eq!((found, recovered.damage.len()), (rounds(5), 0));
}

#[test]
fn records_of_one_turn_share_a_write() {
    let mut log = Log::new();
    for round in 1..=10 {
        log.writer.append(&promise(round));
    }
    log.writer.end_turn(log.now, &mut log.effects);
    assert_eq!(log.effects.disk.len(), 1);
    let operation = log.effects.disk.pop().unwrap();
    log.land(operation);
    assert_eq!(log.recover().0, rounds(10));
}

#[test]
fn a_torn_tail_ends_the_log_and_is_no_damage() {
    let mut log = Log::new();
    log.write(3);
    let _lost = log.issue();
    let (found, recovered) = log.recover();
    assert_eq!((found, recovered.damage.len()), (rounds(3), 0));
}

#[test]
fn a_write_behind_a_missing_one_was_never_acknowledged_and_does_not_count() {
    let mut log = Log::new();
    log.write(2);
    let _third_is_lost = log.issue();
    let fourth = log.issue();
    log.put(fourth);
    let (found, recovered) = log.restart();
    assert_eq!((found, recovered.damage.len()), (rounds(2), 0));
    // What is written next supersedes the fourth for ever, although its block is still whole.
    log.rounds = 10;
    log.write(1);
    assert_eq!(log.recover().0, [1, 2, 11]);
    log.restart();
    log.write(1);
    assert_eq!(log.recover().0, [1, 2, 11, 12]);
}

#[test]
fn completions_out_of_order_count_only_as_a_contiguous_prefix() {
    let mut log = Log::new();
    let (first, second) = (log.issue(), log.issue());
    log.land(second);
    assert_eq!(log.writer.durable(), Lsn::ZERO);
    log.land(first);
    assert_eq!(log.writer.durable(), Lsn(2));
}

#[test]
fn a_flipped_bit_below_the_watermark_is_damage_and_reading_goes_on_behind_it() {
    for bit in [0, 8 * 60, 8 * WRITE_HEADER_BYTES + 9] {
        let mut log = Log::new();
        log.write(5);
        log.settle();
        let third = 2 * 4096;
        log.segments[0][third + bit / 8] ^= 1 << (bit % 8);
        let (found, recovered) = log.recover();
        assert_eq!(found, [1, 2, 4, 5], "bit {bit}");
        let damage = recovered.damage[0];
        assert_eq!((damage.place.offset, damage.from, damage.until), (8192, Lsn(3), Some(Lsn(4))));
        assert_eq!(recovered.damage.len(), 1);
    }
}

#[test]
fn a_damaged_last_write_is_told_from_a_torn_one_by_the_watermark() {
    let mut log = Log::new();
    log.write(3);
    log.segments[0][2 * 4096 + 20] ^= 1;
    assert_eq!(log.recover().1.damage.len(), 0, "without a later write nobody knows that it was durable");
    log.segments[0][2 * 4096 + 20] ^= 1;
    log.settle();
    log.segments[0][2 * 4096 + 20] ^= 1;
    let (found, recovered) = log.recover();
    assert_eq!((found, recovered.damage.len()), (rounds(2), 1));
}

/// Writes records so large that two fill a segment.
#[test]
fn damage_at_the_very_first_write_of_a_log_is_not_taken_for_an_empty_log() {
    let mut log = Log::new();
    log.write(3);
    log.segments[0][100] ^= 1;
    let (rounds, found) = log.recover();
    assert_eq!(rounds, [2, 3]);
    let [damage] = &found.damage[..] else { panic!("{:?}", found.damage) };
    assert_eq!((damage.from, damage.until), (Lsn(1), Some(Lsn(2))));
    // A write that never came is as bad.
    log.segments[0][..4096].fill(0);
    assert_eq!(log.recover().1.damage.len(), 1);
}

#[test]
fn torn_first_writes_of_a_log_are_no_damage_and_it_begins_again() {
    let mut log = Log::new();
    for _ in 0..2 {
        let (first, second) = (log.issue(), log.issue());
        log.put(second);
        drop(first);
        let (found, recovered) = log.restart();
        assert_eq!((found, recovered.damage.len()), (vec![], 0));
        assert_eq!(recovered.tail.end, CameFrom::Nowhere);
    }
    log.write(2);
    let (found, recovered) = log.restart();
    assert_eq!((found, recovered.damage.len()), (vec![5, 6], 0));
    log.write(1);
    assert_eq!(log.recover().0, [5, 6, 7]);
}

#[test]
fn a_damaged_write_that_the_superblock_names_is_damage_even_if_nothing_follows() {
    let mut log = Log::new();
    log.write(1);
    let place = log.recover().1.used[0].at;
    let place = evenkeel_dataplane::wal::block::Place { at: place, offset: 0 };
    log.segments[0][100] ^= 1;
    let start = LogStart { lsn: Lsn(1), place: Some(place) };
    let mut recovery = LogRecovery::new(IDENTITY, SEGMENTS, SEGMENT_BYTES_MIN, start);
    assert_eq!(log.read_with(&mut recovery).unwrap().1.damage.len(), 1);
}

fn write_big(log: &mut Log, count: usize) {
    let big = vec![9; 3_000_000];
    for _ in 0..count {
        log.rounds += 1;
        let mut record = promise(log.rounds);
        record.body = RecordBody::Entry(big_entry(&big));
        log.writer.append(&record);
        log.writer.end_turn(log.now, &mut log.effects);
        let operation = log.effects.disk.pop().unwrap();
        log.land(operation);
    }
}

#[test]
fn the_log_goes_on_through_segments_and_restarts() {
    let mut log = Log::new();
    write_big(&mut log, 4);
    let (found, recovered) = log.restart();
    assert_eq!((found, recovered.used.len()), (rounds(4), 2));
    write_big(&mut log, 1);
    log.write(1);
    let (found, recovered) = log.recover();
    assert_eq!((found, recovered.used.len(), recovered.damage.len()), (rounds(6), 3, 0));
}

#[test]
fn a_restart_goes_on_in_the_same_segment() {
    let mut log = Log::new();
    for _ in 0..50 {
        log.write(1);
        log.restart();
    }
    assert_eq!(log.writer.status().segments_free, SEGMENTS - 1);
    assert_eq!(log.recover().0, rounds(50));
}

#[test]
fn a_torn_first_write_of_a_segment_leaves_the_segment_unused() {
    let mut log = Log::new();
    write_big(&mut log, 2);
    let big = big_entry(&vec![9; 3_000_000]);
    log.writer.append(&Record { body: RecordBody::Entry(big), ..promise(99) });
    log.writer.end_turn(log.now, &mut log.effects);
    let torn = log.effects.disk.pop().unwrap();
    log.put(torn);
    // Its header is whole, its last block is not.
    log.segments[1][2_999_000] ^= 1;
    let (found, recovered) = log.restart();
    assert_eq!((found, recovered.used.len(), recovered.damage.len()), (rounds(2), 1, 0));
    // A small write fits where the large one did not, and supersedes the link that is still there.
    log.write(1);
    assert_eq!(log.recover().0, rounds(3));
    write_big(&mut log, 1);
    assert_eq!(log.restart().0, rounds(4));
}

#[test]
fn damage_at_the_head_of_a_later_segment_is_found() {
    let mut log = Log::new();
    write_big(&mut log, 6);
    log.settle();
    log.segments[1][100] ^= 4;
    let (found, recovered) = log.recover();
    assert_eq!(recovered.damage.len(), 1);
    assert_eq!(found, [1, 2, 4, 5, 6]);
}

#[test]
fn a_lost_first_write_of_a_segment_that_was_never_used_is_damage() {
    let mut log = Log::new();
    write_big(&mut log, 2);
    // The third does not fit behind them: a small one that the disk acknowledges and does not keep…
    let filler = big_entry(&vec![9; 2_380_000]);
    log.writer.append(&Record { body: RecordBody::Entry(filler), ..promise(3) });
    log.rounds = 3;
    log.writer.end_turn(log.now, &mut log.effects);
    let operation = log.effects.disk.pop().unwrap();
    log.land(operation);
    let lost = log.issue();
    assert_eq!(lost.file, File::Segment(1), "it begins a segment");
    log.writer.completed(log.now, DiskCompletion { id: lost.id, outcome: Ok(None) }).unwrap();
    assert_eq!(log.recover().1.damage.len(), 0, "nothing says yet that it was acknowledged");
    // …and one behind it, which says that it was durable.
    log.write(1);
    let (found, recovered) = log.recover();
    assert_eq!((found, recovered.damage.len()), ([1, 2, 3, 5].to_vec(), 1));
}

#[test]
fn recycled_segments_hold_old_valid_writes_that_do_not_count() {
    let mut log = Log::new();
    write_big(&mut log, 7);
    let first_life = log.segments[0].clone();
    log.writer.recycle_before(Lsn(100));
    assert_eq!(log.writer.status().segments_free, SEGMENTS - 1);
    write_big(&mut log, 2);
    assert_ne!(log.segments[0], first_life, "the first segment is in use again");
    let mut recovery = LogRecovery::new(IDENTITY, SEGMENTS, SEGMENT_BYTES_MIN, start_of(&log, 3));
    let (found, recovered) = log.read_with(&mut recovery).unwrap();
    assert_eq!((found, recovered.used.len(), recovered.damage.len()), (vec![7, 8, 9], 2, 0));
}

/// The place of the first write in a segment, as a superblock would name it.
fn start_of(log: &Log, segment: u32) -> LogStart {
    let (header, _) = WriteHeader::decode(&log.segments[segment as usize], &IDENTITY, segment, 0).unwrap();
    LogStart { lsn: header.lsn, place: Some(header.place) }
}

#[test]
fn a_log_of_a_newer_format_is_refused_by_name() {
    let mut log = Log::new();
    log.write(1);
    log.segments[0][8] = 2;
    let checksum = crc32c(&log.segments[0][..160]);
    log.segments[0][160..164].copy_from_slice(&checksum.to_le_bytes());
    let error = log.try_recover().unwrap_err();
    assert_eq!(error, LogError::NewerFormat { segment: 0, format: 2 });
}

fn big_entry(payload: &[u8]) -> evenkeel_wire::entry::Entry {
    use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind};
    let header = EntryHeader {
        partition: PartitionId(1),
        slot: Slot(1),
        ballot: Ballot::ZERO,
        previous: Hash128::ZERO,
        timestamp: 0,
        kind: EntryKind::Noop,
        payload_bytes: 0,
    };
    Entry::build(header, payload.len(), |out| out.extend_from_slice(payload))
}

#[test]
fn two_torn_tails_in_a_row_are_no_damage() {
    let mut log = Log::new();
    log.write(2);
    let _third_is_lost = log.issue();
    let fourth = log.issue();
    log.put(fourth);
    let (found, recovered) = log.restart();
    assert_eq!((found, recovered.damage.len()), (rounds(2), 0));
    // The first write of the next process is torn too. The one behind it must not name as durable what it had
    // only seen behind the end.
    let _fifth_is_torn = log.issue();
    let sixth = log.issue();
    log.put(sixth);
    let (found, recovered) = log.recover();
    assert_eq!((found, recovered.damage.len()), (rounds(2), 0));
}
