//! The catalogue of faults, docs/faults.md: each row names its tests.

use crate::{document, is_a_test, sources};

#[test]
fn every_fault_that_the_simulated_network_counts_is_in_the_catalogue() {
    let catalogue = document("docs/faults.md");
    for row in finale::sim::Fault::ALL {
        assert!(catalogue.contains(&format!("\n| {} |", row.id())), "{} has no row in docs/faults.md", row.id());
    }
}

/// How many rows each section of the catalogue of faults has, by the letters of its ids.
const FAULTS: &[(&str, usize)] = &[
    ("CN", 11),
    ("AC", 10),
    ("RD", 8),
    ("WR", 9),
    ("HC", 8),
    ("CL", 14),
    ("RS", 9),
    ("SI", 8),
    ("TM", 11),
    ("FD", 4),
    ("RY", 7),
    ("LK", 6),
    ("OV", 7),
    ("TH", 3),
    ("AP", 5),
];

#[test]
fn every_fault_has_its_tests() {
    let sources = sources(&["src", "tests"]);
    let catalogue = document("docs/faults.md");
    let mut wrong = Vec::new();
    let mut ids = Vec::new();
    for line in catalogue.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row ")) {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        let [id, fault, seen, simulated, real] = cells.as_slice() else {
            wrong.push(format!("not five cells: {line}"));
            continue;
        };
        ids.push((*id).to_owned());
        if fault.is_empty() || seen.is_empty() {
            wrong.push(format!("{id}: nothing said"));
        }
        let named = [simulated, real].map(|cell| tests_in(cell));
        if named.iter().all(Vec::is_empty) {
            wrong.push(format!("{id} has no test"));
        }
        for (cell, tests) in [simulated, real].into_iter().zip(&named) {
            if tests.is_empty() && cell.strip_prefix('–').is_none_or(|reason| reason.trim().is_empty()) {
                wrong.push(format!("{id}: a cell without a test says why, behind a dash: {cell:?}"));
            }
        }
        let missing = named.iter().flatten().filter(|test| !is_a_test(&sources, test));
        wrong.extend(missing.map(|test| format!("{id}: there is no test {test}")));
    }
    let expected: Vec<String> =
        FAULTS.iter().flat_map(|(letters, rows)| (1..=*rows).map(move |row| format!("{letters}{row:02}"))).collect();
    wrong.extend(expected.iter().filter(|id| !ids.contains(id)).map(|id| format!("{id} is missing")));
    wrong.extend(ids.iter().filter(|id| !expected.contains(id)).map(|id| format!("{id} is not in the catalogue")));
    if ids.len() != expected.len() {
        wrong.push(format!("{} rows instead of {}", ids.len(), expected.len()));
    }
    assert!(wrong.is_empty(), "docs/faults.md:\n{}", wrong.join("\n"));
}

/// The tests that a cell names: `file::test` between backticks. Anything else between backticks is
/// a word.
fn tests_in(cell: &str) -> Vec<&str> {
    let is_prose = cell.starts_with('–');
    cell.split('`').skip(1).step_by(2).filter(|word| !is_prose && word.contains("::")).collect()
}
