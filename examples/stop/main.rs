//! A server that answers later: other threads compute, and their results come back through an
//! inbox. SIGTERM and SIGINT stop it gracefully. Run it: `cargo run --example stop --
//! 127.0.0.1:7000`, then `nc 127.0.0.1 7000` and a line with a number. The guide to it:
//! docs/guides/graceful-stop.md.

mod server;

use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use finale::{Event, ListenOptions, Reactor, SocketId, StopOptions};
use server::{Job, Primes, count_primes};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Jobs that wait for a thread. A further one is refused.
const JOBS: usize = 100;
const THREADS: usize = 2;

/// What other threads send to the reactor.
enum Message {
    Stop,
    Done(SocketId, u64),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(addr), Ok(grace)) = (args.first(), args.get(1).map_or(Ok(1000), |grace| grace.parse())) else {
        eprintln!("usage: stop LISTEN [GRACE_MS], for example 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    match run(addr, Duration::from_millis(grace)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(addr: &str, grace: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    // Room for a result of each thread and each waiting job, and for a signal: it is never full.
    let (sender, mut inbox) = reactor.inbox(JOBS + THREADS + 1);

    let signal = sender.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || signals.forever().try_for_each(|_| signal.send(Message::Stop).map_err(drop)));

    let (jobs, queue) = sync_channel::<Job>(JOBS);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..THREADS {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        std::thread::spawn(move || {
            loop {
                let Ok(job) = queue.lock().map_or(Err(()), |queue| queue.recv().map_err(drop)) else { return };
                if sender.send(Message::Done(job.socket, count_primes(job.below))).is_err() {
                    return;
                }
            }
        });
    }
    println!("listening on {}", listener.addr);

    let mut primes = Primes::new(jobs);
    while let Some((mut socket, event)) = reactor.next()? {
        primes.handle(&mut socket, event);
        match event {
            Event::Woken => {
                while let Some(message) = inbox.take() {
                    match message {
                        Message::Done(id, count) => {
                            // The client may be gone: then its id finds nothing.
                            if let Some(mut socket) = reactor.socket(id) {
                                primes.answer(&mut socket, count);
                            }
                        }
                        Message::Stop => {
                            println!("stopping");
                            // An error means that a first signal has stopped it already.
                            let _ = reactor.stop_listener(listener.id, StopOptions::default().grace(grace));
                        }
                    }
                }
            }
            Event::ListenerClosed(_) => return Ok(()),
            Event::Close(ending) => println!("{}: {ending}", socket.id()),
            _ => {}
        }
    }
    Ok(())
}
