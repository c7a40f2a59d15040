//! Random programs under random faults: one seed, one run.
//!
//! Invariant: everything a run does is drawn from its seed; the same seed, with the same fault
//! favoured, tells the same story to the nanosecond.
//!
//! A run has one reactor or two, some conversations between them or with scripted peers, and some
//! that go wrong from the start; then faults, then a time at which all faults stop, and at last a
//! call to all to end. From there every socket must come to its close.
//!
//! `plan` and `draw` draw, `run` drives, `side` is the program of one socket, `judge` has the
//! rules.

mod begin;
mod close;
mod disturbances;
mod draw;
mod final_checks;
mod limits;
mod pattern;
mod pipes;
mod plan;
mod pools;
mod proxy;
mod races;
mod rules;
mod run;
mod run_state;
mod socket_model;
mod stop;
#[cfg(test)]
mod tests;
mod topology;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::endings::said;
use super::{Rule, Transcript, Violation};
use crate::lifecycle::Coverage;
use crate::sim::{Fault, FaultCounts};

/// What one run has come to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// How often each fault of the catalogue was played.
    pub faults: FaultCounts,
    /// How often each pair of the lifecycle was asked.
    pub coverage: Coverage,
    /// Events told.
    pub events: u64,
    /// Sockets that have told `close`.
    pub sockets: u64,
    /// A number made from the whole story: two runs of one seed have the same.
    pub digest: u64,
}

/// One run. With a fault to favour, it strikes as often as can be arranged.
#[must_use]
pub fn run(seed: u64, preferred: Option<Fault>) -> Outcome {
    attempt(seed, preferred, false).0
}

/// The same run, with its story.
#[must_use]
pub fn run_with_transcript(seed: u64, preferred: Option<Fault>) -> (Outcome, Transcript) {
    attempt(seed, preferred, true)
}

fn attempt(seed: u64, preferred: Option<Fault>, is_recorded: bool) -> (Outcome, Transcript) {
    let mut run = run::Run::new(seed, preferred, is_recorded);
    let result = catch_unwind(AssertUnwindSafe(|| {
        run.begin_all();
        run.go()
    }));
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        Err(Violation::new(Rule::Progress, format!("it panicked: {}", said(&*panic))))
    };
    let violation = result.unwrap_or_else(panicked).err();
    let transcript = run.state.whole_transcript();
    let state = &run.state;
    let outcome = Outcome {
        violation,
        faults: state.network.fault_counts(),
        coverage: state.network.coverage(),
        events: state.events,
        sockets: state.sockets,
        digest: state.digest,
    };
    if outcome.violation.is_some() {
        // A reactor that broke a rule may break more of them when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(run)));
    }
    (outcome, transcript)
}
