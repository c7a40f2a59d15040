//! TLS 1.3 with rustls: a server that answers a complete request in upper case, and that
//! distinguishes a complete request from one that was cut off. Run it: `cargo run --release
//! --example tls -- 127.0.0.1:8443`. SIGTERM stops it gracefully, a second one at once.
//!
//! A FIN does not prove that everything has arrived: anyone on the path can forge one. TLS proves
//! it with close_notify. A FIN without it is a truncation, and gets no answer.

#[path = "../common/log.rs"]
mod log;
#[path = "../common/program.rs"]
mod program;
mod session;

use std::error::Error;
use std::process::ExitCode;

use finale::{Event, ListenOptions, Reactor, StopOptions};
use log::{Log, is_health_check};
use program::{Stop, StopSignals, status, usage};
use session::{Tls, Verdict};

fn main() -> ExitCode {
    match program::args().next() {
        Some(addr) => status("tls", run(&addr)),
        None => usage("tls LISTEN, for example 127.0.0.1:8443"),
    }
}

fn run(addr: &str) -> Result<(), Box<dyn Error>> {
    let (config, _certificate) = session::self_signed()?;
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, session::options(ListenOptions::default()))?;
    let mut signals = StopSignals::new(&reactor)?;
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));

    let mut tls = Tls::new(config);
    while let Some((mut socket, event)) = reactor.next()? {
        let verdict = tls.handle(&mut socket, &event);
        match event {
            Event::Woken => match signals.take() {
                Some(Stop::Gracefully) => reactor.stop_listener(listener.id, StopOptions::default())?,
                Some(Stop::AtOnce) => break,
                None => {}
            },
            Event::ListenerClosed(_) => break,
            Event::Close(ending) if !is_health_check(ending) => {
                let word = match verdict {
                    Some(Verdict::Whole) => "the request was whole",
                    Some(Verdict::Truncated) => "the request was cut off",
                    Some(Verdict::NoTls) | None => "no TLS",
                };
                log.line(format_args!("{}: {word}; {ending}", socket.id()));
            }
            _ => {}
        }
    }
    Ok(())
}
