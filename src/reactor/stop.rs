//! How a listener stops: whoever waits is still accepted, idle connections end after a grace, the rest at the limit.

use super::Reactor;
use super::emit::{Emit, EmitKind};
use crate::error::Error;
use crate::id::ListenerId;
use crate::lifecycle::State;
use crate::net::Net;
use crate::options::{Settings, Stop, millis};
use crate::socket::Socket;
use crate::table::entry::Flags;

impl<N: Net> Reactor<N> {
    /// Stops a listener without harming anybody: whoever is waiting in its backlog is accepted, then it is closed, and nobody new can
    /// come. (Who comes between the last look and the closing is reset by the kernel. No more are accepted than the [backlog](crate::Listen::backlog) holds, however many go on coming.) Its sockets go on to their ends. One that is idle ends after a [grace](Stop::grace), in which a request that was
    /// on its way can still come and be answered; what still lives at the [limit](Stop::limit) is destroyed. When the last has told
    /// `close`, [`Event::ListenerClosed`](crate::Event::ListenerClosed) comes.
    ///
    /// A silence of one of these sockets is told no more: their [idle time](crate::Listen::idle_timeout) is the grace now. A
    /// second call replaces what the first has said; with a limit of zero it destroys the rest at once.
    ///
    /// ```
    /// # use finale::{Event, Listen, Reactor, Stop};
    /// let mut reactor = Reactor::new()?;
    /// let listener = reactor.listen("127.0.0.1:0", Listen::default())?;
    /// reactor.stop_listener(listener.id, Stop::default())?;
    /// let (_, event) = reactor.next()?.expect("one event more");
    /// assert_eq!(event, Event::ListenerClosed(listener.id));
    /// assert!(reactor.next()?.is_none(), "nothing is left");
    /// # Ok::<(), finale::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Gone`] if the listener is closed.
    pub fn stop_listener(&mut self, id: ListenerId, stop: Stop) -> Result<(), Error> {
        let now = self.net.now();
        let due = stop.limit.and_then(|limit| now.checked_add(limit)).map(|at| self.tick_after(at));
        let entry = self.listeners.stop(id, due).ok_or(Error::Gone)?;
        // Those who wait come under the same rule as those who are here.
        let grace = stop.grace.and_then(millis);
        let settings = Settings { grace_ms: grace, ..self.table.settings.get(entry.settings).clone() };
        let old = std::mem::replace(&mut entry.settings, self.table.settings.intern(settings));
        self.table.settings.release(old);
        for slot in self.sockets_of(id) {
            self.stop_socket(slot, grace);
        }
        if self.listeners.is_open(id.index()) {
            self.mute(id.index());
            self.listeners.ready(id.index());
        }
        Ok(())
    }

    /// The places of a listener's sockets.
    fn sockets_of(&self, id: ListenerId) -> Vec<u32> {
        self.table.slots().filter(|slot| self.table.settings_of(*slot).listener == Some(id)).collect()
    }

    /// From now on our side ends when the socket is idle.
    fn stop_socket(&mut self, slot: u32, grace: Option<u64>) {
        self.table.change_settings(slot, |settings| settings.grace_ms = grace);
        if self.table.entry(slot).state == State::Open {
            self.table.entry_mut(slot).flags.set(Flags::LIMIT, true);
        }
        self.table.wake(slot);
    }

    /// Whoever waited at a stopped listener was accepted.
    pub(super) fn close_stopped(&mut self, listener: u32) {
        if self.listeners.is_open(listener) {
            self.net.unlisten(listener);
            self.listeners.close(listener);
            self.listeners.retry();
        }
    }

    /// Stopped listeners whose time is up: nobody waits any longer, and nobody lives on.
    pub(super) fn listeners_due(&mut self, now: u64) {
        while let Some(listener) = self.listeners.pop_overdue(now) {
            self.close_stopped(listener);
            for slot in self.sockets_of(self.listeners.id(listener)) {
                // One that is dead already reports its own error.
                if self.table.entry(slot).state == State::Broken {
                    self.at(slot).fail_broken();
                    self.table.wake(slot);
                } else {
                    Socket::new(&mut self.table, slot).destroy();
                }
            }
        }
    }

    /// The last event of a listener.
    pub(super) fn listener_closed(&mut self, listener: u32) -> Emit {
        let id = self.listeners.id(listener);
        let entry = self.listeners.remove(listener);
        self.table.settings.release(entry.settings);
        self.closed_listener = id;
        Emit::new(EmitKind::ListenerClosed, 0)
    }
}
