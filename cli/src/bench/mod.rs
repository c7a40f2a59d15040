//! `finale bench`: half-closing connections by the thousand, and what they cost.
//!
//! Invariant: every connection that was begun is counted once, as successful or as a failure of one
//! kind. What is printed is enough to repeat the run.
//!
//! ```text
//! options      the arguments                   load      the connections, on any net
//! environment  clock, signals, progress bar    schedule  when connections are due
//! server       a server of our own             expected  the request and the expected answer
//! cpu          CPU time of processes           tally     the results of connections
//! measured     the result: page is the text of it, json the object
//! ```

mod cpu;
mod environment;
mod expected;
mod json;
mod load;
mod measured;
mod options;
mod page;
mod schedule;
mod server;
mod tally;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use finale::{Reactor, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::errors::{Error, Signal};
use crate::output::{self, count};
use environment::{Terminal, exact_timers};
use load::Load;
use measured::Measured;
pub(crate) use options::BenchOptions;
use server::Server;
use tally::Tally;

/// Runs the load and prints the result. Fails if a connection has failed.
pub(crate) fn run(options: &BenchOptions) -> Result<(), Error> {
    let expected = options.expected()?;
    allow_descriptors(usize::from(options.in_flight))?;
    let mut reactor = Reactor::new()?;
    let mut terminal = Terminal::new(reactor.waker(), options)?;
    let (server, target) = match &options.target {
        Some(text) => (None, resolve(text)?),
        None => {
            let server = Server::start(&options.serve_arguments())?;
            let addr = server.addr;
            (Some(server), addr)
        }
    };
    exact_timers();
    let pids = server.as_ref().map_or_else(|| options.server_pid.clone(), |server| vec![server.pid()]);
    let plan = options.plan(target, expected);

    let server_before = of_all(&pids)?;
    let client_before = cpu::ours();
    let tally = Load::run(&plan, &mut reactor, &mut terminal)?;
    let client_after = cpu::ours();
    terminal.clear();
    let server_after = settled(&mut reactor, &pids);

    let per_connection = |time: Duration| time.div_f64(tally.finished.max(1) as f64);
    let server_cpu = match server_after.map(|after| after.saturating_sub(server_before)) {
        _ if pids.is_empty() => Err("name its process with --server-pid".to_owned()),
        Ok(Duration::ZERO) => Err("this process used no CPU time; is it the server?".to_owned()),
        Ok(time) => Ok(per_connection(time)),
        Err(Error::Process { source, .. }) => Err(source.to_string()),
        Err(error) => return Err(error),
    };
    let client_cpu = client_before.and_then(|before| Ok(per_connection(client_after? - before)));
    let started = format!("finale serve {}", options.serve_arguments().join(" "));
    let measured = Measured {
        plan: &plan,
        rate: options.rate,
        tally: &tally,
        server: server.is_some().then_some(started.as_str()),
        server_cpu,
        client_cpu: client_cpu.map_err(|why| why.to_string()),
    };
    let printed = match options.json {
        true => output::print_json(&json::object(&measured)),
        false => output::print(&page::page(&measured)),
    };
    drop(server);
    // The exit code does not depend on whether the page could be printed.
    result(&tally, terminal.signal()).and(printed)
}

/// The address of the target. Looked up once: the resolver is not part of the measurement.
fn resolve(text: &str) -> Result<SocketAddr, Error> {
    if text.contains("://") {
        return Err(Error::usage(format!(
            "--target '{text}': a URL is not an address; write HOST:PORT, as 127.0.0.1:80"
        )));
    }
    if text.ends_with(":0") {
        return Err(Error::usage(format!(
            "--target '{text}': no server can listen on port 0; write the server's port"
        )));
    }
    let target = Target::try_from(text).map_err(|source| Error::Connect { target: text.to_owned(), source })?;
    if matches!(target, Target::Unix(_)) {
        return Err(Error::usage(format!("--target '{text}': bench measures TCP only; write HOST:PORT")));
    }
    let failed = |source| Error::io(format!("look up '{text}'"), source);
    let mut found = target.to_string().to_socket_addrs().map_err(failed)?;
    found.next().ok_or_else(|| failed(io::Error::other("the name has no address")))
}

/// Descriptors besides those of the connections: stdio, epoll, the waker, signals, the server's
/// stdout, and some for the server's own connections that are still closing.
const OTHER_DESCRIPTORS: usize = 64;

/// Raises the soft limit if it is too low. Our own server inherits it.
fn allow_descriptors(in_flight: usize) -> Result<(), Error> {
    let needed = (in_flight + OTHER_DESCRIPTORS) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|allowed| allowed >= needed) {
        return Ok(());
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < needed {
        return Err(Error::Descriptors { in_flight, needed, allowed });
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })
        .map_err(|errno| Error::io("raise the limit on descriptors", errno.into()))
}

/// The CPU time of all these processes.
fn of_all(pids: &[u32]) -> Result<Duration, Error> {
    pids.iter().map(|&pid| cpu::of(pid).map_err(|source| Error::Process { pid, source })).sum()
}

/// The server may still be closing connections when our last one has closed: waits until its CPU
/// time no longer grows.
fn settled(reactor: &mut Reactor, pids: &[u32]) -> Result<Duration, Error> {
    const PAUSE: Duration = Duration::from_millis(10);
    const CHECKS: u32 = 50;
    let mut last = of_all(pids)?;
    for _ in 0..CHECKS {
        let until = Instant::now() + PAUSE;
        // Only old timers and signals can arrive.
        while matches!(reactor.next_before(until), Ok(Some(_))) {}
        let now = of_all(pids)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// Success, or why the run failed.
fn result(tally: &Tally, signal: Option<Signal>) -> Result<(), Error> {
    if let Some(signal) = signal.filter(|_| tally.interrupted) {
        let (finished, failed) = (count(tally.finished, "connection"), output::thousands(tally.failed()));
        return Err(Error::Interrupted { signal, what: format!("{finished} measured, {failed} failed") });
    }
    match &tally.first_failure {
        Some(first) => Err(Error::Failed { failed: tally.failed(), finished: tally.finished, first: first.clone() }),
        None => Ok(()),
    }
}
