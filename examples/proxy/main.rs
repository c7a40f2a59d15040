//! A TCP proxy that loses nothing: half-closes, resets and back-pressure pass through in both
//! directions. It keeps connections to several backends ready, skips a backend that is down or that
//! fails, accepts no more clients than it has descriptors for, can pass on their addresses (the
//! PROXY protocol), and lets every client finish before it stops. A second signal stops it at once;
//! SIGUSR1 prints its clients and the state of each backend. Run it:
//! `cargo run --release --example proxy -- 127.0.0.1:7001 127.0.0.1:7000 127.0.0.1:7010`.
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
mod log;
#[path = "../common/program.rs"]
mod program;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use balance::Balance;
use finale::{AddressError, Event, Inbox, ListenOptions, Pipes, Reactor, StopOptions, Target};
use header::Header;
use log::Log;
use program::{Stop, StopSignals, status, usage};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;

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
                "--send-proxy" | "--send-proxy-v2" if header.is_some() => return None,
                "--send-proxy" => header = Some(Header::V1),
                "--send-proxy-v2" => header = Some(Header::V2),
                "--allow-unix" => allow_unix = true,
                option if option.starts_with('-') => return None,
                _ => places.push(word),
            }
        }
        let backends = places.split_off(1.min(places.len()));
        (!backends.is_empty()).then(|| Self { listen: places.remove(0), backends, ahead, header, allow_unix })
    }

    /// Whether its addresses are some, and permitted.
    fn check(&self) -> Result<(), String> {
        let wrong = |addr: &String, why: &str| Err(format!("{addr:?}: {why}"));
        for addr in std::iter::once(&self.listen).chain(&self.backends) {
            match Target::try_from(addr.as_str()) {
                Err(error) => return wrong(addr, &error.to_string()),
                Ok(Target::Unix(_)) if !self.allow_unix => {
                    return wrong(
                        addr,
                        "a peer there takes a stream that was cut for a whole one; --allow-unix permits it",
                    );
                }
                Ok(Target::Name { .. }) if *addr == self.listen => {
                    return wrong(addr, &AddressError::NotAnAddress.to_string());
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match Args::read(program::args()) {
        Some(args) => args.check().map_or_else(|text| wrong(&text), |()| status("proxy", run(&args))),
        None => usage(
            "proxy LISTEN BACKEND... [--ahead N] [--send-proxy | --send-proxy-v2] [--allow-unix], for example \
             127.0.0.1:7001 127.0.0.1:7000",
        ),
    }
}

/// The status after an address that is wrong.
fn wrong(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "proxy: {text}");
    ExitCode::from(2)
}

/// SIGUSR1, as [`Event::Woken`]: the operator wants to see the state. Several at once are one.
fn state_signals(reactor: &Reactor) -> std::io::Result<Inbox<()>> {
    let (sender, inbox) = reactor.inbox(1);
    let mut signals = Signals::new([SIGUSR1])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = sender.send(());
        }
    });
    Ok(inbox)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let clients = limits::clients(args.backends.len().saturating_mul(args.ahead))?;
    let mut reactor = Reactor::new()?;
    let options = balance::options(ListenOptions::default()).max_connections(clients);
    let listener = reactor.listen(&args.listen, options)?;
    let pipes = Pipes::new().allow_unix_sinks(args.allow_unix);
    let mut balance = Balance::new(&args.backends, &balance::pool(args.ahead), args.header, pipes)?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut state_signals = state_signals(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));

    balance.open(&mut reactor.context());
    let mut is_stopped = false;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => {
                if state_signals.take().is_some() {
                    balance.state(&mut socket.context()).into_iter().for_each(|line| log.line(line));
                }
                match signals.take() {
                    Some(Stop::Gracefully) => reactor.stop_listener(listener.id, StopOptions::default().grace(None))?,
                    Some(Stop::AtOnce) => break,
                    None => {}
                }
            }
            Event::ListenerClosed(_) => {
                // The last client has closed. Its bytes may still be on their way to its backend.
                is_stopped = true;
                balance.close(&mut socket.context());
            }
            event => balance.handle(&mut socket, event).into_iter().for_each(|line| log.line(line)),
        }
        if is_stopped && reactor.is_empty() {
            break;
        }
    }
    Ok(())
}
