//! What is measured, and on what: names, versions, and the settings that change what a connection costs.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::measure::Bed;
use crate::parse;
use crate::process;

/// Pairs of a name and a version or description, in the order of the page. What is not here is left out.
pub(crate) fn describe(bed: &Bed) -> Vec<(String, String)> {
    let root = &bed.tree.root;
    let lock = fs::read_to_string(root.join("bench/Cargo.lock")).unwrap_or_default();
    let own_lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    // uSockets has no releases of its own; the package that brings its sources has a number.
    let sources = fs::read_to_string(root.join("bench/peers/usockets-source/Cargo.lock")).unwrap_or_default();
    let usockets = parse::locked_version(&sources, "libuwebsockets-sys");
    let commit = said(Command::new("git").arg("-C").arg(root).args(["describe", "--always", "--dirty"]));
    let first = |program: &str, option: &str| said(Command::new(program).arg(option));
    let mut facts = vec![
        ("date", said(Command::new("date").args(["-u", "+%Y-%m-%d"]))),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned())),
        ("CPU", fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu(&text))),
        ("memory", fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text))),
        ("mitigations", parse::mitigations(&weaknesses())),
        ("network settings", settings(bed)),
        ("finale", commit.map(|commit| format!("commit {commit}"))),
        ("rustc", first("rustc", "--version")),
        ("finale is built with", profile(&root.join("Cargo.toml"))),
        ("the peers in Rust are built with", profile(&root.join("bench/Cargo.toml"))),
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
        ("perf", first("perf", "--version")),
        ("valgrind", first("valgrind", "--version")),
    ];
    // One line for each peer in C, as bench/peers/build has compiled it.
    let flags = fs::read_to_string(root.join("bench/target/flags")).unwrap_or_default();
    facts.extend(
        flags.lines().filter_map(|line| line.split_once(": ")).map(|(name, flags)| (name, Some(flags.to_owned()))),
    );
    facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// How busy the machine is: over one, five and fifteen minutes.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// The kernel's report on each known weakness of processors.
fn weaknesses() -> Vec<(String, String)> {
    let files = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let answer = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path()).ok()?;
        Some((file.file_name().to_string_lossy().into_owned(), text.trim().to_owned()))
    };
    let mut answers: Vec<_> = files.filter_map(answer).collect();
    answers.sort();
    answers
}

/// As they are where the servers run: a new network has its own.
fn settings(bed: &Bed) -> Option<String> {
    let names = ["ipv4/tcp_max_tw_buckets", "ipv4/tcp_tw_reuse", "ipv4/ip_local_port_range", "core/somaxconn"];
    let told = names.iter().filter_map(|name| {
        let value = said(&mut process::within(bed.network, &["cat", &format!("/proc/sys/net/{name}")]))?;
        Some(format!("{} {}", name.split_once('/')?.1, value.split_whitespace().collect::<Vec<_>>().join("–")))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// The release profile of a manifest, and what the environment adds to it.
fn profile(manifest: &Path) -> Option<String> {
    let profile = parse::release_profile(&fs::read_to_string(manifest).ok()?)?;
    let more = std::env::var("RUSTFLAGS").ok().filter(|flags| !flags.is_empty());
    Some(more.map_or_else(|| profile.clone(), |flags| format!("{profile}, RUSTFLAGS {flags}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_once_with_its_cores() {
        let cpuinfo = "processor: 0\nmodel name\t: Some CPU\nprocessor: 1\nmodel name\t: Some CPU\n";
        assert_eq!(cpu(cpuinfo).unwrap(), "Some CPU, 2 cores");
        assert_eq!(memory("MemTotal:       25289260 kB\n").unwrap(), "24 GiB");
    }
}
