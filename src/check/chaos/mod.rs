//! Random programs under random faults: one seed, one run.
//!
//! Invariant: everything that a run does is drawn from its seed. The same seed with the same
//! preferred fault gives the same run, to the nanosecond.
//!
//! A run has one or two reactors and some conversations between them or with scripted peers; some
//! conversations fail from the start. At a drawn time all faults stop. Later the run calls `end` on
//! every socket, and from then on every socket must deliver `close`.
//!
//! `plan` and `draw` draw the run, `run` drives it, `socket_model` has the random program of a
//! socket and its expected state, and `rules` checks each event.

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
use std::time::Instant;

use super::endings::panic_message;
use super::{Rule, Transcript, Violation};
use crate::lifecycle::Coverage;
use crate::sim::{Fault, FaultCounts, SentPacket};
use crate::trace::Recorder;
use run::Run;

/// The results of one run.
///
/// ```
/// let outcome = finale::check::chaos::run(7, None);
/// assert!(outcome.violation.is_none() && outcome.sockets > 0);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// How often each fault occurred.
    pub faults: FaultCounts,
    /// How often each input came in each state of the lifecycle.
    pub coverage: Coverage,
    /// Delivered events.
    pub events: u64,
    /// Sockets that delivered `close`.
    pub sockets: u64,
    /// A hash of all events: two runs of one seed have the same.
    pub digest: u64,
}

/// One run. A preferred fault occurs as often as the run can arrange.
#[must_use]
pub fn run(seed: u64, preferred: Option<Fault>) -> Outcome {
    attempt(Run::new(seed, preferred, false, None)).0
}

/// The same run, with its transcript.
#[must_use]
pub fn run_with_transcript(seed: u64, preferred: Option<Fault>) -> (Outcome, Transcript) {
    attempt(Run::new(seed, preferred, true, None))
}

/// A run whose reactors were recorded.
///
/// ```
/// use finale::check::chaos;
/// use finale::trace::Recorder;
/// let recorder = Recorder::new(10_000);
/// let run = chaos::run_recorded(7, None, &recorder);
/// for record in recorder.records() {
///     println!("{:>12.3?} {record}", record.at - run.begun);
/// }
/// assert_eq!(run.outcome.digest, chaos::run(7, None).digest, "it is the same run");
/// assert!(!run.packets.is_empty());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordedRun {
    /// Its results.
    pub outcome: Outcome,
    /// When its clock began.
    pub begun: Instant,
    /// Every packet that was sent; those of Unix domain sockets are left out.
    pub packets: Vec<SentPacket>,
}

/// The same run. The recorder gets the records of all its reactors.
#[must_use]
pub fn run_recorded(seed: u64, preferred: Option<Fault>, recorder: &Recorder) -> RecordedRun {
    let run = Run::new(seed, preferred, false, Some(recorder));
    let network = run.state.network.clone();
    let begun = network.now();
    let outcome = attempt(run).0;
    RecordedRun { outcome, begun, packets: network.take_packets() }
}

fn attempt(mut run: Run) -> (Outcome, Transcript) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        run.begin_all();
        run.go()
    }));
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        Err(Violation::new(Rule::Progress, format!("it panicked: {}", panic_message(&*panic))))
    };
    let transcript = run.state.whole_transcript();
    let state = &run.state;
    let coverage = state.network.coverage();
    // A build with debug assertions has panicked.
    let is_in_the_table = match coverage.impossible() {
        Some((state, input)) => Err(Violation::new(Rule::Language, format!("{input:?} happened in {state:?}"))),
        None => Ok(()),
    };
    let outcome = Outcome {
        violation: result.unwrap_or_else(panicked).and(is_in_the_table).err(),
        faults: state.network.fault_counts(),
        coverage,
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
