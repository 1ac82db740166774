//! Where the time of a request went: stages, causes, and how an answer's header carries them (decision
//! 0018).
//!
//! ```text
//!  offset  bytes  field               (of the twenty bytes at offset 40 of a frame's header)
//!       0     14  nine durations of 12 bits each, from the lowest bit on, in the order of Stage::CORE; then
//!                 4 bits: the stage, counted from one, that most of the run queue was taken out of
//!      14      2  causes; bit 15: measured
//!      16      4  the node that completed the quorum
//! ```
//!
//! A duration is a floating-point number of nanoseconds: 5 bits of exponent, 7 of mantissa. It is exact up to
//! 255 ns, and within 0.4 % above.
//!
//! What this does not do: read a clock. Every duration is a difference of one process's own times.

use crate::ids::NodeId;

/// Bytes of a header that hold stages.
pub const TIMELINE_BYTES: usize = 20;

/// A part of a request's time. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// It waited for a turn of the storage core.
    CoreQueue = 0,
    /// The core held it back: for a checkpoint, a hand-over or a split.
    Held = 1,
    /// It waited for pages of the tree.
    PageWait = 2,
    /// Turns of the core in which it was executed, with everything else that was.
    Execute = 3,
    /// Its log record waited for its turn at the device.
    LogQueue = 4,
    /// The leader's log write and its flush.
    LogWrite = 5,
    /// After that, the way to the follower that completed the quorum, and back.
    Quorum = 6,
    /// After that, that follower's log queue, write and flush.
    FollowerLog = 7,
    /// The core's thread was runnable and did not run.
    RunQueue = 8,
    /// It, or its answer, waited for a turn of the router.
    RouterQueue = 9,
    /// It waited for its route.
    Lookup = 10,
    /// Attempts that came to nothing: a core that does not lead, a link that broke.
    Attempts = 11,
    /// The router's thread was runnable and did not run.
    RouterRunQueue = 12,
    /// What is left of the router's wait for the core: the way there and back.
    Hop = 13,
}

/// How many stages there are.
pub const STAGES: usize = 14;
/// How many of them, the first ones, a header carries.
const CORE_STAGES: usize = 9;

impl Stage {
    /// All, by their numbers.
    pub const ALL: [Self; STAGES] = [
        Self::CoreQueue,
        Self::Held,
        Self::PageWait,
        Self::Execute,
        Self::LogQueue,
        Self::LogWrite,
        Self::Quorum,
        Self::FollowerLog,
        Self::RunQueue,
        Self::RouterQueue,
        Self::Lookup,
        Self::Attempts,
        Self::RouterRunQueue,
        Self::Hop,
    ];

    /// Those that a storage core measures.
    pub const CORE: &'static [Self] = Self::ALL.split_at(CORE_STAGES).0;
}

/// What a request met, one bit each. The bits are part of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Causes(pub u16);

impl Causes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A checkpoint ran.
    pub const CHECKPOINT: Self = Self(1);
    /// It was held until the checkpoint had caught up with the log.
    pub const HELD_BY_CHECKPOINT: Self = Self(1 << 1);
    /// It was held while the leadership was given away.
    pub const HELD_BY_HAND_OVER: Self = Self(1 << 2);
    /// It was held by a split, or its partition was being split.
    pub const SPLIT: Self = Self(1 << 3);
    /// It missed a page.
    pub const PAGE_MISS: Self = Self(1 << 4);
    /// The hypervisor ran somebody else on this CPU.
    pub const STOLEN: Self = Self(1 << 5);
    /// The follower that was waited for was itself kept from running for most of that time.
    pub const FOLLOWER_RUN_QUEUE: Self = Self(1 << 6);
    /// It repeated a write, and waited for the first one.
    pub const REPEATED: Self = Self(1 << 7);
    /// The router's cache did not know its route.
    pub const ROUTE_MISS: Self = Self(1 << 8);
    /// It was sent to a second core.
    pub const REDIRECTED: Self = Self(1 << 9);
    /// It ended with an error.
    pub const FAILED: Self = Self(1 << 10);
    /// The stages of the core are known.
    pub const MEASURED: Self = Self(1 << 15);

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These, and `other` if `when`.
    #[must_use]
    pub const fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }
}

/// The stages of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Nanoseconds in each stage, by its number.
    pub ns: [u64; STAGES],
    /// What it met.
    pub causes: Causes,
    /// Where most of the run queue of the core was taken out of.
    pub run_queue_in: Option<Stage>,
    /// Who completed the quorum; zero: nobody was waited for.
    pub awaited: NodeId,
}

impl Timeline {
    /// Nanoseconds in a stage.
    #[must_use]
    pub fn get(&self, stage: Stage) -> u64 {
        self.ns[stage as usize]
    }

    /// Adds to a stage.
    pub fn add(&mut self, stage: Stage, ns: u64) {
        let place = &mut self.ns[stage as usize];
        *place = place.saturating_add(ns);
    }

    /// Nanoseconds in all stages.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ns.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// Takes up to `ns` out of `from`, as run queue. Returns what was left to take.
    pub fn run_queue_within(&mut self, from: Stage, ns: u64) -> u64 {
        let taken = ns.min(self.get(from));
        if taken > 0 {
            self.ns[from as usize] -= taken;
            if taken >= self.get(Stage::RunQueue) {
                self.run_queue_in = Some(from);
            }
            self.add(Stage::RunQueue, taken);
        }
        ns - taken
    }

    /// The stages of a core as a header carries them.
    #[must_use]
    pub fn pack(&self) -> Packed {
        let mut bits = u128::from(self.run_queue_in.map_or(0, |stage| stage as u8 + 1)) << (12 * CORE_STAGES);
        for (place, ns) in self.ns[..CORE_STAGES].iter().enumerate() {
            bits |= u128::from(encode_duration(*ns)) << (12 * place);
        }
        let mut bytes = [0; TIMELINE_BYTES];
        bytes[..14].copy_from_slice(&bits.to_le_bytes()[..14]);
        bytes[14..16].copy_from_slice(&(self.causes.0 | Causes::MEASURED.0).to_le_bytes());
        bytes[16..].copy_from_slice(&self.awaited.0.to_le_bytes());
        Packed(bytes)
    }
}

/// Stages as they stand in a header; all zero: nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed(pub [u8; TIMELINE_BYTES]);

impl Packed {
    /// Nothing was measured.
    pub const NONE: Self = Self([0; TIMELINE_BYTES]);

    /// Whether something was measured.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.causes().has(Causes::MEASURED)
    }

    fn causes(&self) -> Causes {
        Causes(u16::from_le_bytes([self.0[14], self.0[15]]))
    }

    fn bits(&self) -> u128 {
        let mut bits = [0; 16];
        bits[..14].copy_from_slice(&self.0[..14]);
        u128::from_le_bytes(bits)
    }

    /// What they say. Any bytes say something.
    #[must_use]
    pub fn unpack(&self) -> Timeline {
        let bits = self.bits();
        let mut timeline = Timeline { causes: self.causes(), ..Timeline::default() };
        for (place, ns) in timeline.ns[..CORE_STAGES].iter_mut().enumerate() {
            *ns = decode_duration((bits >> (12 * place)) as u16 & 0xfff);
        }
        let place = (bits >> (12 * CORE_STAGES)) as usize & 0xf;
        timeline.run_queue_in = place.checked_sub(1).and_then(|place| Stage::CORE.get(place)).copied();
        let [.., a, b, c, d] = self.0;
        timeline.awaited = NodeId(u32::from_le_bytes([a, b, c, d]));
        timeline
    }

    /// The same with `ns` more of [`Stage::Execute`]: what the turn took in which the answer was made.
    #[must_use]
    pub fn executed(&self, ns: u64) -> Self {
        const SHIFT: usize = 12 * Stage::Execute as usize;
        let bits = self.bits();
        let before = decode_duration((bits >> SHIFT) as u16 & 0xfff);
        let after = u128::from(encode_duration(before.saturating_add(ns)));
        let bits = bits & !(0xfff << SHIFT) | after << SHIFT;
        let mut bytes = self.0;
        bytes[..14].copy_from_slice(&bits.to_le_bytes()[..14]);
        Self(bytes)
    }
}

/// Nanoseconds as 12 bits, rounded to the nearest.
fn encode_duration(ns: u64) -> u16 {
    let ns = ns.min(DURATION_MAX);
    if ns < 128 {
        return ns as u16;
    }
    let exponent = 63 - ns.leading_zeros() - 7;
    let rounded = ns + (1 << exponent >> 1);
    // Rounding up may carry into the next power of two.
    let exponent = 63 - rounded.leading_zeros() - 7;
    let mantissa = (rounded >> exponent) as u16 & 0x7f;
    (exponent as u16 + 1) << 7 | mantissa
}

fn decode_duration(bits: u16) -> u64 {
    let (exponent, mantissa) = (bits >> 7, u64::from(bits & 0x7f));
    match exponent {
        0 => mantissa,
        exponent => (128 | mantissa) << (exponent - 1),
    }
}

/// The longest duration that can be told, ns: about 274 seconds.
const DURATION_MAX: u64 = 255 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact_when_short_and_within_half_a_percent_when_long() {
        for ns in 0..256 {
            assert_eq!(decode_duration(encode_duration(ns)), ns);
        }
        let mut ns: u64 = 256;
        while ns < DURATION_MAX {
            let got = decode_duration(encode_duration(ns));
            assert!(got.abs_diff(ns) * 250 <= ns, "{ns} became {got}");
            assert!(encode_duration(ns) < 1 << 12);
            ns += ns / 97 + 1;
        }
        assert_eq!(decode_duration(encode_duration(u64::MAX)), DURATION_MAX);
        let all: Vec<u64> = (0..1 << 12).map(decode_duration).collect();
        assert!(all.is_sorted(), "a longer duration never has the smaller number");
        assert!((0..1 << 12).all(|bits| encode_duration(decode_duration(bits)) == bits));
    }

    fn sample() -> Timeline {
        let mut timeline = Timeline { awaited: NodeId(0x0102_0304), ..Timeline::default() };
        for (place, stage) in Stage::CORE.iter().enumerate() {
            timeline.add(*stage, 200 + place as u64);
        }
        timeline.causes = Causes::CHECKPOINT.with(Causes::STOLEN, true).with(Causes::SPLIT, false);
        timeline.run_queue_in = Some(Stage::LogWrite);
        timeline
    }

    #[test]
    fn stages_come_back_and_their_bytes_are_frozen() {
        let packed = sample().pack();
        let hex: String = packed.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "c8900cca b00ccc d00cce f00cd060".replace(' ', "") + "2180" + "04030201");
        let back = packed.unpack();
        assert_eq!(back.ns, sample().ns);
        assert_eq!((back.run_queue_in, back.awaited), (Some(Stage::LogWrite), NodeId(0x0102_0304)));
        assert!(back.causes.has(Causes::CHECKPOINT) && back.causes.has(Causes::STOLEN));
        assert!(!back.causes.has(Causes::SPLIT) && packed.is_measured() && !Packed::NONE.is_measured());
    }

    #[test]
    fn the_turn_of_the_answer_is_added_to_what_was_executed_and_to_nothing_else() {
        let before = sample().pack();
        let after = before.executed(1_000).unpack();
        let mut expected = before.unpack();
        expected.add(Stage::Execute, 1_000);
        assert!(after.get(Stage::Execute).abs_diff(1_203) <= 4);
        expected.ns[Stage::Execute as usize] = after.get(Stage::Execute);
        assert_eq!(after, expected);
    }

    #[test]
    fn any_bytes_say_something() {
        let all = Packed([0xff; TIMELINE_BYTES]).unpack();
        assert_eq!(all.get(Stage::RunQueue), DURATION_MAX);
        assert_eq!(all.run_queue_in, None, "15 names no stage");
        assert_eq!(Packed::NONE.unpack(), Timeline::default());
    }

    #[test]
    fn the_run_queue_is_taken_out_of_a_stage_as_far_as_that_goes() {
        let mut timeline = Timeline::default();
        timeline.add(Stage::LogWrite, 100);
        timeline.add(Stage::PageWait, 10);
        assert_eq!(timeline.run_queue_within(Stage::LogWrite, 60), 0);
        assert_eq!(timeline.run_queue_within(Stage::PageWait, 30), 20);
        assert_eq!((timeline.get(Stage::RunQueue), timeline.total()), (70, 110));
        assert_eq!(timeline.run_queue_in, Some(Stage::LogWrite), "most of it fell there");
    }
}
