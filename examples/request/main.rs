//! A client that sends one line to a line server and prints the answer. It has one deadline for
//! everything, and tries again where that is safe. Run it: `cargo run --example request --
//! 127.0.0.1:7000 hello`, with the example `lines` as the server. The guide to it:
//! docs/guides/client.md.

mod client;

use std::process::ExitCode;

use client::{Limits, ask};
use finale::Reactor;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, line] = &args[..] else {
        eprintln!("usage: request SERVER LINE, for example 127.0.0.1:7000 hello");
        return ExitCode::from(2);
    };
    let answer = Reactor::new().map_err(Into::into).and_then(|mut reactor| {
        // An answer in upper case changes nothing on the server, so it may be requested twice.
        ask(&mut reactor, server, line, &Limits { is_idempotent: true, ..Limits::default() })
    });
    match answer {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("request: {error}");
            ExitCode::FAILURE
        }
    }
}
