//! `finale bench`: half-closing connections by the thousand, and what they cost.
//!
//! Invariant: every connection that was begun is counted once, as one that went well or as a
//! failure of one kind; and what is printed says enough to run it again.
//!
//! ```text
//! mod       arguments, the run, its surroundings     schedule  when connections are due
//! load      the connections, on any net              expected  what is sent and has to come back
//! server    a server of our own                      tally     what became of them
//! cpu       time on a core                           page      for people; json: for programs
//! ```

mod cpu;
mod expected;
mod json;
mod load;
mod outside;
mod page;
mod schedule;
mod server;
mod tally;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::num::NonZero;
use std::time::{Duration, Instant};

use finale::{Reactor, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args;
use crate::serve::{Closing, Service};
use crate::trouble::Trouble;
use expected::{Expected, Source};
use load::{Finisher, Load, Plan};
use outside::{Terminal, exact_timers};
use schedule::Schedule;
use server::Server;
use tally::Tally;

/// A load of half-closing connections: how many a second, how fast, how they ended, what they cost
///
/// One connection: connect, send the request, finish, read the answer to its end, close; with
/// --first server the server finishes before us. Without a target it starts its own server, `finale
/// serve`, on loopback, and ends it. Our own side closes confirmed, whatever the server does: of
/// each connection that went well it is known that every byte was received.
///
/// Without --rate the loop is closed: a connection begins as soon as another has closed, and its
/// latency counts from the connect call. A server that stalls then stalls the load, too, and the
/// latencies look better than what users would see. With --rate the loop is open: the n-th
/// connection is due n/R seconds after the beginning, whatever became of those before, and its
/// latency counts from then. If every place in flight is taken it begins late, and its latency says
/// so; none is left out (no coordinated omission).
///
/// A connection fails by a reset, a refusal, an end that has not come within --timeout, an answer
/// of the wrong length or content, or whatever else is no clean ending; failures are counted by
/// kind and are not part of the latencies. Of a target's answer only the length is known, and
/// compared. If the first 200 fail, no more are begun. The exit code is 1 if any failed, and if
/// SIGINT or SIGTERM ended the run early; what was measured until then is printed all the same.
#[derive(Debug, clap::Args)]
#[command(after_long_help = JSON_HELP)]
pub(crate) struct Bench {
    /// Whom to measure. On an IPv4 loopback address we connect from 127.0.1.1 to 127.0.1.64 in
    /// turn, so that connections in TIME_WAIT don't use up the ports
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["serve", "close", "shards"])]
    target: Option<String>,
    /// Which service of `finale serve` to start and measure
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Service::Answer)]
    serve: Service,
    /// How the server that is started closes its connections
    #[arg(long, value_enum, default_value_t = Closing::Confirmed)]
    close: Closing,
    /// How many reactors the server that is started has, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), allow_hyphen_values = true)]
    shards: u16,
    /// How many connections in all
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Begin connections for this time (10s, 1m) instead of a fixed number of them; connections
    /// that are in flight then may finish. With --rate all that are due in this time are begun,
    /// however long that takes
    #[arg(long, value_name = "DUR", value_parser = args::time_limit, allow_hyphen_values = true, conflicts_with = "connections")]
    duration: Option<Duration>,
    /// How many at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    in_flight: u16,
    /// How much to send: 0, 64, 16KiB
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = args::size, allow_hyphen_values = true)]
    request: u64,
    /// How much to expect, of a target or of `--serve answer` [default: 64]
    #[arg(long, value_name = "BYTES", value_parser = args::size, allow_hyphen_values = true)]
    answer: Option<u64>,
    /// Who finishes first
    #[arg(long, value_enum, default_value_t = Finisher::Client)]
    first: Finisher,
    /// Begin so many connections a second, evenly spread, whether or not the others have finished
    #[arg(long, value_name = "R")]
    rate: Option<NonZero<u32>>,
    /// Reset a connection that is not done in this time, and count it as failed
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = args::time_limit, allow_hyphen_values = true)]
    timeout: Duration,
    /// The process that serves the target, on this machine, to measure its CPU time; several with
    /// commas between
    #[arg(long, value_name = "PID", requires = "target", value_delimiter = ',')]
    server_pid: Vec<NonZero<u32>>,
    /// Print one JSON object in place of the page
    #[arg(long)]
    json: bool,
}

const JSON_HELP: &str = "\
The JSON object:
  target, server                 the address; how our own server was started, or null
  connections                    that came to an end of their own, well or not
  failed, failures               how many of them failed; how many of each kind that occurred
  first_failure                  what the first of them looked like, or null
  never_begun                    left out because the first 200 failed, or a signal came; null with --duration alone
  acknowledged                   of those that went well: the server's kernel had acknowledged everything
  interrupted, cut_off           whether a signal ended the run; how many were in flight then
  seconds, per_second            from the first start to the last close; connections that went well a second
  latency_us                     p50, p90, p99, p999 and max of those that went well, in microseconds, or null
  bytes_sent, bytes_received
  server_cpu_us_per_connection   microseconds on a core, of all threads; null if unknown
  client_cpu_us_per_connection
  in_flight, request_bytes, answer_bytes, first, rate, timeout_ms, duration_ms
  version                        of finale
  late                           begun more than 1 ms after they were due: no place or no core was free";

/// What there is to tell.
struct Measured<'a> {
    plan: &'a Plan,
    rate: Option<u32>,
    tally: &'a Tally,
    /// How our own server was started.
    server: Option<&'a str>,
    /// For each connection, or why it is not known.
    server_cpu: Result<Duration, String>,
    client_cpu: Result<Duration, String>,
}

/// Runs it, prints, and fails if a connection has failed.
pub(crate) fn run(options: &Bench) -> Result<(), Trouble> {
    let answer = options.answer()?;
    allow_descriptors(usize::from(options.in_flight))?;
    let mut reactor = Reactor::new()?;
    let mut outside = Terminal::new(reactor.waker(), options)?;
    let (server, target) = match &options.target {
        Some(text) => (None, resolve(text)?),
        None => {
            let server = Server::start(&options.serve_arguments())?;
            let addr = server.addr;
            (Some(server), addr)
        }
    };
    exact_timers();
    let pids: Vec<u32> = match &server {
        Some(server) => vec![server.pid()],
        None => options.server_pid.iter().map(|pid| pid.get()).collect(),
    };
    let plan = options.plan(target, answer);

    let server_before = of_all(&pids)?;
    let client_before = cpu::ours();
    let tally = Load::run(&plan, &mut reactor, &mut outside)?;
    let client_after = cpu::ours();
    outside.clear();
    let server_after = settled(&mut reactor, &pids);

    let each = |time: Duration| time.div_f64(tally.finished.max(1) as f64);
    let server_cpu = match server_after.map(|after| after.saturating_sub(server_before)) {
        _ if pids.is_empty() => Err("nobody said which process it is (--server-pid)".to_owned()),
        Ok(Duration::ZERO) => Err("that process did nothing meanwhile; is it the server?".to_owned()),
        Ok(time) => Ok(each(time)),
        Err(Trouble::Process { why, .. }) => Err(why.to_string()),
        Err(trouble) => return Err(trouble),
    };
    let client_cpu = client_before.and_then(|before| Ok(each(client_after? - before)));
    let told = options.serve_arguments().join(" ");
    let told = format!("finale serve {told}");
    let measured = Measured {
        plan: &plan,
        rate: options.rate.map(NonZero::get),
        tally: &tally,
        server: server.is_some().then_some(told.as_str()),
        server_cpu,
        client_cpu: client_cpu.map_err(|why| why.to_string()),
    };
    let printed = print(&measured, options.json);
    drop(server);
    verdict(&tally).and(printed)
}

impl Bench {
    fn has_own_server(&self) -> bool {
        self.target.is_none()
    }

    /// Where the answer comes from and how long it is, as far as the arguments go together.
    fn answer(&self) -> Result<Expected, Trouble> {
        if !self.has_own_server() {
            return Ok(Expected::new(Source::Unknown, self.answer.unwrap_or(64)));
        }
        if self.answer.is_some() && self.serve != Service::Answer {
            return Err(Trouble::Usage(
                "--answer is for a target or for --serve answer; of the others it follows from the request",
            ));
        }
        if self.first == Finisher::Server && self.serve != Service::Answer {
            return Err(Trouble::Usage("of our own servers only --serve answer can finish first"));
        }
        Ok(match self.serve {
            Service::Answer => Expected::new(Source::Line, self.answer.unwrap_or(64)),
            Service::Echo => Expected::new(Source::Echo, self.request),
            Service::Discard => Expected::new(Source::Line, 0),
            Service::Upper if self.request > crate::house::REQUEST_LIMIT_BYTES as u64 => {
                return Err(Trouble::Usage("--serve upper takes requests of up to 1MiB"));
            }
            Service::Upper => Expected::new(Source::Upper, self.request),
        })
    }

    /// What our own server is started with, besides where to listen.
    fn serve_arguments(&self) -> Vec<String> {
        let mut arguments = vec![args::name(self.serve), "--close".to_owned(), args::name(self.close)];
        if self.shards > 1 {
            arguments.extend(["--shards".to_owned(), self.shards.to_string()]);
        }
        if self.serve == Service::Answer {
            arguments.extend(["--bytes".to_owned(), self.answer.unwrap_or(64).to_string()]);
        }
        if self.first == Finisher::Server {
            arguments.extend(["--after".to_owned(), self.request.to_string()]);
        }
        arguments
    }

    fn plan(&self, target: SocketAddr, expected: Expected) -> Plan {
        Plan {
            target,
            sources: sources(target),
            schedule: Schedule::new(self.rate, self.connections, self.duration),
            duration: self.duration,
            in_flight: usize::from(self.in_flight),
            request_bytes: self.request,
            expected,
            first: self.first,
            timeout: self.timeout,
        }
    }
}

/// On loopback 64 addresses of our own, each with its 28,000 ports.
fn sources(target: SocketAddr) -> Vec<SocketAddr> {
    match target {
        SocketAddr::V4(addr) if addr.ip().is_loopback() => {
            (1..=64).map(|last| SocketAddr::from(([127, 0, 1, last], 0))).collect()
        }
        _ => Vec::new(),
    }
}

/// Once, before anything is measured: it is not the resolver that is to be measured.
fn resolve(text: &str) -> Result<SocketAddr, Trouble> {
    if text.contains("://") {
        return Err(Trouble::Usage("--target is no URL: write HOST:PORT, as 127.0.0.1:80"));
    }
    if text.ends_with(":0") {
        return Err(Trouble::Usage("--target has port 0, at which nobody can listen"));
    }
    let target = Target::try_from(text).map_err(|source| Trouble::Connect { target: text.to_owned(), source })?;
    let mut found = target.to_string().to_socket_addrs().map_err(|source| Trouble::io("look the target up", source))?;
    found.next().ok_or_else(|| Trouble::io("look the target up", io::Error::other("the name has no address")))
}

/// Descriptors besides those of the connections: stdio, epoll, the waker, signals, the server's
/// stdout, and some for the server's own connections that are still closing.
const OTHER_DESCRIPTORS: usize = 64;

/// Raises the soft limit where it is too low; what our server needs it inherits.
fn allow_descriptors(in_flight: usize) -> Result<(), Trouble> {
    let needed = (in_flight + OTHER_DESCRIPTORS) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|allowed| allowed >= needed) {
        return Ok(());
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    if allowed < needed {
        return Err(Trouble::Descriptors { in_flight, needed, allowed });
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })
        .map_err(|errno| Trouble::io("raise the limit of descriptors", errno.into()))
}

/// The time on a core of all these processes.
fn of_all(pids: &[u32]) -> Result<Duration, Trouble> {
    pids.iter().map(|&pid| cpu::of(pid).map_err(|why| Trouble::Process { pid, why })).sum()
}

/// The server may have some closing to do when our last connection has closed: looks until it has
/// become quiet.
fn settled(reactor: &mut Reactor, pids: &[u32]) -> Result<Duration, Trouble> {
    const LOOK: Duration = Duration::from_millis(10);
    const LOOKS: u32 = 50;
    let mut last = of_all(pids)?;
    for _ in 0..LOOKS {
        let until = Instant::now() + LOOK;
        // Nothing but old timers and signals can come.
        while matches!(reactor.next_before(until), Ok(Some(_))) {}
        let now = of_all(pids)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

fn print(measured: &Measured<'_>, json: bool) -> Result<(), Trouble> {
    let text = match json {
        true => json::object(measured).map_err(|error| Trouble::Stdout(error.into()))?,
        false => page::page(measured),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Trouble::Stdout)
}

/// The exit code does not depend on whether somebody reads the page.
fn verdict(tally: &Tally) -> Result<(), Trouble> {
    match &tally.first_failure {
        Some(first) => Err(Trouble::Failed { failed: tally.failed(), finished: tally.finished, first: first.clone() }),
        None if tally.interrupted => Err(Trouble::Interrupted { finished: tally.finished }),
        None => Ok(()),
    }
}
