//! The MemDS server: the whole routing map, in memory (section 6.6 of the ATC 2022 paper).
//!
//! It stores nothing and decides nothing. Storage cores publish the groups that they lead; the catalogue
//! publishes the tables; routers ask. A restarted server says "warming" until it has heard from the
//! catalogue, and has everything a second later. Older never overwrites newer.

use crate::limits::{BOUND_BYTES_MAX, LOOKUP_KEYS_MAX, MEMDS_ROUTES_MAX, ROUTE_MEMBERS_MAX};
use ahash::AHashMap;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{Slot, TableId};
use evenkeel_wire::key::{KEY_NAME_BYTES_MAX, KeyBytes};
use evenkeel_wire::limits::TABLE_NAME_BYTES_MAX;
use evenkeel_wire::message::routing::{
    ArchivedLookupKey, ArchivedTableKey, Lookup, LookupAnswer, LookupOutcome, PublishAnswer, PublishRoutes,
    PublishTables,
};
use evenkeel_wire::message::status::{MemdsStatus, StatusAnswer};
use evenkeel_wire::message::{access, to_owned};
use evenkeel_wire::table::{Route, TableDescriptor};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Input, Machine, Now};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The routing map of a cluster.
#[derive(Debug, Default)]
pub struct RoutingMap {
    version: Slot,
    tables: BTreeMap<TableId, TableDescriptor>,
    names: BTreeMap<String, TableId>,
    /// By table and first key.
    routes: BTreeMap<(TableId, KeyBytes), Route>,
}

impl RoutingMap {
    /// An empty map, which knows the table of tables.
    #[must_use]
    pub fn new() -> Self {
        let mut map = Self::default();
        let system = TableDescriptor::system();
        map.tables.insert(system.id, system);
        map
    }

    /// Takes a route, unless a newer one of its partition is known. Ranges that it overlaps belong to older
    /// memberships of the same keys and give way. A full map takes only what replaces something.
    pub fn take_route(&mut self, route: Route) {
        self.take_route_below(route, MEMDS_ROUTES_MAX);
    }

    fn take_route_below(&mut self, route: Route, routes_max: usize) {
        let newer_known = self.overlapping(&route).any(|known| known.generation > route.generation);
        if newer_known {
            return;
        }
        let older: Vec<KeyBytes> = self.overlapping(&route).map(|known| known.start.clone()).collect();
        if older.is_empty() && self.routes.len() >= routes_max {
            return;
        }
        for start in older {
            self.routes.remove(&(route.table, start));
        }
        self.routes.insert((route.table, route.start.clone()), route);
    }

    fn overlapping<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = &'a Route> {
        let before = self.floor(route.table, &route.start);
        let ends_before = |known: &Route| !known.end.is_empty() && known.end <= route.start;
        let from = before.filter(|known| !ends_before(known)).map_or(&route.start, |known| &known.start);
        let all = self.routes.range((route.table, from.clone())..);
        all.map(|(_, known)| known).take_while(|known| {
            known.table == route.table && (route.end.is_empty() || known.start < route.end)
        })
    }

    /// Takes the catalogue as of `version`, unless a newer one is known.
    pub fn take_tables(&mut self, version: Slot, tables: Vec<TableDescriptor>) {
        if version <= self.version {
            return;
        }
        self.version = version;
        let gone: Vec<TableId> = self.names.values().copied().collect();
        self.names.clear();
        for id in &gone {
            self.tables.remove(id);
        }
        for table in tables {
            self.names.insert(table.name.clone(), table.id);
            self.tables.insert(table.id, table);
        }
        for id in gone.into_iter().filter(|id| !self.tables.contains_key(id)) {
            self.routes.retain(|(table, _), _| *table != id);
        }
    }

    /// The route with the greatest start that is not above `key`.
    fn floor(&self, table: TableId, key: &[u8]) -> Option<&Route> {
        let (_, route) = self.routes.range(..=(table, KeyBytes::from_slice(key))).next_back()?;
        (route.table == table).then_some(route)
    }

    /// The route of the partition that holds `key`.
    fn at(&self, table: TableId, key: &[u8]) -> Option<&Route> {
        self.floor(table, key).filter(|route| route.contains(key))
    }

    /// The route of the partition that holds the keys just below `key`; empty: the last.
    fn below(&self, table: TableId, key: &[u8]) -> Option<&Route> {
        let (_, route) = if key.is_empty() {
            self.routes.range(..(TableId(table.0 + 1), KeyBytes::new())).next_back()?
        } else {
            self.routes.range(..(table, KeyBytes::from_slice(key))).next_back()?
        };
        let reaches = route.end.is_empty() || (!key.is_empty() && key <= route.end.as_slice());
        (route.table == table && reaches).then_some(route)
    }

    /// Answers one look-up.
    #[must_use]
    pub fn look_up(&self, key: &ArchivedLookupKey<'static>) -> LookupOutcome<'_> {
        match key {
            ArchivedLookupKey::At(at) => self.route_outcome(at, Self::at),
            ArchivedLookupKey::Below(below) => self.route_outcome(below, Self::below),
            ArchivedLookupKey::Name(name) => {
                let table = self.names.get(name.as_str()).and_then(|id| self.tables.get(id));
                match table {
                    Some(table) => LookupOutcome::Table(Cow::Borrowed(table)),
                    None => self.not_found(),
                }
            }
        }
    }

    fn route_outcome<'a>(
        &'a self,
        asked: &ArchivedTableKey<'static>,
        find: impl Fn(&'a Self, TableId, &[u8]) -> Option<&'a Route>,
    ) -> LookupOutcome<'a> {
        let id = TableId::from(&asked.table);
        let Some(table) = self.tables.get(&id) else {
            return self.not_found();
        };
        match find(self, id, &asked.key) {
            Some(route) => LookupOutcome::Route(Cow::Borrowed(route), Cow::Borrowed(table)),
            None => LookupOutcome::RouteNotKnown(Cow::Borrowed(table)),
        }
    }

    fn not_found(&self) -> LookupOutcome<'static> {
        if self.version == Slot::ZERO { LookupOutcome::Warming } else { LookupOutcome::TableNotFound }
    }
}

/// A MemDS server.
#[derive(Debug)]
pub struct Memds {
    map: RoutingMap,
    peers: AHashMap<Endpoint, Peer>,
    keys_looked_up: u64,
}

impl Default for Memds {
    fn default() -> Self {
        Self::new()
    }
}

impl Memds {
    /// An empty server.
    #[must_use]
    pub fn new() -> Self {
        Self { map: RoutingMap::new(), peers: AHashMap::new(), keys_looked_up: 0 }
    }

    /// Counters for people.
    #[must_use]
    pub fn status(&self) -> MemdsStatus {
        MemdsStatus {
            keys_looked_up: self.keys_looked_up,
            tables: self.map.names.len() as u64,
            routes: self.map.routes.len() as u64,
            catalog_version: self.map.version,
        }
    }

    fn on_frame(
        &mut self,
        from: Endpoint,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) -> Result<(), Problem> {
        let answer = |kind| Header::new(kind, header.request);
        match header.kind {
            Kind::Lookup => {
                self.check_router(from)?;
                let lookup = access::<Lookup<'static>>(body)?;
                if lookup.keys.len() > LOOKUP_KEYS_MAX {
                    let message =
                        format!("{} look-ups in one frame, at most {LOOKUP_KEYS_MAX}", lookup.keys.len());
                    return Err(Problem::new(ErrorCode::Validation, message));
                }
                let outcomes: Vec<LookupOutcome<'_>> =
                    lookup.keys.iter().map(|key| self.map.look_up(key)).collect();
                self.keys_looked_up += outcomes.len() as u64;
                out.send(from, answer(Kind::LookupAnswer), &LookupAnswer { outcomes });
            }
            Kind::PublishRoutes => {
                self.check_storage(from)?;
                let routes = to_owned::<PublishRoutes>(access::<PublishRoutes>(body)?).routes;
                if let Some(route) = routes.iter().find(|route| !is_bounded_route(route)) {
                    let message = format!("the route of {} is longer than any can be", route.partition);
                    return Err(Problem::new(ErrorCode::Validation, message));
                }
                for route in routes {
                    self.map.take_route(route);
                }
            }
            Kind::PublishTables => {
                self.check_storage(from)?;
                let publish = to_owned::<PublishTables>(access::<PublishTables>(body)?);
                if let Some(tables) = publish.tables {
                    if let Some(table) = tables.iter().find(|table| !is_bounded_table(table)) {
                        let message = format!("{} has longer names than any table can have", table.id);
                        return Err(Problem::new(ErrorCode::Validation, message));
                    }
                    self.map.take_tables(publish.version, tables);
                }
                out.send(from, answer(Kind::PublishAnswer), &PublishAnswer { version: self.map.version });
            }
            Kind::Status => {
                out.send(from, answer(Kind::StatusAnswer), &StatusAnswer::Memds(self.status()));
            }
            kind if kind.is_answer() => {}
            kind => {
                let message = format!("a MemDS server does not serve {kind:?}; ask a router");
                return Err(Problem::new(ErrorCode::UnknownKind, message));
            }
        }
        Ok(())
    }

    /// Look-ups are bounded by the requests that routers admit; others have no use for them.
    fn check_router(&self, from: Endpoint) -> Result<(), Problem> {
        match self.peers.get(&from).map(|peer| peer.role) {
            Some(PeerRole::Router) => Ok(()),
            Some(PeerRole::Client | PeerRole::Memds | PeerRole::Storage) | None => {
                let message = "a MemDS server answers look-ups of routers only; ask a router";
                Err(Problem::new(ErrorCode::UnknownKind, message))
            }
        }
    }

    /// Only storage cores are an authority on what they hold.
    fn check_storage(&self, from: Endpoint) -> Result<(), Problem> {
        match self.peers.get(&from).map(|peer| peer.role) {
            Some(PeerRole::Storage) => Ok(()),
            Some(PeerRole::Client | PeerRole::Router | PeerRole::Memds) | None => {
                Err(Problem::new(ErrorCode::HandshakeRefused, "only storage cores publish routes"))
            }
        }
    }
}

/// Whether an answer of [`LOOKUP_KEYS_MAX`] such routes fits into a frame.
fn is_bounded_route(route: &Route) -> bool {
    route.start.len() <= BOUND_BYTES_MAX
        && route.end.len() <= BOUND_BYTES_MAX
        && route.members.len() <= ROUTE_MEMBERS_MAX
}

/// Whether an answer of [`LOOKUP_KEYS_MAX`] such tables fits into a frame.
fn is_bounded_table(table: &TableDescriptor) -> bool {
    let sort = table.schema.sort.as_ref().map_or(0, |sort| sort.name.len());
    table.name.len() <= TABLE_NAME_BYTES_MAX
        && table.schema.partition.name.len() <= KEY_NAME_BYTES_MAX
        && sort <= KEY_NAME_BYTES_MAX
}

impl Machine for Memds {
    fn step(&mut self, _: Now, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { from, header, body } => {
                if let Err(problem) = self.on_frame(from, header, body, out) {
                    out.send(from, Header::new(Kind::Error, header.request), &ErrorAnswer::from(&problem));
                }
            }
            Input::Up { endpoint, peer } => {
                self.peers.insert(endpoint, peer);
            }
            Input::Down { endpoint } => {
                self.peers.remove(&endpoint);
            }
            Input::Disk(_) | Input::Wake => {}
            Input::Drain => out.drained = true,
        }
    }

    fn end_turn(&mut self, _: Now, _: &mut Effects) {}

    fn wake_at(&self) -> Boot {
        Boot::NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::{Ballot, Epoch, NodeId, PartitionId};
    use evenkeel_wire::message::encode;
    use evenkeel_wire::message::routing::{LookupKey, TableKey};
    use evenkeel_wire::table::RouteGeneration;

    const TABLE: TableId = TableId(5);

    fn table() -> TableDescriptor {
        TableDescriptor { id: TABLE, name: "t".to_owned(), ..TableDescriptor::system() }
    }

    fn route(partition: u64, start: &str, end: &str, epoch: u32, round: u64) -> Route {
        let ballot = Ballot { round, node: NodeId(1) };
        Route {
            table: TABLE,
            partition: PartitionId(partition),
            start: KeyBytes::from_slice(start.as_bytes()),
            end: KeyBytes::from_slice(end.as_bytes()),
            generation: RouteGeneration { epoch: Epoch(epoch), division: 0, ballot },
            leader: Some(0),
            members: vec![],
        }
    }

    fn look_up<'a>(map: &'a RoutingMap, key: LookupKey<'static>) -> LookupOutcome<'a> {
        let mut body = Vec::new();
        encode(&Lookup { keys: vec![key] }, &mut body);
        map.look_up(&access::<Lookup<'static>>(&body).unwrap().keys[0])
    }

    fn partition(map: &RoutingMap, below: bool, key: &'static str) -> Option<u64> {
        let key = TableKey { table: TABLE, key: Cow::Borrowed(key.as_bytes()) };
        match look_up(map, if below { LookupKey::Below(key) } else { LookupKey::At(key) }) {
            LookupOutcome::Route(route, _) => Some(route.partition.0),
            _ => None,
        }
    }

    fn map() -> RoutingMap {
        let mut map = RoutingMap::new();
        map.take_tables(Slot(1), vec![table()]);
        for route in [route(1, "", "g", 1, 1), route(2, "g", "p", 1, 1), route(3, "p", "", 1, 1)] {
            map.take_route(route);
        }
        map
    }

    #[test]
    fn keys_find_their_partition_from_both_sides() {
        let map = map();
        for (key, at, below) in [("a", 1, 1), ("g", 2, 1), ("h", 2, 2), ("p", 3, 2), ("z", 3, 3)] {
            assert_eq!(
                (partition(&map, false, key), partition(&map, true, key)),
                (Some(at), Some(below)),
                "{key}"
            );
        }
        assert_eq!((partition(&map, false, ""), partition(&map, true, "")), (Some(1), Some(3)));
    }

    #[test]
    fn older_never_overwrites_newer() {
        let mut map = map();
        map.take_route(route(22, "g", "p", 1, 3));
        map.take_route(route(21, "g", "p", 1, 2));
        assert_eq!(partition(&map, false, "g"), Some(22));
        map.take_tables(Slot(1), vec![]);
        assert!(matches!(look_up(&map, LookupKey::Name("t".to_owned())), LookupOutcome::Table(_)));
    }

    #[test]
    fn the_halves_of_a_split_replace_the_whole_and_the_whole_cannot_come_back() {
        let mut map = map();
        map.take_route(route(4, "g", "k", 2, 2));
        assert_eq!((partition(&map, false, "g"), partition(&map, false, "k")), (Some(4), None));
        map.take_route(route(5, "k", "p", 2, 2));
        map.take_route(route(2, "g", "p", 1, 9));
        assert_eq!((partition(&map, false, "g"), partition(&map, false, "k")), (Some(4), Some(5)));
        assert_eq!((partition(&map, false, "a"), partition(&map, false, "p")), (Some(1), Some(3)));
    }

    #[test]
    fn a_full_map_still_takes_what_replaces_a_route_and_nothing_else() {
        let mut map = map();
        map.take_route_below(route(22, "g", "p", 1, 2), 3);
        assert_eq!(partition(&map, false, "g"), Some(22));
        let mut short = RoutingMap::new();
        short.take_tables(Slot(1), vec![table()]);
        short.take_route_below(route(1, "", "g", 1, 1), 1);
        short.take_route_below(route(2, "g", "", 1, 1), 1);
        assert_eq!((partition(&short, false, "a"), partition(&short, false, "g")), (Some(1), None));
    }

    #[test]
    fn a_server_that_has_heard_nothing_says_so() {
        let (fresh, heard) = (RoutingMap::new(), map());
        assert_eq!(look_up(&fresh, LookupKey::Name("t".to_owned())), LookupOutcome::Warming);
        assert_eq!(look_up(&heard, LookupKey::Name("u".to_owned())), LookupOutcome::TableNotFound);
    }

    #[test]
    fn a_dropped_table_takes_its_routes_along() {
        let mut map = map();
        map.take_tables(Slot(2), vec![]);
        assert!(map.routes.is_empty());
    }
}
