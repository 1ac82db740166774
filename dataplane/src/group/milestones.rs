//! What a group notes of how far its entries came, for those who wait for them and for its leader.

use super::Group;
use crate::partition::waited::{Agreed, Durable, Moment};
use crate::paxos::Output;
use crate::wal::writer::LogWrite;
use evenkeel_wire::timeline::{Packed, Timeline};
use evenkeel_wire::turn::Now;

impl Group {
    /// The oldest record that is not yet durable has become so (see `Replica::persisted`): one that was
    /// appended in the turn `appended`.
    pub fn persisted(&mut self, now: Now, appended: Moment, write: LogWrite, outputs: &mut Vec<Output>) {
        let commit = self.replica.commit();
        self.replica.persisted(now.boot, outputs);
        let LogWrite { issued_in, submitted } = write;
        let durable = Durable { through: self.replica.durable(), at: Moment::of(&now), issued_in, submitted };
        self.last_settled = Some((appended, durable));
        if self.pending.is_empty() {
            return;
        }
        self.milestones.durable(durable);
        if self.replica.commit() > commit {
            let (through, node) = (self.replica.commit(), self.replica.node());
            self.milestones.agreed(Agreed { through, node, log_ns: 0, was_kept: false });
        }
    }

    /// What this replica says of how long its log took, when it acknowledges entries that have just become
    /// durable.
    #[must_use]
    pub fn log_took(&self, now: &Now) -> Packed {
        let Some((appended, durable)) = self.last_settled.filter(|(_, last)| last.at == Moment::of(now))
        else {
            return Packed::NONE;
        };
        let mut timeline = Timeline::default();
        durable.add_to(&mut timeline, appended);
        timeline.pack()
    }
}
