//! What a probe has found: the result of each case, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use finale::trace::Record;
use serde::Serialize;
use serde_json::Value;

/// A time as the report has it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The same for short ones.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The version of the schema that `Report` is serialized with. It grows when a field changes its
/// meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// The result of a case.
///
/// ```
/// use finale_probe::Verdict;
/// assert!(Verdict::Fail > Verdict::Warn);
/// assert_eq!(Verdict::Skip.to_string(), "skip");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It could not be tried; the summary has the reason.
    Skip,
    /// A fact without a judgement.
    Info,
    /// As it should be.
    Pass,
    /// At risk, unusual, or a policy that some clients can't live with.
    Warn,
    /// Data was lost, a place was held for ever, or other clients were harmed.
    Fail,
}

impl Verdict {
    /// Its name in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Info => "info",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The result of a probe. Serialized, it is the JSON of `finale probe --json`.
///
/// ```
/// fn is_good(report: &finale_probe::Report) -> bool {
///     report.failures() == 0
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of the format.
    pub schema: u32,
    /// The target, as it was given.
    pub target: String,
    /// The address that was probed: of a name with several, the first that serves polite clients.
    pub address: String,
    /// The version of the probe.
    pub probe: &'static str,
    /// The way to the server.
    pub path: Path,
    /// What a polite client sees.
    pub baseline: crate::baseline::Baseline,
    /// [`Options::interrupt`](crate::Options::interrupt) has ended the probe: cases are missing.
    pub interrupted: bool,
    /// The cases, in the order in which they were run.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// How many cases failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.count(Verdict::Fail)
    }

    /// How many cases have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }
}

/// The target and each case: for the message of an assertion.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)?;
        self.cases.iter().try_for_each(|case| write!(f, "\n{case}"))
    }
}

/// The way to the server.
///
/// ```
/// fn is_near(path: &finale_probe::Path) -> bool {
///     path.round_trip_us < 1_000
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Path {
    /// The TTL of its packets when they arrive: 64, 128 or 255 less the routers between. `None` if
    /// it could not be found.
    pub ttl: Option<u8>,
    /// The shortest handshake, in microseconds.
    pub round_trip_us: u64,
    /// Whether a socket can be made deaf: without it, some cases are skipped.
    pub can_be_deaf: bool,
    /// Why what was seen may not be the server's doing, such as a router or a balancer between.
    pub between: Option<String>,
}

/// The result of one case.
///
/// ```
/// fn print(case: &finale_probe::CaseReport) {
///     println!("{case}"); // half-close, its verdict, and what was seen
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// Its name, for `--case`.
    pub id: &'static str,
    /// What the clients of the case do.
    pub does: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// How often it was tried.
    pub runs: u32,
    /// How often something was wrong.
    pub wrong: u32,
    /// How long it took, in milliseconds, until a healthy client was served after it.
    pub ms: u64,
    /// How many connections were begun, those of the healthy client included.
    pub connections: u32,
    /// What was seen, in one line.
    pub summary: String,
    /// The case was skipped, since a command or a process that an option names did not do its part:
    /// the command of a stop failed, or the server did not stop.
    pub option_failed: bool,
    /// What was seen, by variant of the case.
    pub seen: BTreeMap<String, Value>,
    /// Where the right behaviour is described.
    pub source: &'static str,
    /// What to change in the server, if something was wrong.
    pub cure: Option<String>,
    /// A healthy client that was served meanwhile.
    pub bystander: Option<BystanderReport>,
    /// What a client did and saw in the worst run.
    #[serde(skip)]
    pub ladder: Vec<Record>,
}

impl CaseReport {
    /// What was seen, a line per variant: `FIN 1 ms later: whole, then FIN (20)`.
    #[must_use]
    pub fn seen_lines(&self) -> Vec<String> {
        let line = |(variant, value): (&String, &Value)| match value {
            Value::Object(counts) if counts.values().all(Value::is_number) => {
                let counts: Vec<_> = counts.iter().map(|(what, times)| format!("{what} ({times})")).collect();
                format!("{variant}: {}", counts.join("; "))
            }
            Value::Object(facts) => {
                let is_known = |(_, value): &(&String, &Value)| !value.is_null() && *value != "";
                let facts: Vec<_> = facts.iter().filter(is_known).map(|(name, value)| fact(name, value)).collect();
                format!("{variant}: {}", facts.join("; "))
            }
            value => fact(variant, value),
        };
        self.seen.iter().map(line).collect()
    }
}

/// A fact in words: what is `"ended_ms": 12` for programs is `ended: 12 ms` for people.
fn fact(name: &str, value: &Value) -> String {
    let unit = |suffix, unit| name.strip_suffix(suffix).map(|name| (name.replace('_', " "), unit));
    let (name, unit) = unit("_ms", " ms").or(unit("_bytes", " bytes")).unwrap_or((name.to_owned(), ""));
    let word = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let words = match value {
        Value::Array(all) => all.iter().map(word).collect::<Vec<_>>().join(", "),
        Value::Null => String::new(),
        value => word(value),
    };
    if words.is_empty() { format!("{name}: not seen") } else { format!("{name}: {words}{unit}") }
}

/// The verdict and the summary; of a failure or a warning also what was seen, and the cure. What
/// the server has sent is printed as it is.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.verdict, self.id, self.summary)?;
        if self.verdict < Verdict::Warn {
            return Ok(());
        }
        for line in self.seen_lines() {
            write!(f, "\n  seen: {line}")?;
        }
        self.cure.as_ref().map_or(Ok(()), |cure| write!(f, "\n  cure: {cure}"))
    }
}

/// What happened to a healthy client during a case.
///
/// ```
/// fn was_harmed(bystander: &finale_probe::BystanderReport) -> bool {
///     bystander.failed > 0 || bystander.recovered_ms.is_none()
/// }
/// ```
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct BystanderReport {
    /// How often it was served as before, during the case.
    pub served: u32,
    /// How often it was refused, ended without its answer, or its answer cut.
    pub failed: u32,
    /// How often its answer was late or did not come within the timeout.
    pub late: u32,
    /// Its longest time, in microseconds.
    pub slowest_us: u64,
    /// How long after the case it was served again, in milliseconds. `None`: it was not.
    pub recovered_ms: Option<u64>,
    /// What was wrong at first, in words.
    pub harm: Option<String>,
    /// After the case the server ended connections of this address without an answer, for a while
    /// or until the probe went on, and served others: a penalty.
    pub limited: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Counts and facts have names for programs, which the JSON keeps.
    #[test]
    fn what_was_seen_is_printed_without_the_names_for_programs() {
        let facts = json!({ "end": "open", "after_ms": null, "waited_ms": 2012, "words": "" });
        let seen = [
            ("kept, idle", json!({ "FIN": 1 })),
            ("kept, idle, ended_ms", json!(1001)),
            ("half a request, ended_ms", json!(null)),
            ("after_ms", json!([500, 501])),
            ("answer_bytes", json!(9)),
            ("stop_done_ms", json!(null)),
            ("the first half", facts),
            ("early answer", json!("413 Too_Large")),
        ];
        let case = CaseReport {
            id: "stop-idle",
            does: "",
            verdict: Verdict::Warn,
            runs: 1,
            wrong: 1,
            ms: 1,
            connections: 1,
            summary: String::new(),
            option_failed: false,
            seen: seen.map(|(name, value)| (name.to_owned(), value)).into(),
            source: "",
            cure: None,
            bystander: None,
            ladder: Vec::new(),
        };
        assert_eq!(
            case.seen_lines(),
            [
                "after: 500, 501 ms",
                "answer: 9 bytes",
                "early answer: 413 Too_Large",
                "half a request, ended: not seen",
                "kept, idle: FIN (1)",
                "kept, idle, ended: 1001 ms",
                "stop done: not seen",
                "the first half: end: open; waited: 2012 ms",
            ]
        );
    }
}
