//! Bugs on purpose, to prove that the simulator and the tests would find them.
//!
//! Without the cargo feature `planted`, [`active`] is the constant `false` and none of this is in the build.
//! With it, a test chooses one bug for its thread, or a process chooses one by the environment variable
//! `EVENKEEL_PLANTED`.

/// A bug that can be planted (docs/testing.md tells what each breaks and what finds it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A log write counts as durable when it is issued.
    AcknowledgeBeforeDurable,
    /// Log writes are not flushed.
    SkipFlush,
    /// A write is acknowledged when the leader alone has it.
    AcknowledgeBeforeQuorum,
    /// A leader serves reads after its lease has run out.
    ReadAfterLease,
    /// A repeated token executes again.
    ReplayToken,
    /// A replica takes part under another epoch than its own.
    AcceptStaleEpoch,
    /// A page of the tree is taken although its checksum does not hold.
    ForgetChecksum,
    /// The superblock of a checkpoint is written before the tree's pages are durable.
    SuperblockBeforePages,
    /// A page is served from the cache although its block holds another one by now.
    StaleCachePage,
    /// What a checkpoint frees is used again before its superblock is durable.
    ReuseTooEarly,
    /// The pages of the checkpoint that follows a split are not flushed before its superblock.
    SplitWithoutFlush,
    /// A candidate adopts the longest log, whatever the ballots of its entries.
    AdoptLongest,
    /// A promise leaves before it is durable.
    PromiseBeforeDurable,
    /// A follower answers Accepted before the entries are durable.
    AcceptBeforeDurable,
    /// A new leader counts what it inherited as committed before an entry of its own is.
    CommitInherited,
    /// A new leader serves without waiting until no older lease can be alive.
    ServeWithoutWaiting,
    /// A lease counts from the answer's arrival instead of the question's departure.
    LeaseFromReceipt,
    /// A leader uses its lease to the last moment, as if clocks did not drift.
    ForgetDrift,
    /// A core grants to all groups of a peer's roll, whatever ballots have been promised since.
    RollIgnoresBallot,
    /// Damage to what a log was known to hold is taken for a torn tail.
    IgnoreWatermark,
    /// A completed log write counts as durable although an earlier one is under way.
    CountAnyCompletion,
    /// A core serves from what it read at its start without flushing it.
    ServeUnflushed,
    /// Promises that only the log holds are forgotten by a restart.
    ForgetPromise,
    /// Entries that were superseded are found again by a restart.
    KeepSuperseded,
    /// A replica whose log is damaged votes as if it were whole.
    VoteWithDamage,
    /// The word of a replica that lost its memory counts for the quorum, when it follows or stands.
    CountRefilling,
    /// A follower takes a commit position for entries that are not known to be the leader's.
    CommitBeyondMatch,
    /// A lease is renewed under another ballot than the promised one.
    RenewAnyBallot,
    /// A leader is called healthy for what it said long ago.
    StaleHealth,
    /// A write is evaluated without those that are pending before it.
    IgnorePending,
    /// The partition that a split makes begins without the tokens.
    SplitForgetsTokens,
    /// Checkpoints and snapshots hold no outcomes of tokens.
    CheckpointForgetsTokens,
    /// A snapshot takes the place of a state that is as new.
    SnapshotOverNewer,
    /// A partition serves keys that a split has given away.
    ServeMovedKeys,
    /// Reads do not see what a checkpoint that runs has taken over.
    IgnoreFrozen,
    /// A deletion is not kept above the item on disk.
    ForgetDeletion,
    /// The older of two superblocks counts.
    OlderSuperblock,
    /// A learner votes, for what its core was in an older membership.
    LearnerVotes,
    /// A leader that can neither repair its tree nor send it to who needs it goes on leading.
    NeverStepAside,
    /// That a replica is whole again is not written down before the next checkpoint is due.
    RefilledUntilRestart,
    /// A checkpoint goes on with a damaged tree whose partition is gone.
    MergeTheRemoved,
    /// A log replica that gets its items does not divide its group by splits that they are behind.
    PassOverSplits,
    /// A learner becomes a member although it does not vote, and is not heard when it asks what it must have.
    CourtTheForgetful,
    /// A leader goes on under a ballot under which nobody is left who could take the log.
    NeverOutbid,
    /// A log segment that begins with zeros is taken for one that was never used.
    TrustBlank,
    /// A replica goes on with its log while a checkpoint holds a snapshot in place of its state.
    CatchUpMeanwhile,
    /// A learner says how far it is before it is on disk.
    LearnerSpeaksEarly,
    /// A checkpoint does not hold what was accepted and not applied.
    CheckpointForgetsOpen,
    /// A replica whose log has no room for what the repair of its tree waits for says no more than that.
    NeverStuck,
    /// A checkpoint merges as much as it can in each turn, however far the log is.
    UnpacedCheckpoint,
}

impl Planted {
    /// Every bug, by the name that the command line and the environment use.
    pub const ALL: [(&'static str, Self); 50] = [
        ("acknowledge-before-durable", Self::AcknowledgeBeforeDurable),
        ("skip-flush", Self::SkipFlush),
        ("acknowledge-before-quorum", Self::AcknowledgeBeforeQuorum),
        ("read-after-lease", Self::ReadAfterLease),
        ("replay-token", Self::ReplayToken),
        ("accept-stale-epoch", Self::AcceptStaleEpoch),
        ("forget-checksum", Self::ForgetChecksum),
        ("superblock-before-pages", Self::SuperblockBeforePages),
        ("stale-cache-page", Self::StaleCachePage),
        ("reuse-too-early", Self::ReuseTooEarly),
        ("split-without-flush", Self::SplitWithoutFlush),
        ("adopt-longest", Self::AdoptLongest),
        ("promise-before-durable", Self::PromiseBeforeDurable),
        ("accept-before-durable", Self::AcceptBeforeDurable),
        ("commit-inherited", Self::CommitInherited),
        ("serve-without-waiting", Self::ServeWithoutWaiting),
        ("lease-from-receipt", Self::LeaseFromReceipt),
        ("forget-drift", Self::ForgetDrift),
        ("roll-ignores-ballot", Self::RollIgnoresBallot),
        ("ignore-watermark", Self::IgnoreWatermark),
        ("count-any-completion", Self::CountAnyCompletion),
        ("serve-unflushed", Self::ServeUnflushed),
        ("forget-promise", Self::ForgetPromise),
        ("keep-superseded", Self::KeepSuperseded),
        ("vote-with-damage", Self::VoteWithDamage),
        ("count-refilling", Self::CountRefilling),
        ("commit-beyond-match", Self::CommitBeyondMatch),
        ("renew-any-ballot", Self::RenewAnyBallot),
        ("stale-health", Self::StaleHealth),
        ("ignore-pending", Self::IgnorePending),
        ("split-forgets-tokens", Self::SplitForgetsTokens),
        ("checkpoint-forgets-tokens", Self::CheckpointForgetsTokens),
        ("snapshot-over-newer", Self::SnapshotOverNewer),
        ("serve-moved-keys", Self::ServeMovedKeys),
        ("ignore-frozen", Self::IgnoreFrozen),
        ("forget-deletion", Self::ForgetDeletion),
        ("older-superblock", Self::OlderSuperblock),
        ("learner-votes", Self::LearnerVotes),
        ("never-step-aside", Self::NeverStepAside),
        ("refilled-until-restart", Self::RefilledUntilRestart),
        ("merge-the-removed", Self::MergeTheRemoved),
        ("pass-over-splits", Self::PassOverSplits),
        ("court-the-forgetful", Self::CourtTheForgetful),
        ("never-outbid", Self::NeverOutbid),
        ("trust-blank", Self::TrustBlank),
        ("catch-up-meanwhile", Self::CatchUpMeanwhile),
        ("learner-speaks-early", Self::LearnerSpeaksEarly),
        ("checkpoint-forgets-open", Self::CheckpointForgetsOpen),
        ("never-stuck", Self::NeverStuck),
        ("unpaced-checkpoint", Self::UnpacedCheckpoint),
    ];

    /// The bug of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(candidate, _)| *candidate == name).map(|(_, planted)| *planted)
    }
}

#[cfg(feature = "planted")]
mod chosen {
    use super::Planted;
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local! {
        static OF_THREAD: Cell<Option<Planted>> = const { Cell::new(None) };
    }
    static OF_PROCESS: OnceLock<Option<Planted>> = OnceLock::new();

    /// Chooses the bug of this thread, or none.
    pub fn choose(planted: Option<Planted>) {
        OF_THREAD.with(|cell| cell.set(planted));
    }

    /// Whether `planted` was chosen for this thread or process.
    #[must_use]
    pub fn active(planted: Planted) -> bool {
        let of_process = || {
            *OF_PROCESS
                .get_or_init(|| std::env::var("EVENKEEL_PLANTED").ok().and_then(|name| Planted::named(&name)))
        };
        OF_THREAD.with(Cell::get).or_else(of_process) == Some(planted)
    }
}

#[cfg(feature = "planted")]
pub use chosen::{active, choose};

/// Always false: this build has no planted bugs.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn active(_: Planted) -> bool {
    false
}
