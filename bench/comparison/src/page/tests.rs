use super::*;
use crate::raw::tests::{experiment, row};
use crate::raw::{Counts, Memory};

fn raw() -> Raw {
    let mut broken = row("libuv", &[30.0]);
    broken.failure = Some("exit status: 1: 8000 connections,\n3 failed".into());
    let rows = vec![row(BLOCKING, &[40.0, 44.0]), row("node", &[80.0, 88.0]), broken, row(HAND_OFF, &[30.0, 33.0])];
    Raw {
        whole: true,
        command: "bench/compare".into(),
        seconds: 125,
        machine: vec![("date".into(), "2026-01-02".into()), ("kernel".into(), "6.18".into())],
        skipped: vec!["go: not built here".into()],
        experiments: vec![experiment("main", rows)],
        ..Raw::default()
    }
}

#[test]
fn the_cheapest_server_stands_first_and_a_failed_one_last() {
    let page = page(&raw(), "");
    let overview = page.split("## Half-closing").nth(1).unwrap();
    let lines: Vec<&str> = overview.lines().filter(|line| line.starts_with("| ")).take(5).collect();
    assert_eq!(
        lines,
        [
            "| server | 64 B |",
            "| **finale**, hand-off | 0.75 |",
            "| C, blocking loop | 1.00 |",
            "| Node | 2.00 |",
            "| libuv | **failed** |"
        ]
    );
}

#[test]
fn a_failure_is_told_at_the_top_and_breaks_no_table() {
    let page = page(&raw(), "");
    let top = page.split("## Goals").next().unwrap();
    assert!(top.contains("**This run has failed.**"), "{top}");
    assert!(top.contains("- main, libuv: exit status: 1: 8000 connections, 3 failed"), "{top}");
    assert!(page.contains("| libuv | **failed**: exit status: 1: 8000 connections, 3 failed |"));
}

#[test]
fn a_trial_says_that_it_is_one() {
    assert!(!page(&raw(), "").contains("A trial"));
    assert!(page(&Raw { whole: false, ..raw() }, "").contains("**A trial, not a result**"));
}

#[test]
fn what_was_not_measured_has_no_section_and_what_was_skipped_is_told() {
    let page = page(&raw(), "");
    for absent in ["## Echo", "## 1 GiB", "## Two shards", "## What each trick", "## Memory", "## Inside"] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("- not run: go: not built here"));
    assert!(page.contains("it took 2 min 5 s"));
}

#[test]
fn counts_name_the_calls_and_ablation_its_titles() {
    let mut raw = raw();
    let counts = |name: &str| Counts {
        name: name.into(),
        system_calls: Some(5.1),
        by_call: [("accept4".to_owned(), 1.1), ("close".to_owned(), 4.0), ("brk".to_owned(), 0.001)].into(),
        calls_at_speed: Some(7.5),
        instructions: Some(412.4),
        uncounted: [].into(),
        failure: None,
    };
    raw.counts = vec![counts(HAND_OFF), counts("without:x")];
    raw.titles = [("without:x".to_owned(), "The last send says nothing".to_owned())].into();
    raw.experiments.push(experiment("ablation", vec![row(HAND_OFF, &[10.0]), row("without:x", &[12.0])]));
    raw.experiments.push(experiment("ablation-echo", vec![row(HAND_OFF, &[10.0]), row("without:x", &[9.0])]));
    let page = page(&raw, "");
    assert!(page.contains("| **finale**, hand-off | 5.10 | 7.50 | 8.00 | 412 | accept4 1.10, close 4.00 |"), "{page}");
    assert!(
        page.contains(
            "| The last send says nothing | **1.20** | 1.20–1.20 | **0.90** | 0.90–0.90 | 5.10 | 8.00 | 412 |"
        ),
        "{page}"
    );
    assert_eq!(page.matches("The last send says nothing").count(), 1);
}

#[test]
fn what_was_not_counted_says_why_and_stands_below_what_was() {
    let mut raw = raw();
    let without = Counts {
        name: "blocking".into(),
        calls_at_speed: Some(5.0),
        uncounted: [("strace".to_owned(), "no strace here".to_owned()), ("valgrind".to_owned(), "a | b".to_owned())]
            .into(),
        ..Counts::default()
    };
    let counted = Counts { name: "node".into(), system_calls: Some(10.0), ..Counts::default() };
    raw.counts = vec![without, counted];
    assert_eq!(raw.failures().len(), 1, "only that of the raw data");
    let page = page(&raw, "");
    let line = "| C, blocking loop | not counted: no strace here | 5.00 | 8.00 | not counted: a   b |  |";
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words} is missing:\n{page}"));
    assert!(at("| Node | 10.00 | – | 8.00 | – |  |") < at(line));
}

#[test]
fn both_clients_stand_side_by_side_with_their_quartiles() {
    let mut raw = raw();
    raw.experiments.push(experiment("cross", vec![row(BLOCKING, &[20.0, 20.0]), row(HAND_OFF, &[20.0, 24.0])]));
    let page = page(&raw, "");
    let line = "| **finale**, hand-off | **0.75** | 0.75–0.75 | **1.10** | 1.05–1.15 |";
    assert!(page.contains(line), "{page}");
}

#[test]
fn a_trial_judges_nothing_and_tells_its_own_numbers() {
    let mut trial = Raw { whole: false, ..raw() };
    trial.lengths.long = 1200;
    let page = page(&trial, "");
    for verdict in ["| met |", "**missed**"] {
        assert!(!page.contains(verdict), "{verdict}");
    }
    assert!(page.contains("| trial: not judged |"));
    assert!(page.contains("a run of 1,200 connections and one of 400, divided by\n800"), "{page}");
    let method = page.split("## How it is measured").nth(1).unwrap();
    assert!(!method.contains('{'), "{method}");
}

#[test]
fn memory_is_sorted_and_notes_come_last_as_they_are() {
    let mut raw = raw();
    let memory = |name: &str, after_bytes| Memory {
        name: name.into(),
        connections: 1000,
        before_bytes: 1 << 20,
        after_bytes,
        failure: None,
    };
    let failed = Memory { failure: Some("gone".into()), ..memory("go", 0) };
    raw.memory = vec![failed, memory("tokio", (1 << 20) + 2_800_000), memory(HAND_OFF, (1 << 20) + 68_000)];
    let page = page(&raw, "## Where the rest goes\n\nInto *prose* | as is.\n");
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words} is missing:\n{page}"));
    assert!(at("| **finale**, hand-off | 68 | 1.0 | 1.1 |") < at("| tokio, current_thread | 2800 |"));
    assert!(at("| tokio, current_thread | 2800 |") < at("| Go | **failed**: gone |"));
    assert!(page.ends_with("## Where the rest goes\n\nInto *prose* | as is.\n"));
}

#[test]
fn every_row_of_a_table_has_as_many_cells_as_its_head_or_says_that_it_failed() {
    let page = page(&raw(), "");
    let mut width = 0;
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells = line.matches(" | ").count();
        if line.starts_with("|---") {
            continue;
        }
        if line.starts_with("| what ") || line.starts_with("| server ") {
            width = cells;
        }
        assert!(cells == width || line.contains("**failed**"), "{line}");
    }
}
