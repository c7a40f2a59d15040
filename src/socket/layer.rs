//! What a layer on a socket needs, such as TLS.
//!
//! Invariant: as for all methods of a socket, nothing here makes a system call.

use super::{Context, Socket};
use crate::lifecycle::State;
use crate::options::{Farewell, Settings};
use crate::table::entry::Flags;

impl Socket<'_> {
    /// The same socket, borrowed for a shorter time: for a value that has a `Socket` in it.
    pub fn by_ref(&mut self) -> Socket<'_> {
        Socket::new(Context { table: &mut *self.context.table, net: self.context.net }, self.slot)
    }

    /// The setting of [`allow_half_open`](crate::ListenOptions::allow_half_open).
    #[must_use]
    pub fn allows_half_open(&self) -> bool {
        self.settings().is_some_and(|settings| settings.half_open)
    }

    /// The [high-water mark](crate::ListenOptions::high_water_mark) in bytes; 0 for a placeholder.
    #[must_use]
    pub fn high_water_mark(&self) -> usize {
        self.settings().map_or(0, |settings| settings.high_water_bytes)
    }

    /// The [write limit](crate::ListenOptions::write_limit) in bytes; 0 for a placeholder.
    #[must_use]
    pub fn write_limit(&self) -> usize {
        self.settings().map_or(0, |settings| settings.limit_bytes)
    }

    /// Sets the [write limit](crate::ListenOptions::write_limit) in bytes, at least the high-water
    /// mark: so a layer can send its last message although the queue is full, and
    /// [`end`](Socket::end) need not wait for room, which has no limit.
    pub fn set_write_limit(&mut self, bytes: usize) {
        if self.living().is_some() {
            let set = |settings: &mut Settings| settings.limit_bytes = bytes.max(settings.high_water_bytes);
            self.context.table.change_settings(self.slot, set);
        }
    }

    /// The layer has read the end of the peer's stream, which is no FIN: close_notify in TLS. From
    /// now on the [half-closed](crate::ListenOptions::half_closed_timeout) and the
    /// [ending](crate::ListenOptions::ending_timeout) timeout count as after a FIN, also if the peer
    /// never sends one.
    pub fn set_peer_finished(&mut self) {
        if self.state() == State::Open && self.living().is_some() {
            let now = self.context.table.epoch.tick_after(self.context.net.now());
            self.context.table.peer_finished(self.slot, now);
        }
    }

    /// As [`discard`](Socket::discard), for a layer that has to read on: it still gets `data`, up to
    /// the end of the peer's stream, and discards that itself. The same limits apply.
    pub fn discard_late(&mut self) {
        if self.living().is_some() {
            self.context.table.change_settings(self.slot, |settings| settings.discards_late = true);
            self.discard();
        }
    }

    /// With `true`, [`Event::Timeout`](crate::Event::Timeout) is delivered at the end of the
    /// [grace](crate::StopOptions::grace) of a stop instead of our FIN, so that a layer or a program
    /// can send a last message before it calls [`end`](Socket::end): close_notify in TLS, GOAWAY in
    /// HTTP/2. [`is_farewell_due`](Socket::is_farewell_due) distinguishes it from the timeout of an
    /// idle connection. A connection that does not end then is destroyed at the
    /// [limit](crate::StopOptions::limit) of the stop. Once the farewell is due, the call changes
    /// nothing.
    pub fn set_farewell(&mut self, on: bool) {
        let farewell = if on { Farewell::Timeout } else { Farewell::Fin };
        if self.living().is_some() && !self.is_farewell_due() {
            self.context.table.change_settings(self.slot, |settings| settings.farewell = farewell);
        }
    }

    /// Whether the grace of a stop is over, and the `timeout` of
    /// [`set_farewell`](Socket::set_farewell) was delivered.
    #[must_use]
    pub fn is_farewell_due(&self) -> bool {
        self.settings().is_some_and(|settings| settings.farewell == Farewell::Due)
    }

    /// In the `timeout` of a [farewell](Socket::set_farewell): the peer waits for an answer, whatever
    /// bytes of the layer were the last. The grace counts again after the answer.
    pub fn postpone_farewell(&mut self) {
        if self.living().is_some() && self.is_farewell_due() {
            self.context.table.change_settings(self.slot, |settings| settings.farewell = Farewell::Timeout);
            self.context.table.entry_mut(self.slot).heard_last = true;
        }
    }

    /// The peer waits for nothing: what it has sent last needs no answer, such as the end of a
    /// handshake or a ping. Without this call a [stop](crate::StopOptions::grace) takes bytes of the
    /// peer for a request, and waits for the answer.
    pub fn set_answered(&mut self) {
        // If the peer waits for nothing already, the grace continues.
        if let Some(entry) = self.living()
            && std::mem::replace(&mut entry.heard_last, false)
        {
            self.request(Flags::GRACE);
            self.context.table.file_later(self.slot);
        }
    }
}
