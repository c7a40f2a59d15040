//! The commands: their arguments come from the folders below, and are run there.

use clap::{ColorChoice, CommandFactory as _, Parser, Subcommand};

use crate::bench::{self, BenchOptions};
use crate::completions::{self, CompletionsOptions};
use crate::connect::{self, ConnectOptions};
use crate::errors::Error;
use crate::lab::{self, LabOptions};
use crate::lesson::{self, LessonOptions, PeerOptions};
use crate::man::{self, ManOptions};
use crate::output::reader_may_leave;
use crate::probe::{self, ProbeOptions};
use crate::serve::{self, ServeOptions};
use crate::sim::{self, SimOptions};
use crate::states::{self, StatesOptions};
use crate::trace::{self, TraceOptions};

/// The finale TCP reactor on the command line: a lesson, a server, a client, a load generator, a test
/// of any server
///
/// Warnings go to stderr. RUST_LOG=finale=debug logs each transition of each socket on one line.
///
/// Exit codes: 0 success, 1 failure, 2 wrong usage, 3 the server could not be probed, 128 + N after
/// signal N.
#[derive(Debug, Parser)]
#[command(name = "finale", version)]
pub(crate) struct Args {
    /// Print colors: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    #[arg(hide_possible_values = true, hide_default_value = true, display_order = 100)]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lesson(LessonOptions),
    Serve(ServeOptions),
    Connect(ConnectOptions),
    Bench(BenchOptions),
    Probe(ProbeOptions),
    Sim(SimOptions),
    States(StatesOptions),
    Trace(TraceOptions),
    Lab(LabOptions),
    Completions(CompletionsOptions),
    Man(ManOptions),
    #[command(hide = true)]
    Peer(PeerOptions),
}

impl Args {
    /// When to print colours.
    pub(crate) const fn color(&self) -> anstream::ColorChoice {
        match self.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
    }

    /// What to log where RUST_LOG is not set.
    pub(crate) const fn log_filter(&self) -> &'static str {
        let quiet = match &self.command {
            Command::Lesson(options) => options.quiet(),
            Command::Serve(options) if options.verbose => return "warn,finale::serve=info",
            Command::Serve(options) if options.trace.is_some() => return "warn,finale::serve::ladder=info",
            Command::Serve(options) => options.quiet,
            Command::Connect(options) => options.quiet,
            Command::Bench(options) => options.quiet,
            Command::Probe(options) => options.quiet,
            Command::Sim(options) => options.quiet,
            Command::States(_)
            | Command::Trace(_)
            | Command::Lab(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Peer(_) => false,
        };
        if quiet { "error" } else { "warn" }
    }

    /// Whether each line of the log names the process.
    pub(crate) const fn names_process(&self) -> bool {
        matches!(&self.command, Command::Serve(options) if options.verbose)
    }

    /// Runs the command.
    pub(crate) fn run(&self) -> Result<(), Error> {
        match &self.command {
            Command::Lesson(options) => reader_may_leave(lesson::run(options)),
            Command::Serve(options) => serve::run(options),
            Command::Connect(options) => connect::run(options),
            Command::Bench(options) => reader_may_leave(bench::run(options)),
            Command::Probe(options) => reader_may_leave(probe::run(options)),
            Command::Sim(options) => reader_may_leave(sim::run(options)),
            Command::States(options) => reader_may_leave(states::run(options)),
            Command::Trace(options) => reader_may_leave(trace::run(options)),
            Command::Lab(options) => reader_may_leave(lab::run(options)),
            Command::Completions(options) => reader_may_leave(completions::run(options, &Self::command())),
            Command::Man(options) => reader_may_leave(man::run(options, Self::command())),
            Command::Peer(options) => lesson::play_peer(options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
