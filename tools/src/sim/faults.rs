//! What can go wrong in a run. Each seed picks its own mix, so that rare combinations come up.
//!
//! A kind is a row here and an arm in [`Striker::cause`](super::striker::Striker).

/// Each kind once, with what it does.
macro_rules! faults {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A way for things to go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])+ $name,)+
        }

        impl Fault {
            /// Every kind.
            pub const ALL: [Self; [$(stringify!($name)),+].len()] = [$(Self::$name),+];
        }
    };
}

faults! {
    /// A process is killed, and started again.
    Kill,
    /// A node's power fails.
    PowerNode,
    /// A node is away for long: others take its place, and it comes back to groups that do without it.
    LoseNode,
    /// A zone's power fails.
    PowerZone,
    /// The power fails everywhere.
    PowerAll,
    /// A process is stopped and goes on later.
    Pause,
    /// A zone is cut off from the others, or cannot be heard by one of them.
    Partition,
    /// What one host sends to another is swallowed; the other direction works.
    OneWay,
    /// A link breaks.
    BreakLink,
    /// Nothing from or to a host arrives for a while, and then all of it, in order.
    Stall,
    /// The next frames that a host sends arrive with a bit flipped.
    CorruptFrames,
    /// A host's clock changes its rate, within the bound that leases assume.
    Drift,
    /// A host's clock runs faster or slower than leases assume: only what needs no clock must hold then.
    DriftBeyond,
    /// A disk becomes slow.
    SlowDisk,
    /// A disk operation fails.
    DiskError,
    /// Checkpoints find no space.
    DiskFull,
    /// A bit flips in a log, while its process is down.
    FlipBit,
    /// A bit flips in a tree's pages or a checkpoint, while its process is down.
    FlipPage,
    /// A write is reported as done, and changes nothing.
    LoseWrite,
    /// A write is reported as done, and only its first half is.
    TearWrite,
    /// A write is reported as done, and lands where something else was.
    MisplaceWrite,
    /// A flush is reported as done, is not, and the power fails.
    LoseFlush,
    /// A process starts on a folder that another version wrote, and later on its own again.
    OtherFormat,
    /// A core is asked for a checkpoint: no fault, but what pages are damaged by comes after it.
    Checkpoint,
    /// A core is asked to check its trees: no fault either.
    Check,
    /// A member of an older epoch speaks up.
    Ghost,
    /// A process is asked to end in good order.
    Drain,
    /// A router or MemDS server is killed.
    KillFront,
    /// A client is killed; what it had asked for may happen or not.
    KillClient,
    /// A partition is to be split at one of the workload's keys: no fault either, but much changes at once.
    Split,
}

impl Fault {
    /// The kind of that name, as it is spelt in stories.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))
    }

    /// Whether it is within what the data plane promises to bear, and so in every seed's choice.
    #[must_use]
    pub fn is_borne(self) -> bool {
        self != Self::DriftBeyond
    }

    /// Whether it leaves a disk with other bytes than were written: one node's only, so that its peers can
    /// repair it.
    #[must_use]
    pub fn damages(self) -> bool {
        matches!(
            self,
            Self::FlipBit
                | Self::FlipPage
                | Self::LoseWrite
                | Self::TearWrite
                | Self::MisplaceWrite
                | Self::LoseFlush
        )
    }
}
