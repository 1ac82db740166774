//! Lowe's other algorithm ("just-in-time linearization"): through the history once, with all that may be so
//! at each time.
//!
//! A *configuration* is a state, the operations under way that have taken effect in it, and the operations
//! without a return that have. When an operation returns, it has taken effect: from each configuration, what
//! is under way is placed in every order that ends with it. Of two configurations that differ only in that
//! one has used more of the operations without a return, it is dropped, for the other can do all that it can;
//! and two such operations that are equal are one as good as the other. So what nobody learned of costs
//! little, where a search for one order would try all its subsets. Many operations at the same time cost
//! much.

use super::{Call, Model};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// What may be so.
#[derive(Clone)]
struct Configuration<S> {
    state: S,
    /// Operations under way that have taken effect, in order.
    placed: Vec<usize>,
    /// Kinds of operations without a return that have, in order; several of a kind, several times.
    used: Vec<usize>,
}

/// Configurations of which none can do all that another can.
struct Minimal<S> {
    used: HashMap<(S, Vec<usize>), Vec<Vec<usize>>>,
}

impl<S: Clone + Eq + std::hash::Hash> Minimal<S> {
    fn new() -> Self {
        Self { used: HashMap::new() }
    }

    /// Adds one; false if that is no news.
    fn add(&mut self, configuration: &Configuration<S>) -> bool {
        let key = (configuration.state.clone(), configuration.placed.clone());
        match self.used.entry(key) {
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
            antichain.into_iter().map(move |used| Configuration {
                state: state.clone(),
                placed: placed.clone(),
                used,
            })
        });
        all.collect()
    }
}

/// Whether all of `some` is in `all`, as often; both in order.
fn is_part(some: &[usize], all: &[usize]) -> bool {
    let mut rest = all.iter();
    some.iter().all(|kind| rest.any(|other| other == kind))
}

fn with(sorted: &[usize], one: usize) -> Vec<usize> {
    let mut more = sorted.to_vec();
    more.insert(more.partition_point(|other| *other < one), one);
    more
}

/// Whether some order of the operations explains what was observed.
///
/// # Errors
/// The first operation whose return cannot be explained.
pub fn check<M: Model>(model: &M, history: &[Call<M::Operation>]) -> Result<(), usize> {
    // Kinds of operations without a return: one that stands for all that are equal to it.
    let mut kinds: Vec<usize> = Vec::new();
    let mut kind_of = vec![0; history.len()];
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (index, call) in history.iter().enumerate() {
        events.push((call.called, false, index));
        match call.returned {
            Some(at) => events.push((at.max(call.called), true, index)),
            None => {
                let equal = |kind: &usize| history[*kind].operation == call.operation;
                kind_of[index] = kinds.iter().position(equal).unwrap_or(kinds.len());
                if kind_of[index] == kinds.len() {
                    kinds.push(index);
                }
            }
        }
    }
    events.sort_unstable();
    let mut open = vec![0_usize; kinds.len()];
    let mut under_way: Vec<usize> = Vec::new();
    let first = Configuration { state: model.initial(), placed: Vec::new(), used: Vec::new() };
    let mut configurations = vec![first];
    for (_, is_return, index) in events {
        if !is_return && history[index].returned.is_none() {
            open[kind_of[index]] += 1;
        } else if !is_return {
            under_way.push(index);
        } else {
            let apply = |state: &M::State, index: usize| model.apply(state, &history[index].operation);
            configurations = place(configurations, index, &under_way, &kinds, &open, apply);
            if configurations.is_empty() {
                return Err(index);
            }
            under_way.retain(|other| *other != index);
        }
    }
    Ok(())
}

/// All that may be so when `returns` has returned.
fn place<S: Clone + Eq + std::hash::Hash>(
    configurations: Vec<Configuration<S>>,
    returns: usize,
    under_way: &[usize],
    kinds: &[usize],
    open: &[usize],
    apply: impl Fn(&S, usize) -> Option<S>,
) -> Vec<Configuration<S>> {
    let (mut reached, mut result) = (Minimal::new(), Minimal::new());
    let mut queue: VecDeque<Configuration<S>> = VecDeque::new();
    for mut configuration in configurations {
        if let Ok(place) = configuration.placed.binary_search(&returns) {
            configuration.placed.remove(place);
            result.add(&configuration);
        } else if reached.add(&configuration) {
            queue.push_back(configuration);
        }
    }
    while let Some(Configuration { state, placed, used }) = queue.pop_front() {
        for index in under_way.iter().filter(|index| placed.binary_search(index).is_err()) {
            let Some(state) = apply(&state, *index) else {
                continue;
            };
            if *index == returns {
                result.add(&Configuration { state, placed: placed.clone(), used: used.clone() });
                continue;
            }
            let next = Configuration { state, placed: with(&placed, *index), used: used.clone() };
            if reached.add(&next) {
                queue.push_back(next);
            }
        }
        for (kind, stands_for) in kinds.iter().enumerate() {
            let is_used_up = used.iter().filter(|other| **other == kind).count() >= open[kind];
            let Some(state) = (!is_used_up).then(|| apply(&state, *stands_for)).flatten() else {
                continue;
            };
            let next = Configuration { state, placed: placed.clone(), used: with(&used, kind) };
            if reached.add(&next) {
                queue.push_back(next);
            }
        }
    }
    result.into_configurations()
}
