//! The arguments of `finale bench`, and the plan that they define.

use std::net::SocketAddr;
use std::time::Duration;

use finale::Target;

use super::expected::{Expected, Source};
use super::load::{Finisher, Plan};
use super::merge::MergeOptions;
use super::schedule::Schedule;
use crate::errors::Error;
use crate::serve::{Closing, REQUEST_LIMIT_BYTES, Service};
use crate::tls::{Client, ClientTls};
use crate::values;

/// Measure a server with half-closing connections: how many per second, latency, endings, CPU time
///
/// Each connection connects, sends the request, finishes, reads the answer to its end and closes.
/// With --first server the server finishes before we do. Without --target, bench starts a server of
/// its own (`finale serve`) on loopback, and stops it at the end. Our side always closes confirmed:
/// of each successful connection it is known that every byte was received.
///
/// Without --rate the loop is closed: a connection begins as soon as another one has closed, and
/// its latency counts from the connect call. Then a stall of the server also stalls the load, and
/// the latencies look better than what users would see. With --rate the loop is open: the n-th
/// connection is due n/R seconds after the beginning, whatever happened to earlier ones, and its
/// latency counts from that time. If --in-flight connections are open it begins late, which its
/// latency includes (no coordinated omission). If it could not begin within --timeout of the time at
/// which it was due, it is left out, so that an overloaded run ends; then the exit code is 1.
///
/// These are failures: a reset, a refusal, an answer that is not complete within --timeout, an
/// answer of the wrong length or content, and every other ending that is not clean. They are
/// counted by kind and are not part of the latencies. Of a target's answer only the length is
/// checked. If the first 200 connections fail, no more are begun.
///
/// With --tls the latency includes the handshake, and an answer ends with the server's close_notify:
/// a stream that ends without it is a failure of its own kind (truncated).
///
/// A name is looked up once, and its addresses race each other once, as `finale connect` does it:
/// a connection without a request chooses the address that is measured.
///
/// The exit code is 1 if a connection failed. After SIGINT, SIGTERM or SIGHUP the results up to then
/// are printed, and the exit code is 130, 143 or 129; a second signal ends bench at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = JSON_HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct BenchOptions {
    #[command(subcommand)]
    pub(super) command: Option<BenchCommand>,
    /// The server to measure: a name or an IP address and a port, unix:PATH, or unix:@NAME. On an
    /// IPv4 loopback address we connect from 127.0.1.1 to 127.0.1.64 in turn, so that connections in
    /// TIME_WAIT don't use up the ports
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["serve", "close", "shards"])]
    pub(super) target: Option<String>,
    /// The service of `finale serve` to start and measure
    #[arg(long, value_enum, value_name = "SERVICE", default_value_t = Service::Answer)]
    pub(super) serve: Service,
    /// How the started server closes its connections
    #[arg(long, value_enum, default_value_t = Closing::Confirmed)]
    pub(super) close: Closing,
    /// The number of reactors of the started server, each with its own thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::number::<u16>(1..=256))]
    #[arg(allow_hyphen_values = true)]
    pub(super) shards: u16,
    /// How many connections to make: 500, 10k, 2M
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = values::count::<u64>(1..=u64::MAX), allow_hyphen_values = true)]
    pub(super) connections: u64,
    /// Begin connections for this time (10s, 1m) instead of a fixed number; those in flight then
    /// may finish. With --rate all that are due in this time are begun, also if they begin late
    #[arg(short = 'z', long, value_name = "DUR", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true, conflicts_with = "connections")]
    pub(super) duration: Option<Duration>,
    /// First run the same load for this time, and don't count it
    #[arg(long, value_name = "DUR", value_parser = values::time_limit, allow_hyphen_values = true)]
    pub(super) warm_up: Option<Duration>,
    /// How many connections to have open at once
    #[arg(short = 'c', long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = values::count::<u16>(1..=16_000), allow_hyphen_values = true)]
    pub(super) in_flight: u16,
    /// How much to send: 0, 64, 16KiB
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = values::size)]
    #[arg(allow_hyphen_values = true)]
    pub(super) request: u64,
    /// How much to expect, of a target or of `--serve answer` [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = values::size, allow_hyphen_values = true)]
    pub(super) answer: Option<u64>,
    /// Which side finishes first
    #[arg(long, value_enum, default_value_t = Finisher::Client)]
    pub(super) first: Finisher,
    /// Begin this many connections per second, evenly spread, whether or not others have finished
    #[arg(short = 'R', long, value_name = "N", allow_hyphen_values = true)]
    #[arg(value_parser = values::count::<u32>(1..=u64::from(u32::MAX)))]
    pub(super) rate: Option<u32>,
    /// Reset a connection that takes longer than this, and count it as failed
    #[arg(short = 't', long, value_name = "DUR", default_value = "10s", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true)]
    pub(super) timeout: Duration,
    /// The process that serves the target on this machine, to measure its CPU time; several are
    /// separated by commas
    #[arg(long, value_name = "PID", requires = "target", value_delimiter = ',')]
    #[arg(value_parser = values::number::<u32>(1..=u64::from(u32::MAX)))]
    pub(super) server_pid: Vec<u32>,
    /// Print one JSON object on stdout instead of the page
    #[arg(long)]
    pub(super) json: bool,
    /// Show no progress bar
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(super) tls: ClientTls,
    /// Resume the sessions of earlier connections, if the server permits it
    #[arg(long, requires = "tls", help_heading = "TLS")]
    pub(super) tls_resumption: bool,
}

/// Short lines: clap wraps them without an indent.
const JSON_HELP: &str = "\
The JSON object of --json:
  target         the address
  name           what was looked up for it, or null
  server         how our own server was started, or null
  loads          how many were merged
  connections    those that ended by themselves, failed or not
  failed         how many of them failed
  failures       failures by kind, without kinds of 0
  first_failure  what the first one looked like, or null
  given_up       whether none was begun after 200 failures
  never_begun    left out, for any reason; null with
                 --duration and no --rate
  overloaded     left out since they were due more than
                 --timeout ago
  acknowledged   successful ones whose every byte the
                 server's kernel has acknowledged
  first_fin      of successful ones, whose FIN was first:
                 local, peer, unknown
  interrupted    whether a signal ended the run
  cut_off        connections in flight at that time
  seconds        from the first start to the last close
  per_second     successful connections per second
  latency_us     of successful ones: p50, p90, p99, p999 and
                 max in microseconds, or null
  histogram      of the latencies in nanoseconds: V2 compressed
                 form of HdrHistogram in base64
  begun_per_second
  late           begun more than 1 ms after they were due
  bytes_sent, bytes_received, bytes_sent_per_second,
  bytes_received_per_second
  server_cpu_us_per_connection, client_cpu_us_per_connection
                 CPU time of all threads in microseconds,
                 or null if unknown
  content_checked
                 whether more than the length of an answer is
                 known
  tls            with --tls: handshakes, resumed, and
                 resumption, whether that was tried; or null
  in_flight, request_bytes, answer_bytes, first, rate,
  timeout_ms, duration_ms, warm_up_ms
                 the options
  version        of finale";

#[derive(Debug, clap::Subcommand)]
pub(super) enum BenchCommand {
    Merge(MergeOptions),
}

/// The default of `--answer`.
const ANSWER_BYTES: u64 = 64;

impl BenchOptions {
    /// The expected answer, if the arguments fit together.
    pub(super) fn expected(&self) -> Result<Expected, Error> {
        if self.target.is_some() {
            return Ok(Expected::new(Source::Unknown, self.answer.unwrap_or(ANSWER_BYTES)));
        }
        let name = values::name(self.serve);
        if self.answer.is_some() && self.serve != Service::Answer {
            return Err(Error::usage(format!(
                "--answer works with --target or --serve answer; the answer of --serve {name} follows from the request"
            )));
        }
        if self.first == Finisher::Server && self.serve != Service::Answer {
            return Err(Error::usage(format!(
                "--first server works with --target or --serve answer; --serve {name} can't finish first"
            )));
        }
        Ok(match self.serve {
            Service::Answer => Expected::new(Source::Line, self.answer.unwrap_or(ANSWER_BYTES)),
            Service::Echo => Expected::new(Source::Echo, self.request),
            Service::Discard => Expected::new(Source::Line, 0),
            Service::Upper if self.request > REQUEST_LIMIT_BYTES as u64 => {
                return Err(Error::usage("--serve upper takes requests of up to 1MiB; lower --request"));
            }
            Service::Upper => Expected::new(Source::Upper, self.request),
        })
    }

    /// The TLS of our side. Our own server has none.
    pub(super) fn open_tls(&self) -> Result<Option<Client>, Error> {
        match &self.target {
            Some(target) => self.tls.open(target, self.tls_resumption),
            None if self.tls.is_on() => Err(Error::usage("--tls measures another server; name it with --target")),
            None => Ok(None),
        }
    }

    /// A process that is named twice would count twice.
    pub(super) fn check_pids(&self) -> Result<(), Error> {
        let is_repeated = |(at, pid): &(usize, &u32)| self.server_pid[..*at].contains(pid);
        match self.server_pid.iter().enumerate().find(is_repeated) {
            Some((_, pid)) => Err(Error::usage(format!("--server-pid {pid} is named twice, and would count twice"))),
            None => Ok(()),
        }
    }

    /// The arguments of our own server, without its address.
    pub(super) fn serve_arguments(&self) -> Vec<String> {
        let mut arguments = vec![values::name(self.serve), "--close".to_owned(), values::name(self.close)];
        if self.shards > 1 {
            arguments.extend(["--shards".to_owned(), self.shards.to_string()]);
        }
        if self.serve == Service::Answer {
            arguments.extend(["--bytes".to_owned(), self.answer.unwrap_or(ANSWER_BYTES).to_string()]);
        }
        if self.first == Finisher::Server {
            arguments.extend(["--after".to_owned(), self.request.to_string()]);
        }
        arguments
    }

    /// Which connections to make, and when.
    pub(super) fn schedule(&self) -> Schedule {
        Schedule::new(self.rate.and_then(std::num::NonZero::new), self.connections, self.duration)
    }

    /// The same for a warm-up.
    pub(super) fn warm_up_schedule(&self, time: Duration) -> Schedule {
        Schedule::new(self.rate.and_then(std::num::NonZero::new), u64::MAX, Some(time))
    }

    /// The load for this address.
    pub(super) fn plan(&self, target: Target, expected: Expected, tls: Option<Client>) -> Plan {
        Plan {
            sources: sources(&target),
            target,
            schedule: self.schedule(),
            duration: self.duration,
            in_flight: usize::from(self.in_flight),
            request_bytes: self.request,
            expected,
            first: self.first,
            timeout: self.timeout,
            tls,
        }
    }
}

/// On loopback 64 source addresses, each with its 28,000 ports. Otherwise the kernel chooses.
fn sources(target: &Target) -> Vec<SocketAddr> {
    match target {
        Target::Addr(SocketAddr::V4(addr)) if addr.ip().is_loopback() => {
            (1..=64).map(|last| SocketAddr::from(([127, 0, 1, last], 0))).collect()
        }
        _ => Vec::new(),
    }
}
