//! Sockets before a ring has them: opening, options, addresses as the kernel wants them.
#![allow(unsafe_code)]

use crate::limits::{KEEP_ALIVE_AFTER, UNACKNOWLEDGED_MAX};
use rustix::net::sockopt::set_tcp_congestion;
use std::ffi::c_int;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// An address in the kernel's form.
#[derive(Debug)]
pub(crate) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    /// Where it lies, and its length.
    pub(crate) fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(address) => ((&raw const *address).cast(), size_of_val(address) as libc::socklen_t),
            Self::V6(address) => ((&raw const *address).cast(), size_of_val(address) as libc::socklen_t),
        }
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}

/// A TCP socket that can be connected to `address`.
///
/// # Errors
/// When the process has no descriptors left, or the address family is not supported.
pub(crate) fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: the call takes no pointers.
    let descriptor = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    tune(&stream)?;
    do_not_pace_within_host(&stream, address);
    Ok(stream)
}

/// Within this host, `peer`'s, frames are not paced: what shares a network fairly with others (BBR does, by
/// timers) only delays them there. A listener, whose own address `peer` is, hands it on to whom it accepts.
pub(crate) fn do_not_pace_within_host(socket: &impl AsFd, peer: SocketAddr) {
    if peer.ip().is_loopback() {
        // The kernel always has it, and anyone may choose it. Where it is refused the host's own stays, and
        // only the tail is longer.
        let _refused = set_tcp_congestion(socket, "reno");
    }
}

/// Sets what every connection needs: no delay for small frames, and notice of hosts that have vanished.
///
/// # Errors
/// When the kernel refuses an option.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive_s = KEEP_ALIVE_AFTER.as_secs() as c_int;
    set_option(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, keep_alive_s)?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (keep_alive_s / 3).max(1))?;
    set_option(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, UNACKNOWLEDGED_MAX.as_millis() as c_int)
}

fn set_option(stream: &TcpStream, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let (pointer, bytes) = ((&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: the pointer is to an integer of ours that lives through the call, and the length is its.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, pointer, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::tcp_congestion;
    use std::net::TcpListener;

    #[test]
    fn addresses_keep_port_and_octets_in_network_order() {
        let RawAddress::V4(raw) = RawAddress::from("127.0.0.2:258".parse::<SocketAddr>().unwrap()) else {
            panic!("an IPv4 address");
        };
        assert_eq!(raw.sin_port.to_ne_bytes(), [1, 2]);
        assert_eq!(raw.sin_addr.s_addr.to_ne_bytes(), [127, 0, 0, 2]);
        let RawAddress::V6(raw) = RawAddress::from("[::1]:7".parse::<SocketAddr>().unwrap()) else {
            panic!("an IPv6 address");
        };
        assert_eq!(raw.sin6_addr.s6_addr[15], 1);
    }

    #[test]
    fn a_new_socket_does_not_delay_small_frames() {
        let stream = open("127.0.0.1:1".parse().unwrap()).unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn nothing_paces_within_a_host() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        do_not_pace_within_host(&listener, address);
        let connected = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for stream in [&accepted, &open(address).unwrap()] {
            assert_eq!(tcp_congestion(stream).unwrap(), "reno");
        }
        let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        let remote = open("192.0.2.1:1".parse().unwrap()).unwrap();
        for stream in [&connected, &remote] {
            assert_eq!(tcp_congestion(stream).unwrap(), default.trim());
        }
    }
}
