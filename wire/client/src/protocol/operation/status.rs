//! What processes say of themselves and of the cluster.

use super::{Context, Operation, Progress, Unready, expect};
use crate::error::Error;
use crate::protocol::answer::Answer;
use crate::protocol::session::Session;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::message::status::{ScrubAnswer, StatusAnswer, TopologyAnswer};
use evenkeel_wire::message::{encode, tail, to_owned};

/// Where the processes of the cluster are. Any router knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Topology;

/// What the process at one endpoint, of any role, says of itself.
#[derive(Clone, Debug)]
pub struct Status {
    endpoint: String,
}

impl Status {
    /// The status of the process that listens at `endpoint`.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into() }
    }
}

/// The storage core at one endpoint is to check all its trees.
#[derive(Clone, Debug)]
pub struct Scrub {
    endpoint: String,
}

impl Scrub {
    /// A check by the core that listens at `endpoint`.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into() }
    }
}

/// What the router at one endpoint has noted of where the time of requests went, one interval at a time.
#[derive(Clone, Debug)]
pub struct Tail {
    endpoint: String,
    from: u64,
}

impl Tail {
    /// The first interval from `from` on that the router at `endpoint` still has.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, from: u64) -> Self {
        Self { endpoint: endpoint.into(), from }
    }
}

impl Operation for Topology {
    type Output = TopologyAnswer;

    fn encode(&mut self, _: &mut Context<'_>, _: &mut Vec<u8>) -> Result<Kind, Unready> {
        Ok(Kind::Topology)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<TopologyAnswer>, Error> {
        Ok(Progress::Done(to_owned::<TopologyAnswer>(expect::<TopologyAnswer>(answer)?)))
    }
}

impl Operation for Status {
    type Output = StatusAnswer;

    fn encode(&mut self, _: &mut Context<'_>, _: &mut Vec<u8>) -> Result<Kind, Unready> {
        Ok(Kind::Status)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<StatusAnswer>, Error> {
        Ok(Progress::Done(to_owned::<StatusAnswer>(expect::<StatusAnswer>(answer)?)))
    }

    fn endpoint(&self) -> Option<&str> {
        Some(&self.endpoint)
    }
}

impl Operation for Scrub {
    type Output = ScrubAnswer;

    fn encode(&mut self, _: &mut Context<'_>, _: &mut Vec<u8>) -> Result<Kind, Unready> {
        Ok(Kind::Scrub)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<ScrubAnswer>, Error> {
        Ok(Progress::Done(to_owned::<ScrubAnswer>(expect::<ScrubAnswer>(answer)?)))
    }

    fn endpoint(&self) -> Option<&str> {
        Some(&self.endpoint)
    }
}

impl Operation for Tail {
    type Output = tail::TailAnswer;

    fn encode(&mut self, _: &mut Context<'_>, out: &mut Vec<u8>) -> Result<Kind, Unready> {
        encode(&tail::Tail { from: self.from }, out);
        Ok(Kind::Tail)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<tail::TailAnswer>, Error> {
        Ok(Progress::Done(to_owned::<tail::TailAnswer>(expect::<tail::TailAnswer>(answer)?)))
    }

    fn endpoint(&self) -> Option<&str> {
        Some(&self.endpoint)
    }
}
