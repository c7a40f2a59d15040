//! One connection's entry: a cache line.

use crate::error::Timer;
use crate::event::First;
use crate::lifecycle::{State, Tell};
use crate::options::Settings;
use crate::wheel::Node;

/// No entry, no extra.
pub(crate) const NIL: u32 = u32::MAX;

/// Everything that an idle connection costs in the table. What only some need is elsewhere: the write queue and whatever
/// belongs to connecting in `extra`, options shared with others in `settings`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) timer: Node,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) generation: u32,
    /// The next entry of the list that this one is in.
    pub(super) link: u32,
    pub(crate) settings: u32,
    pub(crate) extra: u32,
    /// An IPv4 address, or with `IPV6` a place in the table's list of IPv6 peers.
    pub(super) peer_ip: u32,
    pub(crate) flags: Flags,
    /// 0: not known.
    pub(super) peer_port: u16,
    pub(crate) state: State,
    /// The tick of the last activity, 39 bits: 17 years. Above it: the last bytes that moved were the peer's.
    touched: [u8; 5],
}

const _: () = assert!(size_of::<Entry>() == 64, "one cache line");

/// In the uppermost byte of `touched`.
const HEARD: u8 = 0x80;

impl Entry {
    /// A place that was never used. Generation 0 is given to nobody.
    pub(super) const fn free() -> Self {
        Self {
            timer: Node::new(),
            bytes_read: 0,
            bytes_written: 0,
            generation: 1,
            link: NIL,
            settings: NIL,
            extra: NIL,
            peer_ip: 0,
            flags: Flags::NONE,
            peer_port: 0,
            state: State::Closed,
            touched: [0; 5],
        }
    }

    /// Gives the place to a new connection.
    pub(super) fn begin(&mut self, settings: u32, paused: bool) {
        *self = Self { generation: self.generation, settings, state: State::Created, ..Self::free() };
        self.flags = if paused { Flags::PAUSED } else { Flags::NONE };
    }

    /// Who is next in the list that it is in.
    pub(super) const fn link(&self) -> u32 {
        self.link
    }

    /// Takes the place back. Answers whether it can be used again.
    pub(super) fn forget(&mut self) -> bool {
        let generation = self.generation;
        *self = Self::free();
        match generation.checked_add(1) {
            Some(next) => self.generation = next,
            None => self.generation = 0,
        }
        self.generation != 0
    }

    /// Whether the place is in use.
    #[inline]
    pub(crate) const fn is_used(&self) -> bool {
        self.settings != NIL
    }

    /// The tick of the last activity.
    #[inline]
    pub(crate) fn touched(&self) -> u64 {
        let [a, b, c, d, e] = self.touched;
        u64::from_le_bytes([a, b, c, d, e & !HEARD, 0, 0, 0])
    }

    /// Whether the last bytes that moved were the peer's: it may be waiting for an answer.
    pub(crate) const fn heard_last(&self) -> bool {
        self.touched[4] & HEARD != 0
    }

    #[inline]
    pub(crate) const fn set_heard_last(&mut self, heard: bool) {
        self.touched[4] = self.touched[4] & !HEARD | if heard { HEARD } else { 0 };
    }

    #[inline]
    pub(super) fn touch(&mut self, now: u64) {
        let [a, b, c, d, e, ..] = now.to_le_bytes();
        self.touched = [a, b, c, d, e & !HEARD | self.touched[4] & HEARD];
    }

    /// Whether a silence may be told.
    #[inline]
    pub(super) fn may_idle(&self) -> bool {
        self.state.is_connected()
            && self.state != State::Closing
            && !self.is_lingering()
            && !self.flags.has(Flags::IDLE_TOLD)
    }

    /// The limit that rules the present state.
    pub(super) fn limit(&self, settings: &Settings) -> Option<(u64, Timer)> {
        let (ms, timer) = match self.state {
            State::Created | State::Resolving | State::Connecting => (settings.connect_ms, Timer::Connect),
            // Open, unless the peer is known to have finished and the caller does not read on.
            State::Open if !self.flags.has(Flags::READ_CLOSED) => return None,
            State::Finished if self.is_lingering() => (settings.linger_ms, Timer::Linger),
            State::Open | State::Finished | State::Ended => (settings.half_closed_ms, Timer::HalfClosed),
            State::Flushing | State::LastFlush | State::Closing => (settings.linger_ms, Timer::Linger),
            State::Confirmed
            | State::HandedOff
            | State::ResetByPeer
            | State::ResetByUs
            | State::TimedOut
            | State::NotConnected
            | State::Closed => return None,
        };
        ms.map(|ms| (ms, timer))
    }

    /// Whether there is input to be had now.
    #[inline]
    pub(crate) fn has_input(&self) -> bool {
        self.state.can_read() && self.flags.has(Flags::READABLE) && !self.flags.has(Flags::PAUSED)
    }

    /// After `discard` and `end`: what still comes goes into the bin, and puts nothing off.
    pub(crate) fn is_lingering(&self) -> bool {
        self.state == State::Finished && self.flags.has(Flags::DISCARD)
    }

    /// Whether an error flag waits for somebody to ask, where reading no longer does.
    #[inline]
    pub(crate) fn has_verdict(&self) -> bool {
        self.flags.has(Flags::LOOK) && self.state.is_connected() && !self.state.can_read()
    }

    /// Whose FIN came first, of a connection that ended in this state.
    pub(crate) fn first(&self, ended_in: State) -> First {
        match (self.flags.has(Flags::US_FIRST), self.flags.has(Flags::PEER_FIRST)) {
            (false, false) if matches!(ended_in, State::Confirmed | State::HandedOff) => First::Unknown,
            (false, false) => First::Nobody,
            (true, false) => First::Us,
            (false, true) => First::Peer,
            (true, true) => First::Both,
        }
    }
}

/// What is known of a connection, and in the upper bits the events that it owes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u32);

/// Above the conditions: one bit for each [`Tell`].
const OWED: u32 = 32 - Tell::ALL.len() as u32;

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    /// Bytes moved: a silence, if there was one, is over.
    pub(crate) const MOVED: Self = Self(1 << 0);
    /// In a list.
    pub(crate) const QUEUED: Self = Self(1 << 1);
    /// Its news comes out of poll.
    pub(crate) const REGISTERED: Self = Self(1 << 2);
    /// A read may succeed: remembered until `WouldBlock`.
    pub(crate) const READABLE: Self = Self(1 << 3);
    /// A write may succeed: remembered until `WouldBlock`.
    pub(crate) const WRITABLE: Self = Self(1 << 4);
    /// The peer's FIN or reset is known; the zero-length read is owed.
    pub(crate) const READ_CLOSED: Self = Self(1 << 5);
    /// An error or hang-up flag was seen and nobody has asked for the verdict yet.
    pub(crate) const LOOK: Self = Self(1 << 7);
    /// A write failed: `extra.failure` has the error; what can still be read comes first.
    pub(crate) const BROKEN: Self = Self(1 << 8);
    /// `write` has said full: a drain is owed when the queue empties.
    pub(crate) const FULL: Self = Self(1 << 9);
    /// The caller does not want to read.
    pub(crate) const PAUSED: Self = Self(1 << 10);
    /// The caller does not want to see what is read.
    pub(crate) const DISCARD: Self = Self(1 << 11);
    /// The caller has ended.
    pub(crate) const END: Self = Self(1 << 12);
    /// The caller has destroyed.
    pub(crate) const DESTROY: Self = Self(1 << 13);
    /// The deadlines count anew: bytes moved, or the state changed, since the timer was armed.
    pub(crate) const TOUCHED: Self = Self(1 << 14);
    /// The present silence was told.
    pub(crate) const IDLE_TOLD: Self = Self(1 << 15);
    /// The early notice was told.
    pub(crate) const NOTICED: Self = Self(1 << 16);
    /// Our FIN left before the peer's was known.
    pub(crate) const US_FIRST: Self = Self(1 << 17);
    /// The peer's FIN was known before ours left; with `US_FIRST`: they crossed.
    pub(crate) const PEER_FIRST: Self = Self(1 << 18);
    /// The peer's address is IPv6.
    pub(crate) const IPV6: Self = Self(1 << 19);
    /// A handshake is under way.
    pub(crate) const ATTEMPT: Self = Self(1 << 20);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[inline]
    pub(crate) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Self, on: bool) {
        if on { self.0 |= flag.0 } else { self.0 &= !flag.0 }
    }

    /// Sets the flag and answers what it was.
    #[inline]
    pub(crate) fn replace(&mut self, flag: Self, on: bool) -> bool {
        let was = self.has(flag);
        self.set(flag, on);
        was
    }

    /// Owes each event whose bit is set: bit `n` stands for `Tell::ALL[n]`.
    #[inline]
    pub(crate) fn owe_all(&mut self, tells: u16) {
        self.0 |= u32::from(tells) << OWED;
    }

    #[inline]
    pub(crate) const fn owes(self, tell: Tell) -> bool {
        self.0 & (1 << (OWED + tell as u32)) != 0
    }

    /// The first event owed, in the order of [`Tell`].
    #[inline]
    pub(crate) fn owed(self) -> Option<Tell> {
        let owed = self.0 >> OWED;
        if owed == 0 { None } else { Some(Tell::ALL[owed.trailing_zeros() as usize]) }
    }

    pub(crate) fn paid(&mut self, tell: Tell) {
        self.0 &= !(1 << (OWED + tell as u32));
    }

    /// After `destroy()` nothing is told but the `ready` that belongs to a `connect` already told.
    pub(crate) fn forgive_all_but_ready(&mut self) {
        self.0 &= ((1 << OWED) - 1) | (1 << (OWED + Tell::Ready as u32));
    }

    pub(crate) fn forgive_all(&mut self) {
        self.0 &= (1 << OWED) - 1;
    }
}

const _: () = assert!(Flags::ATTEMPT.0 < 1 << OWED, "conditions and owed events don't overlap");

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flags({:#b})", self.0)
    }
}

#[cfg(test)]
mod tests;
