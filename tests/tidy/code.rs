//! The source code: layers, clocks, lengths, dependencies.

use crate::{document, sources};

/// The layers, from the bottom up. A module may use those of lower layers, and no other of its own.
const LAYERS: &[&[&str]] = &[
    &["id", "rng", "ticks", "unix_addr", "wheel", "lifecycle"],
    &["target"],
    &["error"],
    &["event", "options", "parse", "buffer", "kernel_pipe"],
    &["report", "net", "metrics"],
    &["table", "trace"],
    &["socket", "socket_map", "sim"],
    &["stream"],
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
    for (path, text) in sources(&["src", "probe/src", "tls/src"]) {
        assert!(!text.contains("SystemTime"), "{path} looks at the wall clock");
        // The second one bounds how long a test runs, and prints its progress.
        let may = ["src/net/os.rs", "src/check/endings/mod.rs"].contains(&path.as_str());
        assert!(may || !text.contains("Instant::now"), "{path} reads the clock");
    }
}

#[test]
fn no_file_is_longer_than_600_lines_and_no_function_than_60() {
    for (path, text) in sources(&["src", "cli", "http", "probe", "tls", "tests", "examples", "bench", "benches"]) {
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
    for (path, text) in
        sources(&["src", "cli", "http", "probe", "tls", "tests", "examples", "fuzz/fuzz_targets", "bench", "benches"])
    {
        for word in words {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn one_word_stands_for_one_thing() {
    // The words to use are in ARCHITECTURE.md; these must not be in the library's documentation.
    let banned = ["event loop iteration", "watermark", "half-open socket", "fd leak", "callback is"];
    for (path, text) in sources(&["src", "http/src", "probe/src", "tls/src"]) {
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
fn only_one_module_of_the_probe_may_be_unsafe() {
    for (path, text) in sources(&["src", "cli", "http", "probe", "tls", "tests", "examples", "bench", "benches"]) {
        let allows = text.contains(concat!("allow(", "unsafe_code"));
        assert!(!allows || path == "probe/src/sockopt.rs", "{path} allows unsafe code");
    }
}

#[test]
fn every_public_type_has_an_example() {
    for (path, text) in sources(&["src", "http/src", "probe/src", "tls/src"]) {
        // The types of the net, and of a macro, are hidden from the documentation.
        if path.starts_with("src/net/") || ["src/kernel_pipe.rs", "probe/src/sockopt.rs"].contains(&path.as_str()) {
            continue;
        }
        let mut has_example = false;
        for line in text.lines().map(str::trim_start) {
            let declares = ["struct ", "enum ", "trait "].map(|kind| format!("pub {kind}"));
            if let Some(name) = declares.iter().find_map(|start| line.strip_prefix(start.as_str())) {
                // The macro for ids takes its examples from its callers.
                let is_exempt = name.starts_with('$') || name.starts_with("SystemOptions");
                assert!(has_example || is_exempt, "{path}: {line} has no example");
            }
            let goes_on = line.starts_with("///") || line.starts_with("#[") || line.starts_with("$(#");
            has_example = goes_on && (has_example || line.starts_with("/// ```"));
        }
    }
}
