//! A TCP proxy that loses nothing: half-closes, resets and back-pressure pass through in both
//! directions. It keeps connections to several backends ready, skips a backend that is down or that
//! fails, accepts no more clients than it has descriptors for, can pass on their addresses (the
//! PROXY protocol), and lets every client finish before it stops. A second signal stops it at once.
//! Run it: `cargo run --release --example proxy --
//! 127.0.0.1:7001 127.0.0.1:7000 127.0.0.1:7010`.
//!
//! To replace it, start the new one (the port is shared), then send SIGTERM to the old one: clients
//! that wait in its queue are served before the queue is closed. The kernel resets a client that
//! connects at the moment of closing, unless `net.ipv4.tcp_migrate_req` is 1: then the new proxy
//! gets it.
//!
//! Connections are kept ready, so this works for protocols in which the client sends first.

mod balance;
mod header;
mod health;
mod limits;
#[path = "../common/log.rs"]
#[allow(dead_code, reason = "it tells health checks apart by itself")]
mod log;
#[path = "../common/program.rs"]
mod program;

use std::error::Error;
use std::process::ExitCode;

use balance::Balance;
use finale::{Event, ListenOptions, Pipes, Reactor, StopOptions, Target};
use header::Header;
use log::Log;
use program::{Stop, StopSignals, status, usage};

/// The arguments.
struct Args {
    listen: String,
    backends: Vec<String>,
    ahead: usize,
    header: Option<Header>,
    allow_unix: bool,
}

impl Args {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut places, mut ahead, mut header, mut allow_unix) = (Vec::new(), 2, None, false);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--ahead" => ahead = words.next()?.parse().ok().filter(|ahead| *ahead > 0)?,
                "--send-proxy" => header = Some(Header::V1),
                "--send-proxy-v2" => header = Some(Header::V2),
                "--allow-unix" => allow_unix = true,
                option if option.starts_with("--") => return None,
                _ => places.push(word),
            }
        }
        let backends = places.split_off(1.min(places.len()));
        (!backends.is_empty()).then(|| Self { listen: places.remove(0), backends, ahead, header, allow_unix })
    }
}

fn main() -> ExitCode {
    match Args::read(std::env::args().skip(1)) {
        Some(args) => status("proxy", run(&args)),
        None => usage(
            "proxy LISTEN BACKEND... [--ahead N] [--send-proxy | --send-proxy-v2] [--allow-unix], for example \
             127.0.0.1:7001 127.0.0.1:7000",
        ),
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let is_unix = |address: &String| matches!(address.as_str().try_into(), Ok(Target::Unix(_)));
    if !args.allow_unix && (is_unix(&args.listen) || args.backends.iter().any(is_unix)) {
        return Err(format!("{}; --allow-unix permits it", finale::Error::UnixSink).into());
    }
    let clients = limits::clients(args.backends.len().saturating_mul(args.ahead))?;
    let mut reactor = Reactor::new()?;
    let options = balance::options(ListenOptions::default()).max_connections(clients);
    let listener = reactor.listen(&args.listen, options)?;
    let pipes = Pipes::new().allow_unix_sinks(args.allow_unix);
    let mut balance = Balance::new(&args.backends, &balance::pool(args.ahead), args.header, pipes)?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));

    balance.open(&mut reactor.context());
    let mut is_stopped = false;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => match signals.take() {
                Some(Stop::Gracefully) => reactor.stop_listener(listener.id, StopOptions::default().grace(None))?,
                Some(Stop::AtOnce) => break,
                None => {}
            },
            Event::ListenerClosed(_) => {
                // The last client has closed. Its bytes may still be on their way to its backend.
                is_stopped = true;
                balance.close(&mut socket.context());
            }
            event => {
                if let Some(line) = balance.handle(&mut socket, event) {
                    log.line(line);
                }
            }
        }
        if is_stopped && reactor.is_empty() {
            break;
        }
    }
    Ok(())
}
