//! Counts that don't drift: what another connection adds to system calls, instructions and memory.
//!
//! Each is the difference of a long run and a short one over the difference of their lengths, so
//! that start-up cancels.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::measure::{Bed, progress};
use crate::parse;
use crate::plan::{Effort, HalfClose, IDLE, Load, MAIN};
use crate::process::{self, Idle, Server, Start};
use crate::raw::{Counts, Lengths, Memory};
use crate::roster::{BLOCKING, Contestant, Service, THREADED};

pub(crate) const STRACE: &str = "strace";
pub(crate) const PERF: &str = "perf";
pub(crate) const VALGRIND: &str = "valgrind";

/// The counting tools that can't be used here, each with the reason.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    missing: BTreeMap<&'static str, String>,
}

impl Tools {
    /// Tries each on a program that does nothing: an installed tool can still lack a permission.
    pub(crate) fn tried() -> Self {
        let tries: [(&str, &[&str]); 3] = [
            (STRACE, &["-f", "-c", "-o", "/dev/null", "true"]),
            (PERF, &["stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]),
            (VALGRIND, &["--tool=callgrind", "--callgrind-out-file=/dev/null", "true"]),
        ];
        let missing = tries.into_iter().filter_map(|(tool, args)| Some((tool, why_not(tool, args)?))).collect();
        Self { missing }
    }

    /// A line for each that is missing.
    pub(crate) fn skipped(&self) -> Vec<String> {
        self.missing.iter().map(|(tool, why)| format!("counts by {tool}: {why}")).collect()
    }

    /// Why a tool counts nothing for this server.
    fn uncounted(&self, tool: &str, contestant: &Contestant) -> Option<String> {
        let of_its_own = || contestant.instructions_uncounted().filter(|_| tool == VALGRIND).map(str::to_owned);
        self.missing.get(tool).cloned().or_else(of_its_own)
    }
}

fn why_not(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => Some(format!("no {program} here")),
        Err(error) => Some(format!("{program} can't be run here: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).lines().find_map(|line| {
                let line = line.trim();
                (!line.is_empty()).then(|| line.to_owned())
            });
            let said = said.unwrap_or_else(|| output.status.to_string());
            let said = said.strip_prefix(program).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&said);
            Some(format!("{program} can't count here: {said}"))
        }
    }
}

/// A server that listens by itself, and not under a tool.
#[derive(Debug)]
struct NotUnderTool(String);

impl std::error::Error for NotUnderTool {}

impl fmt::Display for NotUnderTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it does not start under the tool: {}", self.0)
    }
}

/// Under a tool a trial counts fewer connections.
pub(crate) fn lengths(effort: Effort) -> Lengths {
    let usual = Lengths::default();
    Lengths { long: if effort.quick { usual.long / 2 } else { usual.long }, ..usual }
}

/// System calls and instructions of each server.
pub(crate) fn counts(bed: &Bed, all: &[Contestant], tools: &Tools, lengths: Lengths) -> Vec<Counts> {
    let bar = progress("system calls and instructions", all.len() as u64);
    let one = |contestant: &Contestant| {
        bar.set_message(contestant.name.clone());
        let mut counts = Counts { name: contestant.name.clone(), ..Counts::default() };
        if let Err(error) = count(bed, contestant, tools, lengths, &mut counts) {
            counts.failure = Some(format!("{error:#}"));
        }
        bar.inc(1);
        counts
    };
    let counts = all.iter().map(one).collect();
    bar.finish_with_message("");
    counts
}

type Count = fn(&Bed, &[String], Lengths, &mut Counts) -> Result<()>;

fn count(bed: &Bed, contestant: &Contestant, tools: &Tools, lengths: Lengths, into: &mut Counts) -> Result<()> {
    let Some(argv) = contestant.argv(Service::Answer { bytes: MAIN.answer }) else { return Ok(()) };
    let by: [(&str, Count); 3] = [(STRACE, by_strace), (PERF, by_perf), (VALGRIND, by_valgrind)];
    for (tool, by) in by {
        let why = match tools.uncounted(tool, contestant) {
            Some(why) => why,
            None => match by(bed, &argv, lengths, into).with_context(|| format!("under {tool}")) {
                Ok(()) => continue,
                // A server that a tool can't run is not counted. One that does not start at all is
                // a failure, and so is a connection that fails under the tool.
                Err(error) => {
                    let why = error.downcast_ref::<NotUnderTool>().map(ToString::to_string).ok_or(error)?;
                    server(bed, &argv, &[])?.stop()?;
                    why
                }
            },
        };
        into.uncounted.insert(tool.to_owned(), why);
    }
    Ok(())
}

fn by_strace(bed: &Bed, argv: &[String], lengths: Lengths, into: &mut Counts) -> Result<()> {
    let file = bed.tree.scratch().join("strace.txt");
    let tool = [STRACE, "-f", "-c", "-o", &file.to_string_lossy()].map(str::to_owned);
    let read = |connections| anyhow::Ok(parse::system_calls(&under(bed, argv, &tool, &file, connections)?));
    let (short, long) = (read(lengths.short)?, read(lengths.long)?);
    let each = |sum: i64| sum as f64 / (lengths.long - lengths.short) as f64;
    into.by_call = difference(&short, &long).into_iter().map(|(name, sum)| (name, each(sum))).collect();
    into.system_calls = Some(into.by_call.values().sum());
    Ok(())
}

fn by_perf(bed: &Bed, argv: &[String], lengths: Lengths, into: &mut Counts) -> Result<()> {
    let file = bed.tree.scratch().join("perf.csv");
    let tool = [PERF, "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o", &file.to_string_lossy(), "--"];
    let tool = tool.map(str::to_owned);
    let read = |connections| {
        let text = under(bed, argv, &tool, &file, connections)?;
        parse::calls_at_speed(&text).context("perf stat has counted nothing")
    };
    let (short, long) = (lengths.short_at_speed, lengths.long_at_speed);
    into.calls_at_speed = Some(each_more(read(short)?, read(long)?, long - short));
    Ok(())
}

fn by_valgrind(bed: &Bed, argv: &[String], lengths: Lengths, into: &mut Counts) -> Result<()> {
    let file = bed.tree.scratch().join("callgrind.out");
    let tool = [VALGRIND, "--tool=callgrind", &format!("--callgrind-out-file={}", file.to_string_lossy())];
    let tool = tool.map(str::to_owned);
    let read = |connections| {
        let text = under(bed, argv, &tool, &file, connections)?;
        parse::instructions(&text).context("callgrind has written no total")
    };
    into.instructions = Some(each_more(read(lengths.short)?, read(lengths.long)?, lengths.long - lengths.short));
    Ok(())
}

/// What each additional connection of the long run adds.
fn each_more(short: u64, long: u64, connections: u64) -> f64 {
    (long.cast_signed() - short.cast_signed()) as f64 / connections as f64
}

/// Calls that only one of the two runs has made count too.
fn difference(short: &BTreeMap<String, u64>, long: &BTreeMap<String, u64>) -> BTreeMap<String, i64> {
    let of = |calls: &BTreeMap<String, u64>, name: &str| calls.get(name).copied().unwrap_or(0).cast_signed();
    let names = short.keys().chain(long.keys());
    names.map(|name| (name.clone(), of(long, name) - of(short, name))).filter(|(_, more)| *more != 0).collect()
}

fn server(bed: &Bed, argv: &[String], tool: &[String]) -> Result<Server> {
    Server::start(&Start { argv, tool, core: Some(bed.server_core), network: bed.network, log: &bed.log })
}

/// What a tool writes about a server that has served this many connections.
fn under(bed: &Bed, argv: &[String], tool: &[String], file: &Path, connections: u64) -> Result<String> {
    // A file that an earlier server has left must not be taken for this one's.
    if file.exists() {
        fs::remove_file(file)?;
    }
    let mut server = server(bed, argv, tool).map_err(|error| NotUnderTool(format!("{error:#}")))?;
    server.wait_for_room(connections)?;
    let load = Load::HalfClose(HalfClose { connections, ..MAIN });
    process::load(&load.argv(&bed.tree, &server.addr, server.pid()), Some(bed.client_core), server.network())?;
    server.settle()?;
    server.ensure_alive()?;
    server.stop()?;
    fs::read_to_string(file).context("the tool has written nothing")
}

/// Resident memory of each server with and without idle connections.
pub(crate) fn memory(bed: &Bed, all: &[Contestant]) -> Vec<Memory> {
    // The blocking loop holds one connection at a time, and the threaded one only echoes.
    let all: Vec<&Contestant> = all.iter().filter(|one| one.name != BLOCKING && one.name != THREADED).collect();
    let bar = progress("memory of idle connections", all.len() as u64);
    let one = |contestant: &&Contestant| {
        bar.set_message(contestant.name.clone());
        let mut memory =
            Memory { name: contestant.name.clone(), connections: IDLE, before_bytes: 0, after_bytes: 0, failure: None };
        if let Err(error) = resident(bed, contestant, &mut memory) {
            memory.failure = Some(format!("{error:#}"));
        }
        bar.inc(1);
        memory
    };
    let memory = all.iter().map(one).collect();
    bar.finish_with_message("");
    memory
}

fn resident(bed: &Bed, contestant: &Contestant, into: &mut Memory) -> Result<()> {
    let argv = contestant.argv(Service::Answer { bytes: MAIN.answer }).context("it has no answer service")?;
    let mut server = server(bed, &argv, &[])?;
    server.wait_for_room(IDLE)?;
    // One load before, so that both figures include buffers that are created once.
    let load = Load::HalfClose(HalfClose { connections: 1000, ..MAIN });
    process::load(&load.argv(&bed.tree, &server.addr, server.pid()), Some(bed.client_core), server.network())?;
    server.settle()?;
    into.before_bytes = server.resident_bytes()?;
    let argv = [bed.tree.load().to_string_lossy().into_owned(), "idle".into(), server.addr.clone(), IDLE.to_string()];
    let idle = Idle::hold(&argv, Some(bed.client_core), &server, IDLE)?;
    into.after_bytes = server.resident_bytes()?;
    server.ensure_alive()?;
    drop(idle);
    server.stop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Network;
    use crate::roster::Tree;

    #[test]
    fn a_tool_that_is_not_here_or_may_not_count_has_a_reason() {
        assert_eq!(why_not("true", &[]), None);
        assert_eq!(why_not("no-such-tool", &[]).unwrap(), "no no-such-tool here");
        let refused = why_not("sh", &["-c", "echo >&2; echo sh: not permitted >&2; exit 1"]).unwrap();
        assert_eq!(refused, "sh can't count here: not permitted");
    }

    #[test]
    fn a_tool_that_is_missing_is_no_failure_and_a_server_that_does_not_start_is_one() {
        let root = std::env::temp_dir().join(format!("compare-counts-{}", std::process::id()));
        fs::create_dir_all(root.join("target/compare")).unwrap();
        let tree = Tree { root: root.clone() };
        let bed = Bed { tree, server_core: 0, client_core: 0, network: Network::Ours, log: root.join("log") };
        let server = Contestant::ablated("x".into(), root.join("no-such-server"));
        let counted = |here: Option<&str>| {
            let missing = [STRACE, PERF, VALGRIND].into_iter().filter(|tool| Some(*tool) != here);
            let tools = Tools { missing: missing.map(|tool| (tool, format!("no {tool} here"))).collect() };
            counts(&bed, std::slice::from_ref(&server), &tools, Lengths::default()).remove(0)
        };
        let without = counted(None);
        assert_eq!((&without.failure, without.uncounted.len()), (&None, 3));
        assert_eq!(without.uncounted[PERF], "no perf here");
        assert!(counted(Some(PERF)).failure.is_some());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_both_runs_have_cancels_and_what_one_has_counts() {
        let calls = |list: &[(&str, u64)]| list.iter().map(|(name, calls)| ((*name).into(), *calls)).collect();
        let short: BTreeMap<String, u64> = calls(&[("mmap", 30), ("close", 400), ("brk", 2)]);
        let long = calls(&[("mmap", 30), ("close", 2400), ("read", 7)]);
        let more = difference(&short, &long);
        assert_eq!(more, [("brk".into(), -2), ("close".into(), 2000), ("read".into(), 7)].into());
    }
}
