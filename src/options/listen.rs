//! The options of a listener.

use std::time::Duration;

use super::{CloseMode, IdleDirection, KeepAlive, Settings, SystemOptions, millis};
use crate::error::Error;

/// Options of a listener and of the sockets that it accepts.
///
/// ```
/// use finale::{ListenOptions, Reactor};
/// use std::time::Duration;
/// let mut reactor = Reactor::new()?;
/// let options = ListenOptions::default()
///     .idle_timeout(Duration::from_secs(60))
///     .write_timeout(Duration::from_secs(30))
///     .max_connections(10_000);
/// reactor.listen("127.0.0.1:0", options)?;
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    pub(crate) system: SystemOptions,
    pub(crate) settings: Settings,
    pub(crate) backlog: u32,
    pub(crate) reuse_port: ReusePort,
    pub(crate) ipv6_only: bool,
    pub(crate) replace_stale: bool,
    pub(crate) max_connections: Option<usize>,
    pub(crate) overflow_policy: OverflowPolicy,
}

/// SO_REUSEPORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReusePort {
    Off,
    /// Set before bind(2), which succeeds if all sockets of the port have it.
    On,
    /// Set after bind(2), which fails if the port has a socket already.
    AfterBind,
}

/// What happens to a client that connects while the listener has its maximum of connections
/// ([`ListenOptions::max_connections`]).
///
/// ```
/// use finale::{ListenOptions, OverflowPolicy};
/// let options = ListenOptions::default().max_connections(1000).overflow_policy(OverflowPolicy::Admit(20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// It waits in the backlog, connected from its point of view, and is accepted when another
    /// connection is closed. The default: it is served late instead of never, and costs neither a
    /// descriptor nor a system call.
    #[default]
    Wait,
    /// It is accepted and reset, and [`Event::Overflow`](crate::Event::Overflow) is delivered. A
    /// load balancer can try another server at once, and a reset can't be taken for an empty
    /// answer.
    Reset,
    /// Up to this many more are accepted, for a short answer such as "too many clients": their
    /// [`Socket::is_overflow`](crate::Socket::is_overflow) is `true`, and the program ends them.
    /// They don't count for the maximum. Further ones wait. Set a
    /// [deadline](crate::Socket::set_deadline) for them: a client that does not close keeps its place
    /// for the close timeout.
    Admit(usize),
}

impl Default for ListenOptions {
    fn default() -> Self {
        // 4096 is Linux's own maximum (net.core.somaxconn); the 128 of mio and std overflow at the
        // first burst.
        Self {
            system: SystemOptions::default(),
            settings: Settings::default(),
            backlog: 4096,
            reuse_port: ReusePort::Off,
            ipv6_only: false,
            replace_stale: false,
            max_connections: None,
            overflow_policy: OverflowPolicy::Wait,
        }
    }
}

impl ListenOptions {
    /// How many connections may wait to be accepted. Default 4096; the kernel limits it to
    /// `net.core.somaxconn`.
    #[must_use]
    pub const fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// SO_REUSEPORT: several reactors share the port, and the kernel distributes the connections.
    /// Default off.
    #[doc(alias = "SO_REUSEPORT")]
    #[doc(alias = "UV_TCP_REUSEPORT")]
    #[must_use]
    pub const fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = if on { ReusePort::On } else { ReusePort::Off };
        self
    }

    /// For the first listener of a group: the port must be free, and others of the group follow.
    pub(crate) const fn reuse_port_after_bind(mut self) -> Self {
        self.reuse_port = ReusePort::AfterBind;
        self
    }

    /// On an IPv6 address: IPv6 only, so that the IPv4 port stays free. Default off: `[::]` serves
    /// both.
    #[doc(alias = "IPV6_V6ONLY")]
    #[doc(alias = "UV_TCP_IPV6ONLY")]
    #[must_use]
    pub const fn ipv6_only(mut self, on: bool) -> Self {
        self.ipv6_only = on;
        self
    }

    /// How many of its connections may exist at a time; each counts until its `close` is delivered.
    /// Default `None`: limited only by descriptors. `Some(0)` accepts no connection.
    #[doc(alias = "maxConnections")]
    #[must_use]
    pub fn max_connections(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.max_connections = limit.into();
        self
    }

    /// What happens to clients beyond [`max_connections`](ListenOptions::max_connections). Default
    /// [`OverflowPolicy::Wait`].
    #[must_use]
    pub const fn overflow_policy(mut self, policy: OverflowPolicy) -> Self {
        self.overflow_policy = policy;
        self
    }

    /// For a Unix domain socket: replaces a socket file that has no listener any more. Default off:
    /// an existing file is an address in use. A listener with a full queue is a listener. Two
    /// servers that start at the same moment may both replace the file.
    #[must_use]
    pub const fn replace_stale(mut self, on: bool) -> Self {
        self.replace_stale = on;
        self
    }
}

shared_setters!(ListenOptions);
