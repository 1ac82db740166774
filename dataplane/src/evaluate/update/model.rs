//! A second implementation of updates, for tests: it follows the shape of the item and not that of the
//! actions.
//!
//! It knows SET of constants and REMOVE, which is where places can get in each other's way.

use evenkeel_wire::expression::{
    Action, Bindings, Path, SetOperand, SetValue, Step, Update, access_update, encode_update,
};
use evenkeel_wire::item::{Attribute, Item, Value, access, access_validated, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What one action does to a place below here: the steps to it, and what it will hold.
type Change<'a> = (&'a [Step], Option<&'a Value>);

/// What a place will hold, or that a change leads where nothing can be. `holds` is what it held.
fn model(holds: Option<&Value>, changes: &[Change<'_>]) -> Result<Option<Value>, ()> {
    if changes.is_empty() {
        return Ok(holds.cloned());
    }
    if let Some((_, value)) = changes.iter().find(|(steps, _)| steps.is_empty()) {
        return Ok(value.cloned());
    }
    let mut below: BTreeMap<&Step, Vec<Change<'_>>> = BTreeMap::new();
    for (steps, value) in changes {
        below.entry(&steps[0]).or_default().push((&steps[1..], *value));
    }
    match holds {
        Some(Value::M(attributes)) => {
            let mut result: BTreeMap<String, Value> = attributes
                .iter()
                .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
                .collect();
            for (step, changes) in below {
                let Step::Field(name) = step else { return Err(()) };
                let held = result.remove(name);
                result.extend(model(held.as_ref(), &changes)?.map(|value| (name.clone(), value)));
            }
            Ok(Some(Value::M(result.into_iter().map(|(name, value)| Attribute { name, value }).collect())))
        }
        Some(Value::L(elements)) => {
            if below.keys().any(|step| matches!(step, Step::Field(_))) {
                return Err(());
            }
            let mut result = Vec::new();
            for (index, element) in (0..).zip(elements) {
                let changes = below.remove(&Step::Index(index)).unwrap_or_default();
                result.extend(model(Some(element), &changes)?);
            }
            for changes in below.values() {
                result.extend(model(None, changes)?);
            }
            Ok(Some(Value::L(result)))
        }
        Some(_) | None => Err(()),
    }
}

fn value() -> impl Strategy<Value = Value> {
    (0..100).prop_map(Value::from).prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            4 => vec(inner.clone(), 0..5).prop_map(Value::L),
            1 => proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| {
                Value::M(map.into_iter().map(|(name, value)| Attribute { name, value }).collect())
            }),
        ]
    })
}

/// Paths that often meet in one list, before and after its end.
fn path() -> impl Strategy<Value = Path> {
    let step = prop_oneof![1 => "[a-b]".prop_map(Step::Field), 3 => (0..8_u32).prop_map(Step::Index)];
    let steps = prop_oneof![1 => vec(step.clone(), 0..1), 6 => vec(step.clone(), 1..2), 3 => vec(step, 2..3)];
    ("[a-b]", steps).prop_map(|(root, steps)| Path { root, steps })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        path().prop_map(|path| Action::Remove { path }),
        (path(), 100..200_i32).prop_map(|(path, value)| {
            Action::Set { path, value: SetValue::Operand(SetOperand::Value(value.into())) }
        }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    proptest::collection::btree_map("[a-c]", value(), 0..4).prop_map(|map| {
        let attributes = map.into_iter().map(|(name, value)| Attribute { name, value });
        Item::from_attributes(attributes.collect()).expect("distinct names").with("pk", "k")
    })
}

/// An item and an update whose places do not overlap, and mostly have room.
fn story() -> impl Strategy<Value = (Item, Update)> {
    let actions = vec((action(), proptest::bool::weighted(0.05)), 1..12);
    (item(), actions).prop_map(|(item, candidates)| {
        let mut update = Update::default();
        for (action, may_fail) in candidates {
            let alone = Update { actions: vec![action.clone()] };
            if may_fail || model_of(&item, &alone).is_ok() {
                update.actions.push(action);
                if encode_update(&update).is_err() {
                    update.actions.pop();
                }
            }
        }
        (item, update)
    })
}

/// What the model makes of an item.
fn model_of(item: &Item, update: &Update) -> Result<Option<Value>, ()> {
    let mut whole: Vec<(Vec<Step>, Option<&Value>)> = Vec::new();
    for action in &update.actions {
        let path = action.path();
        let steps = std::iter::once(Step::Field(path.root.clone())).chain(path.steps.iter().cloned());
        let value = match action {
            Action::Set { path: _, value: SetValue::Operand(SetOperand::Value(value)) } => Some(value),
            Action::Remove { path: _ } => None,
            Action::Set { .. } | Action::Add { .. } | Action::Delete { .. } => {
                panic!("the model does not know {action:?}")
            }
        };
        whole.push((steps.collect(), value));
    }
    let changes: Vec<Change<'_>> = whole.iter().map(|(steps, value)| (&steps[..], *value)).collect();
    model(Some(&Value::from(item.clone())), &changes)
}

/// What the update makes of an item.
fn applied(item: &Item, update: &Update) -> Result<Item, super::UpdateError> {
    let update = encode_update(update).expect("an update");
    let bytes = encode(item).expect("an item");
    let key = encode(&Item::new().with("pk", "k")).expect("a key");
    let after = super::apply(
        access_update(&update).expect("an archive"),
        Some(access(&bytes).expect("an archive")),
        access(&key).expect("an archive"),
    )?;
    Ok(access_validated(&after).expect("a valid item").to_item().expect("a valid item"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn updates_do_what_the_model_does((item, update) in story()) {
        if !update.actions.is_empty() {
            let expected = model_of(&item, &update);
            match applied(&item, &update) {
                Ok(after) => prop_assert_eq!(Ok(Some(Value::from(after))), expected),
                Err(error) => prop_assert_eq!(Err(()), expected, "{}", error),
            }
        }
    }

    #[test]
    fn any_update_gives_an_item_or_an_error(item in item(), clauses in vec(0..12_usize, 1..4)) {
        const CLAUSES: [&str; 12] = [
            "SET a = b", "SET a = a + :n", "SET b[1] = list_append(b, :l)", "SET c = if_not_exists(c.a, :l)",
            "SET a.b = c - :n, b = a", "ADD a :n", "ADD b :s, c[0] :n", "DELETE a :s", "DELETE c.a :s",
            "REMOVE a, b[0]", "REMOVE c.a, c.b[1]", "SET a = list_append(a, c), c = list_append(b, b)",
        ];
        let mut bindings = Bindings::new()
            .with_value(":n", 1)
            .with_value(":l", Value::L(vec![]))
            .with_value(":s", Value::string_set(["x"]).expect("a set"));
        let text = clauses.into_iter().map(|clause| CLAUSES[clause]).collect::<Vec<_>>().join(" ");
        if let Ok(update) = Update::parse(&text, &mut bindings)
            && let Ok(after) = applied(&item, &update)
        {
            prop_assert_eq!(after.get("pk"), Some(&Value::from("k")));
        }
    }
}
