//! `finale bench`: half-closing connections by the thousand, and what they cost.
//!
//! Invariant: every connection that was begun is counted once, as successful or as a failure of one
//! kind. What is printed is enough to repeat the run.
//!
//! ```text
//! options      the arguments                   load      the connections, on any net
//! environment  clock, signals, progress bar    schedule  when connections are due
//! target       the address of the target       expected  the request and the expected answer
//! server       a server of our own             tally     the results of connections
//! cpu          CPU time of processes           report    the result, also of several loads
//! page         the result as text              histogram latencies as text
//! merge        several results as one
//! ```

mod cpu;
mod environment;
mod expected;
mod histogram;
mod load;
mod merge;
mod options;
mod page;
mod report;
mod schedule;
mod server;
mod tally;
mod target;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use finale::{Reactor, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::errors::{Error, Overload, Signal};
use crate::output::{self, count};
use environment::{Terminal, exact_timers};
use load::{Load, Plan};
use options::BenchCommand;
pub(crate) use options::BenchOptions;
use report::{Measured, Report};
use server::Server;
use tally::{Kind, Tally};

/// Runs the load and prints the result. Fails if a connection has failed.
pub(crate) fn run(options: &BenchOptions) -> Result<(), Error> {
    if let Some(BenchCommand::Merge(options)) = &options.command {
        return merge::run(options);
    }
    let expected = options.expected()?;
    options.check_pids()?;
    let tls = options.open_tls()?;
    allow_descriptors(usize::from(options.in_flight))?;
    let mut reactor = Reactor::new()?;
    let mut terminal = Terminal::new(reactor.waker(), options)?;
    let (server, target) = match &options.target {
        Some(text) => (None, target::resolve(text, &mut reactor, &terminal, options.timeout)?),
        None => {
            let server = Server::start(&options.serve_arguments())?;
            let addr = Target::from(server.addr);
            (Some(server), addr)
        }
    };
    exact_timers();
    let pids = server.as_ref().map_or_else(|| options.server_pid.clone(), |server| vec![server.pid()]);
    let plan = options.plan(target, expected, tls);
    let warm_up = options.warm_up.map(|time| warm_up(&plan, options, time, &mut reactor, &mut terminal)).transpose()?;

    let server_before = of_all(&pids)?;
    let client_before = cpu::ours();
    let tally = match warm_up.flatten() {
        Some(ended) => ended,
        None => Load::run(&plan, &mut reactor, &mut terminal)?,
    };
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
    let report = Report::new(Measured {
        plan: &plan,
        name: options.target.as_deref().filter(|text| *text != plan.target.to_string()),
        rate: options.rate,
        warm_up: options.warm_up,
        tally: &tally,
        server: server.is_some().then_some(started.as_str()),
        server_cpu,
        client_cpu: client_cpu.map_err(|why| why.to_string()),
    });
    drop(server);
    let printed = match options.json {
        true => output::print_json(&report),
        false => output::print(&page::page(&report)),
    };
    output::result_of_both(result(&report, terminal.signal()), printed)
}

/// Runs the load for this time. Returns its results only if they are the end of the run.
fn warm_up(
    plan: &Plan,
    options: &BenchOptions,
    time: Duration,
    reactor: &mut Reactor,
    terminal: &mut Terminal,
) -> Result<Option<Tally>, Error> {
    let warming = Plan {
        duration: Some(time),
        schedule: options.warm_up_schedule(time),
        ..options.plan(plan.target.clone(), options.expected()?, plan.tls.clone())
    };
    let mut tally = Load::run(&warming, reactor, terminal)?;
    tally.never_begun = plan.schedule.total();
    Ok((tally.interrupted || tally.hopeless).then_some(tally))
}

/// Descriptors besides those of the connections: stdio, epoll, the waker, signals, the server's
/// stdout, and some for the server's own connections that are still closing.
const OTHER_DESCRIPTORS: usize = 64;

/// Raises the soft limit if it is too low. Our own server inherits it.
pub(crate) fn allow_descriptors(in_flight: usize) -> Result<(), Error> {
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

/// What to do when no local port is free.
const PORTS_HINT: &str = "; a connection that we finish first keeps its port for a minute (TIME_WAIT): use --first server, \
                          a lower --rate, fewer --connections, or more ports (sysctl net.ipv4.ip_local_port_range)";

/// Success, or why the run failed.
fn result(report: &Report, signal: Option<Signal>) -> Result<(), Error> {
    let (finished, failed) = (report.connections, report.failed);
    if let Some(signal) = signal.filter(|_| report.interrupted) {
        let what = format!("{} measured, {} failed", count(finished, "connection"), output::thousands(failed));
        return Err(Error::Interrupted { signal, what });
    }
    let total = finished.saturating_add(report.overloaded);
    let overload = Overload { never_begun: report.overloaded, total, timeout_ms: report.timeout_ms };
    let overload = Some(overload).filter(|overload| overload.never_begun > 0);
    match (report.first_failure.clone(), overload) {
        (Some(first), overload) => {
            let hint = if report.failures_of(Kind::NoLocalAddress) > 0 { PORTS_HINT } else { "" };
            Err(Error::Failed { failed, finished, first, hint, overload })
        }
        (None, Some(overload)) => Err(Error::Overloaded(overload)),
        (None, None) => Ok(()),
    }
}
