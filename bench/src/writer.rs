//! Requests of a load, as bytes on a connection.

use crate::clock::now;
use crate::load::Options;
use crate::trace::Trace;
use crate::workload::{Kind, Operation, item, key_item, key_name};
use evenkeel_client::protocol::connection::Connection;
use evenkeel_client::protocol::tokens::{TokenRange, TokenSource};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::expression::{Bindings, Update as UpdateTree, encode_update};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::item::encode as encode_item;
use evenkeel_wire::message::request::{Delete, Get, Put, Range, ReturnItem, Scan, Update};
use evenkeel_wire::message::{Body, Encode, encode};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::TableDescriptor;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Writes the requests of one client.
pub(crate) struct Writer {
    table: TableDescriptor,
    tokens: TokenSource,
    /// The names of keys, if they do not follow from their numbers.
    names: Option<Arc<Trace>>,
    prng: Prng,
    update: Vec<u8>,
    server_ms: u64,
    begin: Instant,
}

impl Writer {
    /// A writer for one thread; `client` is its own.
    pub(crate) fn new(
        options: &Options,
        client: [u8; 16],
        names: Option<Arc<Trace>>,
        server_ms: u64,
    ) -> Self {
        let mut bindings = Bindings::new().with_value(":one", 1);
        let update = UpdateTree::parse("ADD n :one", &mut bindings).expect("a constant expression parses");
        Self {
            table: options.table.clone(),
            tokens: TokenSource::new(client),
            names,
            prng: Prng::new(options.seed ^ 0x5eed),
            update: encode_update(&update).expect("a constant expression can be encoded"),
            server_ms,
            begin: now(),
        }
    }

    /// The token of the next write. It is outstanding until [`retire`](Self::retire) is called.
    fn token(&mut self) -> TokenRange {
        let issued_ms = self.server_ms + now().duration_since(self.begin).as_millis() as u64;
        self.tokens.issue(1, issued_ms)
    }

    /// The write is answered, and will not be asked about again: its outcome may be forgotten.
    pub(crate) fn retire(&mut self, token: &TokenRange) {
        self.tokens.retire(token);
    }

    /// Writes a request onto a connection. Returns its id, and its token if it is a write.
    pub(crate) fn ask(
        &mut self,
        connection: &mut Connection,
        operation: Operation,
    ) -> (RequestId, Option<TokenRange>) {
        let name = match &self.names {
            Some(trace) => Cow::Owned(trace.keys[operation.key as usize].clone()),
            None => Cow::<str>::Owned(key_name(operation.key)),
        };
        let key_item = key_item(&name);
        let storage_key = self.table.schema.storage_key(&self.table.hash_key, &key_item);
        let key = Cow::Owned(storage_key.expect("the workload's keys are keys").0);
        let (table, return_item) = (self.table.id, ReturnItem::None);
        let condition = Cow::Borrowed(&[][..]);
        let issued = (!operation.kind.is_read()).then(|| self.token());
        let issued_token = || issued.expect("a write has a token").token(0);
        let id = match operation.kind {
            Kind::Get | Kind::GetEventual => {
                request(connection, &Get { table, key, strong: operation.kind == Kind::Get })
            }
            Kind::Put | Kind::Insert => {
                let item = item(&name, operation.bytes as usize, &mut self.prng);
                let archive = encode_item(&item).expect("the workload's items are items");
                let item_checksum = crc32c(&archive);
                let (token, item) = (issued_token(), Cow::Owned(archive));
                request(connection, &Put { table, token, key, item, item_checksum, condition, return_item })
            }
            Kind::Update => {
                let key_item = Cow::Owned(encode_item(&key_item).expect("a key is an item"));
                let token = issued_token();
                let update = Cow::Borrowed(&self.update[..]);
                request(connection, &Update { table, token, key, key_item, update, condition, return_item })
            }
            Kind::Delete => {
                let token = issued_token();
                request(connection, &Delete { table, token, key, condition, return_item })
            }
            Kind::Scan => {
                let (upper, filter) = (Cow::Borrowed(&[][..]), Cow::Borrowed(&[][..]));
                let limit = operation.items;
                let range = Range { table, lower: key, upper, forward: true, limit, filter, strong: true };
                request(connection, &Scan(range))
            }
        };
        (id, issued)
    }
}

fn request<T: Body + for<'a> Encode<'a>>(connection: &mut Connection, body: &T) -> RequestId {
    connection.request(T::KIND, REQUEST_DEADLINE, |out| encode(body, out))
}
