//! TLS 1.3 with rustls: a server that answers a complete request in upper case, and that
//! distinguishes a complete request from one that was cut off. Run it: `cargo run --release
//! --example tls -- 127.0.0.1:8443`.
//!
//! A FIN does not prove that everything has arrived: anyone on the path can forge one. TLS proves
//! it with close_notify. A FIN without it is a truncation, and gets no answer.

mod session;

use std::process::ExitCode;

use finale::{Event, ListenOptions, Reactor};
use session::{Tls, Verdict};

fn main() -> ExitCode {
    let Some(addr) = std::env::args().nth(1) else {
        eprintln!("usage: tls LISTEN, for example 127.0.0.1:8443");
        return ExitCode::from(2);
    };
    match run(&addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(addr: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (config, _certificate) = session::self_signed()?;
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, session::options(ListenOptions::default()))?;
    println!("listening on {}", listener.addr);
    let mut tls = Tls::new(config);
    while let Some((mut socket, event)) = reactor.next()? {
        let verdict = tls.handle(&mut socket, &event);
        if let (Event::Close(ending), Some(verdict)) = (event, verdict) {
            let word = match verdict {
                Verdict::Whole => "the request was whole",
                Verdict::Truncated => "the request was cut off",
                Verdict::NoTls => "no TLS",
            };
            println!("{}: {word}; {ending}", socket.id());
        }
    }
    Ok(())
}
