//! Updates.
//!
//! In three steps: every action is worked out against the item as it was; then all values are put, lower list
//! indices first, so that what is appended comes in the order of its indices; then all removals are made,
//! higher indices first, so that none moves another. Nothing is changed unless everything can be.
//!
//! The sum of all values that are put is held below the size of an item while they are worked out: an
//! expression of a few bytes can name a large attribute hundreds of times.

mod change;
#[cfg(test)]
mod model;
mod outcome;

use change::{put, remove};
use evenkeel_wire::expression::{ArchivedUpdate, Path};
use evenkeel_wire::item::view::MapView;
use evenkeel_wire::item::{ArchivedItem, Item, ItemError, NumberError, Value, ValueType, encode, value_size};
use evenkeel_wire::limits::ITEM_BYTES_MAX;
use outcome::{Before, Outcome};

/// Why an update cannot be made. Every variant is deterministic: it depends on the update and the item alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The update changes an attribute of the key.
    #[error("an update cannot change {name}, which is part of the key")]
    KeyUpdated {
        /// The key attribute.
        name: String,
    },
    /// A value is taken from where nothing is.
    #[error("the item has nothing at {path}, which the update reads")]
    NothingThere {
        /// The path that is read.
        path: String,
    },
    /// A value is put where nothing can be: what would hold it is not there, or is neither a map nor a list.
    #[error("the item has no place for {path}, which the update changes")]
    NoRoom {
        /// The path that is changed.
        path: String,
    },
    /// A value is of a type that the operator does not take there.
    #[error("{operator} for {path} does not take a value of type {found}")]
    OperandType {
        /// The path that is changed.
        path: String,
        /// The operator, function or clause.
        operator: &'static str,
        /// The value's type.
        found: ValueType,
    },
    /// The result of arithmetic is not a number that can be stored.
    #[error("the new value of {path} is not a number that can be stored: {error}")]
    Arithmetic {
        /// The path that is changed.
        path: String,
        /// Why not.
        error: NumberError,
    },
    /// The item would break a rule, for example be too large.
    #[error("the update cannot be made: {0}")]
    Item(#[from] ItemError),
}

/// What an update makes of an item, encoded. Without an item it starts from the attributes of `key`.
///
/// # Errors
/// When an action does not fit the item, or the result would be no item that a table can hold.
pub fn apply(
    update: &ArchivedUpdate,
    current: Option<&ArchivedItem>,
    key: &ArchivedItem,
) -> Result<Vec<u8>, UpdateError> {
    let plan = Plan::new(update, current.map(ArchivedItem::view), key.view())?;
    let mut item = current.unwrap_or(key).to_item()?;
    plan.carry_out(&mut item)?;
    Ok(encode(&item)?)
}

/// What an update does, worked out.
#[derive(Default)]
struct Plan {
    puts: Vec<(Path, Value)>,
    removals: Vec<Path>,
}

impl Plan {
    /// Works out every action against the item as it is.
    fn new(
        update: &ArchivedUpdate,
        current: Option<MapView<'_>>,
        key: MapView<'_>,
    ) -> Result<Self, UpdateError> {
        let mut plan = Self::default();
        let mut bytes = 0;
        for action in update.actions.iter() {
            let path = action.path();
            if let Some((name, _)) = key.iter().find(|(name, _)| *name == path.root.as_str()) {
                return Err(UpdateError::KeyUpdated { name: name.to_owned() });
            }
            match Before::new(current, path).outcome(action)? {
                Outcome::Put(value) => {
                    bytes += value_size(&value);
                    check_bytes(bytes)?;
                    plan.puts.push((path.to_path(), value));
                }
                Outcome::Remove => plan.removals.push(path.to_path()),
                Outcome::Leave => {}
            }
        }
        Ok(plan)
    }

    /// Does it.
    fn carry_out(mut self, item: &mut Item) -> Result<(), UpdateError> {
        // The order of paths has a list's lower index first, and what is inside something after it.
        self.puts.sort_by(|left, right| left.0.cmp(&right.0));
        for (path, value) in self.puts {
            put(item, &path, value).ok_or_else(|| UpdateError::NoRoom { path: path.to_string() })?;
        }
        self.removals.sort();
        for path in self.removals.iter().rev() {
            remove(item, path).ok_or_else(|| UpdateError::NoRoom { path: path.to_string() })?;
        }
        Ok(())
    }
}

fn check_bytes(bytes: usize) -> Result<(), UpdateError> {
    if bytes > ITEM_BYTES_MAX {
        return Err(ItemError::TooLarge { bytes, bytes_max: ITEM_BYTES_MAX }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::expression::{
        Action, Bindings, SetOperand, SetValue, Update, access_update, encode_update,
    };
    use evenkeel_wire::item::{Number, access, access_validated, validate};

    const MAX: &str = "9.9999999999999999999999999999999999999e125";

    fn number(text: &str) -> Number {
        text.parse().expect("a number")
    }

    fn key() -> Item {
        Item::new().with("pk", "k")
    }

    fn text(text: &str) -> Value {
        text.into()
    }

    fn numbers<const N: usize>(numbers: [i64; N]) -> Value {
        Value::L(numbers.into_iter().map(Value::from).collect())
    }

    fn texts<const N: usize>(texts: [&str; N]) -> Value {
        Value::string_set(texts).expect("a set")
    }

    fn bindings() -> Bindings {
        Bindings::new()
            .with_value(":1", 1)
            .with_value(":2", 2)
            .with_value(":x", "x")
            .with_value(":y", "y")
            .with_value(":z", "z")
            .with_value(":l", numbers([8, 9]))
            .with_value(":m", Item::new())
            .with_value(":ab", texts(["a", "b"]))
            .with_value(":n", Value::number_set([1]).expect("a set"))
            .with_value(":max", number(MAX))
            .with_value(":tiny", number("1e-100"))
    }

    fn run(item: Option<&Item>, update: &Update) -> Result<Item, UpdateError> {
        let update = encode_update(update).expect("an update");
        let key = encode(&key()).expect("a key");
        let item = item.map(|item| encode(item).expect("an item"));
        let current = item.as_ref().map(|bytes| access(bytes).expect("an archive"));
        let result =
            apply(access_update(&update).expect("an archive"), current, access(&key).expect("an archive"))?;
        Ok(access_validated(&result).expect("a valid item").to_item().expect("a valid item"))
    }

    fn parse(text: &str) -> Update {
        Update::parse(text, &mut bindings()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Updates an item of these attributes and the key, and compares with the attributes that it has then.
    fn check(before: Item, text: &str, after: Item) {
        let result = run(Some(&before.with("pk", "k")), &parse(text));
        assert_eq!(result, Ok(after.with("pk", "k")), "{text}");
    }

    fn check_error(before: Item, text: &str, error: UpdateError) {
        assert_eq!(run(Some(&before.with("pk", "k")), &parse(text)), Err(error), "{text}");
    }

    fn no_room(path: &str) -> UpdateError {
        UpdateError::NoRoom { path: path.to_owned() }
    }

    fn wrong_type(path: &str, operator: &'static str, found: ValueType) -> UpdateError {
        UpdateError::OperandType { path: path.to_owned(), operator, found }
    }

    #[test]
    fn an_absent_item_is_created_with_its_key() {
        assert_eq!(run(None, &parse("SET a = :1")), Ok(key().with("a", 1)));
        assert_eq!(run(None, &parse("ADD a :ab, b :2")), Ok(key().with("a", texts(["a", "b"])).with("b", 2)));
        for nothing in ["REMOVE a", "REMOVE a.b, c[0]", "DELETE a :ab"] {
            assert_eq!(run(None, &parse(nothing)), Ok(key()), "{nothing}");
        }
        let nothing_there = |path: &str| Err(UpdateError::NothingThere { path: path.to_owned() });
        assert_eq!(run(None, &parse("SET a = pk")), nothing_there("pk"));
        assert_eq!(run(None, &parse("SET a.b = :1")), Err(no_room("a.b")));
    }

    #[test]
    fn all_actions_see_the_item_as_it_was() {
        let ab = || Item::new().with("a", 1).with("b", 2);
        check(ab(), "SET a = b, b = a", Item::new().with("a", 2).with("b", 1));
        check(ab(), "REMOVE a SET c = a", Item::new().with("b", 2).with("c", 1));
        check(ab(), "SET c = pk", ab().with("c", "k"));
        check_error(ab(), "SET x = :1, y = x", UpdateError::NothingThere { path: "x".to_owned() });
        check(ab(), "SET a = a + b, b = a - b", Item::new().with("a", 3).with("b", -1));
    }

    #[test]
    fn values_are_put_into_maps_and_lists_that_are_there() {
        let nested = || Item::new().with("m", Item::new().with("l", numbers([1, 2, 3])));
        let inner = |value: Value| Item::new().with("m", Item::new().with("l", value));
        check(nested(), "SET m.l[1] = :x", inner(vec![1.into(), text("x"), 3.into()].into()));
        check(
            nested(),
            "SET m.a = :1",
            Item::new().with("m", Item::new().with("a", 1).with("l", numbers([1, 2, 3]))),
        );
        check(nested(), "SET m = :2", Item::new().with("m", 2));
        check(nested(), "ADD m.l[0] :2", inner(numbers([3, 2, 3])));
        for (text, path) in [
            ("SET m[0] = :1", "m[0]"),
            ("SET m.l.a = :1", "m.l.a"),
            ("SET m.x.y = :1", "m.x.y"),
            ("SET pkk[0] = :1", "pkk[0]"),
            ("ADD m.x.y :1", "m.x.y"),
            ("REMOVE m.l.a", "m.l.a"),
            ("REMOVE x.y", "x.y"),
            ("DELETE m[0] :ab", "m[0]"),
        ] {
            check_error(nested(), text, no_room(path));
        }
    }

    #[test]
    fn an_index_after_the_end_appends_in_order_of_indices() {
        let list = |value: Value| Item::new().with("l", value);
        let after: Value = vec![1.into(), text("x"), text("y"), text("z")].into();
        check(list(numbers([1])), "SET l[84] = :z, l[17] = :y, l[9] = :x", list(after));
        check(
            list(numbers([1, 2])),
            "SET l[5] = :x REMOVE l[2]",
            list(vec![1.into(), 2.into(), text("x")].into()),
        );
    }

    #[test]
    fn indices_mean_the_list_as_it_was() {
        let list = |value: Value| Item::new().with("l", value);
        let six = || list(numbers([2, 3, 4, 5, 6, 7]));
        let after: Value = vec![2.into(), 4.into(), text("x"), 6.into(), 7.into()].into();
        check(six(), "REMOVE l[1] SET l[3] = :x", list(after));
        check(six(), "REMOVE l[0], l[5], l[2], l[99]", list(numbers([3, 5, 6])));
        let nested = || list(vec![numbers([1, 2]), numbers([3, 4])].into());
        check(nested(), "REMOVE l[0], l[1][0]", list(vec![numbers([4])].into()));
        check(list(numbers([1])), "REMOVE l[0]", list(numbers([])));
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let item = || Item::new().with("m", Item::new()).with("l", numbers([1]));
        check(item(), "REMOVE x, m.x, l[7]", item());
        check(item(), "DELETE x :ab, m.x :ab", item());
    }

    #[test]
    fn arithmetic_is_of_numbers_and_exact() {
        let item = || Item::new().with("n", 5).with("s", "text");
        check(item(), "SET n = if_not_exists(n, :1) + :2", item().with("n", 7));
        check(item(), "SET c = if_not_exists(c, :1) + :2", item().with("c", 3));
        check(item(), "ADD n :2, c :1", item().with("n", 7).with("c", 1));
        check_error(item(), "SET n = s + :1", wrong_type("n", "+", ValueType::S));
        check_error(item(), "SET n = :1 - s", wrong_type("n", "-", ValueType::S));
        check_error(item(), "ADD s :1", wrong_type("s", "ADD", ValueType::S));
        let arithmetic = |error| UpdateError::Arithmetic { path: "n".to_owned(), error };
        check_error(item(), "ADD n :tiny", arithmetic(NumberError::TooManyDigits { digits_max: 38 }));
        check_error(
            item().with("n", number(MAX)),
            "ADD n :max",
            arithmetic(NumberError::Overflow { exponent_end: 126 }),
        );
    }

    #[test]
    fn lists_are_joined() {
        let item = || Item::new().with("l", numbers([1])).with("s", "text");
        check(item(), "SET l = list_append(l, :l)", item().with("l", numbers([1, 8, 9])));
        check(item(), "SET l = list_append(:l, l)", item().with("l", numbers([8, 9, 1])));
        check(item(), "SET k = list_append(if_not_exists(k, :l), l)", item().with("k", numbers([8, 9, 1])));
        check_error(item(), "SET l = list_append(l, s)", wrong_type("l", "list_append", ValueType::S));
        check_error(item(), "SET l = list_append(x, l)", UpdateError::NothingThere { path: "x".to_owned() });
    }

    #[test]
    fn sets_gain_and_lose_elements_and_vanish_when_empty() {
        let set = |value: Value| Item::new().with("s", value);
        check(set(texts(["b", "c"])), "ADD s :ab", set(texts(["a", "b", "c"])));
        check(set(texts(["b", "c"])), "DELETE s :ab", set(texts(["c"])));
        check(set(texts(["a", "b"])), "DELETE s :ab", Item::new());
        check(set(texts(["c"])), "DELETE s :ab", set(texts(["c"])));
        check_error(set(texts(["c"])), "ADD s :n", wrong_type("s", "ADD", ValueType::Ss));
        check_error(set(texts(["c"])), "DELETE s :n", wrong_type("s", "DELETE", ValueType::Ss));
        check_error(set(numbers([1])), "ADD s :n", wrong_type("s", "ADD", ValueType::L));
    }

    #[test]
    fn the_key_cannot_be_changed() {
        for text in ["SET pk = :x", "REMOVE pk", "SET a = :1 REMOVE pk.x"] {
            check_error(Item::new(), text, UpdateError::KeyUpdated { name: "pk".to_owned() });
        }
    }

    #[test]
    fn an_item_that_would_be_too_large_or_too_deep_is_refused() {
        let large = Item::new().with("pk", "k").with("a", "x".repeat(300 * 1024));
        let too_large = |text| {
            matches!(run(Some(&large), &parse(text)), Err(UpdateError::Item(ItemError::TooLarge { .. })))
        };
        assert!(too_large("SET b = a"));
        assert!(too_large("SET b = a, c = a, d = a REMOVE a"));
        let list = Item::new().with("l", Value::L(vec![text("y"); 150_000])).with("pk", "k");
        let doubled = run(Some(&list), &parse("SET l = list_append(l, list_append(l, l))"));
        assert!(matches!(doubled, Err(UpdateError::Item(ItemError::TooLarge { .. }))));
        let nested = (0..31).fold(numbers([]), |value, _| Value::L(vec![value]));
        let item = Item::new().with("m", Item::new()).with("v", nested);
        check_error(
            item.clone(),
            "SET m.v = v",
            ItemError::TooDeep { at: format!("m.v{}", "[0]".repeat(31)), levels_max: 32 }.into(),
        );
        check(item.clone(), "SET w = v", item.clone().with("w", item.get("v").cloned().expect("there")));
    }

    #[test]
    fn an_update_that_nobody_validated_is_an_error_and_not_a_panic() {
        // Two actions whose places overlap, as no validated update has them: b becomes a after the encoding.
        let update = Update {
            actions: vec![
                Action::Set { path: Path::new("a"), value: SetValue::Operand(SetOperand::Value(1.into())) },
                Action::Remove { path: Path::new("b").field("c") },
            ],
        };
        let mut bytes = encode_update(&update).expect("an update");
        let place = bytes.iter().rposition(|byte| *byte == b'b').expect("the name");
        bytes[place] = b'a';
        let item = encode(&Item::new().with("a", Item::new().with("c", 1)).with("pk", "k")).expect("an item");
        let item = access(&item).expect("an archive");
        assert_eq!(validate(item), Ok(()));
        let key = encode(&key()).expect("a key");
        let result =
            apply(access_update(&bytes).expect("an archive"), Some(item), access(&key).expect("an archive"));
        assert_eq!(result, Err(no_room("a.c")));
    }
}
