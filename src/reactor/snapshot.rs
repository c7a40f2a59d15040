//! The sockets and metrics of a reactor, for people to read.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use super::Reactor;
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::metrics::Metrics;
use crate::net::Net;

/// One socket at one moment.
///
/// ```
/// use finale::{Reactor, SocketInfo};
/// fn slowest(reactor: &Reactor) -> Option<SocketInfo> {
///     reactor.sockets().iter().max_by_key(|socket| socket.queued_bytes).cloned()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketInfo {
    /// Its id.
    pub id: SocketId,
    /// Its lifecycle state.
    pub state: State,
    /// The peer's address, if known.
    pub peer: Option<SocketAddr>,
    /// Bytes that wait for our kernel.
    pub queued_bytes: usize,
    /// Bytes delivered as `data` or discarded.
    pub bytes_read: u64,
    /// Bytes that our kernel took.
    pub bytes_written: u64,
    /// Whether it is paused or [held](crate::Socket::hold).
    pub is_paused: bool,
    /// Milliseconds until its nearest timer, 0 if that is due; `None` without one.
    pub timer_ms: Option<u64>,
    /// What that timer is: `close timeout`, `idle timeout`, ... For people; the wording is not
    /// guaranteed.
    pub timer: Option<&'static str>,
}

/// Every socket of a reactor at one moment. `Display` is a table like netstat's. A `*` after a state,
/// as in `Open*`, means that the socket is paused or [held](crate::Socket::hold).
///
/// ```
/// use finale::Reactor;
/// let reactor = Reactor::new()?;
/// let sockets = reactor.sockets();
/// assert!(sockets.is_empty());
/// print!("{sockets}");
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets(Vec<SocketInfo>);

/// In the order of their slots.
impl Deref for Sockets {
    type Target = [SocketInfo];

    fn deref(&self) -> &[SocketInfo] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Sockets {
    type Item = &'a SocketInfo;
    type IntoIter = std::slice::Iter<'a, SocketInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Sockets {
    type Item = SocketInfo;
    type IntoIter = std::vec::IntoIter<SocketInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |[id, state, peer, queued, read, written, due, timer]: [&str; 8]| {
            writeln!(f, "{id:<12} {state:<12} {peer:<24} {queued:>10} {read:>12} {written:>12} {due:>10} {timer}")
        };
        row(["Socket", "State", "Peer", "Queued", "Read", "Written", "Due", "Timer"])?;
        for socket in self {
            row([
                &format!("{}.{}", socket.id.index(), socket.id.generation()),
                &format!("{}{}", socket.state.name(), if socket.is_paused { "*" } else { "" }),
                &socket.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
                &socket.queued_bytes.to_string(),
                &socket.bytes_read.to_string(),
                &socket.bytes_written.to_string(),
                &socket.timer_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                socket.timer.unwrap_or("-"),
            ])?;
        }
        Ok(())
    }
}

impl<N: Net> Reactor<N> {
    /// What the reactor has done so far, and what is live. Visits each socket.
    ///
    /// ```
    /// # use finale::{ConnectionErrorKind, ConnectOptions, Event, Reactor, sim::Network};
    /// let network = Network::new(1);
    /// let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    /// reactor.connect("10.0.0.2:80", ConnectOptions::default())?;
    /// while let Some((_, event)) = reactor.next()? {
    ///     if let Event::Close(ending) = event {
    ///         println!("{ending}");
    ///     }
    /// }
    /// let metrics = reactor.metrics();
    /// assert_eq!((metrics.connects, metrics.failed_of(ConnectionErrorKind::Refused), metrics.live()), (1, 1, 0));
    /// # Ok::<(), finale::Error>(())
    /// ```
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::of(&self.counts, self.table.begun, self.listeners.ids().count());
        // A socket whose `close` was just delivered is counted already.
        for slot in self.table.slots().filter(|slot| self.table.entry(*slot).state != State::Closed) {
            let entry = self.table.entry(slot);
            let queued_bytes = self.table.queued_bytes(slot) as u64;
            metrics.add_live(entry.state, queued_bytes, entry.bytes_read, entry.bytes_written);
        }
        metrics
    }

    /// Every socket with its state, queue and timer. Prints like netstat, paused sockets with `*`.
    #[must_use]
    pub fn sockets(&self) -> Sockets {
        let now = self.table.epoch.tick_before(self.net.now());
        let info = |slot| {
            let entry = self.table.entry(slot);
            let timer = self.table.nearest(slot, Some(now), |_| true);
            SocketInfo {
                id: self.table.id(slot),
                state: entry.state,
                peer: self.table.peer(slot),
                queued_bytes: self.table.queued_bytes(slot),
                bytes_read: entry.bytes_read,
                bytes_written: entry.bytes_written,
                is_paused: entry.flags.has(crate::table::entry::Flags::STOPPED),
                timer_ms: timer.map(|(due, _)| due.saturating_sub(now)),
                timer: timer.map(|(_, due)| due.name()),
            }
        };
        Sockets(self.table.slots().map(info).collect())
    }
}
