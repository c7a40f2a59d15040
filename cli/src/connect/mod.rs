//! `finale connect`: stdin to the socket, the socket to stdout, the ending on stderr.
//!
//! Invariant: memory is bounded. Stdin is read only as fast as the socket takes it, and the socket
//! only as fast as stdout.

mod input;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use finale::{Ending, Event, Reactor, Socket};
use serde::Serialize;

use crate::errors::Error;
use crate::output::{self, BAD, GOOD, say};
use crate::values;
use input::Input;

/// A client that sends stdin, prints the answer, and reports how the connection ended
///
/// Stdin goes to the socket, and the socket to stdout. The last line on stderr is how the
/// connection ended. The exit code is 0 if the ending is clean, and 1 otherwise.
///
/// Without --half-close, our side ends when the peer has finished, and the end of stdin ends
/// nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = JSON_HELP)]
pub(crate) struct ConnectOptions {
    /// The server: a host name or an IP address and a port (an IPv6 address in brackets, as
    /// [::1]:7000), unix:PATH, or unix:@NAME
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// End our side when stdin ends, and continue to read until the peer finishes. If it is silent
    /// for 5 minutes, the connection is reset
    #[arg(short = 'N', long)]
    half_close: bool,
    /// Give up when connecting takes longer than this, or when no byte moves for this time: 250ms,
    /// 2s, 1m [default: 30s for connecting]
    #[arg(short = 'w', long, value_name = "DUR", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true)]
    timeout: Option<Duration>,
    /// Reset the connection when no byte moves for this time; replaces the second half of --timeout
    #[arg(long, value_name = "DUR", value_parser = values::time_limit, allow_hyphen_values = true)]
    idle_timeout: Option<Duration>,
    /// Print each event of the socket on stderr
    #[arg(short, long)]
    verbose: bool,
    /// Print the ending as one JSON object
    #[arg(long)]
    json: bool,
    /// Print the ending only if it is not clean
    #[arg(short, long, conflicts_with_all = ["verbose", "json"])]
    pub(crate) quiet: bool,
}

/// Short lines: clap wraps them without an indent.
const JSON_HELP: &str = "\
The JSON object of --json:
  target         the argument
  clean          whether both sides finished without an error
  acknowledged   whether the peer's kernel has acknowledged
                 every byte and our FIN
  kind           confirmed, handed-off or destroyed; or
                 {\"failed\": {kind, os, attempts}}
  first_fin      whose FIN was first: local, peer, both,
                 neither or unknown
  time_wait      which side keeps TIME_WAIT
  peer           the address of the peer, or null
  bytes_read, bytes_written, bytes_unsent";

/// Connects and stays until the connection has ended.
pub(crate) fn run(options: &ConnectOptions) -> Result<(), Error> {
    let mut reactor = Reactor::new()?;
    let mut how = finale::ConnectOptions::default().idle_timeout(options.idle_timeout.or(options.timeout));
    if options.timeout.is_some() {
        how = how.connect_timeout(options.timeout);
    }
    let id = reactor
        .connect(options.target.as_str(), how)
        .map_err(|source| Error::Connect { target: options.target.clone(), source })?;
    let mut input = None;
    let mut line_is_open = false;
    while let Some((mut socket, event)) = reactor.next()? {
        if options.verbose {
            print_event(&event);
        }
        match event {
            // Not earlier: if the connection is refused, stdin stays unread.
            Event::Ready => input = Some(Input::open(options.half_close, reactor.waker())),
            Event::Data(bytes) => {
                line_is_open = !bytes.ends_with(b"\n");
                // While stdout is full this blocks, and the peer sees a closed window: that is the
                // back-pressure.
                or_destroy(output::print_bytes(bytes), &mut socket);
            }
            Event::Drain => {
                if let Some(input) = &mut input {
                    or_destroy(input.drained(&mut socket), &mut socket);
                }
            }
            Event::Woken => {
                if let (Some(input), Some(mut socket)) = (&mut input, reactor.socket(id)) {
                    or_destroy(input.send(&mut socket), &mut socket);
                }
            }
            Event::Timeout => {
                output::error(format_args!("{}: no byte moved for the idle time, resetting it", options.target));
                socket.destroy();
            }
            Event::End if !options.half_close => {
                if let Some(input) = &mut input {
                    or_destroy(input.send(&mut socket), &mut socket);
                }
                socket.end();
            }
            Event::Close(ending) => {
                if line_is_open && io::stdout().is_terminal() {
                    say(format_args!("")); // The ending begins a new line.
                }
                return report(options, ending);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Resets a connection whose bytes are lost on our side: a FIN would claim that all went well.
fn or_destroy(result: Result<(), Error>, socket: &mut Socket<'_>) {
    if let Err(error) = result {
        output::error(format_args!("{error}"));
        socket.destroy();
    }
}

fn print_event(event: &Event<'_>) {
    match event {
        // The ending follows as the last line.
        Event::Close(_) => say(format_args!("close")),
        event if event.is_socket_event() => say(format_args!("{event}")),
        _ => {}
    }
}

/// The ending as an object. The names are stable: programs read them.
#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    clean: bool,
    acknowledged: bool,
    time_wait: finale::FirstFin,
    #[serde(flatten)]
    ending: &'a Ending,
}

/// Prints the ending. An ending that is not clean is a failure.
fn report(options: &ConnectOptions, ending: &Ending) -> Result<(), Error> {
    let (target, clean) = (options.target.as_str(), ending.is_clean());
    if options.json {
        let (acknowledged, time_wait) = (ending.is_acknowledged(), ending.time_wait());
        let object = output::json(&Report { target, clean, acknowledged, time_wait, ending })?;
        say(format_args!("{object}"));
    } else if !clean {
        say(format_args!("{BAD}finale:{BAD:#} {target}: {ending}"));
    } else if !options.quiet {
        say(format_args!("{GOOD}finale:{GOOD:#} {target}: {ending}"));
    }
    if clean { Ok(()) } else { Err(Error::Reported) }
}
