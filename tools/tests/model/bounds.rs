//! Bounds: how far each exploration goes. Within its bound it looks at everything.

use super::member::PLACES;

/// Where an exploration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Three members of a group that was just created.
    New,
    /// The first member leads, its first entry is committed and known to be so by everybody, and it holds a
    /// lease that it has just been granted.
    Led,
    /// After [`Start::Led`] and a step of time: the leader has renewed its lease, and the group is at rest on
    /// all three cores. Only with rolls.
    Resting,
    /// After [`Start::Resting`] and a lease term without a word: the second member has asked the third one,
    /// which knew of no healthy leader any more, and stands; it has asked the third one for its promise. The
    /// first one still leads and has not looked at the time.
    Missed,
    /// After [`Start::Missed`]: the first member has asked the third one to renew its lease, and before that
    /// arrived the second one was elected by the third, and its first entry is committed.
    Replaced,
    /// After [`Start::Led`] and two steps of time: the second member has been told by the third that it knows
    /// of no healthy leader, and stands; nobody else has been asked for a promise yet. The first member has
    /// asked to renew its lease, the third one has granted it, and the answer is on its way.
    Granted,
    /// After [`Start::Led`] and two steps of time: the first member, which died and came back, holds two
    /// writes of ballot 1 that nobody else has; the second one, too, but an entry of ballot 2 in the place of
    /// the first of them. Nobody leads.
    Contested,
    /// After [`Start::Contested`] and two more steps of time: the first member leads again, elected by the
    /// third one under a third ballot, which has not got its entries yet; the second one stands, too, under a
    /// higher ballot, and the third one has not got that either.
    Restored,
    /// As [`Start::Contested`], but the second member leads, and its entry is committed with the third one.
    Overtaken,
    /// After [`Start::Led`] the first member died, came back, promised the second one a second ballot, and
    /// lost the memory of that; the promise is still on its way. Nobody has led for as long as it takes until
    /// one without a vote stands: the first member does, for a ballot of the second round.
    Forgotten,
    /// After [`Start::Forgotten`] the second member refused the first one, which stands again.
    Refused,
}

/// What is explored, and what is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// By which it is asked for.
    pub(crate) name: &'static str,
    /// Where it begins.
    pub(crate) start: Start,
    /// How often true time moves on.
    pub(crate) ticks: u8,
    /// Into how many of such steps a lease term is divided ([`super::clock`]).
    pub(crate) pace: u8,
    /// Whether leases are renewed by the rolls of the members' cores, on which groups come to rest. Otherwise
    /// each heartbeat and each answer is told to the replica.
    pub(crate) rolls: bool,
    /// By which part of the drift bound each member's clock is too fast: −1, 0 or 1. One start for each.
    pub(crate) clocks: &'static [[i8; PLACES]],
    /// Who looks at the time, and so may suspect a leader, stand for election, or give up.
    pub(crate) watchful: &'static [usize],
    /// Highest round of a ballot: how many elections there may be.
    pub(crate) rounds: u64,
    /// Different writes.
    pub(crate) writes: u8,
    /// How often a client sends one of them, first attempts and repetitions together.
    pub(crate) submissions: u8,
    /// How often a member crashes and comes back.
    pub(crate) crashes: u8,
    /// Whether each record becomes durable for itself, and a crash may fall between any two. Otherwise all
    /// that was appended becomes durable together, and a crash comes before or after.
    pub(crate) torn: bool,
    /// How often a message is delivered and stays on its way.
    pub(crate) duplicates: u8,
    /// How often members renew leases, all together; none: once in each step.
    pub(crate) renewals: Option<u8>,
    /// How often a leader gives its lease up.
    pub(crate) hand_overs: u8,
    /// Messages that are still on their way when true time moves on. The others arrive or are lost before.
    pub(crate) late: usize,
    /// Messages that are on their way at one time. What goes beyond is not explored.
    pub(crate) in_flight: usize,
}

impl Bound {
    /// Whether so much time passes that somebody may serve who does not where it begins: two steps until a
    /// leader is missed, and two for its lease.
    pub(crate) fn outlasts_a_lease(&self) -> bool {
        let needed = match self.start {
            // Heard in the first step, missed after a whole term, and then another one.
            Start::Resting | Start::Missed | Start::Replaced => 9,
            Start::New | Start::Led | Start::Granted => 4,
            Start::Contested | Start::Overtaken | Start::Restored => 6,
            Start::Forgotten => FORGOTTEN_STEPS + 4,
            Start::Refused => FORGOTTEN_STEPS + 7,
        };
        self.ticks >= needed
    }

    /// Whether somebody serves where it begins, or does so without an election that must be waited for.
    pub(crate) fn has_leader(&self) -> bool {
        matches!(self.start, Start::New | Start::Led | Start::Resting)
    }
}

/// Exact clocks.
const EXACT: &[[i8; PLACES]] = &[[0; PLACES]];
/// The first leader's clock is as slow as it may be, the others' as fast: the worst for a lease.
const WORST: &[[i8; PLACES]] = &[[-1, 1, 1, 1]];
/// Every combination of a slowest and a fastest clock that matters for who outlives whom.
const DRIFTING: &[[i8; PLACES]] = &[[-1, 1, 1, 1], [1, -1, -1, -1], [-1, -1, 1, 1], [1, -1, 1, -1]];

/// Nothing happens: what the others differ from.
const STILL: Bound = Bound {
    name: "",
    start: Start::Led,
    ticks: 0,
    pace: 2,
    rolls: false,
    clocks: EXACT,
    watchful: &[0, 1, 2],
    rounds: 1,
    writes: 1,
    submissions: 1,
    crashes: 0,
    torn: false,
    duplicates: 0,
    renewals: None,
    hand_overs: 0,
    late: usize::MAX,
    in_flight: 4,
};

/// Steps of time until [`Start::Forgotten`].
pub(crate) const FORGOTTEN_STEPS: u8 = 9;

/// All bounds, the small ones first. How many states each of them has: docs/decisions/0013-model-checking.md.
pub(crate) const BOUNDS: [Bound; 24] = [
    Bound { name: "birth", start: Start::New, ..STILL },
    Bound { name: "writes", writes: 2, submissions: 3, in_flight: 3, torn: true, ..STILL },
    Bound { name: "twice", start: Start::New, duplicates: 1, in_flight: 3, ..STILL },
    Bound { name: "lapse", late: 0, ..GRANTED },
    Bound { name: "late", late: 1, ..GRANTED },
    Bound { name: "lease", watchful: &[1], submissions: 0, late: 0, ..ELECTION },
    Bound { name: "watchful", submissions: 0, late: 0, ..ELECTION },
    Bound { name: "drift", submissions: 0, late: 0, clocks: DRIFTING, ..ELECTION },
    Bound { name: "restart", watchful: &[1], ticks: 2, crashes: 1, ..ELECTION },
    Bound { name: "hand-over", watchful: &[], ticks: 1, hand_overs: 1, ..ELECTION },
    Bound { name: "handed", watchful: &[], ticks: 1, hand_overs: 1, crashes: 1, ..ELECTION },
    Bound { name: "rolls", ..ROLLS },
    Bound { name: "rolls-twice", duplicates: 1, ..ROLLS },
    Bound { name: "rolls-restart", crashes: 1, ..ROLLS },
    Bound { name: "renewals", renewals: Some(3), ..ROLLS },
    Bound { name: "missed", start: Start::Missed, renewals: None, ..ROLLS },
    Bound { name: "rest", start: Start::Resting, watchful: &[1, 2], renewals: None, ..ROLLS },
    Bound { name: "restored", start: Start::Restored, watchful: &[], crashes: 1, torn: true, ..RESTORED },
    Bound { name: "overtaken", start: Start::Overtaken, watchful: &[0], rounds: 3, ..CONFLICT },
    Bound {
        name: "contested",
        start: Start::Contested,
        watchful: &[0, 1],
        rounds: 4,
        crashes: 1,
        torn: true,
        ..CONFLICT
    },
    Bound { name: "forgotten", start: Start::Forgotten, ..FORGOTTEN },
    Bound { name: "refused", start: Start::Refused, ticks: FORGOTTEN_STEPS + 7, rounds: 3, ..FORGOTTEN },
    Bound { name: "prompt", late: 0, crashes: 1, ..ELECTION },
    Bound { name: "succession", ..ELECTION },
];

/// A second leader is elected when the first one's lease may still hold, and serves when it does not.
const ELECTION: Bound = Bound { ticks: 4, clocks: WORST, rounds: 2, in_flight: 2, ..STILL };

/// A lease was renewed when the second leader was about to be elected.
const GRANTED: Bound =
    Bound { start: Start::Granted, watchful: &[], submissions: 0, in_flight: 3, ..ELECTION };

/// Leases of a group at rest are renewed, or not, while another leader is elected and serves.
const ROLLS: Bound = Bound {
    start: Start::Replaced,
    rolls: true,
    renewals: Some(2),
    pace: 4,
    ticks: 9,
    watchful: &[2],
    submissions: 0,
    late: 0,
    ..ELECTION
};

/// Two members have entries for one place, and both want to lead again.
const RESTORED: Bound = Bound { start: Start::Restored, rounds: 3, submissions: 0, ..CONFLICT };

/// Logs part before it begins.
const CONFLICT: Bound = Bound { ticks: 4, in_flight: 2, writes: 2, submissions: 2, ..STILL };

/// Who lost its memory stands, while another one has a promise of before.
const FORGOTTEN: Bound = Bound {
    ticks: FORGOTTEN_STEPS + 4,
    watchful: &[],
    rounds: 2,
    submissions: 0,
    in_flight: 3,
    late: 0,
    ..STILL
};

/// The bound of that name.
pub(crate) fn named(name: &str) -> Option<Bound> {
    BOUNDS.into_iter().find(|bound| bound.name == name)
}
