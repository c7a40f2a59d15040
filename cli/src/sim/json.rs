//! The results as JSON objects. The names are stable: programs read them.

use std::collections::BTreeMap;

use finale::check::chaos::Outcome;
use finale::lifecycle::Coverage;
use finale::sim::{Fault, FaultCounts};
use serde::Serialize;

use super::page::Runs;
use super::sum::{Sum, Violation};

/// Many seeds.
#[derive(Serialize)]
pub(super) struct Many<'a> {
    seeds: u64,
    sockets: u64,
    events: u64,
    seconds: f64,
    threads: usize,
    fault: Option<Preferred>,
    transitions: Transitions,
    refusals: Counted,
    faults: BTreeMap<&'static str, u64>,
    broken: Vec<BrokenSeed<'a>>,
    left: Option<String>,
    version: &'static str,
}

#[derive(Serialize)]
struct Preferred {
    name: &'static str,
    runs: u64,
    first_seed: Option<u64>,
}

#[derive(Serialize)]
struct Transitions {
    #[serde(flatten)]
    coverage: Counted,
    never: Vec<Pair>,
}

#[derive(Serialize)]
struct Counted {
    seen: usize,
    total: usize,
}

#[derive(Serialize)]
struct Pair {
    state: &'static str,
    input: &'static str,
}

#[derive(Serialize)]
struct BrokenSeed<'a> {
    seed: u64,
    #[serde(flatten)]
    violation: &'a Violation,
}

/// One seed.
#[derive(Serialize)]
pub(super) struct One {
    seed: u64,
    sockets: u64,
    events: u64,
    faults: BTreeMap<&'static str, u64>,
    broken: Option<Violation>,
    transcript: String,
}

/// One fault of `--fault list`.
#[derive(Serialize)]
pub(super) struct FaultChoice {
    id: &'static str,
    name: &'static str,
}

impl<'a> Many<'a> {
    pub(super) fn new(sum: &'a Sum, runs: &Runs) -> Self {
        let pairs =
            |go| Coverage::of_the_table(go).map(|(state, input)| (state, input, sum.coverage.count(state, input) > 0));
        let coverage = |go| Counted { seen: pairs(go).filter(|pair| pair.2).count(), total: pairs(go).count() };
        let never = pairs(true).filter(|pair| !pair.2);
        Self {
            seeds: runs.seeds,
            sockets: sum.sockets,
            events: sum.events,
            seconds: runs.took.as_secs_f64(),
            threads: runs.threads,
            fault: runs.preferred.map(|fault| Preferred {
                name: fault.name(),
                runs: sum.struck,
                first_seed: sum.first_struck,
            }),
            transitions: Transitions {
                coverage: coverage(true),
                never: never.map(|(state, input, _)| Pair { state: state.name(), input: input.name() }).collect(),
            },
            refusals: coverage(false),
            faults: faults(&sum.faults),
            broken: sum.broken.iter().map(|(&seed, violation)| BrokenSeed { seed, violation }).collect(),
            left: runs.left.map(|left| left.to_string()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl One {
    pub(super) fn new(seed: u64, outcome: &Outcome, transcript: String) -> Self {
        Self {
            seed,
            sockets: outcome.sockets,
            events: outcome.events,
            faults: faults(&outcome.faults),
            broken: Violation::of(outcome),
            transcript,
        }
    }
}

/// All faults that can be preferred.
pub(super) fn all_faults() -> Vec<FaultChoice> {
    Fault::ALL.iter().map(|fault| FaultChoice { id: fault.id(), name: fault.name() }).collect()
}

/// The faults that occurred.
fn faults(counts: &FaultCounts) -> BTreeMap<&'static str, u64> {
    Fault::ALL.iter().map(|fault| (fault.name(), counts.count(*fault))).filter(|(_, count)| *count > 0).collect()
}
