//! A whole service: an API and a page for notes, with a database, uploads, live events, metrics and
//! a restart that loses no request. The guide to it: docs/guides/service.md. Run it: `cargo run -p
//! notes -- --plain`.

mod database;
mod events;
#[path = "../../common/log.rs"]
mod log;
mod metrics;
mod options;
mod reply;
mod restart;
mod routes;
mod schema;
mod service;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use finale::{Event, Inbox, ListenerId, Reactor, Sender, StopOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::database::Database;
use crate::log::Log;
use crate::options::Options;
use crate::restart::Listening;
use crate::service::Service;

/// The present kind of socket.
pub(crate) type Sock<'a> = finale::Socket<'a>;

/// What the operator wants, and what became of it.
#[derive(Debug)]
pub(crate) enum Control {
    Signal(i32),
    /// The process id of the successor that serves, or why there is none.
    Restarted(Result<u32, String>),
}

/// Signals and results of restarts that wait. Each kind of signal needs one place.
const CONTROLS: usize = 16;
/// How often the service looks for changes that another process has made, and more rarely sends a
/// heartbeat.
const TICK: Duration = Duration::from_secs(1);
/// A keep-alive client gets this long to send its next request after a stop or a restart; its
/// answer says that it is the last. A restart is in no hurry.
const STOP_GRACE: Duration = Duration::from_secs(1);
const RESTART_GRACE: Duration = Duration::from_secs(10);
/// Requests that were not answered by then are lost.
const STOP_LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "notes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let mut listening = Listening::open(options.listen)?;
    let (database, answers) = Database::open(&options.data, options.max_pending, &reactor)?;
    let listener = reactor.adopt(listening.copy()?, service::listen_options(options))?;
    let (sender, control) = reactor.inbox(CONTROLS);
    watch_signals(sender.clone())?;
    let mut log = Log::new();
    log.line(format_args!("notes[{}]: listening on http://{}", std::process::id(), listener.addr));
    listening.report_ready();

    let mut service = Service::new(options, database, answers, log);
    let mut operator = Operator { listener: listener.id, listening, control, sender, is_stopping: false };
    reactor.set_timer(TICK);
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => {
                service.take_answers(&mut socket);
                if !operator.obey(&mut reactor, &mut service)? {
                    break;
                }
            }
            Event::Timer(_) => {
                service.tick(&mut socket);
                socket.set_timer(TICK);
            }
            Event::ListenerClosed(_) => break,
            event => service.handle(&mut socket, event),
        }
        service.answer_metrics(&mut reactor);
    }
    Ok(())
}

/// A thread waits for signals, since a signal handler may do almost nothing.
fn watch_signals(sender: Sender<Control>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR2])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // A full inbox has signals enough.
            let _ = sender.send(Control::Signal(signal));
        }
    });
    Ok(())
}

/// What is done for the operator of the service.
struct Operator {
    listener: ListenerId,
    listening: Listening,
    control: Inbox<Control>,
    sender: Sender<Control>,
    is_stopping: bool,
}

impl Operator {
    /// Does what was sent meanwhile. Returns whether the service continues.
    fn obey(&mut self, reactor: &mut Reactor, service: &mut Service) -> Result<bool, finale::Error> {
        while let Some(control) = self.control.take() {
            match control {
                Control::Signal(SIGINT | SIGTERM) if self.is_stopping => return Ok(false),
                Control::Signal(SIGINT | SIGTERM) => {
                    service.log("stopping");
                    self.stop(reactor, service, StopOptions::default().grace(STOP_GRACE))?;
                }
                Control::Signal(SIGUSR2) if !self.is_stopping => match self.listening.restart(self.sender.clone()) {
                    Ok(()) => service.log("restarting"),
                    Err(why) => service.log(&format!("not restarted: {why}")),
                },
                Control::Signal(_) => service.log("there is no certificate to reload"),
                Control::Restarted(Ok(pid)) => {
                    service.log(&format!("process {pid} serves"));
                    // The connections that wait in the backlog are the other process's.
                    let stop = StopOptions::default().grace(RESTART_GRACE).spread(RESTART_GRACE);
                    self.stop(reactor, service, stop.accept_backlog(false))?;
                }
                Control::Restarted(Err(why)) => {
                    self.listening.is_restarting = false;
                    service.log(&format!("not restarted, this process continues to serve: {why}"));
                }
            }
        }
        Ok(true)
    }

    fn stop(&mut self, reactor: &mut Reactor, service: &mut Service, stop: StopOptions) -> Result<(), finale::Error> {
        if !std::mem::replace(&mut self.is_stopping, true) {
            service.stop(reactor);
            reactor.stop_listener(self.listener, stop.limit(STOP_LIMIT))?;
        }
        Ok(())
    }
}
