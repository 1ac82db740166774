//! Tables: create, describe, delete, split, list.
//!
//! A request about a table has no token. When an answer is lost and the repetition is told that the table
//! exists (or is gone), the operation finds out whether that was its own doing. A call that is given up while
//! it finds out, or while it waits for the table to be active or gone, ends with
//! [`OutcomeUnknown`](Error::OutcomeUnknown): it may have changed something, or has.

use super::{Context, Operation, Progress, Unready, expect};
use crate::error::Error;
use crate::protocol::answer::{Answer, Refusal};
use crate::protocol::session::Session;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::{PartitionId, TableId};
use evenkeel_wire::message::catalog::{self, ListTablesAnswer, TableAnswer};
use evenkeel_wire::message::{encode, to_owned};
use evenkeel_wire::table::{TableDescriptor, TableStatus};

/// Creates a table.
#[derive(Clone, Debug)]
pub struct CreateTable {
    table: catalog::CreateTable,
    wait: bool,
    stage: CreateStage,
}

#[derive(Clone, Debug)]
enum CreateStage {
    Create,
    /// A table of this name exists, maybe through a request of ours whose answer was lost.
    Compare(Problem),
    /// It is created, and not yet active.
    Wait,
}

/// Describes a table.
#[derive(Clone, Debug)]
pub struct DescribeTable {
    name: String,
}

/// Deletes a table.
#[derive(Clone, Debug)]
pub struct DeleteTable {
    name: String,
    wait: bool,
    /// The table, once its deletion has begun.
    deleting: Option<TableId>,
}

/// Divides a table's partition.
#[derive(Clone, Debug)]
pub struct SplitTable {
    name: String,
    partition: PartitionId,
    border: Vec<u8>,
    /// The table as it was found: a repetition divides nothing again.
    found: Option<TableDescriptor>,
}

/// Lists the names of all tables.
#[derive(Clone, Debug, Default)]
pub struct ListTables {
    names: Vec<String>,
}

impl CreateTable {
    /// Creates this table, and waits until it is active if `wait` says so.
    #[must_use]
    pub fn new(table: catalog::CreateTable, wait: bool) -> Self {
        Self { table, wait, stage: CreateStage::Create }
    }

    fn is_what_was_asked_for(&self, table: &TableDescriptor) -> bool {
        table.schema == self.table.schema
            && table.billing == self.table.billing
            && (self.table.partitions == 0 || self.table.partitions == table.partitions)
    }
}

impl DescribeTable {
    /// Describes the table of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl DeleteTable {
    /// Deletes the table of this name, and waits until it is gone if `wait` says so.
    #[must_use]
    pub fn new(name: impl Into<String>, wait: bool) -> Self {
        Self { name: name.into(), wait, deleting: None }
    }
}

impl SplitTable {
    /// Divides this partition at `border`, a storage key. [`PartitionId::NONE`] is the only one there is; an
    /// empty border one in the middle.
    #[must_use]
    pub fn new(name: impl Into<String>, partition: PartitionId, border: Vec<u8>) -> Self {
        Self { name: name.into(), partition, border, found: None }
    }
}

impl Operation for SplitTable {
    type Output = TableDescriptor;

    fn encode(&mut self, _: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        let Some(found) = &self.found else {
            return Ok(encode_describe(&self.name, body));
        };
        let (name, border) = (self.name.clone(), self.border.clone());
        let partition = self.partition;
        encode(&catalog::SplitTable { name, generation: found.generation, partition, border }, body);
        Ok(Kind::SplitTable)
    }

    fn absorb(&mut self, answer: &Answer<'_>, session: &Session) -> Result<Progress<TableDescriptor>, Error> {
        let table = descriptor(answer)?;
        session.remember_table(table.clone());
        match &self.found {
            None => {
                self.found = Some(table);
                Ok(Progress::Follow)
            }
            Some(found) if table.partitions > found.partitions => Ok(Progress::Done(table)),
            Some(_) => {
                // What is known of the table was out of date: nothing was divided.
                self.found = None;
                Ok(Progress::Refused(not_yet(&self.name, "has just changed and is not known everywhere")))
            }
        }
    }

    fn is_write(&self) -> bool {
        self.found.is_some()
    }
}

impl Operation for CreateTable {
    type Output = TableDescriptor;

    fn encode(&mut self, _: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        match self.stage {
            CreateStage::Create => {
                encode(&self.table, body);
                Ok(Kind::CreateTable)
            }
            CreateStage::Compare(_) | CreateStage::Wait => Ok(encode_describe(&self.table.name, body)),
        }
    }

    fn absorb(&mut self, answer: &Answer<'_>, session: &Session) -> Result<Progress<TableDescriptor>, Error> {
        let table = descriptor(answer)?;
        match &self.stage {
            CreateStage::Compare(problem) if !self.is_what_was_asked_for(&table) => {
                return Err(problem.clone().into());
            }
            CreateStage::Create | CreateStage::Compare(_) => {}
            CreateStage::Wait if table.status != TableStatus::Active => {
                return Ok(Progress::Refused(not_yet(&self.table.name, "exists and is not active")));
            }
            CreateStage::Wait => {}
        }
        session.remember_table(table.clone());
        if self.wait && table.status != TableStatus::Active {
            self.stage = CreateStage::Wait;
            return Ok(Progress::Follow);
        }
        Ok(Progress::Done(table))
    }

    fn refused(
        &mut self,
        refusal: &Refusal,
        outcome_unknown: bool,
        _: &Session,
    ) -> Option<Progress<TableDescriptor>> {
        let code = refusal.problem.code;
        match self.stage {
            CreateStage::Create if code == ErrorCode::TableExists && outcome_unknown => {
                self.stage = CreateStage::Compare(refusal.problem.clone());
                Some(Progress::Follow)
            }
            // The catalogue has it; the servers that describe tables hear of it in a moment.
            CreateStage::Compare(_) | CreateStage::Wait if code == ErrorCode::TableNotFound => {
                Some(Progress::Refused(not_yet(&self.table.name, "exists and is not known everywhere")))
            }
            CreateStage::Create | CreateStage::Compare(_) | CreateStage::Wait => None,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.stage, CreateStage::Create)
    }
}

impl Operation for DescribeTable {
    type Output = TableDescriptor;

    fn encode(&mut self, _: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        Ok(encode_describe(&self.name, body))
    }

    fn absorb(&mut self, answer: &Answer<'_>, session: &Session) -> Result<Progress<TableDescriptor>, Error> {
        let table = descriptor(answer)?;
        session.remember_table(table.clone());
        Ok(Progress::Done(table))
    }

    fn refused(
        &mut self,
        refusal: &Refusal,
        _: bool,
        session: &Session,
    ) -> Option<Progress<TableDescriptor>> {
        if refusal.problem.code == ErrorCode::TableNotFound {
            session.forget_table(&self.name);
        }
        None
    }
}

impl Operation for DeleteTable {
    type Output = ();

    fn encode(&mut self, _: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        if self.deleting.is_some() {
            return Ok(encode_describe(&self.name, body));
        }
        encode(&catalog::DeleteTable { name: self.name.clone() }, body);
        Ok(Kind::DeleteTable)
    }

    fn absorb(&mut self, answer: &Answer<'_>, session: &Session) -> Result<Progress<()>, Error> {
        let table = descriptor(answer)?;
        match self.deleting {
            None => {
                session.forget_table(&self.name);
                self.deleting = Some(table.id);
                Ok(if self.wait { Progress::Follow } else { Progress::Done(()) })
            }
            Some(deleting) if table.id == deleting => {
                Ok(Progress::Refused(not_yet(&self.name, "is being deleted and is not gone")))
            }
            Some(_) => Ok(Progress::Done(())),
        }
    }

    fn refused(
        &mut self,
        refusal: &Refusal,
        outcome_unknown: bool,
        session: &Session,
    ) -> Option<Progress<()>> {
        let gone = refusal.problem.code == ErrorCode::TableNotFound;
        let ours = self.deleting.is_some() || outcome_unknown;
        if gone {
            session.forget_table(&self.name);
        }
        (gone && ours).then_some(Progress::Done(()))
    }

    fn is_write(&self) -> bool {
        self.deleting.is_none()
    }
}

impl Operation for ListTables {
    type Output = Vec<String>;

    fn encode(&mut self, _: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        let after = self.names.last().cloned().unwrap_or_default();
        encode(&catalog::ListTables { after }, body);
        Ok(Kind::ListTables)
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<Vec<String>>, Error> {
        let list = expect::<ListTablesAnswer>(answer)?;
        self.names.extend(list.names.iter().map(|name| name.as_str().to_owned()));
        if list.more && !list.names.is_empty() {
            return Ok(Progress::Next);
        }
        Ok(Progress::Done(std::mem::take(&mut self.names)))
    }
}

/// Appends a request for a table's description.
pub(crate) fn encode_describe(name: &str, body: &mut Vec<u8>) -> Kind {
    encode(&catalog::DescribeTable { name: name.to_owned() }, body);
    Kind::DescribeTable
}

/// The table in an answer.
pub(crate) fn descriptor(answer: &Answer<'_>) -> Result<TableDescriptor, Error> {
    Ok(to_owned::<TableAnswer>(expect::<TableAnswer>(answer)?).table)
}

fn not_yet(name: &str, what: &str) -> Refusal {
    Problem::new(ErrorCode::TableNotReady, format!("the table {name} {what} yet")).into()
}
