//! Reading: the text is walked once, and becomes values without a tree of JSON in between.

use super::JsonError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_wire::item::{Attribute, Item, ItemError, Number, Value, ValueType};
use evenkeel_wire::limits::NESTING_LEVELS_MAX;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

/// Reads one item.
///
/// # Errors
/// [`JsonError`] with the place.
pub fn parse_line(line: &str) -> Result<Item, JsonError> {
    let fault = RefCell::new(None);
    let place = Place { trail: Trail::Root, fault: &fault };
    let mut reader = serde_json::Deserializer::from_str(line);
    let read = MapSeed { place, level: 1 }.deserialize(&mut reader);
    let read = read.and_then(|item| reader.end().map(|()| item));
    read.map_err(|error| match fault.into_inner() {
        Some(Fault::Told(told)) => told,
        Some(Fault::Json { at }) => JsonError::Json { at, message: error.to_string() },
        None => JsonError::Json { at: String::new(), message: error.to_string() },
    })
}

/// Where the reader is. It becomes text only when there is an error to tell.
#[derive(Clone, Copy)]
enum Trail<'a> {
    Root,
    Name(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(Self::Root, name) => f.write_str(name),
            Self::Name(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What went wrong, kept beside the reader's own error, which is only text.
enum Fault {
    /// Known in full.
    Told(JsonError),
    /// The reader's error, at this place.
    Json { at: String },
}

/// A place, and where to leave word of what went wrong there.
#[derive(Clone, Copy)]
struct Place<'a> {
    trail: Trail<'a>,
    fault: &'a RefCell<Option<Fault>>,
}

impl<'a> Place<'a> {
    fn name(&'a self, name: &'a str) -> Self {
        Place { trail: Trail::Name(&self.trail, name), fault: self.fault }
    }

    fn index(&'a self, index: usize) -> Self {
        Place { trail: Trail::Index(&self.trail, index), fault: self.fault }
    }

    fn at(&self) -> String {
        self.trail.to_string()
    }

    /// An error that is known in full.
    fn told<E: Error>(&self, error: JsonError) -> E {
        let text = E::custom(&error);
        self.fault.borrow_mut().get_or_insert(Fault::Told(error));
        text
    }

    /// The reader's error. The innermost place sees it first, and is the one that is kept.
    fn seen<T, E: Error>(&self, result: Result<T, E>) -> Result<T, E> {
        result.inspect_err(|_| {
            self.fault.borrow_mut().get_or_insert_with(|| Fault::Json { at: self.at() });
        })
    }
}

/// Reads an item or a map, whose values are at `level`.
struct MapSeed<'a> {
    place: Place<'a>,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for MapSeed<'_> {
    type Value = Item;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Item, D::Error> {
        let place = self.place;
        place.seen(reader.deserialize_map(self))
    }
}

impl<'de> Visitor<'de> for MapSeed<'_> {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Item, A::Error> {
        let mut attributes = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            let value =
                members.next_value_seed(ValueSeed { place: self.place.name(&name), level: self.level })?;
            attributes.push(Attribute { name, value });
        }
        attributes.sort_by(|left, right| left.name.cmp(&right.name));
        if let Some(twice) = attributes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(self.place.told(JsonError::NameTwice { at: self.place.name(&twice[0].name).at() }));
        }
        Item::from_attributes(attributes).map_err(A::Error::custom)
    }
}

/// Reads a value with its type.
struct ValueSeed<'a> {
    place: Place<'a>,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        let place = self.place;
        if self.level > NESTING_LEVELS_MAX {
            return Err(place.told(JsonError::TooDeep { at: place.at(), levels_max: NESTING_LEVELS_MAX }));
        }
        place.seen(reader.deserialize_map(self))
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its type, as in {\"S\":\"text\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let place = &self.place;
        let Some(name) = members.next_key::<String>()? else {
            return Err(place.told(JsonError::TypeMissing { at: place.at() }));
        };
        let Ok(value_type) = name.parse::<ValueType>() else {
            return Err(place.told(JsonError::TypeUnknown { at: place.at(), found: name }));
        };
        let value = match value_type {
            ValueType::S => Value::S(members.next_value()?),
            ValueType::N => Value::N(number(&members.next_value::<String>()?, place)?),
            ValueType::B => Value::B(binary(&members.next_value::<String>()?, place)?),
            ValueType::Bool => Value::Bool(members.next_value()?),
            ValueType::Null => {
                if !members.next_value::<bool>()? {
                    return Err(place.told(JsonError::NullNotTrue { at: place.at() }));
                }
                Value::Null
            }
            ValueType::Ss => set(members.next_value::<Vec<String>>()?, Value::string_set, place)?,
            ValueType::Ns => {
                let texts = members.next_value::<Vec<String>>()?;
                let numbers = texts.iter().enumerate().map(|(index, text)| number(text, &place.index(index)));
                set(numbers.collect::<Result<Vec<_>, _>>()?, Value::number_set, place)?
            }
            ValueType::Bs => {
                let texts = members.next_value::<Vec<String>>()?;
                let elements =
                    texts.iter().enumerate().map(|(index, text)| binary(text, &place.index(index)));
                set(elements.collect::<Result<Vec<_>, _>>()?, Value::binary_set, place)?
            }
            ValueType::L => {
                Value::L(members.next_value_seed(ListSeed { place: *place, level: self.level + 1 })?)
            }
            ValueType::M => {
                Value::from(members.next_value_seed(MapSeed { place: *place, level: self.level + 1 })?)
            }
        };
        match members.next_key::<String>()? {
            None => Ok(value),
            Some(found) => Err(place.told(JsonError::TypeTwice { at: place.at(), found })),
        }
    }
}

/// Reads the elements of a list, which are at `level`.
struct ListSeed<'a> {
    place: Place<'a>,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        let place = self.place;
        place.seen(reader.deserialize_seq(self))
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        let level = self.level;
        while let Some(value) =
            elements.next_element_seed(ValueSeed { place: self.place.index(list.len()), level })?
        {
            list.push(value);
        }
        Ok(list)
    }
}

fn number<E: Error>(text: &str, place: &Place<'_>) -> Result<Number, E> {
    text.parse().map_err(|error| place.told(JsonError::Number { at: place.at(), error }))
}

fn binary<E: Error>(text: &str, place: &Place<'_>) -> Result<Vec<u8>, E> {
    STANDARD
        .decode(text)
        .map_err(|error| place.told(JsonError::Base64 { at: place.at(), message: error.to_string() }))
}

fn set<T, E: Error>(
    elements: Vec<T>,
    make: fn(Vec<T>) -> Result<Value, ItemError>,
    place: &Place<'_>,
) -> Result<Value, E> {
    if elements.is_empty() {
        return Err(place.told(JsonError::SetEmpty { at: place.at() }));
    }
    make(elements).map_err(|_: ItemError| place.told(JsonError::ElementTwice { at: place.at() }))
}
