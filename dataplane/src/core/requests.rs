//! What routers ask for, and where each kind of frame goes.

use super::serving::Serving;
use crate::group::{Group, answer_error};
use crate::partition::pending::Asker;
use crate::partition::writes::WriteRequest;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::PeerRole;
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::message::access;
use evenkeel_wire::message::request::{Get, Query, Scan};
use evenkeel_wire::table::{RouteGeneration, RouteHint};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Now};

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
            | Kind::ListTables
            | Kind::Status
    )
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
        let asker = Asker { endpoint: from, request: header.request };
        let outcome = match header.kind {
            Kind::Put | Kind::Delete | Kind::Update => self.on_write(now, asker, header, body, out),
            Kind::Get | Kind::Query | Kind::Scan => self.on_read(now, asker, header, body, out),
            Kind::CreateTable => self.on_create_table(now, asker, header, body, out),
            Kind::DeleteTable => self.on_delete_table(now, asker, header, body, out),
            Kind::ListTables => self.on_list_tables(now, asker, header, body, out),
            Kind::Status => {
                self.answer_status(now.boot, asker, out);
                Ok(())
            }
            _ => return self.on_peer_frame(now, from, header, body, out),
        };
        if let Err(problem) = outcome {
            let problem = self.add_hint(problem, header.partition);
            answer_error(asker, &problem, out);
        }
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

    /// The group that a request was routed to, checked for its epoch.
    pub(crate) fn routed_group(&mut self, header: Header) -> Result<&mut Group, Problem> {
        let partition = header.partition;
        let Some(group) = self.groups.get_mut(&partition) else {
            let message = format!("this core does not hold {partition}; look its route up again");
            return Err(Problem::new(ErrorCode::WrongPartition, message));
        };
        let epoch = group.replica.epoch();
        if header.epoch != epoch {
            let message =
                format!("{partition} is in membership epoch {epoch}, the request names {}", header.epoch);
            return Err(Problem::new(ErrorCode::StaleEpoch, message));
        }
        Ok(group)
    }

    fn on_write(
        &mut self,
        now: Now,
        asker: Asker,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        self.check_router(asker.endpoint)?;
        self.check_room_for_writes()?;
        let request = WriteRequest::read(header.kind, body)?;
        let mut outputs = std::mem::take(&mut self.outputs);
        let outcome =
            self.routed_group(header).and_then(|group| group.write(now, asker, &request, out, &mut outputs));
        self.outputs = outputs;
        self.perform(header.partition, now, out);
        outcome
    }

    /// Whether the log has room for client writes.
    pub(crate) fn check_room_for_writes(&self) -> Result<(), Problem> {
        if self.draining_since.is_some() {
            let message = "this core is shutting down and hands its leaderships over; try again in a moment";
            return Err(Problem::new(ErrorCode::ShuttingDown, message));
        }
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
    ) -> Result<(), Problem> {
        self.check_router(asker.endpoint)?;
        let group = self.routed_group(header)?;
        match header.kind {
            Kind::Query => group.page(now.boot, asker, &access::<Query<'static>>(body)?.0, out),
            Kind::Scan => group.page(now.boot, asker, &access::<Scan<'static>>(body)?.0, out),
            _ => {
                let get = access::<Get<'static>>(body)?;
                group.get(now.boot, asker, &get.key, get.strong, out)
            }
        }
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
        let generation = RouteGeneration { epoch: replica.epoch(), ballot: replica.promised() };
        Some(RouteHint { partition, generation, leader })
    }

    /// Whether this core leads a partition and may serve.
    pub(crate) fn is_ready(&self, partition: PartitionId, now: Boot) -> bool {
        self.groups.get(&partition).is_some_and(|group| group.is_ready(now))
    }
}
