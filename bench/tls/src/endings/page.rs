//! The page with the tables, and the words of each program.

use std::fmt::Write as _;
use std::process::Command;

use super::program::Program;
use super::run::Table;
use super::short;
use crate::prose::wrapped;

const HEAD: &str = "\
# How programs report the end of a TLS stream

Written by `bench/tls/endings`. A row is what one side of a connection does, played by bytes: rustls
for the handshake, records made by hand, and the socket itself for FIN and RST. A column is what a
program reports that gets the same bytes. All use TLS 1.3 with AES-128-GCM and X25519.

The short words: \"clean end\" means that the program reports no failure; \"truncated\" that it reports
a stream that ended too early; \"reset\", \"their alert\" and the others name what its error says;
\"waits\" that it leaves the connection open until the case is over (6 s; 12 s in the handshake).
Failures are bold. \"Data lost\" means that the program printed less than was sent, \"all data\" that it
printed what came after the end, \"answers\" that a server's answer after the end has arrived.
";

/// What the tables show. It is written by hand.
const LEARNED: &str = include_str!("learned.md");

/// Whether a program is installed.
pub(super) fn has(program: &Program) -> bool {
    program.version.is_empty() || version(program).is_some()
}

fn version(program: &Program) -> Option<String> {
    let (name, arguments) = program.version.split_first()?;
    let output = Command::new(name).args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

pub(super) fn write(tables: &[Table]) -> String {
    let mut page = format!("{HEAD}\n");
    versions(&mut page, tables);
    for table in tables {
        let _ = writeln!(page, "## {}\n", table.title);
        let names = table.programs.iter().map(|program| program.name);
        line(&mut page, [""].into_iter().chain(names));
        line(&mut page, std::iter::repeat_n("---", table.programs.len() + 1));
        for (behaviour, outcomes) in &table.rows {
            let cells = outcomes.iter().zip(&table.programs).map(|(outcome, program)| match outcome {
                Some(outcome) => short::cell(behaviour, outcome),
                None => format!("can't: {}", program.half_closes.err().unwrap_or_default()),
            });
            line(&mut page, [behaviour.words.to_owned()].into_iter().chain(cells));
        }
        page.push('\n');
    }
    let _ = writeln!(page, "{LEARNED}");
    for table in tables {
        let _ = writeln!(page, "## {}: the words\n", table.title);
        for (behaviour, outcomes) in &table.rows {
            let _ = writeln!(page, "### {}\n", behaviour.words);
            line(&mut page, ["program", "its words", "its own end"]);
            line(&mut page, ["---"; 3]);
            for (outcome, program) in outcomes.iter().zip(&table.programs) {
                let Some(outcome) = outcome else { continue };
                let words = outcome.words.replace('|', "/");
                line(&mut page, [program.name, &words, &outcome.seen.ends.join(", ")]);
            }
            page.push('\n');
        }
    }
    page
}

fn line<S: AsRef<str>>(page: &mut String, cells: impl IntoIterator<Item = S>) {
    for cell in cells {
        let _ = write!(page, "| {} ", cell.as_ref());
    }
    page.push_str("|\n");
}

fn versions(page: &mut String, tables: &[Table]) {
    let mut known: Vec<(&str, String)> = Vec::new();
    for program in tables.iter().flat_map(|table| &table.programs) {
        let name = program.version.first().copied().unwrap_or_default();
        if let Some(version) = version(program).filter(|_| known.iter().all(|(other, _)| *other != name)) {
            known.push((name, version));
        }
    }
    let known = known.iter().map(|(name, version)| format!("{name}: {version}"));
    let lock = ["rustls", "tokio-rustls"].map(|name| format!("{name}: {}", crate::cost::version(name)));
    let versions = format!("Versions: {}.", known.chain(lock).collect::<Vec<_>>().join("; "));
    let _ = writeln!(page, "{}", wrapped(&versions));
}
