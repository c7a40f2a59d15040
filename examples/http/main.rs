//! An HTTP/1.1 server that survives every ending: requests in pieces and several at once, bodies
//! that it does not read, clients that finish early or send byte by byte, and a graceful stop. Run
//! it: `cargo run --release --example http -- 127.0.0.1:8080`, and then `curl
//! http://127.0.0.1:8080/`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | a line |
//! | `GET /bytes/N` | N bytes, as fast as the client takes them |
//! | `POST /echo` | the body, up to 1 MiB |

mod request;
mod server;

use std::process::ExitCode;

use finale::{Event, ListenOptions, Reactor, StopOptions};
use server::Http;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    let Some(addr) = std::env::args().nth(1) else {
        eprintln!("usage: http LISTEN, for example 127.0.0.1:8080");
        return ExitCode::from(2);
    };
    match run(&addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(addr: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    let (signal, mut signals) = reactor.inbox(1);
    let mut received = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || received.forever().try_for_each(|_| signal.send(()).map_err(drop)));
    println!("listening on {}", listener.addr);

    let mut http = Http::default();
    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Woken if signals.take().is_some() => {
                // From now on each answer is the last of its connection. Idle connections end after
                // the grace.
                http.is_stopping = true;
                if reactor.stop_listener(listener.id, StopOptions::default()).is_err() {
                    break;
                }
            }
            Event::ListenerClosed(_) => break,
            Event::Close(ending) => {
                http.handle(&mut socket, event);
                println!("{}: {ending}", socket.id());
            }
            event => http.handle(&mut socket, event),
        }
    }
    Ok(())
}
