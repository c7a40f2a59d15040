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
    pub(crate) limit: Option<Duration>,
}

/// 1 s: a request that was in flight when the listener stopped arrives within this time on most
/// networks.
const GRACE: Duration = Duration::from_secs(1);
/// 30 s: systemd and Kubernetes wait at least this long between SIGTERM and SIGKILL.
const STOP: Duration = Duration::from_secs(30);

impl Default for StopOptions {
    fn default() -> Self {
        Self { grace: Some(GRACE), limit: Some(STOP) }
    }
}

impl StopOptions {
    /// How long an idle connection may stay open. A connection is idle while its last bytes, if
    /// any, were ours and are sent, unless the peer has finished or the program has
    /// [paused](crate::Socket::pause) it. After this time without a byte our side ends, as by
    /// [`end`](crate::Socket::end): later writes are refused. Where an answer comes in parts, or
    /// several requests wait at once, pause the socket until it has answered, or set the grace to
    /// `None` and end the sockets yourself. Idle timeouts are independent. Default 1 s.
    #[must_use]
    pub fn grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.grace = grace.into();
        self
    }

    /// How long the stop may take: connections that remain are destroyed then. Default 30 s; `None`
    /// waits for ever.
    #[must_use]
    pub fn limit(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }
}
