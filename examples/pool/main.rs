//! A client that keeps connections to a line server open, and sends it the lines of standard input.
//! Run it: `cargo run --example pool -- 127.0.0.1:7000 <FILE`, with the example `lines` as the
//! server. The guide to it: docs/guides/client.md.

mod client;

use std::io::BufRead as _;
use std::process::ExitCode;

use client::Client;
use finale::{PoolOptions, Reactor};

/// How many lines wait for an answer at most.
const AT_A_TIME: usize = 100;

fn main() -> ExitCode {
    let Some(server) = std::env::args().nth(1) else {
        eprintln!("usage: pool SERVER, for example 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    match run(&server) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pool: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every line got an answer.
fn run(server: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let mut reactor = Reactor::new()?;
    let mut client = Client::new(server, PoolOptions::default())?;
    let mut lines = std::io::stdin().lock().lines();
    let (mut waiting, mut all_answered) = (0, true);
    loop {
        // The queue of the pool is bounded, so this one is too.
        while waiting < AT_A_TIME
            && let Some(line) = lines.next()
        {
            client.request(&mut reactor.context(), line?);
            waiting += 1;
        }
        if waiting == 0 {
            return Ok(all_answered);
        }
        let Some((mut socket, event)) = reactor.next()? else { return Ok(false) };
        client.handle(&mut socket, &event);
        while let Some((line, result)) = client.results.pop_front() {
            waiting -= 1;
            match result {
                Ok(answer) => println!("{line}: {answer}"),
                Err(why) => {
                    all_answered = false;
                    println!("{line}: failed: {why}");
                }
            }
        }
    }
}
