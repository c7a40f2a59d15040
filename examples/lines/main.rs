//! A line server: each line is a request, and its answer is the same line in upper case. A client
//! can send several lines at once. Run it: `cargo run --example lines -- 127.0.0.1:7000`, and then
//! `nc 127.0.0.1 7000`. The guide to it: docs/guides/line-server.md.

#[path = "../common/log.rs"]
mod log;
#[path = "../common/program.rs"]
mod program;
mod server;

use std::error::Error;
use std::process::ExitCode;

use finale::{Event, ListenOptions, Reactor, StopOptions};
use log::{Log, is_health_check};
use program::{Stop, StopSignals, status, usage};
use server::Lines;

fn main() -> ExitCode {
    match program::args().next() {
        Some(addr) => status("lines", run(&addr)),
        None => usage("lines LISTEN, for example 127.0.0.1:7000"),
    }
}

fn run(addr: &str) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));
    let mut lines = Lines::default();
    while let Some((mut socket, event)) = reactor.next()? {
        lines.handle(&mut socket, event);
        match event {
            Event::Woken => match signals.take() {
                Some(Stop::Gracefully) => reactor.stop_listener(listener.id, StopOptions::default())?,
                Some(Stop::AtOnce) => break,
                None => {}
            },
            Event::ListenerClosed(_) => break,
            Event::Close(ending) if !is_health_check(ending) => log.line(format_args!("{}: {ending}", socket.id())),
            _ => {}
        }
    }
    Ok(())
}
