//! The result of one load, or of several: the object that `--json` prints and `merge` reads, from
//! which the page is made.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::histogram;
use super::load::{Finisher, Plan};
use super::tally::{Kind, Tally};
use crate::tls::Client;

/// A load, and what it has cost.
pub(super) struct Measured<'a> {
    pub(super) plan: &'a Plan,
    /// The name that was looked up for the target.
    pub(super) name: Option<&'a str>,
    pub(super) rate: Option<u32>,
    pub(super) warm_up: Option<Duration>,
    pub(super) tally: &'a Tally,
    /// How our own server was started.
    pub(super) server: Option<&'a str>,
    /// Per connection, or why it is unknown.
    pub(super) server_cpu: Result<Duration, String>,
    pub(super) client_cpu: Result<Duration, String>,
}

/// The names are stable: programs read them. An unknown value is null.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) target: String,
    pub(super) name: Option<String>,
    pub(super) server: Option<String>,
    pub(super) loads: u64,
    pub(super) connections: u64,
    pub(super) failed: u64,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) first_failure: Option<String>,
    pub(super) given_up: bool,
    pub(super) never_begun: Option<u64>,
    pub(super) overloaded: u64,
    pub(super) acknowledged: u64,
    pub(super) first_fin: FirstFins,
    pub(super) interrupted: bool,
    pub(super) cut_off: u64,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    pub(super) latency_us: Latency,
    #[serde(with = "histogram")]
    pub(super) histogram: Histogram<u64>,
    pub(super) begun_per_second: Option<f64>,
    pub(super) late: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent_per_second: f64,
    pub(super) bytes_received_per_second: f64,
    pub(super) server_cpu_us_per_connection: Option<f64>,
    pub(super) client_cpu_us_per_connection: Option<f64>,
    /// `None` without TLS.
    pub(super) tls: Option<Handshakes>,
    pub(super) in_flight: u64,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
    pub(super) content_checked: bool,
    pub(super) first: String,
    pub(super) rate: Option<u64>,
    pub(super) timeout_ms: u64,
    pub(super) duration_ms: Option<u64>,
    pub(super) warm_up_ms: Option<u64>,
    pub(super) version: String,
    /// Why the CPU times are unknown, for the page.
    #[serde(skip)]
    pub(super) unknown: Unknown,
}

/// Why the CPU times are unknown.
#[derive(Debug, Clone, Default)]
pub(super) struct Unknown {
    pub(super) server_cpu: String,
    pub(super) client_cpu: String,
}

/// Which side finished first, in successful connections.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct FirstFins {
    pub(super) local: u64,
    pub(super) peer: u64,
    pub(super) unknown: u64,
}

/// The handshakes of a load with TLS.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Handshakes {
    pub(super) handshakes: u64,
    pub(super) resumed: u64,
    /// Whether clients resumed sessions where the server permitted it.
    pub(super) resumption: bool,
}

/// Microseconds. Null if no connection was successful.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    pub(super) max: Option<f64>,
}

/// Rounded to a tenth of a microsecond. Smaller differences are noise.
fn micros(time: Duration) -> f64 {
    tenths(time.as_secs_f64() * 1e6)
}

pub(super) fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Report {
    /// The result of one load.
    pub(super) fn new(measured: Measured<'_>) -> Self {
        let Measured { plan, tally, .. } = measured;
        let cpu = |time: &Result<Duration, String>| time.as_ref().ok().map(|time| micros(*time));
        let (server_cpu, client_cpu) = (cpu(&measured.server_cpu), cpu(&measured.client_cpu));
        Self {
            target: plan.target.to_string(),
            name: measured.name.map(str::to_owned),
            server: measured.server.map(str::to_owned),
            loads: 1,
            connections: tally.finished,
            failed: tally.failed(),
            failures: tally.failures().map(|(kind, count)| (kind.name().to_owned(), count)).collect(),
            first_failure: tally.first_failure.clone(),
            given_up: tally.hopeless,
            never_begun: tally.never_begun,
            overloaded: tally.overloaded,
            acknowledged: tally.acknowledged,
            first_fin: FirstFins {
                local: tally.we_first,
                peer: tally.peer_first,
                unknown: tally.successful() - tally.we_first - tally.peer_first,
            },
            interrupted: tally.interrupted,
            cut_off: tally.cut_off,
            seconds: tally.took.as_secs_f64(),
            per_second: 0.0,
            latency_us: Latency::of(&tally.latency, tally.longest),
            histogram: tally.latency.clone(),
            begun_per_second: begun_per_second(tally),
            late: tally.late,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            bytes_sent_per_second: 0.0,
            bytes_received_per_second: 0.0,
            server_cpu_us_per_connection: server_cpu,
            client_cpu_us_per_connection: client_cpu,
            tls: tally.tls.map(|tls| Handshakes {
                handshakes: tls.handshakes,
                resumed: tls.resumed,
                resumption: plan.tls.as_ref().is_some_and(Client::resumes),
            }),
            in_flight: plan.in_flight as u64,
            request_bytes: plan.request_bytes,
            answer_bytes: plan.expected.bytes(),
            content_checked: plan.expected.is_known(),
            first: first(plan.first).to_owned(),
            rate: measured.rate.map(u64::from),
            timeout_ms: millis(plan.timeout),
            duration_ms: plan.duration.map(millis),
            warm_up_ms: measured.warm_up.map(millis),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unknown: Unknown {
                server_cpu: measured.server_cpu.err().unwrap_or_default(),
                client_cpu: measured.client_cpu.err().unwrap_or_default(),
            },
        }
        .with_rates()
    }

    /// Fills in what follows from the sums and the time.
    pub(super) fn with_rates(mut self) -> Self {
        let per_second = |count: u64| if self.seconds > 0.0 { tenths(count as f64 / self.seconds) } else { 0.0 };
        let rates = [self.successful(), self.bytes_sent, self.bytes_received].map(per_second);
        [self.per_second, self.bytes_sent_per_second, self.bytes_received_per_second] = rates;
        self
    }

    /// Whether its counts fit together, as those of every load do. If not, it was written by
    /// another program, or was changed.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let of = |counts: &[u64]| counts.iter().map(|count| u128::from(*count)).sum::<u128>();
        let FirstFins { local, peer, unknown } = self.first_fin;
        let kinds: Vec<u64> = self.failures.values().copied().collect();
        let successful = self.successful();
        let checks = [
            (self.failed <= self.connections, "more connections have failed than have ended"),
            (
                self.histogram.len() == successful,
                "the histogram has not as many latencies as connections were successful",
            ),
            (self.latency_us.max.is_some() == (successful > 0), "the longest latency does not fit the histogram"),
            (of(&kinds) == u128::from(self.failed), "the failures by kind are not as many as all failures"),
            (self.first_failure.is_some() == (self.failed > 0), "the first failure does not fit the failures"),
            (self.acknowledged <= successful, "more connections were acknowledged than were successful"),
            (
                of(&[local, peer, unknown]) == u128::from(successful),
                "first_fin has not each successful connection once",
            ),
            (
                self.tls.is_none_or(|tls| tls.resumed <= tls.handshakes),
                "more sessions were resumed than handshakes were done",
            ),
            (self.seconds >= 0.0, "the time is negative"),
            (self.loads > 0, "it is the result of no load"),
            (
                [Finisher::Client, Finisher::Server].map(first).contains(&self.first.as_str()),
                "first is neither client nor server",
            ),
        ];
        checks.into_iter().find(|(fits, _)| !fits).map_or(Ok(()), |(_, why)| Err(why))
    }

    pub(super) const fn successful(&self) -> u64 {
        self.connections.saturating_sub(self.failed)
    }

    /// The failures of this kind.
    pub(super) fn failures_of(&self, kind: Kind) -> u64 {
        self.failures.get(kind.name()).copied().unwrap_or(0)
    }

    /// The longest latency. The histogram has it to three digits only.
    pub(super) fn longest(&self) -> Duration {
        Duration::from_nanos((self.latency_us.max.unwrap_or(0.0) * 1e3).round() as u64)
    }

    /// The latency at this percentile.
    pub(super) fn latency_at(&self, percentile: f64) -> Duration {
        latency_at(&self.histogram, self.longest(), percentile)
    }
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>, longest: Duration) -> Self {
        let at = |percentile| (!histogram.is_empty()).then(|| micros(latency_at(histogram, longest, percentile)));
        Self { p50: at(50.0), p90: at(90.0), p99: at(99.0), p999: at(99.9), max: at(100.0) }
    }
}

fn latency_at(histogram: &Histogram<u64>, longest: Duration, percentile: f64) -> Duration {
    Duration::from_nanos(histogram.value_at_percentile(percentile)).min(longest)
}

/// The rate at which connections were begun.
fn begun_per_second(tally: &Tally) -> Option<f64> {
    let begun = (tally.finished + tally.cut_off).checked_sub(1).filter(|begun| *begun > 0)?;
    Some(begun as f64 / tally.last_begun.as_secs_f64()).filter(|rate| rate.is_finite())
}

/// The side that finishes first, as the object names it.
pub(super) const fn first(finisher: Finisher) -> &'static str {
    match finisher {
        Finisher::Client => "client",
        Finisher::Server => "server",
    }
}
