//! How events are built: from what a step emits to what the caller receives.

use std::net::IpAddr;

use super::Reactor;
use crate::error::{ConnectionError, ConnectionErrorKind};
use crate::event::{Ending, EndingKind, Event, PeerEnd};
use crate::lifecycle::{Emits, State};
use crate::net::Net;
use crate::report;
use crate::socket::Context;
use crate::socket::Socket;
use crate::table::entry::Flags;
use crate::table::extra::Extra;

/// An event before it is built: two small numbers, which are passed on in registers. Its socket is
/// in the table (`at_hand`), and its other data is in the reactor.
#[derive(Clone, Copy)]
pub(super) struct Emit {
    kind: EmitKind,
    value: u32,
}

#[derive(Clone, Copy)]
pub(super) enum EmitKind {
    /// An event of a socket. With `Data` the value is the number of bytes in the receive buffer,
    /// with `Lookup` the index of the address.
    Of(Emits),
    /// `Data` in a buffer of the caller.
    Filled,
    /// `Data` in a kernel pipe. The value is the number of bytes.
    Spliced,
    Timer,
    Woken,
    /// The value is the listener's index.
    AcceptFailed,
    /// The value is the listener's index.
    Overflow,
    ListenerClosed,
}

const _: () = assert!(size_of::<Option<Emit>>() == 8, "a pair of scalars");

impl Emit {
    #[inline]
    pub(super) const fn new(kind: EmitKind, value: u32) -> Self {
        Self { kind, value }
    }

    /// Whether it is `Data` in the receive buffer.
    pub(super) const fn is_data(&self) -> bool {
        matches!(self.kind, EmitKind::Of(Emits::Data))
    }
}

impl<N: Net> Reactor<N> {
    /// Lends the event and its socket to the caller.
    #[inline(always)]
    pub(super) fn present(&mut self, emit: Emit) -> (Socket<'_>, Event<'_>) {
        let slot = self.table.at_hand;
        let event = match emit.kind {
            EmitKind::Of(Emits::Data) => Event::Data(&self.buffer[..emit.value as usize]),
            EmitKind::Of(Emits::Connection) => Event::Connection,
            EmitKind::Of(Emits::End) => Event::End,
            EmitKind::Of(Emits::Close) => Event::Close(&self.ending),
            EmitKind::Of(Emits::Connect) => Event::Connect,
            EmitKind::Of(Emits::Ready) => Event::Ready,
            EmitKind::Of(Emits::Drain) => Event::Drain,
            EmitKind::Of(Emits::Timeout) => Event::Timeout,
            EmitKind::Of(Emits::PeerEnded) => {
                let entry = self.table.entry(slot);
                let (state, flags) = (entry.state, entry.flags);
                // A limit may have struck after the FIN was read.
                let has_fin = flags.is_pending(Emits::End) || matches!(state, State::Confirmed | State::HandedOff);
                let is_dead = state == State::Broken || state.is_final();
                Event::PeerEnded(if is_dead && !has_fin { PeerEnd::Reset } else { PeerEnd::Fin })
            }
            EmitKind::Of(Emits::Lookup) => Event::Lookup(self.found(slot, emit.value)),
            EmitKind::Of(Emits::Error) => {
                self.failure = self.failure(slot);
                Event::Error(&self.failure)
            }
            EmitKind::Filled => Event::Filled,
            EmitKind::Spliced => Event::Spliced(emit.value as usize),
            EmitKind::Timer => Event::Timer(self.fired),
            EmitKind::Woken => Event::Woken,
            EmitKind::AcceptFailed => Event::AcceptFailed(self.listeners.id(emit.value), self.accept_error),
            EmitKind::Overflow => Event::Overflow(self.listeners.id(emit.value), self.dropped.as_ref()),
            EmitKind::ListenerClosed => Event::ListenerClosed(self.closed_listener),
        };
        (Socket::new(Context { table: &mut self.table, net: &self.net }, slot), event)
    }

    /// The address with this index of those that were found.
    fn found(&self, slot: u32, index: u32) -> IpAddr {
        let connecting = self.table.extra(slot).and_then(|extra| extra.connecting.as_ref());
        let addr = connecting.and_then(|connecting| connecting.addrs.get(index as usize));
        addr.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), std::net::SocketAddr::ip)
    }

    fn failure(&self, slot: u32) -> ConnectionError {
        let failure = self.table.extra(slot).and_then(|extra| extra.failure.clone());
        failure.unwrap_or(ConnectionError::of(ConnectionErrorKind::System))
    }

    /// Builds the report for `close`, from the state in which the socket ended.
    pub(super) fn report_ending(&mut self, slot: u32) {
        let (entry, _, extra) = self.table.parts(slot);
        // A socket that failed, and was destroyed before the failure could be delivered, counts as
        // destroyed.
        let kind = if entry.state == State::Confirmed {
            EndingKind::Confirmed
        } else if entry.state == State::HandedOff {
            EndingKind::HandedOff
        } else if entry.state == State::ResetByUs || entry.flags.has(Flags::DESTROY) {
            EndingKind::Destroyed
        } else {
            EndingKind::Failed(self.failure(slot))
        };
        self.ending = Ending {
            kind,
            first_fin: entry.first_fin,
            peer: entry.peer(&self.table.extras.ipv6_peers),
            bytes_read: entry.bytes_read,
            bytes_written: entry.bytes_written,
            bytes_unsent: extra.map_or(0, Extra::unsent_bytes),
        };
        self.counts.closed(&self.ending);
        report::ending(|| self.table.id(slot), &self.ending);
    }
}
