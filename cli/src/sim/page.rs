//! The results as text. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use finale::lifecycle::Coverage;
use finale::sim::Fault;

use super::options::Seeds;
use super::sum::{Sum, Violation};
use crate::output::{BAD, GOOD, count};

/// What was run, and how long it took.
pub(super) struct Runs {
    pub(super) seeds: u64,
    pub(super) took: Duration,
    pub(super) threads: usize,
    pub(super) preferred: Option<Fault>,
    /// The seeds that a signal has left out.
    pub(super) left: Option<Seeds>,
}

/// The command that runs one seed again.
pub(super) fn again(seed: u64, preferred: Option<Fault>) -> String {
    let fault = preferred.map_or(String::new(), |fault| format!(" --fault {}", fault.name()));
    format!("finale sim --replay {seed}{fault}")
}

/// The command that prints its ladder.
pub(super) fn ladder(seed: u64, preferred: Option<Fault>) -> String {
    again(seed, preferred).replace("sim --replay", "trace --seed")
}

/// The seeds that broke a rule, by rule, with a line for each.
pub(super) fn violations(broken: &BTreeMap<u64, Violation>, runs: &Runs) -> String {
    let mut rules = BTreeMap::<_, Vec<_>>::new();
    for (seed, violation) in broken {
        let what = violation.what.lines().next().unwrap_or_default();
        rules.entry(violation.rule.as_str()).or_default().push((seed, what));
    }
    let mut page = format!("{BAD}{} of {} broke a rule{BAD:#}\n", broken.len(), count(runs.seeds, "seed"));
    page += &interrupted(runs);
    for (rule, seeds) in rules {
        page += &format!("\n{rule}: {}\n", count(seeds.len() as u64, "seed"));
        page += &seeds.iter().map(|(seed, what)| format!("  {seed}  {what}\n")).collect::<String>();
    }
    page
}

/// The page of runs that kept every rule.
pub(super) fn report(sum: &Sum, runs: &Runs) -> String {
    let rate = runs.seeds as f64 / runs.took.as_secs_f64().max(1e-9);
    let mut page = format!(
        "{}, and {GOOD}every rule was kept{GOOD:#}: {}, {}\n{:.1} s on {}: {rate:.0} seeds per second, {:.0} per thread\n",
        count(runs.seeds, "seed"),
        count(sum.sockets, "socket"),
        count(sum.events, "event"),
        runs.took.as_secs_f64(),
        count(runs.threads as u64, "thread"),
        rate / runs.threads as f64,
    );
    page += &interrupted(runs);
    if let Some(fault) = runs.preferred {
        page += &format!("{} ({}) occurred in {}", fault.name(), fault.id(), count(sum.struck, "run"));
        page += &sum.first_struck.map_or("\n".to_owned(), |seed| format!("; see {}\n", again(seed, runs.preferred)));
    }
    page + &lifecycle(sum) + &faults(sum)
}

/// The page may be all that is kept of a run.
fn interrupted(runs: &Runs) -> String {
    runs.left.map_or_else(String::new, |left| format!("{BAD}interrupted{BAD:#}: the seeds {left} were not run\n"))
}

fn lifecycle(sum: &Sum) -> String {
    let all: Vec<_> = Coverage::of_the_table(true).collect();
    let missing: Vec<_> = all.iter().filter(|(state, input)| sum.coverage.count(*state, *input) == 0).collect();
    let mut text = format!("\nlifecycle\n  {} of {} transitions occurred\n", all.len() - missing.len(), all.len());
    for (state, input) in missing {
        text += &format!("    never: {} x {}\n", state.name(), input.name());
    }
    let refusals: Vec<_> = Coverage::of_the_table(false).collect();
    let seen = refusals.iter().filter(|(state, input)| sum.coverage.count(*state, *input) > 0).count();
    text + &format!("  {seen} of {} inputs without effect occurred; the reactor avoids most of them\n", refusals.len())
}

fn faults(sum: &Sum) -> String {
    let cell = |fault: &Fault| format!("{} {:<25} {:>7}", fault.id(), fault.name(), sum.faults.count(*fault));
    let half = Fault::ALL.len().div_ceil(2);
    let mut text = "\nfaults, and how often they occurred\n".to_owned();
    for slot in 0..half {
        let right = Fault::ALL.get(half + slot).map_or(String::new(), cell);
        text += format!("  {}  {right}", cell(&Fault::ALL[slot])).trim_end();
        text.push('\n');
    }
    text
}
