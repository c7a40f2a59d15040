//! The `finale` command. This file reads the arguments and hands them on; each command has a file of its own.

mod args;
mod connect;
mod crash;
mod nodelay;
mod peer;
mod serve;
mod trouble;

/// The lesson is an example of the library first; the command shares its file.
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../examples/lesson.rs"]
mod lesson;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), Trouble> {
    match command {
        Command::Lesson { part: None } => {
            die_with_the_reader()?;
            Ok(lesson::lesson()?)
        }
        Command::Lesson { part: Some(Lesson::Crash) } => reader_may_leave(crash::run()),
        Command::Lesson { part: Some(Lesson::Nodelay { rounds }) } => reader_may_leave(nodelay::run(*rounds)),
        Command::Serve(options) => serve::run(options),
        Command::Connect(options) => connect::run(options),
        Command::States { format } => {
            let text = finale::lifecycle::print((*format).into());
            reader_may_leave(io::stdout().write_all(text.as_bytes()).map_err(Trouble::Stdout))
        }
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

/// The lesson prints with `println!`, as an example should, and that panics when the reader has left. So SIGPIPE, which
/// Rust ignores, ends this command as it ends `cat`. The lesson's sockets don't raise it: none writes after a reset.
fn die_with_the_reader() -> Result<(), Trouble> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always)
        .map(|_id| ())
        .map_err(|source| Trouble::io("watch for SIGPIPE", source))
}
