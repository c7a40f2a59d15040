//! The book shows the programs that run, and what they print.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use support::book::{Block, blocks, compare_blocks, pages, root};

use super::program::{client, printed};

const HOW: &str = "FINALE_BOOK=write cargo test book";
const RUST: &str = "cargo run -q --example book -- ";
const NODE: &str = "node docs/book/src/node/";

fn shown(block: &Block, printed: &str) -> Option<String> {
    Some(format!("$ {}\n{printed}", block.command()?))
}

#[test]
fn the_book_shows_its_programs_and_what_they_print() {
    let node = client("node", &["--version"]);
    let is_node_20 = node.is_some_and(|version| version.stdout.starts_with(b"v20."));
    if !is_node_20 {
        println!("skipped: no Node 20 here, whose output the book shows");
    }
    let compared = compare_blocks(HOW, |block| {
        if let Some(path) = block.file() {
            return Some(fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")));
        }
        let command = block.command()?;
        if let Some(name) = command.strip_prefix(RUST) {
            return shown(block, &printed("book", &[name], ""));
        }
        let script = command.strip_prefix("node ").filter(|_| is_node_20)?;
        let output =
            Command::new("node").args(script.split(' ')).current_dir(root()).output().expect("it is installed");
        assert!(output.status.success(), "{command}: {output:?}");
        shown(block, &String::from_utf8(output.stdout).expect("UTF-8"))
    });
    assert!(compared > 15, "{compared} blocks");
}

#[test]
fn every_program_in_the_book_is_tested_and_every_tested_program_is_in_the_book() {
    let mut shown = BTreeSet::new();
    for (path, page) in pages() {
        for block in blocks(&page) {
            let command = block.command().unwrap_or("finale");
            let is_tested = ["finale", RUST, NODE].iter().any(|known| command.starts_with(known));
            assert!(is_tested, "{}: no test runs {command}", path.display());
            let is_program = block.language == "rust" || block.language == "js";
            assert_eq!(is_program, block.file().is_some(), "{}: {}", path.display(), block.body);
            shown.extend(block.file().map(str::to_owned));
        }
    }
    for folder in ["examples/book", "docs/book/src/node"] {
        for entry in fs::read_dir(root().join(folder)).expect("it exists") {
            let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{name}");
            assert!(name == "main.rs" || shown.contains(&path), "no page shows {path}");
        }
    }
    let listed = fs::read_to_string(root().join("docs/book/src/SUMMARY.md")).expect("it exists");
    for (path, _) in pages() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(name == "SUMMARY.md" || listed.contains(&format!("({name})")), "SUMMARY.md does not list {name}");
    }
}
