//! What is measured, and on what: names and versions for the head of the page; and what criterion has left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::parse;

/// Pairs of a name and a version or description, in the order of the page. What is not here is left out.
pub(crate) fn describe(root: &Path) -> Vec<(String, String)> {
    let lock = fs::read_to_string(root.join("benches/peers/Cargo.lock")).unwrap_or_default();
    let own_lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    // uSockets has no releases of its own; the package that brings its sources has a number.
    let sources = fs::read_to_string(root.join("benches/peers/usockets-source/Cargo.lock")).unwrap_or_default();
    let usockets = parse::locked_version(&sources, "libuwebsockets-sys");
    let commit = said(Command::new("git").arg("-C").arg(root).args(["describe", "--always", "--dirty"]));
    let first = |program: &str, option: &str| said(Command::new(program).arg(option));
    let facts = [
        ("date", said(Command::new("date").args(["-u", "+%Y-%m-%d"]))),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned())),
        ("CPU", fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu(&text))),
        ("memory", fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text))),
        ("finale", commit.map(|commit| format!("commit {commit}"))),
        ("rustc", first("rustc", "--version")),
        ("mio inside finale", parse::locked_version(&own_lock, "mio")),
        ("bare mio", parse::locked_version(&lock, "mio")),
        ("tokio", parse::locked_version(&lock, "tokio")),
        ("smol", parse::locked_version(&lock, "smol")),
        ("C compiler", first("cc", "--version")),
        ("libuv", said(Command::new("pkg-config").args(["--modversion", "libuv"]))),
        ("uSockets", usockets.map(|version| format!("as in libuwebsockets-sys {version}"))),
        ("Node", first("node", "--version")),
        ("Go", said(Command::new("go").arg("version"))),
        ("strace", first("strace", "-V")),
        ("valgrind", first("valgrind", "--version")),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The first line that a program prints, if it is here.
pub(crate) fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

fn cpu(cpuinfo: &str) -> Option<String> {
    let models = || cpuinfo.lines().filter(|line| line.starts_with("model name"));
    let model = models().next()?.split_once(':')?.1.trim();
    Some(format!("{model}, {} cores", models().count()))
}

fn memory(meminfo: &str) -> Option<String> {
    let kib: u64 = meminfo.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{} GiB", (kib + (1 << 19)) >> 20))
}

/// The part of criterion's file that is read. Times are in nanoseconds for what the benchmark calls one iteration.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The medians of the last `cargo bench`, by the benchmark's name with slashes. Empty if there was none.
pub(crate) fn micro(criterion: &Path) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![criterion.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            let estimates = entry.path().join("estimates.json");
            // Beside `new` there are `base` and others, which are older.
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
    fn the_processor_is_named_once_with_its_cores() {
        let cpuinfo = "processor: 0\nmodel name\t: Some CPU\nprocessor: 1\nmodel name\t: Some CPU\n";
        assert_eq!(cpu(cpuinfo).unwrap(), "Some CPU, 2 cores");
        assert_eq!(memory("MemTotal:       25289260 kB\n").unwrap(), "24 GiB");
    }

    #[test]
    fn the_last_medians_of_criterion_are_found_below_its_folder() {
        let root = std::env::temp_dir().join(format!("compare-criterion-{}", std::process::id()));
        for (folder, median) in [("timer/touch/new", "1.25"), ("timer/touch/base", "9.0"), ("event/new", "80.5")] {
            fs::create_dir_all(root.join(folder)).unwrap();
            let text =
                format!("{{\"mean\": {{\"point_estimate\": 7.0}}, \"median\": {{\"point_estimate\": {median}}}}}");
            fs::write(root.join(folder).join("estimates.json"), text).unwrap();
        }
        assert_eq!(micro(&root), [("timer/touch".to_owned(), 1.25), ("event".to_owned(), 80.5)].into());
        fs::remove_dir_all(&root).unwrap();
        assert!(micro(&root).is_empty());
    }
}
