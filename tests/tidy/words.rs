//! The words of documents and comments: plain technical English (CONTRIBUTING.md, rule 10).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::sources;

/// Phrases that are hard to read, each with what to write instead. Case does not matter, and a
/// phrase may continue on the next line.
const PHRASES: &[(&str, &str)] = &[
    ("whoever", "name it: the program, the peer, the caller"),
    ("nobody", "name it: no program, no peer, no listener"),
    ("somebody", "name it: a program, a peer, a thread"),
    ("anybody", "name it: a program, a peer, a thread"),
    ("is told", "is delivered, is reported"),
    ("are told", "are delivered, are reported"),
    ("was told", "was delivered, was reported"),
    ("were told", "were delivered, were reported"),
    ("be told", "be delivered, be reported"),
    ("been told", "been delivered, been reported"),
    ("look-up", "lookup"),
    ("look-ups", "lookups"),
    ("time-out", "timeout"),
    ("time-outs", "timeouts"),
    ("a rst", "an RST"),
    ("at the most", "at most"),
    ("for want of", "without"),
    ("all the same", "anyway, still"),
    ("in place of", "instead of"),
    ("anew", "again"),
    ("one more", "another"),
    ("so many", "this many, up to N"),
    ("for so long", "for this long"),
    ("goes on", "continues"),
    ("go on", "continue"),
    ("behind the bytes", "after the bytes"),
    ("behind the last", "after the last"),
    ("behind the data", "after the data"),
    ("behind the answer", "after the answer"),
    ("behind the fin", "after the FIN"),
];

/// A file that is not checked: it is generated, and describes one measured run.
const GENERATED: &str = "bench/RESULTS.md";

/// The prose of a file: numbered lines, with an empty one where the text is interrupted.
fn prose<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    let (is_rust, mut is_code) = (path.ends_with(".rs"), false);
    let comment = |line: &'a str| match line.trim_start().strip_prefix("//") {
        Some(comment) if comment.contains("```") => "",
        Some(comment) => comment.trim_start_matches(['/', '!']),
        None => line.split_once(" // ").map_or("", |(_code, comment)| comment),
    };
    let mut document = |line: &'a str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence { "" } else { line }
    };
    let lines = text.lines().map(|line| if is_rust { comment(line) } else { document(line) });
    (1..).zip(lines.map(str::trim)).collect()
}

/// Where a text has a phrase of `PHRASES` as whole words outside of `code`, with the better words.
fn found(path: &str, text: &str) -> Vec<String> {
    let (mut joined, mut starts) = (String::new(), Vec::new());
    for (number, line) in prose(path, text) {
        starts.push((joined.len(), number));
        joined.push_str(&line.to_ascii_lowercase());
        joined.push(if line.is_empty() { '\n' } else { ' ' });
    }
    let part_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'`');
    let mut found = Vec::new();
    for (phrase, better) in PHRASES {
        for (at, _) in joined.match_indices(phrase) {
            let bytes = joined.as_bytes();
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            if [before, bytes.get(at + phrase.len())].into_iter().flatten().any(part_of_word) {
                continue;
            }
            // In a code span, the number of backticks before it in its paragraph is odd.
            let paragraph = joined[..at].rsplit('\n').next().unwrap_or_default();
            if paragraph.matches('`').count() % 2 == 0 {
                let (_, number) = starts[starts.partition_point(|(start, _)| *start <= at) - 1];
                found.push(format!("{path}:{number}: \"{phrase}\"; better: {better}"));
            }
        }
    }
    found
}

/// Every document of the repository, by its path from the root.
fn documents(folder: &Path, root: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            documents(&path, root, into);
        } else if name.ends_with(".md") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            into.insert(name, fs::read_to_string(&path).expect("a text"));
        }
    }
}

#[test]
fn documents_and_comments_use_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts =
        sources(&["src", "cli", "http", "probe", "tls", "tests", "examples", "fuzz/fuzz_targets", "bench", "benches"]);
    documents(root, root, &mut texts);
    texts.remove(GENERATED);
    assert!(texts.len() > 250 && texts.contains_key("README.md"), "{} texts were found", texts.len());
    let found: Vec<String> = texts.iter().flat_map(|(path, text)| found(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_hard_phrase_is_found_with_its_line() {
    let code = concat!("fn f() {}\n/// The `close` is\n/// told.\nlet nobody = 1; /", "/ At the most.\n");
    assert_eq!(
        found("src/some.rs", code),
        [
            "src/some.rs:2: \"is told\"; better: is delivered, is reported",
            "src/some.rs:4: \"at the most\"; better: at most"
        ]
    );
    let document = "A RST.\n```\na RST\n```\n`nobody`, is_told.\n";
    assert_eq!(found("a.md", document), ["a.md:1: \"a rst\"; better: an RST"]);
}
