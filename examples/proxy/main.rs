//! A TCP proxy that loses nothing: half-closes, resets and back-pressure pass through in both
//! directions. It keeps connections to several backends ready, skips a backend while it is down,
//! and lets every client finish before it stops. Run it: `cargo run --release --example proxy --
//! 127.0.0.1:7001 127.0.0.1:7000 127.0.0.1:7010`.
//!
//! To replace it, start the new one (the port is shared), then send SIGTERM to the old one: clients
//! that wait in its queue are served before the queue is closed. The kernel resets a client that
//! connects at the moment of closing, unless `net.ipv4.tcp_migrate_req` is 1: then the new proxy
//! gets it.
//!
//! Connections are kept ready, so this works for protocols in which the client sends first.

mod balance;

use std::process::ExitCode;

use balance::Balance;
use finale::{Error, Event, ListenOptions, Reactor, StopOptions, Target};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The arguments.
struct Args {
    listen: String,
    backends: Vec<String>,
    ahead: usize,
}

impl Args {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut places, mut ahead) = (Vec::new(), 2);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--ahead" => ahead = words.next()?.parse().ok()?,
                option if option.starts_with("--") => return None,
                _ => places.push(word),
            }
        }
        let backends = places.split_off(1.min(places.len()));
        (!backends.is_empty()).then(|| Self { listen: places.remove(0), backends, ahead })
    }
}

fn main() -> ExitCode {
    let Some(args) = Args::read(std::env::args().skip(1)) else {
        eprintln!("usage: proxy LISTEN BACKEND... [--ahead N], for example 127.0.0.1:7001 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let is_unix = |address: &String| matches!(address.as_str().try_into(), Ok(Target::Unix(_)));
    if is_unix(&args.listen) || args.backends.iter().any(is_unix) {
        return Err(Error::UnixSink.into());
    }
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(&args.listen, balance::options(ListenOptions::default()))?;
    let mut balance = Balance::new(&args.backends, &balance::pool(args.ahead))?;
    let (signal, mut signals) = reactor.inbox(1);
    let mut received = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || received.forever().try_for_each(|_| signal.send(()).map_err(drop)));
    println!("listening on {}", listener.addr);

    balance.open(&mut reactor.context());
    let mut is_stopped = false;
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken if signals.take().is_some() => {
                let _ = reactor.stop_listener(listener.id, StopOptions::default().grace(None));
            }
            Event::ListenerClosed(_) => {
                // The last client has closed. Its bytes may still be on their way to its backend.
                is_stopped = true;
                balance.close(&mut socket.context());
            }
            event => {
                if let Some(line) = balance.handle(&mut socket, event) {
                    println!("{line}");
                }
            }
        }
        if is_stopped && reactor.is_empty() {
            break;
        }
    }
    Ok(())
}
