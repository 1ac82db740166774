//! A disk that stays full: waiting costs the log nothing, and ends when there is room.

use evenkeel_dataplane::btree::space::Space;
use evenkeel_dataplane::btree::store::Store;
use evenkeel_dataplane::checkpoint::superblock::Superblock;
use evenkeel_dataplane::checkpoint::writer::{Checkpointer, GroupImage};
use evenkeel_dataplane::limits::{SEGMENT_BYTES_MIN, SEGMENTS_MIN};
use evenkeel_dataplane::partition::state::State;
use evenkeel_dataplane::wal::block::{CameFrom, LogIdentity};
use evenkeel_dataplane::wal::record::{GroupState, Record, RecordBody};
use evenkeel_dataplane::wal::segments::Segments;
use evenkeel_dataplane::wal::writer::{LogTail, Writer};
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind};
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, Lsn, PartitionId, Slot, TableId};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::table::GroupConfig;
use evenkeel_wire::turn::{Boot, DiskCompletion, DiskFault, Effects, File};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([7; 16]), core: CoreId(0) };
const GROUPS: u64 = 64;

fn record(partition: u64, body: RecordBody) -> Record {
    Record { partition: PartitionId(partition), promised: Ballot::ZERO, commit: Slot::ZERO, body }
}

fn image(partition: u64) -> GroupImage {
    let config = GroupConfig::whole(PartitionId(partition), TableId(1), Vec::new());
    let state = GroupState {
        config,
        base: LogPoint::default(),
        base_ballot: Ballot::ZERO,
        base_timestamp: 0,
        refilling: false,
        stores: true,
    };
    let group = record(partition, RecordBody::State(Box::new(state)));
    GroupImage { group, open: vec![], state: State::default(), loose: Arc::default() }
}

fn large_entry() -> Record {
    let header = EntryHeader {
        partition: PartitionId(1),
        slot: Slot(1),
        ballot: Ballot::ZERO,
        previous: Hash128::ZERO,
        timestamp: 0,
        kind: EntryKind::Noop,
        payload_bytes: 0,
    };
    let payload = vec![0; 200_000];
    let entry = Entry::build(header, payload.len(), |out| out.extend_from_slice(&payload));
    record(1, RecordBody::Entry(entry))
}

/// A log and its checkpoints; the log's writes succeed, the checkpoints' do while the disk has room.
struct Core {
    log: Writer,
    checkpointer: Checkpointer,
    store: Store,
    now: Boot,
    has_room: bool,
}

impl Core {
    fn new() -> Self {
        let tail =
            LogTail { highest: Lsn::ZERO, last: Lsn::ZERO, hash: Hash128::ZERO, end: CameFrom::Nowhere };
        let segments = Segments::new(SEGMENTS_MIN, SEGMENT_BYTES_MIN, VecDeque::new());
        let superblock = Superblock::format(SEGMENTS_MIN, SEGMENT_BYTES_MIN);
        Self {
            log: Writer::new(IDENTITY, segments, tail, vec![]),
            checkpointer: Checkpointer::new(IDENTITY, superblock),
            store: Store::new(IDENTITY, 1 << 20, Space::restore(&[]), superblock.sequence),
            now: Boot(1),
            has_room: false,
        }
    }

    /// Lets time pass and everything happen that is asked for.
    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        let mut out = Effects::new();
        loop {
            self.log.end_turn(self.now, &mut out);
            self.checkpointer.end_turn(self.now, &self.log, &mut self.store, &mut out);
            if out.disk.is_empty() {
                return;
            }
            for operation in std::mem::take(&mut out.disk) {
                let is_log = matches!(operation.file, File::Segment(_));
                let outcome = if is_log || self.has_room { Ok(None) } else { Err(DiskFault::Full) };
                let completion = DiskCompletion { id: operation.id, outcome };
                if is_log {
                    self.log.completed(self.now, completion).unwrap();
                } else {
                    let (log, store) = (&mut self.log, &mut self.store);
                    self.checkpointer.completed_operation(self.now, log, store, completion).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_for_a_day_does_not_use_up_the_log() {
    let mut core = Core::new();
    core.checkpointer.begin(core.now, &mut core.log, (1..=GROUPS).map(image).collect(), false);
    while !core.log.is_nearly_full() {
        core.log.append(&large_entry());
        core.wait(Duration::ZERO);
    }
    core.wait(Duration::from_secs(10));
    assert!(core.checkpointer.is_full());
    let before = core.log.status();
    for _ in 0..24 * 60 {
        core.wait(Duration::from_secs(60));
    }
    let after = core.log.status();
    assert_eq!((after.writes, after.segments_free), (before.writes, before.segments_free));
    assert!(core.log.is_idle());
    core.has_room = true;
    core.wait(Duration::from_secs(60));
    assert_eq!((core.checkpointer.completed(), core.checkpointer.is_full()), (1, false));
    // The next one frees what the first one could not, because it held the first one's copies.
    core.checkpointer.begin(core.now, &mut core.log, (1..=GROUPS).map(image).collect(), false);
    core.wait(Duration::from_secs(60));
    assert_eq!(core.checkpointer.completed(), 2);
    assert!(!core.log.is_nearly_full());
}
