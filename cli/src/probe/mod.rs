//! `finale probe`: how any server ends its connections.
//!
//! Invariant: stdout has one report, or with `--json` one JSON object, also if there is nothing to
//! report but the reason. What the server sends can't change the terminal.
//!
//! ```text
//! options  the arguments                 page   the report and the list as text
//! preset   requests of known protocols   junit  the report for CI
//! ```

mod junit;
mod options;
mod page;
mod preset;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use finale_probe::{CaseInfo, CaseReport, ProbeError, Progress, Report, Verdict, cases};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::errors::Error;
use crate::interrupt::Interrupt;
use crate::output::{self, count};
use junit::Junit;
pub(crate) use options::ProbeOptions;

/// The version of the JSON, also of that without a report.
const SCHEMA: u32 = 1;

/// Probes the server and prints the report. Fails if a case has failed.
pub(crate) fn run(options: &ProbeOptions) -> Result<(), Error> {
    if options.list {
        return list(options);
    }
    let target = options.target()?;
    let set = Arc::new(AtomicBool::new(false));
    let plan = options.probe(Arc::clone(&set))?;
    let junit = options.junit.as_deref().map(Junit::create).transpose()?;
    allow_descriptors();
    let interrupt = Interrupt::watch(move || set.store(true, Ordering::Release))?;
    let bar = progress_bar(options.quiet);
    let probed = finale_probe::probe(target, &plan, |progress| show(&bar, progress));
    bar.finish_and_clear();
    let signal = interrupt.signal();
    match probed {
        Ok(report) => {
            let written = junit.map_or(Ok(()), |junit| junit.write(&report, options.strict));
            let printed = print(&report, options);
            let result = match signal.filter(|_| report.interrupted) {
                Some(signal) => {
                    let what = format!("{} done", count(report.cases.len() as u64, "case"));
                    Err(Error::Interrupted { signal, what })
                }
                None => result(&report, options),
            };
            output::result_of_both(result, printed.and(written))
        }
        Err(error) => {
            let reason = error.to_string();
            let written = junit.map_or(Ok(()), |junit| junit.write_error(target, &reason));
            let printed = if options.json { print_reason(&reason) } else { Ok(()) };
            let failed = match (error, signal) {
                (ProbeError::Interrupted, Some(signal)) => Error::Interrupted { signal, what: "nothing done".into() },
                (ProbeError::Options(_), _) => Error::usage(reason),
                _ => Error::NotProbed { target: target.to_owned(), reason },
            };
            output::result_of_both(Err(failed), printed.and(written))
        }
    }
}

fn result(report: &Report, options: &ProbeOptions) -> Result<(), Error> {
    let warnings = if options.strict { report.count(Verdict::Warn) } else { 0 };
    if report.failures() + warnings > 0 {
        // The page has said which.
        return Err(Error::Reported { exit_code: 1 });
    }
    let untried: Vec<&CaseReport> = report.cases.iter().filter(|case| case.option_failed).collect();
    let Some(first) = untried.first() else { return Ok(()) };
    let ids: Vec<&str> = untried.iter().map(|case| case.id).collect();
    Err(Error::NotTried { cases: ids.join(", "), reason: first.summary.clone() })
}

fn print(report: &Report, options: &ProbeOptions) -> Result<(), Error> {
    if options.json {
        return output::print_json(report);
    }
    let width = output::width();
    output::print(&page::page(report, width))?;
    if options.trace {
        let not_good = report.cases.iter().filter(|case| case.verdict >= Verdict::Warn);
        for ladder in not_good.filter_map(page::ladder) {
            output::print(&format!("\n{}", ladder.text(width)))?;
        }
    }
    Ok(())
}

/// Why there is no report, as JSON.
fn print_reason(error: &str) -> Result<(), Error> {
    #[derive(Serialize)]
    struct NoReport<'a> {
        schema: u32,
        error: &'a str,
    }
    output::print_json(&NoReport { schema: SCHEMA, error })
}

fn list(options: &ProbeOptions) -> Result<(), Error> {
    let is_chosen = |case: &CaseInfo| options.cases.is_empty() || options.cases.iter().any(|id| id == case.id);
    let chosen: Vec<CaseInfo> = cases().filter(is_chosen).collect();
    if options.json { output::print_json(&chosen) } else { output::print(&page::list(&chosen, output::width())) }
}

/// Some cases have a thousand connections. Where the limit can't be raised they report that.
fn allow_descriptors() {
    const ENOUGH: u64 = 4096;
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if limit.current.is_some_and(|current| current < enough) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum: limit.maximum });
    }
}

fn progress_bar(quiet: bool) -> ProgressBar {
    // indicatif draws on a terminal only.
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target).with_style(style("  polite clients, {elapsed}"));
    // A case may wait for a minute.
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_wrong| ProgressStyle::default_bar())
}

fn show(bar: &ProgressBar, progress: Progress<'_>) {
    match progress {
        Progress::Case(number, of, id) => {
            bar.set_style(style("  {bar:30} {pos} of {len} cases  {msg}, {elapsed}"));
            bar.set_length(of as u64);
            bar.set_position(number as u64 - 1);
            bar.set_message(id);
        }
        Progress::Done(_) => bar.inc(1),
        _ => {}
    }
}
