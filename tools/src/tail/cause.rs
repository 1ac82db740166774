//! What makes requests slow, and who answers for it.

use evenkeel_wire::timeline::Stage;

/// Who answers for a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// What this program does.
    Ours,
    /// The host: its CPUs and its disk.
    Host,
    /// The way between hosts.
    Network,
    /// Nobody knows.
    Unknown,
}

/// A cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A checkpoint.
    Checkpoint,
    /// Pages that were not in memory.
    PageMiss,
    /// A leadership on its way to another node.
    HandOver,
    /// A split.
    Split,
    /// The storage core had other work.
    CoreBusy,
    /// The disk had not ended the log writes before.
    LogQueue,
    /// The router had other work.
    RouterBusy,
    /// Look-ups of routes.
    Lookups,
    /// Attempts that came to nothing.
    Attempts,
    /// Log writes and flushes.
    Flush,
    /// A storage core's thread was runnable, and did not run.
    RunQueue,
    /// A router's was.
    RouterRunQueue,
    /// The hypervisor ran somebody else.
    Steal,
    /// The way to followers.
    Quorum,
    /// The way to the storage core.
    Hop,
    /// What nobody accounts for.
    Unexplained,
}

impl Cause {
    /// What a part of a request's time speaks of, if nothing says more. `None` is what nobody accounts for.
    #[must_use]
    pub fn of(part: Option<Stage>) -> Self {
        match part {
            Some(Stage::CoreQueue | Stage::Execute) => Self::CoreBusy,
            Some(Stage::Held) => Self::HandOver,
            Some(Stage::PageWait) => Self::PageMiss,
            Some(Stage::LogQueue) => Self::LogQueue,
            Some(Stage::LogWrite | Stage::FollowerLog) => Self::Flush,
            Some(Stage::Quorum) => Self::Quorum,
            Some(Stage::RunQueue) => Self::RunQueue,
            Some(Stage::RouterQueue) => Self::RouterBusy,
            Some(Stage::Lookup) => Self::Lookups,
            Some(Stage::Attempts) => Self::Attempts,
            Some(Stage::RouterRunQueue) => Self::RouterRunQueue,
            Some(Stage::Hop) => Self::Hop,
            None => Self::Unexplained,
        }
    }

    /// Who answers for it.
    #[must_use]
    pub fn origin(self) -> Origin {
        match self {
            Self::Checkpoint
            | Self::PageMiss
            | Self::HandOver
            | Self::Split
            | Self::CoreBusy
            | Self::RouterBusy
            | Self::Lookups
            | Self::Attempts => Origin::Ours,
            Self::LogQueue | Self::Flush | Self::RunQueue | Self::RouterRunQueue | Self::Steal => {
                Origin::Host
            }
            Self::Quorum | Self::Hop => Origin::Network,
            Self::Unexplained => Origin::Unknown,
        }
    }

    /// Its name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::PageMiss => "page-miss",
            Self::HandOver => "hand-over",
            Self::Split => "split",
            Self::CoreBusy => "core-busy",
            Self::LogQueue => "log-queue",
            Self::RouterBusy => "router-busy",
            Self::Lookups => "look-ups",
            Self::Attempts => "attempts",
            Self::Flush => "flush",
            Self::RunQueue => "run-queue",
            Self::RouterRunQueue => "router-run-queue",
            Self::Steal => "steal",
            Self::Quorum => "way-to-followers",
            Self::Hop => "way-to-core",
            Self::Unexplained => "unexplained",
        }
    }

    /// What it is, as a part of a sentence.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Checkpoint => "a checkpoint that ran",
            Self::PageMiss => "pages that were not in memory",
            Self::HandOver => "a leadership that was handed over",
            Self::Split => "a split",
            Self::CoreBusy => "the storage core being busy with other requests",
            Self::LogQueue => "the disk not having ended the log writes before",
            Self::RouterBusy => "the router being busy with other requests",
            Self::Lookups => "look-ups of routes",
            Self::Attempts => "attempts that came to nothing",
            Self::Flush => "log writes and their flushes",
            Self::RunQueue => "the storage core's thread being runnable and not running",
            Self::RouterRunQueue => "the router's thread being runnable and not running",
            Self::Steal => "the hypervisor running somebody else",
            Self::Quorum => "the way to a follower and back",
            Self::Hop => "the way between router and storage core",
            Self::Unexplained => "something that nothing accounts for",
        }
    }
}

impl Origin {
    /// Its name, for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Host => "host",
            Self::Network => "network",
            Self::Unknown => "unknown",
        }
    }
}

/// The name of a part: a stage, or what nobody accounts for.
#[must_use]
pub fn part_name(part: Option<Stage>) -> &'static str {
    match part {
        Some(Stage::CoreQueue) => "core queue",
        Some(Stage::Held) => "held",
        Some(Stage::PageWait) => "page wait",
        Some(Stage::Execute) => "execute and reply",
        Some(Stage::LogQueue) => "log queue",
        Some(Stage::LogWrite) => "log write and flush",
        Some(Stage::Quorum) => "way to follower",
        Some(Stage::FollowerLog) => "follower's log",
        Some(Stage::RunQueue) => "run queue of core",
        Some(Stage::RouterQueue) => "router's turns",
        Some(Stage::Lookup) => "look-up",
        Some(Stage::Attempts) => "earlier attempts",
        Some(Stage::RouterRunQueue) => "run queue of router",
        Some(Stage::Hop) => "way to core",
        None => "unexplained",
    }
}
