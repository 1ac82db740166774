//! Values that an answer lends from where they are kept, instead of copying them.

use rkyv::rancor::Fallible;
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Deserialize, Place, Resolver, Serialize};
use std::borrow::Cow;

/// A `Cow` is archived as what it holds, and is read as an owned value. (`rkyv::with::AsOwned` reads only
/// those of slices and strings.)
#[derive(Clone, Copy, Debug)]
pub struct Lent;

impl<T: Archive + Clone> ArchiveWith<Cow<'_, T>> for Lent {
    type Archived = T::Archived;
    type Resolver = Resolver<T>;

    fn resolve_with(field: &Cow<'_, T>, resolver: Self::Resolver, out: Place<Self::Archived>) {
        field.as_ref().resolve(resolver, out);
    }
}

impl<T, S> SerializeWith<Cow<'_, T>, S> for Lent
where
    T: Serialize<S> + Clone,
    S: Fallible + ?Sized,
{
    fn serialize_with(field: &Cow<'_, T>, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        field.as_ref().serialize(serializer)
    }
}

impl<'a, T, D> DeserializeWith<T::Archived, Cow<'a, T>, D> for Lent
where
    T: Archive + Clone,
    T::Archived: Deserialize<T, D>,
    D: Fallible + ?Sized,
{
    fn deserialize_with(field: &T::Archived, deserializer: &mut D) -> Result<Cow<'a, T>, D::Error> {
        field.deserialize(deserializer).map(Cow::Owned)
    }
}
