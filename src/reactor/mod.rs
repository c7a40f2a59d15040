//! The reactor: the only place where the table and the net meet.
//!
//! Invariant: the caller's code never runs inside the reactor. [`Reactor::next`] returns everything
//! that happens, one event at a time, and between two calls the reactor is consistent: a panic or a
//! `?` in the caller's code leaves nothing half done.
//!
//! The table "Where do I change ...?" of ARCHITECTURE.md says what each module does.

// Declared first: rustdoc shows the methods of a type in the order of the modules.
mod next;

mod accept;
mod audit;
mod connect;
mod emit;
mod listeners;
mod snapshot;
mod step;
mod stop;
mod turn;
mod waker;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use listeners::Listener;
pub use next::RecordedReactor;
pub use snapshot::{SocketInfo, Sockets};
pub use waker::Waker;

use crate::error::{ConnectionError, Error, OsError};
use crate::event::Ending;
use crate::id::{ListenerId, SocketId, TimerId};
use crate::lifecycle::State;
use crate::metrics::Counts;
use crate::net::os::Os;
use crate::net::{KernelView, Net};
use crate::options::{Farewell, check_buffer};
use crate::socket::Context;
use crate::socket::Socket;
use crate::table::Table;
use crate::table::entry::NIL;
use crate::table::shared::Orphan;
use listeners::Listeners;
use turn::Turn;

/// The receive buffer that all sockets share; each socket reads at most once per turn. It is large
/// enough for bulk transfers, and small enough for the second-level cache.
const RECEIVE_BYTES: usize = 64 * 1024;

/// An event loop for TCP connections.
///
/// Call [`next`](Reactor::next) for each event; the [crate's page](crate) explains them. The type
/// parameter is the operating system: omit it for the real one, or pass a simulated network to
/// [`with_net`](Reactor::with_net). A function for both is generic: `fn run<N:
/// finale::net::Net>(reactor: &mut Reactor<N>)`. (Only the name of that trait is stable.)
///
/// Dropping it resets every live connection, also when a `?` leaves the loop.
///
/// ```
/// use finale::{Event, ListenOptions, Reactor};
/// # fn main() -> Result<(), finale::Error> {
/// let mut reactor = Reactor::new()?;
/// let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
/// # reactor.close_listener(listener.id)?;
/// while let Some((mut socket, event)) = reactor.next()? {
///     match event {
///         Event::Data(bytes) => {
///             socket.write(bytes)?;
///         }
///         Event::End => socket.end(),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias = "event loop")]
#[doc(alias = "uv_loop_t")]
#[doc(alias = "Runtime")]
pub struct Reactor<N: Net = Os> {
    net: N,
    table: Table,
    listeners: Listeners,
    buffer: Box<[u8]>,
    /// Payloads of the last event, lent to the caller like the buffer.
    ending: Ending,
    failure: ConnectionError,
    dropped: Option<SocketAddr>,
    accept_error: OsError,
    fired: TimerId,
    closed_listener: ListenerId,
    counts: Counts,
    turn: Turn,
    /// Why the system can't wait for events. (Stored here, so that an event is passed in
    /// registers.)
    cant_wait: Option<Error>,
}

impl AsFd for Reactor {
    /// The epoll instance, for another event loop to watch: when it is readable, or when
    /// [`next_deadline`](Reactor::next_deadline) has come, call
    /// [`next_before`](Reactor::next_before).
    #[doc(alias = "uv_backend_fd")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }
}

impl<N: Net> Reactor<N> {
    /// The net of this reactor.
    pub const fn net(&self) -> &N {
        &self.net
    }

    /// Drops the reactor as the end of its process does: the kernel closes each descriptor. A peer
    /// gets a FIN, or a reset if bytes are unread. Bytes that the kernel has not taken are lost.
    /// (A reactor that is just dropped resets its connections.) The file of a Unix domain socket is
    /// removed, which a process that is killed leaves behind. This is for tests and
    /// demonstrations of what a crash looks like from the other side.
    pub fn abandon(mut self) {
        for (slot, _) in &self.table.entries {
            self.net.close(slot as u32);
        }
    }

    /// The socket with this id, if its `close` was not delivered.
    pub fn socket(&mut self, id: SocketId) -> Option<Socket<'_>> {
        let slot = self.table.find(id)?;
        Some(self.handle(slot))
    }

    /// A [`Context`] of the reactor, for code that also runs in handlers.
    pub fn context(&mut self) -> Context<'_> {
        Context { table: &mut self.table, net: &self.net }
    }

    fn handle(&mut self, slot: u32) -> Socket<'_> {
        Socket::new(self.context(), slot)
    }

    /// The time of the net's clock: on a [simulated network](crate#testing) the virtual time.
    #[doc(alias = "uv_now")]
    #[must_use]
    pub fn now(&self) -> Instant {
        self.net.now()
    }

    /// The local address of a connection, `None` before it is established and once it is closed. Costs
    /// one getsockname(2).
    #[must_use]
    pub fn local_addr(&self, id: SocketId) -> Option<SocketAddr> {
        self.net.local_addr(self.connection(id)?).ok()
    }

    /// The slot of a connection that is established. Before, an attempt that may fail has it.
    fn connection(&self, id: SocketId) -> Option<u32> {
        self.table.find(id).filter(|slot| self.table.entry(*slot).state.is_connected())
    }

    /// What the kernel says of a connection, as ss(8) prints it: for diagnosis. Costs a query over
    /// netlink (sock_diag(7)). `None` for a connection that the kernel no longer has, as after a
    /// reset, for a Unix domain socket, and on systems other than Linux.
    ///
    /// ```
    /// # use finale::{ConnectOptions, Event, Reactor};
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// # let mut reactor = Reactor::new()?;
    /// let id = reactor.connect(server.local_addr().unwrap(), ConnectOptions::default())?;
    /// while !matches!(reactor.next()?, Some((_, Event::Ready))) {}
    /// # #[cfg(target_os = "linux")]
    /// assert_eq!(reactor.kernel_view(id).unwrap().state, "ESTABLISHED");
    /// # Ok::<(), finale::Error>(())
    /// ```
    #[doc(alias = "TCP_INFO")]
    pub fn kernel_view(&mut self, id: SocketId) -> Option<KernelView> {
        let slot = self.table.find(id)?;
        let peer = self.handle(slot).peer_addr();
        self.net.kernel_view(slot, peer)
    }

    /// The descriptor of a connection, to set an option that finale has no method for. `None` before
    /// and after the connection exists, and on a simulated network. Bytes that are read or written
    /// with it, and a shutdown(2), are unknown to the reactor.
    ///
    /// ```
    /// # use finale::{ConnectOptions, Event, Reactor};
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// # let mut reactor = Reactor::new()?;
    /// let id = reactor.connect(server.local_addr().unwrap(), ConnectOptions::default())?;
    /// while !matches!(reactor.next()?, Some((_, Event::Ready))) {}
    /// let descriptor = reactor.descriptor(id).expect("it is connected");
    /// socket2::SockRef::from(&descriptor).set_ttl_v4(32)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "as_fd")]
    #[must_use]
    pub fn descriptor(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        self.net.descriptor(self.connection(id)?)
    }

    /// Sets the size of the receive buffer, which all sockets share: at most this many bytes are
    /// delivered with one `data`. Default 64 KiB. A smaller one saves memory in a program with many
    /// reactors; a larger one saves system calls where large bodies are read as `data`
    /// ([`Socket::fill`] needs no buffer).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for 0 and for more than 1 GiB.
    pub fn set_receive_buffer(&mut self, bytes: usize) -> Result<(), Error> {
        check_buffer(bytes)?;
        self.buffer = vec![0; bytes].into_boxed_slice();
        Ok(())
    }

    /// How many sockets have not delivered `close` yet.
    #[must_use]
    pub fn len(&self) -> usize {
        let at_hand = self.table.at_hand;
        self.table.len() - usize::from(at_hand != NIL && self.table.entry(at_hand).state == State::Closed)
    }

    /// Whether every socket has delivered `close`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets a timer without a socket: [`Event::Timer`](crate::Event::Timer) is delivered once, not
    /// before `after` has passed; never for `Duration::MAX`. Timers that are due at once are
    /// delivered in any order. For one that is more than 16 s away the reactor wakes every 16 s, also
    /// on a simulated network, where a year takes about a second of the real time.
    #[doc(alias = "sleep")]
    #[doc(alias = "setTimeout")]
    #[doc(alias = "uv_timer_start")]
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.context().set_timer(after)
    }

    /// Cancels a timer. Returns whether it was still running; if so its event is not delivered.
    #[doc(alias = "clearTimeout")]
    #[doc(alias = "uv_timer_stop")]
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.table.timers.cancel(id)
    }

    /// A handle that wakes this reactor from other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::new(&self.table.shared)
    }

    /// Files the deadlines of the sockets that were put aside meanwhile. Their clocks restart
    /// now.
    fn look_at_clock(&mut self) {
        if !self.table.unfiled.is_empty() {
            self.table.file_all(self.table.epoch.tick_after(self.net.now()));
        }
    }

    /// Ends what dropped owners, such as a [`Pool`](crate::Pool), have left.
    #[inline]
    fn end_orphans(&mut self) {
        while let Some(orphan) = self.table.shared.next_orphan() {
            self.end_orphan(orphan);
        }
    }

    #[cold]
    fn end_orphan(&mut self, orphan: Orphan) {
        match orphan {
            Orphan::Timer(id) => _ = self.cancel_timer(id),
            Orphan::Used(id) => self.socket(id).into_iter().for_each(|mut socket| socket.destroy()),
            Orphan::Unused(id) => {
                if let Some(mut socket) = self.socket(id) {
                    // A layer has to read up to its end.
                    if socket.settings().is_some_and(|settings| settings.farewell == Farewell::Fin) {
                        socket.discard();
                    }
                    self.end_idle(id.index());
                }
            }
        }
    }

    /// The earliest tick at which a socket, timer or listener needs attention.
    fn next_due(&mut self) -> Option<u64> {
        earlier(earlier(self.table.wheel.next_due(), self.table.timers.next_due()), self.listeners.next_due())
    }
}

impl<N: Net> Drop for Reactor<N> {
    /// Resets every live connection: a FIN would look like an orderly end to the peers.
    fn drop(&mut self) {
        self.table.shared.alive.store(false, Ordering::Release);
        // An attempt to connect has an entry, too.
        for (slot, _) in &self.table.entries {
            self.net.reset(slot as u32);
        }
    }
}

impl<N: Net> std::fmt::Debug for Reactor<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("sockets", &self.len()).field("turn", &self.turn).finish_non_exhaustive()
    }
}

/// The earlier of two optional times.
#[inline]
fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn system(call: &'static str, error: &std::io::Error) -> Error {
    Error::System { call, source: OsError::from(error) }
}
