//! Everything that a run has measured, as it is kept in JSON: the page is made from this and from nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::Spread;

/// One run of the comparison.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Raw {
    /// A whole run, which may be published; not a quick one, nor one of a few rows.
    pub(crate) whole: bool,
    pub(crate) command: String,
    pub(crate) seconds: u64,
    /// What is measured where: pairs of a name and a version or description.
    pub(crate) machine: Vec<(String, String)>,
    /// What could not be run here, a line each.
    pub(crate) skipped: Vec<String>,
    /// Each measurement has a network of its own, so that counters count nothing else.
    pub(crate) own_network: bool,
    pub(crate) experiments: Vec<Experiment>,
    pub(crate) counts: Vec<Counts>,
    pub(crate) memory: Vec<Memory>,
    /// What each ablation patch switches off, by the name of its row.
    pub(crate) titles: BTreeMap<String, String>,
    /// What `cargo bench` has measured in this run: nanoseconds by the benchmark's name.
    pub(crate) micro: BTreeMap<String, f64>,
    /// How many connections the counts are taken from.
    #[serde(default)]
    pub(crate) lengths: Lengths,
    /// What else went wrong, a line each.
    #[serde(default)]
    pub(crate) broken: Vec<String>,
}

/// Connections of the short run and of the long one, of which a count is the difference.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Lengths {
    /// Under a tool, where each costs a hundred times its usual price.
    pub(crate) short: u64,
    pub(crate) long: u64,
    /// The same for a count that slows nothing down.
    pub(crate) short_at_speed: u64,
    pub(crate) long_at_speed: u64,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { short: 400, long: 2400, short_at_speed: 2000, long_at_speed: 12_000 }
    }
}

/// Servers under the same load, in interleaved rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Experiment {
    pub(crate) id: String,
    pub(crate) title: String,
    /// The load in words.
    pub(crate) load: String,
    /// What the CPU time is divided by.
    pub(crate) unit: Unit,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    Connection,
    RoundTrip,
    Mebibyte,
}

/// One server in one experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
    /// Why it is out: a connection failed, an answer was wrong, the server died.
    pub(crate) failure: Option<String>,
}

/// One load on one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: u32,
    pub(crate) units: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
    pub(crate) segments: Option<u64>,
    pub(crate) bench: Option<Bench>,
}

/// What `finale bench` has seen from the client's side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bench {
    pub(crate) per_second: f64,
    pub(crate) latency_us: Latency,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Counts for one connection of the main load, from the difference of a long run and a short one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) name: String,
    /// Under strace, which makes a server slow, and so always loaded.
    pub(crate) system_calls: Option<f64>,
    /// Counted by the kernel's tracepoint at full speed.
    #[serde(default)]
    pub(crate) calls_at_speed: Option<f64>,
    pub(crate) by_call: BTreeMap<String, f64>,
    pub(crate) instructions: Option<f64>,
    /// Why a tool has counted nothing, by the tool's name. That is no failure.
    #[serde(default)]
    pub(crate) uncounted: BTreeMap<String, String>,
    pub(crate) failure: Option<String>,
}

/// Resident memory without and with idle connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) connections: u64,
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    pub(crate) failure: Option<String>,
}

impl Raw {
    pub(crate) fn experiment(&self, id: &str) -> Option<&Experiment> {
        self.experiments.iter().find(|experiment| experiment.id == id)
    }

    /// A line for everything that went wrong; none of it may be published as a success.
    pub(crate) fn failures(&self) -> Vec<String> {
        let rows = self.experiments.iter().flat_map(|experiment| {
            let failed = |row: &Row| Some(format!("{}, {}: {}", experiment.id, row.name, row.failure.as_ref()?));
            experiment.rows.iter().filter_map(failed).collect::<Vec<_>>()
        });
        let counts = self.counts.iter().filter_map(|row| Some(format!("{}: {}", row.name, row.failure.as_ref()?)));
        let memory = self.memory.iter().filter_map(|row| Some(format!("{}: {}", row.name, row.failure.as_ref()?)));
        rows.chain(counts).chain(memory).chain(self.broken.iter().cloned()).collect()
    }
}

impl Memory {
    pub(crate) fn bytes_each(&self) -> f64 {
        (self.after_bytes as f64 - self.before_bytes as f64) / self.connections as f64
    }
}

impl Experiment {
    /// A row with a result: a failed one has none.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name && row.failure.is_none() && !row.samples.is_empty())
    }

    /// The CPU time of one row as a ratio to that of another, both in the same round.
    pub(crate) fn cpu_ratio(&self, name: &str, against: &str) -> Option<Spread> {
        self.ratio(name, against, Sample::cpu_ns_per_unit)
    }

    /// The same for the rate at which units came through.
    pub(crate) fn rate_ratio(&self, name: &str, against: &str) -> Option<Spread> {
        self.ratio(name, against, |sample| sample.units as f64 / sample.wall_ns as f64)
    }

    fn ratio(&self, name: &str, against: &str, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        let (row, reference) = (self.row(name)?, self.row(against)?);
        let in_round = |round| reference.samples.iter().find(|sample| sample.round == round);
        let pairs = row.samples.iter().filter_map(|sample| Some((sample, in_round(sample.round)?)));
        Spread::of(pairs.map(|(sample, other)| figure(sample) / figure(other)))
    }
}

impl Row {
    pub(crate) fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(figure))
    }

    pub(crate) fn cpu_us(&self) -> Option<Spread> {
        self.spread(|sample| sample.cpu_ns_per_unit() / 1000.0)
    }

    /// Units per second, as the client saw them.
    pub(crate) fn per_second(&self) -> Option<Spread> {
        self.spread(|sample| sample.units as f64 * 1e9 / sample.wall_ns as f64)
    }

    /// Segments for each unit, where they could be counted in every round.
    pub(crate) fn segments(&self) -> Option<Spread> {
        let each = |sample: &Sample| Some(sample.segments? as f64 / sample.units as f64);
        Spread::of(self.samples.iter().map(each).collect::<Option<Vec<f64>>>()?)
    }
}

impl Sample {
    pub(crate) fn cpu_ns_per_unit(&self) -> f64 {
        self.cpu_ns as f64 / self.units as f64
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row with these CPU times, in µs, round by round; each round has a thousand connections.
    pub(crate) fn row(name: &str, cpu_us: &[f64]) -> Row {
        let sample = |(round, us): (usize, &f64)| Sample {
            round: round as u32,
            units: 1000,
            cpu_ns: (us * 1e6) as u64,
            wall_ns: 50_000_000,
            segments: Some(8000),
            bench: None,
        };
        Row { name: name.into(), samples: cpu_us.iter().enumerate().map(sample).collect(), failure: None }
    }

    pub(crate) fn experiment(id: &str, rows: Vec<Row>) -> Experiment {
        Experiment { id: id.into(), title: format!("The {id} load"), load: "some".into(), unit: Unit::Connection, rows }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_and_so_knows_no_drift() {
        let drifting = experiment("main", vec![row("a", &[10.0, 20.0, 40.0]), row("b", &[20.0, 40.0, 80.0])]);
        let spread = drifting.cpu_ratio("a", "b").unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (0.5, 0.5, 0.5));
    }

    #[test]
    fn a_round_that_one_of_the_two_has_not_run_counts_for_neither() {
        let mut short = row("b", &[20.0, 40.0, 80.0]);
        short.samples.remove(0);
        let spread = experiment("main", vec![row("a", &[1.0, 20.0, 40.0]), short]).cpu_ratio("a", "b").unwrap();
        assert_eq!((spread.rounds, spread.min), (2, 0.5));
    }

    #[test]
    fn a_failed_row_has_no_ratio_and_is_told() {
        let mut broken = row("b", &[20.0]);
        broken.failure = Some("3 failed".into());
        let raw = Raw { experiments: vec![experiment("main", vec![row("a", &[10.0]), broken])], ..Raw::default() };
        assert_eq!(raw.experiments[0].cpu_ratio("a", "b"), None);
        assert_eq!(raw.failures(), ["main, b: 3 failed"]);
    }

    #[test]
    fn raw_data_comes_back_from_json_as_it_was() {
        let raw = Raw { experiments: vec![experiment("main", vec![row("a", &[10.0])])], ..Raw::default() };
        let again: Raw = serde_json::from_str(&serde_json::to_string(&raw).unwrap()).unwrap();
        assert_eq!(format!("{raw:?}"), format!("{again:?}"));
    }
}
