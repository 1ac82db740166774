//! A model of one replication group for the model checker: the code that ships, under every order of events
//! within a bound.
//!
//! * [`world`]: a state, what may happen in it, what follows, and what must hold.
//! * [`member`]: a group ([`evenkeel_dataplane::group::Group`]) with its disk. [`turn`]: what happens to one;
//!   [`rolls`]: how its core renews leases; [`memory`]: what has happened before. [`network`]: messages.
//!   [`clock`]: time. [`clients`]: requests and answers.
//! * [`bounds`]: how far an exploration goes. [`beginnings`]: where it starts. [`story`]: a counterexample,
//!   told to a person.
//!
//! What is abstracted, and what is not explored: docs/decisions/0013-model-checking.md. Log replicas and
//! changes of membership are not in it yet: there is a fourth node ([`member::PLACES`]) that holds no
//! replica, and a majority is one of the latest epoch's. A change will be an [`world::Action`] and an
//! allowance of a [`bounds::Bound`], a member that joins one more in [`world::World::members`].

pub(crate) mod beginnings;
pub(crate) mod bounds;
pub(crate) mod clients;
pub(crate) mod clock;
pub(crate) mod digest;
pub(crate) mod member;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod rolls;
pub(crate) mod story;
pub(crate) mod turn;
pub(crate) mod world;

use bounds::Bound;
use clients::Requests;
use evenkeel_dataplane::planted::{self, Planted};
use memory::Memory;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::sleep;
use std::time::Duration;
use world::{Action, Broken, World};

/// What is explored.
#[derive(Debug)]
pub(crate) struct Exploration {
    bound: Bound,
    planted: Option<Planted>,
    memory: Memory,
}

/// How it goes from state to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// Everything, with little memory.
    Everything,
    /// The nearest violation of any of the properties.
    Nearest,
}

/// What an exploration found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Within which bound.
    pub(crate) bound: &'static str,
    /// Different states.
    pub(crate) states: usize,
    /// Transitions.
    pub(crate) transitions: usize,
    /// The longest way from a beginning.
    pub(crate) depth: usize,
    /// Every state within the bound was seen.
    pub(crate) exhausted: bool,
    /// What should be reached, and was.
    pub(crate) reached: Vec<&'static str>,
    /// What should be reached, and was not.
    pub(crate) missed: Vec<&'static str>,
    /// What must hold and does not, each with its story.
    pub(crate) violated: Vec<(&'static str, String)>,
}

/// What must hold, by name.
pub(crate) const MUST: [(&str, Broken); 7] = [
    ("agreement", Broken::Agreement),
    ("log matching", Broken::LogMatching),
    ("lease exclusivity", Broken::LeaseExclusivity),
    ("no acknowledged write is lost", Broken::AcknowledgedLost),
    ("strong reads see what was seen before", Broken::StaleRead),
    ("no write executes twice", Broken::ExecutedTwice),
    ("no assertion of the code fails", Broken::Assertion),
];

/// What should be reached.
const ACKNOWLEDGED: &str = "a write is acknowledged";
const READ: &str = "a read returns what was acknowledged";
const ELECTED: &str = "a second leader is elected";
const SERVES: &str = "a second leader serves";
const INHERITED: &str = "a second leader serves what was acknowledged";

/// Whether something is within the bound that should be reached: writes need a client, a second leader needs
/// a second round, and time until it serves.
fn is_reachable(name: &str, bound: &Bound) -> bool {
    let (writes, elects) = (bound.submissions > 0, bound.rounds > 1);
    let serves = elects && bound.outlasts_a_lease();
    match name {
        ACKNOWLEDGED | READ => writes && (serves || bound.has_leader()),
        ELECTED => elects,
        SERVES => serves,
        INHERITED => serves && writes,
        _ => true,
    }
}

/// How often workers are looked at, and how often somebody hears of it.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Exploration {
    /// An exploration of everything within `bound`, with a planted bug or without.
    pub(crate) fn new(bound: Bound, planted: Option<Planted>) -> Self {
        Self { bound, planted, memory: Memory::new(Requests::new(bound.writes)) }
    }

    /// Explores. `progress` is told every now and then how many states and transitions were seen.
    pub(crate) fn run(self, search: Search, threads: usize, progress: fn(usize, usize)) -> Report {
        let bound = self.bound;
        let builder = self.checker().threads(threads).finish_when(match search {
            Search::Everything => HasDiscoveries::AllFailures,
            Search::Nearest => HasDiscoveries::AnyFailures,
        });
        match search {
            Search::Everything => report(&bound, watch(builder.spawn_dfs(), progress)),
            Search::Nearest => report(&bound, watch(builder.spawn_bfs(), progress)),
        }
    }
}

/// Waits until it is done. A panic in it is one here, so that an exploration that was cut off is never taken
/// for one that ended.
#[allow(clippy::disallowed_methods, reason = "waiting for the explorer's threads is a door's work")]
fn watch<C: Checker<Exploration>>(mut checker: C, progress: fn(usize, usize)) -> C {
    let workers = checker.handles();
    let mut waited = Duration::ZERO;
    while workers.iter().any(|worker| !worker.is_finished()) {
        sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
        if waited >= TELL_EVERY {
            waited = Duration::ZERO;
            progress(checker.unique_state_count(), checker.state_count());
        }
    }
    workers.into_iter().for_each(|worker| worker.join().expect("the explorer itself does not fail"));
    checker
}

fn report(bound: &Bound, checker: impl Checker<Exploration>) -> Report {
    let discoveries = checker.discoveries();
    let must: BTreeSet<&str> = MUST.iter().map(|(name, _)| *name).collect();
    let (mut reached, mut missed, mut violated) = (Vec::new(), Vec::new(), Vec::new());
    for property in checker.model().properties() {
        let name = property.name;
        match discoveries.get(name) {
            Some(path) if must.contains(name) => violated.push((name, story::tell(path.clone().into_vec()))),
            Some(_) => reached.push(name),
            None if must.contains(name) => {}
            None if !is_reachable(name, bound) => {}
            None => missed.push(name),
        }
    }
    Report {
        bound: bound.name,
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        exhausted: violated.is_empty(),
        reached,
        missed,
        violated,
    }
}

impl Model for Exploration {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        // Bugs are not planted before it begins; what is remembered of the beginning is forgotten.
        planted::choose(None);
        World::beginnings(&self.bound, &Memory::new(Requests::new(self.bound.writes)))
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.bound, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        planted::choose(self.planted);
        let step = || {
            let mut next = world.clone();
            next.step(action, &self.memory, self.bound.torn).then_some(next)
        };
        catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| {
            let mut broken = world.clone();
            broken.broken = Some(Broken::Assertion);
            Some(broken)
        })
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.is_within(&self.bound)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(MUST[0].0, |_, world: &World| world.broken != Some(MUST[0].1)),
            Property::always(MUST[1].0, |_, world: &World| world.broken != Some(MUST[1].1)),
            Property::always(MUST[2].0, |_, world: &World| world.broken != Some(MUST[2].1)),
            Property::always(MUST[3].0, |_, world: &World| world.broken != Some(MUST[3].1)),
            Property::always(MUST[4].0, |_, world: &World| world.broken != Some(MUST[4].1)),
            Property::always(MUST[5].0, |_, world: &World| world.broken != Some(MUST[5].1)),
            Property::always(MUST[6].0, |_, world: &World| world.broken != Some(MUST[6].1)),
            Property::sometimes(ACKNOWLEDGED, |_, world: &World| world.history.acknowledged != 0),
            Property::sometimes(READ, |_, world: &World| world.reads),
            Property::sometimes(ELECTED, |_, world: &World| {
                world.members.iter().any(|member| {
                    member.group.replica.is_leader() && member.group.replica.promised().round > 1
                })
            }),
            Property::sometimes(SERVES, |_, world: &World| second_serves(world)),
            Property::sometimes(INHERITED, |_, world: &World| second_serves(world) && world.reads),
        ]
    }
}

fn second_serves(world: &World) -> bool {
    world.members.iter().any(|member| member.serves && member.group.replica.promised().round > 1)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound, states, transitions, depth, exhausted, reached, missed, violated } = self;
        let all = if *exhausted { "all of them" } else { "not all" };
        writeln!(f, "{bound}: {states} states ({all}), {transitions} transitions, depth {depth}")?;
        for (name, _) in MUST {
            match violated.iter().find(|(violated, _)| *violated == name) {
                Some((_, story)) => writeln!(f, "  VIOLATED  {name}\n{story}")?,
                None => writeln!(f, "  holds     {name}")?,
            }
        }
        reached.iter().try_for_each(|name| writeln!(f, "  reached   {name}"))?;
        missed.iter().try_for_each(|name| writeln!(f, "  missed    {name}"))
    }
}
