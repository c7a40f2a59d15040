//! How a listener stops.

use std::time::Duration;

/// How a listener stops ([`Reactor::stop_listener`](crate::Reactor::stop_listener)): the limits of
/// the connections that it has accepted.
///
/// ```
/// use finale::{ListenOptions, Reactor, StopOptions};
/// use std::time::Duration;
/// let mut reactor = Reactor::new()?;
/// let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
/// let stop = StopOptions::default().grace(Duration::from_secs(5)).limit(Duration::from_secs(20));
/// reactor.stop_listener(listener.id, stop)?;
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopOptions {
    pub(crate) grace: Option<Duration>,
    pub(crate) spread: Duration,
    pub(crate) accept_backlog: bool,
    pub(crate) limit: Option<Duration>,
}

/// 1 s: a request that was in flight when the listener stopped arrives within this time on most
/// networks.
const GRACE: Duration = Duration::from_secs(1);
/// 30 s: systemd and Kubernetes wait at least this long between SIGTERM and SIGKILL.
const STOP: Duration = Duration::from_secs(30);

impl Default for StopOptions {
    fn default() -> Self {
        Self { grace: Some(GRACE), spread: Duration::ZERO, accept_backlog: true, limit: Some(STOP) }
    }
}

impl StopOptions {
    /// How long an idle connection may stay open. A connection is idle while its last bytes, if
    /// any, were ours and are sent, unless the peer has finished or the program has
    /// [paused](crate::Socket::pause) it. After this time without a byte our side ends, as by
    /// [`end`](crate::Socket::end): later writes are refused. A paused connection that is dead
    /// ([`PeerEnd::Reset`](crate::PeerEnd)) gets its `error` after this time, and its unread bytes
    /// are dropped. Where an answer comes in parts, or several requests wait at once, pause the
    /// socket until it has answered, or set the grace to `None` and end the sockets yourself. Idle
    /// timeouts are independent. Default 1 s.
    #[must_use]
    pub fn grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.grace = grace.into();
        self
    }

    /// Distributes the ends of connections that were idle when the stop began evenly over this time
    /// after the [grace](Self::grace): a thousand clients of a keep-alive protocol that lose their
    /// connections together connect again together, to the servers that are left. The others, which
    /// are busy then, have such shares too, after the grace that follows their last byte. A share is
    /// rounded down to a 256th of this time. Connections that the stop still accepts end after the
    /// grace alone. Without a grace it changes nothing. Default zero.
    #[must_use]
    pub const fn spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }

    /// Whether connections that wait in the backlog are accepted first. Default on: otherwise the
    /// kernel would reset them. Switch it off if another process has the listening socket and
    /// accepts from it, as after a restart: then the descriptor is closed at once, and the
    /// connections are the other process's.
    #[must_use]
    pub const fn accept_backlog(mut self, on: bool) -> Self {
        self.accept_backlog = on;
        self
    }

    /// How long the stop may take: connections that remain are destroyed then. Default 30 s; `None`
    /// waits for ever. It is not for outgoing connections, such as the other sides of
    /// [`Pipes`](crate::Pipes).
    #[must_use]
    pub fn limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }
}
