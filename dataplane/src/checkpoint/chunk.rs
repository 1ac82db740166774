//! Chunks: how a checkpoint's records stand in its file, one chunk behind the other.
//!
//! ```text
//!  offset  bytes  field
//!       0      8  magic            "EKCHUNK1"
//!       8      2  format           1
//!      10      2  core
//!      12      4  file             0 or 1
//!      16     16  incarnation      of the data folder
//!      32      8  checkpoint       its sequence
//!      40      8  index            of the chunk, from zero
//!      48      8  offset           in the file
//!      56      4  payload bytes
//!      60      4  flags            1: the last chunk
//!      64     16  previous hash    of the header of the chunk before
//!      80     16  payload hash     XXH3-128
//!      96      4  key id           reserved, zero
//!     100     12  nonce            reserved, zero
//!     112     16  tag              reserved, zero
//!     128      4  header checksum  CRC-32C of bytes 0..128
//!     132     60  zero
//!     192      …  records (image.rs), then zeros to the next block
//! ```

use crate::wal::block::LogIdentity;
use bytes::{Buf, BufMut};
use evenkeel_wire::aligned::{AlignedBuffer, round_up};
use evenkeel_wire::checksum::{Hash128, crc32c};

/// Length of a chunk's header, bytes.
pub const CHUNK_HEADER_BYTES: usize = 192;

const MAGIC: [u8; 8] = *b"EKCHUNK1";
const FORMAT: u16 = 1;
const CHECKED_BYTES: usize = 128;
const FLAG_LAST: u32 = 1;

/// Where a chunk belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Which of the two files.
    pub file: u8,
    /// The checkpoint's sequence.
    pub checkpoint: u64,
    /// The chunk's index.
    pub index: u64,
    /// Its offset in the file.
    pub offset: u64,
}

/// A checked chunk header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Length of the records, bytes.
    pub payload_bytes: u32,
    /// Whether it is the last.
    pub last: bool,
    /// Hash of the header before it.
    pub previous_hash: Hash128,
    /// Hash of the records.
    pub payload_hash: Hash128,
}

impl ChunkHeader {
    /// Length of the chunk on disk, bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> usize {
        round_up(CHUNK_HEADER_BYTES + self.payload_bytes as usize)
    }

    fn encode(&self, identity: &LogIdentity, place: &ChunkPlace) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(identity.core.0);
        out.put_u32_le(place.file.into());
        out.put_slice(&identity.incarnation.0);
        out.put_u64_le(place.checkpoint);
        out.put_u64_le(place.index);
        out.put_u64_le(place.offset);
        out.put_u32_le(self.payload_bytes);
        out.put_u32_le(if self.last { FLAG_LAST } else { 0 });
        out.put_slice(&self.previous_hash.0);
        out.put_slice(&self.payload_hash.0);
        let checksum = crc32c(&bytes[..CHECKED_BYTES]);
        (&mut bytes[CHECKED_BYTES..]).put_u32_le(checksum);
        bytes
    }

    /// Reads the header of the chunk at `place`, and its hash. None unless it is whole and belongs there.
    #[must_use]
    pub fn decode(block: &[u8], identity: &LogIdentity, place: &ChunkPlace) -> Option<(Self, Hash128)> {
        let bytes = block.first_chunk::<CHUNK_HEADER_BYTES>()?;
        let mut fields = &bytes[56..];
        let (payload_bytes, flags) = (fields.get_u32_le(), fields.get_u32_le());
        let (mut previous_hash, mut payload_hash) = (Hash128::ZERO, Hash128::ZERO);
        fields.copy_to_slice(&mut previous_hash.0);
        fields.copy_to_slice(&mut payload_hash.0);
        let header = Self { payload_bytes, last: flags == FLAG_LAST, previous_hash, payload_hash };
        // Equal to what would be written for this place: every fixed field and the checksum at once.
        (header.encode(identity, place) == *bytes).then(|| (header, Hash128::of(bytes)))
    }
}

/// Lays `records` out as the chunk at `place`. Returns the buffer and the header's hash.
#[must_use]
pub fn lay_out(
    identity: &LogIdentity,
    place: &ChunkPlace,
    previous_hash: Hash128,
    records: &[u8],
    last: bool,
) -> (AlignedBuffer, Hash128) {
    let payload_bytes = records.len() as u32;
    let header = ChunkHeader { payload_bytes, last, previous_hash, payload_hash: Hash128::of(records) };
    let bytes = header.encode(identity, place);
    let mut buffer = AlignedBuffer::with_capacity(header.disk_bytes());
    buffer.extend(&bytes);
    buffer.extend(records);
    buffer.pad_to_block();
    (buffer, Hash128::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::{CoreId, Incarnation};

    const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([3; 16]), core: CoreId(2) };
    const PLACE: ChunkPlace = ChunkPlace { file: 1, checkpoint: 9, index: 2, offset: 8192 };

    #[test]
    fn a_chunk_is_read_only_at_its_own_place() {
        let (buffer, hash) = lay_out(&IDENTITY, &PLACE, Hash128::of(b"before"), b"records", true);
        let (header, read_hash) = ChunkHeader::decode(&buffer, &IDENTITY, &PLACE).unwrap();
        assert_eq!((header.payload_bytes, header.last, read_hash), (7, true, hash));
        assert_eq!(header.disk_bytes(), buffer.len());
        let elsewhere = ChunkPlace { checkpoint: 8, ..PLACE };
        assert_eq!(ChunkHeader::decode(&buffer, &IDENTITY, &elsewhere), None);
        let mut newer = buffer[..4096].to_vec();
        newer[8] = 2;
        assert_eq!(ChunkHeader::decode(&newer, &IDENTITY, &PLACE), None);
    }
}
