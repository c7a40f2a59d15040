//! What a pool can be told, and what it tells of itself.

use std::time::Duration;

/// How a [`Pool`](super::Pool) keeps its sockets.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    pub(super) size: usize,
    pub(super) max_idle: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    pub(super) wait_limit: Option<Duration>,
    pub(super) max_waiting: usize,
    pub(super) back_off: (Duration, Duration),
    pub(super) seed: Option<u64>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            size: 4,
            max_idle: Some(Duration::from_secs(50)),
            max_age: Some(Duration::from_secs(3600)),
            wait_limit: Some(Duration::from_secs(30)),
            max_waiting: 1024,
            back_off: (Duration::from_millis(100), Duration::from_secs(30)),
            seed: None,
        }
    }
}

impl PoolOptions {
    /// How many sockets it keeps connected, lent ones included; 0 is taken for 1. Default 4.
    #[must_use]
    pub const fn size(mut self, sockets: usize) -> Self {
        self.size = if sockets == 0 { 1 } else { sockets };
        self
    }

    /// How long a socket may lie unused before it is ended and replaced. Default 50 s: most servers
    /// and balancers end a silent connection after a minute, and whoever ends it first is not
    /// surprised by the other. `None`: for ever.
    #[must_use]
    pub fn max_idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.max_idle = limit.into();
        self
    }

    /// How old a socket may become before it is ended and replaced, once it is not lent. Default 1
    /// h: so that a name which has moved, or a backend that came later, is noticed at last. `None`:
    /// as old as it likes.
    #[must_use]
    pub fn max_age(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.max_age = limit.into();
        self
    }

    /// How long a request may wait for a socket. Default 30 s; `None`: for ever.
    #[must_use]
    pub fn wait_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.wait_limit = limit.into();
        self
    }

    /// How many may wait for a socket at once. Default 1024: more would wait longer than anybody's
    /// patience.
    #[must_use]
    pub const fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// How long the pool waits after a connection could not be opened: first `first`, then twice as
    /// long each time, and `most` at the most; from half of it to all of it, by chance, so that a
    /// thousand clients don't come back at one moment. Meanwhile one socket at a time is tried.
    /// Default 100 ms to 30 s.
    #[must_use]
    pub const fn back_off(mut self, first: Duration, most: Duration) -> Self {
        self.back_off = (first, most);
        self
    }

    /// What the chance of the back-off follows from, for runs that are to be repeated. Default:
    /// another one for each pool.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// What a pool has done, and what it has: [`Pool::stats`](super::Pool::stats). The first part only
/// grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// Sockets that were asked for.
    pub asked: u64,
    /// How many of them were granted.
    pub granted: u64,
    /// How many waited for too long, or were refused because too many waited.
    pub refused: u64,
    /// Connections that were begun.
    pub begun: u64,
    /// How many of them were never there.
    pub failed: u64,
    /// Unused sockets that were lost: the peer has ended, reset, or said something that nobody had
    /// asked for.
    pub lost_unused: u64,
    /// Lent sockets that were lost.
    pub lost_lent: u64,
    /// Sockets that were ended because they were too old, or unused for too long.
    pub expired: u64,
    /// Sockets on their way.
    pub opening: usize,
    /// Sockets that are ready.
    pub ready: usize,
    /// Sockets that are lent.
    pub lent: usize,
    /// Requests that wait.
    pub waiting: usize,
}
