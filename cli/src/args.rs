//! The arguments, and what is wrong with them in one line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use finale::lifecycle;

use crate::bench::Bench;
use crate::connect::ConnectOptions;
use crate::peer::Part;
use crate::serve::Serve;
use crate::sim::Sim;

/// A TCP reactor that gets the ending of a connection right: its lesson, a server, a client, its
/// lifecycle.
///
/// Warnings go to stderr; RUST_LOG=finale=debug logs each transition of each socket on one line.
#[derive(Debug, Parser)]
#[command(name = "finale", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The life of a socket in three experiments on real sockets
    Lesson {
        #[command(subcommand)]
        part: Option<Lesson>,
    },
    Serve(Serve),
    Connect(ConnectOptions),
    Bench(Bench),
    /// Random programs under random faults on the simulated network, one run a seed: are the ten
    /// rules kept?
    Sim(Sim),
    /// The lifecycle of a socket, printed from the table that runs
    States {
        /// The form to print it in
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// The other program in `lesson crash`; not for people
    #[command(hide = true)]
    Peer {
        #[arg(value_enum)]
        part: Part,
        addr: SocketAddr,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lesson {
    /// Challenge 1: a peer that ends, one that is killed, one that is killed with unread bytes, one
    /// that freezes
    Crash,
    /// Challenge 2: a pool of connections to a server that breaks them as it likes and is restarted
    /// once, and no request is lost
    Pool {
        /// How many requests to make
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        requests: u32,
        /// What the server's dice follow from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Challenge 3: what Nagle's algorithm costs when it meets a delayed acknowledgement, measured
    Nodelay {
        /// Round trips to measure in each run
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rounds: u32,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// For reading in a terminal
    Text,
    /// A state diagram for Mermaid
    Mermaid,
    /// A graph for Graphviz
    Dot,
}

impl From<Format> for lifecycle::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Mermaid => Self::Mermaid,
            Format::Dot => Self::Dot,
        }
    }
}

/// A year: who waits longer has mistyped.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// 1 TiB takes minutes even on loopback; more is a slip of the unit.
const LARGEST_BYTES: u64 = 1 << 40;

/// A duration that may be nothing at all.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 250ms, 2s or 1m, not negative"))?;
    if time > LONGEST {
        return Err("it is longer than a year; write it as 250ms, 2s or 1m".to_owned());
    }
    Ok(time)
}

/// A duration after which something is given up, so not zero.
pub(crate) fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing; without the option its default holds".to_owned()),
        time => Ok(time),
    }
}

/// A number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize =
        text.parse().map_err(|_why| "not a size; write it as 64, 16KiB, 1MiB or 1GiB, not negative".to_owned())?;
    if size.as_u64() > LARGEST_BYTES {
        return Err("it is more than 1 TiB; write it as 64, 16KiB, 1MiB or 1GiB".to_owned());
    }
    Ok(size.as_u64())
}

/// A value as it is written on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Help and version as clap writes them, a mistake in one line.
pub(crate) fn tell_usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() || !text.starts_with("error:") {
        // A write that fails has nobody left to be told of it.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    let _ = writeln!(std::io::stderr(), "finale: {}", one_line(&text));
    ExitCode::from(2)
}

/// clap's message without its `error:`, its usage and its line breaks.
fn one_line(text: &str) -> String {
    let said = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .flat_map(str::split_whitespace);
    let said = said.collect::<Vec<_>>().join(" ");
    let said = PLAIN.iter().fold(said, |said, (technical, plain)| said.replace(technical, plain));
    format!("{}; see {}", said.trim_start_matches("error: "), help())
}

/// What the standard library says of numbers that are none, for people.
const PLAIN: [(&str, &str); 4] = [
    ("invalid digit found in string", "it is not a whole number"),
    ("cannot parse integer from empty string", "it is empty"),
    ("number too large to fit in target type", "it is too large"),
    ("number would be zero for non-zero type", "it must be at least 1"),
];

/// Where the usage of the command that was called stands.
pub(crate) fn help() -> String {
    let called = std::env::args().nth(1).unwrap_or_default();
    let known = <Args as clap::CommandFactory>::command().find_subcommand(&called).is_some();
    if known { format!("finale {called} --help") } else { "finale --help".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_help_of_a_command_says_more_than_its_summary() {
        let mut command = <Args as clap::CommandFactory>::command();
        for (name, word) in [("serve", "listening on"), ("connect", "exit code"), ("bench", "coordinated omission")] {
            let help = command.find_subcommand_mut(name).expect("there is one").render_long_help().to_string();
            assert!(help.contains(word), "{help}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = [("0", 0), ("64", 64), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("1GiB", 1 << 30), ("2kB", 2000)];
        for (text, bytes) in read {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["-5", "", "many", "1XiB", "5TiB", "99999999999999999999", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [("250ms", 250), ("2s", 2_000), ("1m", 60_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["-1s", "2", "", "soon", "366d", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(time_limit("0s").is_err());
    }
}
