//! The figures of `cargo bench`, run as a part of the comparison: what an earlier run has left is
//! never read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::measure::Bed;

/// Runs `cargo bench` on the server's core and reads its medians, in nanoseconds by the benchmark's
/// name.
///
/// # Errors
/// It can't be run, or it fails; its output is in micro.log next to the raw data.
pub(crate) fn micro(bed: &Bed) -> Result<BTreeMap<String, f64>> {
    let home = bed.tree.scratch().join("criterion");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    eprintln!("cargo bench: two to three minutes");
    let log = bed.tree.scratch().join("micro.log");
    let file = fs::File::create(&log)?;
    let status = Command::new("taskset")
        .args([
            "-c",
            &bed.server_core.to_string(),
            "cargo",
            "bench",
            "--quiet",
            "--package",
            "finale",
            "--bench",
            "micro",
        ])
        .current_dir(&bed.tree.root)
        .env("CRITERION_HOME", &home)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("cargo bench can't be run")?;
    ensure!(status.success(), "cargo bench: {status}, see {}", log.display());
    let figures = medians(&home);
    ensure!(!figures.is_empty(), "cargo bench has left no figures in {}", home.display());
    Ok(figures)
}

/// The part of criterion's file that is read. Times are in nanoseconds for what the benchmark calls
/// one iteration.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The medians below criterion's folder, by the benchmark's name with slashes.
fn medians(criterion: &Path) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![criterion.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            let estimates = entry.path().join("estimates.json");
            // Next to `new` there are `base` and others, which are older.
            if entry.file_name() == "new" && estimates.exists() {
                let name = folder.strip_prefix(criterion).unwrap_or(&folder).to_string_lossy().into_owned();
                let text = fs::read_to_string(estimates).unwrap_or_default();
                if let Ok(estimates) = serde_json::from_str::<Estimates>(&text) {
                    found.insert(name, estimates.median.point_estimate);
                }
            } else {
                folders.push(entry.path());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_medians_of_criterion_are_found_below_its_folder() {
        let root = std::env::temp_dir().join(format!("compare-criterion-{}", std::process::id()));
        for (folder, median) in [("timer/touch/new", "1.25"), ("timer/touch/base", "9.0"), ("event/new", "80.5")] {
            fs::create_dir_all(root.join(folder)).unwrap();
            let text =
                format!("{{\"mean\": {{\"point_estimate\": 7.0}}, \"median\": {{\"point_estimate\": {median}}}}}");
            fs::write(root.join(folder).join("estimates.json"), text).unwrap();
        }
        assert_eq!(medians(&root), [("timer/touch".to_owned(), 1.25), ("event".to_owned(), 80.5)].into());
        fs::remove_dir_all(&root).unwrap();
        assert!(medians(&root).is_empty());
    }
}
