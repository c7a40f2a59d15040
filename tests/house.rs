//! The rules of the house that a program can check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below these folders, with its text, by its path from the root.
fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut queue: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            if !path.ends_with("target") {
                queue.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(&path).expect("UTF-8"));
        }
    }
    assert!(!found.is_empty());
    found
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the document exists")
}

/// The layers, from the bottom up. A module may use those of lower layers, and no other of its own.
const LAYERS: &[&[&str]] = &[
    &["id", "rng", "ticks", "unix_addr", "wheel", "lifecycle"],
    &["error"],
    &["event", "options", "target", "buffer"],
    &["report", "net", "metrics"],
    &["table"],
    &["socket", "socket_map", "sim"],
    &["reactor", "pipe"],
    &["inbox", "pool", "shard"],
    &["check"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn imports_point_down() {
    for (path, text) in sources(&["src"]) {
        let module = path.trim_start_matches("src/").split(['/', '.']).next().expect("a name").to_owned();
        let test = path.ends_with("tests.rs") || path.contains("/tests/");
        if module == "lib" || test {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{path}: module {module} has no layer"));
        for used in text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(uses) {
            let Some(theirs) = layer(&used) else { continue };
            assert!(used == module || theirs < own, "{path} uses {used}, which is not below {module}");
        }
    }
}

/// The crate's modules that a line names.
fn uses(line: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.match_indices("crate::").map(|(at, found)| name(&line[at + found.len()..])).collect()
}

#[test]
fn the_clock_is_read_in_one_file() {
    for (path, text) in sources(&["src"]) {
        assert!(!text.contains("SystemTime"), "{path} looks at the wall clock");
        assert!(path == "src/net/os.rs" || !text.contains("Instant::now"), "{path} reads the clock");
    }
}

#[test]
fn no_file_is_longer_than_600_lines_and_no_function_than_60() {
    for (path, text) in sources(&["src", "cli", "tests", "examples", "bench", "benches"]) {
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() <= 600, "{path} has {} lines", lines.len());
        let mut open: Option<(usize, String)> = None;
        for (number, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let begins = ["", "pub ", "pub(crate) ", "pub(super) "]
                .iter()
                .flat_map(|who| ["fn ", "const fn ", "unsafe fn "].map(|word| format!("{who}{word}")))
                .any(|word| code.starts_with(&word));
            if begins && !code.ends_with(';') {
                open = Some((number, " ".repeat(indent) + "}"));
            }
            if let Some((from, end)) = &open
                && line == end
            {
                assert!(number - from <= 60, "{path}:{}: a function of {} lines", from + 1, number - from);
                open = None;
            }
        }
    }
}

#[test]
fn no_test_sleeps_and_nothing_is_left_undone() {
    let words =
        [concat!("thread", "::sleep"), concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[", "ignore")];
    for (path, text) in sources(&["src", "cli", "tests", "examples", "fuzz/fuzz_targets", "bench", "benches"]) {
        for word in words {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn one_word_stands_for_one_thing() {
    // Left: what must not be written in the library's documentation; the words are in ARCHITECTURE.md.
    let banned = ["event loop iteration", "watermark", "half-open socket", "fd leak", "callback is"];
    for (path, text) in sources(&["src"]) {
        for line in text.lines().filter(|line| line.trim_start().starts_with("//")) {
            for word in banned {
                assert!(!line.to_lowercase().contains(word), "{path}: {word}: {line}");
            }
        }
    }
}

#[test]
fn the_dependencies_are_the_ones_with_a_reason() {
    let manifest = document("Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("a section");
    let names: Vec<&str> = section.lines().filter_map(|line| line.split_once(" = ").map(|(name, _)| name)).collect();
    assert_eq!(names, ["log", "mio", "rustix", "serde", "slab", "socket2", "tracing"]);
    let architecture = document("ARCHITECTURE.md");
    for name in names {
        assert!(architecture.contains(&format!("`{name}`")), "ARCHITECTURE.md gives no reason for {name}");
    }
}

#[test]
fn the_diagram_in_the_documentation_is_the_table_that_runs() {
    let diagram = finale::lifecycle::print(finale::lifecycle::Format::Mermaid);
    assert!(document("ARCHITECTURE.md").contains(diagram.trim()), "print it anew: finale states --format mermaid");
}

#[test]
fn every_fault_that_the_simulated_network_counts_is_in_the_catalogue() {
    let catalogue = document("docs/faults.md");
    for row in finale::sim::Fault::ALL {
        assert!(catalogue.contains(&format!("\n| {} |", row.id())), "{} has no row in docs/faults.md", row.id());
    }
}

#[test]
fn every_path_in_the_documentation_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["ARCHITECTURE.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/simulation.md"]
    {
        let text = document(name);
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |word: &&str| {
            ["src/", "tests/", "examples/", "bench/", "benches/", "cli/", "docs/", "fuzz/", ".ci/"]
                .iter()
                .any(|folder| word.starts_with(folder))
        };
        for path in quoted.filter(is_path) {
            let path = path.split_whitespace().next().unwrap_or(path);
            assert!(root.join(path).exists(), "{name} names {path}, which does not exist");
        }
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let local = !file.is_empty() && !file.contains("://");
            assert!(!local || root.join(file).exists(), "{name} links to {target}, which does not exist");
        }
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
        wrong.push(format!("{} rows in place of {}", ids.len(), expected.len()));
    }
    assert!(wrong.is_empty(), "docs/faults.md:\n{}", wrong.join("\n"));
}

/// The tests that a cell names: `file::test` between backticks. Anything else between backticks is a word.
fn tests_in(cell: &str) -> Vec<&str> {
    let is_prose = cell.starts_with('–');
    cell.split('`').skip(1).step_by(2).filter(|word| !is_prose && word.contains("::")).collect()
}

/// Whether there is a function of this name, marked as a test, in that file below tests/, or below src/ if it says so.
fn is_a_test(sources: &BTreeMap<String, String>, test: &str) -> bool {
    let Some((file, name)) = test.rsplit_once("::") else { return false };
    let path = if file.starts_with("src/") { format!("{file}.rs") } else { format!("tests/{file}.rs") };
    let Some(text) = sources.get(&path) else { return false };
    text.split("#[test]").skip(1).any(|rest| {
        let signature = rest.lines().map(str::trim).find(|line| line.starts_with("fn "));
        signature.is_some_and(|line| line.starts_with(&format!("fn {name}(")))
    })
}
