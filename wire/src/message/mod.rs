//! The bodies of frames: rkyv archives, one type per kind.
//!
//! Bodies are flat. An item, a condition or an update inside one is opaque bytes with an archive of its own,
//! so that a hop that does not need it never walks it. Access is checked, always: bytes from a socket are not
//! trusted.

pub mod batch;
pub mod catalog;
pub mod lent;
pub mod peer;
pub mod request;
pub mod routing;
pub mod status;
pub mod tail;

use crate::error::{ErrorCode, Problem};
use crate::frame::Kind;
use rkyv::api::high::{HighSerializer, HighValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::with_arena;
use rkyv::{Archive, Portable};

/// A type that is the body of a frame of one kind.
pub trait Body {
    /// That kind.
    const KIND: Kind;
}

/// The serializer that writes archives behind a frame's header.
pub type Serializer<'a> = HighSerializer<&'a mut Vec<u8>, ArenaHandle<'a>, Failure>;

/// What [`encode`] accepts.
pub trait Encode<'a>: rkyv::Serialize<Serializer<'a>> {}

impl<'a, T: rkyv::Serialize<Serializer<'a>> + ?Sized> Encode<'a> for T {}

/// The validator behind [`access`].
pub type Validator<'a> = HighValidator<'a, Failure>;

/// Appends the archive of `value` to `out`.
pub fn encode<T: for<'a> Encode<'a>>(value: &T, out: &mut Vec<u8>) {
    with_arena(|arena| {
        to_bytes_in_with_alloc::<_, _, Failure>(value, &mut *out, arena.acquire()).map(|_| ())
    })
    .expect("writing an archive into memory fails only beyond 2 GiB, and bodies are bounded");
}

/// Checked access to an archive.
///
/// # Errors
/// [`ErrorCode::Malformed`] when the bytes are not an archive of this type.
pub fn access<T: Archive>(bytes: &[u8]) -> Result<&T::Archived, Problem>
where
    T::Archived: Portable + for<'a> CheckBytes<Validator<'a>>,
{
    rkyv::access::<T::Archived, Failure>(bytes).map_err(|Failure| {
        let name = std::any::type_name::<T>().rsplit("::").next().unwrap_or("body");
        let name = name.split('<').next().unwrap_or(name);
        Problem::new(
            ErrorCode::Malformed,
            format!("{} bytes are not a well-formed {name}; the sender has a bug", bytes.len()),
        )
    })
}

/// The owned value of an archive that [`access`] has checked.
pub fn to_owned<T: Archive>(archived: &T::Archived) -> T
where
    T::Archived: rkyv::Deserialize<T, Strategy<rkyv::de::Pool, Failure>>,
{
    rkyv::deserialize::<T, Failure>(archived).expect("checked archives of owned types can always be read")
}
