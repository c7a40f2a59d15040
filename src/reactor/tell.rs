//! How events are put together: from what the lifecycle says is owed, to what the caller gets.

use std::net::IpAddr;

use super::Reactor;
use crate::error::{Failure, OsError};
use crate::event::{Ending, Event, How};
use crate::id::{ListenerId, TimerId};
use crate::lifecycle::{State, Tell};
use crate::net::Net;
use crate::report;
use crate::socket::Socket;
use crate::table::entry::{Flags, NIL};

/// An event on its way out: a few bytes, which pass through several hands before the event is put together, once, where
/// the caller gets it.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) slot: u32,
    pub(super) what: What,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    /// So many bytes in the receive buffer.
    Data(u32),
    /// The address in this place of those that were found.
    Lookup(u32),
    /// Any other event of a socket: the table has what it says.
    Tell(Tell),
    /// The last one, with the state in which it ended.
    Close(State),
    Timer(TimerId),
    Woken,
    /// The listener in this place can't accept, for this reason.
    Rests(u32, OsError),
    /// A client of the listener in this place was one too many; its address is kept.
    Dropped(u32),
    /// A listener that was stopped is no more.
    ListenerClosed(ListenerId),
}

const _: () = assert!(size_of::<Option<Told>>() == 16, "two registers");

impl Told {
    pub(super) const fn of_none(what: What) -> Self {
        Self { slot: NIL, what }
    }
}

/// The events that say nothing but their name.
fn plain(tell: Tell) -> Event<'static> {
    match tell {
        Tell::Connect => Event::Connect,
        Tell::Ready => Event::Ready,
        Tell::Connection => Event::Connection,
        Tell::Drain => Event::Drain,
        Tell::Timeout => Event::Timeout,
        Tell::PeerEnded => Event::PeerEnded,
        Tell::End => Event::End,
        Tell::Lookup | Tell::Data | Tell::Error | Tell::Close => {
            debug_assert!(false, "{tell:?} says more than its name");
            Event::Drain
        }
    }
}

impl<N: Net> Reactor<N> {
    /// Lends the event and its socket to the caller.
    #[inline(always)]
    pub(super) fn present(&mut self, told: Told) -> (Socket<'_>, Event<'_>) {
        let slot = told.slot;
        let event = match told.what {
            What::Data(bytes) => Event::Data(&self.buffer[..bytes as usize]),
            What::Tell(Tell::Connection) => Event::Connection,
            What::Tell(Tell::End) => Event::End,
            What::Close(ended_in) => {
                self.ending = self.ending(slot, ended_in);
                self.counts.closed(&self.ending);
                report::ending(self.table.id(slot), &self.ending);
                Event::Close(&self.ending)
            }
            What::Tell(Tell::Error) => {
                self.failure = self.failure(slot);
                Event::Error(&self.failure)
            }
            What::Tell(tell) => plain(tell),
            What::Lookup(place) => Event::Lookup(self.found(slot, place)),
            What::Timer(timer) => Event::Timer(timer),
            What::Woken => Event::Woken,
            What::Rests(listener, error) => Event::ListenerRests(self.listeners.id(listener), error),
            What::Dropped(listener) => Event::Dropped(self.listeners.id(listener), self.dropped.as_ref()),
            What::ListenerClosed(listener) => Event::ListenerClosed(listener),
        };
        (Socket::new(&mut self.table, slot), event)
    }

    /// Tells one event of a socket.
    #[inline]
    pub(super) fn tell(&mut self, slot: u32, what: What) -> Told {
        self.told = Some(slot);
        Told { slot, what }
    }

    /// Tells the first event that the socket owes, if it owes one.
    #[inline]
    pub(super) fn tell_owed(&mut self, slot: u32) -> Option<Told> {
        match self.table.entry(slot).flags.owed() {
            Some(tell) => self.tell_first(slot, tell),
            None => None,
        }
    }

    fn tell_first(&mut self, slot: u32, tell: Tell) -> Option<Told> {
        if tell == Tell::Lookup {
            return self.tell_lookup(slot);
        }
        // Data and close are told where they arise; owing them would be a mistake of ours.
        debug_assert!(!matches!(tell, Tell::Data | Tell::Close), "{tell:?} is never owed");
        self.table.entry_mut(slot).flags.paid(tell);
        Some(self.tell(slot, What::Tell(tell)))
    }

    /// One address after the other: the event is paid for with the last.
    fn tell_lookup(&mut self, slot: u32) -> Option<Told> {
        let connecting = self.table.extra_mut(slot).connecting.as_mut()?;
        let place = connecting.told;
        connecting.told += 1;
        if connecting.told >= connecting.addrs.len() {
            self.table.entry_mut(slot).flags.paid(Tell::Lookup);
        }
        Some(self.tell(slot, What::Lookup(place as u32)))
    }

    /// The address in this place of those that were found.
    fn found(&self, slot: u32, place: u32) -> IpAddr {
        let connecting = self.table.extra(slot).and_then(|extra| extra.connecting.as_ref());
        let addr = connecting.and_then(|connecting| connecting.addrs.get(place as usize));
        addr.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), std::net::SocketAddr::ip)
    }

    pub(super) fn failure(&self, slot: u32) -> Failure {
        let failure = self.table.extra(slot).and_then(|extra| extra.failure.clone());
        failure.unwrap_or(Failure::of(crate::error::Cause::System))
    }

    /// The report for `close`. The state in which it ended says how.
    fn ending(&self, slot: u32, ended_in: State) -> Ending {
        let entry = self.table.entry(slot);
        let how = match ended_in {
            State::Confirmed => How::Confirmed,
            State::HandedOff => How::HandedOff,
            State::ResetByUs => How::Destroyed,
            // It failed, and was destroyed before it could tell.
            State::ResetByPeer | State::TimedOut | State::NotConnected if entry.flags.has(Flags::DESTROY) => {
                How::Destroyed
            }
            State::ResetByPeer | State::TimedOut | State::NotConnected => How::Failed(self.failure(slot)),
            State::Created
            | State::Resolving
            | State::Connecting
            | State::Open
            | State::Flushing
            | State::Finished
            | State::Ended
            | State::LastFlush
            | State::Closing
            | State::Closed => {
                debug_assert!(false, "close falls due in final states only");
                How::Destroyed
            }
        };
        Ending {
            how,
            first: entry.first(ended_in),
            peer: self.table.peer(slot),
            bytes_read: entry.bytes_read,
            bytes_written: entry.bytes_written,
            bytes_unsent: self.table.queued_bytes(slot) as u64,
        }
    }

    /// After `destroy()` a socket tells nothing more, except the `ready` of a `connect` that was told.
    pub(super) fn silence(&mut self, slot: u32) {
        let flags = &mut self.table.entry_mut(slot).flags;
        if flags.owed() == Some(Tell::Ready) {
            flags.forgive_all_but_ready();
        } else {
            flags.forgive_all();
        }
        flags.set(Flags::READABLE, false);
    }
}
