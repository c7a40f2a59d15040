//! Unix domain sockets in the simulated network: connections of one machine with itself, without
//! latency.
//!
//! Invariant: apart from their names they are connections over loopback, on an address that no
//! program can have. What differs is what unix(7) does differently: names instead of ports, a full
//! queue that refuses at once, no reset, a shutdown(2) that the other end notices at once, and a
//! close(2) that it notices too: its writes fail, and its reads too if bytes of its own were not read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::io::Errno;

use super::arena::Id;
use super::end::{End, Owner, Phase};
use super::fault::Fault;
use super::world::World;
use crate::net::UnixAddr;
use crate::options::{ListenOptions, SystemOptions};

/// On loopback, so that every machine has its own.
pub(super) const UNIX: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));

impl End {
    pub(super) fn is_unix(&self) -> bool {
        self.local.ip() == UNIX
    }

    /// The peer's bytes that have arrived, without its FIN.
    const fn received_bytes(&self) -> u64 {
        self.received - self.peer_finished as u64
    }

    /// What was written and the other end has not received. On Linux everything is in the queue of the
    /// receiver. Here it may be on its way, or wait for the window.
    fn rest_for(&self, other: &Self) -> Vec<u8> {
        let from = other.received_bytes();
        if from < self.written { self.copy_out(from, self.written) } else { Vec::new() }
    }

    /// Takes the rest of the peer's bytes, and the end after them.
    fn take_rest(&mut self, rest: &[u8], now: u64) {
        if self.peer_finished {
            return;
        }
        if self.incoming.is_empty() {
            self.unread_since = Some(now);
        }
        self.incoming.extend(rest);
        self.peer_finished = true;
        self.received += rest.len() as u64 + 1;
        self.note_their_fin(now);
    }
}

impl World {
    pub(super) fn listen_unix(
        &mut self,
        machine: IpAddr,
        owner: Owner,
        addr: &UnixAddr,
        options: &ListenOptions,
    ) -> Result<Id, Errno> {
        if self.unix_listener(machine, addr).is_some() {
            return Err(Errno::ADDRINUSE);
        }
        let id = self.listen(machine, owner, SocketAddr::new(UNIX, 0), options)?;
        self.unix_names.push((machine, addr.clone(), id));
        Ok(id)
    }

    /// Connects at once, or not at all.
    pub(super) fn dial_unix(
        &mut self,
        machine: IpAddr,
        owner: Owner,
        addr: &UnixAddr,
        options: &SystemOptions,
    ) -> Result<Id, Errno> {
        let missing = if addr.file().is_some() { Errno::NOENT } else { Errno::CONNREFUSED };
        let listener = self.unix_listener(machine, addr).ok_or(missing)?;
        let listener = self.listeners.get(listener).ok_or(missing)?;
        if listener.queue.len() + listener.pending > listener.options.backlog as usize {
            self.rows.mark(Fault::QueueOverflows);
            self.happenings += 1;
            return Err(Errno::AGAIN);
        }
        let remote = listener.addr;
        let id = self.dial(machine, owner, remote, None, options)?;
        self.run_due();
        Ok(id)
    }

    /// Linux's unix_release_sock: the other end keeps what was written to it, and can write no more.
    /// It gets an error if its own bytes were not read, or if it was never accepted.
    pub(super) fn close_unix(&mut self, id: Id) {
        let now = self.now;
        self.unhash(id);
        let Some(end) = self.ends.remove(id) else { return };
        let Some(peer) = end.peer else { return };
        self.unhash(peer);
        let Some(other) = self.ends.get_mut(peer) else { return };
        let is_unread = !end.incoming.is_empty() || other.written > end.received_bytes();
        if is_unread {
            self.rows.mark(Fault::ClosedWithInputUnread);
            self.resets += 1;
            other.mark_reset(&mut self.rows);
        }
        other.rest();
        other.take_rest(&end.rest_for(other), now);
        if is_unread || matches!(end.owner, Owner::Queue(_)) {
            (other.error, other.died, other.gone_at) = (Some(Errno::CONNRESET), true, now);
        }
        other.phase = Phase::Closed;
        self.edge(peer);
    }

    /// Linux's unix_shutdown: the other end can read what was written to it, and then the end, at
    /// once.
    pub(super) fn finish_unix(&mut self, id: Id) {
        let now = self.now;
        let Some((end, peer)) = self.ends.get(id).and_then(|end| Some((end, end.peer?))) else { return };
        let Some(rest) = self.ends.get(peer).map(|other| end.rest_for(other)) else { return };
        if let Some(end) = self.ends.get_mut(id) {
            end.rest();
        }
        if let Some(other) = self.ends.get_mut(peer) {
            other.take_rest(&rest, now);
        }
        self.edge(peer);
        self.settle(peer);
        self.settle(id);
    }

    /// The listener with this name. A listener that is closed has removed its file.
    fn unix_listener(&mut self, machine: IpAddr, addr: &UnixAddr) -> Option<Id> {
        let listeners = &self.listeners;
        self.unix_names.retain(|(_, _, id)| listeners.get(*id).is_some());
        let named = self.unix_names.iter().find(|(on, name, _)| *on == machine && name == addr);
        named.map(|(_, _, id)| *id)
    }
}
