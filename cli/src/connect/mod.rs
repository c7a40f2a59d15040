//! `finale connect`: stdin to the socket, the socket to stdout, the ending on stderr.
//!
//! Invariants: memory is bounded: stdin is read only as fast as the socket takes it, and the socket
//! only as fast as stdout. Whatever ends the run, also a signal, the ending is reported. If bytes of
//! stdin or of the socket were lost, the exit code is not 0.

mod input;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use finale::lifecycle::State;
use finale::net::Net;
use finale::trace::Recorder;
use finale::{Ending, Event, Reactor, SocketId, Stream, Streams as _, Target, Waker};
use finale_tls::{Tls, TlsSocket};
use serde::Serialize;

use crate::errors::Error;
use crate::interrupt::Interrupt;
use crate::limited::{self, Limits};
use crate::output::{self, BAD, GOOD, printable, say};
use crate::tls::{ClientTls, Negotiated};
use crate::trace::{Ladder, Side};
use crate::values;
use input::Input;

/// A client that sends stdin, prints the answer, and reports how the connection ended
///
/// Stdin goes to the socket, and the socket to stdout. The last line on stderr is how the
/// connection ended. The exit code is 0 if the ending is clean and all of stdin was sent, and 1
/// otherwise.
///
/// The end of stdin ends our side (half-close), and the answer is read until the peer finishes. If
/// the peer finishes first, stdin is still sent to its end. A terminal has no such end: then our
/// side ends, too. A stdout that is closed from the start (`>&-`) is /dev/null.
///
/// SIGINT, SIGTERM and SIGHUP reset the connection, and the exit code is 130, 143 or 129. A second
/// signal ends the process at once.
///
/// With --tls a line before the last one says what was negotiated, and what the server's
/// certificate says. An ending is clean only if the server's stream ended with close_notify: a FIN
/// or a reset without it is reported as truncated.
#[derive(Debug, clap::Args)]
#[command(after_long_help = JSON_HELP)]
pub(crate) struct ConnectOptions {
    /// The server: a host name or an IP address and a port (an IPv6 address in brackets, as
    /// [::1]:7000), unix:PATH, or unix:@NAME
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// The end of stdin does not end our side. It ends when the peer has finished, and what stdin
    /// has until then is sent
    #[arg(long)]
    no_half_close: bool,
    /// The default since 0.1.0; accepted, since nc(1) and older scripts have it.
    #[arg(short = 'N', long, hide = true, overrides_with = "no_half_close")]
    half_close: bool,
    /// Give up when connecting takes longer than this, or when no byte moves for this time: 250ms,
    /// 2s, 1m, as `nc -w` does; also when stdout takes nothing for this time [default: 30s for
    /// connecting, 5m without a byte after one side has finished]
    #[arg(short = 'w', long, value_name = "DUR", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true)]
    timeout: Option<Duration>,
    /// Reset the connection when no byte moves for this time; replaces the second half of --timeout
    #[arg(long, value_name = "DUR", value_parser = values::time_limit, allow_hyphen_values = true)]
    idle_timeout: Option<Duration>,
    /// Reset the connection this long after the start, whatever moves, as `curl --max-time` does
    #[arg(short = 'm', long, value_name = "DUR", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true)]
    max_time: Option<Duration>,
    /// Print each event of the socket on stderr, and the address that is used
    #[arg(short, long)]
    verbose: bool,
    /// Print a ladder on stderr at the end: system calls, states, events, and what the kernel says.
    /// Of a long run, the last 1000 rows
    #[arg(long, conflicts_with_all = ["json", "quiet"])]
    trace: bool,
    /// Print the ending as one JSON object on stderr: stdout has the bytes of the peer
    #[arg(long)]
    json: bool,
    /// Print the ending only if it is not clean, and no line while connecting
    #[arg(short, long, conflicts_with_all = ["verbose", "json"])]
    pub(crate) quiet: bool,
    #[command(flatten)]
    tls: ClientTls,
}

/// Short lines: clap wraps them without an indent.
const JSON_HELP: &str = "\
The JSON object of --json:
  target         the argument
  clean          whether both sides finished without an error
  acknowledged   whether the peer's kernel has acknowledged
                 every byte and our FIN
  kind           confirmed, handed-off or destroyed; or
                 {\"failed\": {kind, os, attempts}}
  first_fin      whose FIN was first: local, peer, both,
                 neither or unknown
  time_wait      which side keeps TIME_WAIT
  peer           the address of the peer, or null
  bytes_read, bytes_written, bytes_unsent
  input_left     whether stdin had bytes that were not sent,
                 or had not ended; false without a connection
  tls            with --tls: version, cipher_suite, alpn,
                 resumed, verified, certificate (subject,
                 issuer, names, not_before, not_after, or
                 null), and close_notify: whether the peer's
                 has arrived; null without --tls and before
                 the end of the handshake";

/// What --trace keeps.
const TRACE_ROWS: usize = 1000;
/// A connection that takes longer than this is worth a line.
const SLOW: Duration = Duration::from_secs(1);

impl ConnectOptions {
    /// How long no byte may move.
    fn idle(&self) -> Option<Duration> {
        self.idle_timeout.or(self.timeout)
    }

    fn for_reactor(&self) -> finale::ConnectOptions {
        let idle = self.idle();
        let mut how = finale::ConnectOptions::default().idle_timeout(idle).total_deadline(self.max_time);
        if self.timeout.is_some() {
            how = how.connect_timeout(self.timeout);
        }
        // A limit of silence that was chosen may be longer than the default one.
        if idle.is_some() { how.half_closed_timeout(None) } else { how }
    }
}

/// Connects and stays until the connection has ended.
pub(crate) fn run(options: &ConnectOptions) -> Result<(), Error> {
    let recorder = Recorder::new(if options.trace { TRACE_ROWS } else { 0 });
    let mut reactor = recorder.reactor()?;
    let begun = reactor.now();
    let (waker, deadline) = (reactor.waker(), options.max_time.map(|time| reactor.now() + time));
    let remote = waker.clone();
    let interrupt = Interrupt::watch(move || drop(remote.wake()))?;
    // The reactor's own limits can't strike while a reader of ours is waited for.
    let stop = interrupt.as_fd().try_clone_to_owned();
    stop.and_then(|stop| limited::start(Limits { idle: options.idle(), deadline, stop: Some(stop) }))
        .map_err(|source| Error::io("set the limits of stdout", source))?;
    let (id, tls) = begin(options, &mut reactor)?;
    reactor.set_timer(SLOW);
    let mut session =
        Session { options, id, waker, deadline, interrupt, is_interrupted: false, input: None, negotiated: None };
    let ladder = |ending: &Ending| {
        if options.trace {
            let ladder = Ladder::of_one_side(Side::Client, &options.target, &recorder.records(), begun, ending);
            Ladder { lost: recorder.lost(), ..ladder }.say();
        }
    };
    session.run(&mut reactor, tls, &ladder)
}

/// Begins the connection.
fn begin<N: Net>(options: &ConnectOptions, reactor: &mut Reactor<N>) -> Result<(SocketId, Option<Tls>), Error> {
    let failed = |source| Error::Connect { target: options.target.clone(), source };
    let Some(client) = options.tls.open(&options.target, false)? else {
        let id = reactor.connect(options.target.as_str(), options.for_reactor()).map_err(failed)?;
        return Ok((id, None));
    };
    let target = Target::try_from(options.target.as_str()).map_err(failed)?;
    let mut tls = Tls::new();
    if options.timeout.is_some() {
        tls.set_handshake_timeout(options.timeout);
    }
    client.connect_to(&mut tls, target.clone())?;
    let id = tls.context(reactor.context()).connect(target, options.for_reactor()).map_err(failed)?;
    Ok((id, Some(tls)))
}

/// One connection.
struct Session<'a> {
    options: &'a ConnectOptions,
    id: SocketId,
    waker: Waker,
    /// Of `--max-time`.
    deadline: Option<Instant>,
    interrupt: Interrupt,
    is_interrupted: bool,
    input: Option<Input>,
    /// What the handshake has brought, and whether the peer's close_notify has arrived.
    negotiated: Option<(Negotiated, bool)>,
}

impl Session<'_> {
    /// Until the connection has ended. `ladder` prints what was recorded.
    fn run<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        mut tls: Option<Tls>,
        ladder: &dyn Fn(&Ending),
    ) -> Result<(), Error> {
        while let Some((mut socket, event)) = reactor.next()? {
            let ended = match &mut tls {
                None => self.handle(&mut socket, event),
                Some(tls) => {
                    let (mut events, mut ended) = (tls.handle(&mut socket, event), None);
                    while let Some((mut stream, event)) = events.next() {
                        self.note(&stream, &event);
                        ended = ended.or(self.handle(&mut stream, event));
                    }
                    ended
                }
            };
            if let Some(ending) = ended {
                ladder(&ending);
                return self.report(&ending);
            }
        }
        Ok(())
    }

    /// What only a TLS stream has.
    fn note(&mut self, stream: &TlsSocket<'_>, event: &Event<'_>) {
        match (event, stream.handshake(), &mut self.negotiated) {
            (Event::Ready, Some(handshake), _) => {
                let negotiated = Negotiated::of(handshake, self.options.tls.verifies());
                if self.options.verbose {
                    say(format_args!("handshake, {negotiated}"));
                }
                self.negotiated = Some((negotiated, false));
            }
            (Event::End, _, Some((_, has_ended))) => *has_ended = true,
            _ => {}
        }
    }

    /// Returns the ending at the last event.
    fn handle(&mut self, socket: &mut impl Stream, event: Event<'_>) -> Option<Ending> {
        if self.options.verbose {
            print_event(&event, socket);
        }
        match event {
            // Not earlier: if the connection is refused, stdin stays unread.
            Event::Ready => {
                let half_close = !self.options.no_half_close;
                self.input = Some(Input::open(half_close, self.waker.clone()));
            }
            Event::Data(bytes) => match output::print_bytes(bytes) {
                // The wake of the signal follows. It resets the connection.
                Err(_) if self.interrupt.signal().is_some() => {}
                // The deadline of the socket is due, too, and names the cause.
                Err(error @ Error::Stdout(_)) if self.is_overdue(socket) => {
                    output::error(format_args!("{error}"));
                    socket.pause();
                }
                result => or_destroy(result, socket),
            },
            Event::Drain => self.with_input(socket, Input::drained),
            Event::End => self.with_input(socket, Input::peer_finished),
            Event::Woken => {
                if let Some(mut socket) = socket.get(self.id) {
                    self.with_input(&mut socket, Input::send);
                }
            }
            Event::Timer(_) => {
                if let Some(mut socket) = socket.get(self.id) {
                    self.say_that_it_connects(&mut socket);
                }
            }
            Event::Timeout => {
                output::error(format_args!("{}: no byte moved for the idle time, resetting it", self.options.target));
                socket.destroy();
            }
            Event::Close(ending) => return Some(ending.clone()),
            _ => {}
        }
        None
    }

    /// Whether `--max-time` is over.
    fn is_overdue(&self, socket: &mut impl Stream) -> bool {
        self.deadline.is_some_and(|deadline| socket.socket().now() >= deadline)
    }

    /// Stdin has something, or the socket takes more of it; `call` returns whether our side ends. After
    /// a signal it does not: the end of stdin may be that of a producer which the same signal has
    /// ended. So the signal is looked at after stdin.
    fn with_input<S: Stream>(&mut self, socket: &mut S, call: impl FnOnce(&mut Input, &mut S) -> Result<bool, Error>) {
        if socket.destroy_called() {
            return; // An error was reported. Input that is left is reported with the ending.
        }
        let ends = match &mut self.input {
            Some(input) if self.interrupt.signal().is_none() => call(input, socket),
            _ => Ok(false),
        };
        match (self.interrupt.signal_by_now(), ends) {
            (Some(signal), _) if !self.is_interrupted => {
                self.is_interrupted = true;
                output::error(format_args!("{}: interrupted by {signal}, resetting it", self.options.target));
                socket.destroy();
            }
            (Some(_), _) | (None, Ok(false)) => {}
            (None, Ok(true)) => socket.end(),
            (None, Err(error)) => or_destroy(Err(error), socket),
        }
    }

    /// Programs that read --json expect one line.
    fn say_that_it_connects(&self, socket: &mut impl Stream) {
        if self.options.quiet || self.options.json {
            return;
        }
        let (state, addr, tcp) = (socket.state(), socket.socket().peer_addr(), socket.socket().state());
        if let Some(what) = what_lasts(state, tcp, addr) {
            say(format_args!("finale: {}: {what}", printable(&self.options.target)));
        }
    }

    /// Prints the ending. An ending that is not clean is a failure, and so is input that is left.
    fn report(&self, ending: &Ending) -> Result<(), Error> {
        let (options, clean) = (self.options, ending.is_clean());
        let target = options.target.as_str();
        let input_left = self.input.as_ref().is_some_and(Input::is_left);
        if clean && input_left {
            output::error(format_args!(
                "{target}: the server finished before the end of stdin; what was left was not sent"
            ));
        }
        if let Some((negotiated, has_ended)) = &self.negotiated
            && !options.json
            && !options.quiet
        {
            let end = if *has_ended { "ended by close_notify" } else { "no close_notify" };
            say(format_args!("finale: {}: {}; {end}", printable(target), printable(&negotiated.to_string())));
        }
        if options.json {
            let (acknowledged, time_wait) = (ending.is_acknowledged(), ending.time_wait());
            let tls = self
                .negotiated
                .as_ref()
                .map(|(negotiated, close_notify)| TlsReport { negotiated, close_notify: *close_notify });
            let object = output::json(&Report { target, clean, acknowledged, time_wait, ending, input_left, tls })?;
            say(format_args!("{object}"));
        } else if !clean {
            say(format_args!("{BAD}finale:{BAD:#} {}: {ending}", printable(target)));
        } else if !options.quiet {
            say(format_args!("{GOOD}finale:{GOOD:#} {}: {ending}", printable(target)));
        }
        // Also a signal that arrived too late to reset: the printer may have stopped for it.
        match self.interrupt.signal() {
            Some(signal) => Err(Error::Reported { exit_code: signal.exit_code() }),
            None if !clean || input_left => Err(Error::Reported { exit_code: 1 }),
            None => Ok(()),
        }
    }
}

/// Resets a connection whose bytes are lost on our side: a FIN would claim that all went well.
fn or_destroy(result: Result<(), Error>, socket: &mut impl Stream) {
    if let Err(error) = result {
        output::error(format_args!("{error}"));
        socket.destroy();
    }
}

/// What is not done yet, before it is connected.
fn what_lasts(state: State, tcp: State, addr: Option<SocketAddr>) -> Option<String> {
    match (state, addr) {
        (State::Connecting, _) if tcp != State::Connecting => Some("still in the TLS handshake".into()),
        (State::Created | State::Resolving, _) => Some("the name is still looked up".into()),
        (State::Connecting, Some(addr)) => Some(format!("still connecting to {addr}")),
        (State::Connecting, None) => Some("still connecting".into()),
        _ => None,
    }
}

fn print_event(event: &Event<'_>, socket: &mut impl Stream) {
    match (event, socket.socket().peer_addr()) {
        // The ending follows as the last line.
        (Event::Close(_), _) => say(format_args!("close")),
        // Of a name with several addresses, the one that is used.
        (Event::Connect, Some(addr)) => say(format_args!("connect {addr}")),
        (event, _) if event.is_socket_event() => say(format_args!("{event}")),
        _ => {}
    }
}

/// The ending as an object. The names are stable: programs read them.
#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    clean: bool,
    acknowledged: bool,
    time_wait: finale::FirstFin,
    #[serde(flatten)]
    ending: &'a Ending,
    input_left: bool,
    tls: Option<TlsReport<'a>>,
}

#[derive(Serialize)]
struct TlsReport<'a> {
    #[serde(flatten)]
    negotiated: &'a Negotiated,
    close_notify: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_a_slow_start_says_what_is_not_done_yet() {
        let addr = Some(SocketAddr::from(([10, 0, 0, 2], 80)));
        for (state, addr, line) in [
            (State::Created, None, Some("the name is still looked up")),
            (State::Resolving, None, Some("the name is still looked up")),
            (State::Connecting, addr, Some("still connecting to 10.0.0.2:80")),
            (State::Connecting, None, Some("still connecting")),
            (State::Open, addr, None),
            (State::TimedOut, addr, None),
        ] {
            assert_eq!(what_lasts(state, state, addr).as_deref(), line, "{state:?}");
        }
        let in_handshake = what_lasts(State::Connecting, State::Open, addr);
        assert_eq!(in_handshake.as_deref(), Some("still in the TLS handshake"));
    }
}
