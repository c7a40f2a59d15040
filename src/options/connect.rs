//! The options of an outgoing connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::{CloseMode, IdleDirection, KeepAlive, Settings, SystemOptions, millis};
use crate::error::Error;

/// Options of an outgoing connection.
///
/// ```
/// use finale::{ConnectOptions, Reactor};
/// use std::time::Duration;
/// let mut reactor = Reactor::new()?;
/// let options = ConnectOptions::default()
///     .connect_timeout(Duration::from_secs(5))
///     .deadline(Duration::from_secs(60));
/// let socket = reactor.connect("127.0.0.1:7000", options)?;
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    pub(crate) system: SystemOptions,
    pub(crate) settings: Settings,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) attempt_delay_ms: Option<u64>,
    pub(crate) total_ms: Option<u64>,
}

/// 250 ms: what RFC 8305 section 5 recommends. Longer than most handshakes, shorter than people
/// notice.
const ATTEMPT_DELAY_MS: u64 = 250;

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            system: SystemOptions::default(),
            settings: Settings::default(),
            local: None,
            attempt_delay_ms: Some(ATTEMPT_DELAY_MS),
            total_ms: None,
        }
    }
}

impl ConnectOptions {
    /// How long the lookup and all attempts together may take before the socket fails. A connect
    /// that finds the backlog of a Unix domain socket full is retried for this time. Default 30 s.
    /// With `None` a handshake ends when the kernel has repeated its SYN for about two minutes
    /// (tcp(7), `tcp_syn_retries`); a lookup and retries have no limit but a
    /// [deadline](Self::total_deadline).
    #[must_use]
    pub fn connect_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.connect_ms = limit.into().and_then(millis);
        self
    }

    /// How long an attempt to connect to one of several addresses runs before the next address
    /// joins the race (RFC 8305, "Happy Eyeballs"). The first connection that is established is
    /// kept, and the others are dropped. When an attempt fails, the next begins at once. Default
    /// 250 ms; with `None` the next begins only when all before it have failed.
    #[doc(alias = "autoSelectFamilyAttemptTimeout")]
    #[must_use]
    pub fn attempt_delay(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.attempt_delay_ms = delay.into().and_then(millis);
        self
    }

    /// The total deadline: the socket fails this long after the call of `connect`, whatever moves.
    /// It covers lookup, handshake, request and answer. [`deadline`](Self::deadline) counts from
    /// the established connection; with both the earlier one applies.
    /// [`Socket::set_deadline`](crate::Socket::set_deadline) replaces both. Default none.
    #[must_use]
    pub fn total_deadline(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.total_ms = limit.into().and_then(millis);
        self
    }

    /// The local address to connect from. With port 0 the socket gets a port of the kernel's range,
    /// which connections to other destinations may use too. Default: the kernel chooses address and
    /// port.
    #[must_use]
    pub const fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }
}

shared_setters!(ConnectOptions);
