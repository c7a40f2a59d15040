//! A SOCKS5 proxy (RFC 1928): the command CONNECT, without authentication. Run it: `cargo run
//! --example socks5 -- 127.0.0.1:1080`, and then `curl --socks5-hostname 127.0.0.1:1080 ...`.
//!
//! The whole program is one handler: it connects, reads the local address and joins the two sockets
//! in the event of either. Half-closes, resets and back-pressure pass through the tunnel.

#[path = "../common/log.rs"]
mod log;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "it has a default for its only argument")]
mod program;
mod proxy;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use finale::{Event, KeepAlive, ListenOptions, Reactor, StopOptions};
use log::Log;
use program::{Stop, StopSignals, status};

fn main() -> ExitCode {
    status("socks5", run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let addr = program::args().next().unwrap_or_else(|| "127.0.0.1:1080".into());
    let options = ListenOptions::default()
        .max_connections(1_000)
        .deadline(proxy::PATIENCE) // Until the tunnel exists.
        .keep_alive(KeepAlive::after(Duration::from_secs(60)));
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr.as_str(), options)?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));
    let (mut proxy, mut is_stopped) = (proxy::Proxy::default(), false);
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => match signals.take() {
                // A tunnel is not idle because it is silent.
                Some(Stop::Gracefully) => reactor.stop_listener(listener.id, StopOptions::default().grace(None))?,
                Some(Stop::AtOnce) => break,
                None => {}
            },
            // The last client has closed. Its bytes may still be on their way.
            Event::ListenerClosed(_) => is_stopped = true,
            event => {
                if let Some(line) = proxy.handle(&mut socket, event) {
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
