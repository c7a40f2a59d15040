//! When a session has to be looked at without an event of its socket: its handshake takes too long,
//! or events wait that could not be delivered.
//!
//! Invariant: one timer of the reactor, for the first of them; none without one.

use std::collections::BTreeSet;
use std::time::Instant;

use finale::{Context, SocketId, TimerId};

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    due: BTreeSet<(Instant, SocketId)>,
    timer: Option<(TimerId, Instant)>,
}

impl Deadlines {
    pub(crate) fn insert(&mut self, at: Instant, id: SocketId) {
        self.due.insert((at, id));
    }

    pub(crate) fn remove(&mut self, at: Instant, id: SocketId) {
        self.due.remove(&(at, id));
    }

    /// Whether this timer is the one of the deadlines, which has expired.
    pub(crate) fn is_own(&mut self, timer: TimerId) -> bool {
        self.timer.take_if(|(own, _)| *own == timer).is_some()
    }

    /// Takes one that is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<SocketId> {
        let first = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&first);
        Some(first.1)
    }

    /// Sets the timer.
    pub(crate) fn arm(&mut self, context: &mut Context<'_>) {
        let first = self.due.first().map(|(at, _)| *at);
        if first == self.timer.map(|(_, at)| at) {
            return;
        }
        if let Some((timer, _)) = self.timer.take() {
            context.cancel_timer(timer);
        }
        let now = context.now();
        self.timer = first.map(|at| (context.set_timer(at.saturating_duration_since(now)), at));
    }
}
