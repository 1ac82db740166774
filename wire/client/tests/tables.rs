//! Creating, describing, deleting and listing tables, and asking processes about themselves, with both
//! clients.

mod harness;

use evenkeel_client::Error;
use evenkeel_client::protocol::operation::Operation;
use evenkeel_client::protocol::operation::status::{Status, Topology};
use evenkeel_client::protocol::operation::table::{CreateTable, DeleteTable, DescribeTable, ListTables};
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::key::KeyType;
use evenkeel_wire::message::catalog::{self, ListTablesAnswer, TableAnswer};
use evenkeel_wire::message::status::{MemdsStatus, StatusAnswer, TopologyAnswer};
use evenkeel_wire::message::{access, to_owned};
use evenkeel_wire::table::{Address, Billing, TableDescriptor, TableStatus};
use harness::{Reply, Seen, Server, TestShell, table};
use std::net::SocketAddr;
use std::time::Duration;

on_both_clients! {
    a_table_is_created_and_waited_for
    a_lost_creation_that_took_place_is_recognised
    a_table_of_another_shape_is_not_taken_for_ours
    a_table_that_exists_is_told
    a_table_is_deleted_and_waited_for
    a_lost_deletion_that_took_place_is_recognised
    a_lost_creation_that_cannot_be_compared_in_time_is_not_called_without_effect
    a_lost_creation_whose_description_is_refused_is_not_called_without_effect
    a_table_that_is_not_active_in_time_is_not_called_without_effect
    a_table_that_is_not_gone_in_time_is_not_called_without_effect
    all_names_are_listed
    processes_are_asked_about_themselves
}

fn create(wait: bool) -> CreateTable {
    let TableDescriptor { name, schema, billing, .. } = table(1, "t");
    CreateTable::new(catalog::CreateTable { name, schema, billing, partitions: 0 }, wait)
}

fn with_status(status: TableStatus) -> TableAnswer {
    TableAnswer { table: TableDescriptor { status, ..table(1, "t") } }
}

/// The kind that must be asked for next, and the answer.
type Step = (Kind, Box<dyn Fn(&Seen) -> Reply + Send>);

/// A script that goes through these steps.
fn steps(steps: Vec<Step>) -> impl FnMut(&Seen) -> Option<Vec<Reply>> + Send + 'static {
    let mut steps = steps.into_iter();
    move |seen| {
        let (kind, answer) = steps.next()?;
        assert_eq!(seen.header.kind, kind);
        Some(vec![answer(seen)])
    }
}

fn a_table_is_created_and_waited_for<S: TestShell>() {
    let server = Server::start(
        vec![],
        steps(vec![
            (Kind::CreateTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Creating)))),
            (Kind::DescribeTable, Box::new(|seen| seen.refuse(ErrorCode::TableNotFound))),
            (Kind::DescribeTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Creating)))),
            (Kind::DescribeTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Active)))),
        ]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    assert_eq!(client.run(create(true)).expect("created"), table(1, "t"));
    let created = server.seen(&[Kind::CreateTable]);
    let created =
        to_owned::<catalog::CreateTable>(access::<catalog::CreateTable>(&created[0].body).expect("a table"));
    assert_eq!((created.name.as_str(), created.billing), ("t", Billing::OnDemand));
}

fn a_lost_creation_that_took_place_is_recognised<S: TestShell>() {
    let server = Server::start(
        vec![],
        steps(vec![
            (Kind::CreateTable, Box::new(|_| Reply::Close)),
            (Kind::CreateTable, Box::new(|seen| seen.refuse(ErrorCode::TableExists))),
            (Kind::DescribeTable, Box::new(|seen| seen.refuse(ErrorCode::TableNotFound))),
            (Kind::DescribeTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Creating)))),
            (Kind::DescribeTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Active)))),
        ]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    assert_eq!(client.run(create(true)).expect("created").status, TableStatus::Active);
}

fn a_table_of_another_shape_is_not_taken_for_ours<S: TestShell>() {
    let server = Server::start(
        vec![],
        steps(vec![
            (Kind::CreateTable, Box::new(|_| Reply::Close)),
            (Kind::CreateTable, Box::new(|seen| seen.refuse(ErrorCode::TableExists))),
            (
                Kind::DescribeTable,
                Box::new(|seen| seen.answer(&TableAnswer { table: harness::sorted_table(9, "t") })),
            ),
        ]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(create(true)).expect_err("somebody else's table");
    assert_eq!(error.code(), Some(ErrorCode::TableExists));
}

fn a_table_that_exists_is_told<S: TestShell>() {
    let server = Server::start(
        vec![],
        steps(vec![(Kind::CreateTable, Box::new(|seen| seen.refuse(ErrorCode::TableExists)))]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(create(false)).expect_err("it exists");
    assert_eq!(error.code(), Some(ErrorCode::TableExists));
}

fn a_table_is_deleted_and_waited_for<S: TestShell>() {
    let server = Server::start(
        vec![],
        steps(vec![
            (Kind::DeleteTable, Box::new(|seen| seen.refuse(ErrorCode::TableNotReady))),
            (Kind::DeleteTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Deleting)))),
            (Kind::DescribeTable, Box::new(|seen| seen.answer(&with_status(TableStatus::Deleting)))),
            (Kind::DescribeTable, Box::new(|seen| seen.refuse(ErrorCode::TableNotFound))),
        ]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(DeleteTable::new("t", true)).expect("deleted");
    let error = client.run(DescribeTable::new("t"));
    assert!(error.expect_err("it is gone").is_table_not_found());
}

fn a_lost_deletion_that_took_place_is_recognised<S: TestShell>() {
    let server = Server::start(
        vec![],
        steps(vec![
            (Kind::DeleteTable, Box::new(|_| Reply::Close)),
            (Kind::DeleteTable, Box::new(|seen| seen.refuse(ErrorCode::TableNotFound))),
            (Kind::DeleteTable, Box::new(|seen| seen.refuse(ErrorCode::TableNotFound))),
        ]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    client.run(DeleteTable::new("t", true)).expect("deleted");
    let error = client.run(DeleteTable::new("t", true)).expect_err("there was none");
    assert!(error.is_table_not_found());
}

/// What a call with a short deadline ends with must not claim that nothing changed, and its last answer has
/// this code. The script goes through these steps, and answers every description like `describe`.
fn check_may_have_changed<S: TestShell, O: Operation>(
    operation: O,
    steps: Vec<Step>,
    describe: impl Fn(&Seen) -> Reply + Send + 'static,
    code: ErrorCode,
) {
    let mut steps = steps.into_iter();
    let server = Server::start(vec![], move |seen| {
        if seen.header.kind == Kind::DescribeTable {
            return Some(vec![describe(seen)]);
        }
        let (kind, answer) = steps.next()?;
        assert_eq!(seen.header.kind, kind);
        Some(vec![answer(seen)])
    });
    let client = S::connect(server.builder().deadline(Duration::from_millis(300))).expect("a connection");
    let error = client.run(operation).err().expect("it is not done in time");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!((error.code(), error.may_have_executed()), (Some(code), true), "{error}");
}

fn lost_creation() -> Vec<Step> {
    vec![
        (Kind::CreateTable, Box::new(|_| Reply::Close)),
        (Kind::CreateTable, Box::new(|seen| seen.refuse(ErrorCode::TableExists))),
    ]
}

fn a_lost_creation_that_cannot_be_compared_in_time_is_not_called_without_effect<S: TestShell>() {
    let code = ErrorCode::MetadataWarming;
    check_may_have_changed::<S, _>(create(false), lost_creation(), move |seen| seen.refuse(code), code);
}

fn a_lost_creation_whose_description_is_refused_is_not_called_without_effect<S: TestShell>() {
    let code = ErrorCode::Validation;
    check_may_have_changed::<S, _>(create(false), lost_creation(), move |seen| seen.refuse(code), code);
}

fn a_table_that_is_not_active_in_time_is_not_called_without_effect<S: TestShell>() {
    let creating = |seen: &Seen| seen.answer(&with_status(TableStatus::Creating));
    let steps: Vec<Step> = vec![(Kind::CreateTable, Box::new(creating))];
    check_may_have_changed::<S, _>(create(true), steps, creating, ErrorCode::TableNotReady);
}

fn a_table_that_is_not_gone_in_time_is_not_called_without_effect<S: TestShell>() {
    let deleting = |seen: &Seen| seen.answer(&with_status(TableStatus::Deleting));
    let steps: Vec<Step> = vec![(Kind::DeleteTable, Box::new(deleting))];
    check_may_have_changed::<S, _>(DeleteTable::new("t", true), steps, deleting, ErrorCode::TableNotReady);
}

fn all_names_are_listed<S: TestShell>() {
    let server = Server::start(vec![], |seen| {
        let list = access::<catalog::ListTables>(&seen.body).expect("a list");
        let (names, more) = if list.after.is_empty() {
            (vec!["a".to_owned(), "b".to_owned()], true)
        } else {
            (vec!["c".to_owned()], false)
        };
        Some(vec![seen.answer(&ListTablesAnswer { names, more })])
    });
    let client = S::connect(server.builder()).expect("a connection");
    assert_eq!(client.run(ListTables::default()).expect("names"), ["a", "b", "c"]);
}

fn processes_are_asked_about_themselves<S: TestShell>() {
    let memds = Server::start(vec![], |seen| {
        let status = MemdsStatus { tables: 3, ..MemdsStatus::default() };
        Some(vec![seen.answer(&StatusAnswer::Memds(status))])
    });
    let address: SocketAddr = memds.endpoint().parse().expect("an address");
    let topology = TopologyAnswer { nodes: vec![], memds: vec![Address::from(address)], routers: vec![] };
    let told = topology.clone();
    let router = Server::start(vec![], move |seen| Some(vec![seen.answer(&told)]));
    let client = S::connect(router.builder()).expect("a connection");
    assert_eq!(client.run(Topology).expect("a topology"), topology);
    let status = client.run(Status::new(topology.memds[0].to_string())).expect("a status");
    assert!(matches!(status, StatusAnswer::Memds(MemdsStatus { tables: 3, .. })));
    assert_eq!(router.seen(&[Kind::Status]).len(), 0);
    memds.wait_until_deserted();
}

#[test]
fn builders_say_what_they_were_told() {
    let server = Server::start(vec![], |seen| Some(vec![seen.answer(&with_status(TableStatus::Active))]));
    let client = server.builder().connect().expect("a connection");
    let create = client.create_table("t").partition_key("pk", KeyType::S).sort_key("sk", KeyType::B);
    create.provisioned(30, 10).partitions(4).wait_until_active().send().expect("created");
    let created = server.seen(&[Kind::CreateTable]);
    let created =
        to_owned::<catalog::CreateTable>(access::<catalog::CreateTable>(&created[0].body).expect("a table"));
    assert_eq!((created.partitions, created.schema.sort.expect("a sort key").key_type), (4, KeyType::B));
    assert!(matches!(created.billing, Billing::Provisioned(units) if units.write_units == 10));
}
