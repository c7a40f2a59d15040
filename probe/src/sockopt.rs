//! The option that makes a connection deaf.
//!
//! With IP_MINTTL 255 the kernel drops each segment that has passed a router, and each of a sender
//! that begins with a lower TTL, as nearly all do (64 or 128): no acknowledgement, no reset (ip(7),
//! RFC 5082). It needs no privilege. No crate sets it in safe code; nix has a macro for options
//! that it does not know, and the macro expands to the call.

#![allow(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

#[cfg(target_os = "linux")]
use nix::sys::socket::setsockopt;
#[cfg(target_os = "linux")]
use nix::{setsockopt_impl, sockopt_impl};

#[cfg(target_os = "linux")]
sockopt_impl!(
    /// IP_MINTTL.
    MinTtl, SetOnly, libc::IPPROTO_IP, libc::IP_MINTTL, usize
);
#[cfg(target_os = "linux")]
sockopt_impl!(
    /// IPV6_MINHOPCOUNT.
    MinHops, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, usize
);

/// From now on the kernel drops the segments of this connection that arrive with a lower TTL. 0:
/// none.
#[cfg(target_os = "linux")]
pub(crate) fn set_min_ttl(socket: BorrowedFd<'_>, peer: IpAddr, ttl: u8) -> io::Result<()> {
    let ttl = usize::from(ttl);
    let set = match peer {
        IpAddr::V4(_) => setsockopt(&socket, MinTtl, &ttl),
        IpAddr::V6(_) => setsockopt(&socket, MinHops, &ttl),
    };
    Ok(set?)
}

/// Elsewhere it is not known to work: the cases that need it are skipped.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set_min_ttl(_: BorrowedFd<'_>, _: IpAddr, _: u8) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
