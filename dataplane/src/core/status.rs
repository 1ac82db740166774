//! What people are told.

use super::serving::Serving;
use crate::btree::space::SpaceStatus;
use crate::partition::pending::Asker;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::message::status::{CoreState, LogStatus, StatusAnswer, StorageStatus, TreeStatus};
use evenkeel_wire::turn::{Boot, Effects};

impl Serving {
    pub(super) fn answer_status(&mut self, now: Boot, asker: Asker, out: &mut Effects) {
        self.wake_all();
        let state = if self.draining_since.is_some() { CoreState::Draining } else { CoreState::Serving };
        let status = StatusAnswer::Storage(StorageStatus {
            node: self.config.node,
            core: self.config.core,
            incarnation: self.config.incarnation,
            state,
            groups: self.groups.values().map(|group| group.status(now)).collect(),
            log: self.log_status(),
            tree: self.tree_status(),
            recovery: self.recovery_report.clone(),
        });
        out.send(asker.endpoint, Header::new(Kind::StatusAnswer, asker.request), &status);
    }

    /// What people are told of the log.
    #[must_use]
    pub fn log_status(&self) -> LogStatus {
        LogStatus {
            checkpoints: self.checkpointer.completed(),
            checkpointing: !self.checkpointer.may_begin(),
            ..self.log.status()
        }
    }

    /// What people are told of the trees.
    #[must_use]
    pub fn tree_status(&self) -> TreeStatus {
        let SpaceStatus { blocks, used, free, retired, loose } = self.store.space.status();
        let cache = self.store.cache.status();
        let (damage_found, damage_repaired) = self.store.damage_counts();
        TreeStatus {
            blocks,
            blocks_live: used - retired - loose,
            blocks_free: free,
            blocks_retired: retired,
            blocks_loose: loose,
            cache_bytes: cache.bytes as u64,
            cache_bytes_max: cache.capacity_bytes as u64,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_evictions: cache.evictions,
            page_reads: self.store.reads(),
            bytes_written: self.checkpointer.tree_bytes_written(),
            parked: self.store.parked_operations() as u64,
            damaged_pages: self.store.damaged_pages() as u64,
            damage_found,
            damage_repaired,
            checks: self.scrub.completed,
            blocks_swept: self.scrub.swept,
        }
    }
}
