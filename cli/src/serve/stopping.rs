//! How the server stops: it continues to accept for a while if --drain-delay says so, ends idle
//! clients over the grace, and resets the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use finale::{Reactor, ShardStopper, StopOptions, TimerId};

use super::options::ServeOptions;
use crate::output::count;

/// What is needed to stop the server.
pub(super) struct Stopping {
    stopper: ShardStopper,
    live: Arc<AtomicUsize>,
    drain_delay: Duration,
    grace: Duration,
    restart_grace: Duration,
    state: State,
    /// Another process serves, and accepts the clients that wait.
    is_replaced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// A signal was received. The server accepts until this timer ends.
    Draining(TimerId),
    /// The listeners are closed without a signal: another process serves, or a shard has failed.
    Closed,
    /// The listeners are closed after a signal.
    Stopping,
}

impl Stopping {
    pub(super) fn new(stopper: ShardStopper, options: &ServeOptions, live: Arc<AtomicUsize>) -> Self {
        let &ServeOptions { drain_delay, grace, restart_grace, .. } = options;
        let restart_grace = restart_grace.unwrap_or(grace);
        Self { stopper, live, drain_delay, grace, restart_grace, state: State::Serving, is_replaced: false }
    }

    /// The connections that have not delivered `close`.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether the server stops or will.
    pub(super) fn was_requested(&self) -> bool {
        self.state != State::Serving
    }

    /// Signals to stop: the first begins it, and a second resets all clients. Returns the grace of
    /// the stop that begins now, if one does.
    pub(super) fn request(&mut self, signals: usize, control: &mut Reactor) -> Option<Duration> {
        let is_second = signals > 1 || matches!(self.state, State::Draining(_) | State::Stopping);
        if !is_second && self.state == State::Serving && !self.drain_delay.is_zero() {
            log::info!("stopping in {:?}, and accepting until then", self.drain_delay);
            self.state = State::Draining(control.set_timer(self.drain_delay));
            return None;
        }
        self.state = State::Stopping;
        Some(if is_second { Duration::ZERO } else { self.grace })
    }

    /// The end of a timer. Returns the same.
    pub(super) fn timer(&mut self, timer: TimerId) -> Option<Duration> {
        if self.state != State::Draining(timer) {
            return None;
        }
        self.state = State::Stopping;
        Some(self.grace)
    }

    /// A shard has failed and can't accept any more. Returns the same.
    pub(super) fn failed(&mut self) -> Option<Duration> {
        if !matches!(self.state, State::Serving | State::Draining(_)) {
            return None;
        }
        self.state = State::Closed;
        Some(self.grace)
    }

    /// Another process serves. Returns the grace for the clients of this one.
    pub(super) const fn replaced(&mut self) -> Duration {
        (self.state, self.is_replaced) = (State::Closed, true);
        self.restart_grace
    }

    /// Stops all shards. Idle clients end between a half and three quarters of the grace: earlier a
    /// request may be on its way, and later the end itself takes its time.
    pub(super) fn begin(&self, grace: Duration) {
        let live = count(self.live() as u64, "connection");
        if grace.is_zero() {
            log::info!("stopping: resetting {live}");
        } else {
            log::info!("stopping: {live} may end within {grace:?}");
        }
        let stop = StopOptions::default().grace(grace / 2).spread(grace / 4).limit(grace);
        self.stopper.stop(stop.accept_backlog(!self.is_replaced));
    }
}
