//! A server that speaks real frames over a real loopback socket and answers as a test's script says. Every
//! request is checked with the router's own edge before the script sees it.
//!
//! Each connection has a thread. What the script returns is sent as it is; a script that returns nothing
//! leaves the client waiting.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use evenkeel_client::protocol::operation::Operation;
use evenkeel_client::request::{Prepared, Shell};
use evenkeel_client::{AsyncClient, Client, ClientBuilder, Error, Item, KeyType};
use evenkeel_router::edge;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{self, Identity, Peer, PeerRole, refuse};
use evenkeel_wire::ids::{Incarnation, PartitionId, RequestId, Slot, TableId};
use evenkeel_wire::item;
use evenkeel_wire::key::{HashKey, KeySchema};
use evenkeel_wire::message::catalog::{DescribeTable, TableAnswer};
use evenkeel_wire::message::request::{Position, Put, Row, Token, WriteAnswer};
use evenkeel_wire::message::routing::LookupKey;
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::table::TableDescriptor;
use std::borrow::Cow;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

/// The server's clock at the first handshake of every test.
pub(crate) const SERVER_MS: u64 = 1_760_000_000_000;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which connection it came on, counted from zero.
    pub(crate) connection: usize,
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Send(Vec<u8>),
    Close,
}

impl Seen {
    pub(crate) fn answer<T: Body + for<'a> Encode<'a>>(&self, body: &T) -> Reply {
        let mut out = Vec::new();
        seal(&mut out, Header::new(T::KIND, self.header.request), |out| encode(body, out));
        Reply::Send(out)
    }

    pub(crate) fn refuse(&self, code: ErrorCode) -> Reply {
        let mut out = Vec::new();
        refuse(&Problem::new(code, "as the script says"), self.header.request, &mut out);
        Reply::Send(out)
    }

    /// The answer to a write that was done.
    pub(crate) fn written(&self) -> Reply {
        self.answer(&WriteAnswer { position: position(), timestamp: 77, item: None })
    }

    /// The token of a put.
    pub(crate) fn token(&self) -> Token {
        Token::from(&access::<Put<'static>>(&self.body).expect("a put").token)
    }
}

pub(crate) fn position() -> Position {
    Position { partition: PartitionId(7), slot: Slot(9) }
}

/// An item as a server returns it.
pub(crate) fn row(item: &Item) -> Row<'static> {
    let archive = item::encode(item).expect("an item");
    Row { checksum: crc32c(&archive), item: Cow::Owned(archive) }
}

/// A table with a partition key "pk" of type S.
pub(crate) fn table(id: u64, name: &str) -> TableDescriptor {
    TableDescriptor {
        id: TableId(id),
        name: name.to_owned(),
        schema: KeySchema::partition_only("pk", KeyType::S),
        hash_key: HashKey([id as u8; 16]),
        ..TableDescriptor::system()
    }
}

/// The same with a sort key "sk" of type N.
pub(crate) fn sorted_table(id: u64, name: &str) -> TableDescriptor {
    let table = table(id, name);
    TableDescriptor { schema: table.schema.clone().with_sort("sk", KeyType::N), ..table }
}

pub(crate) fn key(text: &str) -> Item {
    Item::new().with("pk", text)
}

/// How the server greets a connection.
#[derive(Clone, Debug)]
pub(crate) enum Greeting {
    /// As a router whose clock stands there.
    Welcome(u64),
    Refuse(Problem),
    Send(Vec<u8>),
    Close,
}

type Script = dyn FnMut(&Seen) -> Option<Vec<Reply>> + Send;

/// See the module.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    tables: Mutex<Vec<TableDescriptor>>,
    greeting: Mutex<Box<dyn FnMut(usize) -> Greeting + Send>>,
    script: Mutex<Box<Script>>,
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    faults: Mutex<Vec<String>>,
    open: Mutex<usize>,
    writers: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// A server that knows these tables. The script sees every request but those for descriptions of tables;
    /// where it returns `None` the test is wrong.
    pub(crate) fn start(
        tables: Vec<TableDescriptor>,
        script: impl FnMut(&Seen) -> Option<Vec<Reply>> + Send + 'static,
    ) -> Self {
        Self::greeting(tables, |_| Greeting::Welcome(SERVER_MS), script)
    }

    pub(crate) fn greeting(
        tables: Vec<TableDescriptor>,
        greeting: impl FnMut(usize) -> Greeting + Send + 'static,
        script: impl FnMut(&Seen) -> Option<Vec<Reply>> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            tables: Mutex::new(tables),
            greeting: Mutex::new(Box::new(greeting)),
            script: Mutex::new(Box::new(script)),
            seen: Mutex::new(Vec::new()),
            changed: Condvar::new(),
            faults: Mutex::new(Vec::new()),
            open: Mutex::new(0),
            writers: Mutex::new(Vec::new()),
        });
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().spawn(move || accept(&listener, &for_thread)).expect("a thread");
        Self { address, shared }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder().endpoint(self.endpoint())
    }

    pub(crate) fn set_tables(&self, tables: Vec<TableDescriptor>) {
        *self.shared.tables.lock().unwrap() = tables;
    }

    /// All requests of these kinds so far.
    pub(crate) fn seen(&self, kinds: &[Kind]) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| kinds.contains(&seen.header.kind)).cloned().collect()
    }

    /// Waits until so many requests of a kind have arrived.
    pub(crate) fn wait_for(&self, kind: Kind, count: usize) {
        let mut seen = self.shared.seen.lock().unwrap();
        while seen.iter().filter(|seen| seen.header.kind == kind).count() < count {
            seen = self.shared.changed.wait(seen).unwrap();
        }
    }

    /// Waits until all connections are closed by the client.
    pub(crate) fn wait_until_deserted(&self) {
        let mut open = self.shared.open.lock().unwrap();
        while *open > 0 {
            open = self.shared.changed.wait(open).unwrap();
        }
    }

    /// Sends something on a connection without being asked.
    pub(crate) fn send(&self, connection: usize, reply: &Reply) {
        let mut writers = self.shared.writers.lock().unwrap();
        perform(&mut writers[connection], reply);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let faults = self.shared.faults.lock().unwrap();
        assert!(thread::panicking() || faults.is_empty(), "the server saw what no router takes: {faults:?}");
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (connection, stream) in listener.incoming().enumerate() {
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        shared.writers.lock().unwrap().push(stream.try_clone().expect("a clone"));
        *shared.open.lock().unwrap() += 1;
        let shared = Arc::clone(shared);
        let serve = move || {
            serve(connection, stream, &shared);
            *shared.open.lock().unwrap() -= 1;
            shared.changed.notify_all();
        };
        thread::Builder::new().spawn(serve).expect("a thread");
    }
}

fn serve(connection: usize, mut stream: TcpStream, shared: &Shared) {
    let mut input = Vec::new();
    let Some((header, body)) = next_frame(&mut stream, &mut input, shared) else {
        return;
    };
    if !greet(connection, header, &body, &mut stream, shared) {
        return;
    }
    while let Some((header, body)) = next_frame(&mut stream, &mut input, shared) {
        let seen = Seen { connection, header, body };
        shared.check(&seen);
        let replies = shared.replies(&seen);
        shared.seen.lock().unwrap().push(seen);
        shared.changed.notify_all();
        for reply in &replies {
            if !perform(&mut stream, reply) {
                return;
            }
        }
    }
}

fn greet(connection: usize, header: Header, body: &[u8], stream: &mut TcpStream, shared: &Shared) -> bool {
    let mut out = Vec::new();
    let greeting = (shared.greeting.lock().unwrap())(connection);
    let goes_on = match greeting {
        Greeting::Welcome(server_ms) => {
            let peer = Peer::of_role(PeerRole::Router);
            let identity = Identity { cluster: Incarnation([5; 16]), peer };
            handshake::answer(&identity, header, body, server_ms, &mut out).is_ok()
        }
        Greeting::Refuse(problem) => {
            refuse(&problem, header.request, &mut out);
            false
        }
        Greeting::Send(bytes) => {
            out = bytes;
            false
        }
        Greeting::Close => return perform(stream, &Reply::Close),
    };
    stream.write_all(&out).is_ok() && goes_on
}

fn next_frame(stream: &mut TcpStream, input: &mut Vec<u8>, shared: &Shared) -> Option<(Header, Vec<u8>)> {
    let mut chunk = [0; 4096];
    loop {
        match first_frame(input, BodyLimit::AFTER_HELLO) {
            Ok(Some((header, body))) => {
                let body = body.to_vec();
                input.drain(..header.frame_bytes());
                return Some((header, body));
            }
            Ok(None) => {}
            Err(error) => {
                shared.faults.lock().unwrap().push(error.to_string());
                return None;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(bytes) => input.extend_from_slice(&chunk[..bytes]),
        }
    }
}

fn perform(stream: &mut TcpStream, reply: &Reply) -> bool {
    match reply {
        Reply::Send(bytes) => stream.write_all(bytes).is_ok(),
        Reply::Close => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
    }
}

impl Shared {
    /// Holds a request against what a router checks.
    fn check(&self, seen: &Seen) {
        let kind = seen.header.kind;
        if matches!(kind, Kind::Status | Kind::Topology | Kind::BatchGet | Kind::BatchWrite) {
            return;
        }
        let tables = self.tables.lock().unwrap();
        let checked = edge::lookup_key(kind, &seen.body).and_then(|wanted| match wanted.key {
            LookupKey::At(key) | LookupKey::Below(key) => {
                match tables.iter().find(|table| table.id == key.table) {
                    Some(table) => edge::validate(kind, &seen.body, table),
                    None => Ok(()),
                }
            }
            LookupKey::Name(_) => Ok(()),
        });
        if let Err(problem) = checked {
            self.faults.lock().unwrap().push(format!("{kind:?}: {problem}"));
        }
    }

    fn replies(&self, seen: &Seen) -> Vec<Reply> {
        if let Some(replies) = (self.script.lock().unwrap())(seen) {
            return replies;
        }
        if seen.header.kind == Kind::DescribeTable {
            let asked = access::<DescribeTable>(&seen.body).expect("it was checked");
            let tables = self.tables.lock().unwrap();
            let found = tables.iter().find(|table| table.name == asked.name.as_str());
            return vec![match found {
                Some(table) => seen.answer(&TableAnswer { table: table.clone() }),
                None => seen.refuse(ErrorCode::TableNotFound),
            }];
        }
        self.faults.lock().unwrap().push(format!("the script has no answer to {:?}", seen.header.kind));
        vec![Reply::Close]
    }
}

/// What a script does when it is a request's turn.
pub(crate) type Turn = Box<dyn FnMut(&Seen) -> Vec<Reply> + Send>;

/// A script that answers each request of a kind with the next of these functions, and the last one for ever.
pub(crate) fn in_turn(
    kind: Kind,
    mut turns: Vec<Turn>,
) -> impl FnMut(&Seen) -> Option<Vec<Reply>> + Send + 'static {
    let mut turn = 0;
    move |seen| {
        if seen.header.kind != kind {
            return None;
        }
        let last = turns.len() - 1;
        let replies = turns[turn.min(last)](seen);
        turn += 1;
        Some(replies)
    }
}

/// One of the two clients, for stories that are the same for both.
pub(crate) trait TestShell: Shell {
    fn connect(builder: ClientBuilder) -> Result<Self, Error>;
    fn finish<O: Operation>(answer: Self::Answer<O>) -> Result<O::Output, Error>;

    fn run<O: Operation>(&self, operation: O) -> Result<O::Output, Error> {
        Self::finish::<O>(self.execute(Prepared::from(operation)))
    }
}

impl TestShell for Client {
    fn connect(builder: ClientBuilder) -> Result<Self, Error> {
        builder.connect()
    }

    fn finish<O: Operation>(answer: Self::Answer<O>) -> Result<O::Output, Error> {
        answer
    }
}

impl TestShell for AsyncClient {
    fn connect(builder: ClientBuilder) -> Result<Self, Error> {
        block_on(builder.connect_async())
    }

    fn finish<O: Operation>(answer: Self::Answer<O>) -> Result<O::Output, Error> {
        block_on(answer)
    }
}

/// Makes one test of a story for each client.
#[macro_export]
macro_rules! on_both_clients {
    ($($story:ident)*) => {
        mod blocking {
            $(#[test] fn $story() { super::$story::<evenkeel_client::Client>() })*
        }
        mod asynchronous {
            $(#[test] fn $story() { super::$story::<evenkeel_client::AsyncClient>() })*
        }
    };
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Bytes of a frame that answers `request` with any kind and body.
pub(crate) fn frame(kind: Kind, request: RequestId, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal(&mut out, Header::new(kind, request), |out| out.extend_from_slice(body));
    out
}
