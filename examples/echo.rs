//! An echo server with back-pressure: a client that does not read is not read either. Run it:
//! `cargo run --release --example echo -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.

use std::process::ExitCode;

use finale::{Backpressure, Event, ListenOptions, Reactor};

fn main() -> ExitCode {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    match run(&addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(addr: &str) -> Result<(), finale::Error> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, ListenOptions::default())?;
    println!("listening on {}", listener.addr);

    while let Some((mut socket, event)) = reactor.next()? {
        match event {
            Event::Data(bytes) => match socket.write(bytes) {
                Ok(Backpressure::Room) => {}
                Ok(Backpressure::Full) => socket.pause(), // The peer must read before it may send more.
                Err(_) => socket.destroy(),               // One client is lost, and not the loop.
            },
            Event::Drain => socket.resume(),
            Event::End => socket.end(),
            Event::Close(ending) => println!("{}: {ending}", socket.id()),
            _ => {}
        }
    }
    Ok(())
}
