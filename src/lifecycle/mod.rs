//! The lifecycle of a socket, as one table: state × input → next state and the events that this emits.
//!
//! Invariant: a socket's state changes by [`step`] and by nothing else, and every pair of state and input is written
//! down here, as a transition or as a stated refusal. The diagrams in the documentation are printed from this table.
//!
//! Theory of operation: the reactor turns whatever it sees (a return value of the system, a call of the user, a timer)
//! into one [`Input`], looks the transition up, and emits the events that it lists, in the order of [`Emits`]. States
//! from [`State::Confirmed`] on are *final*: the connection is over, its descriptor is closed, only `close` is due.
//!
//! Knows no socket, no clock, no system call.

mod pairs;
mod print;
#[cfg(test)]
mod tests;

pub use pairs::Pairs;
pub(crate) use print::events;
pub use print::{Format, print};

/// Declares a fieldless enum together with its list and its count, so that no array length is written by hand.
macro_rules! listed {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[repr(u8)]
        $vis enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every variant, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The variant's own name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant)),+ }
            }
        }
    };
}

listed! {
    /// Where a socket is in its life.
    #[non_exhaustive]
    pub enum State {
        /// Asked for; nothing was done yet.
        Created,
        /// The host name is being looked up.
        Resolving,
        /// A handshake is under way, or several that race each other.
        Connecting,
        /// Both halves are open.
        Open,
        /// The caller has ended; bytes or our FIN still wait to leave. The peer has not finished.
        Flushing,
        /// Our FIN is with the kernel; the peer still sends.
        Finished,
        /// The same, and the caller has discarded: what the peer still sends is read and dropped.
        Lingering,
        /// The peer's FIN was read; we still send.
        Ended,
        /// The peer's FIN was read and the caller has ended; bytes or our FIN still wait to leave.
        LastFlush,
        /// Both FINs are out; the peer's kernel has not acknowledged ours yet.
        Closing,
        /// The system has reported an error: nothing leaves any more, and what arrived before may still be read.
        Broken,
        /// Over: both FINs exchanged, ours acknowledged.
        Confirmed,
        /// Over: both sides finished, the kernel delivers the rest alone.
        HandedOff,
        /// Over: the peer's RST, or our own system in its place.
        ResetByPeer,
        /// Over: the caller destroyed it.
        ResetByUs,
        /// Over: a timer ran out.
        TimedOut,
        /// Over: it was never connected.
        NotConnected,
        /// `close` was delivered. The slot is free.
        Closed,
    }
}

listed! {
    /// What can happen to a socket.
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
        /// One attempt has failed; others are under way, or to be tried, or it was the last.
        NextAddress,
        /// The handshake is done.
        Established,
        /// No address is left to try.
        ConnectFailed,
        /// Bytes were read.
        Data,
        /// The write queue emptied after having been full.
        Drained,
        /// No byte moved for the idle time.
        Idle,
        /// The peer's FIN or reset is known, though not yet read.
        PeerEnded,
        /// A read returned zero: the peer's FIN.
        Fin,
        /// The system has reported an error, and input may be left.
        ErrorSeen,
        /// The caller ended.
        EndCalled,
        /// The caller wants to see nothing of what is still read.
        DiscardCalled,
        /// The queue is empty and our FIN is with the kernel.
        FinSent,
        /// Everything was left to the kernel by close(2).
        LeftToKernel,
        /// The peer's kernel has acknowledged our FIN.
        Acknowledged,
        /// The peer's RST, or an error of our own system that ends the connection.
        Reset,
        /// The timer that limits this state ran out.
        Expired,
        /// The caller destroyed it.
        DestroyCalled,
        /// The closes phase came round.
        CloseDue,
    }
}

listed! {
    /// The events that a transition emits, in the order in which one socket emits them.
    pub enum Emits {
        /// One `lookup` per address.
        Lookup,
        /// `connect`
        Connect,
        /// `ready`
        Ready,
        /// `connection`
        Connection,
        /// `data`
        Data,
        /// `drain`
        Drain,
        /// `timeout`
        Timeout,
        /// `peer-ended`
        PeerEnded,
        /// `end`
        End,
        /// `error`
        Error,
        /// `close`
        Close,
    }
}

/// What the table says of one pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Go to this state and emit these events.
    Go(State, &'static [Emits]),
    /// It can happen, and is taken up when the connection is established.
    Deferred,
    /// It can happen, and changes nothing.
    Ignored,
    /// It can't happen; the reactor never asks.
    Impossible,
}

/// The transition for one pair.
#[must_use]
pub const fn step(state: State, input: Input) -> Cell {
    TABLE[state as usize][input as usize]
}

/// A cell as the machine takes it: what to do in four bytes, and the events as a set of bits.
#[derive(Clone, Copy)]
pub(crate) struct Transition {
    /// The next state; the present one if nothing changes.
    pub(crate) to: State,
    pub(crate) kind: Kind,
    /// Bit `n` stands for `Emits::ALL[n]`.
    pub(crate) emits: u16,
}

/// What kind of cell it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Go,
    Ignored,
    Impossible,
}

const _: () = assert!(size_of::<Transition>() == 4);

/// The same table as [`step`] reads, made from it at compile time.
#[inline]
pub(crate) const fn compact(state: State, input: Input) -> Transition {
    COMPACT[state as usize][input as usize]
}

static COMPACT: [[Transition; Input::ALL.len()]; State::ALL.len()] = {
    let mut compact =
        [[Transition { to: State::Created, kind: Kind::Impossible, emits: 0 }; Input::ALL.len()]; State::ALL.len()];
    let mut s = 0;
    while s < State::ALL.len() {
        let mut i = 0;
        while i < Input::ALL.len() {
            let (to, kind, emits) = match TABLE[s][i] {
                Cell::Go(to, emits) => (to, Kind::Go, bits(emits)),
                Cell::Ignored | Cell::Deferred => (State::ALL[s], Kind::Ignored, 0),
                Cell::Impossible => (State::ALL[s], Kind::Impossible, 0),
            };
            compact[s][i] = Transition { to, kind, emits };
            i += 1;
        }
        s += 1;
    }
    compact
};

const fn bits(emits: &[Emits]) -> u16 {
    let (mut bits, mut t) = (0, 0);
    while t < emits.len() {
        bits |= 1 << emits[t] as u16;
        t += 1;
    }
    bits
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

    /// Whether there may be more to read: the peer's FIN was not read.
    #[must_use]
    pub const fn can_read(self) -> bool {
        matches!(self, State::Open | State::Flushing | State::Finished | State::Lingering | State::Broken)
    }

    /// Whether bytes or our FIN may still leave.
    #[must_use]
    pub const fn can_send(self) -> bool {
        matches!(self, State::Open | State::Ended) || self.is_flushing()
    }

    /// Whether the caller has ended and our FIN has not left.
    #[must_use]
    pub const fn is_flushing(self) -> bool {
        matches!(self, State::Flushing | State::LastFlush)
    }

    /// The states of RFC 9293 section 3.3.2 that our kernel's side of the connection can be in meanwhile.
    #[must_use]
    pub const fn rfc9293(self) -> &'static [&'static str] {
        match self {
            State::Created | State::Resolving => &["CLOSED"],
            State::Connecting => &["SYN-SENT", "SYN-RECEIVED"],
            State::Open | State::Flushing => &["ESTABLISHED", "CLOSE-WAIT"],
            State::Finished | State::Lingering => &["FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT"],
            State::Ended | State::LastFlush => &["CLOSE-WAIT"],
            State::Closing => &["CLOSING", "LAST-ACK"],
            State::Confirmed => &["TIME-WAIT", "CLOSED"],
            State::HandedOff => &["CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"],
            State::Broken
            | State::ResetByPeer
            | State::ResetByUs
            | State::TimedOut
            | State::NotConnected
            | State::Closed => &["CLOSED"],
        }
    }
}

/// One state's part of the table.
struct Row {
    state: State,
    go: &'static [(Input, State, &'static [Emits])],
    deferred: &'static [Input],
    ignored: &'static [Input],
}

const TABLE: [[Cell; Input::ALL.len()]; State::ALL.len()] = build(ROWS);

/// What a socket that is over shrugs off: news that was on its way.
const LATE: &[Input] = &[
    Input::Data,
    Input::Drained,
    Input::Idle,
    Input::PeerEnded,
    Input::Fin,
    Input::ErrorSeen,
    Input::EndCalled,
    Input::DiscardCalled,
    Input::Reset,
    Input::Expired,
    Input::DestroyCalled,
];

/// What every final state still has to do.
const CLOSE: &[(Input, State, &[Emits])] = &[(Input::CloseDue, State::Closed, &[Emits::Close])];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { state: State::Created, go: &[
        (Input::Accepted,      State::Open,         &[Emits::Connection]),
        (Input::LookupStarted, State::Resolving,    &[]),
        (Input::Resolved,      State::Connecting,   &[Emits::Lookup]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[Input::EndCalled], ignored: &[] },
    Row { state: State::Resolving, go: &[
        (Input::Resolved,      State::Connecting,   &[Emits::Lookup]),
        (Input::LookupFailed,  State::NotConnected, &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[Input::EndCalled], ignored: &[] },
    Row { state: State::Connecting, go: &[
        (Input::NextAddress,   State::Connecting,   &[]),
        (Input::Established,   State::Open,         &[Emits::Connect, Emits::Ready]),
        (Input::ConnectFailed, State::NotConnected, &[Emits::Error]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[Input::EndCalled], ignored: &[] },
    Row { state: State::Open, go: &[
        (Input::Data,          State::Open,         &[Emits::Data]),
        (Input::Drained,       State::Open,         &[Emits::Drain]),
        (Input::Idle,          State::Open,         &[Emits::Timeout]),
        (Input::PeerEnded,     State::Open,         &[Emits::PeerEnded]),
        (Input::Fin,           State::Ended,        &[Emits::End]),
        (Input::ErrorSeen,     State::Broken,       &[]),
        (Input::EndCalled,     State::Flushing,     &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[] },
    Row { state: State::Flushing, go: &[
        (Input::Data,          State::Flushing,     &[Emits::Data]),
        (Input::Idle,          State::Flushing,     &[Emits::Timeout]),
        (Input::PeerEnded,     State::Flushing,     &[Emits::PeerEnded]),
        (Input::Fin,           State::LastFlush,    &[Emits::End]),
        (Input::ErrorSeen,     State::Broken,       &[]),
        (Input::FinSent,       State::Finished,     &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::EndCalled, Input::Drained] },
    Row { state: State::Finished, go: &[
        (Input::Data,          State::Finished,     &[Emits::Data]),
        (Input::Idle,          State::Finished,     &[Emits::Timeout]),
        (Input::PeerEnded,     State::Finished,     &[Emits::PeerEnded]),
        (Input::Fin,           State::Closing,      &[Emits::End]),
        (Input::ErrorSeen,     State::Broken,       &[]),
        (Input::DiscardCalled, State::Lingering,    &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::EndCalled, Input::Drained] },
    Row { state: State::Lingering, go: &[
        (Input::PeerEnded,     State::Lingering,    &[Emits::PeerEnded]),
        (Input::Fin,           State::Closing,      &[Emits::End]),
        (Input::ErrorSeen,     State::Broken,       &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::EndCalled, Input::Drained, Input::Idle] },
    Row { state: State::Ended, go: &[
        (Input::Drained,       State::Ended,        &[Emits::Drain]),
        (Input::Idle,          State::Ended,        &[Emits::Timeout]),
        (Input::EndCalled,     State::LastFlush,    &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::PeerEnded] },
    Row { state: State::LastFlush, go: &[
        (Input::Idle,          State::LastFlush,    &[Emits::Timeout]),
        (Input::FinSent,       State::Closing,      &[]),
        (Input::LeftToKernel,  State::HandedOff,    &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::EndCalled, Input::Drained, Input::PeerEnded] },
    Row { state: State::Closing, go: &[
        (Input::LeftToKernel,  State::HandedOff,    &[]),
        (Input::Acknowledged,  State::Confirmed,    &[]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::EndCalled, Input::Drained, Input::PeerEnded, Input::Idle] },
    Row { state: State::Broken, go: &[
        (Input::Data,          State::Broken,       &[Emits::Data]),
        (Input::Drained,       State::Broken,       &[Emits::Drain]),
        (Input::Idle,          State::Broken,       &[Emits::Timeout]),
        (Input::PeerEnded,     State::Broken,       &[Emits::PeerEnded]),
        (Input::Reset,         State::ResetByPeer,  &[Emits::Error]),
        (Input::Expired,       State::TimedOut,     &[Emits::Error]),
        (Input::DestroyCalled, State::ResetByUs,    &[]),
    ], deferred: &[], ignored: &[Input::EndCalled] },
    Row { state: State::Confirmed,    go: CLOSE, deferred: &[], ignored: LATE },
    Row { state: State::HandedOff,    go: CLOSE, deferred: &[], ignored: LATE },
    Row { state: State::ResetByPeer,  go: CLOSE, deferred: &[], ignored: LATE },
    Row { state: State::ResetByUs,    go: CLOSE, deferred: &[], ignored: LATE },
    Row { state: State::TimedOut,     go: CLOSE, deferred: &[], ignored: LATE },
    Row { state: State::NotConnected, go: CLOSE, deferred: &[], ignored: LATE },
    Row { state: State::Closed,       go: &[],   deferred: &[], ignored: LATE },
];

/// Spreads the rows out into the table, at compile time. A pair that is written twice stops the build.
const fn build(rows: &[Row]) -> [[Cell; Input::ALL.len()]; State::ALL.len()] {
    let mut table = [[Cell::Impossible; Input::ALL.len()]; State::ALL.len()];
    let mut r = 0;
    while r < rows.len() {
        let row = &rows[r];
        assert!(row.state as usize == r, "the rows are in the order of the states");
        let mut i = 0;
        while i < row.go.len() {
            let (input, next, emits) = row.go[i];
            table[r] = with(table[r], input, Cell::Go(next, emits));
            i += 1;
        }
        i = 0;
        while i < row.deferred.len() {
            table[r] = with(table[r], row.deferred[i], Cell::Deferred);
            i += 1;
        }
        i = 0;
        while i < row.ignored.len() {
            table[r] = with(table[r], row.ignored[i], Cell::Ignored);
            i += 1;
        }
        r += 1;
    }
    assert!(r == State::ALL.len(), "every state has its row");
    table
}

/// A row with one cell more.
const fn with(mut row: [Cell; Input::ALL.len()], input: Input, cell: Cell) -> [Cell; Input::ALL.len()] {
    assert!(matches!(row[input as usize], Cell::Impossible), "a pair is written twice");
    row[input as usize] = cell;
    row
}
