//! TCP_DEFER_ACCEPT: a listener that wakes nobody before a connection's first bytes are there.
//!
//! Neither the standard library nor socket2 nor rustix sets it in safe code; nix lets its users describe an option.

use std::io;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetStruct;
use socket2::Socket;

#[derive(Clone)]
struct DeferAccept;

nix::setsockopt_impl!(DeferAccept, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32, SetStruct<'_, i32>);

/// The kernel keeps connections to itself until they have something to read, or for `wait` and a little more: it counts in
/// repeats of its SYN-ACK (after 1, 3, 7 ... seconds), and whole seconds are what it takes (tcp(7)).
pub(crate) fn set(listener: &Socket, wait: Duration) -> io::Result<()> {
    let seconds = i32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i32::MAX);
    Ok(setsockopt(listener, DeferAccept, &seconds)?)
}
