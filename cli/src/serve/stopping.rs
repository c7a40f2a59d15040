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

    /// Signals to stop: the first begins it, and a second resets all clients. Returns the stop that
    /// begins now, if one does.
    pub(super) fn request(&mut self, signals: usize, control: &mut Reactor) -> Option<StopOptions> {
        let is_second = signals > 1 || matches!(self.state, State::Draining(_) | State::Stopping);
        if !is_second && self.state == State::Serving && !self.drain_delay.is_zero() {
            log::info!("stopping in {:?}, and accepting until then", self.drain_delay);
            self.state = State::Draining(control.set_timer(self.drain_delay));
            return None;
        }
        self.state = State::Stopping;
        Some(self.stop(if is_second { Duration::ZERO } else { self.grace }))
    }

    /// A shard has failed and can't accept any more. Returns the stop that begins now, if one does.
    pub(super) fn failed(&mut self) -> Option<StopOptions> {
        if !matches!(self.state, State::Serving | State::Draining(_)) {
            return None;
        }
        self.state = State::Closed;
        Some(self.stop(self.grace))
    }

    /// The end of a timer. Returns the stop that begins now, if one does.
    pub(super) fn timer(&mut self, timer: TimerId) -> Option<StopOptions> {
        if self.state != State::Draining(timer) {
            return None;
        }
        self.state = State::Stopping;
        Some(self.stop(self.grace))
    }

    /// Another process serves.
    pub(super) fn replaced(&mut self) -> StopOptions {
        (self.state, self.is_replaced) = (State::Closed, true);
        self.stop(self.restart_grace)
    }

    /// Idle clients end between a half and three quarters of the grace: earlier a request may be on
    /// its way, and later the end itself takes its time.
    fn stop(&self, grace: Duration) -> StopOptions {
        match grace {
            Duration::ZERO => log::info!("stopping: resetting {}", count(self.live() as u64, "connection")),
            grace => log::info!("stopping: {} may end within {grace:?}", count(self.live() as u64, "connection")),
        }
        StopOptions::default().grace(grace / 2).spread(grace / 4).accept_backlog(!self.is_replaced).limit(grace)
    }

    /// Stops all shards.
    pub(super) fn begin(&self, stop: StopOptions) {
        self.stopper.stop(stop);
    }
}
