//! The options of a pool, and its counts.

use std::time::Duration;

use super::member::Member;

/// The shortest limit of an unused socket: an end in less time would come before a request, and the
/// pool would connect to a server that works more often than to one that is down.
const SHORTEST: Duration = Duration::from_millis(100);

/// Options of a [`Pool`](super::Pool).
///
/// ```
/// use finale::{ConnectOptions, Pool, PoolOptions};
/// use std::time::Duration;
/// let options = PoolOptions::default().size(8).wait_limit(Duration::from_secs(5));
/// let pool = Pool::new("127.0.0.1:7000", ConnectOptions::default(), options)?;
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// How many sockets it keeps connected, leased ones included. Together with those that are
    /// ending, at most twice as many are open. Beyond that, one that was ended while it was unused is
    /// reset, and if there is none, the next one waits for a `close`. 0 means 1. Default 4.
    #[must_use]
    pub const fn size(mut self, sockets: usize) -> Self {
        self.size = if sockets == 0 { 1 } else { sockets };
        self
    }

    /// How long a socket may stay unused before it is ended and replaced. Default 50 s: most
    /// servers and load balancers end an idle connection after a minute, and a request could meet
    /// that end. The actual limit of each socket is random between half of that and all of it, so
    /// that sockets that were opened together, by one client or by a thousand, are not replaced
    /// together. `None`: without limit. Less than 100 ms counts as 100 ms.
    #[must_use]
    pub fn max_idle(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.max_idle = limit.into().map(|limit| limit.max(SHORTEST));
        self
    }

    /// The age at which a socket is ended and replaced, when it is not leased. Default 1 h, so that
    /// a new address of the name, or a new backend, is used. It is random as
    /// [`max_idle`](Self::max_idle) is. `None`: without limit. Less than 100 ms counts as 100 ms; to
    /// use each connection once, [`detach`](super::Pool::detach) it.
    #[must_use]
    pub fn max_age(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.max_age = limit.into().map(|limit| limit.max(SHORTEST));
        self
    }

    /// How long a request may wait for a socket. A request for which a socket is ready does not
    /// wait, however late its reply is taken. Default 30 s. `None`: without limit.
    #[must_use]
    pub fn wait_limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.wait_limit = limit.into();
        self
    }

    /// How many requests may wait for a socket at a time. A request for which a socket is ready
    /// does not wait, so 0 leases only what is ready. Default 1024.
    #[must_use]
    pub const fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// The delay after a connection could not be opened: `first`, then twice as long each time, and
    /// at most `most`. The actual delay is random between half of that and all of it, so that a
    /// thousand clients don't retry at the same moment. During back-off the pool opens one socket
    /// at a time.
    ///
    /// Sockets that were lost while the server is up are replaced one after another, after a random
    /// time up to `first` each, because a server that is restarted drops all its clients at the
    /// same moment. A request that waits for a socket does not wait for that time. `first` counts
    /// as at most `most`, and `most` as at most 365 days. Default 100 ms to 30 s.
    #[must_use]
    pub const fn back_off(mut self, first: Duration, most: Duration) -> Self {
        self.back_off = (first, most);
        self
    }

    /// The seed of the random delays, for runs that have to be repeatable. Default: a different one
    /// for each pool. On a [simulated network](crate#testing) it follows from the network's seed.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Counts of a pool: [`Pool::stats`](super::Pool::stats). `opening`, `ready`, `leased`, `leaving`
/// and `waiting` are a snapshot; the others only grow.
///
/// ```
/// use finale::{ConnectOptions, Pool, PoolOptions};
/// let pool = Pool::new("127.0.0.1:7000", ConnectOptions::default(), PoolOptions::default())?;
/// let stats = pool.stats();
/// assert_eq!((stats.requested, stats.granted, stats.failed), (0, 0, 0));
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// Requests for a socket.
    pub requested: u64,
    /// Requests that got one.
    pub granted: u64,
    /// Requests that waited for too long, or were refused because too many waited or the pool was
    /// closed.
    pub refused: u64,
    /// Connections that were started.
    pub started: u64,
    /// Connections that were never established.
    pub failed: u64,
    /// Unused sockets that were lost: the peer has ended, reset, or sent bytes without a request.
    pub lost_unused: u64,
    /// Leased sockets that were lost.
    pub lost_leased: u64,
    /// Sockets that were ended because they were too old, or unused for too long.
    pub expired: u64,
    /// Sockets that are connecting.
    pub opening: usize,
    /// Sockets that are ready.
    pub ready: usize,
    /// Sockets that are leased.
    pub leased: usize,
    /// Sockets that are ending.
    pub leaving: usize,
    /// Requests that have no reply yet.
    pub waiting: usize,
}

impl PoolStats {
    /// Changes the count to which a member belongs.
    pub(super) fn count(&mut self, member: Option<&Member>, change: impl FnOnce(&mut usize)) {
        match member {
            Some(Member::Opening) => change(&mut self.opening),
            Some(Member::Ready(_)) => change(&mut self.ready),
            Some(Member::Leased(_)) => change(&mut self.leased),
            Some(Member::Leaving | Member::Spent) => change(&mut self.leaving),
            None => {}
        }
    }
}
