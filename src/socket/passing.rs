//! What code that passes bytes from one socket to another needs, such as [`Pipes`](crate::Pipes).
//!
//! Invariant: as for all methods of a socket, nothing here makes a system call.

use super::{Backpressure, Socket};
use crate::error::Error;
use crate::id::SocketId;
use crate::kernel_pipe::KernelPipe;
use crate::lifecycle::State;
use crate::options::Settings;
use crate::table::entry::Flags;
use crate::target::Target;

impl Socket<'_> {
    /// Stops reading until [`release`](Socket::release), as [`pause`](Socket::pause) does until
    /// [`resume`](Socket::resume), and independently of it: for code between the socket and the
    /// program. Neither undoes what the other has done. [`discard`](Socket::discard) ends both.
    pub fn hold(&mut self) {
        self.stop_reading(Flags::HELD);
    }

    /// Ends a [`hold`](Socket::hold). A socket that the program has paused stays paused.
    pub fn release(&mut self) {
        self.continue_reading(Flags::HELD);
    }

    /// Switches the [half-closed timeout](crate::ListenOptions::half_closed_timeout) off.
    pub(crate) fn switch_half_closed_timeout_off(&mut self) {
        if self.living().is_some() {
            self.context.table.change_settings(self.slot, |settings| settings.half_closed_ms = None);
            self.context.table.file_later(self.slot);
        }
    }

    /// Whether our side ends, and a limit of silence applies until the connection is over.
    pub(crate) fn is_bounded_after_end(&self) -> bool {
        let is_bounded = |settings: &Settings| settings.close_ms.is_some() && settings.half_closed_ms.is_some();
        self.end_called() && self.settings().is_some_and(is_bounded)
    }

    /// The common part of `pause` and `hold`.
    pub(super) fn stop_reading(&mut self, reason: Flags) {
        // A broken connection may have nothing unread now: then its error is delivered next.
        let look = if self.state() == State::Broken { Flags::HANGUP } else { Flags::NONE };
        self.request(reason | look);
    }

    /// The common part of `resume` and `release`.
    pub(super) fn continue_reading(&mut self, reasons: Flags) {
        if let Some(entry) = self.living()
            && entry.flags.replace(reasons, false)
        {
            // While it is paused the grace of a stop does not count.
            self.context.table.wake_with(self.slot, Flags::GRACE);
        }
    }

    /// Requests that the next bytes are moved into a kernel pipe instead of memory (splice(2)):
    /// [`Event::Spliced`] is delivered instead of `data`, and [`forward`](Socket::forward) moves
    /// them on to another socket. The request is for one read, and stays until there is something
    /// to read. The next bytes may be `data` anyway: if the system has no splice(2), or no
    /// descriptors for a pipe. Nothing happens if nothing can be read, such as before the
    /// connection is established, or while a buffer is [filled](Socket::fill).
    ///
    /// It pays for reads of 16 KiB and more (`bench/bulk/`).
    ///
    /// [`Event::Spliced`]: crate::Event::Spliced
    pub fn splice_next(&mut self) {
        let extra = self.entry().and_then(|entry| self.context.table.extras.get(entry.extra));
        let is_filled = extra.is_some_and(|extra| extra.fill.is_some());
        if self.state().can_read() && !is_filled && !self.is_discarding() && self.living().is_some() {
            self.context.table.entry_mut(self.slot).flags.set(Flags::FILL, true);
        }
    }

    /// Queues the bytes of [`Event::Spliced`] for another socket, as `write` does, without a copy.
    /// At other times nothing is queued.
    ///
    /// # Errors
    /// As [`write`](Socket::write) of the sink, and [`Error::Gone`] without one. The bytes are
    /// delivered as `data` then.
    ///
    /// [`Event::Spliced`]: crate::Event::Spliced
    pub fn forward(&mut self, sink: SocketId) -> Result<Backpressure, Error> {
        let mut pipe = self.take_spliced();
        let count = pipe.as_ref().map_or(0, |pipe| pipe.len());
        let result = match self.get(sink) {
            Some(mut sink) => sink.queue(count, |table, slot| match pipe.take() {
                Some(pipe) => table.push_spliced(slot, pipe),
                None => table.queued_bytes(slot),
            }),
            None => Err(Error::Gone),
        };
        if result.is_err() && pipe.is_some() {
            self.context.table.extra_mut(self.slot).spliced = pipe;
            self.context.table.entry_mut(self.slot).flags.set(Flags::FILL, true);
        }
        result
    }

    /// Takes the bytes that were moved into a kernel pipe. The request is fulfilled.
    fn take_spliced(&mut self) -> Option<Box<KernelPipe>> {
        let extra = self.entry()?.extra;
        let pipe = self.context.table.extras.get_mut(extra)?.spliced.take()?;
        self.context.table.entry_mut(self.slot).flags.set(Flags::FILL, false);
        if self.state() == State::Broken {
            // They may have been its last unread bytes: then its error is delivered next.
            self.request(Flags::HANGUP);
        }
        Some(pipe)
    }

    /// Whether bytes are in a kernel pipe and were not passed on.
    pub(super) fn has_spliced(&self) -> bool {
        let extra = self.entry().and_then(|entry| self.context.table.extras.get(entry.extra));
        extra.is_some_and(|extra| extra.spliced.is_some())
    }

    /// These bytes, for a check on the simulated network.
    #[cfg(any(feature = "sim", test))]
    pub(crate) fn spliced(&self) -> Option<&[u8]> {
        let extra = self.context.table.extras.get(self.entry()?.extra)?;
        extra.spliced.as_ref().map(|pipe| pipe.memory())
    }

    /// Whether it is a Unix domain socket, also before it is connected; `false` once it is over.
    /// Such a connection has no reset: a peer can't distinguish one that was cut from one that has
    /// ended.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        let Some(entry) = self.entry() else { return false };
        let connecting = self.context.table.extra(self.slot).and_then(|extra| extra.connecting.as_ref());
        match connecting {
            Some(connecting) => matches!(connecting.target, Target::Unix(_)),
            None => entry.state.is_connected() && self.peer_addr().is_none(),
        }
    }
}
