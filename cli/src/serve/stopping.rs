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
    #[must_use]
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use finale::{Event, Shard};

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: ServeOptions,
    }

    /// A server with these options, which has no shard.
    fn serving(args: &[&str]) -> (Stopping, Reactor) {
        let args = [&["serve", "echo", "--grace", "5s"], args].concat();
        let options = Line::try_parse_from(args).expect("valid options").options;
        let (_, stopper) = Shard::group(Vec::<Reactor>::new());
        (Stopping::new(stopper, &options, Arc::default()), Reactor::new().expect("descriptors are free"))
    }

    #[test]
    fn the_first_signal_grants_the_grace_and_a_second_none() {
        let (mut stopping, mut control) = serving(&[]);
        assert!(!stopping.was_requested());
        assert_eq!(stopping.request(1, &mut control), Some(GRACE));
        assert!(stopping.was_requested());
        assert_eq!(stopping.request(1, &mut control), Some(Duration::ZERO));
        for args in [&[][..], &["--drain-delay", "1h"]] {
            let (mut stopping, mut control) = serving(args);
            assert_eq!(stopping.request(2, &mut control), Some(Duration::ZERO), "two at once");
        }
    }

    #[test]
    fn the_grace_begins_after_the_drain_delay_or_not_at_all() {
        let (mut stopping, mut control) = serving(&["--drain-delay", "1ms"]);
        assert_eq!(stopping.request(1, &mut control), None);
        assert!(stopping.was_requested());
        let other = control.set_timer(Duration::from_secs(3600));
        assert_eq!(stopping.timer(other), None);
        let Some((_, Event::Timer(timer))) = control.next().expect("it works") else { panic!("a timer is set") };
        assert_eq!(stopping.timer(timer), Some(GRACE));
        assert_eq!(stopping.timer(timer), None, "it has begun");
        assert_eq!(stopping.request(1, &mut control), Some(Duration::ZERO));

        let (mut stopping, mut control) = serving(&["--drain-delay", "1h"]);
        assert_eq!(stopping.request(1, &mut control), None);
        assert_eq!(stopping.request(1, &mut control), Some(Duration::ZERO));
    }

    #[test]
    fn the_first_failure_stops_a_server_that_accepts_and_a_signal_may_follow() {
        for args in [&[][..], &["--drain-delay", "1h"]] {
            let (mut stopping, mut control) = serving(args);
            assert_eq!(stopping.failed(), Some(GRACE));
            assert_eq!(stopping.failed(), None);
            assert_eq!(stopping.request(1, &mut control), Some(GRACE), "it does not accept any more");
            assert_eq!(stopping.failed(), None);
        }
        let (mut stopping, mut control) = serving(&["--drain-delay", "1h"]);
        assert_eq!(stopping.request(1, &mut control), None);
        assert_eq!(stopping.failed(), Some(GRACE));
    }

    #[test]
    fn the_grace_after_a_restart_is_that_of_a_stop_unless_it_is_given() {
        for (args, grace) in [(&[][..], GRACE), (&["--restart-grace", "7s"], Duration::from_secs(7))] {
            let (mut stopping, mut control) = serving(args);
            assert_eq!(stopping.replaced(), grace);
            assert_eq!(stopping.request(1, &mut control), Some(GRACE));
        }
    }
}
