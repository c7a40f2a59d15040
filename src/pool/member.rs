//! What a pool knows of one of its sockets.
//!
//! Invariant: a member is opening, ready, leased or ending. It is leased under one ticket.

use std::time::{Duration, Instant};

use super::reply::{RetrySafety, Ticket};
use crate::lifecycle::State;
use crate::rng::Rng;
use crate::stream::Stream;

/// One socket of the pool.
#[derive(Debug, Clone, Copy)]
pub(super) enum Member {
    Opening,
    Ready(Age),
    Leased(Lease),
    /// It is ending, and what its borrower has written may still be on its way.
    Leaving,
    /// It is ending, and was not in use: nothing is lost if it is reset.
    Spent,
}

/// Since when a ready socket is established, and unused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Age {
    pub(super) established: Clock,
    pub(super) unused: Clock,
    /// The server has sent bytes on it.
    pub(super) has_served: bool,
}

/// A time that counts from the pool's next look at the clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) since: Option<Instant>,
    /// When its limit expires.
    pub(super) until: Option<Instant>,
}

impl Clock {
    /// Starts it, unless it runs. Each clock has its own part of the limit, so that sockets that
    /// were opened together are not replaced together.
    pub(super) fn start(&mut self, now: Instant, limit: Option<Duration>, dice: &mut Rng) {
        if self.since.is_none() {
            self.since = Some(now);
            self.until = limit.and_then(|limit| now.checked_add(from_half(limit, dice)));
        }
    }

    pub(super) fn is_over(self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// A random time from half of this one to all of it.
pub(super) fn from_half(time: Duration, dice: &mut Rng) -> Duration {
    let half = time / 2;
    half + up_to(half, dice)
}

/// A random time up to this one.
pub(super) fn up_to(time: Duration, dice: &mut Rng) -> Duration {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(dice.below(nanos.saturating_add(1)))
}

/// A lease, and what its socket has read and written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) ticket: Ticket,
    pub(super) age: Age,
    /// Bytes read and written when it was leased.
    read: u64,
    written: u64,
    /// Bytes written when the last bytes were read; at first those written before the lease.
    answered: u64,
}

impl Lease {
    pub(super) fn new(ticket: Ticket, age: Age, socket: &impl Stream) -> Self {
        let (read, written) = (socket.bytes_read(), socket.bytes_written());
        Self { ticket, age, read, written, answered: written }
    }

    /// Bytes of an answer were read.
    pub(super) fn has_read(&mut self, socket: &impl Stream) {
        self.answered = socket.bytes_written();
    }

    /// Whether the server has sent bytes in this lease.
    pub(super) const fn has_served(&self, bytes_read: u64) -> bool {
        bytes_read > self.read
    }

    /// Whether the last bytes that were written have no answer yet.
    pub(super) fn is_unanswered(&self, socket: &impl Stream) -> bool {
        socket.bytes_written() > self.answered
    }

    pub(super) const fn retry_safety(&self, bytes_read: u64, bytes_written: u64) -> RetrySafety {
        if bytes_read > self.read {
            RetrySafety::Unsafe
        } else if bytes_written > self.written {
            RetrySafety::IfIdempotent
        } else {
            RetrySafety::Safe
        }
    }
}

/// Whether a socket can serve another request.
pub(super) fn can_serve(socket: &mut impl Stream) -> bool {
    let is_open = socket.state() == State::Open && !socket.end_called() && !socket.peer_ended();
    let is_read = !socket.is_paused() && !socket.is_discarding() && !socket.socket().is_filling();
    is_open && is_read && !socket.destroy_called() && socket.queued_bytes() == 0
}

/// Whether the peer has ended or broken the connection of a lease.
pub(super) fn was_dropped(socket: &impl Stream) -> bool {
    let is_ours = socket.end_called() || socket.destroy_called();
    socket.peer_ended() || (socket.state() != State::Open && !is_ours)
}

/// Ends it in order. What the peer still sends is dropped.
pub(super) fn leave(socket: &mut impl Stream) {
    socket.discard();
    socket.end();
}
