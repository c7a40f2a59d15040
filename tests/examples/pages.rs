//! The pages and the programs agree.

use std::path::{Path, PathBuf};

use finale::{ConnectionErrorKind, LayerErrorKind, LookupErrorKind, TimeoutKind};

use super::explain::explain_error;
use super::program::printed;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it exists")
}

#[test]
fn the_readme_shows_the_server_that_is_tested() {
    let example = read("examples/upper.rs");
    let program = example.split_once("\n\n").expect("a comment, then the program").1;
    assert!(read("README.md").contains(program), "README.md and examples/upper.rs differ");
}

#[test]
fn the_guide_to_testing_has_the_program_that_the_readme_compiles() {
    let readme = read("README.md");
    let program = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a program");
    assert!(program.contains("Endings::of_a_server"));
    assert!(read("docs/guides/testing.md").contains(program), "README.md and docs/guides/testing.md differ");
}

/// Every document of the tree, by its path from the root.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/guides", "docs/book/src"].map(|folder| root.join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("it exists"));
    let paths = entries.map(|entry| entry.expect("readable").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).expect("UTF-8"))).collect()
}

#[test]
fn every_link_of_a_document_leads_somewhere_and_no_line_of_prose_is_too_long() {
    let documents = documents();
    assert!(documents.len() > 20, "{}", documents.len());
    for (path, text) in documents {
        let folder = path.parent().expect("a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let is_local = !file.is_empty() && !file.contains("://");
            assert!(!is_local || folder.join(file).exists(), "{} links to {target}", path.display());
        }
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            is_code ^= line.starts_with("```");
            let is_free = is_code || line.starts_with('|') || line.starts_with("    ") || line.starts_with("![");
            assert!(is_free || line.chars().count() <= 100, "{}:{}", path.display(), number + 1);
        }
    }
}

/// The paths of programs and tests that the guides name.
#[test]
fn every_path_in_the_guides_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (page, text) in documents() {
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "examples/", "docs/", "bench/", "benches/", "cli/", "fuzz/", "probe/"];
            // docs/mutants.md names files of earlier states, and the rows of docs/faults.md are tests.
            if !page.ends_with("mutants.md") && !word.contains("::") && is_path.iter().any(|it| word.starts_with(it)) {
                let path = word.split([' ', ':']).next().unwrap_or(word);
                assert!(root.join(path).exists(), "{} names {path}", page.display());
            }
        }
    }
}

#[test]
fn the_guide_to_endings_has_the_words_of_the_example() {
    let guide = read("docs/guides/endings.md");
    let kinds = [
        ConnectionErrorKind::Reset,
        ConnectionErrorKind::Refused,
        ConnectionErrorKind::Unreachable,
        ConnectionErrorKind::Lookup(LookupErrorKind::NotFound),
        ConnectionErrorKind::Lookup(LookupErrorKind::TryAgain),
        ConnectionErrorKind::NoLocalAddress,
        ConnectionErrorKind::OutOfResources,
        ConnectionErrorKind::Aborted,
        ConnectionErrorKind::System,
        ConnectionErrorKind::Layer(LayerErrorKind::Protocol),
    ];
    let timers = [
        TimeoutKind::Connect,
        TimeoutKind::HalfClosed,
        TimeoutKind::Close,
        TimeoutKind::Write,
        TimeoutKind::Deadline,
        TimeoutKind::Ending,
        TimeoutKind::Kernel,
    ];
    for kind in kinds.into_iter().chain(timers.map(ConnectionErrorKind::TimedOut)) {
        let (meaning, advice) = explain_error(kind);
        let row = format!("| {meaning} | {advice} |");
        assert!(guide.contains(&row), "{kind:?}: the guide has no {row:?}");
    }
}

#[test]
fn the_explain_example_causes_ten_endings() {
    let text = printed("explain", &[], "");
    for beginning in [
        "clean and acknowledged",
        "clean, handed off",
        "destroyed by us",
        "error: reset by the peer",
        "error: timed out: not done by its deadline",
        "error: timed out: the end was not completed in time",
        "error: timed out: not connected in time",
        "error: refused",
        "error: unreachable",
        "error: lookup failed: no such name",
    ] {
        assert!(text.lines().any(|line| line.starts_with(beginning)), "{beginning}: {text}");
    }
    assert_eq!(text.matches("It means").count(), 10);
}
