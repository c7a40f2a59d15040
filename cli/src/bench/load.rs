//! The load itself: opens connections, asks, reads to the end, and opens the next where a place
//! comes free.
//!
//! Invariant: no more connections are in flight than there are places, each has one place, and a
//! place is free when its `close` was delivered. Generic over the net: the tests run it on the
//! simulated one, where a stall takes exactly the time that the test sets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use finale::net::Net;
use finale::{Backpressure, ConnectOptions, EndingKind, Event, Reactor, Socket, SocketMap, TimerId};

use super::expected::{Expected, request_piece};
use super::schedule::Schedule;
use super::tally::{Seen, Tally};
use crate::trouble::Trouble;

/// Whose FIN comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Finisher {
    /// Send, finish, read the answer to its end
    Client,
    /// Send, read the answer to its end, finish
    Server,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    /// Used one after the other; without any the kernel chooses.
    pub(super) sources: Vec<SocketAddr>,
    pub(super) schedule: Schedule,
    /// After which no connection is begun any more.
    pub(super) duration: Option<Duration>,
    pub(super) in_flight: usize,
    pub(super) request_bytes: u64,
    pub(super) expected: Expected,
    pub(super) first: Finisher,
    /// What a connection may take, from its connect call on.
    pub(super) timeout: Duration,
}

/// The world outside of the loop.
pub(super) trait Outside<N: Net> {
    /// The clock of the net; the reactor can't be asked while it lends an event.
    fn now(&self) -> Instant;
    /// Waits, not longer than until then, if the reactor has nothing to do and can wait only less
    /// exactly by itself.
    fn doze(&mut self, reactor: &mut Reactor<N>, until: Instant);
    /// Whether somebody wants the run to end. Asked whenever the reactor was woken.
    fn is_interrupted(&self) -> bool;
    /// How often the progress is shown, if anybody looks.
    fn glance(&self) -> Option<Duration>;
    /// Shows it.
    fn show(&mut self, finished: u64, elapsed: Duration);
}

/// A connection in flight. Times count from the beginning of the run.
#[derive(Debug)]
struct Flight {
    /// Where its latency counts from.
    due: Duration,
    /// The connect call.
    began: Duration,
    /// The end of the answer.
    ended: Option<Duration>,
    request_left: u64,
    right_content: bool,
}

/// Connections begun without a look at the others: while places are free in plenty the living must
/// be served, too.
const BURST: usize = 16;
/// Failures with nothing that went well, after which no more are begun: nobody is there.
const HOPELESS: u64 = 200;
/// From here on a start counts as late.
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
    /// No connection is begun any more.
    stopped: bool,
    end_timer: Option<TimerId>,
    glance_timer: Option<TimerId>,
}

impl<'a> Load<'a> {
    /// Runs it to the end of its last connection.
    pub(super) fn run<N: Net>(
        plan: &'a Plan,
        reactor: &mut Reactor<N>,
        outside: &mut impl Outside<N>,
    ) -> Result<Tally, Trouble> {
        let mut load = Self::new(plan, outside.now())?;
        load.set_timers(reactor, outside.glance());
        while !load.is_over() {
            let told = match load.start_due(reactor, outside)? {
                Some(until) => {
                    outside.doze(reactor, until);
                    reactor.next_before(until)?
                }
                None => reactor.next()?,
            };
            match told {
                Some((_, Event::Timer(timer))) => load.timer(timer, reactor, outside),
                Some((_, Event::Woken)) if outside.is_interrupted() => load.interrupt(reactor),
                Some((mut socket, event)) => load.serve(&mut socket, event, &|| outside.now())?,
                None => {}
            }
        }
        load.tally.took = outside.now().saturating_duration_since(load.begun);
        load.tally.never_begun = plan.schedule.total().map(|total| total - load.started);
        Ok(load.tally)
    }

    fn new(plan: &'a Plan, begun: Instant) -> Result<Self, Trouble> {
        // Only the run's own time limit counts, and a socket without any reads no clock. Nagle's
        // algorithm holds nothing back that a FIN follows, so that an option for each connection is
        // saved.
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
            glance_timer: None,
        })
    }

    fn set_timers<N: Net>(&mut self, reactor: &mut Reactor<N>, glance: Option<Duration>) {
        if self.plan.schedule.total().is_none() {
            self.end_timer = self.plan.duration.map(|time| reactor.set_timer(time));
        }
        self.glance_timer = glance.map(|time| reactor.set_timer(time));
        reactor.set_timer(self.plan.timeout);
    }

    fn is_over(&self) -> bool {
        self.in_flight == 0 && !self.may_start()
    }

    fn may_start(&self) -> bool {
        !self.stopped && self.plan.schedule.has(self.started)
    }

    /// Begins what is due and has a place. Answers when to come back for the next one, unless an
    /// event must come first.
    fn start_due<N: Net>(
        &mut self,
        reactor: &mut Reactor<N>,
        outside: &impl Outside<N>,
    ) -> Result<Option<Instant>, Trouble> {
        for _ in 0..BURST {
            if self.in_flight == self.plan.in_flight || !self.may_start() {
                return Ok(None);
            }
            let now = outside.now().saturating_duration_since(self.begun);
            let due = self.plan.schedule.due(self.started).unwrap_or(now);
            if due > now {
                return Ok(self.begun.checked_add(due));
            }
            self.start(reactor, due, now)?;
        }
        Ok(Some(self.begun)) // A time that has passed: what is ready is served, without waiting.
    }

    fn start<N: Net>(&mut self, reactor: &mut Reactor<N>, due: Duration, now: Duration) -> Result<(), Trouble> {
        let mut options = self.options.clone();
        if !self.plan.sources.is_empty() {
            options = options.local_addr(self.plan.sources[self.started as usize % self.plan.sources.len()]);
        }
        let id = reactor.connect(self.plan.target, options)?;
        let request_left = self.plan.request_bytes;
        self.flights.insert(id, Flight { due, began: now, ended: None, request_left, right_content: true });
        self.started += 1;
        self.in_flight += 1;
        self.tally.late += u64::from(now - due > LATE);
        self.tally.last_begun = now;
        Ok(())
    }

    fn serve(&mut self, socket: &mut Socket<'_>, event: Event<'_>, now: &dyn Fn() -> Instant) -> Result<(), Trouble> {
        let Some(flight) = self.flights.get_mut(socket.id()) else { return Ok(()) };
        match event {
            Event::Ready | Event::Drain => ask(socket, flight, &self.piece, self.plan.first)?,
            Event::Data(bytes) => {
                let place = socket.bytes_read() - bytes.len() as u64;
                flight.right_content &= self.plan.expected.has(place, bytes);
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
                    self.tally.hopeless = self.tally.well() == 0 && self.tally.failed() >= HOPELESS;
                    self.stopped |= self.tally.hopeless;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn timer<N: Net>(&mut self, timer: TimerId, reactor: &mut Reactor<N>, outside: &mut impl Outside<N>) {
        let elapsed = outside.now().saturating_duration_since(self.begun);
        if Some(timer) == self.end_timer {
            self.stopped = true;
        } else if Some(timer) == self.glance_timer {
            outside.show(self.tally.finished, elapsed);
            self.glance_timer = outside.glance().map(|time| reactor.set_timer(time));
        } else {
            self.expire(reactor, elapsed);
        }
    }

    /// Resets who has had its time, and comes back when the oldest of the others will have had it:
    /// one look at all in the time that one connection has.
    fn expire<N: Net>(&mut self, reactor: &mut Reactor<N>, elapsed: Duration) {
        let timeout = self.plan.timeout;
        self.reset(reactor, |flight| flight.began + timeout <= elapsed);
        let waiting = self.flights.iter().map(|(_, flight)| flight.began + timeout).filter(|due| *due > elapsed);
        reactor.set_timer(waiting.min().map_or(timeout, |due| due - elapsed));
    }

    /// Ends at once, with what was measured so far.
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

/// Writes the request, or what is left of it as far as the queue goes.
fn ask(socket: &mut Socket<'_>, flight: &mut Flight, piece: &[u8], first: Finisher) -> Result<(), finale::Error> {
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
