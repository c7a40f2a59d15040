//! TCP_DEFER_ACCEPT: a listener that becomes ready only when a connection's first bytes have
//! arrived.
//!
//! Neither the standard library nor socket2 nor rustix sets it in safe code. nix lets its users
//! describe an option.

use std::io;
use std::time::Duration;

use socket2::Socket;

/// The kernel accepts a connection for us only when there is something to read, or after `wait` and
/// a little more: it counts in repeats of its SYN-ACK (after 1, 3, 7 ... seconds), and takes whole
/// seconds (tcp(7)).
#[cfg(target_os = "linux")]
pub(super) fn set(listener: &Socket, wait: Duration) -> io::Result<()> {
    let seconds = i32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i32::MAX);
    Ok(nix::sys::socket::setsockopt(listener, option::DeferAccept, &seconds)?)
}

#[cfg(target_os = "linux")]
mod option {
    use nix::libc;
    use nix::sys::socket::sockopt::SetStruct;

    #[derive(Clone)]
    pub(super) struct DeferAccept;

    nix::setsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32, SetStruct<'_, i32>);
}

/// Only Linux has it.
#[cfg(not(target_os = "linux"))]
pub(super) fn set(_: &Socket, _: Duration) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no TCP_DEFER_ACCEPT"))
}
