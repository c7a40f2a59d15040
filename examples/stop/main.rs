//! A server that answers later: other threads compute, and their results come back through an
//! inbox. SIGTERM and SIGINT stop it gracefully, a second one at once. Run it: `cargo run --example stop --
//! 127.0.0.1:7000`, then `nc 127.0.0.1 7000` and a line with a number. The guide to it:
//! docs/guides/graceful-stop.md.

#[path = "../common/log.rs"]
mod log;
#[path = "../common/program.rs"]
mod program;
mod server;

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use finale::{Event, ListenOptions, Reactor, SocketId, StopOptions};
use log::{Log, is_health_check};
use program::{Stop, StopSignals, status, usage};
use server::{Job, Primes, count_primes};

/// Jobs that wait for a thread. A further one is refused.
const JOBS: usize = 100;
const THREADS: usize = 2;

/// A result that another thread sends to the reactor.
type Done = (SocketId, u64);

fn main() -> ExitCode {
    let args: Vec<String> = program::args().collect();
    let (Some(addr), Ok(grace)) = (args.first(), args.get(1).map_or(Ok(1000), |grace| grace.parse())) else {
        return usage("stop LISTEN [GRACE_MS], for example 127.0.0.1:7000");
    };
    status("stop", run(addr, Duration::from_millis(grace)))
}

fn run(addr: &str, grace: Duration) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    let mut signals = StopSignals::new(&reactor)?;
    // Room for a result of each thread and of each waiting job: it is never full.
    let (sender, mut results) = reactor.inbox::<Done>(JOBS + THREADS);

    let (jobs, queue) = sync_channel::<Job>(JOBS);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..THREADS {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        std::thread::spawn(move || {
            loop {
                let Ok(job) = queue.lock().map_or(Err(()), |queue| queue.recv().map_err(drop)) else { return };
                if sender.send((job.socket, count_primes(job.below))).is_err() {
                    return;
                }
            }
        });
    }
    let mut log = Log::new();
    log.line(format_args!("listening on {}", listener.addr));

    let mut primes = Primes::new(jobs);
    while let Some((mut socket, event)) = reactor.next()? {
        primes.handle(&mut socket, event);
        match event {
            // By a signal or by a result, or by several of them.
            Event::Woken => {
                while let Some((id, count)) = results.take() {
                    // The client may be gone: then its id finds nothing.
                    if let Some(mut socket) = reactor.socket(id) {
                        primes.answer(&mut socket, count);
                    }
                }
                match signals.take() {
                    Some(Stop::Gracefully) => {
                        log.line("stopping");
                        reactor.stop_listener(listener.id, StopOptions::default().grace(grace))?;
                    }
                    Some(Stop::AtOnce) => break,
                    None => {}
                }
            }
            Event::ListenerClosed(_) => break,
            Event::Close(ending) if !is_health_check(ending) => log.line(format_args!("{}: {ending}", socket.id())),
            _ => {}
        }
    }
    Ok(())
}
