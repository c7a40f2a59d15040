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

use crate::errors::Error;
use crate::output;
pub(crate) use peer::{PeerOptions, run as play_peer};

/// The lifecycle of a socket in three experiments on real sockets
///
/// Without a subcommand it runs three short experiments: every event of a connection in its order,
/// a half-close, and the detection of a dead connection. Each subcommand is a longer experiment.
#[derive(Debug, clap::Args)]
pub(crate) struct LessonOptions {
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
        None => example::lesson(&mut LineWriter::new(output::Stdout)).map_err(Error::from_lesson),
        Some(Challenge::Crash(options)) => crash::run(options),
        Some(Challenge::Pool(options)) => pool::run(options),
        Some(Challenge::Nodelay(options)) => nodelay::run(options),
    }
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
