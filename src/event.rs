//! The events of a socket, and the report of how it ended.
//!
//! Invariant: the events of one socket follow this grammar.
//!
//! ```text
//! client = lookup* ( connect ready flow* )? error? close
//! server = connection flow* error? close
//! flow   = data | drain | timeout | peer-ended | end      (end at most once, no data after it)
//! ```
//!
//! [`Event::Filled`] is a `data` whose bytes are in a buffer of the program, [`Event::Spliced`] one
//! whose bytes are in a kernel pipe.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::error::{ConnectionError, OsError};
use crate::id::{ListenerId, TimerId};

/// An event. [`Reactor::next`](crate::Reactor::next) returns it together with its socket.
///
/// Bytes, [`Ending`] and [`ConnectionError`] are borrowed from the reactor until the next call of
/// `next`: an event is a few words, and copying one copies no bytes. Clone the [`Ending`] or the
/// [`ConnectionError`] to keep it.
///
/// ```
/// use finale::{Error, Event, Socket};
/// fn echo(socket: &mut Socket<'_>, event: Event<'_>) -> Result<(), Error> {
///     match event {
///         Event::Data(bytes) => {
///             socket.write(bytes)?;
///         }
///         Event::End => socket.end(),
///         Event::Close(ending) => println!("{ending}"),
///         _ => {}
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Event<'a> {
    /// One address of the host, also for an IP literal. All addresses are delivered before
    /// `Connect`.
    Lookup(IpAddr),
    /// The handshake is done. `Ready` is this socket's next event.
    Connect,
    /// The socket is ready to use. Bytes that were written before leave after this event.
    #[doc(alias = "uv_connect_cb")]
    Ready,
    /// A listener accepted this connection; [`Socket::listener`](crate::Socket::listener) returns
    /// which one.
    #[doc(alias = "uv_connection_cb")]
    #[doc(alias = "accept")]
    Connection,
    /// Bytes of the peer, in order, in the reactor's receive buffer.
    #[doc(alias = "uv_read_cb")]
    Data(#[cfg_attr(feature = "serde", serde(serialize_with = "as_bytes"))] &'a [u8]),
    /// The buffer of [`Socket::fill`](crate::Socket::fill) is full, or the peer has ended or the
    /// connection has broken before: [`take_filled`](crate::Socket::take_filled) returns it. In the
    /// grammar this is a `data`.
    Filled,
    /// This many bytes of the peer, in order, were moved into a kernel pipe, as
    /// [`Socket::splice_next`](crate::Socket::splice_next) has requested:
    /// [`forward`](crate::Socket::forward) passes them on. If it is not called, the bytes are
    /// delivered as `data` next. In the grammar this is a `data`.
    Spliced(usize),
    /// The write queue has gone down to the [low-water mark](crate::ListenOptions::low_water_mark)
    /// after it was [full](crate::Backpressure::Full), or after
    /// [`request_drain`](crate::Socket::request_drain). A paused socket with a full queue also gets
    /// it when the connection breaks, because nothing waits any more: see
    /// [`pause`](crate::Socket::pause). Not delivered after `end()`: a program that has paused until
    /// `drain` has to resume when it calls `end`.
    Drain,
    /// No byte has moved for the [idle time](crate::ListenOptions::idle_timeout). Nothing is
    /// closed. Delivered once; bytes that are read or written start the time again, and so does
    /// [`set_idle_timeout`](crate::Socket::set_idle_timeout). A program that ignores it for a peer
    /// that does not read keeps that connection: a [write
    /// timeout](crate::ListenOptions::write_timeout) ends it.
    Timeout,
    /// The peer has ended, and bytes that it sent before may still be unread. For a FIN this is the
    /// early notice, which is opt-in
    /// ([`notify_peer_ended`](crate::ListenOptions::notify_peer_ended)). A paused socket also gets
    /// it without that option when the connection is dead and bytes are unread: after `resume` they
    /// are delivered, and then the error (the exceptions are at [`pause`](crate::Socket::pause)).
    /// Delivered at most once per [`PeerEnd`].
    PeerEnded(PeerEnd),
    /// The peer's FIN, after its last byte. Writing still works (half-close).
    #[doc(alias = "UV_EOF")]
    End,
    /// The connection has failed. `Close` is this socket's next event.
    Error(&'a ConnectionError),
    /// The last event of every socket, with the report of how it ended.
    #[doc(alias = "uv_close_cb")]
    Close(&'a Ending),
    /// A timer of [`Reactor::set_timer`](crate::Reactor::set_timer) has expired. Its socket is a
    /// placeholder.
    Timer(TimerId),
    /// A [`Waker`](crate::Waker) has woken the reactor. Several wakes between two of these events
    /// are merged into one. Its socket is a placeholder.
    #[doc(alias = "uv_async_cb")]
    Woken,
    /// A listener can't accept for now, for example without descriptors. It retries by itself.
    /// Delivered once per error condition, not once per attempt. Its socket is a placeholder.
    AcceptFailed(ListenerId, OsError),
    /// A client connected while the listener had its maximum of connections, and was reset
    /// ([`OverflowPolicy::Reset`](crate::OverflowPolicy)). The payload has its address, if it has
    /// one. Its socket is a placeholder.
    Overflow(ListenerId, Option<&'a SocketAddr>),
    /// A listener that was [stopped](crate::Reactor::stop_listener) is closed, and the `close` of
    /// its last socket was delivered. Its socket is a placeholder.
    ListenerClosed(ListenerId),
}

/// As bytes instead of a sequence of numbers, for formats that distinguish them.
#[cfg(feature = "serde")]
fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl Event<'_> {
    /// Whether the event belongs to a socket: all except timers, wakes and the events of listeners.
    #[must_use]
    pub const fn is_socket_event(&self) -> bool {
        match self {
            Self::Timer(_) | Self::Woken | Self::AcceptFailed(..) | Self::Overflow(..) | Self::ListenerClosed(_) => {
                false
            }
            Self::Lookup(_)
            | Self::Connect
            | Self::Ready
            | Self::Connection
            | Self::Data(_)
            | Self::Filled
            | Self::Spliced(_)
            | Self::Drain
            | Self::Timeout
            | Self::PeerEnded(_)
            | Self::End
            | Self::Error(_)
            | Self::Close(_) => true,
        }
    }
}

/// The event by its name in the grammar, with what it contains: the number of bytes instead of the
/// bytes.
///
/// ```
/// assert_eq!(finale::Event::Data(b"hello").to_string(), "data, 5 bytes");
/// ```
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(ip) => write!(f, "lookup {ip}"),
            Self::Connect => f.write_str("connect"),
            Self::Ready => f.write_str("ready"),
            Self::Connection => f.write_str("connection"),
            Self::Data([_]) => f.write_str("data, 1 byte"),
            Self::Data(bytes) => write!(f, "data, {}", Bytes(bytes.len() as u64)),
            Self::Filled => f.write_str("data, in a buffer of the program"),
            Self::Spliced(bytes) => write!(f, "data, {} in a kernel pipe", Bytes(*bytes as u64)),
            Self::Drain => f.write_str("drain"),
            Self::Timeout => f.write_str("timeout"),
            Self::PeerEnded(PeerEnd::Fin) => f.write_str("peer-ended"),
            Self::PeerEnded(PeerEnd::Reset) => f.write_str("peer-ended by a reset"),
            Self::End => f.write_str("end"),
            Self::Error(error) => write!(f, "error: {error}"),
            Self::Close(ending) => write!(f, "close: {ending}"),
            Self::Timer(id) => write!(f, "{id} fired"),
            Self::Woken => f.write_str("woken"),
            Self::AcceptFailed(id, error) => write!(f, "{id} can't accept: {error}"),
            Self::Overflow(id, Some(peer)) => write!(f, "{id} is full: {peer} refused"),
            Self::Overflow(id, None) => write!(f, "{id} is full: a client refused"),
            Self::ListenerClosed(id) => write!(f, "{id} closed"),
        }
    }
}

/// How the peer has ended ([`Event::PeerEnded`]).
///
/// ```
/// use finale::{Event, PeerEnd, Socket};
/// fn on_event(socket: &mut Socket<'_>, event: Event<'_>) {
///     match event {
///         Event::PeerEnded(PeerEnd::Fin) => println!("it sends nothing more, and may still read"),
///         Event::PeerEnded(PeerEnd::Reset) => socket.resume(), // Read what is left.
///         _ => {}
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum PeerEnd {
    /// It has finished: `end` follows its last byte, and it may still read.
    Fin,
    /// The connection is dead, by a reset or an error of our own system. `error` follows the bytes
    /// that arrived before. It may come after a `Fin`.
    Reset,
}

/// The report in [`Event::Close`].
///
/// ```
/// use finale::Ending;
/// fn log(ending: &Ending) {
///     if ending.is_acknowledged() {
///         println!("the peer's kernel has all {} bytes", ending.bytes_written);
///     } else {
///         println!("{ending}");
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Ending {
    /// How it ended.
    pub kind: EndingKind,
    /// Whose FIN was first, as far as this side could see.
    pub first_fin: FirstFin,
    /// The peer's address; `None` if none was ever known, and for Unix domain sockets.
    pub peer: Option<SocketAddr>,
    /// Bytes delivered as `data` or discarded.
    pub bytes_read: u64,
    /// Bytes that our kernel took.
    pub bytes_written: u64,
    /// Bytes that the program wrote and that never reached our kernel.
    pub bytes_unsent: u64,
}

/// The ways to end.
///
/// ```
/// use finale::{Ending, EndingKind};
/// fn exit_code(ending: &Ending) -> u8 {
///     match &ending.kind {
///         EndingKind::Confirmed => 0,
///         EndingKind::HandedOff => 1,
///         EndingKind::Failed(error) if error.os.is_some() => 2,
///         _ => 3,
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum EndingKind {
    /// Both FINs were exchanged, and the peer's kernel has acknowledged ours and so every byte
    /// before it. Whether the peer's *program* has read them is unknown to TCP.
    Confirmed,
    /// Both sides have finished, and our kernel delivers the rest. Its result is unknown. The
    /// connection was closed with [`CloseMode::HandOff`](crate::CloseMode), or bytes were written
    /// and the close timeout expired where the kernel does not report what the peer takes (see
    /// [`ListenOptions::close_timeout`](crate::ListenOptions::close_timeout)).
    HandedOff,
    /// The program called [`Socket::destroy`](crate::Socket::destroy), or the
    /// [limit of a stop](crate::StopOptions::limit) expired. The peer gets a reset.
    Destroyed,
    /// The connection failed.
    Failed(ConnectionError),
}

/// Whose FIN was first. TIME_WAIT is kept by the side that finished first (RFC 9293 section 3.6).
///
/// ```
/// use finale::{Ending, FirstFin};
/// fn client_closes_first(ending: &Ending) -> bool {
///     matches!(ending.first_fin, FirstFin::Peer | FirstFin::Both)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum FirstFin {
    /// Neither side finished.
    Neither,
    /// Our FIN.
    Local,
    /// The peer's FIN.
    Peer,
    /// The FINs crossed.
    Both,
    /// Unknown: when our FIN left, the peer's may have been unread in our kernel, and no read has
    /// shown that it was not.
    Unknown,
}

impl Ending {
    /// A placeholder, before any socket has ended.
    pub(crate) const fn none() -> Self {
        Self {
            kind: EndingKind::Destroyed,
            first_fin: FirstFin::Neither,
            peer: None,
            bytes_read: 0,
            bytes_written: 0,
            bytes_unsent: 0,
        }
    }

    /// Whether an `error` was delivered before `close`.
    #[must_use]
    pub const fn had_error(&self) -> bool {
        matches!(self.kind, EndingKind::Failed(_))
    }

    /// Whether both sides finished in order, without an error and without a reset by us.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self.kind, EndingKind::Confirmed | EndingKind::HandedOff)
    }

    /// Whether the peer's kernel is known to have every byte that was written.
    #[must_use]
    pub const fn is_acknowledged(&self) -> bool {
        matches!(self.kind, EndingKind::Confirmed)
    }

    /// The report as a result, for `?`: an error unless the connection ended clean.
    ///
    /// # Errors
    /// The report. Its source is the [`ConnectionError`]; a destroyed connection has none.
    ///
    /// ```
    /// # use finale::Ending;
    /// fn done(ending: &Ending) -> Result<u64, Box<dyn std::error::Error>> {
    ///     Ok(ending.clone().into_result()?.bytes_written)
    /// }
    /// ```
    pub fn into_result(self) -> Result<Self, Self> {
        if self.is_clean() { Ok(self) } else { Err(self) }
    }

    /// Which side keeps the TIME_WAIT state: the one that finished first, if the connection ended
    /// in order. There is none after a reset, and none for Unix domain sockets.
    #[must_use]
    pub const fn time_wait(&self) -> FirstFin {
        if self.is_clean() && self.peer.is_some() { self.first_fin } else { FirstFin::Neither }
    }
}

/// A number of bytes with its unit.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "byte" } else { "bytes" })
    }
}

impl fmt::Display for EndingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed => f.write_str("clean and acknowledged"),
            Self::HandedOff => f.write_str("clean, handed off to the kernel"),
            Self::Destroyed => f.write_str("destroyed by us"),
            Self::Failed(failure) => write!(f, "error: {failure}"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        f.write_str(match self.first_fin {
            FirstFin::Neither => "; neither side finished",
            FirstFin::Local => "; we finished first",
            FirstFin::Peer => "; the peer finished first",
            FirstFin::Both => "; both finished at once",
            FirstFin::Unknown if self.is_clean() => "; both finished, in an unknown order",
            FirstFin::Unknown => "; we finished, perhaps after the peer",
        })?;
        f.write_str(match self.time_wait() {
            FirstFin::Neither => "",
            FirstFin::Local => ", TIME_WAIT is ours",
            FirstFin::Peer => ", TIME_WAIT is the peer's",
            FirstFin::Both => ", both keep TIME_WAIT",
            FirstFin::Unknown => "",
        })?;
        write!(f, "; {} read, {} written", Bytes(self.bytes_read), self.bytes_written)?;
        if self.bytes_unsent > 0 {
            write!(f, ", {} never sent", self.bytes_unsent)?;
        }
        Ok(())
    }
}

impl std::error::Error for Ending {
    /// The failure, if the connection failed.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            EndingKind::Failed(failure) => Some(failure),
            EndingKind::Confirmed | EndingKind::HandedOff | EndingKind::Destroyed => None,
        }
    }
}

#[cfg(test)]
mod tests;
