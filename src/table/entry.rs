//! One connection's entry: a cache line, and what the connection needs next.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use slab::Slab;

use super::extra::Extra;
use crate::event::FirstFin;
use crate::lifecycle::{self, Emits, Input, State};
use crate::options::Settings;
use crate::wheel::Node;

/// No slot, no extra, no settings.
pub(crate) const NIL: u32 = u32::MAX;

/// Everything that an idle connection costs in the table. What only some connections need is stored
/// elsewhere: the write queue, clocks and the data of connecting in `extra`, options in `settings`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) timer: Node,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) generation: u32,
    /// `NIL`: the slot is reserved for an attempt to connect, and has no socket.
    pub(crate) settings: u32,
    pub(crate) extra: u32,
    /// An IPv4 address, or with `IPV6` an index into the table's list of IPv6 peers.
    pub(super) peer_ip: u32,
    pub(crate) flags: Flags,
    /// 0: unknown.
    pub(super) peer_port: u16,
    pub(crate) state: State,
    /// Whose FIN came first.
    pub(crate) first_fin: FirstFin,
    /// The last bytes that moved were the peer's: it may be waiting for an answer.
    pub(crate) heard_last: bool,
    /// The tick since which no byte moved, 40 bits: 34 years. See `Entry::idle_since`.
    idle_since: [u8; 5],
}

const _: () = assert!(size_of::<Entry>() == 64, "one cache line");

/// In `idle_since`: the clock is stopped, because the present silence was delivered.
const STOPPED: [u8; 5] = [u8::MAX; 5];

/// What a socket needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// An event is pending: it comes before anything else that the reactor does.
    Deliver,
    /// A step, in this turn.
    Now,
    /// A step in the next turn: its quantum is used up.
    Later,
    /// Only its `close`.
    Close,
    /// Readiness, or its deadline.
    Wait,
}

impl Entry {
    /// A slot that is no socket.
    pub(super) const fn reserved() -> Self {
        Self {
            timer: Node::new(),
            bytes_read: 0,
            bytes_written: 0,
            generation: 0,
            settings: NIL,
            extra: NIL,
            peer_ip: 0,
            flags: Flags::NONE,
            peer_port: 0,
            state: State::Created,
            first_fin: FirstFin::Neither,
            heard_last: false,
            idle_since: STOPPED,
        }
    }

    /// Whether the slot is a socket's.
    #[inline]
    pub(crate) const fn is_socket(&self) -> bool {
        self.settings != NIL
    }

    /// The tick since which the idle time counts; `None` after its `timeout` was delivered.
    #[inline]
    pub(super) fn idle_since(&self) -> Option<u64> {
        let [a, b, c, d, e] = self.idle_since;
        (self.idle_since != STOPPED).then(|| u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]))
    }

    #[inline]
    pub(super) fn set_idle_since(&mut self, tick: u64) {
        let [a, b, c, d, e, ..] = tick.to_le_bytes();
        self.idle_since = [a, b, c, d, e];
    }

    /// `timeout` was delivered: the clock restarts when bytes move.
    pub(crate) const fn stop_idle_clock(&mut self) {
        self.idle_since = STOPPED;
    }

    /// The peer's address, if it is known.
    pub(crate) fn peer(&self, ipv6_peers: &Slab<SocketAddrV6>) -> Option<SocketAddr> {
        if self.peer_port == 0 {
            return None;
        }
        if self.flags.has(Flags::IPV6) {
            return ipv6_peers.get(self.peer_ip as usize).copied().map(SocketAddr::V6);
        }
        Some(SocketAddr::new(IpAddr::V4(self.peer_ip.into()), self.peer_port))
    }

    pub(super) fn new(generation: u32, settings: u32, flags: Flags) -> Self {
        Self { generation, settings, flags, ..Self::reserved() }
    }

    #[inline(always)]
    pub(super) fn set_peer(&mut self, addr: SocketAddr, ipv6_peers: &mut Slab<SocketAddrV6>) {
        if self.flags.replace(Flags::IPV6, addr.is_ipv6()) {
            ipv6_peers.remove(self.peer_ip as usize);
        }
        self.peer_port = addr.port();
        self.peer_ip = match addr {
            SocketAddr::V4(v4) => (*v4.ip()).into(),
            SocketAddr::V6(v6) => ipv6_peers.insert(v6) as u32,
        };
    }

    /// Takes one step of the lifecycle. Returns the events that it emits, for the caller to deliver
    /// or to [`post`](Entry::post).
    #[inline]
    pub(crate) fn apply(&mut self, input: Input) -> lifecycle::Transition {
        let step = lifecycle::compact(self.state, input);
        let is_impossible = || lifecycle::step(self.state, input) == lifecycle::Cell::Impossible;
        debug_assert!(!is_impossible(), "{input:?} can't happen in {:?}", self.state);
        if step.to != self.state {
            self.state = step.to;
            // The limit of the new state counts from now; all states of connecting share one limit.
            if step.to.is_connected() {
                self.flags.set(Flags::LIMIT, true);
            }
        }
        step
    }

    /// Whether the program can still change anything. A failed socket stays live until its `error`.
    #[inline]
    pub(crate) const fn is_living(&self) -> bool {
        let is_over = self.state.is_final() && !self.flags.is_pending(Emits::Error);
        !is_over && !self.flags.has(Flags::DESTROY)
    }

    /// Whether reading is wanted and may succeed.
    #[inline]
    pub(crate) const fn has_input(&self) -> bool {
        self.state.can_read() && self.flags.has(Flags::READABLE) && !self.flags.has(Flags::STOPPED)
    }

    /// Whether the next step can read and write: no report of the system is missed.
    #[inline]
    pub(crate) const fn is_busy(&self) -> bool {
        self.flags.has(Flags::WRITABLE) && (self.has_input() || !self.state.can_read())
    }

    /// Whether the caller or its options have ended our side, and the lifecycle has not applied
    /// that yet.
    #[inline]
    pub(crate) const fn has_end_due(&self, settings: &Settings) -> bool {
        let ends = self.flags.has(Flags::END) || (matches!(self.state, State::PeerFinished) && !settings.half_open);
        ends && matches!(self.state, State::Open | State::PeerFinished)
    }

    /// Whether `peer-ended` has to be delivered although the caller has not read so far: it
    /// requested that, or the connection is dead and the caller holds back what could be read. If
    /// nothing can be read, the error is delivered instead. While a call has to be repeated, that
    /// is unknown.
    #[inline]
    pub(crate) fn has_notice_due(&self, settings: &Settings, extra: Option<&Extra>) -> bool {
        let is_broken = self.state == State::Broken;
        let wanted = settings.notify_peer_ended || (is_broken && self.flags.has(Flags::STOPPED));
        let is_due = self.flags.has(Flags::READ_CLOSED) && !self.flags.has(Flags::NOTICED) && self.state.can_read();
        wanted && is_due && !(is_broken && extra.is_some_and(|extra| extra.retry_at.is_some()))
    }

    /// Whether the system has to be queried for an error. While we read, the read itself finds it,
    /// in the right order with the bytes and the FIN.
    #[inline]
    pub(crate) const fn has_error_due(&self, settings: &Settings) -> bool {
        if matches!(self.state, State::Broken) {
            self.flags.has(Flags::HANGUP) && self.flags.has(Flags::STOPPED)
        } else if self.state.can_read() {
            // The early notice also has to distinguish a reset from a FIN.
            self.flags.has(Flags::ERROR) && (self.flags.has(Flags::STOPPED) || settings.notify_peer_ended)
        } else {
            self.flags.has(Flags::ERROR.and(Flags::HANGUP))
        }
    }

    /// Whether bytes or our FIN have to be sent. `queued` is whether bytes wait.
    #[inline]
    pub(crate) const fn owes_output(&self, queued: bool) -> bool {
        self.state.is_flushing() || (queued && self.state.can_send())
    }

    /// Whether that is so, and there may be room.
    #[inline]
    pub(crate) fn has_output(&self, extra: Option<&Extra>) -> bool {
        self.flags.has(Flags::WRITABLE) && self.owes_output(extra.is_some_and(Extra::has_bytes))
    }

    /// Whether the caller has discarded what follows our FIN, and no step has handled that.
    #[inline]
    pub(crate) const fn has_discard_due(&self) -> bool {
        matches!(self.state, State::LocalFinished) && self.flags.has(Flags::DISCARD)
    }

    /// What the socket needs next. Only this function decides it.
    #[inline(always)]
    pub(crate) fn next(&self, settings: &Settings, extra: Option<&Extra>) -> Next {
        let (flags, is_final) = (self.flags, self.state.is_final());
        if flags.has(Flags::DESTROY.and(Flags::PENDING)) || is_final {
            let has_pending = flags.has(Flags::PENDING);
            return match flags.has(Flags::DESTROY) && (!is_final || has_pending) {
                true => Next::Now,
                false if has_pending => Next::Deliver,
                false => Next::Close,
            };
        }
        if flags.has(Flags::SOON) {
            return Next::Now;
        }
        if !self.state.is_connected() {
            return self.next_connecting(extra);
        }
        let is_requested = || self.may_have_request(extra.is_some()) && self.is_requested(settings, extra);
        if self.has_end_due(settings) || is_requested() {
            return Next::Now;
        }
        if self.has_output(extra) || self.has_input() { Next::Later } else { Next::Wait }
    }

    /// Whether the caller may have requested something but the end, or the system reported
    /// something.
    #[inline]
    pub(crate) const fn may_have_request(&self, has_extra: bool) -> bool {
        let may_have_notice = self.flags.has(Flags::READ_CLOSED) && self.state.can_read();
        self.flags.has(Flags::REQUESTED) || has_extra || may_have_notice
    }

    /// Whether that is so, and the next step handles it.
    fn is_requested(&self, settings: &Settings, extra: Option<&Extra>) -> bool {
        self.has_discard_due()
            || self.has_notice_due(settings, extra)
            || self.has_error_due(settings)
            || extra.is_some_and(Extra::has_options)
    }

    /// If no attempt is in flight the next one is due, unless it waits for a retry.
    fn next_connecting(&self, extra: Option<&Extra>) -> Next {
        let waits = self.flags.has(Flags::REGISTERED) || extra.is_some_and(|extra| extra.retry_at.is_some());
        if self.state == State::Resolving || waits { Next::Wait } else { Next::Now }
    }
}

/// Four small sets in one word: what the system has reported, what the caller has requested, which
/// clocks have to restart, and which events are pending; and a few facts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u32);

/// Above the conditions: one bit for each of [`Emits`] but the last, `Close`, which is delivered
/// where it arises and never pending.
const PENDING: u32 = 32 - (Emits::ALL.len() as u32 - 1);

impl Flags {
    pub(crate) const NONE: Self = Self(0);

    // --- readiness ---

    /// A read may succeed: kept until the transport reports that it is drained.
    pub(crate) const READABLE: Self = Self(1 << 0);
    /// A write may succeed: kept until `WouldBlock`.
    pub(crate) const WRITABLE: Self = Self(1 << 1);
    /// The peer's FIN or reset is known; the zero-length read is due.
    pub(crate) const READ_CLOSED: Self = Self(1 << 2);
    /// Both halves are shut down, or the connection is dead.
    pub(crate) const HANGUP: Self = Self(1 << 3);
    /// The system has an error that was not taken yet.
    pub(crate) const ERROR: Self = Self(1 << 4);
    /// What is known of a handshake before its result.
    pub(crate) const READINESS: Self = Self(0b1_1111);

    // --- requested by the caller ---

    /// Don't read.
    pub(crate) const PAUSED: Self = Self(1 << 5);
    /// Drop what is read.
    pub(crate) const DISCARD: Self = Self(1 << 6);
    /// Send our FIN after the last byte.
    pub(crate) const END: Self = Self(1 << 7);
    /// Send a reset.
    pub(crate) const DESTROY: Self = Self(1 << 8);
    /// `write` has returned full: deliver `drain` when the queue has drained to the low-water mark.
    pub(crate) const FULL: Self = Self(1 << 9);

    // --- clocks to restart ---

    pub(crate) const IDLE: Self = Self(1 << 10);
    pub(crate) const LIMIT: Self = Self(1 << 11);
    pub(crate) const WRITE: Self = Self(1 << 12);
    /// The stop's grace.
    pub(crate) const GRACE: Self = Self(1 << 18);
    pub(crate) const CLOCKS: Self = Self(0b111 << 10 | 1 << 18);

    // --- facts ---

    /// There is a reason for a step in this turn: readiness, a call of the caller, a short read.
    pub(crate) const SOON: Self = Self(1 << 13);
    /// In a list.
    pub(crate) const QUEUED: Self = Self(1 << 14);
    /// `poll` reports its readiness. While connecting: an attempt is in flight.
    pub(crate) const REGISTERED: Self = Self(1 << 15);
    /// `peer-ended` was delivered.
    pub(crate) const NOTICED: Self = Self(1 << 16);
    /// The peer's address is IPv6.
    pub(crate) const IPV6: Self = Self(1 << 17);
    /// What is read goes into a buffer of the caller, which is in the extra; or into a kernel pipe,
    /// if there is no buffer.
    pub(crate) const FILL: Self = Self(1 << 19);
    /// It was accepted beyond its listener's maximum.
    pub(crate) const OVERFLOW: Self = Self(1 << 20);
    /// Don't read until the sink of this socket has room.
    pub(crate) const HELD: Self = Self(1 << 21);
    /// Don't read, for either reason.
    pub(crate) const STOPPED: Self = Self::PAUSED.and(Self::HELD);

    /// The next step reads before it writes. It has the bit of `Data`, which is never pending.
    pub(crate) const READ_FIRST: Self = Self(1 << (PENDING + Emits::Data as u32));

    // --- sets ---

    /// What is pending: a bit for each of [`Emits`] but `Data`.
    pub(crate) const PENDING: Self = Self(!0 << PENDING & !Self::READ_FIRST.0);
    /// What a step handles besides readiness, `end` and the early notice of the peer's end.
    const REQUESTED: Self = Self::DISCARD.and(Self::FULL).and(Self::HANGUP).and(Self::ERROR);

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

    /// Sets the flag and returns what it was.
    #[inline]
    pub(crate) fn replace(&mut self, flag: Self, on: bool) -> bool {
        let was = self.has(flag);
        self.set(flag, on);
        was
    }

    /// Makes events pending: bit `n` stands for `Emits::ALL[n]`.
    #[inline]
    pub(crate) fn post(&mut self, emits: u16) {
        const NEVER: u16 = 1 << Emits::Close as u16 | 1 << Emits::Data as u16;
        debug_assert!(emits & NEVER == 0, "these are delivered where they arise");
        self.0 |= u32::from(emits) << PENDING;
    }

    #[inline]
    pub(crate) const fn is_pending(self, emits: Emits) -> bool {
        self.0 & (1 << (PENDING + emits as u32)) != 0
    }

    /// The first pending event, in the order of [`Emits`].
    #[inline]
    pub(crate) fn pending(self) -> Option<Emits> {
        Emits::ALL.get(((self.0 & Self::PENDING.0) >> PENDING).trailing_zeros() as usize).copied()
    }

    #[inline]
    pub(crate) fn take_pending(&mut self, emits: Emits) {
        self.0 &= !(1 << (PENDING + emits as u32));
    }

    /// After `destroy()` only the `ready` that belongs to a delivered `connect` is delivered.
    pub(crate) fn clear_pending_but_ready(&mut self) {
        let ready = if self.pending() == Some(Emits::Ready) { 1 << (PENDING + Emits::Ready as u32) } else { 0 };
        self.0 &= ((1 << PENDING) - 1) | ready;
    }
}

const _: () = assert!(Flags::HELD.0 < 1 << PENDING, "conditions and pending events don't overlap");

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
