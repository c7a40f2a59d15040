//! The results of many runs.

use std::collections::BTreeMap;
use std::fmt;

use finale::check::chaos::Outcome;
use finale::lifecycle::Coverage;
use finale::sim::{Fault, FaultCounts};
use serde::Serialize;

/// A rule that a run broke.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Violation {
    pub(super) rule: String,
    pub(super) what: String,
}

impl Violation {
    /// The one of this run, if there is one.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let violation = outcome.violation.as_ref()?;
        Some(Self { rule: violation.rule.to_string(), what: violation.what.clone() })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule \"{}\": {}", self.rule, self.what)
    }
}

/// The sums over all threads.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) faults: FaultCounts,
    pub(super) coverage: Coverage,
    pub(super) events: u64,
    pub(super) sockets: u64,
    /// Runs in which the preferred fault occurred, and the first of them.
    pub(super) struck: u64,
    pub(super) first_struck: Option<u64>,
    /// The seeds that broke a rule.
    pub(super) broken: BTreeMap<u64, Violation>,
}

impl Sum {
    /// Adds one run.
    pub(super) fn add(&mut self, seed: u64, outcome: &Outcome, preferred: Option<Fault>) {
        self.faults.add(&outcome.faults);
        self.coverage.add(&outcome.coverage);
        self.events += outcome.events;
        self.sockets += outcome.sockets;
        if preferred.is_some_and(|fault| outcome.faults.count(fault) > 0) {
            self.struck += 1;
            self.first_struck = Some(self.first_struck.map_or(seed, |first| first.min(seed)));
        }
        if let Some(violation) = Violation::of(outcome) {
            self.broken.insert(seed, violation);
        }
    }

    /// Adds the runs of another thread.
    pub(super) fn merge(&mut self, other: Self) {
        self.faults.add(&other.faults);
        self.coverage.add(&other.coverage);
        self.events += other.events;
        self.sockets += other.sockets;
        self.struck += other.struck;
        self.first_struck = self.first_struck.into_iter().chain(other.first_struck).min();
        self.broken.extend(other.broken);
    }
}
