//! Random traffic against a model that remembers what was inserted last.

use super::tests::{check, insert, page};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Action {
    Insert(PagePointer, PageClass),
    Get(PagePointer),
    Forget(u64),
    Take(usize),
    GiveBack,
}

fn pointer() -> impl Strategy<Value = PagePointer> {
    let blocks = prop_oneof![Just(2_u16), Just(1), Just(5), Just(40)];
    (0..24_u64, blocks, 0..3_u64, 0..2_u64).prop_map(|(block, blocks, birth, checksum)| PagePointer {
        blocks,
        birth,
        checksum,
        ..page(block)
    })
}

fn action() -> impl Strategy<Value = Action> {
    let class = prop_oneof![Just(PageClass::Leaf), Just(PageClass::Inner), Just(PageClass::Overflow)];
    prop_oneof![
        4 => (pointer(), class).prop_map(|(pointer, class)| Action::Insert(pointer, class)),
        4 => pointer().prop_map(Action::Get),
        1 => (0..24_u64).prop_map(Action::Forget),
        1 => (1..60_000_usize).prop_map(Action::Take),
        1 => Just(Action::GiveBack),
    ]
}

proptest! {
    #[test]
    fn a_page_holds_what_was_last_inserted_for_exactly_that_pointer(
        actions in vec(action(), 1..200),
        pages in 1..20_usize,
    ) {
        let mut cache = Cache::new(pages * PAGE_BYTES);
        let mut model: HashMap<u64, (PagePointer, u8)> = HashMap::new();
        let (mut taken, mut newest, mut lookups) = (Vec::new(), 0, 0);
        for (turn, action) in actions.into_iter().enumerate() {
            match action {
                Action::Insert(pointer, class) => {
                    newest = pointer.bytes().max(PAGE_BYTES);
                    insert(&mut cache, pointer, class, turn as u8);
                    model.insert(pointer.block, (pointer, turn as u8));
                    prop_assert!(cache.contains(&pointer));
                }
                Action::Get(pointer) => {
                    lookups += 1;
                    if let Some(found) = cache.get(&pointer) {
                        let (known, fill) = model[&pointer.block];
                        prop_assert_eq!(known, pointer);
                        prop_assert_eq!(found, vec![fill; pointer.bytes()]);
                    }
                }
                Action::Forget(block) => {
                    cache.forget(block);
                    model.remove(&block);
                }
                Action::Take(bytes) => {
                    let buffer = cache.take_frame(bytes);
                    prop_assert_eq!(buffer.len(), bytes);
                    taken.push(buffer);
                }
                Action::GiveBack => taken.pop().into_iter().for_each(|buffer| cache.give_back(buffer)),
            }
            check(&cache, newest);
            let status = cache.status();
            prop_assert_eq!(status.hits + status.misses, lookups);
        }
    }
}
