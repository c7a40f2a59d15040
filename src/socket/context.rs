//! What a handler can do besides changing its socket: connect, set timers, read the clock.
//!
//! Invariant: nothing here makes a system call, except that reading the real clock is one. A new
//! connection begins in the next call of `next`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Socket;
use crate::error::Error;
use crate::id::{SocketId, TimerId};
use crate::net::Net;
use crate::options::ConnectOptions;
use crate::table::Table;
use crate::table::entry::Flags;
use crate::table::extra::{Connecting, Deadline};
use crate::table::shared::Shared;
use crate::target::Target;

/// The methods of the net that a handler may use. There are no others, so that the reactor's own
/// calls stay direct.
pub(crate) trait Local {
    fn now(&self) -> Instant;
    fn local_addr(&self, slot: u32) -> Option<SocketAddr>;
    fn is_readable(&self, slot: u32) -> bool;
    fn seed(&self) -> u64;
}

impl<N: Net> Local for N {
    fn now(&self) -> Instant {
        Net::now(self)
    }

    fn local_addr(&self, slot: u32) -> Option<SocketAddr> {
        Net::local_addr(self, slot).ok()
    }

    fn is_readable(&self, slot: u32) -> bool {
        Net::is_readable(self, slot)
    }

    fn seed(&self) -> u64 {
        Net::seed(self)
    }
}

/// Access to a reactor without its type parameter, for code that runs both in handlers and between
/// two events, such as [`Pool`](crate::Pool): from [`Reactor::context`](crate::Reactor::context) or
/// [`Socket::context`].
///
/// ```
/// use std::time::Duration;
/// use finale::{Context, Reactor, TimerId};
///
/// fn remind(mut context: Context<'_>) -> TimerId {
///     context.set_timer(Duration::from_secs(1))
/// }
///
/// let mut reactor = Reactor::new()?;
/// let timer = remind(reactor.context());
/// assert!(reactor.cancel_timer(timer));
/// # Ok::<(), finale::Error>(())
/// ```
pub struct Context<'a> {
    pub(crate) table: &'a mut Table,
    pub(crate) net: &'a dyn Local,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("sockets", &self.table.len()).finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// Begins a connection, as [`Reactor::connect`](crate::Reactor::connect) does.
    ///
    /// # Errors
    /// As for `Reactor::connect`.
    pub fn connect<T>(&mut self, target: T, options: ConnectOptions) -> Result<SocketId, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let target = target.try_into()?;
        options.check()?;
        let ConnectOptions { system, settings, local, attempt_delay_ms, total_ms } = options;
        // The total deadline counts from this call, however long the handler continues.
        let now = total_ms.map_or(0, |_| self.table.epoch.tick_after(self.net.now()));
        let table = &mut *self.table;
        let settings = table.settings.intern(settings);
        let slot = table.insert(settings, None, Flags::NONE);
        table.begun += 1;
        let connecting = table.extras.connecting(Connecting::new(target, system, local, attempt_delay_ms));
        let extra = table.extra_mut(slot);
        extra.connecting = Some(connecting);
        extra.deadline = total_ms.map(|ms| Deadline::At(now.saturating_add(ms)));
        table.entry_mut(slot).flags.set(Flags::LIMIT, true);
        table.wake(slot);
        table.file_later(slot);
        Ok(table.id(slot))
    }

    /// Sets a timer that belongs to no socket, as [`Reactor::set_timer`](crate::Reactor::set_timer)
    /// does.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        let (now, epoch) = (self.net.now(), self.table.epoch);
        let due = now.checked_add(after).map_or(u64::MAX, |at| epoch.tick_after(at));
        self.table.timers.set(due, epoch.tick_before(now))
    }

    /// Cancels a timer. Returns whether it was still running; if so its event is not delivered.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.table.timers.cancel(id)
    }

    /// The time of the net's clock: on a [simulated network](crate#testing) the virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.net.now()
    }

    /// A seed for random delays.
    pub(crate) fn seed(&self) -> u64 {
        self.net.seed()
    }

    /// Where an owner of sockets leaves them when it is dropped.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.table.shared
    }

    /// The socket with this id, if its `close` was not delivered.
    pub fn socket(&mut self, id: SocketId) -> Option<Socket<'_>> {
        let slot = self.table.find(id)?;
        Some(Socket::new(Context { table: &mut *self.table, net: self.net }, slot))
    }
}
