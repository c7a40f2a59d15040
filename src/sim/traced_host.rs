//! A host: the net of a reactor in the simulation, which a recorder can record.

use super::host::BareHost;
use super::world::Source;
use crate::net::Readiness;
use crate::trace::Traced;

/// A program on one machine of a [`Network`](super::Network): the net of one reactor.
///
/// Several hosts may have the same address: then they are programs on one machine, and share its
/// ports. Dropping a host closes all that it has open, as the kernel does when a process ends.
///
/// ```
/// use finale::Reactor;
/// use finale::sim::{Host, Network};
///
/// let network = Network::new(1);
/// let mut reactor: Reactor<Host> = Reactor::with_net(network.host([10, 0, 0, 1].into()));
/// assert!(reactor.next()?.is_none()); // Nothing can happen yet.
/// assert!(reactor.net().most_idle_polls() <= 1);
/// # Ok::<(), finale::Error>(())
/// ```
pub type Host = Traced<BareHost>;

impl Host {
    /// How many calls of the trait this host has made, except `now`, `waker` and `looked_up`. A
    /// real net makes two system calls in some of them.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.net().world.borrow().programs[self.net().index as usize].calls
    }

    /// The most polls in a row at one time that reported nothing. A program that spins has many.
    #[must_use]
    pub fn most_idle_polls(&self) -> u32 {
        self.net().world.borrow().programs[self.net().index as usize].most_idle_polls
    }

    /// Its number on this network, from 0.
    pub(crate) const fn index(&self) -> u32 {
        self.net().index
    }

    /// Injects readiness of the connection with this [`index`](crate::SocketId::index): the next
    /// poll reports these flags. Returns whether it is registered; otherwise nothing is reported.
    #[doc(hidden)] // As the type of the flags.
    pub fn make_up(&self, slot: u32, readiness: Readiness) -> bool {
        let mut world = self.net().world.borrow_mut();
        let Some(id) = world.held(self.net().index, slot) else { return false };
        let Some(token) = world.ends.get(id).and_then(|end| end.token) else { return false };
        world.notify(self.net().index, Source::Rest(id, token, readiness));
        true
    }
}
