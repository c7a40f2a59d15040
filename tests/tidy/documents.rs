//! The documents: what they name exists, and what exists is named.

use std::fs;
use std::path::Path;

use crate::document;

#[test]
fn the_diagram_in_the_documentation_is_the_table_that_runs() {
    let diagram = finale::lifecycle::print(finale::lifecycle::Format::Mermaid, finale::lifecycle::View::All);
    assert!(
        document("ARCHITECTURE.md").contains(diagram.trim()),
        "replace it by the output of: finale states --format mermaid"
    );
}

#[test]
fn every_path_in_the_documentation_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "ARCHITECTURE.md",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/simulation.md",
        "tests/README.md",
    ] {
        let text = document(name);
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |word: &&str| {
            [
                "src/",
                "tests/",
                "examples/",
                "bench/",
                "benches/",
                "cli/",
                "docs/",
                "fuzz/",
                "http/",
                "probe/",
                "tls/",
                ".ci/",
            ]
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
            let from = root.join(name).with_file_name("");
            assert!(!local || from.join(file).exists(), "{name} links to {target}, which does not exist");
        }
    }
}

#[test]
fn every_folder_and_file_of_tests_is_in_its_table() {
    let readme = document("tests/README.md");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").file_name());
        entries.map(|name| name.to_string_lossy().into_owned()).collect()
    };
    let has_tests = |folder: &String| names(&tests.join(folder)).iter().any(|file| file == "main.rs");
    for folder in names(&tests).into_iter().filter(|name| tests.join(name).is_dir()).filter(has_tests) {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{folder}/` |")));
        let row = row.unwrap_or_else(|| panic!("tests/README.md has no row for tests/{folder}"));
        for file in names(&tests.join(&folder)) {
            let Some(module) = file.strip_suffix(".rs").filter(|module| *module != "main") else { continue };
            // A row that names one of its files names all of them.
            let names_files = row.matches('`').count() > 2;
            assert!(!names_files || row.contains(&format!("`{module}`")), "tests/README.md: no {folder}/{file}");
        }
    }
}
