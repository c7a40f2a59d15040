//! A reactor on a thread of its own, used by the tasks of a tokio runtime: they send requests into
//! its inbox, and each gets its answer through a oneshot channel. Run it: `cargo run --example
//! beside_tokio -- 127.0.0.1:7000 hello world`, with the example `lines` as the server. The guide
//! to it: docs/guides/tokio.md.

mod bridge;

use std::process::ExitCode;
use std::time::Duration;

use bridge::{Client, Failed};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(server) = args.next() else {
        eprintln!("usage: beside_tokio SERVER LINE ..., for example 127.0.0.1:7000 hello world");
        return ExitCode::from(2);
    };
    let (client, thread) = match Client::start(&server, 100) {
        Ok(started) => started,
        Err(error) => {
            eprintln!("beside_tokio: {error}");
            return ExitCode::FAILURE;
        }
    };
    // One task per line, all at the same time.
    let tasks: Vec<_> = args
        .map(|line| {
            let client = client.clone();
            tokio::spawn(async move { (line.clone(), client.request(line).await) })
        })
        .collect();
    let mut all_answered = true;
    for task in tasks {
        match task.await {
            Ok((line, Ok(answer))) => println!("{line}: {answer}"),
            Ok((line, Err(error))) => {
                all_answered = false;
                println!("{line}: failed: {error}");
            }
            Err(error) => println!("a task failed: {error}"),
        }
    }
    while client.close() == Err(Failed::Busy) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(client);
    let ended = tokio::task::spawn_blocking(|| thread.join()).await;
    if all_answered && matches!(ended, Ok(Ok(Ok(())))) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
