//! The arguments of `finale sim`.

use std::fmt;
use std::num::NonZero;

use finale::sim::Fault;

use crate::values;

/// Random programs under random faults on the simulated network
///
/// Each seed is one run: a program, a network and faults that are drawn from the seed. Ten rules
/// are checked. Without --all the first broken rule ends it, with a transcript of that seed.
///
/// The exit code is 0 if every rule was kept, and 1 otherwise. After SIGINT, SIGTERM or SIGHUP the
/// results up to then are printed with the command that runs the other seeds, and the exit code is
/// 130, 143 or 129; a second signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = JSON_HELP)]
pub(crate) struct SimOptions {
    /// The seeds to run, FROM to TO, without TO itself, as 0..1000 or 0..10M
    #[arg(long, value_name = "FROM..TO", default_value = "0..100000", value_parser = seeds)]
    #[arg(conflicts_with = "replay", allow_hyphen_values = true)]
    pub(super) seeds: Seeds,
    /// Run one seed again and print its transcript in two columns. If it was found with --fault,
    /// repeat that option
    #[arg(long, value_name = "SEED", value_parser = values::number::<u64>(0..=u64::MAX))]
    #[arg(allow_hyphen_values = true)]
    pub(super) replay: Option<u64>,
    /// Prefer one fault, by its name or its row in docs/faults.md; `list` prints all of them
    #[arg(long, value_name = "NAME", value_parser = fault)]
    pub(super) fault: Option<FaultChoice>,
    /// Run all seeds and list those that broke a rule, instead of stopping at the first
    #[arg(long, conflicts_with = "replay")]
    pub(super) all: bool,
    /// The number of threads [default: one per core]
    #[arg(short = 'j', long, value_name = "N", value_parser = values::number::<u16>(1..=1024))]
    #[arg(allow_hyphen_values = true)]
    threads: Option<u16>,
    /// Print one JSON object instead of the page
    #[arg(long)]
    pub(super) json: bool,
    /// Show no progress bar
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Short lines: clap wraps them without an indent.
const JSON_HELP: &str = "\
The JSON object of --json:
  seeds, sockets, events
                 how many were run, closed, delivered
  seconds, threads
  fault          of --fault: name, runs in which it occurred,
                 and the first such seed; or null
  transitions    of the lifecycle: seen, total, and those
                 never seen
  refusals       inputs without effect: seen, total
  faults         how often each fault occurred
  broken         seeds that broke a rule: seed, rule, what
  left           after a signal the seeds that were not run,
                 as for --seeds; or null
With --replay:
  seed, sockets, events, faults
  broken         rule and what, or null
  transcript     the text";

/// A range of seeds that is not empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeds {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The value of `--fault`.
#[derive(Debug, Clone, Copy)]
pub(super) enum FaultChoice {
    List,
    One(Fault),
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

impl SimOptions {
    /// The command that runs these seeds as this one has run others.
    pub(super) fn command_for(&self, left: Seeds) -> String {
        let mut command = format!("finale sim --seeds {left}");
        if let Some(FaultChoice::One(fault)) = self.fault {
            command += &format!(" --fault {}", fault.name());
        }
        if let Some(threads) = self.threads {
            command += &format!(" --threads {threads}");
        }
        for (is_set, name) in [(self.all, "all"), (self.json, "json"), (self.quiet, "quiet")] {
            if is_set {
                command += &format!(" --{name}");
            }
        }
        command
    }

    /// The threads for this many batches of seeds.
    pub(super) fn threads(&self, batches: usize) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.map_or_else(cores, usize::from).min(batches)
    }
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = values::count::<u64>(0..=u64::MAX);
    let ends = text.split_once("..").and_then(|(from, to)| number(from).ok().zip(number(to).ok()));
    match ends {
        Some((from, to)) if from < to => Ok(Seeds { from, to }),
        Some(_) => Err("the range is empty; write FROM..TO with FROM below TO, as 0..1000".to_owned()),
        None => Err("it is not a range of seeds; write FROM..TO, as 0..1000".to_owned()),
    }
}

fn fault(text: &str) -> Result<FaultChoice, String> {
    if text == "list" {
        return Ok(FaultChoice::List);
    }
    text.parse()
        .map(FaultChoice::One)
        .map_err(|_unknown| "there is no such fault; `finale sim --fault list` prints all".to_owned())
}
