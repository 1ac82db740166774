//! What clients send and are told. All writes are to one key, and each writes its own number.

use evenkeel_dataplane::btree::lookup::Pages;
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::partition::pending::Asker;
use evenkeel_dataplane::partition::writes::WriteRequest;
use evenkeel_dataplane::paxos::Output;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame};
use evenkeel_wire::ids::{RequestId, TableId};
use evenkeel_wire::item::{Item, encode as encode_item};
use evenkeel_wire::message::request::{Get, GetAnswer, Put, ReturnItem, Token};
use evenkeel_wire::message::{access, encode};
use evenkeel_wire::turn::{Boot, ConnectionId, Effects, Endpoint, Now};
use std::borrow::Cow;

const KEY: &[u8] = b"key";
const TABLE: TableId = TableId(1);
/// Tokens do not grow old here: that is a matter of log time, not of replication.
const WALL_MS: u64 = 0;

/// The bodies of all requests, made once.
#[derive(Debug)]
pub(crate) struct Requests {
    puts: Vec<Vec<u8>>,
    items: Vec<Vec<u8>>,
    get: Vec<u8>,
}

/// What a strong read says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It is not served here and now.
    Refused,
    /// There is no item, or the one that this write made.
    Item(Option<u8>),
}

/// Which write an entry's payload holds: the first byte of its token.
pub(crate) fn write_of(payload: &[u8]) -> u8 {
    payload[0]
}

impl Requests {
    /// Requests for writes 1 to `writes`.
    pub(crate) fn new(writes: u8) -> Self {
        let items: Vec<Vec<u8>> = (1..=writes)
            .map(|write| {
                encode_item(&Item::new().with("pk", write.to_string().as_str())).expect("it is small")
            })
            .collect();
        let put = |(write, item): (u8, &Vec<u8>)| {
            let token = Token { client: [write; 16], sequence: 1, issued_ms: WALL_MS, acknowledged_below: 1 };
            let put = Put {
                table: TABLE,
                token,
                key: Cow::Borrowed(KEY),
                item_checksum: crc32c(item),
                item: Cow::Borrowed(item),
                condition: Cow::Borrowed(b""),
                return_item: ReturnItem::None,
            };
            let mut body = Vec::new();
            encode(&put, &mut body);
            body
        };
        let puts = (1..=writes).zip(&items).map(put).collect();
        let mut get = Vec::new();
        encode(&Get { table: TABLE, key: Cow::Borrowed(KEY), strong: true }, &mut get);
        Self { puts, items, get }
    }

    /// Sends a write to a group. Returns whether it was taken.
    pub(crate) fn submit(
        &self,
        write: u8,
        group: &mut Group,
        boot: Boot,
        out: &mut Effects,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let body = &self.puts[usize::from(write) - 1];
        let request = WriteRequest::read(Kind::Put, body).expect("it was encoded here");
        let now = Now::new(boot, WALL_MS);
        group.write(now, asker(write.into()), &request, &Pages::default(), out, outputs).is_ok()
    }

    /// Asks a group for the item, strongly.
    pub(crate) fn read(&self, group: &Group, now: Boot) -> Read {
        if !group.is_ready(now) {
            return Read::Refused;
        }
        let get = access::<Get<'static>>(&self.get).expect("it was encoded here");
        let mut out = Effects::new();
        if group.get(now, asker(0), get, &Pages::default(), &mut out).is_err() {
            return Read::Refused;
        }
        let mut read = Read::Refused;
        frames(&mut out, |header, body| {
            assert_eq!(header.kind, Kind::GetAnswer, "a get is answered by its answer");
            let answer = access::<GetAnswer<'static>>(body).expect("a group encodes what can be read");
            let number = |item: &[u8]| self.items.iter().position(|known| known == item);
            let write = answer
                .item
                .as_ref()
                .map(|row| number(&row.item).expect("the item is one that was written") as u8 + 1);
            read = Read::Item(write);
        });
        read
    }
}

/// The writes that these effects acknowledge.
pub(crate) fn acknowledged(out: &mut Effects) -> Vec<u8> {
    let mut writes = Vec::new();
    frames(out, |header, _| {
        if header.kind == Kind::WriteAnswer {
            writes.push(header.request.0 as u8);
        }
    });
    writes
}

fn frames(out: &mut Effects, mut each: impl FnMut(Header, &[u8])) {
    for (_, bytes) in out.take_outboxes() {
        let mut rest = &bytes[..];
        while let Some((header, body)) =
            first_frame(rest, BodyLimit::AFTER_HELLO).expect("a group sends whole frames")
        {
            each(header, body);
            rest = &rest[header.frame_bytes()..];
        }
    }
}

/// One client for each write, and one that reads.
fn asker(number: u64) -> Asker {
    Asker::new(Endpoint::Incoming(ConnectionId(number)), RequestId(number))
}
