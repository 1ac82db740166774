//! Every decoder of what a core stores, and evaluation, with what is true of them for any bytes: none panics,
//! and what a decoder takes is written again as bytes that are read as the same value. The bodies are run by
//! tests (`decoders_take_anything.rs`) and by the fuzz targets of `wire/fuzz`.
//!
//! Headers have checksums, and a damaged one is refused at once. So each is looked at as it is, and again
//! with a checksum that fits.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod evaluation;

use crate::golden::all;
use bytes::{Buf, Bytes};
use evenkeel_dataplane::btree::leaf::LeafView;
use evenkeel_dataplane::btree::node::NodeView;
use evenkeel_dataplane::btree::page::{PageKind, overflow_item, verify};
use evenkeel_dataplane::btree::pointer::PagePointer;
use evenkeel_dataplane::btree::{PAGE_BLOCKS, PAGE_BYTES};
use evenkeel_dataplane::checkpoint::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkPlace, lay_out};
use evenkeel_dataplane::checkpoint::image::ImageRecord;
use evenkeel_dataplane::checkpoint::sink::ImageSink;
use evenkeel_dataplane::checkpoint::superblock::Superblock;
use evenkeel_dataplane::wal::block::{LogIdentity, WRITE_HEADER_BYTES, WriteHeader};
use evenkeel_dataplane::wal::record::{EncodedRecord, Record};
use evenkeel_wire::checksum::{Hash128, crc32c};
use evenkeel_wire::ids::{CoreId, Incarnation};
use evenkeel_wire::limits::BLOCK_BYTES;
use std::path::Path;

/// A decoder: its name, and what is true of it.
pub(crate) type Decoder = (&'static str, fn(&[u8]) -> bool);

/// Every decoder.
pub(crate) const DECODERS: &[Decoder] = &[
    ("log_write", log_write),
    ("log_record", log_record),
    ("superblock", superblock),
    ("chunk", chunk),
    ("image", image),
    ("page", page),
    ("evaluation", evaluation::evaluation),
];

/// Whose log and checkpoint the golden bytes are.
pub(crate) const IDENTITY: LogIdentity =
    LogIdentity { incarnation: Incarnation([0xd1; 16]), core: CoreId(2) };
/// Where the golden log writes stand: their segment.
pub(crate) const SEGMENT: u32 = 5;
/// Where they stand in it.
pub(crate) const OFFSET: u64 = 8192;
/// Where the golden chunk stands.
pub(crate) const PLACE: ChunkPlace = ChunkPlace { file: 1, checkpoint: 9, index: 2, offset: 8192 };

/// Bytes that a decoder takes, with their names; `frozen` is the folder of golden bytes.
pub(crate) fn seeds(decoder: &str, frozen: &Path) -> Vec<(String, Vec<u8>)> {
    if decoder == "evaluation" {
        return evaluation::seeds();
    }
    let frozen = all(frozen).into_iter();
    let ours = frozen.filter(|(name, _)| name.split_once('.').is_some_and(|(of, _)| of == decoder));
    ours.map(|(name, golden)| (name, golden.bytes)).collect()
}

/// The same bytes, with the checksum at `end` of what is before it, if there are so many.
fn repaired(bytes: &[u8], end: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some((checked, checksum)) = bytes.split_at_mut_checked(end)
        && let Some(checksum) = checksum.first_chunk_mut::<4>()
    {
        *checksum = crc32c(checked).to_le_bytes();
    }
    bytes
}

fn log_write(bytes: &[u8]) -> bool {
    check_log_write(bytes) | check_log_write(&repaired(bytes, 160))
}

fn check_log_write(bytes: &[u8]) -> bool {
    let Ok((header, hash)) = WriteHeader::decode(bytes, &IDENTITY, SEGMENT, OFFSET) else { return false };
    assert_eq!(hash, Hash128::of(&bytes[..WRITE_HEADER_BYTES]));
    assert!(header.end().offset > OFFSET && header.disk_bytes().is_multiple_of(BLOCK_BYTES as u64));
    assert_eq!(header.encode(&IDENTITY).0, bytes[..WRITE_HEADER_BYTES]);
    true
}

/// Records one behind the other.
fn log_record(bytes: &[u8]) -> bool {
    let mut left = Bytes::copy_from_slice(bytes);
    let mut taken = false;
    while let Ok(record) = Record::take(&mut left) {
        let EncodedRecord { header, payload } = record.encode();
        let mut written = Bytes::from([&header[..], &payload].concat());
        assert_eq!(Record::take(&mut written), Ok(record));
        assert!(written.is_empty());
        taken = true;
    }
    taken
}

/// One block or two.
fn superblock(bytes: &[u8]) -> bool {
    let blocks: Vec<u8> = bytes.chunks(BLOCK_BYTES).flat_map(|block| repaired(block, 128)).collect();
    check_superblock(bytes) | check_superblock(&blocks)
}

fn check_superblock(bytes: &[u8]) -> bool {
    match Superblock::choose(bytes, &IDENTITY) {
        Ok(superblock) => {
            assert_eq!(Superblock::choose(&superblock.encode(&IDENTITY), &IDENTITY), Ok(superblock));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// A header is the very bytes that a writer writes for its place.
fn chunk(bytes: &[u8]) -> bool {
    check_chunk(bytes) | check_chunk(&repaired(bytes, 128))
}

fn check_chunk(bytes: &[u8]) -> bool {
    let Some((header, hash)) = ChunkHeader::decode(bytes, &IDENTITY, &PLACE) else { return false };
    assert_eq!(hash, Hash128::of(&bytes[..CHUNK_HEADER_BYTES]));
    let payload = bytes[CHUNK_HEADER_BYTES..].get(..header.payload_bytes as usize);
    if let Some(payload) = payload
        && Hash128::of(payload) == header.payload_hash
    {
        let (written, written_hash) = lay_out(&IDENTITY, &PLACE, header.previous_hash, payload, header.last);
        let end = CHUNK_HEADER_BYTES + payload.len();
        assert_eq!((&written[..end], written_hash), (&bytes[..end], hash));
        assert_eq!(written.len(), header.disk_bytes());
    }
    true
}

/// A page of the tree, with a checksum that fits.
fn page(bytes: &[u8]) -> bool {
    let mut page = bytes.to_vec();
    page.resize(PAGE_BYTES, 0);
    let hash = Hash128::of(&page[32..]);
    page[16..32].copy_from_slice(&hash.0);
    let mut fields = &page[48..64];
    let (block, birth) = (fields.get_u64_le(), fields.get_u64_le());
    let checksum = (&hash.0[..8]).get_u64_le();
    let pointer = PagePointer { block, blocks: PAGE_BLOCKS, overflow: page[46] == 1, birth, checksum };
    let Ok(header) = verify(&page, &IDENTITY, &pointer) else {
        return false;
    };
    match header.content.kind {
        PageKind::Leaf => {
            let leaf = LeafView::new(&page);
            for place in 0..leaf.cells() {
                let key = [leaf.prefix(), leaf.cell(place).key_rest].concat();
                assert_eq!(leaf.find(&key), Ok(place));
            }
        }
        PageKind::Node => {
            let node = NodeView::new(&page);
            for (place, child) in node.to_children().iter().enumerate() {
                assert_eq!(node.find(&child.separator), place);
            }
        }
        PageKind::Overflow => assert!(overflow_item(&page).len() < PAGE_BYTES),
    }
    true
}

/// Records of images one behind the other, and what they build.
fn image(bytes: &[u8]) -> bool {
    let mut left = Bytes::copy_from_slice(bytes);
    let mut taken = false;
    while let Ok(record) = ImageRecord::take(&mut left) {
        let mut written = Vec::new();
        record.encode(&mut written);
        let mut written = Bytes::from(written);
        assert_eq!(ImageRecord::take(&mut written), Ok(record));
        assert!(written.is_empty());
        taken = true;
    }
    let mut sink = ImageSink::default();
    if sink.take(Bytes::copy_from_slice(bytes)).is_ok() && !bytes.is_empty() {
        assert!(sink.is_open() || !sink.complete.is_empty() || !sink.space.is_empty());
    }
    taken
}
