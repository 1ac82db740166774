//! After start-up a read of what is in memory allocates nothing, and neither does one for which a page is
//! taken in and another given up.

#[path = "../benches/tree/memory.rs"]
mod memory;

use evenkeel_dataplane::btree::lookup::get;
use memory::{MemoryTree, key};

const ITEMS: u64 = 20_000;

#[test]
fn reads_of_what_is_in_memory_allocate_nothing() {
    let mut tree = MemoryTree::new(ITEMS, 64 << 20);
    for number in 0..ITEMS {
        tree.read(number);
    }
    assert_eq!(tree.scan(0, 10), 10_000);
    let counted = allocation_counter::measure(|| {
        for number in 0..ITEMS {
            let found = get(&tree.version, &tree.pages(), &key(number)).expect("everything is in memory");
            assert_eq!(found.expect("every item is there").archive.len(), 1000);
        }
    });
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}

#[test]
fn the_cache_takes_pages_in_and_gives_others_up_without_allocating() {
    let mut tree = MemoryTree::new(ITEMS, 1 << 20);
    let read_all = |tree: &mut MemoryTree| (0..ITEMS).map(|number| tree.read(number)).sum::<usize>();
    read_all(&mut tree);
    let before = tree.cache.status();
    let counted = allocation_counter::measure(|| {
        read_all(&mut tree);
    });
    let taken = tree.cache.status().misses - before.misses;
    assert!(taken > ITEMS / 2, "{taken} misses: the cache is too large for this test");
    // What is missing is named in four small allocations; the pages themselves cost none.
    assert!(counted.count_total <= 4 * taken, "{} allocations for {taken} misses", counted.count_total);
    assert!(counted.bytes_total / taken < 512, "{} bytes for each miss", counted.bytes_total / taken);
}
