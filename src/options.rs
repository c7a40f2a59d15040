//! The options of a listener ([`ListenOptions`]), of an outgoing connection ([`ConnectOptions`]),
//! and of both.
//!
//! Invariant: every default is set in this folder and nowhere else, with its reason.

use std::time::Duration;

use crate::error::{Error, InvalidOption};
use crate::id::ListenerId;

#[macro_use]
mod setters;
mod connect;
mod listen;
mod stop;

pub use connect::ConnectOptions;
pub(crate) use listen::ReusePort;
pub use listen::{ListenOptions, OverflowPolicy};
pub use stop::StopOptions;

/// How a connection is closed when both sides have finished.
///
/// ```
/// use finale::{CloseMode, ListenOptions};
/// let options = ListenOptions::default().close_mode(CloseMode::HandOff);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CloseMode {
    /// `close` is delivered when the peer's kernel has acknowledged our FIN, and with it every
    /// byte. The default: an ending that claims less is a guess. The exception is an ending
    /// [`HandedOff`](crate::EndingKind::HandedOff) by the close timeout: check
    /// [`is_acknowledged`](crate::Ending::is_acknowledged) where you need the result.
    #[default]
    Confirmed,
    /// close(2) as soon as both sides have finished; our kernel delivers the rest. This saves
    /// system calls, and the program does not learn whether the last bytes arrived. Descriptors are
    /// close-on-exec, but a copy in a forked process that has not called exec(2) holds the FIN back
    /// until it is closed too.
    HandOff,
}

/// Which bytes restart the idle time of [`ListenOptions::idle_timeout`] and
/// [`Socket::set_idle_timeout`](crate::Socket::set_idle_timeout).
///
/// `timeout` is also delivered if the peer has finished, or if its bytes are unread because the
/// socket is paused. A program that ends silent peers looks at
/// [`peer_ended`](crate::Socket::peer_ended) and [`is_paused`](crate::Socket::is_paused) first.
///
/// ```
/// use finale::{IdleDirection, ListenOptions};
/// use std::time::Duration;
/// let minute = Duration::from_secs(60);
/// let options = ListenOptions::default().idle_timeout(minute).idle_direction(IdleDirection::Read);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IdleDirection {
    /// Bytes of either direction. The default.
    #[default]
    Both,
    /// Only bytes of the peer, however much we send.
    Read,
    /// Only our bytes that the kernel or the peer takes, however much the peer sends. The time also
    /// runs while there is nothing to send.
    Write,
}

impl IdleDirection {
    /// Whether bytes of this direction restart the idle time.
    #[inline]
    pub(crate) fn includes(self, direction: Self) -> bool {
        self == Self::Both || self == direction
    }
}

/// TCP keep-alive: our kernel probes the *kernel* of a silent peer. It detects a lost machine, but
/// not a frozen program. Times are rounded up to whole seconds, the kernel's unit (tcp(7)).
///
/// ```
/// use finale::{KeepAlive, ListenOptions};
/// use std::time::Duration;
/// let times = KeepAlive { count: 3, ..KeepAlive::after(Duration::from_secs(60)) };
/// let options = ListenOptions::default().keep_alive(times);
/// ```
#[doc(alias = "SO_KEEPALIVE")]
#[doc(alias = "TCP_KEEPIDLE")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between unanswered probes.
    pub interval: Duration,
    /// Unanswered probes until the connection fails. On Linux a
    /// [`user_timeout`](crate::ListenOptions::user_timeout) replaces it: the connection fails at the
    /// first probe for which the peer has been silent for that long.
    pub count: u32,
}

impl KeepAlive {
    /// The first probe after `idle`, then one every 10 s; the connection fails after 6 unanswered
    /// probes. A lost peer is detected within `idle` and a minute; the kernel's own default takes
    /// more than two hours. No probe is sent while our bytes are unacknowledged: then the kernel's
    /// retransmissions decide, which takes about 15 minutes unless
    /// [`user_timeout`](crate::ListenOptions::user_timeout) or a limit of finale is shorter.
    #[must_use]
    pub const fn after(idle: Duration) -> Self {
        Self { idle, interval: Duration::from_secs(10), count: 6 }
    }

    /// Checks the values against what tcp(7) allows.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for time in [self.idle, self.interval] {
            if time > Duration::from_secs(32_767) {
                return Err(Error::InvalidOption(InvalidOption::KeepAliveTime));
            }
        }
        if self.count == 0 || self.count > 127 {
            return Err(Error::InvalidOption(InvalidOption::KeepAliveCount));
        }
        Ok(())
    }
}

/// Options of the system's socket. Accepted connections inherit them from their listener, at no
/// cost per connection (but for Unix domain sockets, where they are set for each).
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
    pub(crate) idle_direction: IdleDirection,
    pub(crate) write_ms: Option<u64>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) connect_ms: Option<u64>,
    pub(crate) half_closed_ms: Option<u64>,
    pub(crate) close_ms: Option<u64>,
    pub(crate) ending_ms: Option<u64>,
    pub(crate) high_water_bytes: usize,
    pub(crate) low_water_bytes: usize,
    pub(crate) limit_bytes: usize,
    pub(crate) close: CloseMode,
    pub(crate) half_open: bool,
    pub(crate) notify_peer_ended: bool,
    pub(crate) paused: bool,
    /// Its listener is stopping: our side ends after it has been idle for this long.
    pub(crate) grace_ms: Option<u64>,
    pub(crate) farewell: Farewell,
    /// A layer has read the peer's end, which is no FIN.
    pub(crate) peer_finished: bool,
    /// A layer gets what is discarded.
    pub(crate) discards_late: bool,
}

/// What follows the grace of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Farewell {
    /// Our FIN.
    Fin,
    /// A `timeout`, so that a layer or a program can send its last message first.
    Timeout,
    /// That `timeout` was delivered.
    Due,
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
            idle_direction: IdleDirection::Both,
            write_ms: None,
            deadline_ms: None,
            connect_ms: millis(CONNECT),
            half_closed_ms: millis(HALF_CLOSED),
            close_ms: millis(LINGER),
            ending_ms: millis(ENDING),
            high_water_bytes: HIGH_WATER,
            low_water_bytes: 0,
            limit_bytes: LIMIT,
            close: CloseMode::Confirmed,
            half_open: true,
            notify_peer_ended: false,
            paused: false,
            grace_ms: None,
            farewell: Farewell::Fin,
            peer_finished: false,
            discards_late: false,
        }
    }
}

/// The largest buffer.
pub(crate) const MAX_BUFFER: usize = 1 << 30;

/// Whether a buffer can have this size: up to 1 GiB.
pub(crate) const fn check_buffer(bytes: usize) -> Result<(), Error> {
    match bytes == 0 || bytes > MAX_BUFFER {
        true => Err(Error::InvalidOption(InvalidOption::BufferSize)),
        false => Ok(()),
    }
}

/// Whole milliseconds, rounded up so that no timer is early; `None` beyond 584 million years.
pub(crate) fn millis(time: Duration) -> Option<u64> {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).ok()
}

impl SystemOptions {
    fn check(&self) -> Result<(), Error> {
        if let Some(times) = &self.keep_alive {
            times.check()?;
        }
        if let Some(limit) = self.user_timeout
            && !millis(limit).is_some_and(|ms| (1..=i32::MAX as u64).contains(&ms))
        {
            return Err(Error::InvalidOption(InvalidOption::UserTimeout));
        }
        for bytes in [self.send_buffer_bytes, self.receive_buffer_bytes].into_iter().flatten() {
            check_buffer(bytes)?;
        }
        Ok(())
    }
}

impl Settings {
    const fn check(&self) -> Result<(), Error> {
        if self.high_water_bytes == 0 || self.high_water_bytes > self.limit_bytes {
            return Err(Error::InvalidOption(InvalidOption::HighWaterMark));
        }
        if self.low_water_bytes >= self.high_water_bytes {
            return Err(Error::InvalidOption(InvalidOption::LowWaterMark));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
