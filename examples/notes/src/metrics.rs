//! Numbers for Prometheus, in its text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use finale_tls::TlsMetrics;

/// The upper ends of the histogram's buckets, in microseconds: from a read out of the cache to a
/// disk that is in trouble.
const BUCKETS: [u64; 11] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000];

/// What the service counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    answers: BTreeMap<u16, u64>,
    /// Latencies of the database by bucket; the last one has no upper end.
    latencies: [u64; BUCKETS.len() + 1],
    latency_sum: Duration,
    latency_max: Duration,
}

/// What is so at the moment.
#[derive(Debug)]
pub(crate) struct Now {
    pub(crate) in_flight: usize,
    pub(crate) pending: usize,
    pub(crate) followers: usize,
    pub(crate) dropped_followers: u64,
}

impl Metrics {
    pub(crate) fn count_answer(&mut self, status: u16) {
        *self.answers.entry(status).or_default() += 1;
    }

    /// A job of the database has taken this long, its wait included.
    pub(crate) fn count_latency(&mut self, took: Duration) {
        let bucket = BUCKETS.iter().position(|end| took <= Duration::from_micros(*end)).unwrap_or(BUCKETS.len());
        self.latencies[bucket] += 1;
        self.latency_sum += took;
        self.latency_max = self.latency_max.max(took);
    }

    pub(crate) fn print(&self, now: &Now, reactor: &finale::Metrics, tls: &TlsMetrics) -> String {
        let mut page = Page::default();
        let answers = self.answers.iter().map(|(status, count)| (format!("{{status=\"{status}\"}}"), *count));
        page.family("notes_answers_total", "counter", "Answers by status.", answers);
        page.one("notes_requests_in_flight", "gauge", "Requests without an answer.", now.in_flight as u64);
        page.one("notes_database_pending", "gauge", "Jobs of the database without an answer.", now.pending as u64);
        page.histogram(self);
        page.one("notes_followers", "gauge", "Clients that follow the events.", now.followers as u64);
        page.one("notes_followers_dropped_total", "counter", "Followers that were too slow.", now.dropped_followers);
        page.connections(reactor);
        page.tls(tls);
        page.text
    }
}

#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str, rows: impl IntoIterator<Item = (String, u64)>) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help, [(String::new(), value)]);
    }

    fn connections(&mut self, reactor: &finale::Metrics) {
        let live = reactor.live_by_state().map(|(state, count)| (format!("{{state=\"{state:?}\"}}"), count as u64));
        self.family("notes_connections", "gauge", "Connections by state.", live);
        self.one("notes_connections_accepted_total", "counter", "Accepted connections.", reactor.accepted);
        let ends = [
            ("confirmed", reactor.confirmed),
            ("handed_off", reactor.handed_off),
            ("destroyed", reactor.destroyed),
            ("failed", reactor.failed()),
        ];
        let ends = ends.map(|(how, count)| (format!("{{end=\"{how}\"}}"), count));
        self.family("notes_connections_closed_total", "counter", "How connections have ended.", ends);
        self.one("notes_read_bytes_total", "counter", "Bytes from clients.", reactor.bytes_read);
        self.one("notes_written_bytes_total", "counter", "Bytes to clients.", reactor.bytes_written);
        self.one("notes_queued_bytes", "gauge", "Bytes that wait for clients.", reactor.queued_bytes);
    }

    fn tls(&mut self, tls: &TlsMetrics) {
        let handshakes =
            [("full", tls.handshakes - tls.resumed), ("resumed", tls.resumed), ("failed", tls.failed_handshakes)];
        let handshakes = handshakes.map(|(how, count)| (format!("{{kind=\"{how}\"}}"), count));
        self.family("notes_tls_handshakes_total", "counter", "Handshakes of TLS.", handshakes);
        self.one("notes_tls_truncated_total", "counter", "Streams without close_notify.", tls.truncated);
        self.one("notes_tls_failed_total", "counter", "Streams that failed after their handshake.", tls.failed);
    }

    fn histogram(&mut self, metrics: &Metrics) {
        let name = "notes_database_seconds";
        self.family(name, "histogram", "Time of a job of the database, its wait included.", []);
        let mut sum = 0;
        for (slot, count) in metrics.latencies.iter().enumerate() {
            sum += count;
            let end = BUCKETS.get(slot).map_or("+Inf".to_owned(), |end| (*end as f64 / 1e6).to_string());
            let _ = writeln!(self.text, "{name}_bucket{{le=\"{end}\"}} {sum}");
        }
        let _ = writeln!(self.text, "{name}_sum {}\n{name}_count {sum}", metrics.latency_sum.as_secs_f64());
        let max = "notes_database_max_seconds";
        let _ = writeln!(self.text, "# HELP {max} The longest time since the start.\n# TYPE {max} gauge");
        let _ = writeln!(self.text, "{max} {}", metrics.latency_max.as_secs_f64());
    }
}
