//! The report for CI: a test case of JUnit per case.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use finale_probe::{CaseReport, Verdict};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::page;
use crate::errors::Error;

/// The width of a ladder in a file.
const WIDTH: usize = 100;

/// A file for the report. It is made before the probe, which may take minutes.
pub(super) struct Junit<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Junit<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self, Error> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Error::usage(format!("--junit {}: can't write it: {error}", path.display()))),
        }
    }

    /// Writes the report. With `strict`, a warning is a failure.
    pub(super) fn write(self, report: &finale_probe::Report, strict: bool) -> Result<(), Error> {
        self.write_cases(&report.target, report.cases.iter().map(|case| test_case(case, strict)))
    }

    /// Writes why there is no report.
    pub(super) fn write_error(self, target: &str, reason: &str) -> Result<(), Error> {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(reason);
        self.write_cases(target, std::iter::once(named("baseline", status)))
    }

    fn write_cases(mut self, target: &str, cases: impl Iterator<Item = TestCase>) -> Result<(), Error> {
        let mut suite = TestSuite::new(target);
        suite.add_test_cases(cases);
        suite.set_time(suite.test_cases.iter().filter_map(|case| case.time).sum());
        let mut report = quick_junit::Report::new("finale probe");
        report.add_test_suite(suite);
        let text = report.to_string().map_err(std::io::Error::other);
        let written = text.and_then(|text| self.file.write_all(text.as_bytes()));
        written.map_err(|source| Error::io(format!("write {}", self.path.display()), source))
    }
}

fn named(id: &str, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(id, status);
    case.set_classname("finale.probe");
    case
}

fn test_case(case: &CaseReport, strict: bool) -> TestCase {
    let is_failure = case.verdict == Verdict::Fail || (strict && case.verdict == Verdict::Warn);
    let mut status = match case.verdict {
        _ if is_failure => TestCaseStatus::non_success(NonSuccessKind::Failure),
        _ if case.option_failed => TestCaseStatus::non_success(NonSuccessKind::Error),
        Verdict::Skip => TestCaseStatus::skipped(),
        Verdict::Fail | Verdict::Warn | Verdict::Pass | Verdict::Info => TestCaseStatus::success(),
    };
    if is_failure {
        status.set_type(case.verdict.name()).set_description(description(case));
    }
    if is_failure || case.verdict == Verdict::Skip {
        status.set_message(case.summary.as_str());
    }
    let mut test = named(case.id, status);
    test.set_time(Duration::from_millis(case.ms));
    if case.verdict != Verdict::Skip {
        test.set_system_out(output(case, is_failure));
    }
    test
}

/// What was seen, and what to do.
fn description(case: &CaseReport) -> String {
    let mut lines = vec![case.summary.clone(), format!("done: {}", case.does)];
    lines.extend(page::seen(case).into_iter().map(|line| format!("seen: {line}")));
    lines.extend(case.bystander.as_ref().and_then(page::harm).map(|harm| format!("bystander: {harm}")));
    lines.push(format!("source: {}", case.source));
    lines.extend(case.cure.as_ref().map(|cure| format!("cure: {cure}")));
    lines.join("\n")
}

/// The ladder; of what is no failure also the description, which has no other place.
fn output(case: &CaseReport, is_failure: bool) -> String {
    let mut text = if is_failure { String::new() } else { format!("{}: {}\n\n", case.verdict, description(case)) };
    if case.verdict >= Verdict::Warn
        && let Some(ladder) = page::ladder(case)
    {
        text += &ladder.text(WIDTH);
    }
    text
}
