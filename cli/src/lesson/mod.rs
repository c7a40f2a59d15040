//! `finale lesson`: the lifecycle of a socket in experiments on real sockets.

mod crash;
mod nodelay;
mod page;
mod peer;
mod pool;

/// The lesson is an example of the library first. The command shares its file.
#[allow(dead_code, missing_docs, unreachable_pub)]
mod example;

use std::io::LineWriter;

use finale::trace::Recorder;

use crate::errors::Error;
use crate::output;
use crate::trace::Ladder;
pub(crate) use peer::{PeerOptions, run as play_peer};

/// The lifecycle of a socket in three experiments on real sockets
///
/// Without a subcommand it runs three short experiments: every event of a connection in its order,
/// a half-close, and the detection of a dead connection. Each subcommand is a longer experiment.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LessonOptions {
    /// Print a ladder on stderr at the end: the system calls, states and events of both sides, and
    /// what their kernel says
    #[arg(long)]
    trace: bool,
    #[command(subcommand)]
    challenge: Option<Challenge>,
}

#[derive(Debug, clap::Subcommand)]
enum Challenge {
    Crash(crash::CrashOptions),
    Pool(pool::PoolLessonOptions),
    Nodelay(nodelay::NodelayOptions),
}

/// Runs one lesson.
pub(crate) fn run(options: &LessonOptions) -> Result<(), Error> {
    match &options.challenge {
        None => experiments(options.trace),
        Some(Challenge::Crash(options)) => crash::run(options),
        Some(Challenge::Pool(options)) => pool::run(options),
        Some(Challenge::Nodelay(options)) => nodelay::run(options),
    }
}

fn experiments(is_traced: bool) -> Result<(), Error> {
    let recorder = recorder(is_traced);
    example::lesson(&mut LineWriter::new(output::Stdout), &recorder).map_err(Error::from_lesson)?;
    if is_traced {
        let title = "finale lesson: the connections of its three experiments, each seen from its client and its server";
        say(&Ladder::of_both_sides(title.to_owned(), &recorder));
    }
    Ok(())
}

/// Prints a ladder on stderr, as `finale connect` does, so that stdout has the page alone.
fn say(ladder: &Ladder) {
    output::say(format_args!(""));
    ladder.say();
}

/// Keeps all that a lesson does, or nothing.
fn recorder(is_traced: bool) -> Recorder {
    Recorder::new(if is_traced { 1000 } else { 0 })
}

impl LessonOptions {
    /// Whether `--quiet` was given.
    pub(crate) const fn quiet(&self) -> bool {
        match &self.challenge {
            Some(Challenge::Nodelay(options)) => options.quiet,
            Some(Challenge::Crash(_) | Challenge::Pool(_)) | None => false,
        }
    }
}
