//! The world around the load: the clock, the signals, the terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use finale::net::os::Os;
use finale::{Reactor, Waker};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Bench;
use super::load::Outside;
use super::page;
use super::schedule::Schedule;
use crate::serve;
use crate::trouble::Trouble;

/// Ten pictures a second move, and cost nothing beside thousands of connections.
const GLANCE: Duration = Duration::from_millis(100);

/// The real one.
pub(super) struct Terminal {
    signals: Arc<AtomicUsize>,
    bar: ProgressBar,
    /// The bar's length is a time in milliseconds, not a number of connections.
    by_time: bool,
}

impl Terminal {
    /// From now on SIGINT and SIGTERM end the run, not the process.
    pub(super) fn new(remote: Waker, options: &Bench) -> Result<Self, Trouble> {
        let signals = serve::watch_signals(remote, &[SIGINT, SIGTERM])?;
        let total = Schedule::new(options.rate, options.connections, options.duration).total();
        let length = total.or(options.duration.map(|time| time.as_millis() as u64));
        let template = match total {
            Some(_) => "  {bar:40}  {human_pos} of {human_len}  {msg}  {eta} left",
            None => "  {bar:40}  {elapsed} of {prefix}  {msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_wrong| ProgressStyle::default_bar());
        // Nothing on a pipe: indicatif looks for itself.
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_prefix(options.duration.map_or(String::new(), |time| humantime::format_duration(time).to_string()));
        Ok(Self { signals, bar, by_time: total.is_none() })
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Outside<Os> for Terminal {
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The reactor's own wait ends on whole milliseconds; a start that is a millisecond late would
    /// be most of a latency.
    fn doze(&mut self, reactor: &mut Reactor, until: Instant) {
        let until = reactor.next_deadline().map_or(until, |deadline| deadline.min(until));
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        let time = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        // However it ends, the reactor looks for itself.
        let _ = poll(&mut [PollFd::new(&*reactor, PollFlags::IN)], Some(&time));
    }

    fn is_interrupted(&self) -> bool {
        self.signals.load(Ordering::Acquire) > 0
    }

    fn glance(&self) -> Option<Duration> {
        (!self.bar.is_hidden()).then_some(GLANCE)
    }

    fn show(&mut self, finished: u64, elapsed: Duration) {
        let rate = finished as f64 / elapsed.as_secs_f64().max(1e-9);
        self.bar.set_position(if self.by_time { elapsed.as_millis() as u64 } else { finished });
        self.bar.set_message(format!("{} a second", page::thousands(rate.round() as u64)));
    }
}

/// Linux lets a wait be 50 µs longer than asked, to merge wake-ups; that would be a good part of a
/// latency on loopback. Child processes inherit it, and a server that is measured should be as it
/// is elsewhere: so it is said after it was started.
pub(super) fn exact_timers() {
    #[cfg(target_os = "linux")]
    if let Err(errno) = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1)) {
        log::debug!("timers stay as exact as they are: {errno}");
    }
}
