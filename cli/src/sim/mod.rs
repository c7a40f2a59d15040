//! `finale sim`: random programs under random faults on the simulated network, by the million.

mod json;
mod options;
mod page;
mod sum;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use finale::check::chaos::{self, Outcome};
use finale::sim::Fault;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::errors::Error;
use crate::interrupt::Interrupt;
use crate::output::{self, count};
pub(crate) use options::SimOptions;
use options::{FaultChoice, Seeds};
use page::{Runs, again, ladder};
use sum::{Sum, Violation};

/// Runs the seeds, one seed, or lists the faults.
pub(crate) fn run(options: &SimOptions) -> Result<(), Error> {
    let preferred = match options.fault {
        Some(FaultChoice::List) => return list(options),
        Some(FaultChoice::One(fault)) => Some(fault),
        None => None,
    };
    // The rule "progress" reports a panic with its seed, so the thread that panics prints nothing.
    std::panic::set_hook(Box::new(|_| {}));
    match options.replay {
        Some(seed) => replay(options, seed, preferred),
        None => many(options, preferred),
    }
}

fn list(options: &SimOptions) -> Result<(), Error> {
    if options.json {
        return output::print_json(&json::all_faults());
    }
    let lines: String = Fault::ALL.iter().map(|fault| format!("{}  {}\n", fault.id(), fault.name())).collect();
    output::print(&lines)
}

fn replay(options: &SimOptions, seed: u64, preferred: Option<Fault>) -> Result<(), Error> {
    let (outcome, transcript) = chaos::run_with_transcript(seed, preferred);
    let printed = if options.json {
        output::print_json(&json::One::new(seed, &outcome, transcript.to_string()))
    } else {
        let Outcome { events, sockets, .. } = outcome;
        let occurred = Fault::ALL.iter().filter(|&&fault| outcome.faults.count(fault) > 0);
        let faults: Vec<_> = occurred.map(|fault| fault.name()).collect();
        output::print(&format!(
            "seed {seed}: {}, {}\nfaults: {}\n\n{transcript}\n{}",
            count(sockets, "socket"),
            count(events, "event"),
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
            if outcome.violation.is_none() { "every rule was kept\n" } else { "" },
        ))
    };
    let broken = Violation::of(&outcome).map(|violation| Error::Broken { seed, broken: violation.to_string() });
    output::result_of_both(broken.map_or(Ok(()), Err), printed)
}

/// Seeds that a thread takes at a time.
const BATCH: u64 = 64;

/// Every seed that is a multiple of this is run twice, and both runs must be the same.
const TWICE: u64 = 64;

fn many(options: &SimOptions, preferred: Option<Fault>) -> Result<(), Error> {
    let Seeds { from, to } = options.seeds;
    let threads = options.threads(usize::try_from((to - from).div_ceil(BATCH)).unwrap_or(usize::MAX));
    let (next, stop, sum) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Sum::default()));
    let bar = progress(to - from, options.quiet);
    let interrupt = Interrupt::watch(|| {})?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let may_continue = || !stop.load(Ordering::Relaxed) && interrupt.signal().is_none();
                let own = work(&next, options, &stop, &may_continue, preferred, &bar);
                sum.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
            });
        }
    });
    let seeds = bar.position();
    bar.finish_and_clear();
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let first = sum.broken.first_key_value();
    // Each batch that was taken was run to its end, unless a broken rule has ended the run.
    let done = next.into_inner().saturating_mul(BATCH).saturating_add(from).min(to);
    let signal = interrupt.signal().filter(|_| done < to && (options.all || first.is_none()));
    let left = signal.map(|signal| (signal, Seeds { from: done, to }));
    let runs = Runs { seeds, took: began.elapsed(), threads, preferred, left: left.map(|left| left.1) };
    let printed = match first {
        _ if options.json => output::print_json(&json::Many::new(&sum, &runs)),
        None => output::print(&page::report(&sum, &runs)),
        Some(_) if options.all => output::print(&page::violations(&sum.broken, &runs)),
        Some((&seed, _)) => output::print(&format!(
            "{}\nagain: {}\nits ladder: {}\n",
            chaos::run_with_transcript(seed, preferred).1,
            again(seed, preferred),
            ladder(seed, preferred)
        )),
    };
    let interrupted = left.map(|(signal, left)| Error::Interrupted {
        signal,
        what: format!("{} run; continue with: {}", count(runs.seeds, "seed"), options.command_for(left)),
    });
    let result = match (first, interrupted) {
        (None, interrupted) => interrupted.map_or(Ok(()), Err),
        (Some((&seed, violation)), interrupted) => {
            if let Some(interrupted) = interrupted {
                output::error(format_args!("{interrupted}"));
            }
            Err(Error::Broken { seed, broken: violation.to_string() })
        }
    };
    output::result_of_both(result, printed)
}

/// One thread's share of the seeds.
fn work(
    next: &AtomicU64,
    options: &SimOptions,
    stop: &AtomicBool,
    may_continue: &dyn Fn() -> bool,
    preferred: Option<Fault>,
    bar: &ProgressBar,
) -> Sum {
    let (mut sum, seeds) = (Sum::default(), options.seeds);
    while may_continue() {
        let batch = next.fetch_add(1, Ordering::Relaxed);
        let Some(first) = batch.checked_mul(BATCH).and_then(|offset| seeds.from.checked_add(offset)) else { break };
        if first >= seeds.to {
            break;
        }
        let last = first.saturating_add(BATCH).min(seeds.to);
        for seed in first..last {
            let outcome = chaos::run(seed, preferred);
            sum.add(seed, &outcome, preferred);
            if seed % TWICE == 0 && chaos::run(seed, preferred).digest != outcome.digest {
                let (rule, what) = ("identity and replay".to_owned(), "two runs of one seed differ".to_owned());
                sum.broken.insert(seed, Violation { rule, what });
            }
            if !options.all && !sum.broken.is_empty() {
                stop.store(true, Ordering::Relaxed);
                bar.inc(seed - first + 1);
                return sum;
            }
        }
        bar.inc(last - first);
    }
    sum
}

fn progress(seeds: u64, quiet: bool) -> ProgressBar {
    // indicatif draws on a terminal only.
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {rate} per second, {eta} left");
    let style = style.unwrap_or_else(|_wrong| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}", state.per_sec());
    };
    bar.with_style(style.with_key("rate", rate))
}
