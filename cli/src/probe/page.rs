//! The report for people, and the list of the cases: pages of text. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use finale_probe::{Baseline, BystanderReport, CaseInfo, CaseReport, Path, Report, Verdict};

use crate::output::{BAD, GOOD, HEADING, count, printable};
use crate::trace::{Ladder, Row, RowKind, Side};

/// Longer lines are hard to read.
const WIDEST: usize = 100;
/// The rows of a long ladder that are printed, at its begin and at its end.
const FIRST_ROWS: usize = 30;
const LAST_ROWS: usize = 20;
/// The names of rows.
const NAME: usize = 12;

/// The whole page.
pub(super) fn page(report: &Report, width: usize) -> String {
    let width = width.min(WIDEST);
    let mut page = String::from("\n");
    let target = match report.target == report.address {
        true => report.target.clone(),
        false => format!("{} ({})", report.target, report.address),
    };
    row(&mut page, "target", &target, width);
    row(&mut page, "path", &path(&report.path), width);
    let [answer, end] = baseline(&report.baseline);
    row(&mut page, "baseline", &answer, width);
    row(&mut page, "", &end, width);
    if let Some(tls) = tls(&report.baseline) {
        row(&mut page, "", &tls, width);
    }
    page.push('\n');
    let longest = report.cases.iter().map(|case| case.id.len()).max().unwrap_or(0);
    for case in &report.cases {
        let style = style(case.verdict);
        let begin = format!("  {style}{:<5}{style:#}{:<longest$}  ", case.verdict, case.id);
        let indent = " ".repeat(2 + 5 + longest + 2);
        page += &wrapped(&begin, &indent, &printable(&case.summary), width);
    }
    for case in report.cases.iter().filter(|case| case.verdict >= Verdict::Warn) {
        page += &details(case, width);
    }
    page + "\n" + &counts(report) + "\n"
}

/// What each case does, needs and costs.
pub(super) fn list(cases: &[CaseInfo], width: usize) -> String {
    let width = width.min(WIDEST);
    let mut page = String::new();
    for case in cases {
        let hostile = if case.hostile { " (hostile)" } else { "" };
        let _ = writeln!(page, "{HEADING}{}{HEADING:#}{hostile}", case.id);
        row(&mut page, "does", case.does, width);
        let needs: Vec<_> = case.needs.iter().map(|need| need.words()).collect();
        if !needs.is_empty() {
            row(&mut page, "needs", &needs.join("; "), width);
        }
        if !case.cost.is_empty() {
            row(&mut page, "costs", case.cost, width);
        }
        row(&mut page, "source", case.source, width);
    }
    page
}

/// The ladder of the worst run, if there is one.
pub(super) fn ladder(case: &CaseReport) -> Option<Ladder> {
    let begun = case.ladder.first()?.at;
    let title = format!("{} {}: {}", case.verdict, case.id, case.summary);
    let mut ladder = Ladder::of_records(Side::Client, &title, &case.ladder, begun);
    shorten(&mut ladder.rows);
    Some(ladder)
}

/// Replaces the middle of a long ladder: a big answer has thousands of reads.
fn shorten(rows: &mut Vec<Row>) {
    let Some(left_out) = rows.len().checked_sub(FIRST_ROWS + LAST_ROWS).filter(|count| *count > 1) else { return };
    let at = rows[FIRST_ROWS].at_us;
    let note = RowKind::Note { text: format!("... {left_out} rows are left out") };
    let note = Row::new(Duration::from_micros(at), Side::Client, note);
    rows.splice(FIRST_ROWS..FIRST_ROWS + left_out, [note]);
}

/// What was seen, a line per variant.
pub(super) fn seen(case: &CaseReport) -> Vec<String> {
    case.seen_lines().iter().map(|line| printable(line)).collect()
}

/// What happened to the healthy clients, if that was bad.
pub(super) fn harm(bystander: &BystanderReport) -> Option<String> {
    let harmed = bystander.failed + bystander.late;
    let of = bystander.served + harmed;
    let harm = bystander.harm.as_deref()?;
    let after = bystander.recovered_ms.map_or("none was served after it".to_owned(), |ms| {
        format!("the next was served {ms} ms after it; longest wait {}", time(bystander.slowest_us))
    });
    Some(format!("{harmed} of {of} healthy clients were harmed: {harm}; {after}"))
}

fn details(case: &CaseReport, width: usize) -> String {
    let style = style(case.verdict);
    let mut text = format!("\n{HEADING}{}{HEADING:#} {style}{}{style:#}\n", case.id, case.verdict);
    row(&mut text, "done", case.does, width);
    for (at, line) in seen(case).iter().enumerate() {
        row(&mut text, if at == 0 { "seen" } else { "" }, line, width);
    }
    if let Some(harm) = case.bystander.as_ref().and_then(harm) {
        row(&mut text, "bystander", &harm, width);
    }
    row(&mut text, "source", case.source, width);
    row(&mut text, "cure", case.cure.as_deref().unwrap_or_default(), width);
    text
}

fn path(path: &Path) -> String {
    let mut parts = vec![format!("round trip {}", time(path.round_trip_us))];
    if let Some(ttl) = path.ttl {
        parts.insert(0, format!("packets arrive with TTL {ttl}"));
    }
    if !path.can_be_deaf {
        parts.push("no socket can be made deaf".to_owned());
    }
    parts.extend(path.between.as_deref().map(printable));
    parts.join("; ")
}

fn baseline(baseline: &Baseline) -> [String; 2] {
    let bytes = match baseline.shortest == baseline.bytes {
        true => count(baseline.bytes, "byte"),
        false => format!("{} to {}", baseline.shortest, count(baseline.bytes, "byte")),
    };
    let (usual, slowest) = (time(baseline.time_us), time(baseline.slowest_us));
    let answer = format!("{bytes} in {usual}, at most {slowest}: \"{}\"", printable(&baseline.first_line));
    let first = format!("the {} finishes first", baseline.first);
    let together = if baseline.together { "together with" } else { "apart from" };
    let end = match (baseline.first, baseline.end) {
        ("server", "fin") => format!("{first}, with a FIN {together} the last bytes; it keeps TIME-WAIT"),
        ("client", "fin") => format!("{first}, and the server with a FIN; the client keeps TIME-WAIT"),
        (_, "reset") => format!("{first}; the server ends with a reset, and no side keeps TIME-WAIT"),
        _ => format!("{first}, and the server had not ended when the client left"),
    };
    [answer, end + if baseline.reusable { "; a connection takes a second request" } else { "" }]
}

/// What was negotiated, and whether the server's ends can be trusted.
fn tls(baseline: &Baseline) -> Option<String> {
    let alpn = baseline.alpn.as_deref().map(|name| format!(", ALPN {}", printable(name))).unwrap_or_default();
    let end = match baseline.close_notify {
        Some(true) => "each end with close_notify",
        Some(false) => "truncated: a FIN without close_notify, which no client can distinguish from a cut",
        None => "not ended by the server",
    };
    Some(format!("TLS {}{alpn}; {end}", baseline.tls?))
}

/// The last line.
fn counts(report: &Report) -> String {
    let number = |verdict, noun: &str| match report.count(verdict) {
        0 => None,
        number => Some(format!("{number} {noun}")),
    };
    let verdicts = [
        number(Verdict::Fail, "failed").map(|text| format!("{BAD}{text}{BAD:#}")),
        number(Verdict::Warn, "warned"),
        number(Verdict::Pass, "passed"),
        number(Verdict::Info, if report.count(Verdict::Info) == 1 { "fact" } else { "facts" }),
        number(Verdict::Skip, "skipped"),
    ];
    let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
    let verdicts = if verdicts.is_empty() { "no case was run".to_owned() } else { verdicts.join(", ") };
    let connections = report.cases.iter().map(|case| u64::from(case.connections)).sum();
    let took = Duration::from_millis(report.cases.iter().map(|case| case.ms).sum());
    let interrupted = if report.interrupted { "; interrupted" } else { "" };
    format!("{verdicts}; {} in {:.1} s{interrupted}", count(connections, "connection"), took.as_secs_f64())
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Fail => BAD,
        Verdict::Warn => AnsiColor::Yellow.on_default(),
        Verdict::Pass => GOOD,
        Verdict::Info => Style::new(),
        Verdict::Skip => Style::new().dimmed(),
    }
}

fn row(page: &mut String, name: &str, text: &str, width: usize) {
    *page += &wrapped(&format!("  {name:<NAME$}"), &" ".repeat(NAME + 2), text, width);
}

/// A line that continues with an indent. `begin` may have styles.
fn wrapped(begin: &str, indent: &str, text: &str, width: usize) -> String {
    let options = textwrap::Options::new(width).initial_indent(indent).subsequent_indent(indent);
    let text = textwrap::fill(text, options);
    format!("{begin}{}\n", text.get(indent.len()..).unwrap_or_default())
}

/// Milliseconds with as many digits as are known.
fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}
