//! Frozen: what a core of one release stores, and another one reads. The bytes are in `tests/frozen`, one
//! file for each value; a change of them needs a new format number and a decision record.

mod decoders;
#[path = "../../wire/tests/golden/mod.rs"]
mod golden;

use bytes::Bytes;
use decoders::{IDENTITY, OFFSET, PLACE, SEGMENT};
use evenkeel_dataplane::btree::leaf::{self, CellMeta, NewCell, Value};
use evenkeel_dataplane::btree::node::{self, Child};
use evenkeel_dataplane::btree::page::{Stamp, seal, verify};
use evenkeel_dataplane::btree::pointer::PagePointer;
use evenkeel_dataplane::btree::version::Version;
use evenkeel_dataplane::checkpoint::chunk::{ChunkHeader, lay_out};
use evenkeel_dataplane::checkpoint::image::ImageRecord;
use evenkeel_dataplane::checkpoint::superblock::{CheckpointName, Superblock};
use evenkeel_dataplane::partition::sessions::{Outcome, Returned};
use evenkeel_dataplane::tree::Cell;
use evenkeel_dataplane::wal::block::{CameFrom, Place, SegmentLife, WriteHeader};
use evenkeel_dataplane::wal::record::{EncodedRecord, GroupState, Record, RecordBody};
use evenkeel_dataplane::wal::recovery::LogStart;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind, Refusal};
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, Incarnation, Lsn, NodeId, PartitionId, Slot, TableId};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::table::{GroupConfig, LastSplit, Member, Origin};

/// Compares bytes with the frozen ones, which it returns.
fn check_bytes(name: &str, title: &str, bytes: &[u8]) -> Vec<u8> {
    let title = format!("{title}: {} bytes", bytes.len());
    golden::check(&golden::folder(env!("CARGO_MANIFEST_DIR")), name, &title, bytes)
}

fn place(segment: u32, offset: u64) -> Place {
    Place { at: SegmentLife { segment, life: Lsn(0x1112_1314_1516_1718) }, offset }
}

#[test]
fn headers_of_log_writes_are_frozen() {
    let end = place(4, 0x2122_2324_2526_2000);
    let links = [
        ("log_write.next", None),
        ("log_write.first", Some(CameFrom::Nowhere)),
        ("log_write.link", Some(CameFrom::End(end))),
    ];
    for (name, came_from) in links {
        let header = WriteHeader {
            place: place(SEGMENT, OFFSET),
            lsn: Lsn(0x3132_3334_3536_3738),
            durable_through: Lsn(0x4142_4344_4546_4748),
            payload_bytes: 0x0051_5253,
            records: 0x6162_6364,
            previous_hash: Hash128::of(b"the header before"),
            payload_hash: Hash128::of(b"records"),
            came_from,
        };
        let (bytes, hash) = header.encode(&IDENTITY);
        let frozen = check_bytes(name, &format!("header of a log write, hash {hash}"), &bytes);
        assert_eq!(WriteHeader::decode(&frozen, &IDENTITY, SEGMENT, OFFSET), Ok((header, hash)), "{name}");
    }
}

fn state() -> GroupState {
    let member = |low: u8| Member {
        node: NodeId(0x1112_1300 + u32::from(low)),
        core: CoreId(0x2100 + u16::from(low)),
        incarnation: Incarnation([0xd0 + low; 16]),
    };
    GroupState {
        config: GroupConfig {
            partition: PartitionId(0x0102_0304_0506_0708),
            table: TableId(0x3132_3334_3536_3738),
            start: b"start of the range".to_vec(),
            end: b"end".to_vec(),
            epoch: Epoch(0x4142_4344),
            members: vec![member(1), member(2), member(3)],
            log_replicas: vec![member(3).node],
            former: Some(member(4)),
            birth: Epoch(0x3142_3344),
            division: 0x9192_9394,
            origin: Some(Origin {
                parent: PartitionId(0xa1a2_a3a4_a5a6_a7a8),
                slot: Slot(0xb1b2_b3b4_b5b6_b7b8),
            }),
            last_split: Some(LastSplit {
                at: LogPoint { slot: Slot(0xc1c2_c3c4_c5c6_c7c8), hash: Hash128::of(b"split") },
                child: PartitionId(0xd1d2_d3d4_d5d6_d7d8),
                child_end: b"end of the child".to_vec(),
                members: vec![member(1), member(5)],
                log_replicas: vec![member(5).node],
                former: Some(member(6)),
                epoch: Epoch(0x2142_2344),
            }),
        },
        base: LogPoint { slot: Slot(0x5152_5354_5556_5758), hash: Hash128::of(b"base") },
        base_ballot: Ballot { round: 0x6162_6364_6566_6768, node: NodeId(0x7172_7374) },
        base_timestamp: 0x8182_8384_8586_8788,
        refilling: true,
        stores: false,
    }
}

fn record(body: RecordBody) -> Record {
    Record {
        partition: PartitionId(0x0102_0304_0506_0708),
        promised: Ballot { round: 0x1112_1314_1516_1718, node: NodeId(0x2122_2324) },
        commit: Slot(0x3132_3334_3536_3738),
        body,
    }
}

fn entry() -> Entry {
    let header = EntryHeader {
        partition: PartitionId(0x0102_0304_0506_0708),
        slot: Slot(4),
        ballot: Ballot { round: 1, node: NodeId(2) },
        previous: Hash128::of(b"before"),
        timestamp: 77,
        kind: EntryKind::Noop,
        payload_bytes: 0,
    };
    Entry::build(header, 0, |_| ())
}

#[test]
fn log_records_are_frozen() {
    let bodies = [
        RecordBody::Entry(entry()),
        RecordBody::Promise,
        RecordBody::Supersede(Slot(0x4142_4344_4546_4748)),
        RecordBody::State(Box::new(state())),
        RecordBody::Removed,
    ];
    for body in bodies {
        let name = match &body {
            RecordBody::Entry(_) => "log_record.entry",
            RecordBody::Promise => "log_record.promise",
            RecordBody::Supersede(_) => "log_record.supersede",
            RecordBody::State(_) => "log_record.state",
            RecordBody::Removed => "log_record.removed",
        };
        let record = record(body);
        let EncodedRecord { header, payload } = record.encode();
        let frozen = check_bytes(name, "a log record", &[&header[..], &payload].concat());
        assert_eq!(Record::take(&mut Bytes::from(frozen)), Ok(record), "{name}");
    }
}

#[test]
fn superblocks_are_frozen() {
    let formatted = Superblock::format(0x1112_1314, 0x2122_2324_2526_2728);
    let name =
        CheckpointName { file: 1, chunks: 0x3132_3334_3536_3738, last_hash: Hash128::of(b"last chunk") };
    let with_checkpoint = Superblock {
        sequence: 0x4142_4344_4546_4748,
        log_start: LogStart { lsn: Lsn(0x5152_5354_5556_5758), place: Some(place(7, 0x6162_6364_6566_6768)) },
        checkpoint: Some(name),
        memory_lost: true,
        memory_was_lost: true,
        ..formatted
    };
    for (name, superblock) in
        [("superblock.formatted", formatted), ("superblock.checkpoint", with_checkpoint)]
    {
        let frozen = check_bytes(name, "a superblock", &superblock.encode(&IDENTITY));
        assert_eq!(Superblock::choose(&frozen, &IDENTITY), Ok(superblock), "{name}");
    }
}

#[test]
fn a_chunk_is_frozen() {
    for (name, last) in [("chunk.last", true), ("chunk.inner", false)] {
        let (chunk, hash) = lay_out(&IDENTITY, &PLACE, Hash128::of(b"the chunk before"), b"records", last);
        let title = format!("a checkpoint's chunk, hash of its header {hash}");
        let frozen = check_bytes(name, &title, &chunk);
        let (header, read_hash) =
            ChunkHeader::decode(&frozen, &IDENTITY, &PLACE).expect("a chunk at its place");
        assert_eq!((header.last, header.payload_bytes, read_hash), (last, 7, hash), "{name}");
    }
}

#[test]
fn records_of_images_are_frozen() {
    let outcome = |returned, refused| {
        ImageRecord::Outcome(Outcome {
            sequence: 0x1112_1314_1516_1718,
            issued_ms: 0x2122_2324_2526_2728,
            request_hash: 0x3132_3334_3536_3738,
            slot: Slot(0x4142_4344_4546_4748),
            timestamp: 0x5152_5354_5556_5758,
            key: KeyBytes::from_slice(b"storage key"),
            returned,
            refused,
        })
    };
    let archive = Bytes::from_static(b"archive of an item");
    let returned = Returned { checksum: 0x6162_6364, archive: archive.clone() };
    let refused = Refusal { code: ErrorCode::ConditionFailed, message: "it did not hold".to_owned() };
    let cell = Cell {
        slot: Slot(0x1112_1314_1516_1718),
        timestamp: 0x2122_2324_2526_2728,
        checksum: 0x3132_3334,
        archive,
    };
    let group = Box::new(record(RecordBody::State(Box::new(state()))));
    let root = PagePointer { block: 0x51_5253_5455, blocks: 2, overflow: true, birth: 0x61, checksum: 0x71 };
    let version =
        Version { root: Some(root), items: 0x31, bytes: 0x32, position: Slot(0x33), estimated: true };
    let records = [
        ("image.begin", ImageRecord::Begin { group, swept_ms: 0x4142_4344_4546_4748, version }),
        ("image.cell", ImageRecord::Cell { key: KeyBytes::from_slice(b"storage key"), cell }),
        (
            "image.session",
            ImageRecord::Session {
                client: [0xe1; 16],
                acknowledged_below: 0x1112_1314_1516_1718,
                latest_issued_ms: 0x2122_2324_2526_2728,
            },
        ),
        ("image.outcome", outcome(None, None)),
        ("image.outcome_returned", outcome(Some(returned), None)),
        ("image.outcome_refused", outcome(None, Some(refused))),
        ("image.space", ImageRecord::Space { first: 0x41, words: vec![0x11, u64::MAX] }),
        ("image.open", ImageRecord::Open(Box::new(record(RecordBody::Entry(entry()))))),
        (
            "image.end",
            ImageRecord::End {
                cells: 0x1112_1314_1516_1718,
                sessions: 0x2122_2324_2526_2728,
                open: 0x3132_3334_3536_3738,
            },
        ),
    ];
    for (name, record) in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let frozen = check_bytes(name, "a record of an image", &bytes);
        assert_eq!(ImageRecord::take(&mut Bytes::from(frozen)), Ok(record), "{name}");
    }
}

#[test]
fn pages_are_frozen() {
    let stamp = Stamp {
        identity: IDENTITY,
        tree: PartitionId(0x1112_1314_1516_1718),
        epoch: Epoch(0x2122_2324),
        checkpoint: 0x3132_3334_3536_3738,
        position: Slot(0x4142_4344_4546_4748),
    };
    let run =
        PagePointer { block: 0x51_5253_5455, blocks: 101, overflow: false, birth: 0x61, checksum: 0x71 };
    let meta = CellMeta { slot: Slot(0x81), timestamp: 0x82, checksum: 0x83 };
    let cells = [
        NewCell { key: b"key 1", meta, value: Value::Inline(b"archive of an item") },
        NewCell { key: b"key 2", meta, value: Value::Overflow { run, bytes: 400_000 } },
    ];
    let children = [
        Child { separator: b"key".to_vec(), pointer: run },
        Child { separator: b"key 2".to_vec(), pointer: PagePointer { overflow: true, ..run } },
    ];
    let mut pages = [Vec::new(), Vec::new()];
    let contents = [leaf::lay_out(&cells, &mut pages[0]), node::lay_out(&children, 1, &mut pages[1])];
    for ((name, page), content) in ["page.leaf", "page.node"].into_iter().zip(&mut pages).zip(contents) {
        let pointer = seal(page, &stamp, &content, 0x0a0b);
        // Behind its content a page is zeros.
        let mut frozen = check_bytes(name, "the beginning of a page of the tree", &page[..512]);
        frozen.resize(page.len(), 0);
        let header = verify(&frozen, &IDENTITY, &pointer).unwrap();
        assert_eq!((header.stamp, header.content), (stamp, content), "{name}");
    }
}

#[test]
fn no_golden_bytes_are_left_over() {
    let files = golden::all(&golden::folder(env!("CARGO_MANIFEST_DIR")));
    assert_eq!(
        files.len(),
        3 + 5 + 2 + 2 + 9 + 2,
        "a value is gone and its file is not, or a value has no file"
    );
}
