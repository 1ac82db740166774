//! Values looked at, owned or archived alike.
//!
//! A view is a copyable reference that hides which of the two it looks at. Equality, order, size and look-ups
//! are written against views, so they cannot differ between what a program built and what came over the wire,
//! and nothing is deserialised to be compared.
//!
//! Views of archives that were accessed but not validated may show numbers that are not canonical and sets or
//! maps that are out of order. Nothing here panics on them: [`EncodedNumber::to_number`] answers with an
//! error and look-ups may miss.

use super::error::ItemError;
use super::number::{ArchivedNumber, Number, NumberError};
use super::value::{ArchivedAttribute, ArchivedItem, ArchivedValue, Attribute, Item, Value, ValueType};
use rkyv::string::ArchivedString;
use rkyv::vec::ArchivedVec;
use std::cmp::Ordering;

/// A value of any type.
#[derive(Clone, Copy, Debug)]
pub enum ValueView<'a> {
    /// Text.
    S(&'a str),
    /// A number.
    N(EncodedNumber<'a>),
    /// Bytes.
    B(&'a [u8]),
    /// True or false.
    Bool(bool),
    /// Nothing.
    Null,
    /// A set of texts, numbers or byte strings.
    Set(SetView<'a>),
    /// A list.
    L(ListView<'a>),
    /// A map.
    M(MapView<'a>),
}

/// A number's bytes, which compare as the numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodedNumber<'a>(&'a [u8]);

/// The elements of a set.
#[derive(Clone, Copy, Debug)]
pub enum SetView<'a> {
    /// Texts.
    Ss(&'a [String]),
    /// Numbers.
    Ns(&'a [Number]),
    /// Byte strings.
    Bs(&'a [Vec<u8>]),
    /// Archived texts.
    ArchivedSs(&'a [ArchivedString]),
    /// Archived numbers.
    ArchivedNs(&'a [ArchivedNumber]),
    /// Archived byte strings.
    ArchivedBs(&'a [ArchivedVec<u8>]),
}

/// The elements of a list.
#[derive(Clone, Copy, Debug)]
pub enum ListView<'a> {
    /// Owned.
    Owned(&'a [Value]),
    /// Archived.
    Archived(&'a [ArchivedValue]),
}

/// The attributes of an item or a map.
#[derive(Clone, Copy, Debug)]
pub enum MapView<'a> {
    /// Owned.
    Owned(&'a [Attribute]),
    /// Archived.
    Archived(&'a [ArchivedAttribute]),
}

impl<'a> ValueView<'a> {
    /// The value's type.
    #[must_use]
    pub fn value_type(self) -> ValueType {
        match self {
            Self::S(_) => ValueType::S,
            Self::N(_) => ValueType::N,
            Self::B(_) => ValueType::B,
            Self::Bool(_) => ValueType::Bool,
            Self::Null => ValueType::Null,
            Self::Set(set) => set.value_type(),
            Self::L(_) => ValueType::L,
            Self::M(_) => ValueType::M,
        }
    }

    /// The order of two texts, two numbers or two byte strings; nothing else has one.
    #[must_use]
    pub fn compare(self, other: ValueView<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::S(left), ValueView::S(right)) => Some(left.cmp(right)),
            (Self::N(left), ValueView::N(right)) => Some(left.cmp(&right)),
            (Self::B(left), ValueView::B(right)) => Some(left.cmp(right)),
            (
                Self::S(_)
                | Self::N(_)
                | Self::B(_)
                | Self::Bool(_)
                | Self::Null
                | Self::Set(_)
                | Self::L(_)
                | Self::M(_),
                _,
            ) => None,
        }
    }

    /// A copy of the value that owns its parts.
    ///
    /// # Errors
    /// [`NumberError::EncodingInvalid`] when a number is not canonical, which validated items exclude.
    pub fn to_value(self) -> Result<Value, NumberError> {
        Ok(match self {
            Self::S(text) => Value::S(text.to_owned()),
            Self::N(number) => Value::N(number.to_number()?),
            Self::B(bytes) => Value::B(bytes.to_vec()),
            Self::Bool(value) => Value::Bool(value),
            Self::Null => Value::Null,
            Self::Set(set) => set.to_value()?,
            Self::L(list) => Value::L(list.iter().map(Self::to_value).collect::<Result<_, _>>()?),
            Self::M(map) => Value::M(map.to_attributes()?),
        })
    }
}

impl PartialEq<ValueView<'_>> for ValueView<'_> {
    /// Whether both are of one type and equal in every part.
    fn eq(&self, other: &ValueView<'_>) -> bool {
        match (*self, *other) {
            (Self::S(left), ValueView::S(right)) => left == right,
            (Self::N(left), ValueView::N(right)) => left == right,
            (Self::B(left), ValueView::B(right)) => left == right,
            (Self::Bool(left), ValueView::Bool(right)) => left == right,
            (Self::Null, ValueView::Null) => true,
            (Self::Set(left), ValueView::Set(right)) => {
                left.value_type() == right.value_type()
                    && left.len() == right.len()
                    && left.iter().eq(right.iter())
            }
            (Self::L(left), ValueView::L(right)) => left.len() == right.len() && left.iter().eq(right.iter()),
            (Self::M(left), ValueView::M(right)) => left == right,
            (
                Self::S(_)
                | Self::N(_)
                | Self::B(_)
                | Self::Bool(_)
                | Self::Null
                | Self::Set(_)
                | Self::L(_)
                | Self::M(_),
                _,
            ) => false,
        }
    }
}

impl<'a> EncodedNumber<'a> {
    /// The bytes.
    #[must_use]
    pub fn encoded(self) -> &'a [u8] {
        self.0
    }

    /// The number that the bytes encode.
    ///
    /// # Errors
    /// [`NumberError::EncodingInvalid`] when they are not canonical.
    pub fn to_number(self) -> Result<Number, NumberError> {
        Number::from_encoded(self.0)
    }
}

impl<'a> SetView<'a> {
    /// The set's type.
    #[must_use]
    pub fn value_type(self) -> ValueType {
        match self {
            Self::Ss(_) | Self::ArchivedSs(_) => ValueType::Ss,
            Self::Ns(_) | Self::ArchivedNs(_) => ValueType::Ns,
            Self::Bs(_) | Self::ArchivedBs(_) => ValueType::Bs,
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Ss(elements) => elements.len(),
            Self::Ns(elements) => elements.len(),
            Self::Bs(elements) => elements.len(),
            Self::ArchivedSs(elements) => elements.len(),
            Self::ArchivedNs(elements) => elements.len(),
            Self::ArchivedBs(elements) => elements.len(),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element at `index` as a value, if there is one.
    #[must_use]
    pub fn get(self, index: usize) -> Option<ValueView<'a>> {
        match self {
            Self::Ss(elements) => elements.get(index).map(|text| ValueView::S(text)),
            Self::Ns(elements) => elements.get(index).map(ValueView::from),
            Self::Bs(elements) => elements.get(index).map(|bytes| ValueView::B(bytes)),
            Self::ArchivedSs(elements) => elements.get(index).map(|text| ValueView::S(text.as_str())),
            Self::ArchivedNs(elements) => elements.get(index).map(ValueView::from),
            Self::ArchivedBs(elements) => elements.get(index).map(|bytes| ValueView::B(bytes.as_slice())),
        }
    }

    /// The elements as values.
    pub fn iter(self) -> impl Iterator<Item = ValueView<'a>> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    /// Whether a value is in the set, by binary search.
    #[must_use]
    pub fn contains(self, wanted: ValueView<'_>) -> bool {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).and_then(|element| element.compare(wanted)) {
                Some(Ordering::Less) => low = middle + 1,
                Some(Ordering::Greater) => high = middle,
                Some(Ordering::Equal) => return true,
                None => return false,
            }
        }
        false
    }

    fn to_value(self) -> Result<Value, NumberError> {
        Ok(match self {
            Self::Ss(elements) => Value::Ss(elements.to_vec()),
            Self::Ns(elements) => Value::Ns(elements.to_vec()),
            Self::Bs(elements) => Value::Bs(elements.to_vec()),
            Self::ArchivedSs(elements) => {
                Value::Ss(elements.iter().map(|text| text.as_str().to_owned()).collect())
            }
            Self::ArchivedNs(elements) => Value::Ns(
                elements
                    .iter()
                    .map(|number| Number::from_encoded(number.encoded()))
                    .collect::<Result<_, _>>()?,
            ),
            Self::ArchivedBs(elements) => {
                Value::Bs(elements.iter().map(|bytes| bytes.as_slice().to_vec()).collect())
            }
        })
    }
}

impl<'a> ListView<'a> {
    /// How many elements there are.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Owned(elements) => elements.len(),
            Self::Archived(elements) => elements.len(),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element at `index`, if there is one.
    #[must_use]
    pub fn get(self, index: usize) -> Option<ValueView<'a>> {
        match self {
            Self::Owned(elements) => elements.get(index).map(Value::view),
            Self::Archived(elements) => elements.get(index).map(ArchivedValue::view),
        }
    }

    /// The elements.
    pub fn iter(self) -> impl Iterator<Item = ValueView<'a>> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }
}

impl<'a> MapView<'a> {
    /// How many attributes there are.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Owned(attributes) => attributes.len(),
            Self::Archived(attributes) => attributes.len(),
        }
    }

    /// Whether there is no attribute.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The value of the attribute of this name, by binary search.
    #[must_use]
    pub fn get(self, name: &str) -> Option<ValueView<'a>> {
        match self {
            Self::Owned(attributes) => {
                let place =
                    attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name)).ok()?;
                Some(attributes[place].value.view())
            }
            Self::Archived(attributes) => {
                let place =
                    attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name)).ok()?;
                Some(attributes[place].value.view())
            }
        }
    }

    /// The attribute at `index` in the order of names, if there is one.
    #[must_use]
    pub fn entry(self, index: usize) -> Option<(&'a str, ValueView<'a>)> {
        match self {
            Self::Owned(attributes) => {
                attributes.get(index).map(|attribute| (attribute.name.as_str(), attribute.value.view()))
            }
            Self::Archived(attributes) => {
                attributes.get(index).map(|attribute| (attribute.name.as_str(), attribute.value.view()))
            }
        }
    }

    /// The names and values.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, ValueView<'a>)> {
        (0..self.len()).filter_map(move |index| self.entry(index))
    }

    fn to_attributes(self) -> Result<Vec<Attribute>, NumberError> {
        self.iter()
            .map(|(name, value)| Ok(Attribute { name: name.to_owned(), value: value.to_value()? }))
            .collect()
    }

    /// A copy of the attributes as an item.
    ///
    /// # Errors
    /// When a number is not canonical or a name is there twice, both of which validated items exclude.
    pub fn to_item(self) -> Result<Item, ItemError> {
        let attributes = self
            .to_attributes()
            .map_err(|_: NumberError| ItemError::NumberNotCanonical { at: String::new() })?;
        Item::from_attributes(attributes)
    }
}

impl PartialEq<MapView<'_>> for MapView<'_> {
    /// Whether both have the same names with equal values.
    fn eq(&self, other: &MapView<'_>) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Value {
    /// This value, looked at.
    #[must_use]
    pub fn view(&self) -> ValueView<'_> {
        match self {
            Self::S(text) => ValueView::S(text),
            Self::N(number) => ValueView::from(number),
            Self::B(bytes) => ValueView::B(bytes),
            Self::Bool(value) => ValueView::Bool(*value),
            Self::Null => ValueView::Null,
            Self::Ss(elements) => ValueView::Set(SetView::Ss(elements)),
            Self::Ns(elements) => ValueView::Set(SetView::Ns(elements)),
            Self::Bs(elements) => ValueView::Set(SetView::Bs(elements)),
            Self::L(elements) => ValueView::L(ListView::Owned(elements)),
            Self::M(attributes) => ValueView::M(MapView::Owned(attributes)),
        }
    }
}

impl ArchivedValue {
    /// This value, looked at.
    #[must_use]
    pub fn view(&self) -> ValueView<'_> {
        match self {
            Self::S(text) => ValueView::S(text.as_str()),
            Self::N(number) => ValueView::from(number),
            Self::B(bytes) => ValueView::B(bytes.as_slice()),
            Self::Bool(value) => ValueView::Bool(*value),
            Self::Null => ValueView::Null,
            Self::Ss(elements) => ValueView::Set(SetView::ArchivedSs(elements.as_slice())),
            Self::Ns(elements) => ValueView::Set(SetView::ArchivedNs(elements.as_slice())),
            Self::Bs(elements) => ValueView::Set(SetView::ArchivedBs(elements.as_slice())),
            Self::L(elements) => ValueView::L(ListView::Archived(elements.as_slice())),
            Self::M(attributes) => ValueView::M(MapView::Archived(attributes.as_slice())),
        }
    }
}

impl Item {
    /// This item's attributes, looked at.
    #[must_use]
    pub fn view(&self) -> MapView<'_> {
        MapView::Owned(self.attributes())
    }
}

impl ArchivedItem {
    /// This item's attributes, looked at.
    #[must_use]
    pub fn view(&self) -> MapView<'_> {
        MapView::Archived(self.attributes())
    }

    /// A copy that owns its parts.
    ///
    /// # Errors
    /// When the item is not canonical, which validated items exclude.
    pub fn to_item(&self) -> Result<Item, ItemError> {
        self.view().to_item()
    }
}

impl<'a> From<&'a Number> for ValueView<'a> {
    fn from(number: &'a Number) -> Self {
        Self::N(EncodedNumber(number.encoded()))
    }
}

impl<'a> From<&'a ArchivedNumber> for ValueView<'a> {
    fn from(number: &'a ArchivedNumber) -> Self {
        Self::N(EncodedNumber(number.encoded()))
    }
}

impl<'a> From<&'a Value> for ValueView<'a> {
    fn from(value: &'a Value) -> Self {
        value.view()
    }
}

impl<'a> From<&'a ArchivedValue> for ValueView<'a> {
    fn from(value: &'a ArchivedValue) -> Self {
        value.view()
    }
}

impl<'a> From<&'a Item> for MapView<'a> {
    fn from(item: &'a Item) -> Self {
        item.view()
    }
}

impl<'a> From<&'a ArchivedItem> for MapView<'a> {
    fn from(item: &'a ArchivedItem) -> Self {
        item.view()
    }
}

impl PartialEq<Item> for ArchivedItem {
    fn eq(&self, other: &Item) -> bool {
        self.view() == other.view()
    }
}

impl PartialEq<Value> for ArchivedValue {
    fn eq(&self, other: &Value) -> bool {
        self.view() == other.view()
    }
}
