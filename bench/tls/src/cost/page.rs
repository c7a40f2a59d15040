//! The page: a table per figure, with the spread of the rounds.

use std::fmt::Write as _;

use finale_load::pinned::median;

use super::environment::{first_line, machine, version};
use super::measure::{EXCHANGE_BYTES, IDLE, IDLE_ROUNDS};
use super::{Args, Contestant, Figures};
use crate::prose::wrapped;

type Rows<'a> = [(&'a Contestant, Figures)];

/// The contestants that ratios are given to.
const REFERENCES: usize = 3;

const HEAD: &str = "\
# What TLS costs

Written by `bench/tls/run`; [tls/README.md](tls/README.md) describes how. All servers speak the same
small protocol with TLS 1.3, AES-128-GCM and X25519, a P-256 certificate and no resumption; writes
have 64 KiB, TCP_NODELAY is set. The servers in Rust are one program with one allocator, one profile
and one rustls. The server is on the first core, and the load on the other one.

The CPU time is the server's own, in user space and in the kernel. The rounds are interleaved, and a
ratio compares two servers in the same round. A cell is the median of the rounds; half of the rounds
are between the two values in brackets.
";

const COUNTED: &str = "\
    Under callgrind the cryptography may have other instructions than at full speed, and a copy can count as one \
    instruction per byte; the differences between the servers are their own code and rustls'.";

const BARE: &str = "\
\"Buffered\" is rustls' `ServerConnection` with `read_tls` and `write_tls` on the socket, as its
examples have it: it reads at most 4 KiB per call. \"Unbuffered\" is `UnbufferedServerConnection` with
one buffer of 64 KiB for all connections.
";

pub(super) fn write(args: &Args, rows: &Rows<'_>, loads: &[String; 2]) -> String {
    let mut page = format!("{HEAD}\n{BARE}\n");
    page.push_str(&wrapped(&this_run(args, loads)));
    page.push('\n');
    let title = "Handshakes: connect, a full handshake, a byte in each direction, both close_notify, close";
    times(&mut page, title, "CPU us per handshake", rows, |figures| &figures.handshake);
    times(&mut page, "Download on one connection", "CPU ms per MiB", rows, |figures| &figures.download);
    times(&mut page, "Upload on one connection", "CPU ms per MiB", rows, |figures| &figures.upload);
    per_second(&mut page, rows);
    instructions(&mut page, rows);
    idle(&mut page, rows);
    page
}

fn this_run(args: &Args, [before, after]: &[String; 2]) -> String {
    let crates = ["rustls", "ring", "mio", "tokio", "tokio-rustls"].map(|name| format!("{name} {}", version(name)));
    format!(
        "This run: {} rounds of {} handshakes and of {} MiB in each direction; load of the machine {before} before and \
         {after} after it, so absolute times say little. {}. {}; Node {}; {}.",
        args.rounds,
        args.handshakes,
        args.mib,
        machine(),
        crates.join(", "),
        first_line("node", "--version"),
        first_line("openssl", "version"),
    )
}

/// A row of a table.
fn row(page: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        let _ = write!(page, "| {cell} ");
    }
    page.push_str("|\n");
}

fn head(page: &mut String, title: &str, cells: &[String]) {
    let _ = writeln!(page, "## {title}\n");
    row(page, cells.iter().cloned());
    row(page, cells.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "---:" }.to_owned()));
}

/// The median, and the quartiles.
fn spread(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quartile = |number: usize| sorted[(sorted.len() - 1) * number / 4];
    format!("{:.digits$} ({:.digits$} to {:.digits$})", median(values.to_vec()), quartile(1), quartile(3))
}

fn times<'a>(page: &mut String, title: &str, unit: &str, rows: &'a Rows<'_>, of: fn(&'a Figures) -> &'a Vec<f64>) {
    let measured: Vec<_> = rows.iter().filter(|(_, figures)| !of(figures).is_empty()).collect();
    if measured.is_empty() {
        return;
    }
    let references = &measured[..REFERENCES.min(measured.len())];
    let ratios = references.iter().map(|(one, _)| format!("÷ {}", one.name));
    let cells: Vec<_> = ["server".to_owned(), unit.to_owned()].into_iter().chain(ratios).collect();
    head(page, title, &cells);
    for (contestant, figures) in &measured {
        let mut cells = vec![contestant.name.to_owned(), spread(of(figures), if unit.contains("us") { 0 } else { 3 })];
        for (reference, theirs) in references {
            let ratio: Vec<_> = of(figures).iter().zip(of(theirs)).map(|(mine, theirs)| mine / theirs).collect();
            cells.push(if reference.name == contestant.name { "1".to_owned() } else { spread(&ratio, 2) });
        }
        row(page, cells);
    }
    page.push('\n');
}

fn per_second(page: &mut String, rows: &Rows<'_>) {
    let measured: Vec<_> = rows.iter().filter(|(_, figures)| !figures.handshake.is_empty()).collect();
    if measured.is_empty() {
        return;
    }
    head(page, "Handshakes per CPU second", &["server".to_owned(), "handshakes".to_owned()]);
    for (contestant, figures) in measured {
        let rates: Vec<_> = figures.handshake.iter().map(|time| 1e6 / time).collect();
        row(page, [contestant.name.to_owned(), spread(&rates, 0)]);
    }
    page.push('\n');
}

fn instructions(page: &mut String, rows: &Rows<'_>) {
    if rows.iter().all(|(_, figures)| figures.instructions.is_none()) {
        return;
    }
    let cells = ["server", "per handshake", "per KiB of a download", "per KiB of an upload"].map(str::to_owned);
    head(page, "Instructions in user space, by callgrind", &cells);
    for (contestant, figures) in rows {
        let Some(counts) = figures.instructions else { continue };
        row(page, [contestant.name.to_owned()].into_iter().chain(counts.map(|count| format!("{count:.0}"))));
    }
    page.push('\n');
    page.push_str(&wrapped(COUNTED));
    page.push('\n');
}

fn idle(page: &mut String, rows: &Rows<'_>) {
    let measured: Vec<_> = rows.iter().filter(|(_, figures)| !figures.idle[0].is_empty()).collect();
    if measured.is_empty() {
        return;
    }
    let cells = [
        "server".to_owned(),
        format!("{} connections", IDLE[0]),
        format!("{} connections", IDLE[1]),
        format!("{} connections, after {} KiB in each direction", IDLE[1], EXCHANGE_BYTES / 1024),
    ];
    head(page, "Memory: bytes per idle connection", &cells);
    for (contestant, figures) in measured {
        let values = figures.idle.iter().map(|values| format!("{:.0}", median(values.clone())));
        row(page, [contestant.name.to_owned()].into_iter().chain(values));
    }
    let method = format!(
        "The growth of the server's proportional set size (PSS) after the handshake and a byte in each direction, \
         divided by the number of connections; the higher of {IDLE_ROUNDS} rounds. The kernel's memory is not in it."
    );
    page.push('\n');
    page.push_str(&wrapped(&method));
    page.push('\n');
}
