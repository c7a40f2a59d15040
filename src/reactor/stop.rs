//! How a listener stops: waiting connections are accepted, idle ones end after a grace, others at
//! the limit.

use std::time::Duration;

use super::Reactor;
use super::emit::{Emit, EmitKind};
use crate::error::Error;
use crate::id::ListenerId;
use crate::net::Net;
use crate::options::{StopOptions, millis};
use crate::table::entry::Flags;

/// In how many groups the idle connections of a stopped listener end.
const SPREAD_STEPS: usize = 256;

impl<N: Net> Reactor<N> {
    /// Stops a listener gracefully. Connections that wait in its backlog are
    /// [accepted](StopOptions::accept_backlog), and then it is closed. (At most as many are
    /// accepted as the [backlog](crate::ListenOptions::backlog) holds. The kernel resets a client
    /// that connects between the last accept and the close.) Where there is a
    /// [maximum](crate::ListenOptions::max_connections), they are accepted as others end, or reset
    /// at once with [`OverflowPolicy::Reset`](crate::OverflowPolicy::Reset); those that are left at
    /// the limit are reset without an event.
    ///
    /// Its sockets continue. An idle one ends after the [grace](StopOptions::grace), in which a
    /// request that is in flight can still arrive and be answered. Sockets that remain at the
    /// [limit](StopOptions::limit) are destroyed; one that was dead already reports its own error.
    /// After the last `close`, [`Event::ListenerClosed`](crate::Event::ListenerClosed) is
    /// delivered.
    ///
    /// The grace is a limit of its own: neither [idle timeouts](crate::ListenOptions::idle_timeout)
    /// nor [`set_idle_timeout`](crate::Socket::set_idle_timeout) change it, and `timeout` is
    /// delivered as before. A second call replaces the values of the first; with a limit of zero it
    /// destroys the remaining sockets at once.
    ///
    /// ```
    /// # use finale::{Event, ListenOptions, Reactor, StopOptions};
    /// let mut reactor = Reactor::new()?;
    /// let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
    /// reactor.stop_listener(listener.id, StopOptions::default())?;
    /// let (_, event) = reactor.next()?.expect("the listener is closed");
    /// assert_eq!(event, Event::ListenerClosed(listener.id));
    /// assert!(reactor.next()?.is_none(), "nothing is left");
    /// # Ok::<(), finale::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Gone`] if the listener is closed.
    #[doc(alias = "graceful shutdown")]
    pub fn stop_listener(&mut self, id: ListenerId, stop: StopOptions) -> Result<(), Error> {
        let now = self.net.now();
        let due = stop.limit.and_then(|limit| now.checked_add(limit)).map(|at| self.table.epoch.tick_after(at));
        let entry = self.listeners.stop(id, due).ok_or(Error::Gone)?;
        // It also applies to connections that are accepted later.
        let grace = stop.grace.and_then(millis);
        self.table.settings.change(&mut entry.settings, |settings| settings.grace_ms = grace);
        let is_idle = |slot: &u32| self.table.entry(*slot).is_idle(self.table.extra(*slot));
        let (idle, busy) = self.sockets_of(id).into_iter().partition(is_idle);
        self.distribute(idle, grace, stop.spread);
        self.distribute(busy, grace, stop.spread);
        if !stop.accept_backlog {
            self.close_descriptor(id.index());
        } else if self.listeners.is_open(id.index()) {
            self.mute(id.index());
            self.listeners.ready(id.index());
        }
        Ok(())
    }

    /// Gives these sockets their grace, and each its part of the time in which they end.
    fn distribute(&mut self, slots: Vec<u32>, grace: Option<u64>, spread: Duration) {
        let spread = u128::from(millis(spread).unwrap_or(u64::MAX));
        for (place, slot) in slots.iter().copied().enumerate() {
            // In steps, since sockets with equal settings share them.
            let share = spread * (place * SPREAD_STEPS / slots.len()) as u128 / SPREAD_STEPS as u128;
            let grace = grace.map(|grace| grace.saturating_add(share as u64));
            self.table.change_settings(slot, |settings| settings.grace_ms = grace);
            self.table.wake_with(slot, Flags::GRACE);
            self.table.file_later(slot);
        }
    }

    /// The slots of a listener's sockets.
    fn sockets_of(&self, id: ListenerId) -> Vec<u32> {
        self.table.slots().filter(|slot| self.table.settings_of(*slot).listener == Some(id)).collect()
    }

    /// Closes the descriptor of a listener, unless it is closed.
    pub(super) fn close_descriptor(&mut self, listener: u32) {
        if self.listeners.is_open(listener) {
            self.net.unlisten(listener);
            self.listeners.close(listener);
            self.listeners.retry();
        }
    }

    /// At a stop's limit the remaining sockets are destroyed.
    pub(super) fn stops_due(&mut self, now: u64) {
        while let Some(listener) = self.listeners.pop_overdue(now) {
            self.close_descriptor(listener);
            for slot in self.sockets_of(self.listeners.id(listener)) {
                // A socket that is over already reports its own end, unless the program has destroyed it.
                if !self.table.entry(slot).flags.has(Flags::DESTROY) && self.at(slot).ends_by_itself() {
                    self.table.wake(slot);
                } else {
                    self.handle(slot).destroy();
                }
            }
        }
    }

    /// The last event of a listener.
    pub(super) fn listener_closed(&mut self, listener: u32) -> Emit {
        let id = self.listeners.id(listener);
        self.table.settings.release(self.listeners.remove(listener));
        self.closed_listener = id;
        Emit::new(EmitKind::ListenerClosed, 0)
    }
}
