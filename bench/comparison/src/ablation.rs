//! Which tricks are switched off one at a time: the patches in bench/ablation, with what was built from them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::roster::{Contestant, Tree};

/// One patch that was built.
#[derive(Debug)]
pub(crate) struct Ablation {
    pub(crate) contestant: Contestant,
    pub(crate) title: String,
}

/// All patches, by name, and a line for each that was not built.
///
/// # Errors
/// A patch without a title, or a folder that can't be read.
pub(crate) fn ablations(tree: &Tree) -> Result<(Vec<Ablation>, Vec<String>)> {
    let folder = tree.root.join("bench/ablation");
    let mut files: Vec<_> = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let (mut built, mut missing) = (Vec::new(), Vec::new());
    for path in
        files.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|end| end == "patch"))
    {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let title = title(&path)?;
        let program = tree.ablation(&name);
        if program.exists() {
            built.push(Ablation { contestant: Contestant::ablated(format!("without:{name}"), program), title });
        } else {
            missing.push(format!("ablation {name}: not built"));
        }
    }
    Ok((built, missing))
}

fn title(path: &Path) -> Result<String> {
    title_of(&fs::read_to_string(path)?).with_context(|| format!("{} has no title above its diff", path.display()))
}

/// The text before the diff, in one line.
fn title_of(patch: &str) -> Option<String> {
    let above = patch.lines().take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- "));
    let words: Vec<&str> = above.flat_map(str::split_whitespace).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_is_all_that_stands_before_the_diff() {
        let patch = "The last send\nsays nothing of more\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n";
        assert_eq!(title_of(patch).unwrap(), "The last send says nothing of more");
        assert_eq!(title_of("--- a/x\n+++ b/x\n"), None);
    }

    #[test]
    fn every_patch_in_the_tree_has_a_title() {
        let tree = Tree { root: Path::new(env!("CARGO_MANIFEST_DIR")).join("../..") };
        let (built, missing) = ablations(&tree).unwrap();
        assert!(built.len() + missing.len() > 0);
    }
}
