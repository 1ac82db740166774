//! The edge: the one place where what a client sends is validated fully.
//!
//! In two steps. [`lookup_key`] reads just enough of a body to know which route it needs. [`validate`] checks
//! everything else once the table is known: the item's canonical form, size and depth, that its key is the
//! key that the envelope names, expressions. Behind the edge, cores verify checksums and envelopes only.

use crate::limits::BOUND_BYTES_MAX;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::expression::{access_condition, access_update, validate_condition, validate_update};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::TableId;
use evenkeel_wire::item::access_validated;
use evenkeel_wire::limits::TABLE_NAME_BYTES_MAX;
use evenkeel_wire::message::access;
use evenkeel_wire::message::catalog::{CreateTable, DeleteTable, DescribeTable, SplitTable};
use evenkeel_wire::message::request::{ArchivedRange, Delete, Get, Put, Query, Scan, Update};
use evenkeel_wire::message::routing::{LookupKey, TableKey};
use evenkeel_wire::table::{TableDescriptor, TableStatus};
use std::borrow::Cow;

/// What a request needs before it can go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The look-up that finds it.
    pub key: LookupKey<'static>,
    /// Whether only the leader may serve the request.
    pub strong: bool,
}

/// Reads which route a request needs.
///
/// # Errors
/// When the body is not one of its kind, its key is longer than any can be, or the kind is not a client's.
pub fn lookup_key(kind: Kind, body: &[u8]) -> Result<Wanted, Problem> {
    let at = |table: TableId, key: &[u8]| Ok::<_, Problem>(LookupKey::At(table_key(table, key)?));
    let strong = |key| Ok(Wanted { key, strong: true });
    match kind {
        Kind::Put => {
            let put = access::<Put<'static>>(body)?;
            strong(at((&put.table).into(), &put.key)?)
        }
        Kind::Delete => {
            let delete = access::<Delete<'static>>(body)?;
            strong(at((&delete.table).into(), &delete.key)?)
        }
        Kind::Update => {
            let update = access::<Update<'static>>(body)?;
            strong(at((&update.table).into(), &update.key)?)
        }
        Kind::Get => {
            let get = access::<Get<'static>>(body)?;
            Ok(Wanted { key: at((&get.table).into(), &get.key)?, strong: get.strong })
        }
        Kind::Query => range_key(&access::<Query<'static>>(body)?.0),
        Kind::Scan => range_key(&access::<Scan<'static>>(body)?.0),
        Kind::DescribeTable => {
            let name = name_of(&access::<DescribeTable>(body)?.name)?;
            strong(LookupKey::Name(name.to_owned()))
        }
        Kind::CreateTable => {
            name_of(&access::<CreateTable>(body)?.name)?;
            strong(at(TableId::SYSTEM, b"")?)
        }
        Kind::DeleteTable => {
            name_of(&access::<DeleteTable>(body)?.name)?;
            strong(at(TableId::SYSTEM, b"")?)
        }
        Kind::SplitTable => {
            let split = access::<SplitTable>(body)?;
            name_of(&split.name)?;
            check_bound(&split.border)?;
            strong(at(TableId::SYSTEM, b"")?)
        }
        Kind::ListTables => strong(at(TableId::SYSTEM, b"")?),
        kind => {
            let message = format!("a router does not serve {kind:?}");
            Err(Problem::new(ErrorCode::UnknownKind, message))
        }
    }
}

fn name_of(name: &str) -> Result<&str, Problem> {
    if name.len() > TABLE_NAME_BYTES_MAX {
        return Err(invalid(format!("a table name has at most {TABLE_NAME_BYTES_MAX} bytes")));
    }
    Ok(name)
}

fn range_key(range: &ArchivedRange<'static>) -> Result<Wanted, Problem> {
    let table = TableId::from(&range.table);
    let key = if range.forward {
        LookupKey::At(table_key(table, &range.lower)?)
    } else {
        LookupKey::Below(table_key(table, &range.upper)?)
    };
    Ok(Wanted { key, strong: range.strong })
}

/// A key to look up, unless it is longer than any can be: what goes to MemDS is bounded before the table is
/// known.
fn table_key(table: TableId, key: &[u8]) -> Result<TableKey<'static>, Problem> {
    check_bound(key)?;
    Ok(TableKey { table, key: Cow::Owned(key.to_vec()) })
}

fn check_bound(key: &[u8]) -> Result<(), Problem> {
    if key.len() <= BOUND_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!("a key of {} bytes; keys have at most {BOUND_BYTES_MAX}", key.len())))
}

/// Checks everything that can be checked without the data.
///
/// # Errors
/// What is wrong, typed.
pub fn validate(kind: Kind, body: &[u8], table: &TableDescriptor) -> Result<(), Problem> {
    match kind {
        Kind::Put => {
            check_writable(table)?;
            let put = access::<Put<'static>>(body)?;
            let item = access_validated(&put.item).map_err(|error| Problem::from(&error))?;
            let key = table.schema.storage_key(&table.hash_key, item.view());
            check_same_key(&key.map_err(|error| Problem::from(&error))?.0, &put.key)?;
            check_checksum(&put.item, put.item_checksum.into())?;
            check_condition(&put.condition)
        }
        Kind::Delete => {
            check_writable(table)?;
            let delete = access::<Delete<'static>>(body)?;
            check_key(table, &delete.key)?;
            check_condition(&delete.condition)
        }
        Kind::Update => {
            check_writable(table)?;
            let update = access::<Update<'static>>(body)?;
            let key_item = access_validated(&update.key_item).map_err(|error| Problem::from(&error))?;
            let key = table.schema.storage_key_of_key(&table.hash_key, key_item.view());
            check_same_key(&key.map_err(|error| Problem::from(&error))?.0, &update.key)?;
            let program = access_update(&update.update).map_err(|error| Problem::from(&error))?;
            validate_update(program).map_err(|error| Problem::from(&error))?;
            program.check_keys(&table.schema).map_err(|error| Problem::from(&error))?;
            check_condition(&update.condition)
        }
        Kind::Get => {
            check_active(table)?;
            check_key(table, &access::<Get<'static>>(body)?.key)
        }
        Kind::Query => check_range(table, &access::<Query<'static>>(body)?.0),
        Kind::Scan => check_range(table, &access::<Scan<'static>>(body)?.0),
        // The catalogue checks what is asked of it.
        _ => Ok(()),
    }
}

fn check_active(table: &TableDescriptor) -> Result<(), Problem> {
    let what = match table.status {
        TableStatus::Active => return Ok(()),
        TableStatus::Creating => "being created",
        TableStatus::Deleting => "being deleted",
    };
    Err(Problem::new(ErrorCode::TableNotReady, format!("the table {} is {what}", table.name)))
}

fn check_writable(table: &TableDescriptor) -> Result<(), Problem> {
    if table.id == TableId::SYSTEM {
        return Err(invalid(
            "the table of tables is changed by creating and deleting tables only".to_owned(),
        ));
    }
    check_active(table)
}

fn check_key(table: &TableDescriptor, key: &[u8]) -> Result<(), Problem> {
    table.schema.check_storage_key(&table.hash_key, key).map_err(|error| Problem::from(&error))
}

fn check_same_key(of_item: &[u8], of_envelope: &[u8]) -> Result<(), Problem> {
    if of_item == of_envelope {
        return Ok(());
    }
    Err(invalid("the request's key is not the key of its item".to_owned()))
}

fn check_checksum(item: &[u8], announced: u32) -> Result<(), Problem> {
    let got = crc32c(item);
    if got == announced {
        return Ok(());
    }
    let message = format!("the item's checksum is announced as {announced:08x}, its bytes give {got:08x}");
    Err(Problem::new(ErrorCode::ChecksumMismatch, message))
}

fn check_condition(condition: &[u8]) -> Result<(), Problem> {
    if condition.is_empty() {
        return Ok(());
    }
    let checked = access_condition(condition).and_then(validate_condition);
    checked.map_err(|error| Problem::from(&error))
}

fn check_range(table: &TableDescriptor, range: &ArchivedRange<'static>) -> Result<(), Problem> {
    check_active(table)?;
    for bound in [&range.lower, &range.upper] {
        check_bound(bound)?;
    }
    check_condition(&range.filter)
}

fn invalid(message: String) -> Problem {
    Problem::new(ErrorCode::Validation, message)
}
