//! What a PutItem costs a CPU in the wire's code, beside one pass over its bytes (CRC-32C), which nothing can
//! do without. Read the ratios of one run: `cargo bench -p evenkeel-bench`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::ids::{RequestId, TableId};
use evenkeel_wire::item::{self, Item, Value};
use evenkeel_wire::key::{HashKey, KeySchema, KeyType};
use evenkeel_wire::message::request::{Put, ReturnItem, Token};
use evenkeel_wire::message::{access, encode};
use std::borrow::Cow;
use std::hint::black_box;

/// An item of about `bytes` bytes, of ten attributes and some nesting.
fn item_of(bytes: usize) -> Item {
    let text = "x".repeat(bytes / 8);
    let list = (0..4).map(|_| Value::from(text.as_str())).collect();
    let item = Item::new().with("pk", "customer#4711").with("list", Value::L(list));
    (0..4).fold(item, |item, number| {
        item.with(format!("text{number}"), text.as_str()).with(format!("number{number}"), number)
    })
}

fn frame_of(item: &[u8], key: &[u8]) -> Vec<u8> {
    let put = Put {
        table: TableId(2),
        token: Token { client: [1; 16], sequence: 1, issued_ms: 1, acknowledged_below: 1 },
        key: Cow::Borrowed(key),
        item: Cow::Borrowed(item),
        item_checksum: crc32c(item),
        condition: Cow::Borrowed(&[]),
        return_item: ReturnItem::None,
    };
    let mut frame = Vec::new();
    seal(&mut frame, Header::new(Kind::Put, RequestId(1)), |body| encode(&put, body));
    frame
}

fn put(criterion: &mut Criterion) {
    let (schema, hash_key) = (KeySchema::partition_only("pk", KeyType::S), HashKey([7; 16]));
    let mut group = criterion.benchmark_group("put");
    for bytes in [1 << 10, 16 << 10, 256 << 10] {
        let item = item_of(bytes);
        let archive = item::encode(&item).expect("the item keeps the rules");
        let key = schema.storage_key(&hash_key, &item).expect("the item has the key");
        let frame = frame_of(&archive, key.as_bytes());
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::new("one pass over the bytes", bytes), |bencher| {
            bencher.iter(|| crc32c(black_box(&frame)));
        });
        group.bench_function(BenchmarkId::new("client: encode and frame", bytes), |bencher| {
            bencher.iter(|| {
                let archive = item::encode(black_box(&item)).expect("as above");
                let key = schema.storage_key(&hash_key, item::access(&archive).expect("as above"));
                frame_of(&archive, key.expect("as above").as_bytes())
            });
        });
        group.bench_function(BenchmarkId::new("router: check frame, item and key", bytes), |bencher| {
            bencher.iter(|| {
                let (header, body) =
                    first_frame(black_box(&frame), BodyLimit::AFTER_HELLO).expect("whole").expect("whole");
                header.check_body(body).expect("undamaged");
                let put = access::<Put<'static>>(body).expect("a put");
                let item = item::access_validated(&put.item).expect("an item");
                schema.storage_key(&hash_key, item.view()).expect("it has the key")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, put);
criterion_main!(benches);
