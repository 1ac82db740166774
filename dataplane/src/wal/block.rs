//! Log writes: the unit of group commit. A write begins on a fresh block and is never rewritten in place.
//!
//! ```text
//!  offset  bytes  field
//!       0      8  magic            "EKLOGWR1"
//!       8      2  format           1
//!      10      2  core
//!      12      4  segment
//!      16     16  incarnation      of the data folder
//!      32      8  segment life     lsn of the segment's first write in its present use
//!      40      8  offset           of this write in the segment
//!      48      8  lsn              counts the writes of this core
//!      56      8  durable through  lsn up to which everything was durable when this was issued
//!      64      4  payload bytes
//!      68      4  records
//!      72     16  previous hash    of the header of the write before
//!      88     16  payload hash     XXH3-128
//!     104      4  flags            1: a link, the first write of its segment or of a process; the next three
//!                                  then say where the log came from
//!     108      4  previous segment 0xffffffff: nowhere, the log begins here
//!     112      8  previous life
//!     120      8  previous end     offset at which that segment ended
//!     128      4  key id           reserved, zero
//!     132     12  nonce            reserved, zero
//!     144     16  tag              reserved, zero
//!     160      4  header checksum  CRC-32C of bytes 0..160
//!     164     28  zero
//!     192      …  records, then zeros to the next block
//! ```
//!
//! A write without records only carries the watermark "durable through".

use bytes::{Buf, BufMut};
use evenkeel_wire::aligned::round_up;
use evenkeel_wire::checksum::{Hash128, crc32c};
use evenkeel_wire::ids::{CoreId, Incarnation, Lsn};
use evenkeel_wire::limits::BLOCK_BYTES;

/// Length of a write's header, bytes.
pub const WRITE_HEADER_BYTES: usize = 192;

const MAGIC: [u8; 8] = *b"EKLOGWR1";
const FORMAT: u16 = 1;
const CHECKED_BYTES: usize = 160;
const FLAG_LINK: u32 = 1;

/// Whose log it is: a block of another folder or core is not ours, however valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The data folder.
    pub incarnation: Incarnation,
    /// The core.
    pub core: CoreId,
}

/// A use of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentLife {
    /// The segment.
    pub segment: u32,
    /// Lsn of its first write in this use.
    pub life: Lsn,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment.
    pub at: SegmentLife,
    /// Byte offset in it.
    pub offset: u64,
}

/// A checked header of a log write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteHeader {
    /// Where it stands.
    pub place: Place,
    /// Which write it is.
    pub lsn: Lsn,
    /// Up to where everything was durable when it was issued.
    pub durable_through: Lsn,
    /// Length of its records, bytes.
    pub payload_bytes: u32,
    /// How many records.
    pub records: u32,
    /// Hash of the header before it.
    pub previous_hash: Hash128,
    /// Hash of its records.
    pub payload_hash: Hash128,
    /// For a link: where the log came from.
    pub came_from: Option<CameFrom>,
}

/// Where a link says that the log came from. It supersedes whatever else lies behind the end that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameFrom {
    /// The log begins here.
    Nowhere,
    /// The log ended there: at the end of another segment, or here, when another process wrote it.
    End(Place),
}

/// Why a block is not the header of a write at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAHeader {
    /// Zeros, garbage, a damaged header, or a block that belongs elsewhere.
    Invalid,
    /// A header that is whole but of another format version.
    Format(u16),
}

impl WriteHeader {
    /// Length of the write on disk, bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        round_up(WRITE_HEADER_BYTES + self.payload_bytes as usize) as u64
    }

    /// Where the next write of this segment stands.
    #[must_use]
    pub fn end(&self) -> Place {
        Place { offset: self.place.offset + self.disk_bytes(), ..self.place }
    }

    /// The header's bytes and their hash: the next write's `previous_hash`.
    #[must_use]
    pub fn encode(&self, identity: &LogIdentity) -> ([u8; WRITE_HEADER_BYTES], Hash128) {
        let mut bytes = [0; WRITE_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(identity.core.0);
        out.put_u32_le(self.place.at.segment);
        out.put_slice(&identity.incarnation.0);
        out.put_u64_le(self.place.at.life.0);
        out.put_u64_le(self.place.offset);
        out.put_u64_le(self.lsn.0);
        out.put_u64_le(self.durable_through.0);
        out.put_u32_le(self.payload_bytes);
        out.put_u32_le(self.records);
        out.put_slice(&self.previous_hash.0);
        out.put_slice(&self.payload_hash.0);
        let nowhere = Place { at: SegmentLife { segment: u32::MAX, life: Lsn::ZERO }, offset: 0 };
        let (flags, from) = match self.came_from {
            None => (0, Place { at: SegmentLife { segment: 0, ..nowhere.at }, ..nowhere }),
            Some(CameFrom::Nowhere) => (FLAG_LINK, nowhere),
            Some(CameFrom::End(place)) => (FLAG_LINK, place),
        };
        out.put_u32_le(flags);
        out.put_u32_le(from.at.segment);
        out.put_u64_le(from.at.life.0);
        out.put_u64_le(from.offset);
        let checksum = crc32c(&bytes[..CHECKED_BYTES]);
        (&mut bytes[CHECKED_BYTES..]).put_u32_le(checksum);
        let hash = Hash128::of(&bytes);
        (bytes, hash)
    }

    /// Reads the header of the write at `segment` and `offset`, and its hash. Any life is accepted: the
    /// caller knows which one it wants.
    ///
    /// # Errors
    /// [`NotAHeader`] unless the block was written by this core of this folder, for this very place.
    pub fn decode(
        block: &[u8],
        identity: &LogIdentity,
        segment: u32,
        offset: u64,
    ) -> Result<(Self, Hash128), NotAHeader> {
        let Some(bytes) = block.first_chunk::<WRITE_HEADER_BYTES>() else {
            return Err(NotAHeader::Invalid);
        };
        let mut fields = &bytes[..];
        if fields.split_off(..8) != Some(&MAGIC[..])
            || crc32c(&bytes[..CHECKED_BYTES]) != (&bytes[CHECKED_BYTES..]).get_u32_le()
            || bytes[CHECKED_BYTES + 4..].iter().any(|byte| *byte != 0)
        {
            return Err(NotAHeader::Invalid);
        }
        let format = fields.get_u16_le();
        if format != FORMAT {
            return Err(NotAHeader::Format(format));
        }
        let core = CoreId(fields.get_u16_le());
        let at_segment = fields.get_u32_le();
        let mut incarnation = Incarnation::default();
        fields.copy_to_slice(&mut incarnation.0);
        let life = Lsn(fields.get_u64_le());
        let at_offset = fields.get_u64_le();
        let ours = LogIdentity { incarnation, core } == *identity;
        if !ours || at_segment != segment || at_offset != offset {
            return Err(NotAHeader::Invalid);
        }
        let lsn = Lsn(fields.get_u64_le());
        let durable_through = Lsn(fields.get_u64_le());
        let (payload_bytes, records) = (fields.get_u32_le(), fields.get_u32_le());
        let (mut previous_hash, mut payload_hash) = (Hash128::ZERO, Hash128::ZERO);
        fields.copy_to_slice(&mut previous_hash.0);
        fields.copy_to_slice(&mut payload_hash.0);
        let flags = fields.get_u32_le();
        let from = SegmentLife { segment: fields.get_u32_le(), life: Lsn(fields.get_u64_le()) };
        let from = Place { at: from, offset: fields.get_u64_le() };
        let came_from = match (flags & FLAG_LINK, from.at.segment) {
            (0, _) => None,
            (_, u32::MAX) => Some(CameFrom::Nowhere),
            (_, _) => Some(CameFrom::End(from)),
        };
        let place = Place { at: SegmentLife { segment, life }, offset };
        let header = Self {
            place,
            lsn,
            durable_through,
            payload_bytes,
            records,
            previous_hash,
            payload_hash,
            came_from,
        };
        // What this version would have written otherwise, another has: reserved bytes that are not zero.
        let (ours, hash) = header.encode(identity);
        if ours[..CHECKED_BYTES] != bytes[..CHECKED_BYTES] {
            return Err(NotAHeader::Format(format));
        }
        // What no checksum covers is zero, or damaged.
        if ours != *bytes {
            return Err(NotAHeader::Invalid);
        }
        Ok((header, hash))
    }
}

const _: () = assert!(WRITE_HEADER_BYTES < BLOCK_BYTES && WRITE_HEADER_BYTES.is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([3; 16]), core: CoreId(2) };

    fn header(came_from: Option<CameFrom>) -> WriteHeader {
        WriteHeader {
            place: Place { at: SegmentLife { segment: 5, life: Lsn(40) }, offset: 8192 },
            lsn: Lsn(42),
            durable_through: Lsn(41),
            payload_bytes: 5000,
            records: 3,
            previous_hash: Hash128::of(b"a"),
            payload_hash: Hash128::of(b"b"),
            came_from,
        }
    }

    #[test]
    fn headers_come_back_with_every_kind_of_link() {
        let end = Place { at: SegmentLife { segment: 4, life: Lsn(7) }, offset: 4096 };
        for came_from in [None, Some(CameFrom::Nowhere), Some(CameFrom::End(end))] {
            let original = header(came_from);
            let (bytes, hash) = original.encode(&IDENTITY);
            assert_eq!(WriteHeader::decode(&bytes, &IDENTITY, 5, 8192), Ok((original, hash)));
        }
        assert_eq!(header(None).end().offset, 8192 + 8192);
    }

    #[test]
    fn a_valid_block_in_the_wrong_place_is_invalid() {
        let (bytes, _) = header(None).encode(&IDENTITY);
        let other = LogIdentity { incarnation: Incarnation([4; 16]), ..IDENTITY };
        assert_eq!(WriteHeader::decode(&bytes, &IDENTITY, 6, 8192), Err(NotAHeader::Invalid));
        assert_eq!(WriteHeader::decode(&bytes, &IDENTITY, 5, 4096), Err(NotAHeader::Invalid));
        assert_eq!(WriteHeader::decode(&bytes, &other, 5, 8192), Err(NotAHeader::Invalid));
    }

    #[test]
    fn every_flipped_bit_of_the_checked_part_is_detected() {
        let (bytes, _) = header(None).encode(&IDENTITY);
        for bit in 0..WRITE_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                WriteHeader::decode(&damaged, &IDENTITY, 5, 8192),
                Err(NotAHeader::Invalid),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let (mut bytes, _) = header(None).encode(&IDENTITY);
        bytes[8] = 2;
        let checksum = crc32c(&bytes[..CHECKED_BYTES]);
        (&mut bytes[CHECKED_BYTES..]).put_u32_le(checksum);
        assert_eq!(WriteHeader::decode(&bytes, &IDENTITY, 5, 8192), Err(NotAHeader::Format(2)));
    }
}
