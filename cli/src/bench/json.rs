//! The result for other programs: one JSON object on one line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::load::Finisher;
use super::measured::Measured;

/// The names are stable: programs read them. An unknown value is null.
#[derive(Serialize)]
pub(super) struct Object<'a> {
    target: String,
    server: Option<&'a str>,
    connections: u64,
    failed: u64,
    failures: BTreeMap<&'static str, u64>,
    first_failure: Option<&'a str>,
    never_begun: Option<u64>,
    acknowledged: u64,
    interrupted: bool,
    cut_off: u64,
    seconds: f64,
    per_second: f64,
    latency_us: Latency,
    bytes_sent: u64,
    bytes_received: u64,
    server_cpu_us_per_connection: Option<f64>,
    client_cpu_us_per_connection: Option<f64>,
    in_flight: usize,
    request_bytes: u64,
    answer_bytes: u64,
    first: &'static str,
    rate: Option<u32>,
    timeout_ms: u64,
    duration_ms: Option<u64>,
    late: u64,
    version: &'static str,
}

/// Microseconds. Null if no connection was successful.
#[derive(Serialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

/// Rounded to a tenth of a microsecond. Smaller differences are noise.
fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

pub(super) fn object<'a>(measured: &Measured<'a>) -> Object<'a> {
    let Measured { plan, tally, .. } = measured;
    let at = |percentile| (tally.successful() > 0).then(|| micros(tally.latency_at(percentile)));
    let cpu = |time: &Result<Duration, String>| time.as_ref().ok().map(|time| micros(*time));
    Object {
        target: plan.target.to_string(),
        server: measured.server,
        connections: tally.finished,
        failed: tally.failed(),
        failures: tally.failures().map(|(kind, count)| (kind.name(), count)).collect(),
        first_failure: tally.first_failure.as_deref(),
        never_begun: tally.never_begun,
        acknowledged: tally.acknowledged,
        interrupted: tally.interrupted,
        cut_off: tally.cut_off,
        seconds: tally.took.as_secs_f64(),
        per_second: (tally.per_second() * 10.0).round() / 10.0,
        latency_us: Latency { p50: at(50.0), p90: at(90.0), p99: at(99.0), p999: at(99.9), max: at(100.0) },
        bytes_sent: tally.bytes_sent,
        bytes_received: tally.bytes_received,
        server_cpu_us_per_connection: cpu(&measured.server_cpu),
        client_cpu_us_per_connection: cpu(&measured.client_cpu),
        in_flight: plan.in_flight,
        request_bytes: plan.request_bytes,
        answer_bytes: plan.expected.bytes(),
        first: match plan.first {
            Finisher::Client => "client",
            Finisher::Server => "server",
        },
        rate: measured.rate,
        timeout_ms: plan.timeout.as_millis() as u64,
        duration_ms: plan.duration.map(|time| time.as_millis() as u64),
        late: tally.late,
        version: env!("CARGO_PKG_VERSION"),
    }
}
