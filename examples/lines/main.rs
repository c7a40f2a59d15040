//! A line server: each line is a request, and its answer is the same line in upper case. A client
//! can send several lines at once. Run it: `cargo run --example lines -- 127.0.0.1:7000`, and then
//! `nc 127.0.0.1 7000`. The guide to it: docs/guides/line-server.md.

mod server;

use std::process::ExitCode;

use finale::{Event, ListenOptions, Reactor};
use server::Lines;

fn main() -> ExitCode {
    let Some(addr) = std::env::args().nth(1) else {
        eprintln!("usage: lines LISTEN, for example 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    match run(&addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(addr: &str) -> Result<(), finale::Error> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    println!("listening on {}", listener.addr);
    let mut lines = Lines::default();
    while let Some((mut socket, event)) = reactor.next()? {
        lines.handle(&mut socket, event);
        if let Event::Close(ending) = event {
            println!("{}: {ending}", socket.id());
        }
    }
    Ok(())
}
