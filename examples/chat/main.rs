//! A chat: each line is sent to all other clients. No client can throw others out: one that sends
//! too much is read more slowly, and one that reads too slowly misses lines (see `room.rs`). A
//! client that finishes has left. Run it: `cargo run --release --example chat -- 127.0.0.1:7000`,
//! and then `nc 127.0.0.1 7000` a few times. SIGTERM ends the chat; a second one ends it at once.

#[path = "../common/log.rs"]
mod log;
#[path = "../common/program.rs"]
mod program;
mod room;

use std::error::Error;
use std::process::ExitCode;

use finale::{Event, Reactor, StopOptions};
use log::Log;
use program::{Stop, StopSignals, status, usage};
use room::{Chat, options};

fn main() -> ExitCode {
    match program::args().next() {
        Some(addr) => status("chat", run(&addr)),
        None => usage("chat LISTEN, for example 127.0.0.1:7000"),
    }
}

fn run(addr: &str) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, options())?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));
    let mut chat = Chat::default();
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken => match signals.take() {
                Some(Stop::Gracefully) => {
                    chat.close(&mut socket.context());
                    reactor.stop_listener(listener.id, StopOptions::default())?;
                }
                Some(Stop::AtOnce) => break,
                None => {}
            },
            Event::ListenerClosed(_) => break,
            event => chat.handle(&mut socket, event),
        }
    }
    Ok(())
}
