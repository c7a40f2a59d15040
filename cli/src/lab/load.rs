//! A load that runs while the page shows it: half-closing connections to a server in the same
//! reactor, on a thread of its own.
//!
//! Invariant: at most one load runs, for a minute and `RUN_OUT` at most, and none for a page that has
//! left. It leaves descriptors for the page.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use finale::{ConnectOptions, Ending, Event, ListenOptions, Reactor, Socket, SocketMap};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::http::Answer;
use crate::bench::allow_descriptors;
use crate::values;

/// Between two samples.
const SAMPLE: Duration = Duration::from_millis(250);
/// How often clients that have ended are replaced, and by how many at most: 2,000 in a second. Each
/// leaves a line in TIME-WAIT for a minute, of which Linux keeps 131,072 by default
/// (tcp_max_tw_buckets); if the table is full, connections of other programs suffer.
const TICK: Duration = Duration::from_millis(10);
const BEGINS: usize = 20;
/// At the end, connections have this long to end by themselves.
const RUN_OUT: Duration = Duration::from_secs(2);
/// Descriptors that the page and the real runs need meanwhile.
const FOR_THE_PAGE: usize = 128;
/// A page that does not look for this long has left.
const NOT_SEEN: Duration = Duration::from_secs(5);
/// Samples that are kept: those of the longest load.
const SAMPLES: usize = 240;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    connections: usize,
    bytes: usize,
    time: Duration,
}

impl Plan {
    /// # Errors
    /// In words, with the parameter.
    pub(super) fn parse<'a>(query: impl Fn(&'static str) -> Option<Cow<'a, str>>) -> Result<Self, String> {
        let number = |name: &'static str, default: u64, range: std::ops::RangeInclusive<u64>| match query(name) {
            None => Ok(default),
            Some(text) => values::number::<u64>(range)(&text).map_err(|why| format!("{name}: {why}")),
        };
        Ok(Self {
            connections: number("connections", 64, 1..=1_000)? as usize,
            bytes: number("bytes", 64, 1..=65_536)? as usize,
            time: Duration::from_secs(number("seconds", 10, 1..=60)?),
        })
    }
}

/// A moment of the load.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    at_ms: u64,
    /// Connections that ended since the sample before, in a second.
    rate: u64,
    /// Of these, in microseconds from the connect to the close.
    p50_us: u64,
    p99_us: u64,
    /// CPU time of the thread per connection, client and server together.
    cpu_us: f64,
    /// How many sockets are in which state, both sides.
    live: BTreeMap<&'static str, usize>,
}

/// What the page shows.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct View {
    is_running: bool,
    failure: Option<String>,
    samples: Vec<Sample>,
    /// Both sides: how their connections have ended, and how often.
    endings: BTreeMap<String, u64>,
    closed: u64,
}

#[derive(Debug, Default)]
struct Shared {
    view: View,
    seen: Option<Instant>,
}

/// The one load of the lab.
#[derive(Debug, Default)]
pub(super) struct Load {
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// How it stands. A page that looks is there.
    pub(super) fn view(&self) -> View {
        let mut shared = lock(&self.shared);
        shared.seen = Some(Instant::now());
        shared.view.clone()
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn start(&self, plan: Plan) -> Answer {
        let mut shared = lock(&self.shared);
        if shared.view.is_running {
            return Answer::failed(409, "a load is running; stop it first");
        }
        // Without enough of them the clients have all, the server accepts none, and neither ends.
        if allow_descriptors(2 * plan.connections + FOR_THE_PAGE).is_err() {
            let count = plan.connections;
            let why = format!("connections: {count} need more descriptors than the lab may have (ulimit -Hn)");
            return Answer::failed(400, why);
        }
        *shared = Shared { view: View { is_running: true, ..View::default() }, seen: Some(Instant::now()) };
        drop(shared);
        self.stop.store(false, Ordering::Relaxed);
        let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
        let started = thread::Builder::new().name("load".to_owned()).spawn(move || {
            let failure = Run::new(plan, &shared, &stop).and_then(Run::run).err();
            let mut shared = lock(&shared);
            shared.view.is_running = false;
            shared.view.failure = failure.map(|error| error.to_string());
        });
        if let Err(error) = started {
            lock(&self.shared).view.is_running = false;
            return Answer::failed(500, format!("can't start a thread: {error}"));
        }
        Answer::json(&self.view())
    }
}

struct Run<'a> {
    plan: Plan,
    shared: &'a Mutex<Shared>,
    stop: &'a AtomicBool,
    reactor: Reactor,
    target: SocketAddr,
    /// The clients, and when each began.
    clients: SocketMap<Instant>,
    bytes: Vec<u8>,
    begun: Instant,
    histogram: Histogram<u64>,
    /// What counts since the last sample.
    closed: u64,
    cpu: Duration,
    sampled: Instant,
    /// Since when none is replaced.
    over: Option<Instant>,
}

impl<'a> Run<'a> {
    fn new(plan: Plan, shared: &'a Mutex<Shared>, stop: &'a AtomicBool) -> Result<Self, finale::Error> {
        let mut reactor = Reactor::new()?;
        let listener = reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ListenOptions::default())?;
        let target = listener.addr.ip().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (begun, bytes) = (Instant::now(), vec![b'x'; plan.bytes]);
        let histogram = Histogram::new_with_max(60_000_000, 3).expect("the bounds are valid");
        let (clients, cpu) = (SocketMap::new(), cpu_time());
        Ok(Self {
            plan,
            shared,
            stop,
            reactor,
            target,
            clients,
            bytes,
            begun,
            histogram,
            closed: 0,
            cpu,
            sampled: begun,
            over: None,
        })
    }

    fn run(mut self) -> Result<(), finale::Error> {
        self.begin_some()?;
        let mut timer = self.reactor.set_timer(TICK);
        loop {
            match self.reactor.next()? {
                Some((_, Event::Timer(id))) if id == timer => {
                    self.begin_some()?;
                    if self.sampled.elapsed() >= SAMPLE {
                        self.sample();
                        self.over = self.over.or_else(|| self.should_end().then(Instant::now));
                    }
                    timer = self.reactor.set_timer(TICK);
                }
                Some((mut socket, event)) => {
                    let begun = self.clients.get(socket.id()).copied();
                    handle(&mut socket, event, begun.is_some(), &self.bytes);
                    if let Event::Close(ending) = event {
                        let ending = kind(ending);
                        self.clients.remove(socket.id());
                        self.count(ending, begun);
                    }
                }
                None => return Ok(()),
            }
            if self.over.is_some_and(|since| self.clients.is_empty() || since.elapsed() > RUN_OUT) {
                self.finish();
                return Ok(());
            }
        }
    }

    /// Replaces the clients that have ended, as fast as it may.
    fn begin_some(&mut self) -> Result<(), finale::Error> {
        let missing = self.plan.connections.saturating_sub(self.clients.len());
        for _ in 0..missing.min(BEGINS) {
            if self.over.is_none() {
                let id = self.reactor.connect(self.target, ConnectOptions::default())?;
                self.clients.insert(id, Instant::now());
            }
        }
        Ok(())
    }

    /// A connection of one side has ended. `begun`: that of a client.
    fn count(&mut self, ending: String, begun: Option<Instant>) {
        *lock(self.shared).view.endings.entry(ending).or_default() += 1;
        if let Some(begun) = begun {
            self.closed += 1;
            self.histogram.saturating_record(begun.elapsed().as_micros() as u64);
        }
    }

    fn finish(&mut self) {
        let mut shared = lock(self.shared);
        shared.view.closed += self.closed;
        if !self.clients.is_empty() {
            let left = self.clients.len() as u64;
            shared.view.endings.insert("not over at the end, and reset".to_owned(), left);
        }
    }

    fn should_end(&self) -> bool {
        let is_seen = lock(self.shared).seen.is_some_and(|seen| seen.elapsed() < NOT_SEEN);
        self.begun.elapsed() >= self.plan.time || !is_seen || self.stop.load(Ordering::Relaxed)
    }

    fn sample(&mut self) {
        let cpu = cpu_time();
        let time = self.sampled.elapsed().as_secs_f64().max(0.001);
        let sample = Sample {
            at_ms: self.begun.elapsed().as_millis() as u64,
            rate: (self.closed as f64 / time) as u64,
            p50_us: self.histogram.value_at_quantile(0.5),
            p99_us: self.histogram.value_at_quantile(0.99),
            cpu_us: (cpu - self.cpu).as_secs_f64() * 1e6 / self.closed.max(1) as f64,
            live: self.reactor.metrics().live_by_state().map(|(state, count)| (state.name(), count)).collect(),
        };
        let mut shared = lock(self.shared);
        shared.view.closed += self.closed;
        if shared.view.samples.len() < SAMPLES {
            shared.view.samples.push(sample);
        }
        drop(shared);
        (self.closed, self.cpu, self.sampled) = (0, cpu, Instant::now());
        self.histogram.reset();
    }
}

/// Both sides: the client sends and finishes, the server answers at the end and finishes.
fn handle(socket: &mut Socket<'_>, event: Event<'_>, is_client: bool, bytes: &[u8]) {
    let speaks = match event {
        Event::Ready => is_client,
        Event::End => !is_client,
        _ => false,
    };
    if speaks {
        // Both write less than the queue takes.
        let _ = socket.write(bytes);
        socket.end();
    }
}

/// How a connection has ended, in a few words.
fn kind(ending: &Ending) -> String {
    let text = ending.to_string();
    text.split(';').next().unwrap_or_default().to_owned()
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_runs_and_stops_when_it_is_asked_to() {
        let load = Load::default();
        let plan = Plan::parse(|_| None).expect("there are defaults");
        assert_eq!(load.start(plan).status, 200);
        assert_eq!(load.start(plan).status, 409);
        let guard = Instant::now();
        while load.view().closed == 0 {
            assert!(guard.elapsed() < Duration::from_secs(60), "{:?}", load.view());
            thread::yield_now();
        }
        load.stop();
        while load.view().is_running {
            assert!(guard.elapsed() < Duration::from_secs(60), "{:?}", load.view());
            thread::yield_now();
        }
        let view = load.view();
        assert!(view.failure.is_none() && view.samples.iter().any(|sample| sample.rate > 0), "{view:?}");
        assert_eq!(view.endings.keys().collect::<Vec<_>>(), ["clean and acknowledged"]);
    }

    #[test]
    fn a_plan_out_of_range_is_refused_with_its_parameter() {
        let of = |text: &'static str| Plan::parse(|name| (name == "seconds").then(|| Cow::from(text)));
        assert!(of("61").is_err_and(|why| why == "seconds: write a whole number from 1 to 60"));
        assert!(of("x").is_err() && of("60").is_ok());
    }
}
