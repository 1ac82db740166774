//! Frames: a hand-laid header of 64 bytes, then a body.
//!
//! ```text
//!  offset  bytes  field
//!       0      4  magic           "EVKL"
//!       4      2  version         1; the place of magic and version never changes
//!       6      2  kind            what the body is (Kind)
//!       8      4  body bytes
//!      12      4  body checksum   CRC-32C
//!      16      8  request id      chosen by the side that asks, repeated in the answer
//!      24      8  partition       0 until a router has placed the request
//!      32      4  epoch           of that partition's membership, as the sender knows it
//!      36      4  deadline        microseconds that remain; 0 = none
//!      40     20  timeline        of answers and Accepted: where the time went (timeline.rs); otherwise zero
//!      60      4  header checksum CRC-32C of bytes 0..60
//!      64      …  body
//! ```
//!
//! All integers are little-endian. The header is checked before anything looks at the body, and the body's
//! checksum before rkyv does. A router forwards a body as it came, under a new header, so the client's body
//! checksum is the one that the storage core verifies.

use crate::checksum::crc32c;
use crate::error::{ErrorCode, Problem};
use crate::ids::{Epoch, PartitionId, RequestId};
use crate::limits::{FRAME_BODY_BYTES_BEFORE_HELLO_MAX, FRAME_BODY_BYTES_MAX};
use crate::timeline::{Packed, TIMELINE_BYTES};
use thiserror::Error;

/// "EVKL" as the bytes stand on the wire.
pub const MAGIC: [u8; 4] = *b"EVKL";
/// The protocol version that this build speaks.
pub const VERSION: u16 = 1;
/// Length of the header, bytes.
pub const HEADER_BYTES: usize = 64;

/// Where the timeline stands in the header.
const TIMELINE_AT: usize = 40;
const _: () = assert!(TIMELINE_AT + TIMELINE_BYTES == HEADER_BYTES - 4);

/// Set in the kind of an answer; the rest names the question.
const ANSWER: u16 = 0x8000;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:expr,)*) => {
        /// What a frame's body is. The numbers are part of the format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            /// Every kind, in the order of their numbers' declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind with this number, if there is one.
            #[must_use]
            pub fn from_u16(value: u16) -> Option<Self> {
                match value {
                    $(value if value == $value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// The first frame of a connection, from the side that connected.
    Hello = 1,
    /// The answer to it.
    HelloAnswer = 1 | ANSWER,
    /// The answer to any question that failed.
    Error = 2 | ANSWER,

    /// Write an item.
    Put = 16,
    /// Read an item.
    Get = 17,
    /// The answer to a get.
    GetAnswer = 17 | ANSWER,
    /// Remove an item.
    Delete = 18,
    /// Change an item by an update expression.
    Update = 19,
    /// The answer to a put, delete or update.
    WriteAnswer = 16 | ANSWER,
    /// Read the items of one partition key, in order.
    Query = 20,
    /// Read a range of a table, in storage order.
    Scan = 21,
    /// The answer to a query or scan: one page.
    PageAnswer = 20 | ANSWER,
    /// Read up to 100 items.
    BatchGet = 22,
    /// The answer to a batch get.
    BatchGetAnswer = 22 | ANSWER,
    /// Put or delete up to 25 items.
    BatchWrite = 23,
    /// The answer to a batch write.
    BatchWriteAnswer = 23 | ANSWER,

    /// Create a table.
    CreateTable = 32,
    /// Describe a table by its name.
    DescribeTable = 33,
    /// Delete a table.
    DeleteTable = 34,
    /// The answer to these and to a split: the table as it now stands.
    TableAnswer = 33 | ANSWER,
    /// Divide the range of a table's partition.
    SplitTable = 36,
    /// The names of all tables.
    ListTables = 35,
    /// The answer to it.
    ListTablesAnswer = 35 | ANSWER,

    /// What a process knows of itself.
    Status = 48,
    /// The answer to it.
    StatusAnswer = 48 | ANSWER,
    /// Where the processes of this cluster are.
    Topology = 49,
    /// The answer to it.
    TopologyAnswer = 49 | ANSWER,
    /// A storage core is to check all its trees now.
    Scrub = 50,
    /// The answer to it.
    ScrubAnswer = 50 | ANSWER,
    /// Where the time of requests went, as a router has noted it.
    Tail = 51,
    /// The answer to it.
    TailAnswer = 51 | ANSWER,

    /// Routers to MemDS: the routes of some keys.
    Lookup = 64,
    /// The answer to it.
    LookupAnswer = 64 | ANSWER,
    /// Leaders to MemDS: the groups that they lead.
    PublishRoutes = 65,
    /// The catalogue to MemDS: every table.
    PublishTables = 66,
    /// The answer to both: how much of the catalogue this MemDS server has.
    PublishAnswer = 66 | ANSWER,

    /// A candidate asks for a promise.
    Prepare = 96,
    /// An acceptor gives one.
    Promise = 97,
    /// An acceptor has promised a higher ballot, or may not vote.
    Refuse = 98,
    /// A candidate asks for entries that a better log has.
    Fetch = 99,
    /// Those entries.
    Fetched = 100,
    /// A leader sends entries, or only its commit position.
    Accept = 101,
    /// An acceptor has them durable.
    Accepted = 102,
    /// An acceptor cannot take them.
    Rejected = 103,
    /// A leader core renews its leases with a peer core.
    Heartbeat = 104,
    /// The answer to it.
    HeartbeatAnswer = 104 | ANSWER,
    /// A follower asks a peer whether the leader is healthy.
    Suspect = 105,
    /// The answer to it.
    SuspectAnswer = 105 | ANSWER,
    /// A leader gives up its lease in favour of the receiver.
    HandOver = 106,
    /// A replica that lost part of its log asks to be refilled.
    Rejoin = 107,
    /// The slot from which it may vote again.
    RejoinAnswer = 107 | ANSWER,
    /// A piece of a partition's state.
    SnapshotChunk = 108,
    /// The receiver has it.
    SnapshotAck = 109,
    /// A replica with damaged pages asks for the items of their keys.
    FetchRange = 110,
    /// The answer to it.
    RangeCells = 110 | ANSWER,
    /// A leader makes a core take part in a group, without a vote at first.
    Invite = 111,
    /// The catalogue tells a core which replicas it must hold.
    EnsureReplicas = 112,
    /// The answer to it: those that it holds durably.
    EnsureReplicasAnswer = 112 | ANSWER,
    /// The catalogue tells a group's leader to divide its range.
    SplitPartition = 113,
    /// The answer to it.
    SplitPartitionAnswer = 113 | ANSWER,
}

impl Kind {
    /// Whether this is an answer to a question on the same connection.
    #[must_use]
    pub fn is_answer(self) -> bool {
        self as u16 & ANSWER != 0
    }

    /// Whether its frames may say where the time went.
    #[must_use]
    pub fn has_timeline(self) -> bool {
        self.is_answer() || self == Self::Accepted
    }
}

/// A checked frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: Kind,
    /// Length of the body, bytes.
    pub body_bytes: u32,
    /// CRC-32C of the body.
    pub body_checksum: u32,
    /// Chosen by the side that asks, repeated in the answer.
    pub request: RequestId,
    /// The partition that the sender routed this to, or [`PartitionId::NONE`].
    pub partition: PartitionId,
    /// That partition's membership epoch, as the sender knows it.
    pub epoch: Epoch,
    /// Microseconds until the asker gives up; 0 = it never does.
    pub deadline_us: u32,
    /// Where the time went, in answers and Accepted.
    pub timeline: Packed,
}

/// Why bytes are not a frame. The connection that carried them is closed: its framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first four bytes are not ours.
    #[error(
        "not an Evenkeel frame: it starts with {got:02x?}, expected {MAGIC:02x?}; is this the right port?"
    )]
    Magic {
        /// What stood there.
        got: [u8; 4],
    },
    /// Another protocol version.
    #[error(
        "protocol version {got} is not supported, this build speaks version {VERSION}; upgrade the older side"
    )]
    Version {
        /// What the header says.
        got: u16,
    },
    /// The header is damaged.
    #[error("frame header damaged: checksum {got:08x}, expected {expected:08x}")]
    HeaderChecksum {
        /// What the header says.
        got: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// Reserved bytes are in use.
    #[error("reserved bytes of the frame header are not zero; the sender speaks a newer protocol")]
    Reserved,
    /// A kind that this build does not know.
    #[error("unknown frame kind {got}")]
    Kind {
        /// What the header says.
        got: u16,
    },
    /// The body is longer than this connection may send.
    #[error("frame body of {got} bytes, at most {limit} are accepted here")]
    BodyTooLarge {
        /// What the header announces.
        got: u32,
        /// What is accepted.
        limit: u32,
    },
    /// The body is damaged.
    #[error("frame body damaged: checksum {got:08x}, expected {expected:08x}")]
    BodyChecksum {
        /// What the bytes give.
        got: u32,
        /// What the header says.
        expected: u32,
    },
}

impl FrameError {
    /// The error as an answer that names itself on the wire.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let code = match self {
            Self::Magic { .. } | Self::Reserved => ErrorCode::Malformed,
            Self::Version { .. } => ErrorCode::UnsupportedVersion,
            Self::HeaderChecksum { .. } | Self::BodyChecksum { .. } => ErrorCode::ChecksumMismatch,
            Self::Kind { .. } => ErrorCode::UnknownKind,
            Self::BodyTooLarge { .. } => ErrorCode::FrameTooLarge,
        };
        Problem::new(code, self.to_string())
    }
}

/// How much the other side of a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit(u32);

impl BodyLimit {
    /// Until the handshake is done.
    pub const BEFORE_HELLO: Self = Self(FRAME_BODY_BYTES_BEFORE_HELLO_MAX as u32);
    /// After it.
    pub const AFTER_HELLO: Self = Self(FRAME_BODY_BYTES_MAX as u32);
}

impl Header {
    /// A header for a body yet to be written: [`seal`] fills in length and checksums.
    #[must_use]
    pub fn new(kind: Kind, request: RequestId) -> Self {
        Self {
            kind,
            body_bytes: 0,
            body_checksum: 0,
            request,
            partition: PartitionId::NONE,
            epoch: Epoch(0),
            deadline_us: 0,
            timeline: Packed::NONE,
        }
    }

    /// The same, addressed to a partition.
    #[must_use]
    pub fn to_partition(mut self, partition: PartitionId, epoch: Epoch) -> Self {
        self.partition = partition;
        self.epoch = epoch;
        self
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.request.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.partition.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.deadline_us.to_le_bytes());
        bytes[TIMELINE_AT..60].copy_from_slice(&self.timeline.0);
        let checksum = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Checks and reads a header.
    ///
    /// # Errors
    /// Every [`FrameError`] but the one about the body's checksum.
    pub fn decode(bytes: &[u8; HEADER_BYTES], limit: BodyLimit) -> Result<Self, FrameError> {
        let magic: [u8; 4] = field(bytes, 0);
        if magic != MAGIC {
            return Err(FrameError::Magic { got: magic });
        }
        let version = u16::from_le_bytes(field(bytes, 4));
        if version != VERSION {
            return Err(FrameError::Version { got: version });
        }
        let (got, expected) = (u32::from_le_bytes(field(bytes, 60)), crc32c(&bytes[..60]));
        if got != expected {
            return Err(FrameError::HeaderChecksum { got, expected });
        }
        let number = u16::from_le_bytes(field(bytes, 6));
        let kind = Kind::from_u16(number).ok_or(FrameError::Kind { got: number })?;
        let timeline = Packed(field(bytes, TIMELINE_AT));
        if timeline != Packed::NONE && !kind.has_timeline() {
            return Err(FrameError::Reserved);
        }
        let body_bytes = u32::from_le_bytes(field(bytes, 8));
        if body_bytes > limit.0 {
            return Err(FrameError::BodyTooLarge { got: body_bytes, limit: limit.0 });
        }
        Ok(Self {
            kind,
            body_bytes,
            body_checksum: u32::from_le_bytes(field(bytes, 12)),
            request: RequestId(u64::from_le_bytes(field(bytes, 16))),
            partition: PartitionId(u64::from_le_bytes(field(bytes, 24))),
            epoch: Epoch(u32::from_le_bytes(field(bytes, 32))),
            deadline_us: u32::from_le_bytes(field(bytes, 36)),
            timeline,
        })
    }

    /// Header and body together, bytes.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes as usize
    }

    /// Checks `body` against the header.
    ///
    /// # Errors
    /// [`FrameError::BodyChecksum`].
    pub fn check_body(&self, body: &[u8]) -> Result<(), FrameError> {
        let got = crc32c(body);
        if got != self.body_checksum {
            return Err(FrameError::BodyChecksum { got, expected: self.body_checksum });
        }
        Ok(())
    }
}

/// Adds to the answer that begins `frame`, if its stages were measured, how long the turn took in which it
/// was made.
pub(crate) fn add_turn(frame: &mut [u8], took_ns: u64) {
    let Some(header) = frame.first_chunk_mut::<HEADER_BYTES>() else {
        return;
    };
    let timeline = Packed(field(header, TIMELINE_AT)).executed(took_ns);
    header[TIMELINE_AT..60].copy_from_slice(&timeline.0);
    let checksum = crc32c(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the header's fields lie inside it")
}

/// The first frame in `bytes`, checked, or `None` while it is incomplete. The caller drops
/// [`Header::frame_bytes`] bytes once it is done with it.
///
/// # Errors
/// When the bytes cannot be the start of a frame: the connection must be closed.
pub fn first_frame(bytes: &[u8], limit: BodyLimit) -> Result<Option<(Header, &[u8])>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = Header::decode(header, limit)?;
    let Some(body) = bytes.get(HEADER_BYTES..header.frame_bytes()) else {
        return Ok(None);
    };
    header.check_body(body)?;
    Ok(Some((header, body)))
}

/// Appends a frame to `out`: room for the header, then the body as `write` makes it, then the header with the
/// body's length and checksum.
///
/// # Panics
/// When the body is longer than any connection accepts: its writer has broken a bound.
pub fn seal(out: &mut Vec<u8>, mut header: Header, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let body = &out[start + HEADER_BYTES..];
    assert!(body.len() <= FRAME_BODY_BYTES_MAX, "a {:?} body of {} bytes", header.kind, body.len());
    header.body_bytes = body.len() as u32;
    header.body_checksum = crc32c(body);
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
}

/// Appends a frame whose body came from another frame: its checksum is kept, not computed again.
pub fn forward(out: &mut Vec<u8>, mut header: Header, body: &[u8], body_checksum: u32) {
    header.body_bytes = body.len() as u32;
    header.body_checksum = body_checksum;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = Header { deadline_us: 9, ..Header::new(Kind::Put, RequestId(7)) };
        seal(&mut out, header.to_partition(PartitionId(3), Epoch(2)), |out| out.extend_from_slice(body));
        out
    }

    fn check(bytes: &[u8], expected: FrameError) {
        assert_eq!(first_frame(bytes, BodyLimit::BEFORE_HELLO), Err(expected));
    }

    #[test]
    fn a_frame_comes_back_and_its_bytes_are_frozen() {
        let bytes = frame(b"body");
        let (header, body) = first_frame(&bytes, BodyLimit::AFTER_HELLO).unwrap().unwrap();
        assert_eq!(
            (header.kind, header.request, header.partition),
            (Kind::Put, RequestId(7), PartitionId(3))
        );
        assert_eq!((header.epoch, header.deadline_us, body), (Epoch(2), 9, &b"body"[..]));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "45564b4c010010000400000050c93f2607000000000000000300000000000000\
             020000000900000000000000000000000000000000000000000000006a239e53\
             626f6479"
        );
    }

    #[test]
    fn every_prefix_is_incomplete_and_none_is_an_error() {
        let bytes = frame(b"body");
        for end in 0..bytes.len() {
            assert_eq!(first_frame(&bytes[..end], BodyLimit::AFTER_HELLO), Ok(None), "prefix of {end} bytes");
        }
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let bytes = frame(b"some body");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(first_frame(&damaged, BodyLimit::AFTER_HELLO).is_err(), "bit {bit} was not noticed");
        }
    }

    #[test]
    fn bad_headers_are_told_apart() {
        check(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a-wandering-browser\r\n\r\n",
            FrameError::Magic { got: *b"GET " },
        );
        let mut other_version = frame(b"");
        other_version[4] = 9;
        check(&other_version, FrameError::Version { got: 9 });
        let oversized = frame(&[0; 1025]);
        check(&oversized, FrameError::BodyTooLarge { got: 1025, limit: 1024 });
        let mut unknown = Header::new(Kind::Put, RequestId(1)).encode();
        unknown[6..8].copy_from_slice(&0x7777_u16.to_le_bytes());
        let checksum = crc32c(&unknown[..60]);
        unknown[60..].copy_from_slice(&checksum.to_le_bytes());
        check(&unknown, FrameError::Kind { got: 0x7777 });
    }

    #[test]
    fn only_answers_say_where_the_time_went() {
        let mut timeline = crate::timeline::Timeline::default();
        timeline.add(crate::timeline::Stage::LogWrite, 1 << 20);
        let with = |kind| Header { timeline: timeline.pack(), ..Header::new(kind, RequestId(1)) }.encode();
        for kind in [Kind::WriteAnswer, Kind::Error, Kind::Accepted] {
            let header = Header::decode(&with(kind), BodyLimit::AFTER_HELLO).unwrap();
            assert_eq!(header.timeline.unpack().total(), 1 << 20);
        }
        for kind in [Kind::Put, Kind::Accept, Kind::Hello] {
            assert_eq!(Header::decode(&with(kind), BodyLimit::AFTER_HELLO), Err(FrameError::Reserved));
        }
    }

    #[test]
    fn kinds_have_distinct_numbers_and_answers_name_themselves() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_u16(*kind as u16), Some(*kind));
        }
        assert!(Kind::GetAnswer.is_answer() && !Kind::Get.is_answer());
    }
}
