//! What routers ask for, and where each kind of frame goes.

use super::heartbeats::Heartbeats;
use super::publish::generation_of;
use super::serving::Serving;
use crate::btree::lookup::Miss;
use crate::group::{Group, answer_error};
use crate::limits::HELD_PER_TURN;
use crate::partition::Stop;
use crate::partition::pending::Asker;
use crate::partition::waited::Waited;
use crate::partition::writes::WriteRequest;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::PeerRole;
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::message::access;
use evenkeel_wire::message::request::{Get, Query, Scan};
use evenkeel_wire::message::status::ScrubAnswer;
use evenkeel_wire::table::RouteHint;
use evenkeel_wire::timeline::Causes;
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Now};
use std::collections::BTreeMap;

/// Whether somebody waits for an answer to a frame of this kind.
#[must_use]
pub fn is_request(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Put
            | Kind::Get
            | Kind::Delete
            | Kind::Update
            | Kind::Query
            | Kind::Scan
            | Kind::CreateTable
            | Kind::DeleteTable
            | Kind::SplitTable
            | Kind::ListTables
            | Kind::Status
            | Kind::Scrub
    )
}

fn is_write(kind: Kind) -> bool {
    matches!(kind, Kind::Put | Kind::Delete | Kind::Update)
}

/// The group that a request was routed to, checked for its epoch, and awake.
pub(crate) fn routed<'a>(
    groups: &'a mut BTreeMap<PartitionId, Group>,
    heartbeats: &mut Heartbeats,
    header: Header,
) -> Result<&'a mut Group, Problem> {
    let partition = header.partition;
    let Some(group) = groups.get_mut(&partition) else {
        let message = format!("this core does not hold {partition}; look its route up again");
        return Err(Problem::new(ErrorCode::WrongPartition, message));
    };
    // Who asks may know of an older membership: that does no harm. A replica that knows of an older one than
    // who asks may have been replaced.
    let epoch = group.replica.committed_members().epoch;
    if header.epoch > epoch || !group.replica.takes_part() {
        let message =
            format!("{partition} is in membership epoch {epoch}, the request names {}", header.epoch);
        return Err(Problem::new(ErrorCode::StaleEpoch, message));
    }
    heartbeats.wake(group);
    Ok(group)
}

impl Serving {
    pub(super) fn on_frame(
        &mut self,
        now: Now,
        from: Endpoint,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) {
        let waited = Waited::arrived(&now, self.causes());
        let asker = Asker { endpoint: from, request: header.request, waited };
        self.execute(now, asker, header, body, out);
    }

    /// What every request meets that is taken up now.
    pub(super) fn causes(&self) -> Causes {
        Causes::NONE.with(Causes::CHECKPOINT, !self.checkpointer.may_begin())
    }

    /// Executes a frame, for the first time or again.
    pub(super) fn execute(&mut self, now: Now, asker: Asker, header: Header, body: &[u8], out: &mut Effects) {
        let from = asker.endpoint;
        let outcome: Result<(), Stop> = match header.kind {
            kind if is_write(kind) => self.on_write(now, asker, header, body, out),
            Kind::Get | Kind::Query | Kind::Scan => self.on_read(now, asker, header, body, out),
            Kind::CreateTable => self.on_create_table(now, asker, header, body, out).map_err(Stop::from),
            Kind::DeleteTable => self.on_delete_table(now, asker, header, body, out).map_err(Stop::from),
            Kind::SplitTable => self.on_split_table(now, asker, header, body, out).map_err(Stop::from),
            Kind::ListTables => self.on_list_tables(now, asker, header, body, out).map_err(Stop::from),
            Kind::Status => {
                self.answer_status(now.boot, asker, out);
                Ok(())
            }
            Kind::Scrub => {
                let answer = ScrubAnswer { checks: self.want_check() };
                out.send(from, Header::new(Kind::ScrubAnswer, header.request), &answer);
                Ok(())
            }
            _ => return self.on_peer_frame(now, from, header, body, out),
        };
        let refused = match outcome {
            Ok(()) => return,
            Err(Stop::Wait(miss)) => self.park(asker, header, body, miss),
            Err(Stop::Hold) => self.hold(now.boot, asker, header, body),
            Err(Stop::Refuse(problem)) => Err(problem),
        };
        if let Err(problem) = refused {
            let problem = self.add_hint(problem, header.partition);
            answer_error(asker, &problem, out);
        }
    }

    /// Whether writes wait for the checkpoint. Not for one that may itself have to wait for a repair: then
    /// they are taken while there is room, and refused when there is none.
    fn holds_writes(&self) -> bool {
        let goes_on = self.draining_since.is_none() && self.store.damaged_pages() == 0;
        goes_on && self.checkpointer.lags(&self.log)
    }

    /// Holds a request until the checkpoint has caught up with the log, or it is known who leads.
    fn hold(&mut self, now: Boot, mut asker: Asker, header: Header, body: &[u8]) -> Result<(), Problem> {
        let group = self.groups.get(&header.partition);
        asker.waited.met(if self.holds_writes() && is_write(header.kind) {
            Causes::HELD_BY_CHECKPOINT
        } else if group.is_some_and(|group| group.awaits_successor(now)) {
            Causes::HELD_BY_HAND_OVER
        } else {
            Causes::SPLIT
        });
        if self.store.hold(asker, header, body) {
            return Ok(());
        }
        let message = "too many requests of this core wait; try again in a moment";
        Err(Problem::new(ErrorCode::Overloaded, message))
    }

    /// Takes up requests that were held, as the checkpoint and hand-overs go on.
    pub(super) fn release_held(&mut self, now: Now, out: &mut Effects) {
        for _ in 0..HELD_PER_TURN.min(self.store.held()) {
            let writes_wait = self.holds_writes();
            let Some(parked) = self.store.take_held(|kind| !writes_wait || !is_write(kind)) else {
                return;
            };
            let mut asker = parked.asker;
            asker.waited.held(&now, self.causes());
            self.execute(now, asker, parked.header, &parked.body, out);
            self.store.unpark(parked);
        }
    }

    /// Parks a request until the pages that it misses have come.
    pub(super) fn park(
        &mut self,
        asker: Asker,
        header: Header,
        body: &[u8],
        mut miss: Miss,
    ) -> Result<(), Problem> {
        let needed = miss.pages[0];
        if let Some(fault) = self.store.damage(&needed) {
            self.found_damage(header.partition, needed, *miss.place, fault);
            let message = format!(
                "a page of {} is damaged ({fault}) and is being repaired from its peers; try again in a \
                 moment",
                header.partition
            );
            return Err(Problem::new(ErrorCode::Unavailable, message));
        }
        miss.pages.truncate(self.store.read_ahead_max());
        if self.store.park(asker, header, body, &miss.pages) {
            return Ok(());
        }
        let message = "too many operations of this core wait for pages; try again in a moment";
        Err(Problem::new(ErrorCode::Overloaded, message))
    }

    /// Only routers have validated what they send.
    fn check_router(&self, from: Endpoint) -> Result<(), Problem> {
        match self.peers.get(&from).map(|peer| peer.role) {
            Some(PeerRole::Router) => Ok(()),
            Some(PeerRole::Client | PeerRole::Memds | PeerRole::Storage) | None => {
                let message = "storage cores take requests from routers only; connect to a router";
                Err(Problem::new(ErrorCode::HandshakeRefused, message))
            }
        }
    }

    fn on_write(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Stop> {
        self.check_router(asker.endpoint)?;
        if self.holds_writes() {
            return Err(Stop::Hold);
        }
        self.check_room_for_writes()?;
        let request = WriteRequest::read(header.kind, body)?;
        let mut outputs = std::mem::take(&mut self.outputs);
        let pages = self.store.pages();
        let outcome = routed(&mut self.groups, &mut self.heartbeats, header)
            .map_err(Stop::from)
            .and_then(|group| group.write(now, asker, &request, &pages, out, &mut outputs));
        self.outputs = outputs;
        self.perform(header.partition, now, out);
        outcome
    }

    /// Whether the catalogue takes orders here.
    pub(crate) fn check_takes_orders(&self) -> Result<(), Problem> {
        if self.draining_since.is_some() {
            let message = "this core is shutting down and hands its leaderships over; try again in a moment";
            return Err(Problem::new(ErrorCode::ShuttingDown, message));
        }
        self.check_room_for_writes()
    }

    /// Whether the log has room for client writes.
    fn check_room_for_writes(&self) -> Result<(), Problem> {
        if !self.log.is_nearly_full() {
            return Ok(());
        }
        if self.checkpointer.is_full() {
            let message = "the disk is full: no checkpoint can be written, so the log cannot be recycled; \
                           free space on it";
            return Err(Problem::new(ErrorCode::StorageFull, message));
        }
        let message = "the log waits for a checkpoint; try again in a moment";
        Err(Problem::new(ErrorCode::Overloaded, message))
    }

    fn on_read(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Stop> {
        self.check_router(asker.endpoint)?;
        let group = routed(&mut self.groups, &mut self.heartbeats, header)?;
        let pages = self.store.pages();
        let range = match header.kind {
            Kind::Query => &access::<Query<'static>>(body)?.0,
            Kind::Scan => &access::<Scan<'static>>(body)?.0,
            _ => return group.get(now.boot, asker, access::<Get<'static>>(body)?, &pages, out),
        };
        if let Some(ahead) = group.page(now.boot, asker, range, &pages, out)? {
            let wanted = ahead.pages.len().min(self.store.read_ahead_max());
            self.store.read_ahead(&ahead.pages[..wanted]);
        }
        Ok(())
    }

    /// Adds who leads, as far as this core knows, to an error about routing.
    fn add_hint(&self, problem: Problem, partition: PartitionId) -> Problem {
        let about_routing =
            matches!(problem.code, ErrorCode::NotLeader | ErrorCode::StaleEpoch | ErrorCode::LeaderNotReady);
        let hint = if about_routing { self.route_hint(partition) } else { None };
        problem.with_hint(hint)
    }

    fn route_hint(&self, partition: PartitionId) -> Option<RouteHint> {
        let group = self.groups.get(&partition)?;
        let replica = &group.replica;
        let leader = replica.leader()?;
        let members = self.config.route_members(replica.config());
        let leader = members.into_iter().find(|member| member.node == leader)?;
        let generation = generation_of(replica);
        Some(RouteHint { partition, generation, leader })
    }

    /// Whether this core leads a partition and may serve.
    pub(crate) fn is_ready(&self, partition: PartitionId, now: Boot) -> bool {
        self.groups.get(&partition).is_some_and(|group| self.may_serve(group, now))
    }
}
