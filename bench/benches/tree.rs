//! What the tree costs a CPU, beside one pass over an item's bytes (CRC-32C). Its file is in memory: the
//! device is measured by `evenkeel bench` (docs/measuring.md). Read the ratios of one run.

#[path = "tree/memory.rs"]
mod memory;

use bytes::Bytes;
use criterion::{BatchSize, Bencher, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_dataplane::btree::delta::{Cell, Delta};
use evenkeel_dataplane::btree::space::Space;
use evenkeel_dataplane::btree::version::Version;
use evenkeel_dataplane::checkpoint::image::space_records;
use evenkeel_dataplane::checkpoint::sink::ImageSink;
use evenkeel_dataplane::tree::Tree;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::key::KeyBytes;
use memory::{MemoryTree, cell, key};
use std::hint::black_box;

/// 256 MiB of items: three levels.
const ITEMS: u64 = 262_144;
/// Changes of a small checkpoint.
const CHANGES: u64 = 4096;
/// Writes that are applied together.
const TURN: u64 = 64;
/// Blocks of the tree's file in the recovery bench: 8 GiB.
const BLOCKS: u64 = 8 << 18;

fn reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    let item = vec![1_u8; 1000];
    group.bench_function("one pass over an item of 1 KiB", |bencher| {
        bencher.iter(|| crc32c(black_box(&item)));
    });
    let mut number = 0_u64;
    let mut next = move || {
        number = number.wrapping_add(0x9e37_79b9);
        number % ITEMS
    };
    let mut cached = MemoryTree::new(ITEMS, 1 << 30);
    for number in 0..ITEMS {
        cached.read(number);
    }
    group.bench_function("point read, cached", |bencher| bencher.iter(|| cached.read(next())));
    group.bench_function("scan of 100 items, cached", |bencher| bencher.iter(|| cached.scan(next(), 100)));
    drop(cached);
    // One leaf in sixteen is in memory: nearly every read takes a page in, verifies it and gives one up.
    let mut uncached = MemoryTree::new(ITEMS, 16 << 20);
    group.bench_function("point read, not cached", |bencher| bencher.iter(|| uncached.read(next())));
    group.finish();
}

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    let cells: Vec<_> = (0..CHANGES).map(cell).collect();
    group.throughput(Throughput::Elements(CHANGES));
    group.bench_function("insert: apply 4096 writes to the delta", |bencher| {
        let tree = Tree::paged(Version::default());
        let apply = |mut tree: Tree| {
            for (number, cell) in (0..).zip(&cells) {
                tree.put(KeyBytes::from_slice(&key(number)), cell.clone());
            }
            tree
        };
        bencher.iter_batched(|| tree.clone(), apply, BatchSize::SmallInput);
    });
    group.throughput(Throughput::Elements(TURN));
    group.bench_function("write over 64 of 262144 items", |bencher| write_over(bencher, false));
    group.bench_function("write over 64 of 262144 items, read ahead", |bencher| write_over(bencher, true));
    group.throughput(Throughput::Elements(CHANGES));
    let mut tree = MemoryTree::new(ITEMS, 16 << 20);
    let mut round = 0;
    group.bench_function("checkpoint: merge 4096 uniform writes into 262144 items", |bencher| {
        let changes = |round: u64| {
            let mut delta = Delta::default();
            for number in 0..CHANGES {
                let number = (number + round * CHANGES).wrapping_mul(0x9e37_79b9) % ITEMS;
                delta.set(KeyBytes::from_slice(&key(number)), Some(cell(number)));
            }
            delta
        };
        let next = || {
            round += 1;
            changes(round)
        };
        bencher.iter_batched(next, |delta| tree.merge(&delta), BatchSize::PerIteration);
    });
    group.finish();
}

/// Items that no cache has are replaced, as many at once as a turn of a busy core applies.
fn write_over(bencher: &mut Bencher<'_>, reads_ahead: bool) {
    // An item in an entry shares its memory with who else has the entry.
    let shared = |number| {
        let cell = cell(number);
        drop(cell.archive.clone());
        (key(number), cell)
    };
    let mut tree = Tree::paged(Version::default());
    for (key, cell) in (0..ITEMS).map(shared) {
        tree.put(KeyBytes::from_slice(&key), cell);
    }
    let mut round = 0_u64;
    let next = || {
        round += 1;
        let numbers = (0..TURN).map(|number| (round * TURN + number).wrapping_mul(0x9e37_79b9) % ITEMS);
        numbers.map(shared).collect::<Vec<_>>()
    };
    let write = |writes: Vec<([u8; 16], Cell)>| {
        if reads_ahead {
            tree.look_ahead(writes.iter().map(|(key, _)| &key[..]));
        }
        for (key, cell) in writes {
            tree.put(KeyBytes::from_slice(&key), cell);
        }
    };
    bencher.iter_batched(next, write, BatchSize::PerIteration);
}

fn recovery(criterion: &mut Criterion) {
    let mut records = Vec::new();
    let words = vec![0x5555_5555_5555_5555; BLOCKS as usize / 64];
    space_records(&words).for_each(|record| record.encode(&mut records));
    let records = Bytes::from(records);
    criterion.bench_function("tree/recovery: the bitmap of 8 GiB, read and restored", |bencher| {
        bencher.iter(|| {
            let mut sink = ImageSink::default();
            sink.take(black_box(records.clone())).expect("well formed");
            Space::restore(&sink.space)
        });
    });
}

criterion_group!(benches, reads, writes, recovery);
criterion_main!(benches);
