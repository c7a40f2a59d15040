//! What the program sees of a session: its numbers, its state and its events.
//!
//! Invariant: nothing here changes the socket.

use finale::lifecycle::State;
use finale::{Ending, EndingKind, FirstFin, Socket};

use super::write::is_broken;
use super::{Limit, Next, Owed, Phase, Session};
use crate::failure::TlsFailure;

impl Session {
    pub(crate) const fn is_paused(&self) -> bool {
        self.is_paused || self.is_held
    }

    pub(crate) const fn is_discarding(&self) -> bool {
        self.is_discarding
    }

    /// The socket itself counts only calls before its failure.
    pub(crate) const fn is_destroyed(&self) -> bool {
        self.is_destroyed
    }

    /// Plaintext only: the handshake, tickets and key updates are not the program's.
    pub(crate) fn queued_bytes(&self, socket: &Socket<'_>) -> usize {
        if is_broken(socket) {
            return 0;
        }
        let queued = self.ledger.total() - self.bytes_written(socket);
        self.early.len() + usize::try_from(queued).unwrap_or(usize::MAX)
    }

    /// Whether something has arrived that was not delivered.
    pub(crate) const fn has_unread(&self) -> bool {
        self.received > self.bytes_read || self.owed.end || self.owed.error || self.owed.close
    }

    pub(crate) const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    pub(crate) fn bytes_written(&self, socket: &Socket<'_>) -> u64 {
        self.ledger.taken(socket.bytes_written())
    }

    pub(crate) const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether this limit still applies.
    pub(crate) fn is_within(&self, limit: Limit, socket: &Socket<'_>) -> bool {
        match limit {
            _ if self.is_closed => false,
            Limit::Handshake => self.is_handshaking(),
            Limit::Record(_) => self.failure.is_none() && !self.is_lingering(socket),
        }
    }

    /// Whether a record is incomplete that the program waits for.
    pub(crate) fn has_incomplete_record(&self) -> bool {
        self.is_ready() && self.failure.is_none() && !self.peer_closed && !self.incoming.is_empty()
    }

    /// Our side has ended, and the program discards what the peer still sends.
    fn is_lingering(&self, socket: &Socket<'_>) -> bool {
        self.is_discarding && !self.peer_closed && self.failure.is_none() && socket.end_called()
    }

    /// The state of the stream: connected after the handshake, and half-closed after `end`. A FIN
    /// without close_notify is no end.
    pub(crate) fn state(&self, tcp: State) -> State {
        let has_ended = self.peer_closed && !self.owed.end;
        match tcp {
            tcp if !tcp.is_connected() => tcp,
            _ if self.phase != Phase::Ready => State::Connecting,
            State::Open | State::PeerFinished if has_ended => State::PeerFinished,
            State::Open | State::PeerFinished => State::Open,
            State::Flushing | State::LastFlush if has_ended => State::LastFlush,
            State::Flushing | State::LastFlush => State::Flushing,
            State::LocalFinished | State::Lingering | State::Closing if has_ended => State::Closing,
            State::Closing => State::Lingering,
            tcp => tcp,
        }
    }

    /// Takes the plaintext that waits.
    pub(crate) fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.owed.plain)
    }

    /// Keeps plaintext that could not be delivered.
    pub(crate) fn keep_plain(&mut self, plain: Vec<u8>) {
        self.owed.plain = plain;
    }

    /// What was written before the handshake was done is with the socket.
    const fn has_drained(&self) -> bool {
        matches!(self.phase, Phase::Ready) && self.early.is_empty()
    }

    /// Whether events wait.
    pub(crate) fn owes(&self) -> bool {
        let Owed { ready, drain, plain, end, error, close } = &self.owed;
        *ready || (*drain && self.has_drained()) || !plain.is_empty() || *end || *error || *close
    }

    /// Takes the next event, if it can be delivered. `plain` is the plaintext at hand.
    pub(crate) fn next(&mut self, socket: Option<&Socket<'_>>, plain: &mut Vec<u8>) -> Option<Next> {
        let is_own = self.failure.as_ref().is_some_and(TlsFailure::destroys);
        if !is_own && socket.is_some_and(Socket::destroy_called) {
            self.destroyed();
        }
        if self.is_destroyed {
            plain.clear();
        }
        if self.is_discarding {
            self.bytes_read += plain.len() as u64;
            plain.clear();
        }
        if std::mem::take(&mut self.owed.ready) {
            return Some(Next::Ready);
        }
        if self.has_drained() && std::mem::take(&mut self.owed.drain) {
            return Some(Next::Drain);
        }
        // After `close` nothing can be delivered any more.
        let waits = self.is_paused() && !self.owed.close;
        if !plain.is_empty() {
            self.bytes_read += if waits { 0 } else { plain.len() as u64 };
            return (!waits).then_some(Next::Data);
        }
        if self.owed.end {
            self.owed.end = waits;
            return (!waits).then_some(Next::End);
        }
        if std::mem::take(&mut self.owed.error) {
            return Some(Next::Error);
        }
        std::mem::take(&mut self.owed.close).then_some(Next::Close)
    }

    /// The report for the program, with the stream's numbers of bytes.
    pub(crate) fn ending(&self, tcp: &Ending) -> Ending {
        let mut ending = tcp.clone();
        if let Some(failure) = &self.failure {
            ending.kind = EndingKind::Failed(failure.to_error());
        } else if ending.had_error() && self.is_destroyed {
            ending.kind = EndingKind::Destroyed;
        } else if ending.had_error() {
            // A reset after both ends: whether the peer has read all is unknown.
            ending.kind = EndingKind::HandedOff;
            // The peer's FIN was first, but after a reset neither side keeps TIME_WAIT.
            ending.first_fin = FirstFin::Unknown;
        }
        ending.bytes_read = self.bytes_read;
        ending.bytes_written = self.ledger.taken(tcp.bytes_written);
        ending.bytes_unsent = self.ledger.total() + self.early.len() as u64 + self.in_vain - ending.bytes_written;
        ending
    }
}
