//! The `finale` command: reads the arguments, runs a command, and reports its error.
//!
//! Imports point down. From the top: this file, `commands`, a folder or file per command (`bench`
//! measures what `serve` serves, `connect`, `lesson` and `probe` print a ladder of `trace`, `lab` shows
//! those of `states` and `trace`), and what they share: `usage`, `signals`, `interrupt`, `output`, `values`,
//! `errors`, `html`, `limited`, `log_queue`, `tls`.

#![allow(clippy::wildcard_enum_match_arm, reason = "Event will grow; a program names the events that it acts on")]

mod bench;
mod commands;
mod completions;
mod connect;
mod errors;
mod html;
mod interrupt;
mod lab;
mod lesson;
mod limited;
mod log_queue;
mod man;
mod output;
mod probe;
mod serve;
mod signals;
mod sim;
mod states;
mod tls;
mod trace;
mod usage;
mod values;

use std::io::Write as _;
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
    let log = env_logger::Target::Pipe(Box::new(output::Stderr));
    let mut logger = env_logger::Builder::from_env(env);
    if args.names_process() {
        output::name_process();
        logger.format(|line, record| {
            let (level, target) = (record.level(), record.target());
            writeln!(line, "{}: [{level:<5} {target}] {}", output::name(), record.args())
        });
    }
    logger.target(log).init();
    let code = match args.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                Error::Reported { .. } => {}
                error if error.is_usage() => {
                    output::error(format_args!("{error}; see {}", usage::help_of(&command, &words)));
                }
                error => output::error(format_args!("{error}")),
            }
            ExitCode::from(error.exit_code())
        }
    };
    log_queue::flush();
    code
}
