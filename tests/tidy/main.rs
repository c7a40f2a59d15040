//! Rules about the repository that a program can check: the source code, the documents, their
//! words, and the two catalogues that name a test for each row.

mod code;
mod documents;
mod faults;
mod node;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below these folders, with its text, by its path from the root.
pub(crate) fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut queue: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(path) = queue.pop() {
        if path.is_dir() {
            if !path.join("CACHEDIR.TAG").exists() {
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

pub(crate) fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the document exists")
}

/// Whether there is a function of this name, marked as a test, in that file below tests/, or below
/// src/ if `test` begins with that.
pub(crate) fn is_a_test(sources: &BTreeMap<String, String>, test: &str) -> bool {
    let Some((file, name)) = test.rsplit_once("::") else { return false };
    let path = if file.starts_with("src/") { format!("{file}.rs") } else { format!("tests/{file}.rs") };
    let Some(text) = sources.get(&path) else { return false };
    text.split("#[test]").skip(1).any(|rest| {
        let signature = rest.lines().map(str::trim).find(|line| line.starts_with("fn "));
        signature.is_some_and(|line| line.starts_with(&format!("fn {name}(")))
    })
}
