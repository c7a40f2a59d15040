//! A chat: each line is sent to all other clients. A client that does not read is disconnected; a
//! client that finishes has left. Run it: `cargo run --release --example chat -- 127.0.0.1:7000`,
//! and then `nc 127.0.0.1 7000` a few times.

mod room;

use std::process::ExitCode;

use finale::Reactor;
use room::{Chat, options};

fn main() -> ExitCode {
    let Some(addr) = std::env::args().nth(1) else {
        eprintln!("usage: chat LISTEN, for example 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    match run(&addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(addr: &str) -> Result<(), finale::Error> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, options())?;
    println!("listening on {}", listener.addr);
    let mut chat = Chat::default();
    while let Some((mut socket, event)) = reactor.next()? {
        chat.handle(&mut socket, event);
    }
    Ok(())
}
