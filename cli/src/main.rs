//! The `finale` command: reads the arguments, runs a command, and reports its error.
//!
//! Imports point down. From the top: this file, `commands`, a folder or file per command (`bench`
//! measures what `serve` serves), and what they share: `usage`, `signals`, `output`, `values`,
//! `errors`, `stderr`.

#![allow(clippy::wildcard_enum_match_arm, reason = "Event will grow; a program names the events that it acts on")]

mod bench;
mod commands;
mod completions;
mod connect;
mod errors;
mod lesson;
mod man;
mod output;
mod serve;
mod signals;
mod sim;
mod states;
mod stderr;
mod usage;
mod values;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use commands::Args;
use errors::Error;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = Args::command().color(usage::color(&words));
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let args = match matches.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => return usage::report(&error, &command, &words),
    };
    args.color().write_global();
    let env = env_logger::Env::default().default_filter_or(args.log_filter());
    env_logger::Builder::from_env(env).target(env_logger::Target::Pipe(Box::new(stderr::Log))).init();
    let code = exit_code(args.run(), &command, &words);
    stderr::flush();
    code
}

/// Prints the error of a command, and returns the code for it.
fn exit_code(result: Result<(), Error>, command: &clap::Command, words: &[String]) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Reported) => ExitCode::FAILURE,
        Err(error) if error.is_usage() => {
            output::error(format_args!("{error}; see {}", usage::help_of(command, words)));
            ExitCode::from(2)
        }
        Err(error) => {
            output::error(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}
