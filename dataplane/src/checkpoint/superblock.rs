//! The superblock: two alternating blocks, of which the newer valid one counts. It names the present
//! checkpoint and where the log begins.
//!
//! ```text
//!  offset  bytes  field
//!       0      8  magic            "EKSUPER1"
//!       8      2  format           1
//!      10      2  core
//!      12      4  segments         in the log
//!      16     16  incarnation      of the data folder
//!      32      8  sequence         grows with every checkpoint; its parity is the block's place
//!      40      8  segment bytes
//!      48      8  log start lsn
//!      56      4  log start segment  0xffffffff: nothing was written yet
//!      60      4  checkpoint file  0 or 1; 0xffffffff: there is none
//!      64      8  log start life
//!      72      8  log start offset
//!      80      8  chunks           of the checkpoint
//!      88     16  last hash        of the header of the checkpoint's last chunk
//!     104      4  flags            1: acknowledged data was lost here, and not all of it is known to be
//!                                  refilled; 2: it was so once
//!     108     20  reserved, zero
//!     128      4  checksum         CRC-32C of bytes 0..128
//! ```

use crate::planted::{self, Planted};
use crate::wal::block::{LogIdentity, Place, SegmentLife};
use crate::wal::recovery::LogStart;
use bytes::{Buf, BufMut};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::checksum::{Hash128, crc32c};
use evenkeel_wire::ids::Lsn;
use evenkeel_wire::limits::BLOCK_BYTES;
use thiserror::Error;

/// Length of the superblock file, bytes.
pub const SUPERBLOCK_FILE_BYTES: usize = 2 * BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"EKSUPER1";
const FORMAT: u16 = 1;
const CHECKED_BYTES: usize = 128;
const NONE: u32 = u32::MAX;

/// A checkpoint, as a superblock names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointName {
    /// Which of the two files.
    pub file: u8,
    /// How many chunks.
    pub chunks: u64,
    /// Hash of the last chunk's header, which covers all.
    pub last_hash: Hash128,
}

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with every checkpoint; also the checkpoint's own sequence.
    pub sequence: u64,
    /// Segments of the log.
    pub segments: u32,
    /// Length of each, bytes.
    pub segment_bytes: u64,
    /// Where the log begins.
    pub log_start: LogStart,
    /// The present checkpoint, if there is one.
    pub checkpoint: Option<CheckpointName>,
    /// Acknowledged data was lost here, and it is not known yet that all of it was refilled: there may have
    /// been groups that nothing here speaks of any more.
    pub memory_lost: bool,
    /// Acknowledged data was lost here once. All of it may be refilled, but there may have been replicas that
    /// neither this core nor the catalogue knew of when that was done.
    pub memory_was_lost: bool,
}

/// Why there is no usable superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Neither block is valid for this folder and core.
    #[error(
        "neither superblock is valid: the data folder is not formatted for this node, or is damaged; \
         restore the folder, or format it as a new member"
    )]
    Invalid,
    /// It was written by a newer version.
    #[error("the superblock was written in format {format}; start a version that knows it")]
    NewerFormat {
        /// Its format.
        format: u16,
    },
}

impl Superblock {
    /// The superblock of a newly formatted log.
    #[must_use]
    pub fn format(segments: u32, segment_bytes: u64) -> Self {
        let log_start = LogStart { lsn: Lsn(1), place: None };
        Self {
            sequence: 1,
            segments,
            segment_bytes,
            log_start,
            checkpoint: None,
            memory_lost: false,
            memory_was_lost: false,
        }
    }

    /// Where in the file this superblock belongs.
    #[must_use]
    pub fn offset(&self) -> u64 {
        (self.sequence % 2) * BLOCK_BYTES as u64
    }

    /// The block.
    #[must_use]
    pub fn encode(&self, identity: &LogIdentity) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::with_capacity(BLOCK_BYTES);
        buffer.resize(BLOCK_BYTES);
        let mut out = &mut buffer[..];
        out.put_slice(&MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(identity.core.0);
        out.put_u32_le(self.segments);
        out.put_slice(&identity.incarnation.0);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.segment_bytes);
        out.put_u64_le(self.log_start.lsn.0);
        let place = self.log_start.place;
        out.put_u32_le(place.map_or(NONE, |place| place.at.segment));
        out.put_u32_le(self.checkpoint.map_or(NONE, |checkpoint| checkpoint.file.into()));
        out.put_u64_le(place.map_or(0, |place| place.at.life.0));
        out.put_u64_le(place.map_or(0, |place| place.offset));
        out.put_u64_le(self.checkpoint.map_or(0, |checkpoint| checkpoint.chunks));
        out.put_slice(&self.checkpoint.map_or(Hash128::ZERO, |checkpoint| checkpoint.last_hash).0);
        out.put_u32_le(u32::from(self.memory_lost) | u32::from(self.memory_was_lost) << 1);
        let checksum = crc32c(&buffer[..CHECKED_BYTES]);
        (&mut buffer[CHECKED_BYTES..]).put_u32_le(checksum);
        buffer
    }

    /// The newer valid one of the two blocks in `file`.
    ///
    /// # Errors
    /// When there is none.
    pub fn choose(file: &[u8], identity: &LogIdentity) -> Result<Self, SuperblockError> {
        let blocks = file.chunks(BLOCK_BYTES).map(|block| Self::decode(block, identity));
        let (mut best, mut newer): (Option<Self>, _) = (None, None);
        let is_newer = |block: &Self, best: &Self| {
            (block.sequence > best.sequence) != planted::active(Planted::OlderSuperblock)
        };
        for block in blocks {
            match block {
                Ok(block) if best.is_none_or(|best| is_newer(&block, &best)) => best = Some(block),
                Ok(_) | Err(SuperblockError::Invalid) => {}
                Err(error @ SuperblockError::NewerFormat { .. }) => newer = Some(error),
            }
        }
        match (best, newer) {
            (_, Some(error)) => Err(error),
            (Some(best), None) => Ok(best),
            (None, None) => Err(SuperblockError::Invalid),
        }
    }

    /// Whether a block in `file` was written once and cannot be read now. A torn write leaves the old block
    /// or the new one, because what is checked lies in one sector: this is damage, and what the block said is
    /// not known.
    #[must_use]
    pub fn is_damaged(file: &[u8], identity: &LogIdentity) -> bool {
        let is_lost = |block: &[u8]| {
            block.iter().any(|byte| *byte != 0)
                && Self::decode(block, identity) == Err(SuperblockError::Invalid)
        };
        file.chunks(BLOCK_BYTES).any(is_lost)
    }

    fn decode(block: &[u8], identity: &LogIdentity) -> Result<Self, SuperblockError> {
        if block.len() < BLOCK_BYTES {
            return Err(SuperblockError::Invalid);
        }
        let mut fields = block;
        if fields.split_off(..8) != Some(&MAGIC[..])
            || crc32c(&block[..CHECKED_BYTES]) != (&block[CHECKED_BYTES..]).get_u32_le()
        {
            return Err(SuperblockError::Invalid);
        }
        let format = fields.get_u16_le();
        if format != FORMAT {
            return Err(SuperblockError::NewerFormat { format });
        }
        let core = fields.get_u16_le();
        let segments = fields.get_u32_le();
        let mut incarnation = [0; 16];
        fields.copy_to_slice(&mut incarnation);
        if core != identity.core.0 || incarnation != identity.incarnation.0 {
            return Err(SuperblockError::Invalid);
        }
        let [sequence, segment_bytes, lsn] = std::array::from_fn(|_| fields.get_u64_le());
        let [segment, file] = std::array::from_fn(|_| fields.get_u32_le());
        let [life, offset, chunks] = std::array::from_fn(|_| fields.get_u64_le());
        let mut last_hash = Hash128::ZERO;
        fields.copy_to_slice(&mut last_hash.0);
        let flags = fields.get_u32_le();
        let (memory_lost, memory_was_lost) = (flags & 1 == 1, flags & 2 == 2);
        let at = SegmentLife { segment, life: Lsn(life) };
        let place = (segment != NONE).then_some(Place { at, offset });
        let checkpoint =
            (file != NONE).then_some(CheckpointName { file: file.min(1) as u8, chunks, last_hash });
        let log_start = LogStart { lsn: Lsn(lsn), place };
        let superblock =
            Self { sequence, segments, segment_bytes, log_start, checkpoint, memory_lost, memory_was_lost };
        // What this version would have written otherwise, another has: reserved bytes that are not zero.
        let ours = superblock.encode(identity);
        if ours[..CHECKED_BYTES] != block[..CHECKED_BYTES] {
            return Err(SuperblockError::NewerFormat { format });
        }
        // What no checksum covers is zero, or damaged.
        if ours[..] != *block {
            return Err(SuperblockError::Invalid);
        }
        Ok(superblock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::{CoreId, Incarnation};

    const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([3; 16]), core: CoreId(2) };

    fn file(blocks: &[Superblock]) -> Vec<u8> {
        let mut file = vec![0; SUPERBLOCK_FILE_BYTES];
        for block in blocks {
            let start = block.offset() as usize;
            file[start..start + BLOCK_BYTES].copy_from_slice(&block.encode(&IDENTITY));
        }
        file
    }

    fn second() -> Superblock {
        let place = Place { at: SegmentLife { segment: 1, life: Lsn(9) }, offset: 4096 };
        Superblock {
            sequence: 2,
            log_start: LogStart { lsn: Lsn(12), place: Some(place) },
            checkpoint: Some(CheckpointName { file: 1, chunks: 3, last_hash: Hash128::of(b"c") }),
            memory_lost: true,
            memory_was_lost: true,
            ..Superblock::format(4, 1 << 23)
        }
    }

    #[test]
    fn the_newer_valid_block_counts_and_a_torn_one_leaves_the_other() {
        let first = Superblock::format(4, 1 << 23);
        let mut both = file(&[first, second()]);
        assert_eq!(Superblock::choose(&both, &IDENTITY), Ok(second()));
        assert!(!Superblock::is_damaged(&both, &IDENTITY));
        assert!(!Superblock::is_damaged(&file(&[first]), &IDENTITY), "the second was never written");
        both[0] ^= 1;
        assert_eq!(Superblock::choose(&both, &IDENTITY), Ok(first));
        assert!(Superblock::is_damaged(&both, &IDENTITY), "the first may be too old to vote by");
        both[BLOCK_BYTES] ^= 1;
        assert_eq!(Superblock::choose(&both, &IDENTITY), Err(SuperblockError::Invalid));
    }

    #[test]
    fn another_folder_and_a_newer_format_are_refused() {
        let other = LogIdentity { incarnation: Incarnation([4; 16]), ..IDENTITY };
        assert_eq!(Superblock::choose(&file(&[second()]), &other), Err(SuperblockError::Invalid));
        let mut newer = file(&[second()]);
        newer[8] = 7;
        let checksum = crc32c(&newer[..CHECKED_BYTES]);
        (&mut newer[CHECKED_BYTES..]).put_u32_le(checksum);
        assert_eq!(Superblock::choose(&newer, &IDENTITY), Err(SuperblockError::NewerFormat { format: 7 }));
    }
}
