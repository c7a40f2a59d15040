//! The part of a step that moves bytes in the kernel: from the source into a pipe, and from a pipe
//! into the sink.
//!
//! Invariant: a pipe belongs to the source until the caller passes it on, and then to the write
//! queue of the sink. So each step has all that it needs, and touches no other socket.

use std::io;

use super::super::RECEIVE_BYTES;
use super::super::emit::{Emit, EmitKind};
use super::{Outcome, Step, call};
use crate::error::ConnectionError;
use crate::lifecycle::Emits;
use crate::net::{KernelPipe, Net, Received};
use crate::table::entry::Flags;

impl<N: Net> Step<'_, N> {
    /// One read into a buffer of the caller or into a kernel pipe.
    #[inline(never)]
    pub(super) fn read_elsewhere(&mut self) -> Option<Emit> {
        match self.extras.get_mut(self.entry.extra) {
            Some(extra) if extra.fill.is_some() => self.fill(),
            Some(extra) => match extra.spliced.take() {
                Some(pipe) => self.unsplice(pipe),
                None => self.splice_in(),
            },
            None => self.splice_in(),
        }
    }

    /// Moves bytes into a kernel pipe. If there are none, or the system can't, a read decides what
    /// comes next.
    fn splice_in(&mut self) -> Option<Emit> {
        let limit = RECEIVE_BYTES.max(self.buffer.len());
        let mut pipe = self.extras.pipes().take();
        let outcome = call(|| self.net.splice_in(self.slot, &mut pipe, limit));
        if let Outcome::Done(bytes @ 1..) = outcome {
            self.extra_mut().spliced = pipe;
            // Fewer bytes than the limit prove nothing: a pipe can be full of small pieces.
            self.note_received(Received { bytes, drained: false }, limit);
            return Some(self.data(EmitKind::Spliced, bytes));
        }
        if let Some(pipe) = pipe {
            self.extras.pipes().put(pipe);
        }
        match outcome {
            // What a read brings ends the request.
            Outcome::Done(_) | Outcome::WouldBlock => {
                let emit = self.receive();
                if emit.as_ref().is_some_and(Emit::is_data) {
                    self.entry.flags.set(Flags::FILL, false);
                }
                emit
            }
            Outcome::Retry => self.read_nothing(Outcome::Retry),
            Outcome::Failed(error) => self.read_nothing(Outcome::Failed(error)),
        }
    }

    /// The caller has not passed on what is in the pipe: it is delivered as data. The pipe has bytes,
    /// so the read does not wait, and no signal interrupts it.
    fn unsplice(&mut self, mut pipe: Box<KernelPipe>) -> Option<Emit> {
        match pipe.read(self.buffer) {
            Ok(bytes) => {
                match pipe.is_empty() {
                    true => {
                        self.entry.flags.set(Flags::FILL, false);
                        self.extras.pipes().put(pipe);
                    }
                    false => self.extra_mut().spliced = Some(pipe),
                }
                Some(self.data(EmitKind::Of(Emits::Data), bytes))
            }
            Err(error) => {
                self.fail(ConnectionError::from_os(&error));
                self.deliver()
            }
        }
    }

    /// Sends bytes of the kernel pipe that is first in the queue.
    #[inline(never)]
    pub(super) fn splice_out(&mut self, quantum: &mut usize, last: bool) {
        let Some(queue) = self.extras.get_mut(self.entry.extra).map(|extra| &mut extra.queue) else { return };
        let waiting = queue.len();
        let Some(pipe) = queue.first_pipe() else { return };
        let limit = pipe.len().min(*quantum);
        let mut outcome = call(|| self.net.splice_out(self.slot, pipe, limit, last && limit == waiting));
        if matches!(&outcome, Outcome::Failed(error) if error.kind() == io::ErrorKind::InvalidInput) {
            // This socket can't take them from a pipe.
            match queue.unsplice_first() {
                Ok(()) => return,
                Err(error) => outcome = Outcome::Failed(error),
            }
        }
        if let Outcome::Done(bytes) = outcome {
            *quantum = quantum.saturating_sub(bytes);
            self.extras.sent(self.entry.extra, bytes);
        }
        self.sent(outcome);
    }
}
