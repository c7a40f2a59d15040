//! How events are put together: from what the lifecycle says is owed, to what the caller gets.

use std::net::IpAddr;

use super::Reactor;
use crate::error::Failure;
use crate::event::{Ending, Event, How};
use crate::lifecycle::{State, Tell};
use crate::net::Net;
use crate::socket::Socket;
use crate::table::entry::{Flags, NIL};

/// An event on its way out, before it borrows anything.
pub(super) struct Told {
    pub(super) slot: u32,
    pub(super) what: What,
}

pub(super) enum What {
    /// So many bytes in the receive buffer.
    Data(usize),
    Event(Event<'static>),
}

impl Told {
    pub(super) const fn of_none(what: What) -> Self {
        Self { slot: NIL, what }
    }
}

impl<N: Net> Reactor<N> {
    /// Lends the event and its socket to the caller.
    pub(super) fn present(&mut self, told: Told) -> (Socket<'_>, Event<'_>) {
        let event = match told.what {
            What::Data(bytes) => Event::Data(&self.buffer[..bytes]),
            What::Event(event) => event,
        };
        (Socket::new(&mut self.table, told.slot), event)
    }

    /// Tells one event of a socket.
    pub(super) fn tell(&mut self, slot: u32, event: Event<'static>) -> Told {
        self.told = Some(slot);
        Told { slot, what: What::Event(event) }
    }

    /// Tells the first event that the socket owes, if it owes one.
    pub(super) fn tell_owed(&mut self, slot: u32) -> Option<Told> {
        let tell = self.table.entry(slot).flags.owed()?;
        let event = match tell {
            Tell::Lookup => {
                let (ip, last) = self.next_lookup(slot)?;
                if !last {
                    return Some(self.tell(slot, Event::Lookup(ip)));
                }
                Event::Lookup(ip)
            }
            Tell::Connect => Event::Connect,
            Tell::Ready => Event::Ready,
            Tell::Connection => Event::Connection,
            Tell::Drain => Event::Drain,
            Tell::Timeout => Event::Timeout,
            Tell::PeerEnded => Event::PeerEnded,
            Tell::End => Event::End,
            Tell::Error => Event::Error(self.failure(slot)),
            // Data and close are told where they arise; owing them would be a mistake of ours.
            Tell::Data | Tell::Close => {
                debug_assert!(false, "{tell:?} is never owed");
                self.table.entry_mut(slot).flags.paid(tell);
                return None;
            }
        };
        self.table.entry_mut(slot).flags.paid(tell);
        Some(self.tell(slot, event))
    }

    /// The next address to be told, and whether it is the last one.
    fn next_lookup(&mut self, slot: u32) -> Option<(IpAddr, bool)> {
        let connecting = self.table.extra_mut(slot).connecting.as_mut()?;
        let addr = connecting.addrs.get(connecting.told)?;
        connecting.told += 1;
        Some((addr.ip(), connecting.told == connecting.addrs.len()))
    }

    pub(super) fn failure(&self, slot: u32) -> Failure {
        let failure = self.table.extra(slot).and_then(|extra| extra.failure.clone());
        failure.unwrap_or(Failure::of(crate::error::Cause::System))
    }

    /// The report for `close`. The last state says how it ended.
    pub(super) fn ending(&self, slot: u32) -> Ending {
        let entry = self.table.entry(slot);
        let how = match entry.state {
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
            first: entry.first(),
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
