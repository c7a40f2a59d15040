//! An HTTP/1.1 server that survives every ending: requests in pieces and several at once, bodies
//! that it does not read, clients that finish early or send byte by byte, and a graceful stop. A
//! second signal stops it at once. Run it: `cargo run --release --example http -- 127.0.0.1:8080`,
//! and then `curl http://127.0.0.1:8080/`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | a line |
//! | `GET /bytes/N` | N bytes, as fast as the client takes them |
//! | `POST /echo` | the body, up to 1 MiB |
//!
//! It has no clock, so it sends no `Date` (RFC 9110, section 6.6.1).

#[path = "../common/log.rs"]
mod log;
#[path = "../common/program.rs"]
mod program;
mod server;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use finale::{Event, ListenOptions, Reactor, StopOptions};
use log::{Log, is_health_check};
use program::{Stop, StopSignals, status, usage};
use server::Http;

fn main() -> ExitCode {
    match program::args().next() {
        Some(addr) => status("http", run(&addr)),
        None => usage("http LISTEN, for example 127.0.0.1:8080"),
    }
}

fn run(addr: &str) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));

    let mut http = Http::default();
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => match signals.take() {
                Some(Stop::Gracefully) => {
                    // From now on each answer is the last of its connection. Idle connections end
                    // after the grace, not all at once: their clients connect again elsewhere.
                    http.is_stopping = true;
                    let stop = StopOptions::default().spread(Duration::from_secs(5));
                    reactor.stop_listener(listener.id, stop)?;
                }
                Some(Stop::AtOnce) => break,
                None => {}
            },
            Event::ListenerClosed(_) => break,
            Event::Close(ending) => {
                http.handle(&mut socket, event);
                if !is_health_check(ending) {
                    log.line(format_args!("{}: {ending}", socket.id()));
                }
            }
            event => http.handle(&mut socket, event),
        }
    }
    Ok(())
}
