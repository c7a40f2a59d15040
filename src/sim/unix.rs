//! Unix domain sockets in the simulated network: connections of one machine with itself, without
//! latency.
//!
//! Invariant: apart from their names they are connections over loopback, on an address that no
//! program can have. What differs is what unix(7) does differently: names instead of ports, no
//! reset, and a full queue that refuses at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::io::Errno;

use super::arena::Id;
use super::end::{End, Owner};
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

    /// The listener with this name. A listener that is closed has removed its file.
    fn unix_listener(&mut self, machine: IpAddr, addr: &UnixAddr) -> Option<Id> {
        let listeners = &self.listeners;
        self.unix_names.retain(|(_, _, id)| listeners.get(*id).is_some());
        let named = self.unix_names.iter().find(|(on, name, _)| *on == machine && name == addr);
        named.map(|(_, _, id)| *id)
    }
}
