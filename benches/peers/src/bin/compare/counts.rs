//! Counts that don't drift: what one more connection adds to system calls, instructions and memory.
//!
//! Each is the difference of a long run and a short one over the difference of their lengths, so that start-up cancels.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::measure::{Bed, progress};
use crate::parse;
use crate::plan::{Effort, HalfClose, IDLE, Load, MAIN};
use crate::process::{self, Idle, Server, Start};
use crate::raw::{Counts, Memory};
use crate::roster::{BLOCKING, Contestant, Service};

/// Connections of the short run and of the long one. Under a tool each costs a hundred times its usual price.
const SHORT: u64 = 400;
const LONG: u64 = 2400;
/// The same for a count that slows nothing down.
const SHORT_AT_SPEED: u64 = 2000;
const LONG_AT_SPEED: u64 = 12_000;

/// The counting tools that are here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tools {
    pub(crate) strace: bool,
    pub(crate) perf: bool,
    pub(crate) valgrind: bool,
}

/// System calls and instructions of each server.
pub(crate) fn counts(bed: &Bed, all: &[Contestant], tools: Tools, effort: Effort) -> Vec<Counts> {
    let bar = progress("system calls and instructions", all.len() as u64);
    let one = |contestant: &Contestant| {
        bar.set_message(contestant.name.clone());
        let mut counts = Counts { name: contestant.name.clone(), ..Counts::default() };
        if let Err(error) = count(bed, contestant, tools, effort, &mut counts) {
            counts.failure = Some(format!("{error:#}"));
        }
        bar.inc(1);
        counts
    };
    let counts = all.iter().map(one).collect();
    bar.finish_with_message("");
    counts
}

fn count(bed: &Bed, contestant: &Contestant, tools: Tools, effort: Effort, into: &mut Counts) -> Result<()> {
    let Some(argv) = contestant.argv(Service::Answer { bytes: MAIN.answer }) else { return Ok(()) };
    let long = if effort.quick { LONG / 2 } else { LONG };
    let each = |sum: i64| sum as f64 / (long - SHORT) as f64;
    if tools.strace {
        let file = bed.tree.scratch().join("strace.txt");
        let tool = ["strace", "-f", "-c", "-o", &file.to_string_lossy()].map(str::to_owned);
        let read = |connections| {
            let text = under(bed, &argv, &tool, &file, connections).context("under strace")?;
            anyhow::Ok(parse::system_calls(&text))
        };
        let (short, long) = (read(SHORT)?, read(long)?);
        into.by_call = difference(&short, &long).into_iter().map(|(name, sum)| (name, each(sum))).collect();
        into.system_calls = Some(into.by_call.values().sum());
    }
    if tools.perf {
        let file = bed.tree.scratch().join("perf.csv");
        let tool = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o", &file.to_string_lossy(), "--"];
        let tool = tool.map(str::to_owned);
        let read = |connections| {
            let text = under(bed, &argv, &tool, &file, connections).context("under perf stat")?;
            parse::calls_at_speed(&text).context("perf stat has counted nothing")
        };
        let (short, long) = (read(SHORT_AT_SPEED)?, read(LONG_AT_SPEED)?);
        let more = long.cast_signed() - short.cast_signed();
        into.calls_at_speed = Some(more as f64 / (LONG_AT_SPEED - SHORT_AT_SPEED) as f64);
    }
    if tools.valgrind && contestant.instructions_can_be_counted() {
        let file = bed.tree.scratch().join("callgrind.out");
        let tool = ["valgrind", "--tool=callgrind", &format!("--callgrind-out-file={}", file.to_string_lossy())];
        let tool = tool.map(str::to_owned);
        let read = |connections| {
            let text = under(bed, &argv, &tool, &file, connections).context("under valgrind")?;
            parse::instructions(&text).context("callgrind has written no total")
        };
        let (short, long) = (read(SHORT)?, read(long)?);
        into.instructions = Some(each(long.cast_signed() - short.cast_signed()));
    }
    Ok(())
}

/// Calls that only one of the two runs has made count too.
fn difference(short: &BTreeMap<String, u64>, long: &BTreeMap<String, u64>) -> BTreeMap<String, i64> {
    let of = |calls: &BTreeMap<String, u64>, name: &str| calls.get(name).copied().unwrap_or(0).cast_signed();
    let names = short.keys().chain(long.keys());
    names.map(|name| (name.clone(), of(long, name) - of(short, name))).filter(|(_, more)| *more != 0).collect()
}

/// What a tool writes about a server that has served so many connections.
fn under(bed: &Bed, argv: &[String], tool: &[String], file: &Path, connections: u64) -> Result<String> {
    // What an earlier server has left must not be taken for this one's.
    if file.exists() {
        fs::remove_file(file)?;
    }
    let start = Start { argv, tool, core: Some(bed.server_core), network: bed.network, log: &bed.log };
    let mut server = Server::start(&start)?;
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
    // The blocking loop holds one connection at a time.
    let all: Vec<&Contestant> = all.iter().filter(|one| one.name != BLOCKING).collect();
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
    let start = Start { argv: &argv, tool: &[], core: Some(bed.server_core), network: bed.network, log: &bed.log };
    let mut server = Server::start(&start)?;
    server.wait_for_room(IDLE)?;
    // One load before, so that buffers which are made once are there in both figures.
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

    #[test]
    fn what_both_runs_have_cancels_and_what_one_has_counts() {
        let calls = |list: &[(&str, u64)]| list.iter().map(|(name, calls)| ((*name).into(), *calls)).collect();
        let short: BTreeMap<String, u64> = calls(&[("mmap", 30), ("close", 400), ("brk", 2)]);
        let long = calls(&[("mmap", 30), ("close", 2400), ("read", 7)]);
        let more = difference(&short, &long);
        assert_eq!(more, [("brk".into(), -2), ("close".into(), 2000), ("read".into(), 7)].into());
    }
}
