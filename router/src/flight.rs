//! Requests under way: who asked, what for, and how far it is.

use crate::cache::Routed;
use crate::edge::Wanted;
use crate::journey::Journey;
use crate::limits::{FLIGHT_BYTES_MAX, FLIGHTS_MAX};
use bytes::Bytes;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::timeline;
use evenkeel_wire::turn::{Boot, Endpoint};
use std::collections::BTreeSet;

/// Who gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client: its link, and its own name for the request.
    Client(Endpoint, RequestId),
    /// A batch: its name, and the place in it.
    Batch(FlightId, usize),
}

/// Names a request under way; also the request id that storage cores see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(pub u64);

/// How far a request is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// It waits for a route. How many MemDS servers can still answer, and what those that did not know it
    /// said.
    Lookup {
        /// Servers that were asked and have not answered.
        unanswered: u8,
        /// The least final of the answers that were no route.
        worst: Option<ErrorCode>,
        /// The route that turned out to be wrong: only a newer one helps.
        wrong: Option<Routed>,
    },
    /// It was sent to a storage core.
    Forwarded {
        /// Whom.
        to: Endpoint,
        /// Under which route.
        routed: Routed,
    },
}

impl Stage {
    /// What a request that ends now has spent its time with since it came to this stage.
    #[must_use]
    pub fn spends(&self) -> timeline::Stage {
        match self {
            Self::Lookup { .. } => timeline::Stage::Lookup,
            Self::Forwarded { .. } => timeline::Stage::Attempts,
        }
    }
}

/// A request under way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Who gets the answer.
    pub asker: Asker,
    /// What is asked.
    pub kind: Kind,
    /// Its body, kept for a second attempt.
    pub body: Bytes,
    /// The body's checksum, as it came.
    pub body_checksum: u32,
    /// Which route it needs.
    pub wanted: Wanted,
    /// When the client gives up.
    pub deadline: Boot,
    /// When the router looks at it again, if nothing happens before.
    pub look_at: Boot,
    /// How often it was sent to a storage core.
    pub attempts: u8,
    /// Whether an earlier attempt of a write was never answered: it may have taken effect, or yet may.
    pub outcome_unknown: bool,
    /// How far it is.
    pub stage: Stage,
    /// Where its time went so far.
    pub journey: Journey,
}

impl Flight {
    /// Whether an attempt that was never answered, or not yet, may have taken effect.
    #[must_use]
    pub fn may_have_executed(&self) -> bool {
        let writes = matches!(
            self.kind,
            Kind::Put
                | Kind::Delete
                | Kind::Update
                | Kind::CreateTable
                | Kind::DeleteTable
                | Kind::SplitTable
        );
        self.outcome_unknown || (writes && matches!(self.stage, Stage::Forwarded { .. }))
    }
}

/// All requests under way.
#[derive(Debug, Default)]
pub struct Flights {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
    bytes: usize,
    timers: BTreeSet<(Boot, FlightId)>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    flight: Option<Flight>,
}

impl Flights {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `keys` more with bodies of `bytes` in all may begin.
    ///
    /// # Errors
    /// When too many are under way.
    pub fn admit(&self, keys: usize, bytes: usize) -> Result<(), Problem> {
        if self.count + keys <= FLIGHTS_MAX && self.bytes + bytes <= FLIGHT_BYTES_MAX {
            return Ok(());
        }
        let message = format!("{} requests are under way in this router; try again in a moment", self.count);
        Err(Problem::new(ErrorCode::Overloaded, message))
    }

    /// Takes off.
    pub fn insert(&mut self, flight: Flight) -> FlightId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, flight: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        let id = FlightId(u64::from(place.generation) << 32 | u64::from(index));
        self.count += 1;
        self.bytes += flight.body.len();
        self.timers.insert((flight.look_at, id));
        place.flight = Some(flight);
        id
    }

    /// The flight with this id, if it is still under way.
    #[must_use]
    pub fn get(&mut self, id: FlightId) -> Option<&mut Flight> {
        let place = self.places.get_mut(id.0 as u32 as usize)?;
        if place.generation != (id.0 >> 32) as u32 {
            return None;
        }
        place.flight.as_mut()
    }

    /// Sets when the router looks at a flight again.
    pub fn look_at(&mut self, id: FlightId, at: Boot) {
        if let Some(flight) = self.get(id)
            && flight.look_at != at
        {
            let old = std::mem::replace(&mut flight.look_at, at);
            self.timers.remove(&(old, id));
            self.timers.insert((at, id));
        }
    }

    /// Lands.
    pub fn remove(&mut self, id: FlightId) -> Option<Flight> {
        self.get(id)?;
        let index = id.0 as u32;
        let flight = self.places[index as usize].flight.take()?;
        self.free.push(index);
        self.count -= 1;
        self.bytes -= flight.body.len();
        self.timers.remove(&(flight.look_at, id));
        Some(flight)
    }

    /// When the next flight wants to be looked at.
    #[must_use]
    pub fn next_timer(&self) -> Boot {
        self.timers.first().map_or(Boot::NEVER, |(at, _)| *at)
    }

    /// The first flight that is due.
    #[must_use]
    pub fn due(&self, now: Boot) -> Option<FlightId> {
        self.timers.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// Flights that were sent to `endpoint`.
    #[must_use]
    pub fn sent_to(&self, endpoint: Endpoint) -> Vec<FlightId> {
        let sent = |flight: &Flight| matches!(&flight.stage, Stage::Forwarded { to, .. } if *to == endpoint);
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, place)| place.flight.as_ref().is_some_and(sent))
            .map(|(index, place)| FlightId(u64::from(place.generation) << 32 | index as u64))
            .collect()
    }
}
