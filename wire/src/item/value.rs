//! Values, attributes and items as programs build them.
//!
//! An [`Item`] keeps its attributes in order whatever the order of insertion. [`Value`]'s sets and maps are
//! open vectors; [`Value::string_set`] and its siblings put them in order, and [`encode`](super::encode)
//! refuses what is not.
//!
//! The archived types have the same shape. They are reached only through [`access`](super::access), and
//! become owned again only through [`to_item`](ArchivedItem::to_item), which keeps what an item promises.

use super::error::{ItemError, Trail};
use super::number::Number;
use rkyv::{Archive, Serialize};
use std::fmt;
use std::str::FromStr;

/// A value of one of DynamoDB's ten types.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)),
    derive(Debug)
)]
pub enum Value {
    /// Text.
    S(String),
    /// A number.
    N(Number),
    /// Bytes.
    B(Vec<u8>),
    /// True or false.
    Bool(bool),
    /// Nothing, said explicitly.
    Null,
    /// A set of texts: not empty, strictly ascending.
    Ss(Vec<String>),
    /// A set of numbers: not empty, strictly ascending.
    Ns(Vec<Number>),
    /// A set of byte strings: not empty, strictly ascending.
    Bs(Vec<Vec<u8>>),
    /// A list of any values.
    L(#[rkyv(omit_bounds)] Vec<Value>),
    /// A map: strictly ascending by name.
    M(#[rkyv(omit_bounds)] Vec<Attribute>),
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)),
    derive(Debug)
)]
pub struct Attribute {
    /// The name: 1 to 65,535 bytes.
    pub name: String,
    /// The value.
    #[rkyv(omit_bounds)]
    pub value: Value,
}

/// An item: attributes, strictly ascending by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub struct Item {
    attributes: Vec<Attribute>,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub enum ValueType {
    /// Text.
    S,
    /// A number.
    N,
    /// Bytes.
    B,
    /// True or false.
    Bool,
    /// Nothing.
    Null,
    /// A set of texts.
    Ss,
    /// A set of numbers.
    Ns,
    /// A set of byte strings.
    Bs,
    /// A list.
    L,
    /// A map.
    M,
}

impl Value {
    /// A set of texts in canonical order.
    ///
    /// # Errors
    /// [`ItemError::SetEmpty`], or [`ItemError::SetNotAscending`] for a duplicate, with its place in the
    /// order.
    pub fn string_set<T: Into<String>>(elements: impl IntoIterator<Item = T>) -> Result<Self, ItemError> {
        ordered_set(elements.into_iter().map(Into::into).collect()).map(Self::Ss)
    }

    /// A set of numbers in canonical order.
    ///
    /// # Errors
    /// [`ItemError::SetEmpty`], or [`ItemError::SetNotAscending`] for a duplicate, with its place in the
    /// order.
    pub fn number_set<T: Into<Number>>(elements: impl IntoIterator<Item = T>) -> Result<Self, ItemError> {
        ordered_set(elements.into_iter().map(Into::into).collect()).map(Self::Ns)
    }

    /// A set of byte strings in canonical order.
    ///
    /// # Errors
    /// [`ItemError::SetEmpty`], or [`ItemError::SetNotAscending`] for a duplicate, with its place in the
    /// order.
    pub fn binary_set<T: Into<Vec<u8>>>(elements: impl IntoIterator<Item = T>) -> Result<Self, ItemError> {
        ordered_set(elements.into_iter().map(Into::into).collect()).map(Self::Bs)
    }

    /// A map in canonical order.
    ///
    /// # Errors
    /// [`ItemError::NameNotAscending`] when a name is there twice.
    pub fn map(attributes: Vec<Attribute>) -> Result<Self, ItemError> {
        Item::from_attributes(attributes).map(Self::from)
    }
}

fn ordered_set<T: Ord>(mut elements: Vec<T>) -> Result<Vec<T>, ItemError> {
    if elements.is_empty() {
        return Err(ItemError::SetEmpty { at: String::new() });
    }
    elements.sort_unstable();
    match elements.windows(2).position(|pair| pair[0] == pair[1]) {
        Some(place) => Err(ItemError::SetNotAscending { at: String::new(), index: place + 1 }),
        None => Ok(elements),
    }
}

impl Attribute {
    /// An attribute of this name and value.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl Item {
    /// An item without attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This item with an attribute more, or with that attribute's value replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(name, value);
        self
    }

    /// An item of these attributes, which may come in any order.
    ///
    /// # Errors
    /// [`ItemError::NameNotAscending`] when a name is there twice.
    pub fn from_attributes(mut attributes: Vec<Attribute>) -> Result<Self, ItemError> {
        attributes.sort_by(|left, right| left.name.cmp(&right.name));
        match attributes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => {
                Err(ItemError::NameNotAscending { at: Trail::Name(&Trail::Root, &pair[0].name).to_string() })
            }
            None => Ok(Self { attributes }),
        }
    }

    /// The attributes, ascending by name.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The attributes, ascending by name.
    #[must_use]
    pub fn into_attributes(self) -> Vec<Attribute> {
        self.attributes
    }

    /// The value of the attribute of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.place(name).ok().map(|place| &self.attributes[place].value)
    }

    /// The value of the attribute of this name, to change in place.
    #[must_use]
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.place(name).ok().map(|place| &mut self.attributes[place].value)
    }

    /// Sets an attribute and returns the value that it had.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let attribute = Attribute::new(name, value);
        match self.place(&attribute.name) {
            Ok(place) => Some(std::mem::replace(&mut self.attributes[place].value, attribute.value)),
            Err(place) => {
                self.attributes.insert(place, attribute);
                None
            }
        }
    }

    /// Removes an attribute and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.place(name).ok().map(|place| self.attributes.remove(place).value)
    }

    /// How many attributes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.attributes.len()
    }

    /// Whether there is no attribute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name))
    }
}

impl ArchivedItem {
    /// The attributes, ascending by name if the item was validated.
    #[must_use]
    pub fn attributes(&self) -> &[ArchivedAttribute] {
        self.attributes.as_slice()
    }

    /// The value of the attribute of this name, by binary search.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ArchivedValue> {
        let place = self.attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name)).ok()?;
        Some(&self.attributes[place].value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::S(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::S(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::B(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::B(bytes)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::N(number)
    }
}

macro_rules! value_from_integer {
    ($($integer:ty),*) => {
        $(impl From<$integer> for Value {
            fn from(value: $integer) -> Self {
                Self::N(Number::from(value))
            }
        })*
    };
}

value_from_integer!(i32, u32, i64, u64);

impl From<Vec<Value>> for Value {
    fn from(elements: Vec<Value>) -> Self {
        Self::L(elements)
    }
}

impl From<Item> for Value {
    fn from(item: Item) -> Self {
        Self::M(item.attributes)
    }
}

impl ValueType {
    /// Every type.
    pub const ALL: [Self; 10] =
        [Self::S, Self::N, Self::B, Self::Bool, Self::Null, Self::Ss, Self::Ns, Self::Bs, Self::L, Self::M];

    /// The name that DynamoDB's API gives the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::N => "N",
            Self::B => "B",
            Self::Bool => "BOOL",
            Self::Null => "NULL",
            Self::Ss => "SS",
            Self::Ns => "NS",
            Self::Bs => "BS",
            Self::L => "L",
            Self::M => "M",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ValueType {
    type Err = UnknownValueType;

    fn from_str(name: &str) -> Result<Self, UnknownValueType> {
        Self::ALL.into_iter().find(|value_type| value_type.name() == name).ok_or(UnknownValueType)
    }
}

/// A text that names none of the ten types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the types are S, N, B, BOOL, NULL, SS, NS, BS, L and M")]
pub struct UnknownValueType;

impl From<&ArchivedValueType> for ValueType {
    fn from(archived: &ArchivedValueType) -> Self {
        match archived {
            ArchivedValueType::S => Self::S,
            ArchivedValueType::N => Self::N,
            ArchivedValueType::B => Self::B,
            ArchivedValueType::Bool => Self::Bool,
            ArchivedValueType::Null => Self::Null,
            ArchivedValueType::Ss => Self::Ss,
            ArchivedValueType::Ns => Self::Ns,
            ArchivedValueType::Bs => Self::Bs,
            ArchivedValueType::L => Self::L,
            ArchivedValueType::M => Self::M,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_keeps_its_attributes_in_order() {
        let mut item = Item::new().with("b", 2).with("a", "one").with("B", true).with("b", 3);
        let names: Vec<_> = item.attributes().iter().map(|attribute| attribute.name.as_str()).collect();
        assert_eq!(names, ["B", "a", "b"]);
        assert_eq!(item.get("b"), Some(&Value::from(3)));
        assert_eq!(item.insert("a", "two"), Some(Value::from("one")));
        assert_eq!(item.remove("a"), Some(Value::from("two")));
        assert_eq!(item.get("a"), None);
        assert_eq!(item.len(), 2);
    }

    #[test]
    fn a_name_given_twice_is_an_error() {
        let twice = vec![Attribute::new("b", 1), Attribute::new("a", 1), Attribute::new("b", 2)];
        assert_eq!(Item::from_attributes(twice), Err(ItemError::NameNotAscending { at: "b".to_owned() }));
    }

    #[test]
    fn sets_are_put_in_order_and_duplicates_told() {
        assert_eq!(
            Value::string_set(["b", "a"]).expect("a set"),
            Value::Ss(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(
            Value::number_set([3, -1, 2]).expect("a set"),
            Value::Ns(vec![Number::from(-1), Number::from(2), Number::from(3)])
        );
        let duplicate = ItemError::SetNotAscending { at: String::new(), index: 1 };
        assert_eq!(Value::binary_set([b"x", b"x"]), Err(duplicate));
        assert_eq!(Value::string_set::<&str>([]), Err(ItemError::SetEmpty { at: String::new() }));
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for value_type in ValueType::ALL {
            assert_eq!(value_type.name().parse(), Ok(value_type));
        }
        assert_eq!("s".parse::<ValueType>(), Err(UnknownValueType));
    }
}
