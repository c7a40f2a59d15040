//! A whole service: an API and a page for notes, with a database, uploads, live events, metrics and
//! a restart that loses no request. The guide to it: docs/guides/service.md. Run it: `cargo run -p
//! notes`, and then `curl --insecure https://127.0.0.1:8443/api/notes`.

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
mod tls;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use finale::{Event, Inbox, Listener, Reactor, Sender, StopOptions, Stream as _};
use finale_tls::Tls;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::database::Database;
use crate::log::Log;
use crate::options::Options;
use crate::restart::Listening;
use crate::service::Service;
use crate::tls::Certificate;

/// With TLS or without.
pub(crate) type Sock<'a> = finale_tls::TlsSocket<'a>;

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
const RESTART_GRACE: Duration = Duration::from_secs(5);
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
    let listening = Listening::open(options.listen)?;
    let (database, answers) = Database::open(&options.data, options.max_pending, &reactor)?;
    let listener = reactor.adopt(listening.copy()?, service::listen_options(options))?;
    let (sender, control) = reactor.inbox(CONTROLS);
    watch_signals(sender.clone())?;
    let mut operator = Operator { options, listener, listening, control, sender, is_stopping: false };
    let mut tls = Tls::new();
    let certificate = operator.read_certificate(&mut tls)?;
    let mut log = Log::new();
    let scheme = if options.plain { "http" } else { "https" };
    log.line(format_args!("notes[{}]: listening on {scheme}://{}", std::process::id(), listener.addr));
    let mut service = Service::new(options, database, answers, log);
    service.log(certificate);
    operator.listening.report_ready();

    reactor.set_timer(TICK);
    while let Some((mut socket, event)) = reactor.next()? {
        let happened = deliver(tls.handle(&mut socket, event), &mut service);
        if happened.is_over || happened.is_woken && !operator.obey(&mut reactor, &mut tls, &mut service)? {
            break;
        }
        service.answer_metrics(&mut reactor, &mut tls);
    }
    Ok(())
}

/// What has happened to the reactor as a whole.
#[derive(Debug, Default)]
struct Happened {
    is_woken: bool,
    is_over: bool,
}

/// Passes on what an event of the reactor means with TLS.
fn deliver(mut events: finale_tls::Events<'_, '_>, service: &mut Service) -> Happened {
    let mut happened = Happened::default();
    while let Some((mut socket, event)) = events.next() {
        match event {
            Event::Woken => {
                service.take_answers(&mut socket);
                happened.is_woken = true;
            }
            Event::Timer(_) => {
                service.tick(&mut socket);
                socket.socket().set_timer(TICK);
            }
            Event::ListenerClosed(_) => happened.is_over = true,
            event => service.handle(&mut socket, event),
        }
    }
    happened
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
struct Operator<'a> {
    options: &'a Options,
    listener: Listener,
    listening: Listening,
    control: Inbox<Control>,
    sender: Sender<Control>,
    is_stopping: bool,
}

impl Operator<'_> {
    /// Does what was sent meanwhile. Returns whether the service continues.
    fn obey(&mut self, reactor: &mut Reactor, tls: &mut Tls, service: &mut Service) -> Result<bool, finale::Error> {
        while let Some(control) = self.control.take() {
            match control {
                Control::Signal(SIGINT | SIGTERM) if self.is_stopping => return Ok(false),
                Control::Signal(SIGINT | SIGTERM) => {
                    service.log("stopping");
                    self.stop(reactor, tls, service, StopOptions::default().grace(STOP_GRACE))?;
                }
                Control::Signal(SIGUSR2) if !self.is_stopping => match self.listening.restart(self.sender.clone()) {
                    Ok(()) => service.log("restarting"),
                    Err(why) => service.log(format_args!("not restarted: {why}")),
                },
                Control::Signal(SIGHUP) => match self.read_certificate(tls) {
                    Ok(name) => service.log(name),
                    Err(why) => service.log(format_args!("the certificate stays as it was: {why}")),
                },
                Control::Restarted(Ok(pid)) if !self.is_stopping => {
                    service.log(format_args!("process {pid} serves"));
                    // The connections that wait in the backlog are the other process's.
                    let stop = StopOptions::default().grace(RESTART_GRACE).spread(RESTART_GRACE);
                    self.stop(reactor, tls, service, stop.accept_backlog(false))?;
                }
                Control::Restarted(Err(why)) => {
                    self.listening.is_restarting = false;
                    service.log(format_args!("not restarted, this process continues to serve: {why}"));
                }
                Control::Signal(_) | Control::Restarted(Ok(_)) => {}
            }
        }
        Ok(true)
    }

    fn stop(
        &mut self,
        reactor: &mut Reactor,
        tls: &mut Tls,
        service: &mut Service,
        stop: StopOptions,
    ) -> Result<(), finale::Error> {
        self.is_stopping = true;
        self.listening.close();
        service.stop(&mut tls.context(reactor.context()));
        reactor.stop_listener(self.listener.id, stop.limit(STOP_LIMIT))
    }

    /// New connections get this certificate. Returns its name.
    fn read_certificate(&self, tls: &mut Tls) -> Result<String, Box<dyn Error>> {
        let Some(certificate) = Certificate::of(self.options)? else { return Ok("no TLS".to_owned()) };
        tls.accept_on(self.listener.id, &certificate.config)?;
        Ok(certificate.name)
    }
}
