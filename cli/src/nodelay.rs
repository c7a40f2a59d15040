//! `finale lesson nodelay`: what Nagle's algorithm costs when it meets a delayed acknowledgement
//! (challenge 3).
//!
//! Invariant: what is printed was measured a moment ago, on a real connection, also if it is not
//! what the books say.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use finale::{ConnectOptions, Event, ListenOptions, Reactor, Socket, Waker};
use hdrhistogram::Histogram;

use crate::trouble::Trouble;

/// How a request of two halves is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halves {
    /// Each in a turn of its own: two calls of send.
    Apart,
    /// In one turn: finale sends them together.
    Together,
}

const HALF: &[u8] = b"half a request, ";
/// Not measured: a young connection acknowledges its first segments at once, and delays only when
/// the traffic has come to look like question and answer.
const WARM_UP: u32 = 8;
/// A round trip on loopback takes microseconds; from here on somebody must have waited for a timer.
const STALL: Duration = Duration::from_millis(10);

/// Measures and prints.
pub(crate) fn run(rounds: u32) -> Result<(), Trouble> {
    print(&format!(
        "A client writes a request in two halves, the server answers when it has both: {rounds} round\n\
         trips on one loopback connection, once with Nagle's algorithm and once without.\n"
    ))?;
    let nagle = Session::measure(false, Halves::Apart, rounds)?;
    print(&table("Nagle's algorithm on (TCP_NODELAY off)", &nagle))?;
    let nodelay = Session::measure(true, Halves::Apart, rounds)?;
    print(&table("Nagle's algorithm off (TCP_NODELAY on, finale's default)", &nodelay))?;
    let together = Session::measure(false, Halves::Together, rounds)?;
    print(&explain(&nagle, &nodelay, &together))
}

fn print(text: &str) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Trouble::Stdout)
}

/// Round trips in microseconds.
type Trips = Histogram<u64>;

/// Keeps three digits of each trip, up to an hour; a longer one counts as an hour.
fn empty() -> Result<Trips, Trouble> {
    Trips::new_with_bounds(1, 3_600_000_000, 3).map_err(|_why| Trouble::Scene("the histogram could not be made"))
}

/// One connection, client and server on the same reactor.
struct Session {
    remote: Waker,
    halves: Halves,
    begun: Instant,
    /// What the server has of the current request.
    request_bytes: usize,
    warm_up: u32,
    rounds: u32,
    trips: Trips,
}

impl Session {
    fn measure(nodelay: bool, halves: Halves, rounds: u32) -> Result<Trips, Trouble> {
        let mut reactor = Reactor::new()?;
        let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
        let client = reactor.connect(listener.addr, ConnectOptions::default().nodelay(nodelay))?;
        let trips = empty()?;
        let remote = reactor.waker();
        let begun = Instant::now();
        let mut session = Self { remote, halves, begun, request_bytes: 0, warm_up: WARM_UP, rounds, trips };
        let mut open = 2;
        while open > 0 {
            let Some((mut socket, event)) = reactor.next()? else { break };
            match event {
                Event::Ready => session.ask(&mut socket)?,
                Event::Data(_) if socket.id() == client => session.take_answer(&mut socket)?,
                Event::Data(bytes) => session.take_request(&mut socket, bytes)?,
                Event::Woken => session.ask_on(reactor.socket(client))?,
                Event::End => socket.end(),
                Event::Error(_) => return Err(Trouble::Scene("the connection of this lesson was cut from outside")),
                Event::Close(_) => open -= 1,
                _ => {}
            }
        }
        Ok(session.trips)
    }

    /// The first half. What one handler writes leaves together, so the second half waits for a turn
    /// of its own.
    fn ask(&mut self, socket: &mut Socket<'_>) -> Result<(), finale::Error> {
        self.begun = Instant::now();
        socket.write(HALF)?;
        match self.halves {
            Halves::Apart => self.remote.wake(),
            Halves::Together => socket.write(HALF).map(|_queue| ()),
        }
    }

    fn ask_on(&self, socket: Option<Socket<'_>>) -> Result<(), finale::Error> {
        match socket {
            Some(mut socket) => socket.write(HALF).map(|_queue| ()),
            None => Ok(()),
        }
    }

    fn take_request(&mut self, socket: &mut Socket<'_>, bytes: &[u8]) -> Result<(), finale::Error> {
        self.request_bytes += bytes.len();
        if self.request_bytes == 2 * HALF.len() {
            self.request_bytes = 0;
            socket.write(b"!")?;
        }
        Ok(())
    }

    fn take_answer(&mut self, socket: &mut Socket<'_>) -> Result<(), finale::Error> {
        let trip = self.begun.elapsed();
        if self.warm_up > 0 {
            self.warm_up -= 1;
        } else {
            self.trips.saturating_record(u64::try_from(trip.as_micros()).unwrap_or(u64::MAX));
            self.rounds -= 1;
        }
        if self.rounds == 0 {
            socket.end();
            return Ok(());
        }
        self.ask(socket)
    }
}

/// The upper bounds of the rows, in microseconds. The last row has none.
const BOUNDS_US: [u64; 8] = [30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];
const BAR_WIDTH: u64 = 40;

fn table(title: &str, trips: &Trips) -> String {
    let mut text = format!("\n=== {title} ===\n\n");
    let mut from = 0;
    for bound in BOUNDS_US.into_iter().chain([u64::MAX]) {
        let count = between(trips, from, bound);
        let label = match bound {
            u64::MAX => format!("{} ms or more", millis(from)),
            _ => format!("{} to {} ms", millis(from), millis(bound)),
        };
        let bar = "#".repeat(usize::try_from((count * BAR_WIDTH).div_ceil(trips.len().max(1))).unwrap_or(0));
        // Writing into a String can't fail.
        let _ = writeln!(text, "{}", format!("{label:>16} |{count:>6} {bar}").trim_end());
        from = bound;
    }
    let _ = writeln!(text, "\nmedian {} ms, 99 in 100 within {} ms", quantile(trips, 0.5), quantile(trips, 0.99));
    text
}

/// Counts `from..to`. (The histogram's own counting takes in neighbours, so two rows could count
/// one trip.)
fn between(trips: &Trips, from: u64, to: u64) -> u64 {
    let rows = trips.iter_recorded().filter(|row| (from..to).contains(&row.value_iterated_to()));
    rows.map(|row| row.count_at_value()).sum()
}

fn quantile(trips: &Trips, share: f64) -> String {
    millis(trips.value_at_quantile(share))
}

fn millis(micros: u64) -> String {
    let text = format!("{}.{:03}", micros / 1000, micros % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn explain(nagle: &Trips, nodelay: &Trips, together: &Trips) -> String {
    let stall_us = u64::try_from(STALL.as_micros()).unwrap_or(u64::MAX);
    let stalled = between(nagle, stall_us, u64::MAX);
    let found = match (stalled, between(nodelay, stall_us, u64::MAX)) {
        (0, _) => "No round trip stalled with Nagle's algorithm on this machine: its kernel acknowledged the\n\
                   first half at once. Most kernels do not, and each request then takes some 40 ms."
            .to_owned(),
        (_, without) => format!(
            "With Nagle's algorithm {stalled} of {} round trips stalled for {} ms or more, without it {without}.\n\
             Nobody was busy: the client's kernel kept the second half back because the first was not\n\
             acknowledged yet (RFC 9293 section 3.7.4), and the server's kernel kept the acknowledgement\n\
             back, hoping to send it along with an answer (RFC 9293 section 3.8.6.3). Each waited for the\n\
             other until a timer ran out.",
            nagle.len(),
            STALL.as_millis()
        ),
    };
    format!(
        "\n=== When to disable it ===\n\n{found}\n\n\
         Disable Nagle's algorithm (TCP_NODELAY) where a small message must leave at once and its\n\
         answer is waited for: requests, games, terminals, anything that writes, writes and reads. Leave\n\
         it on where many small writes follow each other, nobody waits for an answer to each, and you\n\
         can't gather them yourself: it saves packets then, and delays nothing that matters. Better than\n\
         either is to write a whole message at once: both halves written in one turn took {} ms (median)\n\
         with Nagle's algorithm on. finale sends what one turn writes in one call, so it disables Nagle\n\
         by default.\n",
        quantile(together, 0.5)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(micros: &[u64]) -> Trips {
        let mut trips = empty().expect("the bounds are in order");
        for &trip in micros {
            trips.saturating_record(trip);
        }
        trips
    }

    #[test]
    fn a_table_counts_every_trip_once() {
        let text = table("x", &trips(&[10, 50, 50, 44_000, 200_000]));
        for row in ["0 to 0.03 ms |     1", "0.03 to 0.1 ms |     2", "30 to 100 ms |     1", "100 ms or more |     1"]
        {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert!(text.contains("median 0.05 ms"), "{text}");
    }

    #[test]
    fn a_machine_without_the_stall_is_told_so() {
        let quick = trips(&[40; 10]);
        assert!(explain(&quick, &quick, &quick).contains("No round trip stalled"));
        assert!(explain(&trips(&[44_000; 10]), &quick, &quick).contains("10 of 10 round trips stalled"));
    }
}
