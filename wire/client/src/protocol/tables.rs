//! What the client remembers of tables: their descriptors, by name.
//!
//! A call names a table; its bodies need the table's id, key schema and hash key. A name that is dropped and
//! created again gets a new id, so a remembered descriptor can be of a table that is gone. Then servers
//! answer that there is no such table, and the [`call`](super::call) forgets it here and describes it again,
//! once.

use evenkeel_wire::ids::TableId;
use evenkeel_wire::table::TableDescriptor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables that are remembered. When there are more, all are forgotten: each costs one request to learn again.
pub const TABLES_REMEMBERED_MAX: usize = 10_000;

/// Descriptors by name.
#[derive(Clone, Debug)]
pub struct TableCache {
    tables: BTreeMap<String, Arc<TableDescriptor>>,
}

impl Default for TableCache {
    fn default() -> Self {
        Self::new()
    }
}

impl TableCache {
    /// A cache that knows the table of tables, as everyone does.
    #[must_use]
    pub fn new() -> Self {
        let mut cache = Self { tables: BTreeMap::new() };
        cache.insert(TableDescriptor::system());
        cache
    }

    /// The table of this name, if it is remembered.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<TableDescriptor>> {
        self.tables.get(name).cloned()
    }

    /// Remembers a table.
    pub fn insert(&mut self, table: TableDescriptor) {
        if self.tables.len() >= TABLES_REMEMBERED_MAX {
            *self = Self { tables: BTreeMap::new() };
            self.insert(TableDescriptor::system());
        }
        self.tables.insert(table.name.clone(), Arc::new(table));
    }

    /// Forgets a table.
    pub fn forget(&mut self, name: &str) {
        let is_system = self.tables.get(name).is_some_and(|table| table.id == TableId::SYSTEM);
        if !is_system {
            self.tables.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::table::SYSTEM_TABLE_NAME;

    fn table(name: String) -> TableDescriptor {
        TableDescriptor { id: TableId(9), name, ..TableDescriptor::system() }
    }

    #[test]
    fn the_table_of_tables_is_always_known() {
        let mut cache = TableCache::new();
        cache.forget(SYSTEM_TABLE_NAME);
        for place in 0..=TABLES_REMEMBERED_MAX {
            cache.insert(table(place.to_string()));
        }
        assert_eq!(cache.get(SYSTEM_TABLE_NAME).unwrap().id, TableId::SYSTEM);
        assert!(cache.tables.len() <= TABLES_REMEMBERED_MAX);
    }

    #[test]
    fn a_table_is_remembered_until_it_is_forgotten() {
        let mut cache = TableCache::new();
        assert!(cache.get("t").is_none());
        cache.insert(table("t".to_owned()));
        assert_eq!(cache.get("t").unwrap().id, TableId(9));
        cache.forget("t");
        assert!(cache.get("t").is_none());
    }
}
