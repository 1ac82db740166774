//! TCP sockets for all who speak the protocol, before anything is sent.

use rustix::io::Errno;
use rustix::net::sockopt::{set_tcp_congestion, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

/// The congestion control within a host: the kernel always has it, anyone may choose it, and it never paces.
const WITHIN_HOST: &str = "reno";

/// Frames go at once, and within this host they are not paced: what shares a network fairly with others (BBR
/// does, by timers) only delays them there. A listener hands it on to whom it accepts, if `peer` is its own
/// address. It has its whole effect on a socket that is not yet connected.
///
/// # Errors
/// When it is no TCP socket.
pub fn tune(socket: impl AsFd, peer: SocketAddr) -> io::Result<()> {
    set_tcp_nodelay(&socket, true)?;
    if peer.ip().is_loopback() {
        // Where that is refused the host's own stays, and only the tail is longer.
        let _refused = set_tcp_congestion(&socket, WITHIN_HOST);
    }
    Ok(())
}

/// Connects, and waits for it as long as the kernel does.
///
/// # Errors
/// When nobody listens there, or there are no descriptors left.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = open(address, SocketFlags::CLOEXEC)?;
    rustix::net::connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}

/// Begins a connection attempt that does not wait.
pub(crate) fn begin_to_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = open(address, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

fn open(address: SocketAddr, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    tune(&socket, address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::tcp_congestion;
    use std::net::TcpListener;

    #[test]
    fn nothing_paces_within_a_host() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        tune(&listener, address).unwrap();
        let ours = connect(address).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        for stream in [&ours, &theirs] {
            assert_eq!(tcp_congestion(stream).unwrap(), WITHIN_HOST);
        }
        assert!(ours.nodelay().unwrap() && theirs.nodelay().unwrap());
    }

    #[test]
    fn towards_other_hosts_the_hosts_choice_stays() {
        let untouched = open("192.0.2.1:1".parse().unwrap(), SocketFlags::CLOEXEC).unwrap();
        let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        assert_eq!(tcp_congestion(&untouched).unwrap(), default.trim());
    }
}
