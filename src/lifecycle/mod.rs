//! The lifecycle of a socket as one table: state × input → next state and events.
//!
//! Invariant: only [`step`] changes a socket's state. Every pair of state and input that can happen
//! is in the table, as a transition or as an explicit refusal. The diagrams in the documentation
//! are printed from it.
//!
//! The reactor turns what it observes (a result of the system, a call of the user, a timer) into
//! one [`Input`], looks the transition up, and emits its events in the order of [`Emits`]. States
//! from [`State::Confirmed`] on are *final*: the connection is over, its descriptor is closed, and
//! `close` is pending.
//!
//! This module knows no socket, no clock and no system call.
//!
//! The table as a picture, which `finale states --format svg` prints:
#![doc = ""]
#![doc = include_str!("../../docs/lifecycle.svg")]

mod coverage;
mod print;
#[cfg(test)]
mod tests;

pub use coverage::Coverage;
pub(crate) use print::events;
pub use print::{Format, View, print};

use Cell::{Deferred, Go, Ignored, Impossible};

/// Declares a fieldless enum with the list of its variants, their names, or the given text, and
/// their doc comments.
macro_rules! listed {
    ($(#[$doc:meta])* $vis:vis enum $name:ident {
        $($(#[doc = $vdoc:literal])* $variant:ident $(= $text:literal)?),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[repr(u8)]
        $vis enum $name { $($(#[doc = $vdoc])* $(#[doc = concat!("`", $text, "`")])? $variant),+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name, as the documentation writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => [$($text,)? stringify!($variant)][0]),+ }
            }

            /// What it means: the text of its documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $($name::$variant => concat!($($vdoc),*)),+ }.trim_ascii_start()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

listed! {
    /// The state of a socket.
    ///
    /// ```
    /// use finale::lifecycle::State;
    /// assert!(State::PeerFinished.can_send() && !State::PeerFinished.can_read());
    /// assert_eq!(State::Open.rfc9293(), ["ESTABLISHED", "CLOSE-WAIT"]);
    /// ```
    #[non_exhaustive]
    pub enum State {
        /// Nothing was done yet.
        Created,
        /// The host name is being looked up.
        Resolving,
        /// At least one handshake is in flight.
        Connecting,
        /// Both halves are open.
        Open,
        /// The caller has ended; bytes or our FIN still wait. The peer has not finished.
        Flushing,
        /// Our FIN is with the kernel; the peer still sends.
        LocalFinished,
        /// As `LocalFinished`, and the caller has called `discard`: what the peer still sends is
        /// read and dropped.
        Lingering,
        /// The peer's FIN was read; we still send, until the program calls `end`.
        PeerFinished,
        /// The peer's FIN was read and the caller has ended; bytes or our FIN still wait.
        LastFlush,
        /// Both FINs were sent; the peer's kernel has not acknowledged ours yet.
        Closing,
        /// The system has reported an error: nothing can be sent; bytes that arrived before can be
        /// read.
        Broken,
        /// Over: both FINs exchanged, ours acknowledged.
        Confirmed,
        /// Over: both sides finished, and the kernel delivers the rest alone.
        HandedOff,
        /// Over: the peer's RST, or an error of our own system.
        ResetByPeer,
        /// Over: the caller destroyed it.
        ResetByUs,
        /// Over: a timer expired.
        TimedOut,
        /// Over: it was never connected.
        NotConnected,
        /// `close` was delivered: the connection is over for the program.
        Closed,
    }
}

listed! {
    /// What can happen to a socket.
    ///
    /// ```
    /// use finale::lifecycle::{Cell, Emits, Input, State, step};
    /// let cell = step(State::Open, Input::Fin);
    /// assert!(matches!(cell, Cell::Go(State::PeerFinished, [Emits::End])));
    /// ```
    #[non_exhaustive]
    pub enum Input {
        /// A listener accepted it.
        Accepted,
        /// Its host name was handed to the resolver.
        LookupStarted,
        /// Its addresses are known.
        Resolved,
        /// The name has no address.
        LookupFailed,
        /// One attempt has failed: others are in flight or can be tried, or it was the last.
        NextAddress,
        /// The handshake is done.
        Established,
        /// No address is left to try.
        ConnectFailed,
        /// Bytes were read.
        Data,
        /// The write queue emptied after it had been full.
        Drained,
        /// No byte moved for the idle timeout.
        Idle,
        /// The peer's FIN or reset is known, though not yet read.
        PeerEnded,
        /// A read returned zero: the peer's FIN.
        Fin,
        /// The system has reported an error; input may be left.
        ErrorSeen,
        /// The caller ended.
        EndCalled,
        /// The caller has called `discard`.
        DiscardCalled,
        /// The queue is empty and our FIN is with the kernel.
        FinSent,
        /// close(2) was called, and the kernel delivers the rest.
        LeftToKernel,
        /// The peer's kernel has acknowledged our FIN.
        Acknowledged,
        /// The peer's RST, or an error of our own system that ends the connection.
        Reset,
        /// The timer that limits this state expired.
        Expired,
        /// The caller destroyed it.
        DestroyCalled,
        /// `close` can be delivered.
        CloseDue,
    }
}

listed! {
    /// The events that a transition emits, in the order in which one socket emits them. `Lookup`
    /// stands for one event per address.
    ///
    /// ```
    /// use finale::lifecycle::Emits;
    /// assert_eq!(Emits::PeerEnded.name(), "peer-ended");
    /// assert_eq!(Emits::ALL.last(), Some(&Emits::Close));
    /// ```
    #[non_exhaustive]
    pub enum Emits {
        /// One address of the host's name.
        Lookup = "lookup",
        /// The handshake is done.
        Connect = "connect",
        /// The socket can be written to.
        Ready = "ready",
        /// A listener has accepted a peer.
        Connection = "connection",
        /// Bytes from the peer.
        Data = "data",
        /// The write queue has room again.
        Drain = "drain",
        /// No byte has moved for the idle timeout.
        Timeout = "timeout",
        /// The peer has finished or reset, behind bytes that are not read yet.
        PeerEnded = "peer-ended",
        /// The peer's FIN: it sends nothing more.
        End = "end",
        /// The connection has failed, and why.
        Error = "error",
        /// The last event, with the report of how it ended.
        Close = "close",
    }
}

/// The table's entry for one pair.
///
/// ```
/// use finale::lifecycle::{Cell, Input, State, step};
/// let transitions = State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| step(state, input)));
/// assert!(transitions.filter(|cell| matches!(cell, Cell::Go(..))).count() > 50);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cell {
    /// Go to this state and emit these events.
    Go(State, &'static [Emits]),
    /// It can happen, and is applied when the connection is established.
    Deferred,
    /// It can happen, and changes nothing.
    Ignored,
    /// It can't happen.
    Impossible,
}

/// The transition for one pair.
#[must_use]
pub const fn step(state: State, input: Input) -> Cell {
    let row = &ROWS[state as usize];
    match find(row.own, input) {
        Impossible => find(row.common, input),
        cell @ (Go(..) | Deferred | Ignored) => cell,
    }
}

const fn find(cells: &[(Input, Cell)], input: Input) -> Cell {
    match cells {
        [] => Impossible,
        [(found, cell), ..] if *found as u8 == input as u8 => *cell,
        [_, rest @ ..] => find(rest, input),
    }
}

/// A cell in four bytes, as the reactor looks it up: a refusal keeps the state and emits nothing.
#[derive(Clone, Copy)]
pub(crate) struct Transition {
    pub(crate) to: State,
    /// Bit `n` stands for `Emits::ALL[n]`.
    pub(crate) emits: u16,
}

const _: () = assert!(size_of::<Transition>() == 4);

#[inline]
pub(crate) const fn compact(state: State, input: Input) -> Transition {
    COMPACT[state as usize][input as usize]
}

static COMPACT: [[Transition; Input::ALL.len()]; State::ALL.len()] = {
    let mut compact = [[Transition { to: State::Created, emits: 0 }; Input::ALL.len()]; State::ALL.len()];
    let mut pair = 0;
    while pair < State::ALL.len() * Input::ALL.len() {
        let (s, i) = (pair / Input::ALL.len(), pair % Input::ALL.len());
        assert!(ROWS[s].state as usize == s, "the rows are in the order of the states");
        compact[s][i] = match step(State::ALL[s], Input::ALL[i]) {
            Go(to, emits) => Transition { to, emits: bits(emits) },
            Deferred | Ignored | Impossible => Transition { to: State::ALL[s], emits: 0 },
        };
        pair += 1;
    }
    compact
};

const fn bits(emits: &[Emits]) -> u16 {
    match emits {
        [] => 0,
        [first, rest @ ..] => 1 << *first as u16 | bits(rest),
    }
}

impl Input {
    /// Whether the program causes it by a call.
    #[must_use]
    pub const fn is_call(self) -> bool {
        matches!(self, Input::EndCalled | Input::DiscardCalled | Input::DestroyCalled)
    }

    /// Whether it is a failure: of the lookup, the network, the peer, or a limit.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Input::LookupFailed | Input::ConnectFailed | Input::ErrorSeen | Input::Reset | Input::Expired)
    }
}

impl State {
    /// Whether the connection is over, with `close` delivered or due.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self as u8 >= State::Confirmed as u8
    }

    /// Whether the connection is established and not over.
    #[must_use]
    pub const fn is_connected(self) -> bool {
        self as u8 >= State::Open as u8 && !self.is_final()
    }

    /// Whether more can be read: the peer's FIN was not read.
    #[must_use]
    pub const fn can_read(self) -> bool {
        matches!(self, State::Open | State::Flushing | State::LocalFinished | State::Lingering | State::Broken)
    }

    /// Whether bytes or our FIN can still be sent.
    #[must_use]
    pub const fn can_send(self) -> bool {
        matches!(self, State::Open | State::PeerFinished) || self.is_flushing()
    }

    /// Whether the caller has ended and our FIN was not sent.
    #[must_use]
    pub const fn is_flushing(self) -> bool {
        matches!(self, State::Flushing | State::LastFlush)
    }

    /// The states of RFC 9293 section 3.3.2 that our kernel's side of the connection can have here.
    #[must_use]
    pub const fn rfc9293(self) -> &'static [&'static str] {
        ROWS[self as usize].rfc9293
    }
}

/// One state's part of the table.
struct Row {
    state: State,
    rfc9293: &'static [&'static str],
    own: &'static [(Input, Cell)],
    /// The cells that the state has in common with others.
    common: &'static [(Input, Cell)],
}

/// What ends a connection in any state.
const ENDS: &[(Input, Cell)] = &[
    (Input::Reset, Go(State::ResetByPeer, &[Emits::Error])),
    (Input::Expired, Go(State::TimedOut, &[Emits::Error])),
    (Input::DestroyCalled, Go(State::ResetByUs, &[])),
];

const CLOSE: &[(Input, Cell)] = &[(Input::CloseDue, Go(State::Closed, &[Emits::Close]))];

/// What can still happen after a connection is over.
#[rustfmt::skip]
const LATE: &[(Input, Cell)] = &[
    (Input::Data, Ignored), (Input::Drained, Ignored), (Input::Idle, Ignored), (Input::PeerEnded, Ignored),
    (Input::Fin, Ignored), (Input::ErrorSeen, Ignored), (Input::EndCalled, Ignored), (Input::DiscardCalled, Ignored),
    (Input::Reset, Ignored), (Input::Expired, Ignored), (Input::DestroyCalled, Ignored),
];

#[rustfmt::skip]
static ROWS: [Row; State::ALL.len()] = [
    Row { state: State::Created, rfc9293: &["CLOSED"], own: &[
        (Input::Accepted,       Go(State::Open,         &[Emits::Connection])),
        (Input::LookupStarted,  Go(State::Resolving,    &[])),
        (Input::Resolved,       Go(State::Connecting,   &[Emits::Lookup])),
        (Input::Expired,        Go(State::TimedOut,     &[Emits::Error])),
        (Input::DestroyCalled,  Go(State::ResetByUs,    &[])),
        (Input::EndCalled, Deferred),
    ], common: &[] },
    Row { state: State::Resolving, rfc9293: &["CLOSED"], own: &[
        (Input::Resolved,       Go(State::Connecting,   &[Emits::Lookup])),
        (Input::LookupFailed,   Go(State::NotConnected, &[Emits::Error])),
        (Input::Expired,        Go(State::TimedOut,     &[Emits::Error])),
        (Input::DestroyCalled,  Go(State::ResetByUs,    &[])),
        (Input::EndCalled, Deferred),
    ], common: &[] },
    Row { state: State::Connecting, rfc9293: &["SYN-SENT", "SYN-RECEIVED"], own: &[
        (Input::NextAddress,    Go(State::Connecting,   &[])),
        (Input::Established,    Go(State::Open,         &[Emits::Connect, Emits::Ready])),
        (Input::ConnectFailed,  Go(State::NotConnected, &[Emits::Error])),
        (Input::EndCalled, Deferred),
    ], common: ENDS },
    Row { state: State::Open, rfc9293: &["ESTABLISHED", "CLOSE-WAIT"], own: &[
        (Input::Data,           Go(State::Open,         &[Emits::Data])),
        (Input::Drained,        Go(State::Open,         &[Emits::Drain])),
        (Input::Idle,           Go(State::Open,         &[Emits::Timeout])),
        (Input::PeerEnded,      Go(State::Open,         &[Emits::PeerEnded])),
        (Input::Fin,            Go(State::PeerFinished,        &[Emits::End])),
        (Input::ErrorSeen,      Go(State::Broken,       &[])),
        (Input::EndCalled,      Go(State::Flushing,     &[])),
    ], common: ENDS },
    Row { state: State::Flushing, rfc9293: &["ESTABLISHED", "CLOSE-WAIT"], own: &[
        (Input::Data,           Go(State::Flushing,     &[Emits::Data])),
        (Input::Idle,           Go(State::Flushing,     &[Emits::Timeout])),
        (Input::PeerEnded,      Go(State::Flushing,     &[Emits::PeerEnded])),
        (Input::Fin,            Go(State::LastFlush,    &[Emits::End])),
        (Input::ErrorSeen,      Go(State::Broken,       &[])),
        (Input::FinSent,        Go(State::LocalFinished,     &[])),
        (Input::EndCalled, Ignored), (Input::Drained, Ignored),
    ], common: ENDS },
    Row { state: State::LocalFinished, rfc9293: &["FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT"], own: &[
        (Input::Data,           Go(State::LocalFinished,     &[Emits::Data])),
        (Input::Idle,           Go(State::LocalFinished,     &[Emits::Timeout])),
        (Input::PeerEnded,      Go(State::LocalFinished,     &[Emits::PeerEnded])),
        (Input::Fin,            Go(State::Closing,      &[Emits::End])),
        (Input::ErrorSeen,      Go(State::Broken,       &[])),
        (Input::DiscardCalled,  Go(State::Lingering,    &[])),
        (Input::EndCalled, Ignored), (Input::Drained, Ignored),
    ], common: ENDS },
    Row { state: State::Lingering, rfc9293: &["FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT"], own: &[
        (Input::PeerEnded,      Go(State::Lingering,    &[Emits::PeerEnded])),
        (Input::Fin,            Go(State::Closing,      &[Emits::End])),
        (Input::ErrorSeen,      Go(State::Broken,       &[])),
        (Input::EndCalled, Ignored), (Input::Drained, Ignored), (Input::Idle, Ignored),
    ], common: ENDS },
    Row { state: State::PeerFinished, rfc9293: &["CLOSE-WAIT"], own: &[
        (Input::Drained,        Go(State::PeerFinished,        &[Emits::Drain])),
        (Input::Idle,           Go(State::PeerFinished,        &[Emits::Timeout])),
        (Input::EndCalled,      Go(State::LastFlush,    &[])),
        (Input::PeerEnded, Ignored),
    ], common: ENDS },
    Row { state: State::LastFlush, rfc9293: &["CLOSE-WAIT"], own: &[
        (Input::Idle,           Go(State::LastFlush,    &[Emits::Timeout])),
        (Input::FinSent,        Go(State::Closing,      &[])),
        (Input::LeftToKernel,   Go(State::HandedOff,    &[])),
        (Input::EndCalled, Ignored), (Input::Drained, Ignored), (Input::PeerEnded, Ignored),
    ], common: ENDS },
    Row { state: State::Closing, rfc9293: &["CLOSING", "LAST-ACK", "TIME-WAIT"], own: &[
        (Input::LeftToKernel,   Go(State::HandedOff,    &[])),
        (Input::Acknowledged,   Go(State::Confirmed,    &[])),
        (Input::EndCalled, Ignored), (Input::Drained, Ignored), (Input::PeerEnded, Ignored), (Input::Idle, Ignored),
    ], common: ENDS },
    Row { state: State::Broken, rfc9293: &["CLOSED"], own: &[
        (Input::Data,           Go(State::Broken,       &[Emits::Data])),
        (Input::Drained,        Go(State::Broken,       &[Emits::Drain])),
        (Input::Idle,           Go(State::Broken,       &[Emits::Timeout])),
        (Input::PeerEnded,      Go(State::Broken,       &[Emits::PeerEnded])),
        (Input::EndCalled, Ignored),
    ], common: ENDS },
    Row { state: State::Confirmed, rfc9293: &["TIME-WAIT", "CLOSED"], own: CLOSE, common: LATE },
    Row { state: State::HandedOff, rfc9293: &["CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"], own: CLOSE, common: LATE },
    Row { state: State::ResetByPeer, rfc9293: &["CLOSED"], own: CLOSE, common: LATE },
    Row { state: State::ResetByUs, rfc9293: &["CLOSED"], own: CLOSE, common: LATE },
    Row { state: State::TimedOut, rfc9293: &["CLOSED"], own: CLOSE, common: LATE },
    Row { state: State::NotConnected, rfc9293: &["CLOSED"], own: CLOSE, common: LATE },
    Row { state: State::Closed, rfc9293: &["CLOSED"], own: &[], common: LATE },
];
