//! The result for people: one page of text. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;
use hdrhistogram::Histogram;

use super::load::Finisher;
use super::report::{self, FirstFins, Handshakes, Report};
use super::tally::Kind;
use crate::output::{BAD, HEADING, count, thousands};

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::from("\n");
    row(&mut page, "target", &target(report));
    row(&mut page, "connection", &connection(report));
    row(&mut page, "pace", &pace(report));
    if report.loads > 1 {
        row(&mut page, "loads", &format!("{}, merged as if they ran at the same time", report.loads));
    }
    page += &summary(report);
    if report.successful() > 0 {
        page += &latency(report);
    }
    page.push('\n');
    let kinds = Kind::ALL.into_iter().map(|kind| (kind, report.failures_of(kind))).filter(|(_, number)| *number > 0);
    let failures: Vec<_> = kinds.map(|(kind, number)| format!("{} {}", thousands(number), kind.name())).collect();
    if !failures.is_empty() {
        row(&mut page, "failures", &failures.join(", "));
    }
    if report.successful() > 0 {
        row(&mut page, "endings", &endings(report));
    }
    if let Some(tls) = &report.tls {
        row(&mut page, "handshakes", &handshakes(tls));
    }
    let both = |sent, received| format!("{} sent, {} received", bytes(sent), bytes(received));
    row(&mut page, "bytes", &both(report.bytes_sent, report.bytes_received));
    let per_second = [report.bytes_sent_per_second, report.bytes_received_per_second].map(|rate| rate.round() as u64);
    row(&mut page, "per second", &both(per_second[0], per_second[1]));
    row(&mut page, "server CPU", &cpu(report.server_cpu_us_per_connection, &report.unknown.server_cpu));
    row(&mut page, "client CPU", &cpu(report.client_cpu_us_per_connection, &report.unknown.client_cpu));
    page
}

fn row(page: &mut String, name: &str, text: &str) {
    let _ = writeln!(page, "  {name:<12}{text}");
}

fn target(report: &Report) -> String {
    let addr = match &report.name {
        Some(name) => format!("{name} ({})", report.target),
        None => report.target.clone(),
    };
    report.server.as_ref().map_or_else(|| addr.clone(), |server| format!("{addr}, started for this: {server}"))
}

fn connection(report: &Report) -> String {
    if report.tls.is_some() { format!("TLS: {}", plain(report)) } else { plain(report) }
}

fn plain(report: &Report) -> String {
    let (asks, answers) = (bytes(report.request_bytes), bytes(report.answer_bytes));
    let checked = if report.content_checked { "" } else { " (only its length is checked)" };
    match report.first == report::first(Finisher::Client) {
        true => format!("send {asks}, finish, read {answers} to the end{checked}, close"),
        false => format!("send {asks}, read {answers} to the end{checked}, finish, close"),
    }
}

fn handshakes(tls: &Handshakes) -> String {
    let resumed = if tls.resumption { format!(", {} of them resumed", thousands(tls.resumed)) } else { String::new() };
    format!("{}{resumed}", thousands(tls.handshakes))
}

fn pace(report: &Report) -> String {
    let in_flight = thousands(report.in_flight);
    let warm_up = report.warm_up_ms.map(|ms| format!(", after a warm-up of {}", duration(ms)));
    let pace = match report.rate {
        Some(rate) => format!("{} per second, up to {in_flight} in flight", count(rate, "connection")),
        None => format!("{in_flight} in flight, the next as soon as one has closed"),
    };
    pace + &warm_up.unwrap_or_default()
}

fn duration(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// The lines that matter most.
fn summary(report: &Report) -> String {
    let failed = match report.failed {
        0 => "none failed".to_owned(),
        failed => format!("{BAD}{} FAILED{BAD:#}", thousands(failed)),
    };
    let mut text = format!(
        "\n  {HEADING}{} per second{HEADING:#}\n  {} in {}, {failed}",
        count(report.per_second.round() as u64, "connection"),
        thousands(report.connections),
        // A file of `merge` may have any number.
        time(Duration::try_from_secs_f64(report.seconds).unwrap_or_default()),
    );
    if report.interrupted {
        text += "; interrupted";
    }
    if report.given_up {
        text += "; given up, since the first 200 failed";
    }
    if report.cut_off > 0 {
        let _ = write!(text, " with {} in flight", thousands(report.cut_off));
    }
    if report.overloaded > 0 {
        let _ = write!(
            text,
            "\n  {BAD}OVERLOADED{BAD:#}: {} could not begin within {} of the time at which they were due",
            count(report.overloaded, "connection"),
            duration(report.timeout_ms)
        );
    }
    if let Some(reached) = rate_reached(report) {
        let _ = write!(text, "\n  rate not reached: {} per second began", count(reached, "connection"));
    }
    if report.late > 0 {
        let _ = write!(
            text,
            "\n  {} began more than 1 ms late: too many in flight, or no core was free",
            count(report.late, "connection")
        );
    }
    text + "\n"
}

/// The rate at which connections were begun, if it is more than 1 % below the requested one.
fn rate_reached(report: &Report) -> Option<u64> {
    let (begun, rate) = (report.begun_per_second?, report.rate? as f64);
    (begun < rate * 0.99).then_some(begun.round() as u64)
}

const MARKS: [(f64, &str); 5] = [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"), (100.0, "max")];

fn latency(report: &Report) -> String {
    let from = if report.rate.is_some() { "the intended start" } else { "the connect call" };
    let which = match report.failed {
        0 => String::new(),
        _ => format!(" of the {} successful ones", thousands(report.successful())),
    };
    let mut text = format!("\n  latency{which}, from {from} to the end of the answer\n{}\n", not_included(report));
    let mut heads = String::new();
    let mut values = String::new();
    for (percentile, name) in MARKS {
        let _ = write!(heads, "{name:>10}");
        let _ = write!(values, "{:>10}", time(report.latency_at(percentile)));
    }
    let _ = writeln!(text, "{heads}\n{values}\n");
    text + &histogram(&report.histogram)
}

/// What the percentiles hide: connections that would be their slowest part.
fn not_included(report: &Report) -> String {
    let slow = report.failures_of(Kind::TimedOut).saturating_add(report.overloaded);
    let what = match (report.failures_of(Kind::TimedOut), report.overloaded) {
        (_, 0) => "that took longer than",
        (0, _) => "that could not begin within",
        _ => "that could not begin within, or took longer than,",
    };
    if slow == 0 {
        return String::new();
    }
    let share = 100.0 * slow as f64 / report.successful().saturating_add(slow) as f64;
    format!(
        "  NOT INCLUDED: {} {what} {}, {share:.1} % of these and the successful ones\n",
        thousands(slow),
        duration(report.timeout_ms)
    )
}

/// Edges in each decade, finest first: steps that look even on a logarithmic scale and are easy to
/// read.
const STEPS: [&[u64]; 3] = [&[10, 15, 20, 30, 50, 70], &[10, 20, 50], &[10]];
/// More rows would be a list and not a shape.
const ROWS: usize = 16;
const BAR: usize = 36;

/// One row of the histogram, from `from` up to the next row.
struct Bucket {
    from: u64,
    count: u64,
}

fn buckets(latency: &Histogram<u64>, steps: &[u64]) -> Vec<Bucket> {
    // A value is known to three digits, and counts as the highest that it can be.
    let (min, max) = (latency.highest_equivalent(latency.min()), latency.max());
    let decades = (0..18).map(|exponent| 10_u64.pow(exponent));
    let edges = decades.flat_map(|decade| steps.iter().map(move |step| step * decade / 10));
    let mut buckets: Vec<Bucket> = edges.map(|from| Bucket { from, count: 0 }).collect();
    for recorded in latency.iter_recorded() {
        let slot = buckets.partition_point(|bucket| bucket.from <= recorded.value_iterated_to());
        buckets[slot.saturating_sub(1)].count += recorded.count_since_last_iteration();
    }
    let first = buckets.partition_point(|bucket| bucket.from <= min).saturating_sub(1);
    let last = buckets.partition_point(|bucket| bucket.from <= max);
    buckets.drain(first..last).collect()
}

fn histogram(latency: &Histogram<u64>) -> String {
    let mut rows = Vec::new();
    for steps in STEPS {
        rows = buckets(latency, steps);
        if rows.len() <= ROWS {
            break;
        }
    }
    let most = rows.iter().map(|row| row.count).max().unwrap_or(1).max(1);
    let width = thousands(most).len();
    let mut text = format!("  {:>8} │\n", "from");
    for (place, bucket) in rows.iter().enumerate() {
        let until = rows.get(place + 1).map_or(u64::MAX, |next| next.from);
        let marks: Vec<_> = MARKS
            .iter()
            .filter(|(percentile, _)| {
                (bucket.from..until).contains(&latency.value_at_percentile(*percentile).min(latency.max()))
            })
            .map(|(_, name)| *name)
            .collect();
        let share = 100.0 * bucket.count as f64 / latency.len().max(1) as f64;
        let line = format!(
            "  {:>8} │{:<BAR$} {:>width$} {share:>5.1} %  {}",
            edge(bucket.from),
            bar(bucket.count, most),
            thousands(bucket.count),
            marks.join(" ")
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Blocks in eighths. A count above 0 is always visible.
fn bar(count: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (count as f64 / most as f64 * (BAR * 8) as f64).round() as usize;
    let eighths = eighths.max(usize::from(count > 0));
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

fn endings(report: &Report) -> String {
    let all = |count: u64| if count == report.successful() { "all".to_owned() } else { thousands(count) };
    let mut text = match report.failed {
        0 => String::new(),
        _ => format!("of the {} that succeeded, ", thousands(report.successful())),
    };
    let _ = write!(text, "{} acknowledged", all(report.acknowledged));
    let FirstFins { local, peer, unknown } = report.first_fin;
    for (count, who) in [(local, "we"), (peer, "the server"), (unknown, "an unknown side")] {
        if count > 0 {
            let _ = write!(text, "; {who} finished first in {}", all(count));
        }
    }
    text
}

fn cpu(micros: Option<f64>, unknown: &str) -> String {
    match micros {
        Some(micros) => format!("{micros:.1} µs per connection"),
        None => format!("unknown: {unknown}"),
    }
}

/// Three digits and a unit.
fn time(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (unit, name) = match nanos {
        ..1e3 => return format!("{nanos} ns"),
        ..999_500.0 => (1e3, "µs"),
        ..999_500_000.0 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = nanos / unit;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {name}")
}

/// An edge of a bucket: a round number.
fn edge(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{} ms", nanos as f64 / 1e6),
        _ => format!("{} s", nanos as f64 / 1e9),
    }
}

fn bytes(count: u64) -> String {
    if count < 1024 { format!("{count} B") } else { ByteSize::b(count).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit_that_fits() {
        let times =
            [(7, "7 ns"), (1_234, "1.23 µs"), (999_400, "999 µs"), (999_600, "1.00 ms"), (45_670_000, "45.7 ms")];
        for (nanos, text) in times.into_iter().chain([(999_600_000, "1.00 s"), (62_000_000_000, "62.0 s")]) {
            assert_eq!(time(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn edges_are_round() {
        assert_eq!([500, 1_500, 20_000_000, 3_000_000_000].map(edge), ["500 ns", "1.5 µs", "20 ms", "3 s"]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_and_never_invisible() {
        assert_eq!(bar(8, 8).chars().count(), BAR);
        assert_eq!((bar(0, 8), bar(1, 1_000_000)), (String::new(), "▏".to_owned()));
        assert_eq!(bar(1, 8), "█".repeat(BAR / 8) + "▌");
    }
}
