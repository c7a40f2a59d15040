//! The page for people who come from Node says of each row what is true.

use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../docs/node.md");
const SOURCES: [&str; 9] = [
    include_str!("connecting.rs"),
    include_str!("destroying.rs"),
    include_str!("ends.rs"),
    include_str!("flow.rs"),
    include_str!("orders.rs"),
    include_str!("resets.rs"),
    include_str!("servers.rs"),
    include_str!("states.rs"),
    include_str!("timeouts.rs"),
];
const UNIX: &str = include_str!("unix.rs");

/// Of each row of the page's last table: its status, and what stands behind it.
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

#[test]
fn every_test_that_the_page_names_exists_and_every_test_is_named() {
    let mut tests: Vec<&str> = Vec::new();
    for source in SOURCES.into_iter().chain([UNIX]) {
        let names = source.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
        tests.extend(names);
    }
    let named: Vec<_> = rows().into_values().flat_map(|(_, why)| why.split('`').skip(1).step_by(2)).collect();
    let is_test = |name: &&&str| name.starts_with('n') && name.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    for name in named.iter().filter(is_test) {
        assert!(tests.contains(name), "the page names {name}, which does not exist");
    }
    for test in &tests {
        assert!(named.contains(test), "{test} is not on the page");
    }
    for (row, (status, why)) in rows() {
        assert!(!matches!(status, "passed" | "differs") || why.contains("`n"), "row {row} names no test");
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
