//! `finale bench merge`: the results of several loads as one.
//!
//! Invariant: the latencies of loads that differ in what they measure are never mixed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use super::page;
use super::report::{FirstFins, Handshakes, Latency, Report, Unknown, tenths};
use crate::errors::Error;
use crate::output;

/// Make one result of several loads that ran at the same time, as on several machines
///
/// Each FILE has the output of `finale bench --json`, or several of them. Connections, failures and
/// bytes are added up, the histograms of the latencies are merged, and the longest run is the time.
/// Rates and numbers in flight are added up, too; different targets are all named.
///
/// Loads that differ in --request, --answer, --first, --timeout or TLS, or of which only some have a
/// --rate, are refused: their latencies have different meanings.
///
/// The exit code is 1 if a connection of any load failed.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeOptions {
    /// Files with results; - is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Print one JSON object instead of the page
    #[arg(long)]
    json: bool,
}

/// A result, and the file that it is from.
struct Part {
    file: String,
    report: Report,
}

/// A result has some kilobytes. A larger file is another one, or has no end.
const LARGEST_FILE_BYTES: u64 = 64 << 20;

/// Prints the merged result.
pub(super) fn run(options: &MergeOptions) -> Result<(), Error> {
    let mut parts = Vec::new();
    for (at, file) in options.files.iter().enumerate() {
        if let Some(other) = options.files[..at].iter().find(|other| is_same(other, file)) {
            let what = if other == file { "named twice".to_owned() } else { format!("the same file as '{other}'") };
            return Err(Error::usage(format!("'{file}' is {what}, and would count twice")));
        }
        parts.extend(read(file)?.into_iter().map(|report| Part { file: file.clone(), report }));
    }
    let report = merge(parts).map_err(Error::Merge)?;
    let printed = match options.json {
        true => output::print_json(&report),
        false => output::print(&page::page(&report)),
    };
    output::result_of_both(super::result(&report, None), printed)
}

/// Whether two arguments name one file, perhaps by a link.
fn is_same(one: &str, other: &str) -> bool {
    let file = |path| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|meta| (meta.dev(), meta.ino()));
    one == other || file(one).is_some_and(|ours| Some(ours) == file(other))
}

fn read(file: &str) -> Result<Vec<Report>, Error> {
    let failed = |source| Error::io(format!("read '{file}'"), source);
    let mut bytes = Vec::new();
    let read = match file {
        "-" => output::Stdin.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes),
        path => fs::File::open(path).and_then(|file| file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes)),
    };
    let no_report = |why: &str| Error::Merge(format!("'{file}' is no output of finale bench --json: {why}"));
    if read.map_err(failed)? as u64 > LARGEST_FILE_BYTES {
        return Err(no_report("it is larger than 64 MiB"));
    }
    let reports: Result<Vec<Report>, _> = serde_json::Deserializer::from_slice(&bytes).into_iter().collect();
    let reports = reports.map_err(|error| no_report(&error.to_string()))?;
    if reports.is_empty() {
        return Err(no_report("it is empty"));
    }
    reports.iter().try_for_each(Report::check).map_err(no_report)?;
    Ok(reports)
}

/// One result of all, or why there is none.
fn merge(parts: Vec<Part>) -> Result<Report, String> {
    let mut parts = parts.into_iter();
    let Some(mut all) = parts.next() else { return Err("there is nothing to merge".to_owned()) };
    for part in parts {
        check_same(&all, &part)?;
        all.report = add(all.report, part.report).map_err(|why| format!("'{}': {why}", part.file))?;
    }
    if all.report.loads > 1 {
        all.report.server_cpu_us_per_connection = None;
        all.report.unknown.server_cpu = "several loads have shared the servers".to_owned();
    }
    let mut report = all.report;
    if report.unknown.server_cpu.is_empty() {
        let not_measured = "it was not measured".to_owned();
        report.unknown = Unknown { server_cpu: not_measured.clone(), client_cpu: not_measured };
    }
    Ok(report.with_rates())
}

/// What two loads must have in common.
fn check_same(all: &Part, part: &Part) -> Result<(), String> {
    let loop_of = |report: &Report| if report.rate.is_some() { "a rate" } else { "no rate" }.to_owned();
    let tls_of = |report: &Report| match report.tls {
        None => "off",
        Some(Handshakes { resumption: false, .. }) => "on",
        Some(Handshakes { resumption: true, .. }) => "on with resumption",
    };
    let meaning = |report: &Report| {
        [
            ("request_bytes", report.request_bytes.to_string()),
            ("answer_bytes", report.answer_bytes.to_string()),
            ("first", report.first.clone()),
            ("timeout_ms", report.timeout_ms.to_string()),
            ("rate", loop_of(report)),
            ("tls", tls_of(report).to_owned()),
        ]
    };
    for ((name, ours), (_, theirs)) in meaning(&all.report).into_iter().zip(meaning(&part.report)) {
        if ours != theirs {
            return Err(format!(
                "'{}' and '{}' can't be merged, since their latencies mean different things: {name} is {ours} and \
                 {theirs}",
                all.file, part.file
            ));
        }
    }
    Ok(())
}

fn add(all: Report, part: Report) -> Result<Report, &'static str> {
    let mut histogram = all.histogram.clone();
    histogram.add(&part.histogram).map_err(|_why| "its latencies are outside of the range of the others")?;
    let longest = all.longest().max(part.longest());
    let (total, own) = (all.connections.max(1) as f64, part.connections.max(1) as f64);
    let client_cpu = both(all.client_cpu_us_per_connection, part.client_cpu_us_per_connection, |ours, theirs| {
        tenths((ours * total + theirs * own) / (total + own))
    });
    Ok(Report {
        target: named(&all.target, &part.target),
        name: both(all.name, part.name, |ours, theirs| named(&ours, &theirs)),
        server: both(all.server, part.server, |ours, theirs| named(&ours, &theirs)),
        loads: sum(all.loads, part.loads),
        connections: sum(all.connections, part.connections),
        failed: sum(all.failed, part.failed),
        failures: add_counts(all.failures, part.failures),
        first_failure: all.first_failure.or(part.first_failure),
        given_up: all.given_up || part.given_up,
        never_begun: both(all.never_begun, part.never_begun, sum),
        overloaded: sum(all.overloaded, part.overloaded),
        acknowledged: sum(all.acknowledged, part.acknowledged),
        first_fin: FirstFins {
            local: sum(all.first_fin.local, part.first_fin.local),
            peer: sum(all.first_fin.peer, part.first_fin.peer),
            unknown: sum(all.first_fin.unknown, part.first_fin.unknown),
        },
        interrupted: all.interrupted || part.interrupted,
        cut_off: sum(all.cut_off, part.cut_off),
        seconds: all.seconds.max(part.seconds),
        latency_us: Latency::of(&histogram, longest),
        histogram,
        begun_per_second: both(all.begun_per_second, part.begun_per_second, |ours, theirs| ours + theirs),
        late: sum(all.late, part.late),
        bytes_sent: sum(all.bytes_sent, part.bytes_sent),
        bytes_received: sum(all.bytes_received, part.bytes_received),
        client_cpu_us_per_connection: client_cpu,
        tls: both(all.tls, part.tls, |ours, theirs| Handshakes {
            handshakes: sum(ours.handshakes, theirs.handshakes),
            resumed: sum(ours.resumed, theirs.resumed),
            ..ours
        }),
        in_flight: sum(all.in_flight, part.in_flight),
        content_checked: all.content_checked && part.content_checked,
        rate: both(all.rate, part.rate, sum),
        duration_ms: same(all.duration_ms, part.duration_ms),
        warm_up_ms: same(all.warm_up_ms, part.warm_up_ms),
        version: named(&all.version, &part.version),
        ..all
    })
}

/// A file may contain any number.
const fn sum(ours: u64, theirs: u64) -> u64 {
    ours.saturating_add(theirs)
}

fn both<T>(ours: Option<T>, theirs: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    ours.zip(theirs).map(|(ours, theirs)| join(ours, theirs))
}

fn same(ours: Option<u64>, theirs: Option<u64>) -> Option<u64> {
    ours.filter(|_| ours == theirs)
}

/// Both names, each once.
fn named(ours: &str, theirs: &str) -> String {
    match ours.split(", ").any(|name| name == theirs) {
        true => ours.to_owned(),
        false => format!("{ours}, {theirs}"),
    }
}

fn add_counts(mut all: BTreeMap<String, u64>, part: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    for (kind, count) in part {
        let total = all.entry(kind).or_default();
        *total = sum(*total, count);
    }
    all
}
