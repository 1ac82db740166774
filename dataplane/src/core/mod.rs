//! The storage core: one machine that owns groups, a log and checkpoint files.
//!
//! * [`StorageCore`] recovers, then serves.
//! * [`serving`]: the turn: what a core does with each input and at the end of a turn.
//! * [`requests`]: routers' requests. [`peers`]: other cores' frames; [`messages`] their bodies.
//! * [`hand_over`]: leaderships that are given away.
//! * [`heartbeats`]: leases, one frame per pair of cores, and groups at rest; [`roll`]: what that frame says.
//! * [`snapshots`]: partitions' states on their way to peers; [`receive`]: on their way from one.
//! * [`repair`]: damaged pages, built anew from what peers hold.
//! * [`scrub`]: whether what is on disk is still whole. [`merged`]: memory that checkpoints give back.
//! * [`split`]: partitions that are split. [`members`]: groups that lost a member get another one.
//! * [`publish`]: what MemDS is told. [`status`]: what people are told.

pub mod hand_over;
pub mod heartbeats;
pub mod members;
pub mod merged;
pub mod messages;
pub mod peers;
pub mod publish;
pub mod receive;
pub mod repair;
pub mod requests;
pub mod roll;
pub mod scrub;
pub mod serving;
pub mod snapshots;
pub mod split;
pub mod status;

use crate::checkpoint::recovery::{Recovery, RecoveryStep};
use crate::config::CoreConfig;
use crate::group::answer_error;
use crate::operations::Owner;
use crate::partition::pending::Asker;
use crate::wal::block::LogIdentity;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::message::status::{CoreState, LogStatus, StatusAnswer, StorageStatus, TreeStatus};
use evenkeel_wire::turn::{Boot, DiskOperation, Effects, Endpoint, Halt, Input, Machine, Now};
use serving::Serving;

/// A storage core.
#[derive(Debug)]
pub struct StorageCore {
    config: CoreConfig,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was done yet; the buffers are for the log.
    New(Vec<AlignedBuffer>),
    /// Reading the files. Links that came up meanwhile are remembered.
    Recovering { recovery: Box<Recovery>, buffers: Vec<AlignedBuffer>, links: Vec<(Endpoint, Peer)> },
    /// At work.
    Serving(Box<Serving>),
    /// Stopped: the reason was given once.
    Halted,
}

impl StorageCore {
    /// A core that will recover from its files at its first wake-up. `buffers` are for its log; a door
    /// registers their memory with its ring.
    #[must_use]
    pub fn new(config: CoreConfig, buffers: Vec<AlignedBuffer>) -> Self {
        Self { config, phase: Phase::New(buffers) }
    }

    /// The core at work, for those who look inside: the simulator's checks and tests.
    #[must_use]
    pub fn serving(&self) -> Option<&Serving> {
        match &self.phase {
            Phase::Serving(serving) => Some(serving),
            Phase::New(_) | Phase::Recovering { .. } | Phase::Halted => None,
        }
    }

    /// Asks for a checkpoint in one of the next turns, if the core is at work.
    pub fn want_checkpoint(&mut self) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.want_checkpoint();
        }
    }

    /// Asks for a check of all trees, if the core is at work. Returns what
    /// [`checks`](evenkeel_wire::message::status::TreeStatus::checks) will have come to when it is done.
    pub fn want_check(&mut self) -> Option<u64> {
        match &mut self.phase {
            Phase::Serving(serving) => Some(serving.want_check()),
            Phase::New(_) | Phase::Recovering { .. } | Phase::Halted => None,
        }
    }

    fn identity(&self) -> LogIdentity {
        LogIdentity { incarnation: self.config.incarnation, core: self.config.core }
    }

    fn halt(&mut self, halt: Halt, out: &mut Effects) {
        out.halt = Some(halt);
        self.phase = Phase::Halted;
    }

    fn recover(&mut self, now: Now, input: Input<'_>, out: &mut Effects) {
        let identity = self.identity();
        let Phase::Recovering { recovery, links, .. } = &mut self.phase else {
            return;
        };
        match input {
            Input::Frame { from, header, .. } => self.answer_while_recovering(from, header, out),
            Input::Up { endpoint, peer } => links.push((endpoint, peer)),
            Input::Down { endpoint } => links.retain(|(other, _)| *other != endpoint),
            Input::Disk(completion) => match recovery.next(completion.outcome) {
                Ok(step) => self.take_step(now, identity, step, out),
                Err(error) => self.halt(Halt(format!("core {} cannot start: {error}", identity.core)), out),
            },
            Input::Wake => {}
            Input::Drain => out.drained = true,
        }
    }

    fn take_step(&mut self, now: Now, identity: LogIdentity, step: RecoveryStep, out: &mut Effects) {
        match step {
            RecoveryStep::Operation(file, action) => {
                out.disk.push(DiskOperation { id: Owner::Recovery.id(), file, action });
            }
            RecoveryStep::Done(recovered) => {
                let Phase::Recovering { buffers, links, .. } = &mut self.phase else {
                    return;
                };
                let (buffers, links) = (std::mem::take(buffers), std::mem::take(links));
                let mut serving =
                    Box::new(Serving::new(self.config.clone(), identity, *recovered, buffers, now));
                for (endpoint, peer) in links {
                    serving.link_up(endpoint, peer);
                }
                self.phase = Phase::Serving(serving);
            }
        }
    }

    fn answer_while_recovering(&self, from: Endpoint, header: Header, out: &mut Effects) {
        let asker = Asker::new(from, header.request);
        match header.kind {
            Kind::Status => {
                let status = StatusAnswer::Storage(StorageStatus {
                    node: self.config.node,
                    core: self.config.core,
                    incarnation: self.config.incarnation,
                    state: CoreState::Recovering,
                    groups: Vec::new(),
                    log: LogStatus::default(),
                    tree: TreeStatus::default(),
                    recovery: String::new(),
                });
                out.send(from, Header::new(Kind::StatusAnswer, header.request), &status);
            }
            kind if requests::is_request(kind) => {
                let message = "the core is reading its log; try again in a moment";
                answer_error(asker, &Problem::new(ErrorCode::Unavailable, message), out);
            }
            // What peers say is repeated by them.
            _ => {}
        }
    }
}

impl Machine for StorageCore {
    fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) {
        match &mut self.phase {
            Phase::New(buffers) => {
                let mut recovery = Box::new(Recovery::new(LogIdentity {
                    incarnation: self.config.incarnation,
                    core: self.config.core,
                }));
                let step = recovery.begin();
                let buffers = std::mem::take(buffers);
                self.phase = Phase::Recovering { recovery, buffers, links: Vec::new() };
                let identity = self.identity();
                self.take_step(now, identity, step, out);
                self.recover(now, input, out);
            }
            Phase::Recovering { .. } => self.recover(now, input, out),
            Phase::Serving(serving) => {
                if let Err(halt) = serving.step(now, input, out) {
                    self.halt(halt, out);
                }
            }
            Phase::Halted => {}
        }
    }

    fn end_turn(&mut self, now: Now, out: &mut Effects) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.end_turn(now, out);
        }
    }

    fn wake_at(&self) -> Boot {
        match &self.phase {
            Phase::New(_) => Boot(0),
            Phase::Recovering { .. } | Phase::Halted => Boot::NEVER,
            Phase::Serving(serving) => serving.wake_at(),
        }
    }
}
