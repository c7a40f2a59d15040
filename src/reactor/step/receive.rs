//! The part of a step that reads: bytes for the caller, and the peer's FIN.

use super::super::RECEIVE_BYTES;
use super::super::emit::{Emit, EmitKind};
use super::{Outcome, Step, call};
use crate::error::ConnectionError;
use crate::event::FirstFin;
use crate::lifecycle::{Emits, Input, State};
use crate::net::{Net, Received};
use crate::options::IdleDirection;
use crate::table::entry::Flags;

impl<N: Net> Step<'_, N> {
    /// One read, and its event.
    #[inline(always)]
    pub(super) fn read(&mut self) -> Option<Emit> {
        if self.entry.flags.has(Flags::FILL) {
            return self.read_elsewhere();
        }
        self.receive()
    }

    /// One read into the receive buffer.
    #[inline(always)]
    pub(super) fn receive(&mut self) -> Option<Emit> {
        match call(|| self.net.recv(self.slot, self.buffer)) {
            Outcome::Done(received @ Received { bytes: 1.., .. }) => {
                self.note_received(received, self.buffer.len());
                if !self.entry.flags.has(Flags::DISCARD) {
                    return Some(self.data(EmitKind::Of(Emits::Data), received.bytes));
                }
                // It causes no transition. A layer may have to see it.
                self.settings.discards_late.then(|| Emit::new(EmitKind::Of(Emits::Data), received.bytes as u32))
            }
            outcome @ (Outcome::Done(_) | Outcome::WouldBlock | Outcome::Retry | Outcome::Failed(_)) => {
                self.read_nothing(outcome)
            }
        }
    }

    /// One read into the caller's buffer, and its event when that is full or the stream is over.
    #[inline(never)]
    pub(super) fn fill(&mut self) -> Option<Emit> {
        let fill = self.extras.get_mut(self.entry.extra).and_then(|extra| extra.fill.as_deref_mut())?;
        // One step reads at most as much as one without a buffer of the caller usually does: other
        // sockets wait for their turns.
        let rest = fill.len - fill.filled;
        let (from, room) = (fill.filled, rest.min(RECEIVE_BYTES.max(self.buffer.len())));
        let buffer = &mut fill.buffer;
        // Memory is zeroed only where the spare capacity exceeds what may be read.
        let outcome = if buffer.len() == from && buffer.capacity() == from + room {
            call(|| self.net.recv_spare(self.slot, buffer))
        } else {
            buffer.resize(buffer.len().max(from + room), 0);
            call(|| self.net.recv(self.slot, &mut buffer[from..from + room]))
        };
        match outcome {
            Outcome::Done(received @ Received { bytes: 1.., .. }) => {
                fill.filled += received.bytes;
                self.note_received(received, room);
                return if received.bytes == rest { Some(self.filled()) } else { None };
            }
            // The bytes in the buffer are delivered before the end or the error.
            Outcome::Done(_) if from > 0 => {}
            // A broken connection keeps its first error.
            Outcome::WouldBlock | Outcome::Failed(_) if from > 0 && self.entry.state == State::Broken => {}
            Outcome::Failed(error) if from > 0 => self.lose(&error),
            outcome @ (Outcome::Done(_) | Outcome::WouldBlock | Outcome::Retry | Outcome::Failed(_)) => {
                return self.read_nothing(outcome);
            }
        }
        Some(self.filled())
    }

    /// The caller's buffer is full, or the stream is over.
    fn filled(&mut self) -> Emit {
        self.entry.flags.set(Flags::FILL, false);
        self.data(EmitKind::Filled, 0)
    }

    /// Delivers bytes to the caller.
    #[inline(always)]
    pub(super) fn data(&mut self, kind: EmitKind, bytes: usize) -> Emit {
        let emits = self.apply(Input::Data);
        debug_assert_eq!(emits, 1 << Emits::Data as u16);
        Emit::new(kind, bytes as u32)
    }

    /// A read has brought no bytes.
    #[inline(always)]
    pub(super) fn read_nothing(&mut self, outcome: Outcome<Received>) -> Option<Emit> {
        match outcome {
            Outcome::Done(_) => self.read_end(),
            Outcome::WouldBlock if self.entry.state == State::Broken => self.fail_broken(),
            // If a flag reported that the peer has ended, it was spurious.
            Outcome::WouldBlock => {
                self.no_fin_waits();
                let gone = Flags::READ_CLOSED | Flags::HANGUP | Flags::ERROR;
                self.entry.flags.set(Flags::READABLE | gone, false);
            }
            Outcome::Retry => self.retry_later(Flags::READABLE),
            Outcome::Failed(error) => self.fail(ConnectionError::from_os(&error)),
        }
        self.deliver()
    }

    /// Bytes were read into a buffer that had this much room.
    #[inline(always)]
    pub(super) fn note_received(&mut self, Received { bytes, drained }: Received, room: usize) {
        self.entry.bytes_read += bytes as u64;
        self.entry.moved(IdleDirection::Read, self.settings);
        let flags = &mut self.entry.flags;
        // Drained means that the next bytes bring an edge, with these exceptions: the socket is not
        // registered yet; the zero-length read or the error is still to come. If it is not known
        // whose FIN was first, a read that finds nothing shows it.
        let more = !flags.has(Flags::REGISTERED)
            || flags.has(Flags::READ_CLOSED | Flags::HANGUP | Flags::ERROR)
            || self.entry.first_fin == FirstFin::Unknown;
        if drained && !more {
            flags.set(Flags::READABLE, false);
        } else if bytes < room {
            // Another short read decides it, in this turn, so that an end is delivered with the
            // data that it came with. After a full buffer the others come first.
            flags.set(Flags::SOON, true);
        }
    }

    /// A read has returned zero. It is the peer's FIN, unless an error was taken already.
    pub(super) fn read_end(&mut self) {
        if self.entry.state == State::Broken {
            return self.fail_broken();
        }
        if self.entry.first_fin == FirstFin::Neither {
            self.entry.first_fin = FirstFin::Peer;
        }
        self.entry.flags.set(Flags::READABLE, false);
        self.entry.flags.set(Flags::READ_CLOSED, true);
        self.post(Input::Fin);
        if self.entry.state == State::Closing {
            // The peer's FIN came without acknowledging ours: the two crossed.
            let is_known = self.confirm();
            if self.entry.state == State::Closing && self.entry.first_fin == FirstFin::Local && is_known {
                self.entry.first_fin = FirstFin::Both;
            }
        }
    }
}
