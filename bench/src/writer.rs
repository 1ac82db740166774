//! Requests of a load, as bytes on a connection.

use crate::load::{Line, Options, UnderWay, now};
use crate::workload::{Draw, Kind, item, key_item};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::expression::{Bindings, Update as UpdateTree, encode_update};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::item::encode as encode_item;
use evenkeel_wire::message::request::{Get, Put, ReturnItem, Token, Update};
use evenkeel_wire::message::{Body, Encode, encode};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::TableDescriptor;
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// How long a request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Writes that may be unanswered: a token is acknowledged when this many others came after it.
const TOKENS_KEPT: u64 = 8192;

/// Writes the requests of one client.
pub(crate) struct Writer {
    table: TableDescriptor,
    client: [u8; 16],
    item_bytes: usize,
    pub(crate) draw: Draw,
    prng: Prng,
    update: Vec<u8>,
    sequence: u64,
    /// Requests that may still be unanswered: tokens below the oldest are done.
    window: u64,
    server_ms: u64,
    begin: Instant,
}

impl Writer {
    pub(crate) fn new(options: &Options, server_ms: u64, begin: Instant) -> Self {
        let mut bindings = Bindings::new().with_value(":one", 1);
        let update = UpdateTree::parse("ADD n :one", &mut bindings).expect("a constant expression parses");
        Self {
            table: options.table.clone(),
            client: options.client,
            item_bytes: options.item_bytes,
            draw: Draw::new(options.workload, options.keys, options.seed),
            prng: Prng::new(options.seed ^ 0x5eed),
            update: encode_update(&update).expect("a constant expression can be encoded"),
            sequence: 0,
            window: TOKENS_KEPT,
            server_ms,
            begin,
        }
    }

    fn token(&mut self) -> Token {
        self.sequence += 1;
        let issued_ms = self.server_ms + now().duration_since(self.begin).as_millis() as u64;
        let acknowledged_below = self.sequence.saturating_sub(self.window);
        Token { client: self.client, sequence: self.sequence, issued_ms, acknowledged_below }
    }

    /// Writes a request onto a connection, where it is under way from here on.
    pub(crate) fn ask(&mut self, line: &mut Line, kind: Kind, key: u64, due: Instant) {
        let key_item = key_item(key);
        let storage_key = self.table.schema.storage_key(&self.table.hash_key, &key_item);
        let storage_key = Cow::Owned(storage_key.expect("the workload's keys are keys").0);
        let table = self.table.id;
        let condition = Cow::Borrowed(&[][..]);
        let request = match kind {
            Kind::Get | Kind::GetEventual => {
                request(line, &Get { table, key: storage_key, strong: kind == Kind::Get })
            }
            Kind::Put => {
                let item = item(key, self.item_bytes, &mut self.prng);
                let archive = encode_item(&item).expect("the workload's items are items");
                let item_checksum = crc32c(&archive);
                let (token, return_item) = (self.token(), ReturnItem::None);
                let item = Cow::Owned(archive);
                request(
                    line,
                    &Put { table, token, key: storage_key, item, item_checksum, condition, return_item },
                )
            }
            Kind::Update => {
                let key_item = Cow::Owned(encode_item(&key_item).expect("a key is an item"));
                let (token, return_item) = (self.token(), ReturnItem::None);
                let update = Cow::Borrowed(&self.update[..]);
                let key = storage_key;
                request(line, &Update { table, token, key, key_item, update, condition, return_item })
            }
        };
        line.under_way.push_back(UnderWay { request, kind, key, due, sent: now() });
    }
}

fn request<T: Body + for<'a> Encode<'a>>(line: &mut Line, body: &T) -> RequestId {
    line.link.connection.request(T::KIND, REQUEST_DEADLINE, |out| encode(body, out))
}
