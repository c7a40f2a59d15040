//! What can be chosen: per listener ([`Listen`]), per outgoing connection ([`Connect`]), and what both share.
//!
//! Invariant: a default is set here and nowhere else, each with its reason.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{BadOption, Error};
use crate::id::ListenerId;

/// How a connection that both sides have finished is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Close {
    /// `close` comes when the peer's kernel has acknowledged our FIN, and with it every byte. The default: an ending that
    /// says less is a guess.
    #[default]
    Confirmed,
    /// close(2) as soon as both sides have finished; the kernel delivers the rest alone. Fewer system calls; nobody
    /// learns whether the last bytes arrived. Descriptors are close-on-exec; but a copy in a process that was forked and has
    /// not called exec(2) holds the FIN back until it is closed too.
    HandOff,
}

/// Which bytes break a silence, for [`Listen::idle_timeout`] and [`Socket::set_timeout`](crate::Socket::set_timeout).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Idle {
    /// Any, in either direction. The default.
    #[default]
    Both,
    /// Those of the peer only: it is silent, however much we send.
    Read,
    /// Ours only: its kernel takes nothing, however much it sends; also when there is nothing to send.
    Write,
}

/// TCP keep-alive: asks a silent peer's *kernel* whether it is there. It finds a lost machine, not a frozen program.
/// Times are rounded up to whole seconds, the kernel's unit (tcp(7)).
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
    /// First probe after `idle`, then every 10 s, dead after 6 unanswered: a lost peer is noticed within `idle` and a
    /// minute, where the kernel's own default takes more than two hours. While bytes of ours are unacknowledged no probe is
    /// sent: then the kernel's retransmissions decide, a quarter of an hour or so, unless
    /// [`user_timeout`](crate::Listen::user_timeout) or a limit of ours is shorter.
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

/// Options of the system's socket. Set on a listener they are inherited by what it accepts, at no cost per connection.
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

/// Options that finale itself keeps, shared by all sockets that have the same (see `table::settings`). Times in ms.
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
    /// Its listener stops: after a silence of this length our side ends.
    pub(crate) grace_ms: Option<u64>,
}

/// 30 s: longer than four repeated SYNs (at 1, 3, 7 and 15 s), shorter than a person waits.
const CONNECT: Duration = Duration::from_secs(30);
/// 5 min: a half-closed connection is waiting for an answer, and answers that take longer without a byte are rare; without
/// a limit a peer that forgets its FIN holds the descriptor for ever, since its kernel answers keep-alive.
const HALF_CLOSED: Duration = Duration::from_secs(5 * 60);
/// 30 s without progress after we have ended: some eight retransmissions on a fast network.
const LINGER: Duration = Duration::from_secs(30);
/// 4 h: the default write limit of 16 MiB in the queue, and as much in the kernel, leave at 2.3 KB/s in this time.
const ENDING: Duration = Duration::from_secs(4 * 60 * 60);
/// 128 KiB: two receive buffers, so that an echo or a proxy meets back-pressure when the peer is slow, not at every read.
const HIGH_WATER: usize = 128 * 1024;
/// 16 MiB: enough for whole answers, small enough that a thousand peers that don't read are noticed.
const LIMIT: usize = 16 * 1024 * 1024;

impl Default for SystemOptions {
    fn default() -> Self {
        // No Nagle: finale sends once per event, so small segments are meant.
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

/// Whole milliseconds, rounded up so that no timer is early; `None` for a time beyond 584 million years.
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

/// What becomes of a client who comes while a listener has as many connections as it may
/// ([`Listen::max_connections`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Excess {
    /// It waits in the backlog, connected as far as it can see, and is accepted when another has gone. The default: it is
    /// served late instead of never, and costs neither a descriptor nor a call.
    #[default]
    Wait,
    /// It is accepted and reset, and told as [`Event::Dropped`](crate::Event::Dropped): a balancer in front learns at once that
    /// it should go elsewhere, and nobody takes the reset for an empty answer.
    Drop,
}

impl Default for Listen {
    fn default() -> Self {
        // 4096 is Linux's own ceiling (net.core.somaxconn); mio's and std's 128 overflows at the first burst.
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
}

/// 250 ms: what RFC 8305 section 5 recommends. Longer than a handshake around most of the world, shorter than a person notices.
const ATTEMPT_DELAY_MS: u64 = 250;

impl Default for Connect {
    fn default() -> Self {
        Self {
            system: SystemOptions::default(),
            settings: Settings::default(),
            local: None,
            attempt_delay_ms: Some(ATTEMPT_DELAY_MS),
        }
    }
}

impl Listen {
    /// How many connections may wait to be accepted. Default 4096; the kernel cuts it to `net.core.somaxconn`.
    #[must_use]
    pub const fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// SO_REUSEPORT: several reactors share the port, the kernel spreads connections over them. Default off.
    #[must_use]
    pub const fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// On an IPv6 address: IPv6 only, the IPv4 port stays free. Default off: `[::]` serves both.
    #[must_use]
    pub const fn ipv6_only(mut self, on: bool) -> Self {
        self.ipv6_only = on;
        self
    }
}

impl Listen {
    /// How many of its connections may live at once; each counts until its `close` was told. Default `None`: no limit but the
    /// descriptors. `Some(0)` accepts nobody.
    #[must_use]
    pub const fn max_connections(mut self, limit: Option<usize>) -> Self {
        self.max_connections = limit;
        self
    }

    /// What becomes of those beyond [`max_connections`](Listen::max_connections). Default [`Excess::Wait`].
    #[must_use]
    pub const fn excess(mut self, excess: Excess) -> Self {
        self.excess = excess;
        self
    }
}

/// How a listener stops ([`Reactor::stop_listener`](crate::Reactor::stop_listener)): what becomes of the connections that it
/// has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    pub(crate) grace: Option<Duration>,
    pub(crate) limit: Option<Duration>,
}

/// 1 s: a request that was on its way when we stopped has come by then, on any network that people wait for.
const GRACE: Duration = Duration::from_secs(1);
/// 30 s: what service managers give a program between SIGTERM and SIGKILL, or less than it.
const STOP: Duration = Duration::from_secs(30);

impl Default for Stop {
    fn default() -> Self {
        Self { grace: Some(GRACE), limit: Some(STOP) }
    }
}

impl Stop {
    /// How long an idle connection may go on. Idle is one on which no byte has moved for this long, and on which the last bytes, if there
    /// were any, were ours: the peer has its answer and asks for nothing. Then our side ends, as by
    /// [`end`](crate::Socket::end), and the peer has its usual time to finish. Whoever has sent something that was not answered yet is
    /// not idle, however long the answer takes. Default 1 s; `None` leaves it to the program to end its sockets.
    #[must_use]
    pub const fn grace(mut self, grace: Option<Duration>) -> Self {
        self.grace = grace;
        self
    }

    /// How long all of it may take: whoever lives then is destroyed. Default 30 s; `None` waits for ever.
    #[must_use]
    pub const fn limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }
}

impl Listen {
    /// For a Unix domain socket: replaces a socket file that has no listener any more. Default off: an existing
    /// file is an address in use. A listener with a full queue is a listener. Two servers that start at the
    /// same moment may both replace the file.
    #[must_use]
    pub const fn replace_stale(mut self, on: bool) -> Self {
        self.replace_stale = on;
        self
    }
}

impl Connect {
    /// How long the look-up and all attempts together may take before the socket fails. Default 30 s; `None` leaves it
    /// to the kernel, which repeats its SYN for about two minutes (tcp(7), `tcp_syn_retries`).
    #[must_use]
    pub fn connect_timeout(mut self, limit: Option<Duration>) -> Self {
        self.settings.connect_ms = limit.and_then(millis);
        self
    }

    /// How long an attempt to connect to one of several addresses is alone, before the next address joins it (RFC 8305, "Happy
    /// Eyeballs"): the first that is connected is kept, the others are dropped. One that fails lets the next begin at once. Default
    /// 250 ms; with `None` the next begins only when all before it have failed.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Option<Duration>) -> Self {
        self.attempt_delay_ms = delay.and_then(millis);
        self
    }

    /// The local address to connect from. With port 0 the socket gets a port of the kernel's range, perhaps one
    /// that connections to other destinations have. Default: the kernel chooses address and port.
    #[must_use]
    pub const fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local = Some(addr);
        self
    }
}

/// The setters that a listener (for the sockets it accepts) and an outgoing connection have in common.
macro_rules! shared_setters {
    ($options:ident) => {
        impl $options {
            /// TCP_NODELAY: small segments leave at once (Nagle's algorithm off). Default on.
            #[must_use]
            pub const fn nodelay(mut self, on: bool) -> Self {
                self.system.nodelay = on;
                self
            }

            /// TCP keep-alive with its times. Default off. It sees a machine that is lost while nothing is in flight; with bytes
            /// in flight `user_timeout` does.
            #[must_use]
            pub const fn keep_alive(mut self, times: KeepAlive) -> Self {
                self.system.keep_alive = Some(times);
                self
            }

            /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged, a closed window included,
            /// before the kernel gives the connection up (RFC 5482). Rounded up to whole milliseconds.
            /// Default: the kernel's own, about 15 minutes.
            #[must_use]
            pub const fn user_timeout(mut self, limit: Duration) -> Self {
                self.system.user_timeout = Some(limit);
                self
            }

            /// SO_SNDBUF, in bytes as the kernel counts them (it doubles the number, socket(7)). Default: the kernel's.
            #[must_use]
            pub const fn send_buffer(mut self, bytes: usize) -> Self {
                self.system.send_buffer_bytes = Some(bytes);
                self
            }

            /// SO_RCVBUF, likewise.
            #[must_use]
            pub const fn receive_buffer(mut self, bytes: usize) -> Self {
                self.system.receive_buffer_bytes = Some(bytes);
                self
            }

            /// The idle time after which `timeout` is told; nothing is closed. Default none: what a silence means is the
            /// protocol's to say. A peer that sends a byte now and then is never idle; see [`deadline`](Self::deadline). Nor is one that
            /// still takes what our kernel holds for it ([`linger`](Self::linger) says how that is known).
            #[must_use]
            pub fn idle_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.idle_ms = limit.and_then(millis);
                self
            }

            /// Which bytes break a silence. Default [`Idle::Both`].
            #[must_use]
            pub const fn idle_of(mut self, bytes: Idle) -> Self {
                self.settings.idle_of = bytes;
                self
            }

            /// How long after `connection` or `connect` the socket may live before it fails, whatever moves: a peer that drips its
            /// request byte by byte is done for. [`Socket::set_deadline`](crate::Socket::set_deadline) gives it another one, for
            /// the next request, or none once the request is there. Default none: how long a request may take is the protocol's to
            /// say.
            #[must_use]
            pub fn deadline(mut self, limit: Option<Duration>) -> Self {
                self.settings.deadline_ms = limit.and_then(millis);
                self
            }

            /// The write timeout: how long queued bytes may wait without the peer's kernel taking any, before the
            /// socket fails. After `end()` the [close timeout](Self::linger) rules. Default none: a peer may rest, and
            /// what it can cost is bounded by the [write limit](Self::write_limit).
            #[must_use]
            pub fn write_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.write_ms = limit.and_then(millis);
                self
            }

            /// How long a half-closed socket may be silent before it fails. Every byte starts the time again, also one that the
            /// peer takes of those that our kernel holds. Default
            /// 5 min; `None` is a leak waiting for a peer.
            #[must_use]
            pub fn half_closed_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.half_closed_ms = limit.and_then(millis);
                self
            }

            /// The close timeout: how long after our `end()` the peer may go without taking a byte or acknowledging
            /// our FIN, and how long after `discard()` it may go without its FIN, before the socket fails. Default 30 s.
            /// Once our kernel has everything and the peer has not finished, the half-closed time rules instead.
            ///
            /// A byte is taken when the peer's kernel acknowledges it. Our own may hold megabytes, and a slow
            /// peer takes longer for them than any limit: so on Linux finale queries it (sock_diag(7)) when
            /// this or another limit of silence has expired, and the limit counts from the last byte taken.
            /// Where the kernel has no result, only what it takes from us counts.
            /// (The kernel's SO_LINGER is not used with a time: it would block the loop in close(2).)
            #[must_use]
            pub fn linger(mut self, limit: Option<Duration>) -> Self {
                self.settings.linger_ms = limit.and_then(millis);
                self
            }

            /// The ending timeout: how long the connection may take from the first FIN, the peer's or ours (or `end()`), to its
            /// `close`, whatever moves. It ends what the limits of silence can't: a peer that drips a byte now and then, or takes
            /// one. Default 4 h, at 2.3 KB/s enough for all that can wait; a server whose half-closing clients load
            /// more than that gives more, or `None`.
            #[must_use]
            pub fn ending_timeout(mut self, limit: Option<Duration>) -> Self {
                self.settings.ending_ms = limit.and_then(millis);
                self
            }

            /// Queued bytes at which `write` answers [`Queue::Full`](crate::Queue::Full). Default 128 KiB.
            #[must_use]
            pub const fn high_water_mark(mut self, bytes: usize) -> Self {
                self.settings.high_water_bytes = bytes;
                self
            }

            /// Queued bytes down to which a full queue must go before [`Event::Drain`](crate::Event::Drain) is told. Default 0: empty.
            /// A higher one keeps the peer busy while the program fetches more.
            #[must_use]
            pub const fn low_water_mark(mut self, bytes: usize) -> Self {
                self.settings.low_water_bytes = bytes;
                self
            }

            /// Queued bytes at which `write` refuses more: the queue never exceeds this by more than one write.
            /// Default 16 MiB.
            #[must_use]
            pub const fn write_limit(mut self, bytes: usize) -> Self {
                self.settings.limit_bytes = bytes;
                self
            }

            /// How the socket is closed at the end. Default [`Close::Confirmed`].
            #[must_use]
            pub const fn close(mut self, close: Close) -> Self {
                self.settings.close = close;
                self
            }

            /// With `false` our side ends by itself after the peer's `end`, once the event was handled (Node's
            /// default). Default `true`: half-close.
            #[must_use]
            pub const fn allow_half_open(mut self, allow: bool) -> Self {
                self.settings.half_open = allow;
                self
            }

            /// Whether [`Event::PeerEnded`](crate::Event::PeerEnded) is told. Default off.
            #[must_use]
            pub const fn early_notice(mut self, on: bool) -> Self {
                self.settings.early_notice = on;
                self
            }

            /// Whether the socket begins paused: nothing is read until `resume`. Default off.
            #[must_use]
            pub const fn paused(mut self, on: bool) -> Self {
                self.settings.paused = on;
                self
            }

            /// Refuses what the system could not honour.
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
