//! What surrounds the load in a real run: clock, signals, progress bar.

use std::time::{Duration, Instant};

use finale::net::os::Os;
use finale::{Reactor, Waker};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load::Environment;
use super::options::BenchOptions;
use crate::errors::{Error, Signal};
use crate::interrupt::Interrupt;
use crate::output;

/// Ten times per second, which costs little compared with thousands of connections.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The environment of a real run.
pub(super) struct Terminal {
    interrupt: Interrupt,
    bar: ProgressBar,
    /// Whether the bar shows time in milliseconds, and not connections.
    by_time: bool,
}

impl Terminal {
    /// From here on a signal ends the run, and not the process.
    pub(super) fn new(remote: Waker, options: &BenchOptions) -> Result<Self, Error> {
        let interrupt = Interrupt::watch(move || drop(remote.wake()))?;
        let total = options.schedule().total();
        let length = total.or(options.duration.map(|time| time.as_millis() as u64));
        let template = match total {
            Some(_) => "  {bar:40}  {human_pos} of {human_len}  {msg}  {eta} left",
            None => "  {bar:40}  {elapsed} of {prefix}  {msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_wrong| ProgressStyle::default_bar());
        // indicatif draws on a terminal only.
        let target = if options.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(length, target).with_style(style);
        bar.set_prefix(options.duration.map_or(String::new(), |time| humantime::format_duration(time).to_string()));
        Ok(Self { interrupt, bar, by_time: total.is_none() })
    }

    /// The signal that has ended the run.
    pub(super) fn signal(&self) -> Option<Signal> {
        self.interrupt.signal()
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Environment<Os> for Terminal {
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The reactor's own wait ends on whole milliseconds. On loopback a millisecond is longer than
    /// most latencies.
    fn doze(&mut self, reactor: &mut Reactor, until: Instant) {
        let until = reactor.next_deadline().map_or(until, |deadline| deadline.min(until));
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        let time = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        // The reactor checks for readiness itself, so the result does not matter.
        let _ = poll(&mut [PollFd::new(&*reactor, PollFlags::IN)], Some(&time));
    }

    fn is_interrupted(&self) -> bool {
        self.signal().is_some()
    }

    fn progress_interval(&self) -> Option<Duration> {
        (!self.bar.is_hidden()).then_some(PROGRESS_INTERVAL)
    }

    fn show(&mut self, finished: u64, elapsed: Duration) {
        let rate = finished as f64 / elapsed.as_secs_f64().max(1e-9);
        self.bar.set_position(if self.by_time { elapsed.as_millis() as u64 } else { finished });
        self.bar.set_message(format!("{} per second", output::thousands(rate.round() as u64)));
    }
}

/// Linux may extend a wait by 50 µs to merge wakeups, which is a good part of a latency on
/// loopback. Child processes inherit this setting, and the measured server should run as it does
/// elsewhere. So this is called after the server was started.
pub(super) fn exact_timers() {
    #[cfg(target_os = "linux")]
    if let Err(errno) = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1)) {
        log::debug!("the timer slack was not changed: {errno}");
    }
}
