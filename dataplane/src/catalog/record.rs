//! A table's record in the catalogue: an ordinary item of the system table, so that it is replicated,
//! checkpointed and scanned like any other.
//!
//! ```text
//!  name    S   the table's name, which is the key
//!  status  S   for people
//!  format  N   of the record, 3
//!  record  B   archive of TableRecord
//! ```

use crate::btree::lookup::Found;
use bytes::Bytes;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::entry::WrittenItem;
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::item::{Item, Value, access, encode};
use evenkeel_wire::message::{access as access_archive, encode as encode_archive, to_owned};
use evenkeel_wire::table::{GroupConfig, TableDescriptor};
use rkyv::{Archive, Deserialize, Serialize};

/// The format that this build writes.
const FORMAT: u64 = 3;

/// A table, with the groups that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TableRecord {
    /// What clients and routers see.
    pub table: TableDescriptor,
    /// Its groups, in the order of their ranges.
    pub groups: Vec<GroupConfig>,
    /// A split that is wanted.
    pub splitting: Option<Splitting>,
    /// The number of the next partition: none is used twice.
    pub next_partition: u32,
}

/// A split that is wanted, and will be done.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Splitting {
    /// The group.
    pub parent: PartitionId,
    /// Who is to hold the upper part of its range.
    pub child: PartitionId,
    /// The first key of that.
    pub border: Vec<u8>,
}

impl TableRecord {
    /// The storage key of a table's record.
    #[must_use]
    pub fn key(name: &str) -> Bytes {
        let system = TableDescriptor::system();
        let key = system.schema.storage_key(&system.hash_key, &Item::new().with("name", name));
        Bytes::from(key.expect("table names are checked, and are short enough for a key").0)
    }

    /// The item that holds this record.
    #[must_use]
    pub fn to_item(&self) -> WrittenItem {
        let mut record = Vec::new();
        encode_archive(self, &mut record);
        let item = Item::new()
            .with("name", self.table.name.as_str())
            .with("status", format!("{:?}", self.table.status))
            .with("format", FORMAT)
            .with("record", Value::B(record));
        let archive = encode(&item).expect("a record is far below the limits of an item");
        WrittenItem { checksum: crc32c(&archive), archive: Bytes::from(archive) }
    }

    /// The record in an item of the system table. None if it is not one that this build can read.
    #[must_use]
    pub fn from_found(found: &Found<'_>) -> Option<Self> {
        let item = access(found.archive).ok()?.to_item().ok()?;
        if item.get("format") != Some(&Value::from(FORMAT)) {
            return None;
        }
        let Some(Value::B(record)) = item.get("record") else {
            return None;
        };
        let mut record = to_owned::<Self>(access_archive::<Self>(record).ok()?);
        record.table.generation = found.meta.slot.0;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::leaf::CellMeta;
    use evenkeel_wire::ids::{Slot, TableId};

    #[test]
    fn a_record_comes_back_with_its_cells_slot_as_generation() {
        let table =
            TableDescriptor { name: "orders".to_owned(), id: TableId(9), ..TableDescriptor::system() };
        let splitting =
            Some(Splitting { parent: PartitionId(7), child: PartitionId(8), border: b"m".to_vec() });
        let record = TableRecord { table, groups: Vec::new(), splitting, next_partition: 9 };
        let WrittenItem { checksum, archive } = record.to_item();
        let meta = CellMeta { slot: Slot(44), timestamp: 0, checksum };
        let read = TableRecord::from_found(&Found { meta, archive: &archive }).unwrap();
        assert_eq!((read.table.name.as_str(), read.table.generation), ("orders", 44));
        assert_eq!((read.next_partition, &read.splitting), (9, &record.splitting));
        assert_ne!(TableRecord::key("orders"), TableRecord::key("order"));
    }
}
