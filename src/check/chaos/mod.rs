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
mod book;
mod draw;
mod ending;
mod finish;
mod judge;
mod limits;
mod pattern;
mod pipes;
mod places;
mod plan;
mod pools;
mod proxy;
mod races;
mod run;
mod side;
mod stop;
#[cfg(test)]
mod tests;
mod weather;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::endings::said;
use super::{Rule, Transcript, Violation};
use crate::lifecycle::Coverage;
use crate::sim::{Fault, FaultCounts};

/// What one run has come to.
///
/// ```
/// let outcome = finale::check::chaos::run(7, None);
/// assert!(outcome.broken.is_none() && outcome.sockets > 0);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub broken: Option<Violation>,
    /// How often each fault of the catalogue was played.
    pub rows: FaultCounts,
    /// How often each pair of the lifecycle was asked.
    pub pairs: Coverage,
    /// Events told.
    pub events: u64,
    /// Sockets that have told `close`.
    pub sockets: u64,
    /// A number made from the whole story: two runs of one seed have the same.
    pub digest: u64,
}

/// One run. With a fault to favour, it strikes as often as can be arranged.
#[must_use]
pub fn run(seed: u64, favoured: Option<Fault>) -> Outcome {
    attempt(seed, favoured, false).0
}

/// The same run, with its story.
#[must_use]
pub fn tell(seed: u64, favoured: Option<Fault>) -> (Outcome, Transcript) {
    attempt(seed, favoured, true)
}

fn attempt(seed: u64, favoured: Option<Fault>, is_told: bool) -> (Outcome, Transcript) {
    let mut run = run::Run::new(seed, favoured, is_told);
    let result = catch_unwind(AssertUnwindSafe(|| {
        run.begin_all();
        run.go()
    }));
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        Err(Violation::new(Rule::Progress, format!("it panicked: {}", said(&*panic))))
    };
    let broken = result.unwrap_or_else(panicked).err();
    let story = run.book.whole_story();
    let book = &run.book;
    let outcome = Outcome {
        broken,
        rows: book.network.fault_counts(),
        pairs: book.network.coverage(),
        events: book.events,
        sockets: book.sockets,
        digest: book.digest,
    };
    if outcome.broken.is_some() {
        // A reactor that broke a rule may break more of them when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(run)));
    }
    (outcome, story)
}
