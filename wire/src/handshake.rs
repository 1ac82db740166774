//! The handshake: the first frame each way on every connection.
//!
//! The side that connected says who it is, which protocol versions it speaks and which cluster it means; the
//! other side answers with the same. Before that, a connection may carry only this one small frame. The place
//! for authentication is reserved: a process that receives a credential it cannot check refuses the
//! connection rather than ignore it.

use crate::error::{ErrorAnswer, ErrorCode, Problem};
use crate::frame::{Header, Kind, VERSION, seal};
use crate::ids::{CoreId, Incarnation, NodeId, RequestId};
use crate::message::{Body, access, encode};
use crate::table::Member;
use rkyv::{Archive, Deserialize, Serialize};

/// What a process is on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Clone, Copy))]
pub enum PeerRole {
    /// A program that uses tables.
    Client,
    /// A router core.
    Router,
    /// A MemDS server.
    Memds,
    /// A storage core.
    Storage,
}

impl From<ArchivedPeerRole> for PeerRole {
    fn from(archived: ArchivedPeerRole) -> Self {
        match archived {
            ArchivedPeerRole::Client => Self::Client,
            ArchivedPeerRole::Router => Self::Router,
            ArchivedPeerRole::Memds => Self::Memds,
            ArchivedPeerRole::Storage => Self::Storage,
        }
    }
}

/// Who is on the other side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// What it is.
    pub role: PeerRole,
    /// Its node, for a storage core.
    pub node: NodeId,
    /// Its core, for a storage core.
    pub core: CoreId,
    /// Its data folder, for a storage core.
    pub incarnation: Incarnation,
}

impl Peer {
    /// The peer as a member of groups.
    #[must_use]
    pub fn as_member(&self) -> Member {
        let Self { node, core, incarnation, .. } = *self;
        Member { node, core, incarnation }
    }

    /// A peer that is no storage core.
    #[must_use]
    pub fn of_role(role: PeerRole) -> Self {
        Self { role, node: NodeId(0), core: CoreId(0), incarnation: Incarnation::default() }
    }
}

/// Who this side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; zero for a client, which takes any.
    pub cluster: Incarnation,
    /// What the other side will know of us.
    pub peer: Peer,
}

/// The body of a [`Kind::Hello`] frame.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest protocol version that the sender speaks.
    pub version_min: u16,
    /// Highest.
    pub version_max: u16,
    /// What it is.
    pub role: PeerRole,
    /// The cluster that it means; zero: any.
    pub cluster: Incarnation,
    /// Its node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
    /// Its data folder.
    pub incarnation: Incarnation,
    /// Reserved: name of the authentication scheme; empty: none.
    pub authentication_scheme: String,
    /// Reserved: the credential.
    pub credential: Vec<u8>,
}

impl Body for Hello {
    const KIND: Kind = Kind::Hello;
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct HelloAnswer {
    /// The version that both will speak.
    pub version: u16,
    /// What the answering side is.
    pub role: PeerRole,
    /// Its cluster.
    pub cluster: Incarnation,
    /// Its node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
    /// Its data folder.
    pub incarnation: Incarnation,
    /// Its clock, milliseconds since 1970: clients issue tokens by it.
    pub server_ms: u64,
}

impl Body for HelloAnswer {
    const KIND: Kind = Kind::HelloAnswer;
}

/// Appends the first frame of the side that connected.
pub fn greet(identity: &Identity, out: &mut Vec<u8>) {
    let Peer { role, node, core, incarnation } = identity.peer;
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        role,
        cluster: identity.cluster,
        node,
        core,
        incarnation,
        authentication_scheme: String::new(),
        credential: Vec::new(),
    };
    seal(out, Header::new(Kind::Hello, RequestId(0)), |out| encode(&hello, out));
}

/// Checks the first frame of the side that connected and appends the answer: a [`HelloAnswer`], or the error,
/// after which the connection is closed.
///
/// # Errors
/// When the other side may not speak to us.
pub fn answer(
    identity: &Identity,
    header: Header,
    body: &[u8],
    server_ms: u64,
    out: &mut Vec<u8>,
) -> Result<Peer, Problem> {
    let outcome = check_hello(identity, header, body);
    match &outcome {
        Ok(_) => {
            let Peer { role, node, core, incarnation } = identity.peer;
            let cluster = identity.cluster;
            let answer = HelloAnswer { version: VERSION, role, cluster, node, core, incarnation, server_ms };
            seal(out, Header::new(Kind::HelloAnswer, header.request), |out| encode(&answer, out));
        }
        Err(problem) => refuse(problem, header.request, out),
    }
    outcome
}

/// Appends an error frame.
pub fn refuse(problem: &Problem, request: RequestId, out: &mut Vec<u8>) {
    seal(out, Header::new(Kind::Error, request), |out| encode(&ErrorAnswer::from(problem), out));
}

fn check_hello(identity: &Identity, header: Header, body: &[u8]) -> Result<Peer, Problem> {
    if header.kind != Kind::Hello {
        return Err(refused(format!("the first frame must be a Hello, this is a {:?}", header.kind)));
    }
    let hello = access::<Hello>(body)?;
    let (low, high) = (hello.version_min.to_native(), hello.version_max.to_native());
    if !(low..=high).contains(&VERSION) {
        let message =
            format!("the peer speaks protocol versions {low} to {high}, this build speaks {VERSION}");
        return Err(Problem::new(ErrorCode::UnsupportedVersion, message));
    }
    if !hello.authentication_scheme.is_empty() || !hello.credential.is_empty() {
        return Err(refused("this build checks no credentials; connect without one".to_owned()));
    }
    check_cluster(identity, (&hello.cluster).into())?;
    Ok(Peer {
        role: hello.role.into(),
        node: (&hello.node).into(),
        core: (&hello.core).into(),
        incarnation: (&hello.incarnation).into(),
    })
}

/// Checks the answer to [`greet`]: who it is, and its clock.
///
/// # Errors
/// When it refused us, or is not who we want to speak to.
pub fn conclude(identity: &Identity, header: Header, body: &[u8]) -> Result<(Peer, u64), Problem> {
    if header.kind == Kind::Error {
        return Err(Problem::from(access::<ErrorAnswer>(body)?));
    }
    if header.kind != Kind::HelloAnswer {
        return Err(refused(format!("the first answer must be a HelloAnswer, this is a {:?}", header.kind)));
    }
    let answer = access::<HelloAnswer>(body)?;
    if answer.version != VERSION {
        let message =
            format!("the peer chose protocol version {}, this build speaks {VERSION}", answer.version);
        return Err(Problem::new(ErrorCode::UnsupportedVersion, message));
    }
    check_cluster(identity, (&answer.cluster).into())?;
    let peer = Peer {
        role: answer.role.into(),
        node: (&answer.node).into(),
        core: (&answer.core).into(),
        incarnation: (&answer.incarnation).into(),
    };
    Ok((peer, answer.server_ms.into()))
}

fn check_cluster(identity: &Identity, theirs: Incarnation) -> Result<(), Problem> {
    let any = Incarnation::default();
    if theirs != any && identity.cluster != any && theirs != identity.cluster {
        let message = format!("this is cluster {}, the peer means cluster {theirs}", identity.cluster);
        return Err(refused(message));
    }
    Ok(())
}

fn refused(message: String) -> Problem {
    Problem::new(ErrorCode::HandshakeRefused, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{BodyLimit, first_frame};

    fn identity(role: PeerRole, cluster: u8) -> Identity {
        Identity {
            cluster: Incarnation([cluster; 16]),
            peer: Peer { node: NodeId(3), ..Peer::of_role(role) },
        }
    }

    /// Lets `caller` greet `callee`; what each learns of the other.
    fn shake(caller: &Identity, callee: &Identity) -> Result<(Peer, Peer), Problem> {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        greet(caller, &mut there);
        let (header, body) = first_frame(&there, BodyLimit::BEFORE_HELLO).unwrap().unwrap();
        let seen = answer(callee, header, body, 77, &mut back);
        let (header, body) = first_frame(&back, BodyLimit::BEFORE_HELLO).unwrap().unwrap();
        let (peer, server_ms) = conclude(caller, header, body)?;
        assert_eq!(server_ms, 77);
        Ok((seen?, peer))
    }

    #[test]
    fn both_sides_learn_who_the_other_is() {
        let (caller, callee) = (identity(PeerRole::Storage, 1), identity(PeerRole::Memds, 1));
        assert_eq!(shake(&caller, &callee), Ok((caller.peer, callee.peer)));
        let client = Identity { cluster: Incarnation::default(), peer: Peer::of_role(PeerRole::Client) };
        assert!(shake(&client, &identity(PeerRole::Router, 9)).is_ok(), "a client takes any cluster");
    }

    #[test]
    fn clusters_do_not_mix() {
        let error = shake(&identity(PeerRole::Storage, 1), &identity(PeerRole::Storage, 2)).unwrap_err();
        assert_eq!(error.code, ErrorCode::HandshakeRefused);
    }

    #[test]
    fn a_first_frame_of_another_kind_is_refused() {
        let mut out = Vec::new();
        let header = Header::new(Kind::Put, RequestId(4));
        let error = answer(&identity(PeerRole::Router, 1), header, b"", 0, &mut out).unwrap_err();
        assert_eq!(error.code, ErrorCode::HandshakeRefused);
        let (header, _) = first_frame(&out, BodyLimit::BEFORE_HELLO).unwrap().unwrap();
        assert_eq!((header.kind, header.request), (Kind::Error, RequestId(4)));
    }
}
