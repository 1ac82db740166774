//! Lowe's other algorithm ("just-in-time linearization"): through the history once, with all that may be so
//! at each time.
//!
//! A *configuration* is a state, the operations under way that have taken effect in it, and the operations
//! without a return that have. When an operation returns, it has taken effect: from each configuration, what
//! is under way is placed in every order that ends with it. Three rules keep the configurations few:
//!
//! * Of two that differ only in that one has used more of the operations without a return, it is dropped, for
//!   the other can do all that it can; and two such operations that are equal are one as good as the other.
//!   So what nobody learned of costs little, where a search for one order would try all its subsets.
//! * Where a read that returns saw what is there, it takes effect at once: whatever else might have come
//!   before it can as well come behind it.
//! * Values that nobody tells apart any more are one ([`Model::mentions`]): states and operations without a
//!   return that differ in them alone are equal from then on.
//!
//! Many operations at the same time cost much.

use super::{Call, Model};
use ahash::{HashMap, HashMapExt};
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Operations under way at the same time, as many as a set of them can name.
pub const UNDER_WAY_MAX: usize = u128::BITS as usize;

/// Why [`check`] has no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is none: the first operation whose return cannot be explained.
    Impossible(usize),
    /// More than [`UNDER_WAY_MAX`] operations were under way at the same time: nothing is known.
    TooMany,
}

/// What may be so.
#[derive(Clone)]
struct Configuration<S> {
    state: S,
    /// Operations under way that have taken effect, by their seats.
    placed: u128,
    /// Kinds of operations without a return that have, in order; several of a kind, several times.
    used: Vec<u32>,
}

/// Configurations of which none can do all that another can.
struct Minimal<S> {
    used: HashMap<(S, u128), Vec<Vec<u32>>>,
}

impl<S: Clone + Eq + Hash> Minimal<S> {
    fn new() -> Self {
        Self { used: HashMap::new() }
    }

    /// Adds one; false if that is no news.
    fn add(&mut self, configuration: &Configuration<S>) -> bool {
        match self.used.entry((configuration.state.clone(), configuration.placed)) {
            Entry::Vacant(place) => {
                place.insert(vec![configuration.used.clone()]);
            }
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                if known.iter().any(|used| is_part(used, &configuration.used)) {
                    return false;
                }
                known.retain(|used| !is_part(&configuration.used, used));
                known.push(configuration.used.clone());
            }
        }
        true
    }

    fn into_configurations(self) -> Vec<Configuration<S>> {
        let all = self.used.into_iter().flat_map(|((state, placed), antichain)| {
            antichain.into_iter().map(move |used| Configuration { state: state.clone(), placed, used })
        });
        all.collect()
    }
}

/// Whether all of `some` is in `all`, as often; both in order.
fn is_part(some: &[u32], all: &[u32]) -> bool {
    let mut rest = all.iter();
    some.len() <= all.len() && some.iter().all(|kind| rest.any(|other| other == kind))
}

fn with(sorted: &[u32], one: u32) -> Vec<u32> {
    let place = sorted.partition_point(|other| *other < one);
    let mut more = Vec::with_capacity(sorted.len() + 1);
    more.extend_from_slice(&sorted[..place]);
    more.push(one);
    more.extend_from_slice(&sorted[place..]);
    more
}

/// An operation under way, and the bit that stands for it in a set of them.
#[derive(Clone, Copy, Debug)]
struct Seated {
    index: usize,
    seat: u128,
}

/// Operations without a return that are equal, and how many of them have been called.
#[derive(Clone, Debug)]
struct Kind<O> {
    operation: O,
    open: usize,
}

/// Whether some order of the operations explains what was observed.
///
/// # Errors
/// [`Refused`] when none does, or that is too much to find out in this way.
pub fn check<M: Model>(model: &M, history: &[Call<M::Operation>]) -> Result<(), Refused> {
    let events = events_of(history);
    let mut walk = Walk::new(model, last_mentions(model, history, &events));
    for (now, (_, is_return, index)) in events.into_iter().enumerate() {
        let call = &history[index];
        match (is_return, call.returned) {
            (false, None) => walk.called_for_ever(&call.operation),
            (false, Some(_)) => walk.called(index)?,
            (true, _) => {
                walk.returned(history, index)?;
                walk.forget(now);
            }
        }
    }
    Ok(())
}

/// Calls (false) and returns (true) by time; at the same instant a call comes before a return.
fn events_of<O>(history: &[Call<O>]) -> Vec<(u64, bool, usize)> {
    let mut events = Vec::new();
    for (index, call) in history.iter().enumerate() {
        events.push((call.called, false, index));
        events.extend(call.returned.map(|at| (at.max(call.called), true, index)));
    }
    events.sort_unstable();
    events
}

/// After which event nobody tells a value from others any more.
fn last_mentions<M: Model>(
    model: &M,
    history: &[Call<M::Operation>],
    events: &[(u64, bool, usize)],
) -> HashMap<u64, usize> {
    let mut last = HashMap::new();
    for (now, (_, _, index)) in events.iter().enumerate() {
        if let Some(value) = model.mentions(&history[*index].operation) {
            let until = if history[*index].returned.is_some() { now } else { usize::MAX };
            let known = last.entry(value).or_insert(until);
            *known = (*known).max(until);
        }
    }
    last
}

/// The way through the history.
struct Walk<'a, M: Model> {
    model: &'a M,
    /// What can still be told from others; the event after which it cannot.
    mentioned: HashMap<u64, usize>,
    kinds: Vec<Kind<M::Operation>>,
    under_way: Vec<Seated>,
    configurations: Vec<Configuration<M::State>>,
}

impl<'a, M: Model> Walk<'a, M> {
    fn new(model: &'a M, mentioned: HashMap<u64, usize>) -> Self {
        let first = Configuration { state: model.initial(), placed: 0, used: Vec::new() };
        Self { model, mentioned, kinds: Vec::new(), under_way: Vec::new(), configurations: vec![first] }
    }

    fn called(&mut self, index: usize) -> Result<(), Refused> {
        let taken = self.under_way.iter().fold(0, |taken, seated| taken | seated.seat);
        let seat = !taken & taken.wrapping_add(1);
        if seat == 0 {
            return Err(Refused::TooMany);
        }
        self.under_way.push(Seated { index, seat });
        Ok(())
    }

    fn called_for_ever(&mut self, operation: &M::Operation) {
        self.open(self.blurred(operation), 1);
    }

    fn blurred(&self, operation: &M::Operation) -> M::Operation {
        self.model.blur_operation(operation, &|value| self.mentioned.contains_key(&value))
    }

    /// So many more of a kind of operation. Returns its number.
    fn open(&mut self, operation: M::Operation, count: usize) -> usize {
        let number = self.kind(operation);
        self.kinds[number].open += count;
        number
    }

    fn kind(&mut self, operation: M::Operation) -> usize {
        let known = self.kinds.iter().position(|kind| kind.operation == operation);
        known.unwrap_or_else(|| {
            self.kinds.push(Kind { operation, open: 0 });
            self.kinds.len() - 1
        })
    }

    /// Places what may have come before the return of an operation, and that operation.
    fn returned(&mut self, history: &[Call<M::Operation>], index: usize) -> Result<(), Refused> {
        let place = self.under_way.iter().position(|seated| seated.index == index);
        let Seated { seat, .. } = self.under_way.remove(place.expect("its call comes first"));
        let returns = &history[index].operation;
        let reads = self.model.reads(returns);
        let (mut reached, mut result) = (Minimal::new(), Minimal::new());
        let mut queue = VecDeque::new();
        for mut configuration in std::mem::take(&mut self.configurations) {
            if configuration.placed & seat != 0 {
                configuration.placed &= !seat;
                result.add(&configuration);
            } else if reached.add(&configuration) {
                queue.push_back(configuration);
            }
        }
        while let Some(Configuration { state, placed, used }) = queue.pop_front() {
            if let Some(after) = self.apply(&state, returns) {
                result.add(&Configuration { state: after, placed, used: used.clone() });
                if reads {
                    continue;
                }
            }
            let mut reach = |next: Configuration<M::State>| {
                if reached.add(&next) {
                    queue.push_back(next);
                }
            };
            for other in self.under_way.iter().filter(|other| placed & other.seat == 0) {
                if let Some(after) = self.apply(&state, &history[other.index].operation) {
                    reach(Configuration { state: after, placed: placed | other.seat, used: used.clone() });
                }
            }
            for (number, kind) in (0..).zip(&self.kinds) {
                if used.iter().filter(|other| **other == number).count() >= kind.open {
                    continue;
                }
                if let Some(after) = self.apply(&state, &kind.operation).filter(|after| *after != state) {
                    reach(Configuration { state: after, placed, used: with(&used, number) });
                }
            }
        }
        self.configurations = result.into_configurations();
        if self.configurations.is_empty() { Err(Refused::Impossible(index)) } else { Ok(()) }
    }

    fn apply(&self, state: &M::State, operation: &M::Operation) -> Option<M::State> {
        let after = self.model.apply(state, operation)?;
        Some(self.model.blur(after, &|value| self.mentioned.contains_key(&value)))
    }

    /// What nobody mentions after this event is not told apart any more.
    fn forget(&mut self, now: usize) {
        let before = self.mentioned.len();
        self.mentioned.retain(|_, until| *until > now);
        if self.mentioned.len() == before {
            return;
        }
        let mut renamed = Vec::new();
        for Kind { operation, open } in std::mem::take(&mut self.kinds) {
            renamed.push(self.open(self.blurred(&operation), open) as u32);
        }
        let mut kept = Minimal::new();
        for Configuration { state, placed, used } in std::mem::take(&mut self.configurations) {
            let state = self.model.blur(state, &|value| self.mentioned.contains_key(&value));
            let mut used: Vec<u32> = used.into_iter().map(|kind| renamed[kind as usize]).collect();
            used.sort_unstable();
            kept.add(&Configuration { state, placed, used });
        }
        self.configurations = kept.into_configurations();
    }
}
