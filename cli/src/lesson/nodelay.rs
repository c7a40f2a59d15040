//! `finale lesson nodelay`: what Nagle's algorithm costs when it meets a delayed acknowledgement
//! (challenge 3).
//!
//! Invariant: the printed values were measured in this run on a real connection, also if they
//! differ from what textbooks say.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use finale::{ConnectOptions, Event, ListenOptions, Reactor, Socket, Waker};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::page::{heading, learned, paragraph};
use crate::errors::Error;
use crate::output::{self, count};
use crate::values;

/// Challenge 3: what Nagle's algorithm costs when it meets a delayed acknowledgement
///
/// Measures round trips on a loopback connection with Nagle's algorithm, without it, and with
/// requests that are written at once. With a stall of 40 ms each, 200 round trips take 8 seconds.
#[derive(Debug, clap::Args)]
pub(super) struct NodelayOptions {
    /// How many round trips to measure in each of the three runs
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = values::number::<u32>(1..=10_000))]
    #[arg(allow_hyphen_values = true)]
    rounds: u32,
    /// Show no progress bar
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// How a request of two halves is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halves {
    /// Each in its own turn: two calls of send.
    Apart,
    /// In one turn: finale sends them together.
    Together,
}

const HALF: &[u8] = b"half a request, ";
/// Round trips that are not measured: a new connection acknowledges its first segments at once, and
/// delays later ones, when it sees requests and answers alternate.
const WARM_UP: u32 = 8;
/// A round trip on loopback takes microseconds. A longer one has waited for a timer.
const STALL: Duration = Duration::from_millis(10);

/// Measures and prints.
pub(super) fn run(options: &NodelayOptions) -> Result<(), Error> {
    let rounds = options.rounds;
    paragraph(&format!(
        "A client writes a request in two halves, and the server answers when it has both. We measure {} on one \
         loopback connection, first with Nagle's algorithm and then without it.",
        count(u64::from(rounds), "round trip"),
    ))?;
    let bar = progress(options);
    let measure = |nodelay, halves| Session::measure(nodelay, halves, rounds, &bar);
    let nagle = measure(false, Halves::Apart)?;
    bar.suspend(|| table("Nagle's algorithm on (TCP_NODELAY off)", &nagle))?;
    let nodelay = measure(true, Halves::Apart)?;
    bar.suspend(|| table("Nagle's algorithm off (TCP_NODELAY on, finale's default)", &nodelay))?;
    let together = measure(false, Halves::Together)?;
    bar.finish_and_clear();
    heading("What happened")?;
    paragraph(&explanation(&nagle, &nodelay))?;
    let together = format!(
        "Best of all, write a whole message at once: both halves written in one turn took {} ms (median) with Nagle's \
         algorithm on. finale sends what one turn writes in one call, and sets TCP_NODELAY by default.",
        quantile(&together, 0.5)
    );
    learned(&[
        "Set TCP_NODELAY where a small message must be sent at once and an answer is waited for: requests, games, \
         terminals, everything that writes, writes and reads.",
        "Leave Nagle's algorithm on where many small writes follow each other without answers and you can't gather \
         them yourself. There it saves packets, and its delay does not matter.",
        &together,
    ])
}

/// A bar for all three runs.
fn progress(options: &NodelayOptions) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} round trips, {eta} left");
    // indicatif draws on a terminal only.
    let target = if options.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(3 * u64::from(options.rounds)), target);
    bar.with_style(style.unwrap_or_else(|_wrong| ProgressStyle::default_bar()))
}

/// Round trips in microseconds.
type Trips = Histogram<u64>;

/// Keeps three digits of each trip. A trip of more than an hour counts as an hour.
fn empty() -> Result<Trips, Error> {
    Trips::new_with_bounds(1, 3_600_000_000, 3).map_err(|_why| Error::Scene("can't create the histogram"))
}

/// One connection, client and server on the same reactor.
struct Session<'a> {
    remote: Waker,
    halves: Halves,
    begun: Instant,
    /// Bytes of the current request that the server has.
    request_bytes: usize,
    warm_up: u32,
    rounds: u32,
    trips: Trips,
    bar: &'a ProgressBar,
}

impl<'a> Session<'a> {
    fn measure(nodelay: bool, halves: Halves, rounds: u32, bar: &'a ProgressBar) -> Result<Trips, Error> {
        let mut reactor = Reactor::new()?;
        let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
        let client = reactor.connect(listener.addr, ConnectOptions::default().nodelay(nodelay))?;
        let trips = empty()?;
        let remote = reactor.waker();
        let begun = Instant::now();
        let mut session = Self { remote, halves, begun, request_bytes: 0, warm_up: WARM_UP, rounds, trips, bar };
        let mut open = 2;
        while open > 0 {
            let Some((mut socket, event)) = reactor.next()? else { break };
            match event {
                Event::Ready => session.write_first_half(&mut socket)?,
                Event::Data(_) if socket.id() == client => session.take_answer(&mut socket)?,
                Event::Data(bytes) => session.take_request(&mut socket, bytes)?,
                Event::Woken => session.write_second_half(reactor.socket(client))?,
                Event::End => socket.end(),
                Event::Error(_) => return Err(Error::Scene("the connection of this lesson failed")),
                Event::Close(_) => open -= 1,
                _ => {}
            }
        }
        Ok(session.trips)
    }

    /// Writes the first half. What one handler writes is sent together, so the second half has to
    /// be written in another turn.
    fn write_first_half(&mut self, socket: &mut Socket<'_>) -> Result<(), finale::Error> {
        self.begun = Instant::now();
        socket.write(HALF)?;
        match self.halves {
            Halves::Apart => self.remote.wake(),
            Halves::Together => socket.write(HALF).map(|_queue| ()),
        }
    }

    fn write_second_half(&self, socket: Option<Socket<'_>>) -> Result<(), finale::Error> {
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
            self.bar.inc(1);
        }
        if self.rounds == 0 {
            socket.end();
            return Ok(());
        }
        self.write_first_half(socket)
    }
}

/// The upper bounds of the rows, in microseconds. The last row has no bound.
const BOUNDS_US: [u64; 8] = [30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];
const BAR_WIDTH: u64 = 40;

fn table(title: &str, trips: &Trips) -> Result<(), Error> {
    heading(title)?;
    output::print(&rows(trips))
}

fn rows(trips: &Trips) -> String {
    let mut text = String::new();
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
    let _ = writeln!(text, "\nmedian {} ms; 99 % within {} ms", quantile(trips, 0.5), quantile(trips, 0.99));
    text
}

/// The trips in `from..to`. The histogram's own method includes neighbours, so two rows could count
/// one trip.
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

fn explanation(nagle: &Trips, nodelay: &Trips) -> String {
    let stall_us = u64::try_from(STALL.as_micros()).unwrap_or(u64::MAX);
    match (between(nagle, stall_us, u64::MAX), between(nodelay, stall_us, u64::MAX)) {
        (0, _) => "No round trip stalled with Nagle's algorithm on this machine: its kernel acknowledged the first \
                   half at once. Most kernels don't, and each request then takes about 40 ms."
            .to_owned(),
        (stalled, without) => format!(
            "With Nagle's algorithm {stalled} of {} stalled for {} ms or more, without it {without}. Neither program \
             was busy. The client's kernel held the second half back because the first was not acknowledged yet (RFC \
             9293 section 3.7.4). The server's kernel held the acknowledgement back, to send it together with an \
             answer (RFC 9293 section 3.8.6.3). Each waited for the other until a timer expired.",
            count(nagle.len(), "round trip"),
            STALL.as_millis()
        ),
    }
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
        let text = rows(&trips(&[10, 50, 50, 44_000, 200_000]));
        for row in ["0 to 0.03 ms |     1", "0.03 to 0.1 ms |     2", "30 to 100 ms |     1", "100 ms or more |     1"]
        {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert!(text.contains("median 0.05 ms"), "{text}");
    }

    #[test]
    fn the_explanation_of_a_machine_without_stalls_says_so() {
        let quick = trips(&[40; 10]);
        assert!(explanation(&quick, &quick).contains("No round trip stalled"));
        assert!(explanation(&trips(&[44_000; 10]), &quick).contains("10 of 10 round trips stalled"));
    }
}
