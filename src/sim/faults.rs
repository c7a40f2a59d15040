//! Faults that are injected on purpose, as plain values.
//!
//! Invariant: the contract of [`Net`](crate::net::Net) allows everything here. If a fault changes
//! what a reactor delivers, beyond the failure that the fault itself is, the reactor has a bug.
//! This module does not depend on the code that draws the faults.

use std::time::Duration;

use crate::rng::Rng;

/// The seeded faults of a [`Network`](super::Network). A field of type `f64` is a probability per
/// opportunity, 0.0 to 1.0; a `Duration` is the maximum that is added. They apply to hosts; a
/// scripted [`Peer`](super::Peer) only sees their effect on the network.
///
/// ```
/// use finale::sim::{Faults, Network};
/// let network = Network::new(1);
/// network.set_faults(Faults { late_edge: 0.1, interrupted: 0.1, ..network.faults() });
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Per poll: one random connection reports a random set of flags that nothing has caused. It
    /// never includes that its peer has finished, which is a fact.
    pub spurious: f64,
    /// Per edge: it is delivered up to 20 ms late, and what happens meanwhile is merged into it.
    pub late_edge: f64,
    /// Per edge: its flags are split over two polls.
    pub split_edge: f64,
    /// Per poll: it reports one token, however many are ready.
    pub small_batch: f64,
    /// Per close: the next poll still reports all flags under the token that was just closed.
    pub stale_news: f64,
    /// Per poll that waits: it ends early and without readiness, as if by a signal.
    pub interrupted: f64,
    /// Per poll that waits: the clock is read before the wait, so that
    /// [`complete_until`](crate::net::Polled::complete_until) is as old as the wait was long, as it
    /// always is on a real net.
    pub old_clock: f64,
    /// Per poll: the process is stopped between the return of the system call and its next step,
    /// for up to 3 s, as under SIGSTOP or on a busy machine.
    pub stall: f64,
    /// Per read: fewer bytes than there are. An edge follows, as if the rest had arrived a moment
    /// later; a reader may take a short read for drained.
    pub short_read: f64,
    /// Per write: fewer bytes than there is room for, perhaps none. An edge follows.
    pub short_write: f64,
    /// Per packet: up to this much later. Packets of one direction never overtake each other.
    pub jitter: Duration,
    /// Per reset: the RST overtakes everything in flight, which is lost.
    pub reset_overtakes: f64,
    /// Per accept: EMFILE, ENFILE, ENOBUFS or ENOMEM. The connection stays in the queue, and no
    /// edge follows.
    pub accept_exhausted: f64,
    /// Per accept: ECONNABORTED, as for a client that died in the queue on another system. Nothing
    /// else is lost.
    pub accept_aborted: f64,
    /// Per connect: EMFILE from the call itself.
    pub connect_exhausted: f64,
    /// Per register: ENOSPC, epoll's limit of watches.
    pub register_exhausted: f64,
    /// Per read, peek, write, end, query for the last acknowledgement or for the time since it,
    /// filling of a kernel pipe, connect, winner of a race, and listener that is watched again: ENOBUFS
    /// or ENOMEM. Never for the same call of a connection or listener twice in a row, nor for two
    /// connects of a host.
    pub no_memory: f64,
    /// Per lookup: up to this much slower.
    pub lookup_delay: Duration,
    /// Per lookup: it fails with `TryAgain`.
    pub lookup_failure: f64,
}

impl Faults {
    /// No faults. The default of a network.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            spurious: 0.0,
            late_edge: 0.0,
            split_edge: 0.0,
            small_batch: 0.0,
            stale_news: 0.0,
            interrupted: 0.0,
            old_clock: 0.0,
            stall: 0.0,
            short_read: 0.0,
            short_write: 0.0,
            jitter: Duration::ZERO,
            reset_overtakes: 0.0,
            accept_exhausted: 0.0,
            accept_aborted: 0.0,
            connect_exhausted: 0.0,
            register_exhausted: 0.0,
            no_memory: 0.0,
            lookup_delay: Duration::ZERO,
            lookup_failure: 0.0,
        }
    }

    /// A whole set, drawn at random. Each fault is off half of the time, so that many runs have few
    /// faults, and some have many. One that is on occurs far more often than in reality, and never
    /// every time. Without a [`stall`](Self::stall), because after one every limit is late.
    #[must_use]
    pub fn random(rng: &mut Rng) -> Self {
        Self {
            spurious: probability(rng, 0.3),
            late_edge: probability(rng, 0.3),
            split_edge: probability(rng, 0.3),
            small_batch: probability(rng, 0.9),
            stale_news: probability(rng, 0.5),
            interrupted: probability(rng, 0.3),
            old_clock: probability(rng, 0.5),
            short_read: probability(rng, 0.9),
            short_write: probability(rng, 0.9),
            ..Self::random_failures(rng)
        }
    }

    /// The faults that change the events themselves, not only their interleaving.
    fn random_failures(rng: &mut Rng) -> Self {
        Self {
            jitter: delay(rng, Duration::from_millis(50)),
            reset_overtakes: probability(rng, 0.5),
            accept_exhausted: probability(rng, 0.1),
            accept_aborted: probability(rng, 0.1),
            connect_exhausted: probability(rng, 0.1),
            register_exhausted: probability(rng, 0.05),
            lookup_delay: delay(rng, Duration::from_secs(2)),
            lookup_failure: probability(rng, 0.1),
            no_memory: probability(rng, 0.2),
            ..Self::none()
        }
    }

    /// The same without the faults that make a call or a lookup fail: every connection can end
    /// cleanly, and soon.
    #[must_use]
    pub const fn harmless(mut self) -> Self {
        self.accept_exhausted = 0.0;
        self.accept_aborted = 0.0;
        self.connect_exhausted = 0.0;
        self.register_exhausted = 0.0;
        self.no_memory = 0.0;
        self.lookup_failure = 0.0;
        self
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

fn probability(rng: &mut Rng, most: f64) -> f64 {
    match rng.chance(0.5) {
        true => most * rng.below(1001) as f64 / 1000.0,
        false => 0.0,
    }
}

fn delay(rng: &mut Rng, most: Duration) -> Duration {
    match rng.chance(0.5) {
        true => Duration::from_nanos(rng.below(super::time::nanos(most))),
        false => Duration::ZERO,
    }
}
