//! What people are told.

use super::serving::Serving;
use crate::partition::pending::Asker;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::message::status::{CoreState, LogStatus, StatusAnswer, StorageStatus};
use evenkeel_wire::turn::{Boot, Effects};

impl Serving {
    pub(super) fn answer_status(&self, now: Boot, asker: Asker, out: &mut Effects) {
        let state = if self.draining_since.is_some() { CoreState::Draining } else { CoreState::Serving };
        let log = LogStatus {
            checkpoints: self.checkpointer.completed(),
            checkpointing: !self.checkpointer.may_begin(),
            ..self.log.status()
        };
        let status = StatusAnswer::Storage(StorageStatus {
            node: self.config.node,
            core: self.config.core,
            incarnation: self.config.incarnation,
            state,
            groups: self.groups.values().map(|group| group.status(now)).collect(),
            log,
            recovery: self.recovery_report.clone(),
        });
        out.send(asker.endpoint, Header::new(Kind::StatusAnswer, asker.request), &status);
    }
}
