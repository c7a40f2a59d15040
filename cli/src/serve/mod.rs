//! `finale serve`: four small services, each of which reads to the client's FIN before it ends, on
//! one reactor or several.
//!
//! Invariant: only a signal ends it. The main thread serves no client: it waits for signals, and
//! controls the shards.

mod defer_accept;
mod metrics;
mod options;
mod restart;
mod service;
mod shards;
mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use finale::{ListenOptions, Reactor, Shard, ShardStopper, StopOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::errors::Error;
use crate::output;
use crate::signals::SignalCount;
use metrics::MetricsRequests;
pub(crate) use options::{Closing, ServeOptions, Service};
use restart::{Restart, Restarted};
use service::Handler;
pub(crate) use service::{LINE, REQUEST_LIMIT_BYTES};
use shards::Running;
use sockets::Sockets;

/// Serves until a signal arrives.
pub(crate) fn run(options: &ServeOptions) -> Result<(), Error> {
    options.check()?;
    let mut listen = ListenOptions::default().close_mode(options.close.into()).idle_timeout(options.idle_timeout);
    if options.service == Service::Answer {
        listen = listen.high_water_mark(service::ANSWER_MARK_BYTES);
    }
    // Now, since an upgrade puts another file at this path.
    let program = std::env::current_exe().map_err(|error| Error::io("find the path of this program", error))?;
    let mut sockets = Sockets::open(options)?;
    let mut reactors = (0..options.shards).map(|_| Reactor::new()).collect::<Result<Vec<_>, _>>()?;
    let addresses = sockets.listen(&mut reactors, &listen)?;
    let (requests, inboxes): (Vec<_>, Vec<_>) = reactors.iter().map(|reactor| reactor.inbox(metrics::REQUESTS)).unzip();
    let mut control = Reactor::new()?;
    // Before the first line: its reader may send a signal at once.
    let watch = |signals: &[i32]| SignalCount::watch(control.waker(), signals);
    let (stops, restarts, reports) = (watch(&[SIGINT, SIGTERM])?, watch(&[SIGHUP])?, watch(&[SIGUSR1])?);
    if !ends_with(options.parent)? {
        return Ok(());
    }
    let live = Arc::new(AtomicUsize::new(0));
    let (shards, orders) = Shard::group(reactors);
    let handlers = inboxes.into_iter().map(|inbox| (Handler::new(options, &live), inbox));
    let running = Running::start(shards.into_iter().zip(handlers).collect(), &orders, &control)?;
    announce(&addresses, sockets.are_inherited())?;
    sockets.take_over();
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log::warn!("can't send READY=1 to NOTIFY_SOCKET: {error}");
    }
    let mut restart = Restart::new(program, sockets, restarts, options.quiet);
    let mut stopping = Stopping { orders, signals: stops, grace: options.grace, has_begun: false, live };
    let mut metrics = MetricsRequests::new(reports, requests, options.json);
    while !running.is_over() && control.next()?.is_some() {
        if !stopping.has_begun && restart.check(&control, stopping.live()) == Restarted::Yes {
            stopping.begin();
        }
        stopping.check();
        if stopping.has_begun {
            restart.give_up();
        }
        metrics.check();
    }
    restart.give_up();
    running.join()
}

/// Prints where the server listens. A parent that has passed the sockets knows it, and may have
/// closed its end of stdout.
fn announce(addresses: &[String], are_inherited: bool) -> Result<(), Error> {
    let lines: String = addresses.iter().map(|address| format!("listening on {address}\n")).collect();
    match output::print(&lines) {
        Err(Error::Stdout(error)) if are_inherited => {
            log::debug!("stdout is closed: {error}");
            Ok(())
        }
        result => result,
    }
}

/// Makes the end of the parent process end this one as SIGTERM does. Returns whether the parent is
/// still alive.
fn ends_with(parent: Option<i32>) -> Result<bool, Error> {
    let Some(parent) = parent else { return Ok(true) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|errno| Error::io("end the server together with its parent", errno.into()))?;
    // It may have ended before the call.
    Ok(rustix::process::getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent))
}

/// What is needed to stop the server.
struct Stopping {
    orders: ShardStopper,
    signals: SignalCount,
    grace: Duration,
    has_begun: bool,
    live: Arc<AtomicUsize>,
}

impl Stopping {
    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Accepts the clients that wait already, and no others.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            log::info!("stopping: {} live connections have {:?}", self.live(), self.grace);
            self.orders.stop(StopOptions::default().grace(None).limit(Some(self.grace)));
        }
    }

    fn check(&mut self) {
        let new = self.signals.take_new();
        if new > 0 {
            self.begin();
        }
        if new > 0 && self.signals.total() > 1 {
            self.orders.stop(StopOptions::default().grace(None).limit(Some(Duration::ZERO)));
        }
    }
}
