//! A client that keeps connections to a line server open, and sends it the lines of standard input.
//! Run it: `cargo run --example pool -- 127.0.0.1:7000 <FILE`, with the example `lines` as the
//! server. The guide to it: docs/guides/client.md.

mod client;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use client::Client;
use finale::{PoolOptions, Reactor, Waker};

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
    let lines = input(reactor.waker());
    let (mut waiting, mut all_answered) = (0, true);
    // It ends when the input is over and every connection is closed.
    while let Some((mut socket, event)) = reactor.next()? {
        client.handle(&mut socket, &event);
        while let Some((line, result)) = client.results.pop_front() {
            waiting -= 1;
            all_answered &= result.is_ok();
            let answer = result.unwrap_or_else(|why| format!("failed: {why}"));
            writeln!(io::stdout(), "{line}: {answer}")?;
        }
        // The queue of the pool is bounded, so this one is too.
        while waiting < AT_A_TIME {
            match lines.try_recv() {
                Ok(line) => {
                    client.request(&mut reactor.context(), line?);
                    waiting += 1;
                }
                Err(TryRecvError::Disconnected) if waiting == 0 => {
                    client.close(&mut reactor.context());
                    break;
                }
                Err(TryRecvError::Disconnected | TryRecvError::Empty) => break,
            }
        }
    }
    Ok(all_answered && waiting == 0)
}

/// Reads the lines of standard input. A thread waits for them: a read that blocks in the loop of the
/// reactor would stop all its connections and timers.
fn input(waker: Waker) -> Receiver<io::Result<String>> {
    let (sender, lines) = sync_channel(AT_A_TIME);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            // It waits while the queue is full.
            if sender.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        // The end of the input is a message, too.
        drop(sender);
        let _ = waker.wake();
    });
    lines
}
