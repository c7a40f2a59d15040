//! The operating system, behind one trait: everything the reactor asks of it, and nothing else.
//!
//! Invariant: the reactor decides, the net obeys. No method blocks but [`Net::poll`]; none retries, none tells an event.
//! Connections and listeners are named by their place in the reactor's tables, so that the tables above know no
//! descriptor; the net owns the descriptors and closes them.
//!
//! Two implementations: [`os`] is the real one, [`sim`](crate::sim) a network in memory.

pub mod os;
mod resolver;
#[cfg(target_os = "linux")]
mod sock_diag;
mod tcp;
mod unix;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::LookupCause;
use crate::lifecycle::{Input, State};
use crate::options::{KeepAlive, Listen};

pub use crate::options::SystemOptions;
pub use crate::unix_addr::UnixAddr;

/// Names a thing that can become ready: a connection by place and generation, or a listener (generation 0).
///
/// The generation makes late news harmless: a token of a connection that is gone matches nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// The place in its table.
    pub index: u32,
    /// The generation of a connection; 0 for a listener.
    pub generation: u32,
}

/// News about one token, as epoll words it. Flags can be set without reason, merged, or repeated; the reactor believes a
/// flag only as a reason to ask. One alone is a fact when it is set: `read_closed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// A read or accept may succeed.
    pub readable: bool,
    /// A write may succeed, or a handshake is decided.
    pub writable: bool,
    /// The peer has finished, or the connection is dead (RDHUP, HUP): the zero-length read is owed. A fact: a paused socket
    /// can't ask, and is told so by this flag alone.
    pub read_closed: bool,
    /// Both halves are shut down, or the connection is dead (HUP); also an error flag that comes alone (mio's mapping).
    pub write_closed: bool,
    /// An error waits to be read (ERR).
    pub error: bool,
}

/// What one read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// How many bytes; 0 is the end of the stream.
    pub bytes: usize,
    /// Nothing is left in the kernel: what arrives next brings an edge, if the connection is registered. Only the transport
    /// knows: an urgent byte splits a TCP stream, a message with a descriptor or other credentials a Unix one, and what lies
    /// after the split brings no edge of its own.
    pub drained: bool,
}

/// What one [`Net::poll`] knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Polled {
    /// Everything that happened up to this time was handed over, unless there is more. The clock was read before the system
    /// was asked, so that a process that stands still in between takes nothing for a silence.
    pub complete_until: Instant,
    /// There may be more readiness than fitted.
    pub more: bool,
}

/// What a connection has to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// Bytes; whether the end stands behind them can't be seen.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The end of the stream.
    End,
}

/// What a look-up found.
pub type LookupAnswer = Result<Vec<SocketAddr>, LookupCause>;

/// The operating system, as far as the reactor needs one.
///
/// `slot` is a connection's place in the reactor's table, `listener` a listener's. All sockets are non-blocking:
/// `WouldBlock` is an answer, and after it an edge is owed if the connection is registered.
pub trait Net {
    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// Waits for readiness until the time `until` (`None`: without limit; one that has passed: not at all), and hands every
    /// piece to `ready`. May return early when interrupted, woken, or when a lookup has finished.
    ///
    /// # Errors
    /// The system's, if it can't wait at all.
    fn poll(&mut self, until: Option<Instant>, ready: &mut dyn FnMut(Token, Readiness)) -> io::Result<Polled>;

    /// What another thread calls to end a `poll` that waits, now or the next one.
    fn waker(&self) -> Box<dyn Fn() + Send + Sync>;

    /// Opens a listener and returns the address it is bound to.
    ///
    /// # Errors
    /// The system's.
    fn listen(&mut self, listener: u32, addr: SocketAddr, options: &Listen) -> io::Result<SocketAddr>;

    /// Opens a listener on a Unix domain socket, and removes its file with it.
    ///
    /// # Errors
    /// The system's; EOPNOTSUPP where there are no such sockets.
    fn listen_unix(&mut self, _listener: u32, _addr: &UnixAddr, _options: &Listen) -> io::Result<()> {
        Err(rustix::io::Errno::OPNOTSUPP.into())
    }

    /// Accepts one connection into `slot`, and answers its peer's address; a Unix domain socket's has none. As long as more
    /// wait, each `poll` tells of the listener again: nobody need ask until `WouldBlock`.
    ///
    /// # Errors
    /// `WouldBlock` if none waits; the system's otherwise.
    fn accept(&mut self, listener: u32, slot: u32) -> io::Result<Option<SocketAddr>>;

    /// Whether a listener that is [accepted](Net::accept) from brings news, as it does at first. Without, connections wait in its
    /// queue, and it keeps no poll awake.
    ///
    /// # Errors
    /// The system's.
    fn set_accepting(&mut self, listener: u32, accepting: bool) -> io::Result<()>;

    /// Closes a listener. Connections that wait in its queue are reset by the kernel.
    fn unlisten(&mut self, listener: u32);

    /// Begins a handshake in `slot`, and registers it.
    ///
    /// # Errors
    /// The system's, if it fails at once. Then nothing is left open in `slot`.
    fn connect(
        &mut self,
        slot: u32,
        token: Token,
        addr: SocketAddr,
        options: &SystemOptions,
        local: Option<SocketAddr>,
    ) -> io::Result<()>;

    /// Connects to a Unix domain socket in `slot`, and registers it. [`connected`](Net::connected) has the result, as after
    /// `connect`.
    ///
    /// # Errors
    /// `WouldBlock` if the listener's queue is full: nothing brings an edge, so the reactor tries again until the connect timeout.
    /// Otherwise the system's, and EOPNOTSUPP where there are no such sockets. Nothing is left open in `slot`.
    fn connect_unix(
        &mut self,
        _slot: u32,
        _token: Token,
        _addr: &UnixAddr,
        _options: &SystemOptions,
    ) -> io::Result<()> {
        Err(rustix::io::Errno::OPNOTSUPP.into())
    }

    /// The verdict on a handshake: `true` established, `false` still under way. Means nothing once an error was told.
    ///
    /// # Errors
    /// Why it failed, told once.
    fn connected(&mut self, slot: u32) -> io::Result<bool>;

    /// A race of handshakes that had one and the same token is won: moves the connection from the place `from` to the place `to`,
    /// where nothing is; they may be the same. Its present state comes out of the next `poll`, since what came before may have
    /// been news of another.
    ///
    /// # Errors
    /// The system's.
    fn promote(&mut self, from: u32, to: u32, token: Token) -> io::Result<()>;

    /// Registers a connection: from now on its news comes out of `poll`, the present state first.
    ///
    /// # Errors
    /// The system's, if there is no room.
    fn register(&mut self, slot: u32, token: Token) -> io::Result<()>;

    /// Reads into `buffer`, which is not empty. 0 is the end of the stream: the peer's FIN, or what follows an error that
    /// was told already. After a FIN it stays 0, though a reset came behind it; [`take_error`](Net::take_error) has that.
    ///
    /// # Errors
    /// `WouldBlock` or the connection's error, which is told once.
    fn recv(&mut self, slot: u32, buffer: &mut [u8]) -> io::Result<Received>;

    /// What a read would find, without reading.
    ///
    /// # Errors
    /// The connection's error, which is told once.
    fn peek(&mut self, slot: u32) -> io::Result<Unread>;

    /// Writes, perhaps less than was given; an edge is owed after a short write, as after `WouldBlock`. With `more` the last
    /// partial segment waits for what follows: the rest, and then [`finish`](Net::finish) or [`close`](Net::close).
    ///
    /// # Errors
    /// `WouldBlock` or the connection's error, which is told once.
    fn send(&mut self, slot: u32, bytes: &[u8], more: bool) -> io::Result<usize>;

    /// The same for bytes in several pieces, none of them empty, in one call. What is written may end in any of them.
    ///
    /// # Errors
    /// As [`send`](Net::send).
    fn send_vectored(&mut self, slot: u32, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize>;

    /// Sends our FIN behind everything written. Not before the handshake is done: there it would end the attempt.
    ///
    /// # Errors
    /// The connection's, or that there is none any more (ENOTCONN), which is a reset whose error was told already.
    fn finish(&mut self, slot: u32) -> io::Result<()>;

    /// Whether both FINs were exchanged and the peer's kernel has acknowledged ours. Asked when both have been, and never
    /// once an error was told: a dead connection without its error looks the same.
    ///
    /// # Errors
    /// The connection's error, which is told once.
    fn acknowledged(&mut self, slot: u32) -> io::Result<bool>;

    /// How long ago the peer's kernel has last taken bytes of ours; `None` if that can't be said. Asked when a limit of silence has run
    /// out: a peer that still takes is not silent.
    fn time_since_acked(&mut self, _slot: u32) -> Option<Duration> {
        None
    }

    /// The error that waits on the connection, if any; asking takes it away.
    fn take_error(&mut self, slot: u32) -> Option<io::Error>;

    /// close(2). Bytes that the kernel has, and a FIN, are delivered by it alone; unread bytes make it send RST instead.
    fn close(&mut self, slot: u32);

    /// Resets the connection: RST, and everything not yet delivered is dropped. A Unix domain socket knows no reset: it is closed, which
    /// its peer takes for an end unless something of its own was left unread.
    fn reset(&mut self, slot: u32);

    /// Sets TCP_NODELAY on one connection.
    ///
    /// # Errors
    /// The system's.
    fn set_nodelay(&mut self, slot: u32, on: bool) -> io::Result<()>;

    /// Sets or ends keep-alive on one connection.
    ///
    /// # Errors
    /// The system's.
    fn set_keep_alive(&mut self, slot: u32, times: Option<KeepAlive>) -> io::Result<()>;

    /// The local address of a connection.
    ///
    /// # Errors
    /// The system's.
    fn local_addr(&self, slot: u32) -> io::Result<SocketAddr>;

    /// Begins to look a host name up, off this thread. The answer comes out of [`looked_up`](Net::looked_up).
    fn lookup(&mut self, token: Token, host: &str, port: u16);

    /// Nobody waits for this look-up any more: if it has not begun, it need not.
    fn forget_lookup(&mut self, _token: Token) {}

    /// The next finished look-up. Its token may be stale.
    fn looked_up(&mut self) -> Option<(Token, LookupAnswer)>;

    /// A socket in this state was given this input: for a net that keeps count of what it has brought about.
    #[inline]
    fn stepped(&mut self, _state: State, _input: Input) {}
}
