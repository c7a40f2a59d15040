//! `finale serve`: four small services, each of which reads to the client's FIN before it ends, on
//! one reactor or several.
//!
//! Invariant: only a signal or the failure of a shard ends it. The main thread serves no client: it
//! waits for signals, and controls the shards.

mod defer_accept;
mod inherit;
mod ladder;
mod manager;
mod metrics;
mod options;
mod proxy_header;
mod restart;
mod service;
mod shards;
mod socket_file;
mod sockets;
mod stopping;
mod successor;
mod terminal;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use finale::net::Net;
use finale::trace::Recorder;
use finale::{KeepAlive, ListenOptions, Reactor, Shard};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::errors::Error;
use crate::signals::SignalCount;
use crate::{interrupt, log_queue, output};
use manager::Manager;
use metrics::MetricsRequests;
pub(crate) use options::{Closing, ServeOptions, Service};
use restart::{Restart, Restarted};
use service::{Handler, Work};
pub(crate) use service::{LINE, REQUEST_LIMIT_BYTES};
use shards::Running;
use sockets::{Listening, Sockets};
use stopping::Stopping;
use terminal::Terminal;

/// Serves until a signal arrives.
pub(crate) fn run(options: &ServeOptions) -> Result<(), Error> {
    match options.trace {
        None => serve(options, |_| Reactor::new()),
        // Another type of reactor: one that records nothing pays nothing for it.
        Some(_) => serve(options, Recorder::reactor),
    }
}

fn serve<N: Net + Send + 'static>(
    options: &ServeOptions,
    reactor: impl Fn(&Recorder) -> Result<Reactor<N>, finale::Error>,
) -> Result<(), Error> {
    options.check()?;
    log_queue::start(output::name(), output::write_stderr)
        .map_err(|error| Error::io("start a thread for the log", error))?;
    let terminal = Terminal::at_start();
    let listen = listen_options(options);
    let tls = options.tls.open()?;
    let sockets = Sockets::open(options)?;
    let recorders: Vec<_> = (0..options.shards).map(|_| ladder::recorder(options.trace)).collect();
    let mut reactors = recorders.iter().map(reactor).collect::<Result<Vec<_>, _>>()?;
    let Listening { addresses, listeners } = sockets.listen(&mut reactors, &listen)?;
    let (requests, inboxes): (Vec<_>, Vec<_>) = reactors.iter().map(|reactor| reactor.inbox(metrics::REQUESTS)).unzip();
    let control = Reactor::new()?;
    // Before the first line: its reader may send a signal at once.
    let watch = |signals: &[i32]| SignalCount::watch(control.waker(), signals);
    let stops = watch(&[SIGINT, SIGTERM])?;
    // Ignored at the start, as by nohup(1), it stays ignored.
    let hang_ups = if interrupt::is_ignored(SIGHUP) { None } else { Some(watch(&[SIGHUP])?) };
    let reports = watch(&[SIGUSR1])?;
    if !ends_with(options.parent)? {
        return Ok(());
    }
    let live = Arc::new(AtomicUsize::new(0));
    let (shards, stopper) = Shard::group(reactors);
    let (mut work, mut lasts) = (Vec::new(), Vec::new());
    for ((recorder, requests), listeners) in recorders.into_iter().zip(inboxes).zip(&listeners) {
        let tls = tls.as_ref().map(|tls| tls.accept_on(listeners)).transpose()?;
        let last = metrics::Last::default();
        lasts.push(Arc::clone(&last));
        work.push(Work { handler: Handler::new(options, &live, recorder), tls, requests, last });
    }
    let (addresses_are_known, manager) = (sockets.are_inherited(), Manager::from_env());
    // Before clients take the descriptors that a restart needs.
    let mut restart = Restart::new(sockets, tls, &manager, &terminal, options.quiet);
    let running = Running::start(shards.into_iter().zip(work).collect(), &stopper, &control)?;
    announce(&addresses, addresses_are_known)?;
    // A predecessor makes this process the service.
    if !restart.take_over() {
        manager.ready();
    }
    let stopping = Stopping::new(stopper, options, live);
    let metrics = MetricsRequests::new(reports, requests.into_iter().zip(lasts).collect(), options.json);
    Control { reactor: control, manager, restart, stopping, metrics, terminal, stops, hang_ups }.run(running)
}

fn listen_options(options: &ServeOptions) -> ListenOptions {
    let mut listen = ListenOptions::default().close_mode(options.close.into()).idle_timeout(options.idle_timeout);
    listen = listen.user_timeout(options.user_timeout);
    if !options.keep_alive.is_zero() {
        listen = listen.keep_alive(KeepAlive::after(options.keep_alive));
    }
    if options.service == Service::Answer {
        listen = listen.high_water_mark(service::ANSWER_MARK_BYTES);
    }
    listen
}

/// The main thread: what it does at a signal.
struct Control {
    reactor: Reactor,
    manager: Manager,
    restart: Restart,
    stopping: Stopping,
    metrics: MetricsRequests,
    terminal: Terminal,
    stops: SignalCount,
    /// `None`: ignored.
    hang_ups: Option<SignalCount>,
}

impl Control {
    /// Until all shards have ended.
    fn run(mut self, mut running: Running) -> Result<(), Error> {
        while !running.is_over() {
            let Some((_, event)) = self.reactor.next()? else { break };
            if let finale::Event::Timer(timer) = event {
                let grace = self.stopping.timer(timer);
                self.begin(grace);
            }
            self.check_signals();
            if running.check() {
                // The clients of the other shards may end, and no new client waits for this one.
                self.end(|stopping, _| stopping.failed());
            }
            self.metrics.check();
        }
        self.restart.finish();
        running.result()
    }

    fn check_signals(&mut self) {
        let mut stops = self.stops.take_new();
        if self.hang_ups.as_mut().is_some_and(|hang_ups| hang_ups.take_new() > 0) {
            if self.terminal.was_closed() {
                stops += 1;
            } else if !self.stopping.was_requested() {
                self.restart.begin(&self.reactor, &self.manager);
            }
        }
        if stops > 0 {
            self.end(|stopping, control| stopping.request(stops, control));
        } else if self.restart.check(&self.reactor, &self.manager, self.stopping.live()) == Restarted::Yes {
            let grace = self.stopping.replaced();
            self.begin(Some(grace));
        }
    }

    /// The end of the service, unless a new process has taken it over. One that is still starting
    /// ends, too.
    fn end(&mut self, stop: impl FnOnce(&mut Stopping, &mut Reactor) -> Option<Duration>) {
        let is_replaced = self.restart.give_up(&self.manager) == Restarted::Yes;
        let restart_grace = is_replaced.then(|| self.stopping.replaced());
        let is_service = !self.stopping.was_requested() && !self.restart.is_taken_back();
        let grace = stop(&mut self.stopping, &mut self.reactor);
        // The failure of a shard is no reason to stop any more, but the new process is.
        self.begin(grace.or(restart_grace));
        if is_service {
            self.manager.stopping();
        }
    }

    fn begin(&mut self, grace: Option<Duration>) {
        if let Some(grace) = grace {
            // First, since a client that connects to a copy is not accepted any more.
            self.restart.close();
            self.stopping.begin(grace);
        }
    }
}

/// Prints where the server listens. A parent that has passed the sockets knows it, and may have
/// closed its end of stdout, or read nothing from it for a hundred restarts.
fn announce(addresses: &[String], are_inherited: bool) -> Result<(), Error> {
    let lines: String = addresses.iter().map(|address| format!("listening on {address}\n")).collect();
    if !are_inherited {
        return output::print(&lines);
    }
    let print = move || {
        if let Err(error) = output::print(&lines) {
            log::debug!("{error}");
        }
    };
    thread::Builder::new().spawn(print).map(drop).map_err(|error| Error::io("start a thread", error))
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use successor::Successor;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: ServeOptions,
    }

    /// The main thread finds a shard that has failed before it finds that the new process serves.
    #[test]
    fn a_server_whose_shard_fails_in_the_moment_of_a_restart_stops() {
        let options = Line::try_parse_from(["serve", "echo", "--listen", "127.0.0.1:0"]).expect("valid").options;
        let reactor = Reactor::new().expect("descriptors are free");
        let (_, stopper) = Shard::group(Vec::<Reactor>::new());
        let (manager, terminal) = (Manager::new(None), Terminal::at_start());
        let sockets = Sockets::open(&options).expect("a port is free");
        let mut restart = Restart::new(sockets, None, &manager, &terminal, true);
        restart.successor = Some(Successor::that_serves(23));
        let no_signals = || SignalCount::watch(reactor.waker(), &[]).expect("threads are free");
        let (stops, metrics) = (no_signals(), MetricsRequests::new(no_signals(), Vec::new(), false));
        let stopping = Stopping::new(stopper.clone(), &options, Arc::default());
        let mut control = Control { reactor, manager, restart, stopping, metrics, terminal, stops, hang_ups: None };
        control.end(|stopping, _| stopping.failed());
        assert!(stopper.is_stopping(), "the other shards would serve beside the new process for ever");
    }
}
