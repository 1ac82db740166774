//! Routes that a router remembers. By design it saves nothing but time: every look-up goes to MemDS all the
//! same.

use crate::limits::CACHED_ROUTES_MAX;
use evenkeel_wire::ids::{PartitionId, TableId};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::message::routing::ArchivedLookupOutcome;
use evenkeel_wire::table::{Route, RouteGeneration, RouteHint, TableDescriptor};
use evenkeel_wire::turn::Boot;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::rc::Rc;
use std::time::Duration;

/// What the cache does: a switch for those who want to see that it does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// It remembers.
    #[default]
    On,
    /// It never has anything.
    Off,
    /// It forgets everything this often.
    FlushEvery(Duration),
}

/// Routes of a table.
#[derive(Debug)]
struct CachedTable {
    table: Rc<TableDescriptor>,
    /// By first key.
    routes: BTreeMap<KeyBytes, Rc<Route>>,
}

/// Routes by table and key.
#[derive(Debug)]
pub struct Cache {
    mode: CacheMode,
    tables: BTreeMap<TableId, CachedTable>,
    routes: usize,
    flush_at: Boot,
}

/// A route with its table, as a request uses them.
#[derive(Clone, Debug)]
pub struct Routed {
    /// The table.
    pub table: Rc<TableDescriptor>,
    /// The route.
    pub route: Rc<Route>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(mode: CacheMode) -> Self {
        Self { mode, tables: BTreeMap::new(), routes: 0, flush_at: Boot(0) }
    }

    /// How many routes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// Forgets everything, if that is due.
    pub fn tick(&mut self, now: Boot) {
        if let CacheMode::FlushEvery(period) = self.mode
            && now >= self.flush_at
        {
            self.flush_at = now.after(period);
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.tables.clear();
        self.routes = 0;
    }

    /// The route of the partition that holds `key`.
    #[must_use]
    pub fn at(&self, table: TableId, key: &[u8]) -> Option<Routed> {
        let cached = self.tables.get(&table)?;
        let (_, route) = cached.routes.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        route.contains(key).then(|| cached.routed(route))
    }

    /// The route of the partition that holds the keys just below `key`; empty: the last.
    #[must_use]
    pub fn below(&self, table: TableId, key: &[u8]) -> Option<Routed> {
        let cached = self.tables.get(&table)?;
        let (_, route) = if key.is_empty() {
            cached.routes.last_key_value()?
        } else {
            cached.routes.range::<[u8], _>((Unbounded, Excluded(key))).next_back()?
        };
        let reaches = route.end.is_empty() || (!key.is_empty() && key <= route.end.as_slice());
        reaches.then(|| cached.routed(route))
    }

    /// Whether an answer of MemDS says exactly what is remembered, so that there is nothing to be learnt.
    #[must_use]
    pub fn knows(&self, outcome: &ArchivedLookupOutcome<'static>) -> bool {
        let ArchivedLookupOutcome::Route(route, table) = outcome else {
            return false;
        };
        let cached = self.tables.get(&TableId::from(&route.table));
        let cached = cached.filter(|cached| u64::from(table.generation) <= cached.table.generation);
        let known = cached.and_then(|cached| cached.routes.get::<[u8]>(&route.start));
        known.is_some_and(|known| {
            known.generation == RouteGeneration::from(&route.generation)
                && known.partition == PartitionId::from(&route.partition)
                && known.end.as_slice() == &*route.end
                && known.leader == route.leader.as_ref().copied()
                && known.members.len() == route.members.len()
                && known.members.iter().zip(&*route.members).all(|(known, told)| *known == told.into())
        })
    }

    /// Remembers a route, unless a newer one is known. What it overlaps gives way.
    pub fn insert(&mut self, routed: &Routed) {
        if self.mode == CacheMode::Off {
            return;
        }
        if self.routes >= CACHED_ROUTES_MAX {
            self.clear();
        }
        let Routed { table, route } = routed;
        let cached = self
            .tables
            .entry(table.id)
            .or_insert_with(|| CachedTable { table: table.clone(), routes: BTreeMap::new() });
        if table.generation > cached.table.generation {
            cached.table = table.clone();
        }
        let overlapping = cached.overlapping(route);
        let newer_known = overlapping.iter().any(|known| known.generation > route.generation);
        if newer_known {
            return;
        }
        for known in overlapping {
            cached.routes.remove(&known.start);
            self.routes -= 1;
        }
        cached.routes.insert(route.start.clone(), route.clone());
        self.routes += 1;
    }

    /// Takes what a wrongly contacted core knows. Returns the corrected route, if that was news.
    pub fn correct(&mut self, routed: &Routed, hint: &RouteHint) -> Option<Routed> {
        let route = &routed.route;
        if hint.partition != route.partition || hint.generation <= route.generation {
            return None;
        }
        if hint.generation.division != route.generation.division {
            // Its range is another one now, which a hint does not tell.
            return None;
        }
        let leader = route.members.iter().position(|member| *member == hint.leader)?;
        let generation = hint.generation;
        let route = Rc::new(Route { generation, leader: Some(leader as u8), ..Route::clone(route) });
        let corrected = Routed { table: routed.table.clone(), route };
        self.insert(&corrected);
        Some(corrected)
    }

    /// Forgets a table: it does not exist any more.
    pub fn forget_table(&mut self, table: TableId) {
        if let Some(cached) = self.tables.remove(&table) {
            self.routes -= cached.routes.len();
        }
    }
}

impl CachedTable {
    fn routed(&self, route: &Rc<Route>) -> Routed {
        Routed { table: self.table.clone(), route: route.clone() }
    }

    fn overlapping(&self, route: &Route) -> Vec<Rc<Route>> {
        let before = self.routes.range::<[u8], _>((Unbounded, Excluded(&*route.start))).next_back();
        let reaches = |known: &&Rc<Route>| known.end.is_empty() || known.end > route.start;
        let inside = self.routes.range::<[u8], _>((Included(&*route.start), Unbounded));
        let inside = inside.take_while(|(start, _)| route.end.is_empty() || **start < route.end);
        before
            .map(|(_, known)| known)
            .filter(reaches)
            .into_iter()
            .chain(inside.map(|(_, known)| known))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::{Ballot, CoreId, Epoch, NodeId, PartitionId};
    use evenkeel_wire::table::{RouteGeneration, RouteMember};

    fn member(node: u32) -> RouteMember {
        let address: std::net::SocketAddr = ([127, 0, 0, 1], node as u16).into();
        RouteMember { node: NodeId(node), core: CoreId(0), address: address.into() }
    }

    fn routed(partition: u64, start: &str, end: &str, round: u64) -> Routed {
        let route = Route {
            table: TableId(0),
            partition: PartitionId(partition),
            start: KeyBytes::from_slice(start.as_bytes()),
            end: KeyBytes::from_slice(end.as_bytes()),
            generation: RouteGeneration {
                epoch: Epoch(1),
                division: 0,
                ballot: Ballot { round, node: NodeId(1) },
            },
            leader: Some(0),
            members: vec![member(1), member(2)],
        };
        Routed { table: Rc::new(TableDescriptor::system()), route: Rc::new(route) }
    }

    fn at(cache: &Cache, key: &str) -> Option<u64> {
        cache.at(TableId(0), key.as_bytes()).map(|routed| routed.route.partition.0)
    }

    #[test]
    fn newer_routes_replace_what_they_overlap_and_older_ones_are_ignored() {
        let mut cache = Cache::new(CacheMode::On);
        cache.insert(&routed(1, "", "", 1));
        cache.insert(&routed(2, "", "m", 2));
        assert_eq!((at(&cache, "a"), at(&cache, "z"), cache.len()), (Some(2), None, 1));
        cache.insert(&routed(3, "m", "", 2));
        cache.insert(&routed(1, "", "", 1));
        assert_eq!((at(&cache, "a"), at(&cache, "z"), cache.len()), (Some(2), Some(3), 2));
        let below =
            |key: &str| cache.below(TableId(0), key.as_bytes()).map(|routed| routed.route.partition.0);
        assert_eq!((below("m"), below("n"), below("")), (Some(2), Some(3), Some(3)));
    }

    #[test]
    fn an_answer_that_says_anything_new_is_not_known() {
        use evenkeel_wire::message::routing::{LookupAnswer, LookupOutcome};
        use evenkeel_wire::message::{access, encode};
        use std::borrow::Cow;
        let mut cache = Cache::new(CacheMode::On);
        let known = routed(1, "c", "m", 5);
        cache.insert(&known);
        let knows = |route: Route, table: TableDescriptor| {
            let mut body = Vec::new();
            let outcome = LookupOutcome::Route(Cow::Owned(route), Cow::Owned(table));
            encode(&LookupAnswer { outcomes: vec![outcome] }, &mut body);
            cache.knows(&access::<LookupAnswer<'static>>(&body).unwrap().outcomes[0])
        };
        let (route, table) = (Route::clone(&known.route), TableDescriptor::clone(&known.table));
        assert!(knows(route.clone(), table.clone()));
        let newer = RouteGeneration { epoch: Epoch(2), ..route.generation };
        for other in [
            Route { partition: PartitionId(2), ..route.clone() },
            Route { start: KeyBytes::from_slice(b"d"), ..route.clone() },
            Route { end: KeyBytes::from_slice(b"l"), ..route.clone() },
            Route { generation: newer, ..route.clone() },
            Route { leader: None, ..route.clone() },
            Route { members: vec![member(1), member(3)], ..route.clone() },
        ] {
            assert!(!knows(other.clone(), table.clone()), "{other:?}");
        }
        let changed = TableDescriptor { generation: table.generation + 1, ..table };
        assert!(!knows(route, changed));
    }

    #[test]
    fn a_hint_corrects_the_leader_only_when_it_is_newer() {
        let mut cache = Cache::new(CacheMode::On);
        let known = routed(1, "", "", 5);
        cache.insert(&known);
        let hint = |round| RouteHint {
            partition: PartitionId(1),
            generation: RouteGeneration {
                epoch: Epoch(1),
                division: 0,
                ballot: Ballot { round, node: NodeId(2) },
            },
            leader: member(2),
        };
        assert!(cache.correct(&known, &hint(4)).is_none());
        let generation = RouteGeneration { division: 1, ..hint(6).generation };
        assert!(cache.correct(&known, &RouteHint { generation, ..hint(6) }).is_none(), "it was split since");
        assert_eq!(cache.correct(&known, &hint(6)).unwrap().route.leader(), Some(&member(2)));
        assert_eq!(cache.at(TableId(0), b"x").unwrap().route.leader(), Some(&member(2)));
    }

    #[test]
    fn a_cache_that_is_off_has_nothing_and_a_flushing_one_forgets() {
        let mut off = Cache::new(CacheMode::Off);
        off.insert(&routed(1, "", "", 1));
        assert!(off.is_empty());
        let mut flushing = Cache::new(CacheMode::FlushEvery(Duration::from_millis(100)));
        flushing.tick(Boot(1));
        flushing.insert(&routed(1, "", "", 1));
        flushing.tick(Boot(100_000_000));
        assert_eq!(at(&flushing, "a"), Some(1));
        flushing.tick(Boot(100_000_001));
        assert_eq!(at(&flushing, "a"), None);
    }
}
