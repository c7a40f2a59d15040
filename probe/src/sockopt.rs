//! The option that makes a connection deaf, and the one that says when its peer was last heard.
//!
//! With IP_MINTTL 255 the kernel drops each segment that has passed a router, and each of a sender
//! that begins with a lower TTL, as nearly all do (64 or 128): no acknowledgement, no reset (ip(7),
//! RFC 5082). It needs no privilege. No crate sets it in safe code; nix has a macro for options
//! that it does not know, and the macro expands to the call.

#![allow(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::sys::socket::getsockopt;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;
#[cfg(target_os = "linux")]
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

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
/// The beginning of TCP_INFO (linux/tcp.h): the kernel gives as much as is asked for. The structure
/// of `libc` is longer than that of older kernels, and nix wants all of it.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(unreachable_pub, reason = "the macro makes public what names it")]
pub struct Info {
    state: [u8; 8],
    /// From `tcpi_rto` to `tcpi_total_retrans`.
    numbers: [u32; 24],
}

/// `tcpi_last_ack_recv` among the numbers.
#[cfg(target_os = "linux")]
const LAST_ACK_RECEIVED: usize = 12;

#[cfg(target_os = "linux")]
sockopt_impl!(
    /// TCP_INFO.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, Info
);

/// How long ago the last acknowledgement arrived (tcp(7)); `None` where the system does not say.
#[cfg(target_os = "linux")]
pub(crate) fn since_last_ack(socket: BorrowedFd<'_>) -> Option<Duration> {
    let info = getsockopt(&socket, TcpInfo).ok()?;
    Some(Duration::from_millis(info.numbers[LAST_ACK_RECEIVED].into()))
}

/// Elsewhere the option has another form.
#[cfg(not(target_os = "linux"))]
pub(crate) fn since_last_ack(_: BorrowedFd<'_>) -> Option<Duration> {
    None
}

/// Sets SO_RCVBUF.
pub(crate) fn set_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(&socket, RcvBuf, &bytes)?)
}

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
