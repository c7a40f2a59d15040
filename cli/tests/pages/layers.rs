//! The layers of the command's source, as `main.rs` describes them.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. A file may use the layers below its own, and no other of its own layer
/// outside its folder.
const LAYERS: [&[&str]; 8] = [
    &["values", "errors", "html", "limited", "log_queue"],
    &["output", "tls"],
    &["interrupt", "signals", "usage"],
    &["trace"],
    &["serve"],
    &["bench", "completions", "connect", "lesson", "man", "probe", "sim", "states"],
    &["lab"],
    &["commands"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The files of a folder and the folders below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it can be read").map(|entry| entry.expect("it can be read").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn imports_of_the_command_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in files(&root) {
        let name = path.strip_prefix(&root).expect("it is below").to_string_lossy().into_owned();
        let module = name.split(['/', '.']).next().unwrap_or_default();
        if module == "main" {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{name} has no layer"));
        let text = fs::read_to_string(&path).expect("it is text");
        for used in text.split("crate::").skip(1).filter_map(|rest| rest.split([':', ';', '{', ' ']).next()) {
            let Some(theirs) = layer(used) else { continue };
            assert!(used == module || theirs < own, "{name} uses {used}, which is not below {module}");
        }
    }
}
