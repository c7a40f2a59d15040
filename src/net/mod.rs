//! The operating system as one trait: every call that the reactor makes, and nothing else.
//!
//! Invariant: the reactor decides, and the net executes. No method blocks except [`Net::poll`], and
//! none retries. The net owns the descriptors; the reactor knows only slots of its tables.
//!
//! Two implementations: [`os`] is the real one, `sim` a network in memory.

pub mod os;
mod resolver;
#[cfg(target_os = "linux")]
mod sock_diag;
#[cfg(target_os = "linux")]
mod splice;
mod tcp;
mod unix;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::error::LookupErrorKind;
use crate::id::SocketId;
use crate::lifecycle::{Input, State};
use crate::options::{KeepAlive, ListenOptions};
use crate::target::BoundAddr;

pub use crate::kernel_pipe::KernelPipe;
pub use crate::options::SystemOptions;
pub use crate::unix_addr::UnixAddr;

/// Names what can become ready. The token of a closed connection matches no later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// The slot in its table.
    pub index: u32,
    /// The generation of a connection; 0 for a listener.
    pub generation: u32,
}

/// The readiness of one token, in epoll's terms. Flags can be spurious, merged or repeated: a
/// reason to make a call. Only `read_closed` is a fact when it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// A read or accept may succeed.
    pub readable: bool,
    /// A write may succeed, or a handshake has a result.
    pub writable: bool,
    /// The peer has finished, or the connection is dead (RDHUP, HUP). A paused socket, which does
    /// not read, learns this from the flag alone.
    pub read_closed: bool,
    /// Both halves are shut down, or the connection is dead (HUP); or an error came alone (mio).
    pub write_closed: bool,
    /// The socket has a pending error (ERR).
    pub error: bool,
}

/// The result of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// How many bytes; 0 is the end of the stream.
    pub bytes: usize,
    /// Nothing is left in the kernel: what arrives next brings an edge, if the connection is
    /// registered. A short read alone does not prove it: an urgent byte splits a TCP stream, a
    /// message with a descriptor or credentials a Unix one, and what follows brings no edge.
    pub drained: bool,
}

/// The result of one [`Net::poll`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Polled {
    /// Everything that happened up to this time was reported, unless there is `more`. The clock is
    /// read before the system call, so that time in which the process is stopped does not count.
    pub complete_until: Instant,
    /// There may be more readiness than fitted.
    pub more: bool,
}

/// What a connection has to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// Bytes, perhaps followed by the end.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The end of the stream.
    End,
}

/// What a kernel says of one of its connections, as ss(8) prints it.
///
/// ```
/// use finale::trace::KernelView;
/// let view = KernelView { state: "CLOSE-WAIT", unread: 1, unacked: 0 };
/// assert_eq!(view.to_string(), "CLOSE-WAIT Recv-Q 1 Send-Q 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelView {
    /// The state of RFC 9293 section 3.3.2.
    pub state: &'static str,
    /// Bytes that have arrived and were not read (Recv-Q). On Linux a FIN counts as one.
    pub unread: u32,
    /// Bytes that the peer's kernel has not acknowledged (Send-Q). Our FIN counts as one.
    pub unacked: u32,
}

impl fmt::Display for KernelView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Recv-Q {} Send-Q {}", self.state, self.unread, self.unacked)
    }
}

/// The result of a lookup.
pub type LookupAnswer = Result<Vec<SocketAddr>, LookupErrorKind>;

/// The operating system, as far as the reactor needs one.
///
/// `slot` is a connection's slot in the reactor's table, `listener` a listener's. All sockets are
/// non-blocking: after `WouldBlock` an edge follows, if the connection is registered.
///
/// Errors are the system's, as the call returned them; a connection's pending error is returned
/// once. Each method documents what it adds to that.
pub trait Net {
    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// Waits for readiness for at most `timeout` (`None`: without limit; zero: not at all), and
    /// passes it to `ready`. `now` is the time, just read from the clock: the timeout counts from
    /// then. Can return early. An error means that the net can't wait at all.
    fn poll(
        &mut self,
        now: Instant,
        timeout: Option<Duration>,
        ready: &mut dyn FnMut(Token, Readiness),
    ) -> io::Result<Polled>;

    /// Returns a function for other threads that ends the running `poll`, or else the next one.
    fn waker(&self) -> Box<dyn Fn() + Send + Sync>;

    /// Opens a listener and returns the address it is bound to.
    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &ListenOptions) -> io::Result<SocketAddr>;

    /// Opens a listener on a Unix domain socket, and removes its file with it. Where there are no
    /// such sockets, the error is EOPNOTSUPP.
    fn listen_unix(&mut self, _listener: u32, _addr: &UnixAddr, _options: &ListenOptions) -> io::Result<()> {
        Err(rustix::io::Errno::OPNOTSUPP.into())
    }

    /// Accepts one connection into `slot`, and returns its peer's address; a Unix domain socket has
    /// none. While more connections wait, each `poll` reports the listener again.
    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>>;

    /// Whether `poll` reports the listener, as it does at first. If not, its connections wait.
    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()>;

    /// Closes a listener. The kernel resets the connections in its queue.
    fn unlisten(&mut self, listener: u32);

    /// Registers `slot`, and begins a handshake in it. After an error nothing is open in `slot`, and
    /// nothing was begun.
    fn connect(
        &mut self,
        slot: u32,
        token: Token,
        addr: SocketAddr,
        options: &SystemOptions,
        local: Option<SocketAddr>,
    ) -> io::Result<()>;

    /// Connects `slot` to a Unix domain socket. `WouldBlock`: the listener's queue is full. No edge
    /// follows, since nothing has begun: the reactor tries again until the connect timeout. Where
    /// there are no such sockets, the error is EOPNOTSUPP.
    fn connect_unix(&mut self, _slot: u32, _token: Token, _addr: &UnixAddr, _: &SystemOptions) -> io::Result<()> {
        Err(rustix::io::Errno::OPNOTSUPP.into())
    }

    /// The result of a handshake: `true` established, `false` under way, or why it failed. Not
    /// valid after an error.
    fn connected(&mut self, slot: u32) -> io::Result<bool>;

    /// Several handshakes had the same token, and this one was established first: moves the
    /// connection from slot `from` to slot `to`, which is empty or the same. The next `poll`
    /// reports its present state, since earlier readiness may belong to another handshake. Even
    /// after an error the connection was moved, but is not registered.
    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()>;

    /// Registers a connection: from now on `poll` reports its readiness, the present state first.
    fn register(&mut self, slot: u32, token: Token) -> io::Result<()>;

    /// Reads into `buffer`, which is not empty. 0 is the end of the stream: the peer's FIN, or what
    /// follows an error that was returned already. After a FIN it stays 0 even if a reset follows;
    /// [`take_error`](Net::take_error) has that.
    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received>;

    /// The same into the spare capacity of `buffer`, which is not 0. The system need not zero it
    /// first.
    fn recv_spare(&mut self, slot: u32, buffer: &mut Vec<u8>) -> io::Result<Received> {
        let filled = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let received = self.recv(slot, &mut buffer[filled..]);
        buffer.truncate(filled + received.as_ref().map_or(0, |received| received.bytes));
        received
    }

    /// Moves at most `limit` bytes that have arrived into an empty kernel pipe, without a copy. If
    /// there is none it is opened. 0: nothing was moved, and [`recv`](Net::recv) finds out why.
    /// Nothing has arrived, the stream has ended, or the system has no splice(2) for this socket or
    /// no descriptors for a pipe.
    fn splice_in(&mut self, _slot: u32, _pipe: &mut Option<Box<KernelPipe>>, _limit: usize) -> io::Result<usize> {
        Ok(0)
    }

    /// What a read would find, without reading.
    fn peek(&mut self, slot: u32) -> io::Result<Unread>;

    /// Whether a read would find something now: bytes, the end, or an error. Takes nothing, so a
    /// pending error stays.
    fn is_readable(&self, slot: u32) -> bool;

    /// Writes, perhaps less than all; an edge follows a short write, as it follows `WouldBlock`.
    /// With `more` the kernel holds the last partial segment back until the rest of the bytes, or
    /// [`finish`](Net::finish) or [`close`](Net::close), follows.
    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize>;

    /// The same as [`send`](Net::send) for several pieces, none of them empty. The written bytes
    /// may end in any of them.
    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize>;

    /// The same as [`send`](Net::send) for at most `limit` bytes of a kernel pipe, which has some.
    /// EINVAL: the socket can't take them in this way.
    fn splice_out(&mut self, _slot: u32, _pipe: &mut KernelPipe, _limit: usize, _more: bool) -> io::Result<usize> {
        Err(rustix::io::Errno::INVAL.into())
    }

    /// Sends our FIN after everything written. During a handshake it would end the attempt. After a
    /// reset whose error was returned already, the error is ENOTCONN.
    fn finish(&mut self, slot: u32) -> io::Result<()>;

    /// Whether both FINs were exchanged and the peer's kernel has acknowledged ours. Called when
    /// both sides have finished. Not valid after an error: a dead connection looks the same.
    fn acknowledged(&mut self, slot: u32) -> io::Result<bool>;

    /// How long ago the peer's kernel last took bytes of ours; `None` if that is not known. Called
    /// when a limit of silence has expired: a peer that still takes bytes is not silent.
    fn time_since_acked(&mut self, _slot: u32) -> io::Result<Option<Duration>> {
        Ok(None)
    }

    /// What the kernel says of the connection with this peer; `None` if that is not known. For
    /// people: the reactor does not call it.
    fn kernel_view(&mut self, _slot: u32, _peer: Option<SocketAddr>) -> Option<KernelView> {
        None
    }

    /// The descriptor of a connection; a simulated one has none.
    fn descriptor(&self, _slot: u32) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes the error that has ended the connection, if any. An error that the connection survives,
    /// such as that of an ICMP message (RFC 1122 section 4.2.3.9), is not returned.
    fn take_error(&mut self, slot: u32) -> Option<io::Error>;

    /// Drops what has arrived and was not read, at most 1 MiB: it would make [`close`](Net::close) a
    /// reset.
    fn drop_unread(&mut self, slot: u32) {
        let mut buffer = vec![0; 1 << 16];
        let mut reads = 0..16;
        while reads.next().is_some() && self.recv(slot, &mut buffer).is_ok_and(|received| received.bytes > 0) {}
    }

    /// close(2). The kernel delivers what it has, and a FIN; if bytes are unread it sends RST.
    fn close(&mut self, slot: u32);

    /// Resets the connection: RST, and what was not delivered yet is dropped. A Unix domain socket
    /// is closed instead: its peer reads an end, unless bytes of its own are unread.
    fn reset(&mut self, slot: u32);

    /// Sets TCP_NODELAY on one connection.
    fn set_nodelay(&mut self, slot: u32, on: bool) -> io::Result<()>;

    /// Sets keep-alive on one connection, or switches it off.
    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()>;

    /// The local address of a connection.
    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr>;

    /// Looks a host name up, off this thread. [`looked_up`](Net::looked_up) has the result. After an
    /// error it was not begun; if that passes (EAGAIN, ENOMEM), the reactor tries again.
    fn lookup(&mut self, token: Token, host: &str, port: u16) -> io::Result<()>;

    /// The result of this lookup is no longer needed. A lookup that has not begun can be dropped.
    fn forget_lookup(&mut self, _token: Token) {}

    /// The next finished lookup. Its token may be stale.
    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)>;

    /// A seed for random delays: each call returns another one, and each process gets others. A
    /// simulated network derives it from its own seed.
    fn seed(&self) -> u64 {
        RandomState::new().hash_one(0)
    }

    /// Takes over a listening socket that was opened elsewhere. Only the operating system has any.
    fn adopt(&mut self, _listener: u32, _fd: OwnedFd, _options: &ListenOptions) -> io::Result<BoundAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The socket in the slot [`SocketId::index`] was in this state and got this input. A net can
    /// count them to know what it has caused.
    #[inline]
    fn stepped(&mut self, _socket: SocketId, _state: State, _input: Input) {}
}
