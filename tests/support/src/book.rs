//! The book in docs/book: the blocks of its pages, which tests compare with programs and their
//! output.
//!
//! A block of text that begins with `$ ` is the output of that command. If the command ends with
//! `> FILE`, its output is that file next to the pages. A block after `Program: ` and a path shows
//! that file. `FINALE_BOOK=write` writes what a test expects instead of comparing it. Output that
//! no test can repeat, such as that of ss(8), is in a block of the language `console`.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A fenced block.
pub struct Block {
    /// What is written after the fence.
    pub language: String,
    /// The last line of text before the fence.
    pub introduction: String,
    /// The lines between the fences.
    pub body: String,
    range: Range<usize>,
}

impl Block {
    /// The command of which this is the output.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        let first = self.body.lines().next()?;
        first.strip_prefix("$ ").filter(|_| self.language == "text")
    }

    /// The path of the file that this shows.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.introduction.strip_prefix("Program: `")?.split('`').next()
    }
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages, by their paths, in order.
#[must_use]
pub fn pages() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(root().join("docs/book/src")).expect("the book exists");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8"))).collect()
}

/// The blocks of a page.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut introduction) = (Vec::new(), String::new());
    let mut open: Option<(String, usize)> = None;
    let mut at = 0;
    for line in page.split_inclusive('\n') {
        match (line.trim_end().strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((language.to_owned(), at + line.len())),
            (Some(_), Some((language, from))) => {
                let (introduction, body) = (std::mem::take(&mut introduction), page[from..at].to_owned());
                blocks.push(Block { language, introduction, body, range: from..at });
            }
            (None, still_open) => {
                open = still_open;
                if open.is_none() && !line.trim().is_empty() {
                    line.trim_end().clone_into(&mut introduction);
                }
            }
        }
        at += line.len();
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

fn is_writing() -> bool {
    std::env::var_os("FINALE_BOOK").is_some_and(|value| value == "write")
}

/// Compares each block for which `expected` returns a body, and returns their number.
///
/// # Panics
/// When a block differs, with how to write it.
pub fn compare_blocks(how: &str, mut expected: impl FnMut(&Block) -> Option<String>) -> usize {
    let mut compared = 0;
    for (path, page) in pages() {
        let mut text = page.clone();
        for block in blocks(&page).into_iter().rev() {
            let Some(body) = expected(&block) else { continue };
            compared += 1;
            let name = block.command().or(block.file()).unwrap_or_default();
            assert!(is_writing() || block.body == body, "{}: {name}\n{body}\nwrite it: {how}", path.display());
            text.replace_range(block.range, &body);
        }
        if text != page {
            fs::write(path, text).expect("it can be written");
        }
    }
    compared
}

/// Compares a file next to the pages.
///
/// # Panics
/// When it differs, with how to write it.
pub fn compare_file(name: &str, how: &str, expected: &str) {
    let path = root().join("docs/book/src").join(name);
    if is_writing() {
        fs::write(path, expected).expect("it can be written");
    } else {
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(text == expected, "docs/book/src/{name} is not what its command prints; write it: {how}");
    }
}
