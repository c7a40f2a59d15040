//! The options of a listener ([`Listen`]), of an outgoing connection ([`Connect`]), and of both.
//!
//! Invariant: every default is set here and nowhere else, with its reason.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{BadOption, Error};
use crate::id::ListenerId;

/// How a connection is closed when both sides have finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Close {
    /// `close` is delivered when the peer's kernel has acknowledged our FIN, and with it every
    /// byte. The default: an ending that claims less is a guess.
    #[default]
    Confirmed,
    /// close(2) as soon as both sides have finished; our kernel delivers the rest. This saves
    /// system calls, and the program does not learn whether the last bytes arrived. Descriptors are
    /// close-on-exec, but a copy in a forked process that has not called exec(2) holds the FIN back
    /// until it is closed too.
    HandOff,
}

/// Which bytes restart the idle time of [`Listen::idle_timeout`] and
/// [`Socket::set_timeout`](crate::Socket::set_timeout).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Idle {
    /// Bytes of either direction. The default.
    #[default]
    Both,
    /// Only bytes of the peer, however much we send.
    Read,
    /// Only our bytes that the kernel or the peer takes, however much the peer sends. The time also
    /// runs while there is nothing to send.
    Write,
}

/// TCP keep-alive: our kernel probes the *kernel* of a silent peer. It detects a lost machine, but
/// not a frozen program. Times are rounded up to whole seconds, the kernel's unit (tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between unanswered probes.
    pub interval: Duration,
    /// Unanswered probes until the connection fails.
    pub count: u32,
}

impl KeepAlive {
    /// The first probe after `idle`, then one every 10 s; the connection fails after 6 unanswered
    /// probes. A lost peer is detected within `idle` and a minute; the kernel's own default takes
    /// more than two hours. No probe is sent while our bytes are unacknowledged: then the kernel's
    /// retransmissions decide, which takes about 15 minutes unless
    /// [`user_timeout`](crate::Listen::user_timeout) or a limit of finale is shorter.
    #[must_use]
    pub const fn after(idle: Duration) -> Self {
        Self { idle, interval: Duration::from_secs(10), count: 6 }
    }

    /// Checks the values against what tcp(7) allows.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for time in [self.idle, self.interval] {
            if time > Duration::from_secs(32_767) {
                return Err(Error::BadOption(BadOption::KeepAliveTime));
            }
        }
        if self.count == 0 || self.count > 127 {
            return Err(Error::BadOption(BadOption::KeepAliveCount));
        }
        Ok(())
    }
}

/// Options of the system's socket. Accepted connections inherit them from their listener, at no
/// cost per connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SystemOptions {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// Keep-alive, if on.
    pub keep_alive: Option<KeepAlive>,
    /// TCP_USER_TIMEOUT, if set.
    pub user_timeout: Option<Duration>,
    /// SO_SNDBUF, if set.
    pub send_buffer_bytes: Option<usize>,
    /// SO_RCVBUF, if set.
    pub receive_buffer_bytes: Option<usize>,
}

/// Options that finale implements. Sockets with equal settings share one copy (`table::settings`).
/// Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    pub(crate) listener: Option<ListenerId>,
    pub(crate) idle_ms: Option<u64>,
    pub(crate) idle_of: Idle,
    pub(crate) write_ms: Option<u64>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) connect_ms: Option<u64>,
    pub(crate) half_closed_ms: Option<u64>,
    pub(crate) linger_ms: Option<u64>,
    pub(crate) ending_ms: Option<u64>,
    pub(crate) high_water_bytes: usize,
    pub(crate) low_water_bytes: usize,
    pub(crate) limit_bytes: usize,
    pub(crate) close: Close,
    pub(crate) half_open: bool,
    pub(crate) early_notice: bool,
    pub(crate) paused: bool,
    /// Its listener is stopping: our side ends after it has been idle for this long.
    pub(crate) grace_ms: Option<u64>,
}

/// 30 s: longer than four repeated SYNs (at 1, 3, 7 and 15 s), shorter than a person waits.
const CONNECT: Duration = Duration::from_secs(30);
/// 5 min: a half-closed connection waits for an answer, and few answers take longer without a byte.
/// Without a limit a peer that never sends its FIN holds the descriptor for ever, since its kernel
/// answers keep-alive.
const HALF_CLOSED: Duration = Duration::from_secs(5 * 60);
/// 30 s without progress after our end: about eight retransmissions on a fast network.
const LINGER: Duration = Duration::from_secs(30);
/// 4 h: the default write limit of 16 MiB, and as much in the kernel, leave at 2.3 KB/s in this
/// time.
const ENDING: Duration = Duration::from_secs(4 * 60 * 60);
/// 128 KiB: two receive buffers. An echo or a proxy meets back-pressure when the peer is slow, and
/// not at every read.
const HIGH_WATER: usize = 128 * 1024;
/// 16 MiB: enough for whole answers, and little enough that a thousand peers that don't read are
/// noticed.
const LIMIT: usize = 16 * 1024 * 1024;

impl Default for SystemOptions {
    fn default() -> Self {
        // No Nagle: finale sends once per event, so small segments are intended.
        Self {
            nodelay: true,
            keep_alive: None,
            user_timeout: None,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listener: None,
            idle_ms: None,
            idle_of: Idle::Both,
            write_ms: None,
            deadline_ms: None,
            connect_ms: millis(CONNECT),
            half_closed_ms: millis(HALF_CLOSED),
            linger_ms: millis(LINGER),
            ending_ms: millis(ENDING),
            high_water_bytes: HIGH_WATER,
            low_water_bytes: 0,
            limit_bytes: LIMIT,
            close: Close::Confirmed,
            half_open: true,
            early_notice: false,
            paused: false,
            grace_ms: None,
        }
    }
}

/// Whole milliseconds, rounded up so that no timer is early; `None` beyond 584 million years.
pub(crate) fn millis(time: Duration) -> Option<u64> {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).ok()
}

/// Options of a listener and of the sockets that it accepts.
#[derive(Debug, Clone)]
pub struct Listen {
    pub(crate) system: SystemOptions,
    pub(crate) settings: Settings,
    pub(crate) backlog: u32,
    pub(crate) reuse_port: bool,
    pub(crate) ipv6_only: bool,
    pub(crate) replace_stale: bool,
    pub(crate) max_connections: Option<usize>,
    pub(crate) excess: Excess,
}

/// What happens to a client that connects while the listener has its maximum of connections
/// ([`Listen::max_connections`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Excess {
    /// It waits in the backlog, connected from its point of view, and is accepted when another
    /// connection is closed. The default: it is served late instead of never, and costs neither a
    /// descriptor nor a system call.
    #[default]
    Wait,
    /// It is accepted and reset, and [`Event::Dropped`](crate::Event::Dropped) is delivered. A load
    /// balancer can try another server at once, and a reset can't be taken for an empty answer.
    Drop,
}

impl Default for Listen {
    fn default() -> Self {
        // 4096 is Linux's own maximum (net.core.somaxconn); the 128 of mio and std overflow at the
        // first burst.
        Self {
            system: SystemOptions::default(),
            settings: Settings::default(),
            backlog: 4096,
            reuse_port: false,
            ipv6_only: false,
            replace_stale: false,
            max_connections: None,
            excess: Excess::Wait,
        }
    }
}

/// Options of an outgoing connection.
#[derive(Debug, Clone)]
pub struct Connect {
    pub(crate) system: SystemOptions,
    pub(crate) settings: Settings,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) attempt_delay_ms: Option<u64>,
    pub(crate) total_ms: Option<u64>,
}

/// 250 ms: what RFC 8305 section 5 recommends. Longer than most handshakes, shorter than people
/// notice.
const ATTEMPT_DELAY_MS: u64 = 250;

impl Default for Connect {
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

impl Listen {
    /// How many connections may wait to be accepted. Default 4096; the kernel limits it to
    /// `net.core.somaxconn`.
    #[must_use]
    pub const fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// SO_REUSEPORT: several reactors share the port, and the kernel distributes the connections.
    /// Default off.
    #[must_use]
    pub const fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// On an IPv6 address: IPv6 only, so that the IPv4 port stays free. Default off: `[::]` serves
    /// both.
    #[must_use]
    pub const fn ipv6_only(mut self, on: bool) -> Self {
        self.ipv6_only = on;
        self
    }
}

impl Listen {
    /// How many of its connections may exist at a time; each counts until its `close` is delivered.
    /// Default `None`: limited only by descriptors. `Some(0)` accepts no connection.
    #[must_use]
    pub const fn max_connections(mut self, limit: Option<usize>) -> Self {
        self.max_connections = limit;
        self
    }

    /// What happens to clients beyond [`max_connections`](Listen::max_connections). Default
    /// [`Excess::Wait`].
    #[must_use]
    pub const fn excess(mut self, excess: Excess) -> Self {
        self.excess = excess;
        self
    }
}

/// How a listener stops ([`Reactor::stop_listener`](crate::Reactor::stop_listener)): the limits of
/// the connections that it has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    pub(crate) grace: Option<Duration>,
    pub(crate) limit: Option<Duration>,
}

/// 1 s: a request that was in flight when the listener stopped arrives within this time on most
/// networks.
const GRACE: Duration = Duration::from_secs(1);
/// 30 s: systemd and Kubernetes wait at least this long between SIGTERM and SIGKILL.
const STOP: Duration = Duration::from_secs(30);

impl Default for Stop {
    fn default() -> Self {
        Self { grace: Some(GRACE), limit: Some(STOP) }
    }
}

impl Stop {
    /// How long an idle connection may stay open. A connection is idle while its last bytes, if
    /// any, were ours and are sent, unless the peer has finished or the program has
    /// [paused](crate::Socket::pause) it. After this time without a byte our side ends, as by
    /// [`end`](crate::Socket::end): later writes are refused. Where an answer comes in parts, or
    /// several requests wait at once, pause the socket until it has answered, or set the grace to
    /// `None` and end the sockets yourself. Idle timeouts are independent. Default 1 s.
    #[must_use]
    pub const fn grace(mut self, grace: Option<Duration>) -> Self {
        self.grace = grace;
        self
    }

    /// How long the stop may take: connections that remain are destroyed then. Default 30 s; `None`
    /// waits for ever.
    #[must_use]
    pub const fn limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }
}

impl Listen {
    /// For a Unix domain socket: replaces a socket file that has no listener any more. Default off:
    /// an existing file is an address in use. A listener with a full queue is a listener. Two
    /// servers that start at the same moment may both replace the file.
    #[must_use]
    pub const fn replace_stale(mut self, on: bool) -> Self {
        self.replace_stale = on;
        self
    }
}

impl Connect {
    /// How long the lookup and all attempts together may take before the socket fails. A connect
    /// that finds the backlog of a Unix domain socket full is retried for this time. Default 30 s;
    /// with `None` the kernel decides, which repeats its SYN for about two minutes (tcp(7),
    /// `tcp_syn_retries`).
    #[must_use]
    pub fn connect_timeout(mut self, limit: Option<Duration>) -> Self {
        self.settings.connect_ms = limit.and_then(millis);
        self
    }

    /// How long an attempt to connect to one of several addresses runs before the next address
    /// joins the race (RFC 8305, "Happy Eyeballs"). The first connection that is established is
    /// kept, and the others are dropped. When an attempt fails, the next begins at once. Default
    /// 250 ms; with `None` the next begins only when all before it have failed.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Option<Duration>) -> Self {
        self.attempt_delay_ms = delay.and_then(millis);
        self
    }

    /// The total deadline: the socket fails this long after the call of `connect`, whatever moves.
    /// It covers lookup, handshake, request and answer. [`deadline`](Self::deadline) counts from
    /// the established connection; with both the earlier one applies.
    /// [`Socket::set_deadline`](crate::Socket::set_deadline) replaces both. Default none.
    #[must_use]
    pub fn total_deadline(mut self, limit: Option<Duration>) -> Self {
        self.total_ms = limit.and_then(millis);
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

/// The setters of both a listener (for the connections that it accepts) and an outgoing connection.
macro_rules! shared_setters {
    ($options:ident) => {
        impl $options {
            /// TCP_NODELAY: small segments are sent at once, without Nagle's algorithm. Default on.
            #[must_use]
            pub const fn nodelay(mut self, on: bool) -> Self {
                self.system.nodelay = on;
                self
            }

            /// TCP keep-alive. Default off. It detects a machine that is lost while nothing is in
            /// flight; with bytes in flight `user_timeout` does.
            #[must_use]
            pub const fn keep_alive(mut self, times: KeepAlive) -> Self {
                self.system.keep_alive = Some(times);
                self
            }

            /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged, a closed window
            /// included, before the kernel gives the connection up (RFC 5482). Rounded up to whole
            /// milliseconds. Default: the kernel's own, about 15 minutes.
            #[must_use]
            pub const fn user_timeout(mut self, limit: Duration) -> Self {
                self.system.user_timeout = Some(limit);
                self
            }

            /// SO_SNDBUF in bytes; the kernel doubles the number (socket(7)). Default: the kernel's
            /// own.
            #[must_use]
            pub const fn send_buffer(mut self, bytes: usize) -> Self {
                self.system.send_buffer_bytes = Some(bytes);
                self
            }

            /// SO_RCVBUF in bytes; the kernel doubles the number (socket(7)). Default: the kernel's
            /// own.
            #[must_use]
            pub const fn receive_buffer(mut self, bytes: usize) -> Self {
                self.system.receive_buffer_bytes = Some(bytes);
                self
            }

            /// The idle timeout: `timeout` is delivered once after no byte has moved for this long.
            /// Nothing is closed. It applies while the connection is established, except in the
            /// states `Lingering` and `Closing`. Default none: the meaning of a silence depends on
            /// the protocol. A peer that sends a byte now and then is never idle, see
            /// [`deadline`](Self::deadline), nor is one that still takes what our kernel holds for
            /// it, see [`linger`](Self::linger).
            #[must_use]
            pub fn idle_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.idle_ms = limit.and_then(millis);
                self
            }

            /// Which bytes restart the idle time. Default [`Idle::Both`].
            #[must_use]
            pub const fn idle_of(mut self, bytes: Idle) -> Self {
                self.settings.idle_of = bytes;
                self
            }

            /// The deadline: the socket fails this long after `connection` or `connect`, whatever
            /// moves. It ends a peer that sends its request byte by byte.
            /// [`Socket::set_deadline`](crate::Socket::set_deadline) replaces it for the next
            /// request, or removes it when the request is complete. Default none: how long a
            /// request may take depends on the protocol.
            #[must_use]
            pub fn deadline(mut self, limit: Option<Duration>) -> Self {
                self.settings.deadline_ms = limit.and_then(millis);
                self
            }

            /// The write timeout: the socket fails when queued bytes have waited for this long and
            /// the peer has taken none. It starts with the first byte that waits. After `end()` the
            /// [close timeout](Self::linger) applies instead. Default none: a peer may pause, and
            /// the [write limit](Self::write_limit) bounds its cost.
            #[must_use]
            pub fn write_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.write_ms = limit.and_then(millis);
                self
            }

            /// The half-closed timeout: the socket fails when one side has finished and no byte has
            /// moved for this long. It also applies to a paused socket whose peer has ended. Bytes
            /// in either direction restart it, and so do bytes that the peer takes from our kernel.
            /// Default 5 min; with `None` a peer that never finishes is bounded only by the [ending
            /// timeout](Self::ending_timeout).
            #[must_use]
            pub fn half_closed_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.half_closed_ms = limit.and_then(millis);
                self
            }

            /// The close timeout. After our `end()` the socket fails when the peer has taken no
            /// byte for this long, or has not acknowledged our FIN, or after `discard()` has not
            /// sent its FIN. Bytes that the peer sends don't restart it. Default 30 s. Without
            /// `discard()` the half-closed timeout applies from our FIN until the peer's FIN.
            ///
            /// A byte is taken when the peer's kernel acknowledges it. Our own kernel may hold
            /// megabytes, for which a slow peer needs longer than this limit. On Linux finale
            /// therefore queries the kernel (sock_diag(7)) before this or another limit of silence
            /// strikes, and the limit counts from the last byte that was taken. Without a result (a
            /// Unix domain socket, another network namespace, some sandboxes, another system)
            /// finale tries to write what waits in its queue once more, and bytes that the kernel
            /// accepts restart the limit. If our FIN is with the kernel already, the connection is
            /// closed with close(2) instead of a reset, so that the kernel can deliver the rest.
            ///
            /// (SO_LINGER is never used with a time: it would block the loop in close(2).)
            #[must_use]
            pub fn linger(mut self, limit: Option<Duration>) -> Self {
                self.settings.linger_ms = limit.and_then(millis);
                self
            }

            /// The ending timeout: the socket fails when this time has passed since the peer's FIN
            /// arrived or `end()` was called, whichever was first. Nothing restarts it. It bounds
            /// what no limit of silence can: a peer that sends or takes a byte now and then.
            /// Default 4 h, which at 2.3 KB/s is enough for all that can wait in queue and kernel.
            /// If half-closing clients download more than that, set more, or `None`.
            #[must_use]
            pub fn ending_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.ending_ms = limit.and_then(millis);
                self
            }

            /// Queued bytes at which `write` returns [`Queue::Full`](crate::Queue::Full). Default
            /// 128 KiB.
            #[must_use]
            pub const fn high_water_mark(mut self, bytes: usize) -> Self {
                self.settings.high_water_bytes = bytes;
                self
            }

            /// Queued bytes at which [`Event::Drain`](crate::Event::Drain) is delivered after the
            /// queue was full. Default 0: empty. A higher mark keeps the peer busy while the
            /// program fetches more.
            #[must_use]
            pub const fn low_water_mark(mut self, bytes: usize) -> Self {
                self.settings.low_water_bytes = bytes;
                self
            }

            /// Queued bytes at which `write` refuses more. The queue exceeds it by at most one
            /// write. Default 16 MiB.
            #[must_use]
            pub const fn write_limit(mut self, bytes: usize) -> Self {
                self.settings.limit_bytes = bytes;
                self
            }

            /// How the connection is closed when both sides have finished. Default
            /// [`Close::Confirmed`].
            #[must_use]
            pub const fn close(mut self, close: Close) -> Self {
                self.settings.close = close;
                self
            }

            /// With `false` our side ends by itself after the `end` event was handled, as by
            /// default in Node. Default `true`: half-close.
            #[must_use]
            pub const fn allow_half_open(mut self, allow: bool) -> Self {
                self.settings.half_open = allow;
                self
            }

            /// Whether [`Event::PeerEnded`](crate::Event::PeerEnded) is delivered in all cases, and
            /// not only for a paused socket that is dead. Default off.
            #[must_use]
            pub const fn early_notice(mut self, on: bool) -> Self {
                self.settings.early_notice = on;
                self
            }

            /// Whether the socket starts paused: nothing is read until `resume`. Default off.
            #[must_use]
            pub const fn paused(mut self, on: bool) -> Self {
                self.settings.paused = on;
                self
            }

            /// Refuses values that the system can't set.
            pub(crate) fn check(&self) -> Result<(), Error> {
                self.system.check()?;
                self.settings.check()
            }
        }
    };
}

shared_setters!(Listen);
shared_setters!(Connect);

impl SystemOptions {
    fn check(&self) -> Result<(), Error> {
        if let Some(times) = &self.keep_alive {
            times.check()?;
        }
        if let Some(limit) = self.user_timeout
            && !millis(limit).is_some_and(|ms| (1..=i32::MAX as u64).contains(&ms))
        {
            return Err(Error::BadOption(BadOption::UserTimeout));
        }
        for bytes in [self.send_buffer_bytes, self.receive_buffer_bytes].into_iter().flatten() {
            if bytes == 0 || bytes > 1 << 30 {
                return Err(Error::BadOption(BadOption::BufferSize));
            }
        }
        Ok(())
    }
}

impl Settings {
    const fn check(&self) -> Result<(), Error> {
        if self.high_water_bytes == 0 || self.high_water_bytes > self.limit_bytes {
            return Err(Error::BadOption(BadOption::HighWaterMark));
        }
        if self.low_water_bytes >= self.high_water_bytes {
            return Err(Error::BadOption(BadOption::LowWaterMark));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
