//! A request's way through a router. `Router::route` reads top to bottom: admit, look the route up in the
//! cache, enqueue the same look-up to MemDS hit or miss, forward.
//!
//! Everything behind it is about what happens when that does not suffice: a miss waits for the first of two
//! answers; a wrongly contacted core answers with what it knows, and the request goes out once more; a link
//! that breaks counts like a wrong contact, because the token in a write makes a second attempt safe.
//!
//! # Invariant
//!
//! Once an attempt of a write went unanswered, the request ends with its answer, with an error that the
//! partition decided on the write's token, or with an error that says that the outcome is unknown: never with
//! one that claims that the write had no effect.

use crate::batch::{Batches, PartAnswer, take_apart};
use crate::cache::{Cache, CacheMode, Routed};
use crate::edge::{self, Wanted};
use crate::flight::{Asker, Flight, FlightId, Flights, Stage};
use crate::journey::{Journey, Turns};
use crate::limits::{ATTEMPTS_MAX, LOOKUP_PATIENCE, PATIENCE};
use crate::lookups::{Lookups, Waiting};
use crate::recorder::Recorder;
use bytes::Bytes;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::message::catalog::TableAnswer;
use evenkeel_wire::message::routing::{
    ArchivedLookupAnswer, ArchivedLookupOutcome, LookupAnswer, LookupKey, TableKey,
};
use evenkeel_wire::message::status::{RouterStatus, StatusAnswer, TopologyAnswer};
use evenkeel_wire::message::tail::Tail;
use evenkeel_wire::message::{access, to_owned};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::RouteMember;
use evenkeel_wire::timeline::{self, Causes};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Input, Machine, Now};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// What a router is told when it starts.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// All MemDS servers.
    pub memds: Vec<SocketAddr>,
    /// What it answers to those who ask where everything is.
    pub topology: TopologyAnswer,
    /// What its cache does.
    pub cache: CacheMode,
    /// Seeds its generator.
    pub seed: u64,
}

/// A router core.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    cache: Cache,
    lookups: Lookups,
    flights: Flights,
    batches: Batches,
    prng: Prng,
    status: RouterStatus,
    turns: Turns,
    recorder: Recorder,
    draining: bool,
}

impl Router {
    /// A router with an empty cache.
    #[must_use]
    pub fn new(config: RouterConfig) -> Self {
        let mut prng = Prng::new(config.seed);
        Self {
            cache: Cache::new(config.cache),
            lookups: Lookups::new(&config.memds, prng.next_u64()),
            flights: Flights::default(),
            batches: Batches::default(),
            prng,
            status: RouterStatus::default(),
            turns: Turns::default(),
            recorder: Recorder::new(!config.seed),
            draining: false,
            config,
        }
    }

    /// Counters for people.
    #[must_use]
    pub fn status(&self) -> RouterStatus {
        RouterStatus {
            lookups: self.lookups.sent(),
            cached: self.cache.len() as u64,
            in_flight: self.flights.len() as u64,
            ..self.status
        }
    }

    /// The way of one request of one key.
    fn route(&mut self, now: Boot, request: NewRequest, out: &mut Effects) -> Result<(), Problem> {
        // Admit.
        self.flights.admit(1, request.body.len())?;
        let wanted = edge::lookup_key(request.kind, &request.body)?;

        // Look the route up in the cache.
        let cached = self.look_up_cached(&wanted);
        // A request that has its route is looked at again when its time is over.
        let look_at = if cached.is_some() { request.deadline } else { now.after(LOOKUP_PATIENCE) };
        let id = self.take_off(request, wanted.clone(), look_at, cached.is_some());

        // The same look-up goes to MemDS, hit or miss.
        let waiting = cached.is_none().then_some(Waiting { flight: id, attempts: 0 });
        self.lookups.ask(wanted.key, waiting);

        // Forward.
        if let Some(routed) = cached {
            self.forward(now, id, routed, out);
        }
        Ok(())
    }

    fn look_up_cached(&mut self, wanted: &Wanted) -> Option<Routed> {
        let cached = match &wanted.key {
            LookupKey::At(TableKey { table, key }) => self.cache.at(*table, key),
            LookupKey::Below(TableKey { table, key }) => self.cache.below(*table, key),
            LookupKey::Name(_) => None,
        };
        self.status.keys += 1;
        match &cached {
            Some(_) => self.status.cache_hits += 1,
            None => self.status.cache_misses += 1,
        }
        cached
    }

    fn take_off(&mut self, request: NewRequest, wanted: Wanted, look_at: Boot, cached: bool) -> FlightId {
        let unanswered = self.lookups.servers();
        let mut journey = Journey::begin(&self.turns);
        if !cached {
            journey.met(Causes::ROUTE_MISS);
        }
        self.flights.insert(Flight {
            asker: request.asker,
            kind: request.kind,
            body: request.body,
            body_checksum: request.body_checksum,
            wanted,
            deadline: request.deadline,
            look_at: request.deadline.min(look_at),
            attempts: 0,
            outcome_unknown: false,
            stage: Stage::Lookup { unanswered, worst: None, wrong: None },
            journey,
        })
    }

    /// Sends a request to the core that serves it.
    fn forward(&mut self, now: Boot, id: FlightId, routed: Routed, out: &mut Effects) {
        let Some(flight) = self.flights.get(id) else {
            return;
        };
        if flight.attempts == 0
            && let Err(problem) = edge::validate(flight.kind, &flight.body, &routed.table)
        {
            return self.land(id, Err(problem), out);
        }
        let Some(member) = choose_member(flight, &routed, &mut self.prng) else {
            let message =
                format!("nobody is known to lead {}; try again in a moment", routed.route.partition);
            return self.land(id, Err(Problem::new(ErrorCode::NotLeader, message)), out);
        };
        let left_us = flight.deadline.since(now).as_micros().clamp(1, u128::from(u32::MAX)) as u32;
        let to = Endpoint::Outgoing(member.address.into());
        let header = Header { deadline_us: left_us, ..Header::new(flight.kind, RequestId(id.0)) }
            .to_partition(routed.route.partition, routed.route.generation.epoch);
        out.forward(to, header, &flight.body, flight.body_checksum);
        flight.attempts += 1;
        flight.journey.sent(&self.turns, routed.route.partition, routed.table.id, member);
        flight.stage = Stage::Forwarded { to, routed };
        let deadline = flight.deadline;
        self.flights.look_at(id, deadline);
    }

    /// The request goes out once more if it may: to whom the hint names, or to whom MemDS names now.
    fn retry(&mut self, now: Boot, id: FlightId, problem: Problem, out: &mut Effects) {
        let Some(flight) = self.flights.get(id) else {
            return;
        };
        let Stage::Forwarded { routed, .. } = flight.stage.clone() else {
            return;
        };
        flight.journey.spent(&self.turns, timeline::Stage::Attempts);
        if flight.attempts >= ATTEMPTS_MAX || now >= flight.deadline {
            return self.land(id, Err(problem), out);
        }
        self.status.redirected += 1;
        if let Some(hint) = &problem.hint
            && let Some(corrected) = self.cache.correct(&routed, hint)
        {
            return self.forward(now, id, corrected, out);
        }
        let unanswered = self.lookups.servers();
        flight.stage = Stage::Lookup { unanswered, worst: Some(problem.code), wrong: Some(routed) };
        let (key, deadline) = (flight.wanted.key.clone(), flight.deadline);
        let waiting = Waiting { flight: id, attempts: flight.attempts };
        self.lookups.ask(key, Some(waiting));
        self.flights.look_at(id, deadline.min(now.after(LOOKUP_PATIENCE)));
    }

    fn on_lookup_answer(
        &mut self,
        now: Boot,
        server: SocketAddr,
        request: RequestId,
        answer: &ArchivedLookupAnswer<'static>,
        out: &mut Effects,
    ) {
        let Some(waiting) = self.lookups.answered(server, request) else {
            return;
        };
        for (outcome, waiting) in answer.outcomes.iter().zip(waiting) {
            // By far the most answers say once more what is known.
            if waiting.is_none() && self.cache.knows(outcome) {
                continue;
            }
            let found = match outcome {
                ArchivedLookupOutcome::Route(route, table) => {
                    let (route, table) = (to_owned(route), to_owned(table));
                    let routed = Routed { table: Rc::new(table), route: Rc::new(route) };
                    self.cache.insert(&routed);
                    Ok(Found::Route(routed))
                }
                ArchivedLookupOutcome::Table(table) => {
                    Ok(Found::Table(Box::new(TableAnswer { table: to_owned(table) })))
                }
                ArchivedLookupOutcome::TableNotFound => Err(ErrorCode::TableNotFound),
                ArchivedLookupOutcome::RouteNotKnown(_) => Err(ErrorCode::NotLeader),
                ArchivedLookupOutcome::Warming => Err(ErrorCode::MetadataWarming),
            };
            if let Some(waiting) = waiting {
                self.take_outcome(now, waiting, found, out);
            }
        }
    }

    /// A server has refused a frame of look-ups: it will say nothing about their keys.
    fn on_lookup_error(&mut self, now: Boot, waiting: Vec<Option<Waiting>>, out: &mut Effects) {
        for waiting in waiting.into_iter().flatten() {
            self.take_outcome(now, waiting, Err(ErrorCode::Unavailable), out);
        }
    }

    /// One server has said what it knows about a key for which a request waits.
    fn take_outcome(
        &mut self,
        now: Boot,
        waiting: Waiting,
        found: Result<Found, ErrorCode>,
        out: &mut Effects,
    ) {
        let id = waiting.flight;
        let Some(Flight { stage: Stage::Lookup { unanswered, worst, wrong }, wanted, attempts, .. }) =
            self.flights.get(id)
        else {
            return;
        };
        // A late answer to the look-up before an attempt says nothing about the one after it.
        if *attempts != waiting.attempts {
            return;
        }
        *unanswered = unanswered.saturating_sub(1);
        match found {
            Ok(Found::Route(routed)) if is_better(&routed, wrong.as_ref()) => {
                return self.forward(now, id, routed, out);
            }
            Ok(Found::Table(table)) => return self.land(id, Ok(Landing::Table(table)), out),
            Ok(Found::Route(_)) => {}
            // "Warming" outweighs "not found": that server might know the table a moment later.
            Err(code) => *worst = (*worst).max(Some(code)),
        }
        if *unanswered == 0 {
            let code = worst.unwrap_or(ErrorCode::NotLeader);
            let problem = lookup_failed(code, &wanted.key);
            self.land(id, Err(problem), out);
        }
    }

    fn on_storage_answer(
        &mut self,
        now: Boot,
        from: Endpoint,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) {
        let id = FlightId(header.request.0);
        let sent_there = self
            .flights
            .get(id)
            .is_some_and(|flight| matches!(&flight.stage, Stage::Forwarded { to, .. } if *to == from));
        if !sent_there {
            return;
        }
        if header.kind != Kind::Error {
            self.note_answer(id, header);
            return self.land(id, Ok(Landing::Answer(header, body)), out);
        }
        let problem = match access::<ErrorAnswer>(body) {
            Ok(error) => Problem::from(error),
            Err(problem) => problem,
        };
        match problem.code {
            ErrorCode::NotLeader | ErrorCode::StaleEpoch | ErrorCode::WrongPartition => {
                self.retry(now, id, problem, out);
            }
            ErrorCode::ShuttingDown => {
                // That core is, not this router: the client is not to leave it.
                let problem = Problem { code: ErrorCode::NotLeader, ..problem };
                self.retry(now, id, problem, out);
            }
            _ => {
                self.note_answer(id, header);
                self.land(id, Err(problem), out);
            }
        }
    }

    /// The core has said where the time of a request went.
    fn note_answer(&mut self, id: FlightId, header: Header) {
        if let Some(flight) = self.flights.get(id) {
            flight.journey.answered(&self.turns, header.timeline);
        }
    }

    /// Answers a request, and forgets it.
    fn land(&mut self, id: FlightId, landing: Result<Landing<'_>, Problem>, out: &mut Effects) {
        let Some(mut flight) = self.flights.remove(id) else {
            return;
        };
        flight.journey.spent(&self.turns, flight.stage.spends());
        if let Err(problem) = &landing {
            self.note_error(problem, &flight);
        }
        let now = self.turns.now();
        let (failed, kind, journey) = (landing.is_err(), flight.kind as u16, &flight.journey);
        self.recorder.note(now.boot, journey.total_ns(), || journey.trace(kind, now.wall_ms, failed));
        let landing = landing.map_err(|problem| keep_unknown(&flight, problem));
        match (flight.asker, landing) {
            (Asker::Client(client, request), Ok(Landing::Answer(header, body))) => {
                let timeline = flight.journey.for_client();
                let header = Header { request, deadline_us: 0, timeline, ..header };
                out.forward(client, header, body, header.body_checksum);
            }
            (Asker::Client(client, request), Ok(Landing::Table(table))) => {
                out.send(client, Header::new(Kind::TableAnswer, request), &*table);
            }
            (Asker::Client(client, request), Err(problem)) => {
                out.send(client, Header::new(Kind::Error, request), &ErrorAnswer::from(&problem));
            }
            (Asker::Batch(batch, place), Ok(Landing::Answer(_, body))) => {
                let answer = PartAnswer::Answered(Bytes::copy_from_slice(body));
                self.batches.answer(batch, place, answer, out);
            }
            (Asker::Batch(batch, place), Err(problem)) => {
                let answer = PartAnswer::Failed(ErrorAnswer::from(&problem));
                self.batches.answer(batch, place, answer, out);
            }
            // Batches ask for items only.
            (Asker::Batch(..), Ok(Landing::Table(_))) => {}
        }
    }

    fn note_error(&mut self, problem: &Problem, flight: &Flight) {
        self.status.errors += 1;
        if problem.code == ErrorCode::TableNotFound
            && let LookupKey::At(asked) | LookupKey::Below(asked) = &flight.wanted.key
        {
            self.cache.forget_table(asked.table);
        }
    }

    fn on_frame(&mut self, now: Now, from: Endpoint, header: Header, body: &[u8], out: &mut Effects) {
        if let Endpoint::Outgoing(server) = from {
            return match header.kind {
                Kind::LookupAnswer => {
                    if let Ok(answer) = access::<LookupAnswer<'static>>(body) {
                        self.on_lookup_answer(now.boot, server, header.request, answer, out);
                    }
                }
                _ => match self.lookups.answered(server, header.request) {
                    Some(waiting) => self.on_lookup_error(now.boot, waiting, out),
                    None => self.on_storage_answer(now.boot, from, header, body, out),
                },
            };
        }
        let outcome = match header.kind {
            Kind::Status => {
                let status = StatusAnswer::Router(self.status());
                out.send(from, Header::new(Kind::StatusAnswer, header.request), &status);
                Ok(())
            }
            Kind::Topology => {
                let header = Header::new(Kind::TopologyAnswer, header.request);
                out.send(from, header, &self.config.topology);
                Ok(())
            }
            Kind::Tail => access::<Tail>(body).map(|tail| {
                let answer = self.recorder.answer(tail.from.into());
                out.send(from, Header::new(Kind::TailAnswer, header.request), &answer);
            }),
            _ => self.on_request(now.boot, from, header, body, out),
        };
        if let Err(problem) = outcome {
            self.status.errors += 1;
            self.status.overloaded += u64::from(problem.code == ErrorCode::Overloaded);
            out.send(from, Header::new(Kind::Error, header.request), &ErrorAnswer::from(&problem));
        }
    }

    fn on_request(
        &mut self,
        now: Boot,
        from: Endpoint,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        self.status.requests += 1;
        if self.draining {
            let message = "this router is shutting down; connect to another one";
            return Err(Problem::new(ErrorCode::ShuttingDown, message));
        }
        let patience = match header.deadline_us {
            0 => PATIENCE,
            left_us => Duration::from_micros(left_us.into()),
        };
        let deadline = now.after(patience);
        if matches!(header.kind, Kind::BatchGet | Kind::BatchWrite) {
            return self.route_batch(now, from, header, body, deadline, out);
        }
        let request = NewRequest {
            asker: Asker::Client(from, header.request),
            kind: header.kind,
            body: Bytes::copy_from_slice(body),
            body_checksum: header.body_checksum,
            deadline,
        };
        self.route(now, request, out)
    }

    fn route_batch(
        &mut self,
        now: Boot,
        from: Endpoint,
        header: Header,
        body: &[u8],
        deadline: Boot,
        out: &mut Effects,
    ) -> Result<(), Problem> {
        let parts = take_apart(header.kind, body)?;
        self.flights.admit(parts.len(), body.len())?;
        let batch = self.batches.begin(from, header.request, header.kind, parts.len());
        for (place, part) in parts.into_iter().enumerate() {
            let request = NewRequest {
                asker: Asker::Batch(batch, place),
                kind: part.kind,
                body_checksum: crc32c(&part.body),
                body: part.body,
                deadline,
            };
            if let Err(problem) = self.route(now, request, out) {
                self.batches.answer(batch, place, PartAnswer::Failed(ErrorAnswer::from(&problem)), out);
            }
        }
        Ok(())
    }

    fn on_down(&mut self, now: Boot, endpoint: Endpoint, out: &mut Effects) {
        let Endpoint::Outgoing(address) = endpoint else {
            return;
        };
        for waiting in self.lookups.lost(address) {
            self.take_outcome(now, waiting, Err(ErrorCode::Unavailable), out);
        }
        for id in self.flights.sent_to(endpoint) {
            let Some(flight) = self.flights.get(id) else {
                continue;
            };
            flight.outcome_unknown = flight.may_have_executed();
            let problem = link_lost(flight, address);
            self.retry(now, id, problem, out);
        }
    }

    /// Looks at requests whose time has come.
    fn look_at_flights(&mut self, now: Boot, out: &mut Effects) {
        while let Some(id) = self.flights.due(now) {
            let Some(flight) = self.flights.get(id) else {
                return;
            };
            let problem = if flight.may_have_executed() {
                let message =
                    "no answer came in time; repeat the write with the same token to learn its fate";
                Problem::new(ErrorCode::OutcomeUnknown, message)
            } else if now >= flight.deadline {
                Problem::new(ErrorCode::DeadlineExceeded, "the deadline passed before the request was served")
            } else {
                lookup_failed(ErrorCode::Unavailable, &flight.wanted.key)
            };
            self.land(id, Err(problem), out);
        }
    }
}

/// A request of one key that is about to be routed.
struct NewRequest {
    asker: Asker,
    kind: Kind,
    body: Bytes,
    body_checksum: u32,
    deadline: Boot,
}

/// What a look-up found.
enum Found {
    Route(Routed),
    Table(Box<TableAnswer>),
}

/// How a request ended well.
enum Landing<'a> {
    /// A storage core's answer, forwarded as it came.
    Answer(Header, &'a [u8]),
    /// MemDS knew it all.
    Table(Box<TableAnswer>),
}

/// Whether a route helps a request for which another turned out to be wrong.
fn is_better(routed: &Routed, wrong: Option<&Routed>) -> bool {
    wrong.is_none_or(|wrong| {
        routed.route.partition != wrong.route.partition || routed.route.generation > wrong.route.generation
    })
}

/// The core to send a request to: the leader, or for an eventual read any member at first.
fn choose_member(flight: &Flight, routed: &Routed, prng: &mut Prng) -> Option<RouteMember> {
    let route = &routed.route;
    if flight.wanted.strong || flight.attempts > 0 || route.members.is_empty() {
        return route.leader().copied();
    }
    Some(*prng.pick(&route.members))
}

fn lookup_failed(code: ErrorCode, key: &LookupKey<'_>) -> Problem {
    let message = match (code, key) {
        (ErrorCode::TableNotFound, LookupKey::Name(name)) => {
            return Problem::new(code, format!("there is no table named {name:?}"));
        }
        (ErrorCode::TableNotFound, _) => "the table is not there any more",
        (ErrorCode::MetadataWarming, _) => "the metadata service has just started; try again in a moment",
        (ErrorCode::OutcomeUnknown, _) => {
            "the connection broke while the write was under way; repeat it with the same token"
        }
        (ErrorCode::NotLeader, _) => "nobody is known to lead this partition; try again in a moment",
        _ => "no metadata server answers; try again in a moment",
    };
    Problem::new(code, message)
}

/// What a request ends with instead of `problem` when an earlier attempt may have taken effect and `problem`
/// proves nothing about it.
fn keep_unknown(flight: &Flight, problem: Problem) -> Problem {
    if !flight.outcome_unknown
        || problem.code.may_have_executed()
        || is_decided_on_token(flight.kind, problem.code)
    {
        return problem;
    }
    let message = format!(
        "the connection broke while the write was under way, and a second attempt was refused \
         ({problem}); repeat it with the same token to learn its fate"
    );
    Problem::new(ErrorCode::OutcomeUnknown, message)
}

/// Whether a partition gives this error only after it has looked for the write's token: then no earlier
/// attempt took effect, or this is what it led to.
fn is_decided_on_token(kind: Kind, code: ErrorCode) -> bool {
    let has_token = matches!(kind, Kind::Put | Kind::Delete | Kind::Update);
    let decided = matches!(
        code,
        ErrorCode::ConditionFailed
            | ErrorCode::Expression
            | ErrorCode::ItemTooLarge
            | ErrorCode::NestingTooDeep
            | ErrorCode::Validation
            | ErrorCode::TokenReused
    );
    has_token && decided
}

fn link_lost(flight: &Flight, address: SocketAddr) -> Problem {
    if flight.may_have_executed() {
        let message = format!(
            "the connection to {address} broke while the write was under way; repeat it with the same token"
        );
        return Problem::new(ErrorCode::OutcomeUnknown, message);
    }
    Problem::new(ErrorCode::Unavailable, format!("the connection to {address} broke; try again in a moment"))
}

impl Machine for Router {
    fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) {
        self.turns.at(now);
        match input {
            Input::Frame { from, header, body } => self.on_frame(now, from, header, body, out),
            Input::Down { endpoint } => self.on_down(now.boot, endpoint, out),
            Input::Up { .. } | Input::Disk(_) | Input::Wake => {}
            Input::Drain => self.draining = true,
        }
    }

    fn end_turn(&mut self, now: Now, out: &mut Effects) {
        self.cache.tick(now.boot);
        self.look_at_flights(now.boot, out);
        for waiting in self.lookups.end_turn(now.boot, out) {
            self.take_outcome(now.boot, waiting, Err(ErrorCode::Unavailable), out);
        }
        out.drained = self.draining && self.flights.is_empty();
    }

    fn wake_at(&self) -> Boot {
        self.flights.next_timer().min(self.lookups.wake_at())
    }
}
