//! The comparison: measures finale and its peers and writes bench/RESULTS.md and bench/results.svg.
//!
//! Started by `bench/compare`, which builds everything first.

mod ablation;
mod chart;
mod counts;
mod goals;
mod machine;
mod measure;
mod micro;
mod page;
mod parse;
mod plan;
mod process;
mod raw;
mod roster;
mod stats;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};

use crate::counts::Tools;
use crate::measure::Bed;
use crate::plan::{Effort, Part};
use crate::process::Network;
use crate::raw::Raw;
use crate::roster::{Contestant, HAND_OFF, Tree};

/// Measures finale and its peers and writes bench/RESULTS.md and bench/results.svg.
///
/// A whole run takes about a quarter of an hour on two otherwise idle cores. Its raw data is kept
/// in target/compare/raw.json. A quick run, or one of a few rows, is a trial: it writes its page,
/// chart and data to target/compare/trial/ and leaves the results alone. The exit code is 1 if any
/// connection failed, any answer was wrong or any server died.
#[derive(Debug, Parser)]
#[command(name = "bench/compare", disable_version_flag = true)]
struct Args {
    /// A trial of a minute or two: an eighth of the load, two rounds; ablation and micro only if
    /// --only names them
    #[arg(long)]
    quick: bool,
    /// Only these rows; several with commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROWS")]
    only: Vec<Part>,
    /// This many rounds in each experiment, instead of 5 to 15
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Measures nothing: makes page and chart from the data of the last whole run, or of the last
    /// trial with --quick
    #[arg(long)]
    render: bool,
    /// Measures in this machine's own network even where each server could have one to itself
    #[arg(long)]
    one_network: bool,
    /// Only prints what has to be built for these rows, if the arguments are valid and the machine
    /// is suitable
    #[arg(long, hide = true)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            for line in failures {
                eprintln!("failed: {line}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench/compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    /// Some parts take longer than all the rest of a trial, or longer to build: there they have to
    /// be named.
    fn wants(&self, part: Part) -> bool {
        match self.only.as_slice() {
            [] => !self.quick || ![Part::Ablation, Part::Micro].contains(&part),
            only => only.contains(&part),
        }
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        Part::value_variants().iter().copied().filter(|part| self.wants(*part))
    }

    /// What has to be built, each once.
    fn needs(&self) -> BTreeSet<&'static str> {
        self.parts().filter_map(Part::needs).collect()
    }
}

/// Whether the run can be published.
fn is_whole(args: &Args) -> bool {
    !args.quick && args.only.is_empty() && args.rounds.is_none()
}

fn run(args: &Args) -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let tree = Tree { root };
    if args.check {
        bed(&tree, args)?;
        args.needs().into_iter().for_each(|what| println!("{what}"));
        return Ok(Vec::new());
    }
    let scratch = if is_whole(args) { tree.scratch() } else { tree.scratch().join("trial") };
    fs::create_dir_all(&scratch)?;
    let file = scratch.join("raw.json");
    if !args.render {
        let raw = measure_all(args, &tree)?;
        fs::write(&file, serde_json::to_string_pretty(&raw)?)?;
    }
    let text = fs::read_to_string(&file).with_context(|| format!("no data of an earlier run in {}", file.display()))?;
    let raw: Raw = serde_json::from_str(&text).with_context(|| format!("{} is of another version", file.display()))?;
    write(&tree, &raw, &scratch)?;
    Ok(raw.failures())
}

/// Writes page and chart: to the published place, or next to the data if it was a trial.
fn write(tree: &Tree, raw: &Raw, scratch: &Path) -> Result<()> {
    let folder = if raw.whole { tree.root.join("bench") } else { scratch.to_owned() };
    // They are about a whole run.
    let notes = if raw.whole {
        fs::read_to_string(tree.root.join("bench/NOTES.md")).unwrap_or_default()
    } else {
        String::new()
    };
    fs::write(folder.join("RESULTS.md"), page::page(raw, &notes))?;
    if let Some(svg) = chart::chart(raw)? {
        fs::write(folder.join("results.svg"), svg)?;
    }
    eprintln!("written: {}", folder.join("RESULTS.md").display());
    Ok(())
}

fn measure_all(args: &Args, tree: &Tree) -> Result<Raw> {
    let from = Instant::now();
    let bed = bed(tree, args)?;
    let (all, mut skipped) = roster::roster(tree);
    ensure!(all.iter().any(|one| one.name == HAND_OFF), "there is no finale in target/release");
    let tools = Tools::tried();
    let effort = Effort { quick: args.quick, rounds: args.rounds };
    let (ablations, missing) = if args.wants(Part::Ablation) { ablation::ablations(tree)? } else { Default::default() };
    skipped.extend(missing);
    let load_before = machine::load_average();
    let mut raw = Raw {
        whole: is_whole(args),
        command: command_line(),
        machine: machine::describe(&bed),
        own_network: matches!(bed.network, Network::Own),
        titles: ablations.iter().map(|one| (one.contestant.name.clone(), one.title.clone())).collect(),
        lengths: counts::lengths(effort),
        ..Raw::default()
    };
    let without: Vec<Contestant> = ablations.into_iter().map(|one| one.contestant).collect();
    for part in args.parts() {
        match part {
            Part::Counts => raw.counts.extend(counts::counts(&bed, &all, &tools, raw.lengths)),
            Part::Memory => raw.memory.extend(counts::memory(&bed, &all)),
            Part::Ablation => {
                let shipped = all.iter().find(|one| one.name == HAND_OFF).context("it was there")?;
                raw.experiments.extend(plan::ablation(shipped, &without, effort).map(|plan| measure::run(&bed, &plan)));
                raw.counts.extend(counts::counts(&bed, &without, &tools, raw.lengths));
            }
            Part::Micro => match micro::micro(&bed) {
                Ok(figures) => raw.micro = figures,
                Err(error) => raw.broken.push(format!("micro: {error:#}")),
            },
            part => match plan::plan(part, tree, &all, effort) {
                Ok(plan) => raw.experiments.extend(plan.map(|plan| measure::run(&bed, &plan))),
                Err(why) => skipped.push(format!("{}: {why}", part.id())),
            },
        }
    }
    if !raw.counts.is_empty() {
        skipped.extend(tools.skipped());
    }
    for line in &skipped {
        eprintln!("skipped: {line}");
    }
    let load = format!("{load_before} before, {} after, over 1, 5 and 15 minutes", machine::load_average());
    raw.machine.push(("load average".into(), load));
    Ok(Raw { skipped, seconds: from.elapsed().as_secs(), ..raw })
}

fn bed(tree: &Tree, args: &Args) -> Result<Bed> {
    let status = fs::read_to_string("/proc/self/status").context("this is not Linux")?;
    let cores = parse::allowed_cores(&status);
    // The first core of a machine serves most interrupts, so the server, whose time counts, is put
    // on the second.
    let [client_core, server_core, ..] = cores.as_slice() else {
        anyhow::bail!("two cores are needed, one for the server and one for the client")
    };
    fs::create_dir_all(tree.scratch())?;
    let log = tree.scratch().join("servers.log");
    fs::write(&log, "")?;
    let (server_core, client_core) = (*server_core, *client_core);
    let network = if args.one_network { Network::Ours } else { Network::available() };
    Ok(Bed { tree: tree.clone(), server_core, client_core, network, log: PathBuf::from(&log) })
}

/// As it was typed, but for the path of the program.
fn command_line() -> String {
    std::iter::once("bench/compare".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(line: &str) -> Vec<&'static str> {
        let words = std::iter::once("compare").chain(line.split_whitespace());
        Args::try_parse_from(words).unwrap().needs().into_iter().collect()
    }

    #[test]
    fn only_what_the_rows_need_is_built() {
        assert_eq!(needs(""), ["ablation", "micro", "peers"]);
        assert_eq!(needs("--rounds 2"), ["ablation", "micro", "peers"]);
        assert_eq!(needs("--quick"), ["peers"]);
        assert_eq!(needs("--quick --only ablation"), ["ablation"]);
        assert_eq!(needs("--only=main,micro"), ["micro", "peers"]);
        assert_eq!(needs("--only shards"), Vec::<&str>::new());
    }
}
