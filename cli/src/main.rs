//! The `finale` command. This file reads the arguments and hands them on; each command has a file
//! of its own.

#![allow(clippy::wildcard_enum_match_arm, reason = "Event will grow; a program names the events that it acts on")]

mod args;
mod bench;
mod connect;
mod crash;
mod defer_accept;
mod handover;
mod house;
mod nodelay;
mod peer;
mod pool;
mod serve;
mod sim;
mod sockets;
mod trouble;

/// An example of the library. `lesson.rs` is a link to its file, so that the package has a copy.
#[allow(dead_code, missing_docs, unreachable_pub)]
mod lesson;

use std::io::{self, Write as _};
use std::process::ExitCode;

use args::{Args, Command, Lesson};
use trouble::Trouble;

fn main() -> ExitCode {
    let env = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(env).init();
    let args = match <Args as clap::Parser>::try_parse() {
        Ok(args) => args,
        Err(error) => return args::tell_usage(&error),
    };
    match run(&args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            trouble.tell();
            if trouble.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: &Command) -> Result<(), Trouble> {
    match command {
        Command::Lesson { part: None } => {
            reader_may_leave(lesson::lesson(&mut io::stdout().lock()).map_err(Trouble::from_lesson))
        }
        Command::Lesson { part: Some(Lesson::Crash) } => reader_may_leave(crash::run()),
        Command::Lesson { part: Some(Lesson::Nodelay { rounds }) } => reader_may_leave(nodelay::run(*rounds)),
        Command::Lesson { part: Some(Lesson::Pool { requests, seed }) } => {
            reader_may_leave(pool::run(*requests, *seed))
        }
        Command::Serve(options) => serve::run(options),
        Command::Bench(options) => reader_may_leave(bench::run(options)),
        Command::Connect(options) => connect::run(options),
        Command::States { format } => {
            let text = finale::lifecycle::print((*format).into());
            reader_may_leave(io::stdout().write_all(text.as_bytes()).map_err(Trouble::Stdout))
        }
        Command::Sim(options) => reader_may_leave(sim::run(options)),
        Command::Peer { part, addr } => peer::run(*part, *addr),
    }
}

/// `finale states | head` is no mistake: who has read enough leaves, and nothing is left to say.
fn reader_may_leave(result: Result<(), Trouble>) -> Result<(), Trouble> {
    match result {
        Err(Trouble::Stdout(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
