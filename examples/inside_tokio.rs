//! A reactor inside a tokio runtime, on one thread: tokio waits on the reactor's descriptor and its
//! deadline, together with tasks of its own. Run it: `cargo run --example inside_tokio --
//! 127.0.0.1:7000`, and then `nc 127.0.0.1 7000`. A task counts the lines; SIGINT stops it. The
//! guide to it: docs/guides/tokio.md.

#[path = "lines/server.rs"]
mod server;

use std::cell::Cell;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use finale::{Event, ListenOptions, Reactor};
use server::Lines;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Events that are handled before the other tasks of the thread run.
const EVENTS: usize = 256;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(addr) = std::env::args().nth(1) else {
        eprintln!("usage: inside_tokio LISTEN, for example 127.0.0.1:7000");
        return ExitCode::from(2);
    };
    let closed = Rc::new(Cell::new(0));
    let local = tokio::task::LocalSet::new();
    let count = Rc::clone(&closed);
    local.spawn_local(async move {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        let mut reported = 0;
        loop {
            every.tick().await;
            if count.get() > reported {
                reported = count.get();
                println!("{reported} connections have ended");
            }
        }
    });
    match local.run_until(serve(&addr, &closed)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inside_tokio: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(addr: &str, closed: &Cell<u64>) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.listen(addr, server::options(ListenOptions::default()))?;
    println!("listening on {}", listener.addr);
    // A second descriptor of the same epoll instance: tokio owns it, and the reactor stays free.
    // (Deprecated because other types could close it early; an `OwnedFd` can't.)
    #[allow(deprecated, reason = "its replacement is unsafe")]
    let ready = AsyncFd::with_interest(reactor.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    let mut lines = Lines::default();
    loop {
        // 1. Everything that can happen without waiting.
        let mut events = 0;
        while let Some((mut socket, event)) = reactor.next_before(Instant::now())? {
            lines.handle(&mut socket, event);
            if let Event::Close(_) = event {
                closed.set(closed.get() + 1);
            }
            events += 1;
            if events == EVENTS {
                events = 0;
                tokio::task::yield_now().await;
            }
        }
        // 2. Wait for readiness, or for the reactor's next deadline.
        let deadline = reactor.next_deadline();
        tokio::select! {
            // Cleared before the events are taken: readiness that comes meanwhile is a new edge.
            guard = ready.readable() => guard?.clear_ready(),
            () = until(deadline) => {}
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
