//! A group on this core: its replica and its partition, joined.
//!
//! The replica says what is committed; the partition applies it and knows who waits for it. Requests come in
//! here, and answers leave from here; records and messages go through [`Output`]s to the core.

mod milestones;
mod staged;
mod status;

pub use staged::Staged;

use crate::btree::lookup::{Miss, Pages};
use crate::btree::space::LoosePages;
use crate::checkpoint::writer::GroupImage;
use crate::limits::{ENTRIES_SEEN_AHEAD, GROUP_LOG_BYTES_KEPT, HAND_OVER_PATIENCE};
use crate::partition::Stop;
use crate::partition::pending::{Asker, Pending};
use crate::partition::reads;
use crate::partition::sessions::{Outcome, Returned};
use crate::partition::state::{Applied, State};
use crate::partition::waited::{Agreed, Durable, Milestones, Moment};
use crate::partition::writes::{Decision, WriteRequest};
use crate::paxos::{Message, Output, Replica, Seed};
use crate::planted::{self, Planted};
use crate::wal::record::{Record, RecordBody};
use bytes::Bytes;
use evenkeel_wire::entry::{Entry, EntryKind, Refusal, Split, Write};
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{Ballot, CoreId, NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::message::request::{ArchivedGet, ArchivedRange, Position, Row, WriteAnswer};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::GroupConfig;
use evenkeel_wire::timeline::{Causes, Packed, Stage, Timeline};
use evenkeel_wire::turn::{Boot, Effects, Now};
use std::borrow::Cow;
use std::ops::Deref;

/// A group that a split made, for the core to take in.
#[derive(Clone, Debug)]
pub struct Born {
    /// Who and what it is.
    pub config: GroupConfig,
    /// What it begins with.
    pub state: State,
    /// This replica's log begins before the split, but it knows of later memberships: it is a learner that
    /// was told of them. Its core may have had the group before, and have thrown away what it accepted then.
    pub forgetful: bool,
}

/// A replica with its partition.
#[derive(Clone, Debug)]
pub struct Group {
    /// The replica.
    pub replica: Replica,
    /// A snapshot that waits to become durable.
    pub staged: Option<Staged>,
    /// Pages of states that will not be installed, to be freed.
    pub given_up: Vec<LoosePages>,
    /// Since when the core does nothing for this group until it is woken (`core/heartbeats.rs`).
    pub(crate) resting_since: Option<Boot>,
    state: State,
    pending: Pending,
    /// A split that is proposed and not yet applied, and the first key that will not be here any more.
    splitting: Option<(Slot, Bytes)>,
    /// See [`give_tree_up`](Self::give_tree_up).
    tree_given_up: bool,
    /// See [`expect`](Self::expect).
    arriving: Option<Slot>,
    born: Vec<Born>,
    /// The ballot whose leader gives its leadership away, here or to this replica, and until when requests
    /// wait for who succeeds it.
    successor_of: Option<(Ballot, Boot)>,
    /// The ballot for which the core last hurried to ask for a lease.
    lease_wanted: Ballot,
    milestones: Milestones,
    /// The record that was last found durable: when it was appended, and how long that took.
    last_settled: Option<(Moment, Durable)>,
}

impl Group {
    /// A group from what recovery found, or a new one.
    #[must_use]
    pub fn new(seed: Seed, state: State, node: NodeId, now: Boot, prng: Prng) -> Self {
        let replica = Replica::new(seed, node, now, prng);
        let mut group = Self {
            replica,
            staged: None,
            given_up: Vec::new(),
            resting_since: None,
            state,
            pending: Pending::default(),
            splitting: None,
            tree_given_up: false,
            arriving: None,
            born: Vec::new(),
            successor_of: None,
            lease_wanted: Ballot::ZERO,
            milestones: Milestones::default(),
            last_settled: None,
        };
        while let Some(entry) = group.next_committed() {
            group.apply(&entry);
        }
        group
    }

    /// The group is on this core.
    #[must_use]
    pub fn on_core(self, core: CoreId) -> Self {
        Self { replica: self.replica.on_core(core), ..self }
    }

    /// Applies the next entry. Returns what a write led to.
    fn apply(&mut self, entry: &Entry) -> Option<Outcome> {
        match self.state.apply(entry) {
            Applied::Nothing => None,
            Applied::Written { outcome } => Some(outcome),
            Applied::Split { split, at, child } => {
                let known = self.replica.memberships().at(at.slot).epoch;
                let config = self.replica.divide(&split, at);
                let forgetful = known > config.epoch && !planted::active(Planted::LearnerVotes);
                self.born.push(Born { config, state: *child, forgetful });
                None
            }
        }
    }

    /// The groups that splits made since the last call, in their order.
    pub fn take_born(&mut self) -> Vec<Born> {
        std::mem::take(&mut self.born)
    }

    /// The applied state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether nobody waits for anything here.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    fn next_committed(&self) -> Option<Entry> {
        if self.stands_still() {
            return None;
        }
        let next = self.state.slot().next();
        let until = if self.state.log_only { self.replica.settled() } else { self.replica.commit() };
        (next <= until).then(|| self.replica.log().get(next).cloned()).flatten()
    }

    /// Whether writes and strong reads may be served now: the replica may, and all that it had inherited is
    /// applied. In the turn in which its first entry commits, it is not yet.
    #[must_use]
    pub fn is_ready(&self, now: Boot) -> bool {
        self.is_ready_with(now, |_| None)
    }

    /// As [`is_ready`](Self::is_ready), when some members' grants count from later on than the replica has
    /// been told.
    #[must_use]
    pub fn is_ready_with(&self, now: Boot, renewed_at: impl Fn(NodeId) -> Option<Boot>) -> bool {
        let applied = self.state.slot();
        self.replica.is_ready_with(now, renewed_at)
            && self.replica.leads_from().is_some_and(|first| applied >= first)
    }

    /// Whether nothing is left to be done here but to renew leases.
    #[must_use]
    pub fn is_at_rest(&self, now: Boot) -> bool {
        let applied = self.state.slot() == self.replica.commit();
        let divided = self.splitting.is_none() && self.born.is_empty();
        let quiet = self.pending.is_empty() && self.staged.is_none();
        self.replica.is_at_rest(now) && applied && quiet && divided
    }

    /// Whether a write or strong read may be served now.
    ///
    /// # Errors
    /// When this replica does not lead, or may not serve yet.
    pub fn check_ready(&self, now: Boot) -> Result<(), Problem> {
        if self.is_ready(now) {
            return Ok(());
        }
        let partition = self.replica.partition();
        if self.replica.is_leader() {
            let message = format!("the new leader of {partition} waits until no older lease can be alive");
            return Err(Problem::new(ErrorCode::LeaderNotReady, message));
        }
        Err(Problem::new(ErrorCode::NotLeader, format!("this replica does not lead {partition}")))
    }

    /// Requests wait from now on: the leader of `ballot` is about to give its leadership away, or has given
    /// it to this replica.
    pub fn await_successor(&mut self, now: Boot, ballot: Ballot) {
        self.successor_of = Some((ballot, now.after(HAND_OVER_PATIENCE)));
    }

    /// Whether requests wait here for who will lead next.
    #[must_use]
    pub fn awaits_successor(&self, now: Boot) -> bool {
        let Some((ballot, until)) = self.successor_of else {
            return false;
        };
        let replica = &self.replica;
        let is_known = replica.promised() > ballot && replica.leader().is_some();
        now < until && (!is_known || (replica.is_leader() && !self.is_ready(now)))
    }

    /// A member said something (see [`Replica::receive`]), and how long its log took. If it has given its
    /// leadership to this replica, requests wait until this one serves.
    pub fn receive(
        &mut self,
        now: Boot,
        from: NodeId,
        message: Message,
        timeline: Packed,
        outputs: &mut Vec<Output>,
    ) {
        let (ballot, handed) = (self.replica.promised(), matches!(message, Message::HandOver(_)));
        let commit = self.replica.commit();
        self.replica.receive(now, from, message, outputs);
        if self.replica.commit() > commit && !self.pending.is_empty() {
            let told = timeline.unpack();
            let kept_ns = told.get(Stage::RunQueue);
            let log_ns = told.total() - told.get(Stage::CoreQueue);
            let was_kept = 2 * kept_ns > log_ns;
            let through = self.replica.commit();
            self.milestones.agreed(Agreed { through, node: from, log_ns, was_kept });
        }
        if handed && self.replica.is_candidate() {
            self.await_successor(now, ballot);
        }
    }

    /// Gives the leadership away, if nobody waits for a write and a follower has everything. Returns whether
    /// that was done.
    pub fn hand_over(&mut self, now: Boot, outputs: &mut Vec<Output>) -> bool {
        self.is_quiet() && self.replica.hand_over(now, outputs)
    }

    /// Whether this replica leads under a ballot for which nobody was asked for a lease yet; says so once.
    pub(crate) fn wants_lease(&mut self) -> bool {
        let ballot = self.replica.promised();
        self.replica.is_leader() && std::mem::replace(&mut self.lease_wanted, ballot) != ballot
    }

    fn check_serves(&self, now: Boot, is_write: bool) -> Result<(), Stop> {
        if self.awaits_successor(now) && (is_write || !self.is_ready(now)) {
            return Err(Stop::Hold);
        }
        Ok(self.check_ready(now)?)
    }

    fn check_key(&self, key: &[u8]) -> Result<(), Problem> {
        if self.replica.config().contains(key) || planted::active(Planted::ServeMovedKeys) {
            return Ok(());
        }
        let message = format!("the key is not in {}; look its route up again", self.replica.partition());
        Err(Problem::new(ErrorCode::WrongPartition, message))
    }

    /// A client's write.
    ///
    /// # Errors
    /// When it is not done; the caller answers with the error.
    pub fn write(
        &mut self,
        now: Now,
        asker: Asker,
        request: &WriteRequest<'_>,
        pages: &Pages<'_>,
        out: &mut Effects,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Stop> {
        self.check_serves(now.boot, true)?;
        self.check_key(request.key)?;
        if self.splitting.as_ref().is_some_and(|(_, border)| *request.key >= **border) {
            // No write of the child's keys may stand behind the split.
            return Err(Stop::Hold);
        }
        let timestamp = self.replica.next_timestamp(now.wall_ms);
        match request.decide(&self.state, pages, &self.pending, timestamp)? {
            Decision::Propose(write) => {
                let slot = append(&mut self.replica, timestamp, &write, outputs);
                self.proposed(slot, Some(asker));
            }
            Decision::Repeated(outcome) => self.answer_write(asker, asker.waited.timeline(), &outcome, out),
            Decision::Await(slot) => self.pending.park(slot, asker, request.token)?,
        }
        Ok(())
    }

    /// Proposes a write, for which `asker` waits.
    pub fn propose(
        &mut self,
        timestamp: u64,
        asker: Option<Asker>,
        write: &Write,
        outputs: &mut Vec<Output>,
    ) -> Slot {
        let slot = append(&mut self.replica, timestamp, write, outputs);
        self.proposed(slot, asker);
        slot
    }

    /// Proposes to give the keys from `border` on to `child`.
    ///
    /// # Errors
    /// When this replica may not serve, is being split already, or has no such keys.
    pub fn split(
        &mut self,
        now: Now,
        child: PartitionId,
        border: Bytes,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Problem> {
        self.check_ready(now.boot)?;
        let config = self.replica.config();
        if self.splitting.is_some() {
            let message = format!("{} is just being split; try again in a moment", config.partition);
            return Err(Problem::new(ErrorCode::Overloaded, message));
        }
        if !config.can_divide_at(&border) {
            let message = format!("the key is not within {}, or is its first", config.partition);
            return Err(Problem::new(ErrorCode::Validation, message));
        }
        let (division, end) = (config.division + 1, Bytes::copy_from_slice(&config.end));
        let members = self.replica.memberships().latest().clone();
        let split = Split { child, division, border: border.clone(), end, members };
        let timestamp = self.replica.next_timestamp(now.wall_ms);
        let encode = |out: &mut Vec<u8>| split.encode(out);
        let slot = self.replica.propose(EntryKind::Split, timestamp, split.encoded_bytes(), encode, outputs);
        self.splitting = Some((slot, border));
        Ok(())
    }

    /// Notes a write that was just proposed. It is kept as the entry has it, without a copy.
    fn proposed(&mut self, slot: Slot, asker: Option<Asker>) {
        let entry = self.replica.log().get(slot).expect("it was just appended");
        self.pending.proposed(entry, asker);
    }

    /// A client's get.
    ///
    /// # Errors
    /// When it cannot be answered here.
    pub fn get(
        &self,
        now: Boot,
        asker: Asker,
        get: &ArchivedGet<'static>,
        pages: &Pages<'_>,
        out: &mut Effects,
    ) -> Result<(), Stop> {
        self.check_readable(now, get.strong)?;
        self.check_key(&get.key)?;
        let answer = reads::get(&self.state, pages, self.replica.config(), &get.key)?;
        out.send(asker.endpoint, self.answer_header(Kind::GetAnswer, asker), &answer);
        Ok(())
    }

    /// A client's query or scan. Returns the pages that the next one will want.
    ///
    /// # Errors
    /// When it cannot be answered here.
    pub fn page(
        &self,
        now: Boot,
        asker: Asker,
        range: &ArchivedRange<'static>,
        pages: &Pages<'_>,
        out: &mut Effects,
    ) -> Result<Option<Miss>, Stop> {
        self.check_readable(now, range.strong)?;
        let (answer, ahead) = reads::page(&self.state, pages, self.replica.config(), range)?;
        out.send(asker.endpoint, self.answer_header(Kind::PageAnswer, asker), &answer);
        Ok(ahead)
    }

    fn check_readable(&self, now: Boot, strong: bool) -> Result<(), Stop> {
        if strong {
            return self.check_serves(now, false);
        }
        if self.state.log_only {
            let message = "this replica holds the log of its group only; ask another one";
            return Err(Problem::new(ErrorCode::Unavailable, message).into());
        }
        if self.gives_tree_up() {
            let message = "this replica is being replaced by a newer state; ask another one";
            return Err(Problem::new(ErrorCode::Unavailable, message).into());
        }
        if self.replica.is_refilling() {
            let message = "this replica is being refilled after damage; ask another one";
            return Err(Problem::new(ErrorCode::Unavailable, message).into());
        }
        Ok(())
    }

    fn answer_header(&self, kind: Kind, asker: Asker) -> Header {
        let timeline = asker.waited.timeline().pack();
        Header { timeline, ..self.header_to(kind, asker) }
    }

    fn header_to(&self, kind: Kind, asker: Asker) -> Header {
        Header::new(kind, asker.request).to_partition(self.replica.partition(), self.replica.epoch())
    }

    fn answer_write(&self, asker: Asker, timeline: Timeline, outcome: &Outcome, out: &mut Effects) {
        let timeline = timeline.pack();
        if let Some(Refusal { code, message }) = &outcome.refused {
            let answer = ErrorAnswer::from(&Problem::new(*code, message.as_str()));
            let header = Header { timeline, ..Header::new(Kind::Error, asker.request) };
            return out.send(asker.endpoint, header, &answer);
        }
        let item = outcome
            .returned
            .as_ref()
            .map(|Returned { checksum, archive }| Row { checksum: *checksum, item: Cow::Borrowed(archive) });
        let position = Position { partition: self.replica.partition(), slot: outcome.slot };
        let answer = WriteAnswer { position, timestamp: outcome.timestamp, item };
        out.send(asker.endpoint, Header { timeline, ..self.header_to(Kind::WriteAnswer, asker) }, &answer);
    }

    /// Applies what is committed, and answers whoever waits for it: they have met `causes` meanwhile. Returns
    /// whether an item was written.
    pub fn apply_committed(&mut self, now: Now, causes: Causes, out: &mut Effects) -> bool {
        let mut changed = false;
        self.follow_log();
        let mut seen = self.state.slot();
        while let Some(entry) = self.next_committed() {
            if entry.header.slot > seen && !self.state.log_only {
                seen = self.look_ahead(entry.header.slot);
            }
            let written = self.apply(&entry);
            let asker = self.pending.applied(entry.header.slot);
            self.splitting = self.splitting.take().filter(|(slot, _)| *slot > entry.header.slot);
            if let Some(outcome) = written {
                changed = true;
                if let Some(mut asker) = asker {
                    asker.waited.met(causes);
                    let (durable, agreed) = self.milestones.of(entry.header.slot);
                    let durable = durable.filter(|durable| durable.through >= entry.header.slot);
                    let timeline = asker.waited.written(durable, agreed, &now);
                    self.answer_write(asker, timeline, &outcome, out);
                }
            }
        }
        while let Some((asker, token)) = self.pending.unpark(self.state.slot()) {
            match self.state.sessions.find(&token) {
                Some(outcome) => self.answer_write(asker, asker.waited.repeated(&now), outcome, out),
                None => answer_error(asker, &outcome_unknown(), out),
            }
        }
        self.replica.applied(self.state.slot());
        let applied = self.state.slot();
        let unneeded = self.arriving.map_or(applied, |arriving| arriving.min(applied));
        self.replica.trim(unneeded, GROUP_LOG_BYTES_KEPT);
        changed
    }

    /// Reads what the next entries from `first` on will touch, unless there is one only, and returns the last
    /// of them.
    fn look_ahead(&self, first: Slot) -> Slot {
        let last = self.replica.commit().min(Slot(first.0 + ENTRIES_SEEN_AHEAD as u64 - 1));
        if last == first {
            return last;
        }
        let entries = (first.0..=last.0).filter_map(|slot| self.replica.log().get(Slot(slot)));
        let writes = entries.filter(|entry| entry.header.kind == EntryKind::Write);
        self.state.tree.look_ahead(writes.filter_map(|entry| entry.write().ok()).map(|write| write.key));
        last
    }

    /// A log replica's log has begun anew, behind what it lacked.
    fn follow_log(&mut self) {
        let log = self.replica.log();
        if self.state.log_only && log.base().slot > self.state.slot() {
            self.state.applied = log.base();
            self.state.applied_ballot = log.base_ballot();
        }
    }

    /// Items come to a log replica, as of this slot: entries behind it are kept until they are here. None: no
    /// more.
    pub fn expect(&mut self, slot: Option<Slot>) {
        self.arriving = slot.filter(|_| self.state.log_only);
    }

    /// Whether items are expected.
    #[must_use]
    pub fn expects_items(&self) -> bool {
        self.arriving.is_some()
    }

    /// Bytes of the log that a log replica must keep, beyond what every replica keeps.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let kept = self.replica.log().bytes().saturating_sub(GROUP_LOG_BYTES_KEPT);
        if self.state.log_only { kept } else { 0 }
    }

    /// This replica lost its leadership: nobody will be answered from here.
    pub fn abandon(&mut self, out: &mut Effects) {
        self.splitting = None;
        self.milestones.clear();
        for asker in self.pending.abandon() {
            answer_error(asker, &outcome_unknown(), out);
        }
    }

    /// What a checkpoint must hold of this group: its state record, what is accepted and not applied, and its
    /// state.
    #[must_use]
    pub fn image(&mut self) -> GroupImage {
        let is_held_back = self.holds_snapshot_back();
        if let Some(Staged { config, mut state, pages, .. }) = self.staged.take_if(|_| !is_held_back) {
            if self.needs(&state) {
                freeze(&mut state);
                let group = self.state_record(config.clone(), &state);
                // A log replica's log goes on behind the items that have come.
                let open = if self.state.log_only { self.open_after(&state) } else { Vec::new() };
                let (staged, loose) = (state.clone(), pages.clone());
                self.staged = Some(Staged { config, state: staged, pages, in_checkpoint: true });
                return GroupImage { group, open, state, loose };
            }
            self.replica.confirm(state.applied);
            self.given_up.push(pages);
        }
        let open = self.open_after(&self.state);
        freeze(&mut self.state);
        let group = self.state_record(self.replica.config_at(self.state.slot()), &self.state);
        GroupImage { group, open, state: self.state.clone(), loose: LoosePages::default() }
    }

    /// Records of what is accepted and not in `state`, if this log goes on behind that.
    fn open_after(&self, state: &State) -> Vec<Record> {
        let log = self.replica.log();
        let goes_on = log.point(state.slot()) == Some(state.applied);
        let open = log.after(state.slot()).filter(|_| goes_on);
        open.map(|entry| self.replica.record(RecordBody::Entry(entry.clone()))).collect()
    }

    fn state_record(&self, config: GroupConfig, state: &State) -> Record {
        self.replica.state_record(config, state)
    }

    /// The tree was counted: it holds so many more items and bytes than its version says.
    pub fn recount(&mut self, items: i64, bytes: i64) {
        self.state.tree.recount(items, bytes);
    }

    /// Whether what is in the tree is all that is applied, and may be given to others.
    #[must_use]
    pub fn can_read_items(&self) -> bool {
        !self.state.log_only && !self.replica.is_refilling() && !self.gives_tree_up()
    }

    /// The applied state, and the record that tells of what group it is.
    #[must_use]
    pub fn snapshot(&self) -> (Record, State) {
        (self.state_record(self.replica.config_at(self.state.slot()), &self.state), self.state.clone())
    }

    /// The point up to which the state is applied, and its entry's ballot.
    #[must_use]
    pub fn applied(&self) -> (LogPoint, Ballot) {
        (self.state.applied, self.state.applied_ballot)
    }
}

fn append<B: Deref<Target = [u8]>>(
    replica: &mut Replica,
    timestamp: u64,
    write: &Write<B>,
    outputs: &mut Vec<Output>,
) -> Slot {
    let encode = |out: &mut Vec<u8>| write.encode(out);
    replica.propose(EntryKind::Write, timestamp, write.encoded_bytes(), encode, outputs)
}

/// Hands what was written over to the checkpoint that begins.
fn freeze(state: &mut State) {
    if !state.tree.is_resident() {
        state.tree.freeze();
    }
}

fn outcome_unknown() -> Problem {
    let message =
        "the leader changed while the write was under way; repeat it with the same token to learn its fate";
    Problem::new(ErrorCode::OutcomeUnknown, message)
}

/// Answers with an error.
pub fn answer_error(asker: Asker, problem: &Problem, out: &mut Effects) {
    let timeline = asker.waited.timeline().pack();
    let header = Header { timeline, ..Header::new(Kind::Error, asker.request) };
    out.send(asker.endpoint, header, &ErrorAnswer::from(problem));
}
