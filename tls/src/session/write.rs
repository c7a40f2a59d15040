//! What the program writes: records, and close_notify before our FIN.
//!
//! Invariant: a write is queued whole or not at all. What was encrypted and then dropped would make
//! all that follows invalid.

use finale::lifecycle::State;
use finale::{Backpressure, Error, Socket};

use super::{GIVEN_BYTES, Phase, SHARED_BYTES, Session};
use crate::failure::TlsFailure;
use crate::record::{Output, RECORD_BYTES, What};

/// Whether the connection has failed and the program doesn't know it yet. What waited was lost.
pub(super) fn is_broken(socket: &Socket<'_>) -> bool {
    socket.state() == State::Broken
}

fn is_full(socket: &Socket<'_>) -> bool {
    socket.queued_bytes() >= socket.write_limit()
}

/// Our last bytes don't wait for room: only after our end the close timeout counts.
fn lift_limit(socket: &mut Socket<'_>) {
    if is_full(socket) {
        socket.set_write_limit(usize::MAX);
    }
}

impl Session {
    pub(crate) fn write(
        &mut self,
        socket: &mut Socket<'_>,
        parts: &[&[u8]],
        out: &mut Output,
    ) -> Result<Backpressure, Error> {
        if self.end_called {
            return Err(Error::WriteAfterEnd);
        }
        let count: usize = parts.iter().map(|part| part.len()).sum();
        if is_broken(socket) || self.failure.is_some() || self.is_closed {
            return self.write_in_vain(socket, parts, count);
        }
        let now = socket.write(&[])?;
        let queued_bytes = self.early.len() + socket.queued_bytes();
        let limit_bytes = socket.write_limit();
        if count == 0 {
            return Ok(now);
        }
        if queued_bytes >= limit_bytes {
            return Err(Error::QueueFull { queued_bytes, limit_bytes });
        }
        if self.phase == Phase::Ready && self.early.is_empty() {
            return self.write_all(socket, parts, out);
        }
        parts.iter().for_each(|part| self.early.extend_from_slice(part));
        let is_full = self.early.len() >= socket.high_water_mark();
        Ok(if is_full { Backpressure::Full } else { Backpressure::Room })
    }

    /// Encrypts the parts as one stream, in records that are as large as possible, and queues all of
    /// them at once: the socket takes a write whole or not at all.
    pub(super) fn write_all(
        &mut self,
        socket: &mut Socket<'_>,
        parts: &[&[u8]],
        out: &mut Output,
    ) -> Result<Backpressure, Error> {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        self.awaits_answer = false;
        if count <= SHARED_BYTES {
            out.clear();
            self.encrypt(socket, parts, out)?;
            let write = |socket: &mut Socket<'_>| match count < GIVEN_BYTES {
                true => socket.write(out.filled()),
                false => socket.write_owned(out.give()),
            };
            return self.queue(socket, count, out.filled().len(), write);
        }
        let mut own = Output::with_capacity(count + (count / RECORD_BYTES + 2) * 64);
        self.encrypt(socket, parts, &mut own)?;
        self.queue(socket, count, own.filled().len(), |socket| socket.write_owned(own.give()))
    }

    fn encrypt(&mut self, socket: &mut Socket<'_>, parts: &[&[u8]], out: &mut Output) -> Result<(), Error> {
        let mut joined = Vec::new();
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            let mut rest = *part;
            while !rest.is_empty() {
                let whole = if index == last { rest.len() } else { rest.len() - rest.len() % RECORD_BYTES };
                let piece;
                if joined.is_empty() && whole > 0 {
                    (piece, rest) = rest.split_at(whole);
                    self.record(socket, piece, out)?;
                } else {
                    (piece, rest) = rest.split_at(rest.len().min(RECORD_BYTES - joined.len()));
                    joined.extend_from_slice(piece);
                    if joined.len() == RECORD_BYTES {
                        self.record(socket, &joined, out)?;
                        joined.clear();
                    }
                }
            }
        }
        if joined.is_empty() { Ok(()) } else { self.record(socket, &joined, out) }
    }

    fn record(&mut self, socket: &mut Socket<'_>, plain: &[u8], out: &mut Output) -> Result<(), Error> {
        self.connection.send(&mut self.incoming, What::Data(plain), out).map_err(|error| {
            out.clear();
            self.fail(socket, TlsFailure::of(error, false), out);
            Error::Gone
        })
    }

    /// Nothing can be sent any more. A write is no error until the program has seen that: data that
    /// came before can be delivered, and answered, meanwhile. A socket that has broken counts the
    /// bytes, and delivers some drains. If the stream has failed, the first one has a
    /// drain, and the error follows.
    fn write_in_vain(&mut self, socket: &mut Socket<'_>, parts: &[&[u8]], count: usize) -> Result<Backpressure, Error> {
        let is_over = self.failure.is_some() || self.is_closed;
        if is_over && !self.owed.error && !self.owed.close {
            return Err(Error::Gone);
        }
        if !is_over {
            self.in_vain = self.in_vain.saturating_add(count as u64);
            return socket.write_parts(parts);
        }
        let high_water = socket.high_water_mark().max(1) as u64;
        let before = self.in_vain / high_water;
        self.in_vain = self.in_vain.saturating_add(count as u64);
        if self.in_vain / high_water == before {
            return Ok(Backpressure::Room);
        }
        self.owed.drain |= before == 0;
        Ok(Backpressure::Full)
    }

    fn queue(
        &mut self,
        socket: &mut Socket<'_>,
        plaintext: usize,
        ciphertext: usize,
        write: impl FnOnce(&mut Socket<'_>) -> Result<Backpressure, Error>,
    ) -> Result<Backpressure, Error> {
        let taken = socket.bytes_written();
        let state = write(socket)?;
        self.ledger.note(ciphertext, plaintext, taken);
        Ok(state)
    }

    /// Queues what rustls wants to send by itself. Returns whether there was room.
    pub(super) fn send_records(&mut self, socket: &mut Socket<'_>, out: &mut Output) -> bool {
        let count = out.filled().len();
        let has_room = count == 0
            || !matches!(
                self.queue(socket, 0, count, |socket| socket.write(out.filled())),
                Err(Error::QueueFull { .. })
            );
        out.clear();
        has_room
    }

    pub(crate) fn end(&mut self, socket: &mut Socket<'_>, out: &mut Output) {
        if std::mem::replace(&mut self.end_called, true) || self.failure.is_some() {
            return;
        }
        if self.phase == Phase::Ready {
            self.flush_early(socket, out);
        }
    }

    /// What was written before the handshake was done, and our end if it was called.
    pub(super) fn flush_early(&mut self, socket: &mut Socket<'_>, out: &mut Output) {
        if self.end_called {
            lift_limit(socket);
        } else if is_full(socket) && !self.early.is_empty() {
            return; // It follows at `drain`.
        }
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            // A failure here is an event of its own.
            let _ = self.write_all(socket, &[&early], out);
        }
        // Full, or requested: now the socket's own queue decides.
        let wants_drain = std::mem::take(&mut self.owed.drain) || early.len() >= socket.high_water_mark();
        self.owed.drain = wants_drain && !self.end_called && !socket.request_drain();
        if self.end_called {
            self.finish(socket, out);
        }
    }

    /// close_notify and our FIN, after the last record.
    fn finish(&mut self, socket: &mut Socket<'_>, out: &mut Output) {
        if socket.end_called() {
            return;
        }
        out.clear();
        if self.connection.send(&mut self.incoming, What::CloseNotify, out).is_ok() {
            lift_limit(socket);
            self.send_records(socket, out);
        }
        socket.end();
    }
}
