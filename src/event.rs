//! What a socket tells, and what it says at the end.
//!
//! Invariant: the events of one socket form this language and no other.
//!
//! ```text
//! client = lookup* ( connect ready flow* )? error? close
//! server = connection flow* error? close
//! flow   = data | drain | timeout | peer-ended | end      (end at most once, no data after it)
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::error::{Failure, OsError};
use crate::id::{ListenerId, TimerId};

/// One thing that happened. Comes out of [`Reactor::next`](crate::Reactor::next) together with the socket it happened to.
///
/// What it says lies in the reactor until the next call of `next`: an event is a few words, and copying one copies no bytes.
/// Clone the [`Ending`] or the [`Failure`] to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Event<'a> {
    /// One address of the host; also for an IP literal. All addresses are told before `Connect`.
    Lookup(IpAddr),
    /// The handshake is done. `Ready` is this socket's next event.
    Connect,
    /// The socket may be used to the full.
    Ready,
    /// A listener accepted this socket; [`Socket::listener`](crate::Socket::listener) says which.
    Connection,
    /// Bytes of the peer, in order. They lie in the reactor's one receive buffer until the next call of `next`.
    Data(#[cfg_attr(feature = "serde", serde(serialize_with = "as_bytes"))] &'a [u8]),
    /// The write queue, once [`Queue::Full`](crate::Queue::Full), has emptied into the kernel. Not told after `end()`, when
    /// there is nothing more to write: whoever paused reading until then must resume when it ends.
    Drain,
    /// No byte moved, in or out, for the time given to [`Socket::set_timeout`](crate::Socket::set_timeout). Nothing is closed; told
    /// once per silence.
    Timeout,
    /// The peer has ended, though bytes sent before may still be unread. Of a FIN this is the early notice, opt-in
    /// ([`early_notice`](crate::Listen::early_notice)). Of a connection that is dead it comes unasked where the socket is paused:
    /// what arrived before can still be read, and the error comes after it. At most once for each way to end.
    PeerEnded(PeerEnd),
    /// The peer's FIN, after its last byte. Writing still works: this is half-close.
    End,
    /// The connection failed; `Close` is this socket's next event.
    Error(&'a Failure),
    /// The last event of every socket: how it ended.
    Close(&'a Ending),
    /// A free-standing timer fired. Comes with a socket that stands for none.
    Timer(TimerId),
    /// A [`Remote`](crate::Remote) was woken. Wakes between two of these events are merged into one.
    /// Comes with a socket that stands for none.
    Woken,
    /// A listener can't accept for now and rests; it goes on by itself. Told once per trouble, not once per try.
    /// Comes with a socket that stands for none.
    ListenerRests(ListenerId, OsError),
    /// A client came while the listener had as many connections as it may, and was reset: its address, if it has one
    /// ([`Excess::Drop`](crate::Excess)). Comes with a socket that stands for none.
    Dropped(ListenerId, Option<&'a SocketAddr>),
    /// A listener that was [stopped](crate::Reactor::stop_listener) is closed, and the last of its sockets has told `close`. Comes
    /// with a socket that stands for none.
    ListenerClosed(ListenerId),
}

/// As bytes and not as a row of numbers, for the formats that know the difference.
#[cfg(feature = "serde")]
fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl Event<'_> {
    /// Whether it happened to a socket. A timer of no socket, a wake, and what listeners tell did not.
    #[must_use]
    pub const fn is_of_a_socket(&self) -> bool {
        match self {
            Self::Timer(_) | Self::Woken | Self::ListenerRests(..) | Self::Dropped(..) | Self::ListenerClosed(_) => {
                false
            }
            Self::Lookup(_)
            | Self::Connect
            | Self::Ready
            | Self::Connection
            | Self::Data(_)
            | Self::Drain
            | Self::Timeout
            | Self::PeerEnded(_)
            | Self::End
            | Self::Error(_)
            | Self::Close(_) => true,
        }
    }
}

/// How the peer has ended ([`Event::PeerEnded`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum PeerEnd {
    /// It has finished in order: `end` comes after its last byte, and it may still read.
    Fin,
    /// The connection is dead, by a reset or an error of our own system: `error` comes after what arrived before.
    Reset,
}

/// The report that `close` carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Ending {
    /// How it ended.
    pub how: How,
    /// Whose FIN came first, as far as this side could see.
    pub first: First,
    /// The other end; `None` if no address was ever known, and for Unix domain sockets, whose ends have none.
    pub peer: Option<SocketAddr>,
    /// Bytes told as `data` or discarded.
    pub bytes_read: u64,
    /// Bytes that our kernel took.
    pub bytes_written: u64,
    /// Bytes that were written by the caller and never reached our kernel.
    pub bytes_unsent: u64,
}

/// The ways to end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum How {
    /// Both FINs were exchanged and the peer's kernel acknowledged ours, and so every byte before it. It does not say
    /// that the peer's *program* has read them: TCP can't.
    Confirmed,
    /// Both sides finished; our kernel delivers the rest alone and nobody is told ([`Close::HandOff`](crate::Close)).
    HandedOff,
    /// We called [`Socket::destroy`](crate::Socket::destroy): the peer sees a reset.
    Destroyed,
    /// It failed.
    Failed(Failure),
}

/// Whose FIN was first. TIME_WAIT stays with whoever finished first (RFC 9293 section 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum First {
    /// Nobody finished.
    Nobody,
    /// Our FIN.
    Us,
    /// The peer's FIN.
    Peer,
    /// The FINs crossed.
    Both,
    /// It was not seen: our FIN left while something of the peer's, perhaps its FIN, waited unread.
    Unknown,
}

impl Ending {
    /// Before anything has ended.
    pub(crate) const fn none() -> Self {
        Self { how: How::Destroyed, first: First::Nobody, peer: None, bytes_read: 0, bytes_written: 0, bytes_unsent: 0 }
    }

    /// Whether an `error` was told before `close`.
    #[must_use]
    pub const fn had_error(&self) -> bool {
        matches!(self.how, How::Failed(_))
    }

    /// Whether both sides finished in order, without an error and without a reset by us.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self.how, How::Confirmed | How::HandedOff)
    }

    /// Whether the peer's kernel is known to have every byte we wrote.
    #[must_use]
    pub const fn is_acknowledged(&self) -> bool {
        matches!(self.how, How::Confirmed)
    }

    /// The report itself, as an error if the connection did not end clean: for `?`, and for whoever reports errors by their sources.
    ///
    /// # Errors
    /// The report, with its [`Failure`] as source if it failed; without one if it was destroyed.
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

    /// Who keeps the TIME_WAIT state: whoever finished first, if it ended in order and was seen. A reset leaves none, and Unix domain
    /// sockets know none.
    #[must_use]
    pub const fn time_wait(&self) -> First {
        if self.is_clean() && self.peer.is_some() { self.first } else { First::Nobody }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Confirmed => f.write_str("clean and acknowledged")?,
            How::HandedOff => f.write_str("clean, handed off to the kernel")?,
            How::Destroyed => f.write_str("destroyed by us")?,
            How::Failed(failure) => write!(f, "error: {failure}")?,
        }
        f.write_str(match self.first {
            First::Nobody => "; nobody finished",
            First::Us => "; we finished first",
            First::Peer => "; the peer finished first",
            First::Both => "; both finished at once",
            First::Unknown => "; both finished, who first was not seen",
        })?;
        f.write_str(match self.time_wait() {
            First::Nobody => "",
            First::Us => ", TIME_WAIT is ours",
            First::Peer => ", TIME_WAIT is the peer's",
            First::Both => ", both keep TIME_WAIT",
            First::Unknown => "",
        })?;
        write!(f, "; {} bytes read, {} written", self.bytes_read, self.bytes_written)?;
        if self.bytes_unsent > 0 {
            write!(f, ", {} never sent", self.bytes_unsent)?;
        }
        Ok(())
    }
}

impl std::error::Error for Ending {
    /// What it failed of, if it failed.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.how {
            How::Failed(failure) => Some(failure),
            How::Confirmed | How::HandedOff | How::Destroyed => None,
        }
    }
}

#[cfg(test)]
mod tests;
