//! The load itself: opens connections, sends requests, reads the answers to their end, and opens
//! the next connection when one has closed.
//!
//! Invariant: at most `in_flight` connections are open, and one is open until its `close` is
//! delivered. Generic over the net: the tests run it on the simulated one, where a stall takes
//! exactly the time that the test sets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use finale::net::Net;
use finale::{
    Backpressure, ConnectOptions, EndingKind, Event, Reactor, SocketMap, Stream, Streams as _, Target, TimerId,
};
use finale_tls::Tls;

use super::expected::{Expected, request_piece};
use super::schedule::Schedule;
use super::tally::{Seen, Tally};
use crate::errors::Error;
use crate::tls::Client;

/// Which side sends its FIN first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Finisher {
    /// We send, finish, and read the answer to its end
    Client,
    /// We send, read the answer to its end, and finish
    Server,
}

/// The load to produce.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// Source addresses, used in turn. Without any the kernel chooses.
    pub(super) sources: Vec<SocketAddr>,
    pub(super) schedule: Schedule,
    /// After this time no connection is begun.
    pub(super) duration: Option<Duration>,
    pub(super) in_flight: usize,
    pub(super) request_bytes: u64,
    pub(super) expected: Expected,
    pub(super) first: Finisher,
    /// The limit for a connection, from its connect call.
    pub(super) timeout: Duration,
    /// With it connections begin with a handshake.
    pub(super) tls: Option<Client>,
}

/// What surrounds the loop: clock, signals, progress bar.
pub(super) trait Environment<N: Net> {
    /// The clock of the net. The reactor is borrowed while an event is handled.
    fn now(&self) -> Instant;
    /// Waits until this time at most, more exactly than the reactor does, if the reactor has
    /// nothing to do.
    fn doze(&mut self, reactor: &mut Reactor<N>, until: Instant);
    /// Whether a signal has ended the run. Called whenever the reactor was woken.
    fn is_interrupted(&self) -> bool;
    /// How often to show the progress, if at all.
    fn progress_interval(&self) -> Option<Duration>;
    /// Shows the progress.
    fn show(&mut self, finished: u64, elapsed: Duration);
}

/// A connection in flight. Times count from the beginning of the run.
#[derive(Debug)]
struct Flight {
    /// Its latency counts from here.
    due: Duration,
    /// The connect call.
    began: Duration,
    /// The end of the answer.
    ended: Option<Duration>,
    request_left: u64,
    right_content: bool,
}

/// Connections that are begun in a row. After them the events of the others are handled.
const BURST: usize = 16;
/// If this many fail and none is successful, no more are begun.
const HOPELESS: u64 = 200;
/// A start that is later than this counts as late.
const LATE: Duration = Duration::from_millis(1);

/// A run.
pub(super) struct Load<'a> {
    plan: &'a Plan,
    options: ConnectOptions,
    piece: Vec<u8>,
    flights: SocketMap<Flight>,
    in_flight: usize,
    started: u64,
    begun: Instant,
    tally: Tally,
    /// No more connections are begun.
    stopped: bool,
    end_timer: Option<TimerId>,
    progress_timer: Option<TimerId>,
}

impl<'a> Load<'a> {
    /// Runs it to the end of its last connection.
    pub(super) fn run<N: Net>(
        plan: &'a Plan,
        reactor: &mut Reactor<N>,
        environment: &mut impl Environment<N>,
    ) -> Result<Tally, Error> {
        let mut load = Self::new(plan, environment.now())?;
        let mut tls = plan.tls.as_ref().map(|client| sessions(client, plan)).transpose()?;
        load.set_timers(reactor, environment.progress_interval());
        while !load.is_over() {
            let due = load.start_due(reactor, &mut tls, environment)?;
            if load.is_over() {
                break; // The last connections were left out.
            }
            let next = match due {
                Some(until) => {
                    environment.doze(reactor, until);
                    reactor.next_before(until)?
                }
                None => reactor.next()?,
            };
            match (next, &mut tls) {
                (Some((_, Event::Woken)), _) if environment.is_interrupted() => load.interrupt(reactor),
                (Some((mut socket, event)), Some(tls)) => {
                    let (mut events, mut expired) = (tls.handle(&mut socket, event), None);
                    while let Some((mut stream, event)) = events.next() {
                        match event {
                            Event::Timer(timer) => expired = Some(timer),
                            event => load.serve(&mut stream, event, &|| environment.now())?,
                        }
                    }
                    drop(events);
                    expired.into_iter().for_each(|timer| load.timer(timer, reactor, environment));
                }
                (Some((_, Event::Timer(timer))), None) => load.timer(timer, reactor, environment),
                (Some((mut socket, event)), None) => load.serve(&mut socket, event, &|| environment.now())?,
                (None, _) => {}
            }
        }
        load.tally.tls = tls.as_ref().map(Tls::metrics);
        load.tally.took = environment.now().saturating_duration_since(load.begun);
        let overloaded = load.tally.overloaded;
        load.tally.never_begun = plan.schedule.total().map(|total| total - load.started + overloaded);
        Ok(load.tally)
    }

    fn new(plan: &'a Plan, begun: Instant) -> Result<Self, Error> {
        // Only the limit of the run counts, and a socket without limits reads no clock. Nagle's
        // algorithm does not delay bytes that a FIN follows, so this saves an option per
        // connection.
        let options = ConnectOptions::default()
            .connect_timeout(None)
            .half_closed_timeout(None)
            .close_timeout(None)
            .nodelay(plan.first == Finisher::Server);
        Ok(Self {
            plan,
            options,
            piece: request_piece(),
            flights: SocketMap::new(),
            in_flight: 0,
            started: 0,
            begun,
            tally: Tally::new(plan.timeout)?,
            stopped: false,
            end_timer: None,
            progress_timer: None,
        })
    }

    fn set_timers<N: Net>(&mut self, reactor: &mut Reactor<N>, interval: Option<Duration>) {
        if self.plan.schedule.total().is_none() {
            self.end_timer = self.plan.duration.map(|time| reactor.set_timer(time));
        }
        self.progress_timer = interval.map(|time| reactor.set_timer(time));
        reactor.set_timer(self.plan.timeout);
    }

    fn is_over(&self) -> bool {
        self.in_flight == 0 && !self.may_start()
    }

    fn may_start(&self) -> bool {
        !self.stopped && self.plan.schedule.has(self.started)
    }

    /// Begins the connections that are due, up to the limit. Returns when the next one is due, or
    /// `None` if an event has to come first.
    fn start_due<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        tls: &mut Option<Tls>,
        environment: &impl Environment<N>,
    ) -> Result<Option<Instant>, Error> {
        for _ in 0..BURST {
            let now = environment.now().saturating_duration_since(self.begun);
            if self.in_flight < self.plan.in_flight {
                self.skip_overdue(now);
            }
            if self.in_flight == self.plan.in_flight || !self.may_start() {
                return Ok(None);
            }
            let due = self.plan.schedule.due(self.started).unwrap_or(now);
            if due > now {
                return Ok(self.begun.checked_add(due));
            }
            self.start(reactor, tls, due, now)?;
        }
        Ok(Some(self.begun)) // A time in the past: handles events that are ready, without waiting.
    }

    /// Leaves out connections for which no client would have waited so long. So an overloaded run ends
    /// at most two timeouts after the last connection was due.
    fn skip_overdue(&mut self, now: Duration) {
        let is_overdue = |due: Duration| now.saturating_sub(due) > self.plan.timeout;
        while self.may_start() && self.plan.schedule.due(self.started).is_some_and(is_overdue) {
            self.started += 1;
            self.tally.overloaded += 1;
        }
    }

    fn start<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        tls: &mut Option<Tls>,
        due: Duration,
        now: Duration,
    ) -> Result<(), Error> {
        let mut options = self.options.clone();
        if !self.plan.sources.is_empty() {
            options = options.local_addr(self.plan.sources[self.started as usize % self.plan.sources.len()]);
        }
        let target = self.plan.target.clone();
        let id = match tls {
            Some(tls) => tls.context(reactor.context()).connect(target, options)?,
            None => reactor.connect(target, options)?,
        };
        let request_left = self.plan.request_bytes;
        self.flights.insert(id, Flight { due, began: now, ended: None, request_left, right_content: true });
        self.started += 1;
        self.in_flight += 1;
        self.tally.late += u64::from(now - due > LATE);
        self.tally.last_begun = now;
        Ok(())
    }

    fn serve(&mut self, socket: &mut impl Stream, event: Event<'_>, now: &dyn Fn() -> Instant) -> Result<(), Error> {
        let Some(flight) = self.flights.get_mut(socket.id()) else { return Ok(()) };
        match event {
            Event::Ready | Event::Drain => send_request(socket, flight, &self.piece, self.plan.first)?,
            Event::Data(bytes) => {
                let offset = socket.bytes_read() - bytes.len() as u64;
                flight.right_content &= self.plan.expected.has(offset, bytes);
            }
            Event::End => {
                flight.ended = Some(now().saturating_duration_since(self.begun));
                if self.plan.first == Finisher::Server {
                    socket.end();
                }
            }
            Event::Close(ending) => {
                self.in_flight -= 1;
                let seen = Seen {
                    latency: flight.ended.map(|ended| ended - flight.due),
                    right_content: flight.right_content,
                    expected_bytes: self.plan.expected.bytes(),
                };
                self.flights.remove(socket.id());
                if self.tally.interrupted && ending.kind == EndingKind::Destroyed {
                    self.tally.cut_off += 1;
                } else {
                    self.tally.add(ending, seen);
                    self.tally.hopeless |= self.tally.successful() == 0 && self.tally.failed() >= HOPELESS;
                    self.stopped |= self.tally.hopeless;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn timer<N: Net>(&mut self, timer: TimerId, reactor: &mut Reactor<N>, environment: &mut impl Environment<N>) {
        let elapsed = environment.now().saturating_duration_since(self.begun);
        if Some(timer) == self.end_timer {
            self.stopped = true;
        } else if Some(timer) == self.progress_timer {
            environment.show(self.tally.finished, elapsed);
            self.progress_timer = environment.progress_interval().map(|time| reactor.set_timer(time));
        } else {
            // A timer of the warm-up comes here, too, and does no harm.
            self.expire(reactor, elapsed);
        }
    }

    /// Resets connections at their limit, and sets a timer for the oldest of the others. So all are
    /// examined once per timeout.
    fn expire<N: Net>(&mut self, reactor: &mut Reactor<N>, elapsed: Duration) {
        let timeout = self.plan.timeout;
        self.reset(reactor, |flight| flight.began + timeout <= elapsed);
        let waiting = self.flights.iter().map(|(_, flight)| flight.began + timeout).filter(|due| *due > elapsed);
        reactor.set_timer(waiting.min().map_or(timeout, |due| due - elapsed));
    }

    /// Ends the run at once. What was measured up to now counts.
    fn interrupt<N: Net>(&mut self, reactor: &mut Reactor<N>) {
        self.stopped = true;
        self.tally.interrupted = true;
        self.reset(reactor, |_| true);
    }

    fn reset<N: Net>(&self, reactor: &mut Reactor<N>, which: impl Fn(&Flight) -> bool) {
        for (id, _) in self.flights.iter().filter(|(_, flight)| which(flight)) {
            if let Some(mut socket) = reactor.socket(id) {
                socket.destroy();
            }
        }
    }
}

/// The sessions of the connections. Only the limit of the run counts.
fn sessions(client: &Client, plan: &Plan) -> Result<Tls, Error> {
    let mut tls = Tls::new();
    tls.set_handshake_timeout(None);
    client.connect_to(&mut tls, plan.target.clone())?;
    Ok(tls)
}

/// Writes the request, or as much of the rest as the queue takes.
fn send_request(
    socket: &mut impl Stream,
    flight: &mut Flight,
    piece: &[u8],
    first: Finisher,
) -> Result<(), finale::Error> {
    while flight.request_left > 0 {
        let now = usize::try_from(flight.request_left).unwrap_or(usize::MAX).min(piece.len());
        let queue = socket.write(&piece[..now])?;
        flight.request_left -= now as u64;
        if queue == Backpressure::Full && flight.request_left > 0 {
            return Ok(());
        }
    }
    if first == Finisher::Client {
        socket.end();
    }
    Ok(())
}
