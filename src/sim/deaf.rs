//! Ends that drop what arrives for them, as a socket with IP_MINTTL 255 does.

use std::net::SocketAddr;

use super::Network;
use super::world::{Packet, World};

impl Network {
    /// From now on the kernel of one end of a connection, named by its addresses, drops every packet
    /// that arrives for it, or hears again: no acknowledgement, no reset, no readiness. What the end
    /// sends still leaves. On Linux the option IP_MINTTL does this (ip(7)). Returns whether there was
    /// such an end. Visits every connection once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use finale::sim::Network;
    /// use std::net::SocketAddr;
    /// let network = Network::new(1);
    /// let addr = SocketAddr::from(([10, 0, 0, 1], 80));
    /// let server = network.peer(addr.ip()).listen(addr).expect("a free port");
    /// let client = network.peer([10, 0, 0, 2].into()).connect(addr).expect("a route");
    /// network.advance(Duration::from_millis(10));
    /// let (served, local) = (server.accept().expect("it has come"), client.local_addr().expect("open"));
    /// assert!(network.set_deaf(local, addr, true));
    /// served.send(b"hello");
    /// network.advance(Duration::from_secs(1));
    /// assert!(client.read().is_empty());
    /// network.set_deaf(local, addr, false);
    /// network.advance(Duration::from_secs(10));
    /// assert_eq!(client.read(), b"hello"); // It was repeated.
    /// ```
    pub fn set_deaf(&self, local: SocketAddr, remote: SocketAddr, deaf: bool) -> bool {
        let mut world = self.world.borrow_mut();
        let found = world.ends.iter().find(|(_, end)| end.local == local && end.remote == remote).map(|(id, _)| id);
        if let Some(end) = found.and_then(|id| world.ends.get_mut(id)) {
            end.is_deaf = deaf;
        }
        found.is_some()
    }
}

impl World {
    /// Whether the end that the packet has reached drops it.
    pub(super) fn is_unheard(&self, packet: &Packet) -> bool {
        packet.to.and_then(|id| self.ends.get(id)).is_some_and(|end| end.is_deaf)
    }
}
