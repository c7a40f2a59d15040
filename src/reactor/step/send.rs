//! The part of a step that writes: bytes, our FIN, and its confirmation.

use std::io::{self, IoSlice};

use super::{Outcome, Step, call};
use crate::error::ConnectionError;
use crate::event::FirstFin;
use crate::lifecycle::{Input, State};
use crate::net::{Net, Unread};
use crate::options::{CloseMode, IdleDirection};
use crate::table::entry::{Flags, NIL};
use crate::table::queue::{PIECES, WriteQueue};

/// The most bytes that one socket sends in one step, so that a fast peer does not block the loop.
const SEND_QUANTUM_BYTES: usize = 1024 * 1024;

/// The most drains of a broken connection without a byte read between them: about a third of a
/// second. A program that has kept the rest of an answer has the time to come to its end, and to
/// read what is left.
const VOID_DRAINS: u8 = 16;

/// Sends several queued pieces with one call. `last`: our FIN follows the last byte.
#[inline(never)]
fn send_pieces(net: &mut impl Net, slot: u32, queue: &WriteQueue, quantum: usize, last: bool) -> Outcome<usize> {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let (count, bytes) = queue.gather(&mut pieces, quantum);
    let more = last && bytes == queue.len();
    match &pieces[..count] {
        [piece] => call(|| net.send(slot, piece, more)),
        pieces => call(|| net.send_vectored(slot, pieces, more)),
    }
}

impl<N: Net> Step<'_, N> {
    /// Sends queued bytes, and our FIN after them if the caller has ended.
    #[inline(always)]
    pub(in crate::reactor) fn flush(&mut self) {
        if !self.entry.flags.has(Flags::WRITABLE) || !self.entry.state.can_send() {
            return;
        }
        let last = self.entry.state.is_flushing();
        if !self.extras.at_hand_bytes.is_empty() {
            let outcome = call(|| self.net.send(self.slot, &self.extras.at_hand_bytes, last));
            if let Outcome::Done(bytes) = outcome {
                // The rest waits for room, in a queue of its own.
                self.extras.spill(&mut self.entry.extra, bytes);
            }
            self.sent(outcome);
        }
        if self.entry.extra != NIL {
            self.flush_queue();
        }
        let owes_fin = self.entry.state.is_flushing() && self.queued_bytes() == 0;
        if owes_fin && self.entry.flags.has(Flags::WRITABLE) {
            self.finish();
        }
    }

    #[inline(never)]
    fn flush_queue(&mut self) {
        let last = self.entry.state.is_flushing();
        let mut quantum = SEND_QUANTUM_BYTES;
        while quantum > 0
            && self.entry.state.can_send()
            && self.entry.flags.has(Flags::WRITABLE)
            && let Some(extra) = self.extras.get(self.entry.extra).filter(|extra| extra.has_bytes())
        {
            if extra.queue.starts_with_pipe() {
                self.splice_out(&mut quantum, last);
                continue;
            }
            let outcome = match extra.queue.single() {
                Some(bytes) => {
                    let now = &bytes[..bytes.len().min(quantum)];
                    call(|| self.net.send(self.slot, now, last && now.len() == bytes.len()))
                }
                None => send_pieces(self.net, self.slot, &extra.queue, quantum, last),
            };
            if let Outcome::Done(bytes) = outcome {
                quantum = quantum.saturating_sub(bytes);
                self.extras.sent(self.entry.extra, bytes);
            }
            self.sent(outcome);
        }
    }

    /// Handles the result of a send.
    #[inline(always)]
    pub(super) fn sent(&mut self, outcome: Outcome<usize>) {
        match outcome {
            Outcome::Done(bytes) => {
                self.entry.bytes_written += bytes as u64;
                self.entry.moved(IdleDirection::Write, self.settings);
                self.check_drained();
                // Released at once: the next answer finds the same buffer still in the processor's
                // cache.
                self.extras.release_if_empty(&mut self.entry.extra);
            }
            Outcome::WouldBlock => self.entry.flags.set(Flags::WRITABLE, false),
            Outcome::Retry => self.retry_later(Flags::WRITABLE),
            Outcome::Failed(error) => self.lose(&error),
        }
    }

    /// Whether the queue has drained to the low-water mark. Of a broken connection it is empty: then
    /// the drain waits for its time, and what can be read comes first.
    #[inline]
    pub(super) fn check_drained(&mut self) {
        let waits = || {
            let is_late = self.extra().is_some_and(|extra| extra.retry_at.is_some());
            self.entry.state == State::Broken && (is_late || self.entry.has_input())
        };
        if self.entry.flags.has(Flags::FULL) && self.queued_bytes() <= self.settings.low_water_bytes && !waits() {
            self.drained();
        }
    }

    /// The write queue has room again, for a caller that can still write.
    #[inline(never)]
    pub(super) fn drained(&mut self) {
        if !self.entry.flags.replace(Flags::FULL, false) || self.entry.flags.has(Flags::END) {
            return;
        }
        match self.entry.state == State::Broken && self.only_writes() {
            true => self.fail_broken(),
            false => self.post(Input::Drained),
        }
    }

    /// Counts a drain of a broken connection. Whether its caller has paused it, fills the queue again
    /// and again, and reads nothing: it would do so for as long as it has something to write.
    fn only_writes(&mut self) -> bool {
        let (read, extra) = (self.entry.bytes_read, self.extra_mut());
        let (last, drains) = extra.void_drains;
        let drains = if read == last { drains.saturating_add(1) } else { 1 };
        extra.void_drains = (read, drains);
        drains > VOID_DRAINS && self.entry.flags.has(Flags::PAUSED)
    }

    /// The kernel has every byte: sends our FIN, or calls close(2) instead.
    pub(super) fn finish(&mut self) {
        if self.entry.state == State::LastFlush && self.settings.close == CloseMode::HandOff {
            return self.leave_to_kernel();
        }
        let mut first = self.entry.first_fin;
        if first == FirstFin::Neither {
            first = match self.first_if_ours_leaves() {
                Ok(first) => first,
                Err(error) => return self.lose(&error),
            };
        }
        match call(|| self.net.finish(self.slot)) {
            Outcome::Done(()) | Outcome::WouldBlock => {
                self.entry.first_fin = first;
                self.post(Input::FinSent);
                self.linger();
                if self.entry.state == State::Closing {
                    self.confirm();
                }
            }
            Outcome::Retry => self.retry_later(Flags::WRITABLE),
            Outcome::Failed(error) => {
                // ENOTCONN means only that the connection is over; the error that ended it may
                // still be pending.
                let error = self.net.take_error(self.slot).unwrap_or(error);
                self.lose(&error);
            }
        }
    }

    /// Whose FIN is first if ours is sent now. Unknown if unread bytes may precede the peer's.
    fn first_if_ours_leaves(&mut self) -> io::Result<FirstFin> {
        if self.entry.flags.has(Flags::READ_CLOSED) {
            return Ok(FirstFin::Peer);
        }
        match call(|| self.net.peek(self.slot)) {
            Outcome::Done(Unread::End) => Ok(FirstFin::Peer),
            Outcome::Done(Unread::Nothing) | Outcome::WouldBlock => Ok(FirstFin::Local),
            Outcome::Done(Unread::Bytes) | Outcome::Retry => Ok(FirstFin::Unknown),
            Outcome::Failed(error) => Err(error),
        }
    }

    /// Both sides have finished: queries whether the peer's kernel has acknowledged that. Returns
    /// whether there was a result.
    pub(super) fn confirm(&mut self) -> bool {
        if self.settings.close == CloseMode::HandOff {
            self.leave_to_kernel();
            return true;
        }
        match call(|| self.net.acknowledged(self.slot)) {
            Outcome::Done(true) => {
                self.net.close(self.slot);
                self.post(Input::Acknowledged);
            }
            Outcome::Done(false) | Outcome::WouldBlock => {}
            Outcome::Retry => {
                self.retry_later(Flags::HANGUP);
                return false;
            }
            Outcome::Failed(error) => self.fail(ConnectionError::from_os(&error)),
        }
        true
    }

    pub(super) fn leave_to_kernel(&mut self) {
        self.net.close(self.slot);
        self.post(Input::LeftToKernel);
    }

    /// A read has found nothing, so no FIN of the peer waited behind unread bytes when ours left.
    pub(super) fn no_fin_waits(&mut self) {
        if self.entry.first_fin == FirstFin::Unknown {
            self.entry.first_fin = FirstFin::Local;
        }
    }

    /// Linux reports a reset after the peer's FIN as EPIPE (tcp_reset), whichever call finds it.
    /// Elsewhere, and for a Unix domain socket, that error says nothing of a FIN.
    pub(super) fn note_fin_before(&mut self, error: &io::Error) {
        let is_linux_tcp = || cfg!(target_os = "linux") && self.entry.peer(&self.extras.ipv6_peers).is_some();
        if error.kind() == io::ErrorKind::BrokenPipe && self.entry.first_fin == FirstFin::Neither && is_linux_tcp() {
            self.entry.first_fin = FirstFin::Peer;
        }
    }

    /// The peer's FIN is known, and perhaps will not be read: a limit ends the connection, or the
    /// caller.
    pub(super) fn note_unread_fin(&mut self) {
        let (state, flags) = (self.entry.state, self.entry.flags);
        // With an error it was a reset.
        let is_fin = flags.has(Flags::READ_CLOSED) && !flags.has(Flags::ERROR);
        let is_alive = state.is_connected() && state != State::Broken;
        if is_fin && is_alive && self.entry.first_fin == FirstFin::Neither {
            self.entry.first_fin = FirstFin::Peer;
        }
    }
}
