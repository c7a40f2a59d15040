//! The catalogue of Node's behaviours, docs/node.md: each row names its test.

use std::collections::BTreeMap;

use crate::{is_a_test, sources};

const PAGE: &str = include_str!("../../docs/node.md");

/// Of each row of the page's last table: its status, and the text after it.
fn rows() -> BTreeMap<u32, (&'static str, &'static str)> {
    let table = PAGE.split("## Row by row").nth(1).expect("the page has that part");
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        Some((cells.first()?.parse().ok()?, (*cells.get(2)?, *cells.get(3)?)))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn every_row_is_there_once_with_a_status() {
    let rows = rows();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let known = ["passed", "differs", "not applicable", "open"];
    assert!(rows.values().all(|(status, why)| known.contains(status) && !why.is_empty()));
}

/// A test without a path is in `tests/node_semantics/`, and the page names all of those.
#[test]
fn every_test_that_the_page_names_exists_and_every_test_of_its_own_is_named() {
    let sources = sources(&["src", "tests"]);
    let own = sources.iter().filter(|(path, _)| path.starts_with("tests/node_semantics/"));
    let own: Vec<&str> = own
        .flat_map(|(_, text)| text.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let is_own = |name: &str| name.starts_with('n') && name.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let is_named_with_path = |name: &str| name.contains('/') && name.contains("::");
    let mut named = Vec::new();
    for (row, (status, why)) in rows() {
        let before = named.len();
        for name in why.split('`').skip(1).step_by(2) {
            if is_own(name) {
                assert!(own.contains(&name), "row {row} names {name}, which does not exist");
                named.push(name);
            } else if is_named_with_path(name) {
                assert!(is_a_test(&sources, name), "row {row} names {name}, which does not exist");
                named.push(name);
            }
        }
        assert!(!matches!(status, "passed" | "differs") || named.len() > before, "row {row} names no test");
    }
    for test in &own {
        assert!(named.contains(test), "{test} is not on the page");
    }
}

#[test]
fn the_counts_at_the_top_are_those_of_the_table() {
    let mut counts = BTreeMap::new();
    for (status, _) in rows().into_values() {
        *counts.entry(status).or_insert(0) += 1;
    }
    let count = |status| counts.get(status).copied().unwrap_or(0);
    let told = format!(
        "{} rows: {} passed as in Node, {} passed and different on purpose, {} not applicable, {} open",
        rows().len(),
        count("passed"),
        count("differs"),
        count("not applicable"),
        count("open"),
    );
    assert!(PAGE.contains(&told), "the page should say: {told}");
}
