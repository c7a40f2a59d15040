//! The arguments of `finale probe`, and the probe that they describe.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::ValueEnum;
use finale::Target;
use finale_probe::{Claims, Framing, Options, Stop};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::preset::Preset;
use crate::errors::Error;
use crate::tls::{Client, ClientTls};
use crate::values;

/// Test how a server ends its connections: half-closes, resets, timeouts, stops
///
/// The server may be written in any language, and must be running. Polite clients are served first:
/// they show how long the answer is, and which side finishes first. Then each case (see --list)
/// plays clients that end in another way, and compares. All cases take about two minutes; with
/// --timeout 2s, one minute. A healthy client is served during each case, and harm to it is a
/// failure.
///
/// A case fails if data was lost, a connection was held for ever, others were harmed, or a --claim
/// was broken. A warning is about what is at risk, unusual, or a policy that some clients can't
/// live with.
///
/// BYTES are text with \r, \n, \t, \0, \\ and \xHH. COMMAND is run by sh -c. Storms, churn and
/// clients that vanish are tried only on a local address, unless the server is yours: see the
/// option for that.
///
/// Exit codes: 0 no failure, 1 failures (with --strict also warnings), 2 wrong usage, 3 the server
/// could not be probed (it refuses, or polite clients have no stable answer), or a COMMAND failed.
/// SIGINT, SIGTERM and SIGHUP end the probe with what it has found; the exit code is 130, 143 or
/// 129.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  finale probe '[::1]:7000' --send 'hello\\n' --expect-until '\\n' --case half-close,late-input
  finale probe 127.0.0.1:8000 --preset http --pid 4711 --claim idle=5s,drain=10s
  finale probe localhost:80 --preset http --junit out.xml

docs/probe.md describes the report, how to mend a server, the JSON, and the use in CI.")]
pub(crate) struct ProbeOptions {
    /// The server: a host name or an IP address and a port (an IPv6 address in brackets, as
    /// [::1]:7000)
    #[arg(value_name = "HOST:PORT", required_unless_present = "list")]
    pub(super) target: Option<String>,

    /// The request, as 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'. The server must
    /// answer it quickly, always in the same way
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    #[arg(help_heading = REQUESTS)]
    send: Option<Bytes>,
    /// The request from a file, without escapes
    #[arg(long, value_name = "FILE", conflicts_with = "send", help_heading = REQUESTS)]
    send_file: Option<PathBuf>,
    /// A protocol: its request, and how an answer ends. What the other options of a request say
    /// replaces what the preset says
    #[arg(long, value_enum, help_heading = REQUESTS)]
    preset: Option<Preset>,
    /// Sent before each request, such as a login. Its answer is over after a silence of 50 ms
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    #[arg(help_heading = REQUESTS)]
    preface: Option<Bytes>,
    /// The answer has this many bytes [default: by its length in HTTP, else until the server's FIN,
    /// else until a silence]
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(1..=u64::MAX))]
    #[arg(allow_hyphen_values = true, conflicts_with = "expect_until", help_heading = REQUESTS)]
    expect_bytes: Option<u64>,
    /// The answer ends with these bytes, 1 to 64
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    #[arg(help_heading = REQUESTS)]
    expect_until: Option<Bytes>,
    /// A request whose answer takes 2 s or more, for abandon-slow, half-close and the stops
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    #[arg(help_heading = REQUESTS)]
    slow_request: Option<Bytes>,
    /// A request whose answer has 8 MiB or more, for never-read, slow-reader and reset-mid-answer:
    /// a smaller one fits into the buffers of the kernels
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    #[arg(help_heading = REQUESTS)]
    big_request: Option<Bytes>,
    /// The head of a request that the server refuses before the body has arrived, for early-answer,
    /// as an HTTP PUT of 28 MB [default: made from a request of HTTP]
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    #[arg(help_heading = REQUESTS)]
    upload: Option<Bytes>,

    /// The cases to run, separated by commas [default: all]
    #[arg(long = "case", value_name = "ID", value_delimiter = ',', value_parser = case, help_heading = CASES)]
    pub(super) cases: Vec<String>,
    /// Print what each case does, what it needs, and what it costs; no server is needed
    #[arg(long, help_heading = CASES)]
    pub(super) list: bool,
    /// How often to try a case where the moment matters
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = values::number::<u32>(1..=100_000))]
    #[arg(allow_hyphen_values = true, help_heading = CASES)]
    runs: u32,
    /// How long to wait for an answer or an end
    #[arg(short = 't', long, value_name = "DUR", default_value = "10s", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true, help_heading = CASES)]
    timeout: Duration,
    /// Begin at most this many connections per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = values::number::<u32>(1..=100_000))]
    #[arg(allow_hyphen_values = true, help_heading = CASES)]
    rate: u32,
    /// Try storms and clients that vanish, and more churn, also on an address that is not local
    #[arg(long = "i-own-this-server", help_heading = CASES)]
    owns_server: bool,

    /// Deadlines that the server promises, as idle=30s,header=10s,drain=30s; breaking one is a
    /// failure. `idle`: between two requests. `header`, `body`: until that part of a request is
    /// complete. `send`: while a client does not read (with --big-request). `drain`: from a stop to
    /// the last end. `restart`: from a stop until clients are served
    #[arg(long = "claim", value_name = "NAME=DUR", value_delimiter = ',', value_parser = claim)]
    #[arg(help_heading = SERVER)]
    claims: Vec<(Claim, Duration)>,
    /// What the server promises: not doing it is a failure, and not a policy
    #[arg(long, value_enum, value_name = "WHAT", help_heading = SERVER)]
    expect: Option<Expect>,
    /// Stop the server with this command, for the cases stop-*. It may start it again
    #[arg(long, value_name = "COMMAND", help_heading = SERVER)]
    on_stop: Option<String>,
    /// Stop the server by SIGTERM to this process, for the cases stop-*. It is not started again
    #[arg(long, value_name = "PID", value_parser = values::number::<i32>(1..=i32::MAX as u64))]
    #[arg(allow_hyphen_values = true, conflicts_with = "on_stop", help_heading = SERVER)]
    pid: Option<i32>,
    /// Reload the server with this command, for the case reload
    #[arg(long, value_name = "COMMAND", help_heading = SERVER)]
    on_reload: Option<String>,
    /// A command that succeeds only while the server works on a slow request, for abandon-slow:
    /// does the work end when its client is gone?
    #[arg(long, value_name = "COMMAND", requires = "slow_request", help_heading = SERVER)]
    consequence: Option<String>,

    /// Warnings are failures, too
    #[arg(long, help_heading = REPORT)]
    pub(super) strict: bool,
    /// Print a ladder of the worst run of each case that failed or warned
    #[arg(long, conflicts_with = "json", help_heading = REPORT)]
    pub(super) trace: bool,
    /// Print one JSON object on stdout instead of the page
    #[arg(long, help_heading = REPORT)]
    pub(super) json: bool,
    /// Write a JUnit report to this file: a test case per case
    #[arg(long, value_name = "FILE", conflicts_with = "list", help_heading = REPORT)]
    pub(super) junit: Option<PathBuf>,
    /// Show no progress bar
    #[arg(short, long, help_heading = REPORT)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    tls: ClientTls,
}

/// The groups of options in the help.
const REQUESTS: &str = "Requests";
const CASES: &str = "Cases";
const SERVER: &str = "What the server promises, and how it is stopped";
const REPORT: &str = "Report";

/// clap takes a `Vec` for an argument with several values.
type Bytes = Box<[u8]>;

/// A deadline that can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Claim {
    Idle,
    Header,
    Body,
    Send,
    Drain,
    Restart,
}

/// The cases in which a client that ends its side first is owed its answers.
const HALF_CLOSES: &[&str] = &["half-close", "pipeline-fin"];

impl Claim {
    /// The cases that compare it with what they see.
    const fn cases(self) -> &'static [&'static str] {
        match self {
            Self::Idle => &["idle", "connect-only", "half-closed-hold", "abandon-slow", "vanish"],
            Self::Header => &["connect-only", "half-request", "drip-request", "half-handshake", "vanish"],
            Self::Body => &["half-request", "drip-request"],
            Self::Send => &["never-read"],
            Self::Drain => &["stop-in-flight", "stop-race", "stop-idle"],
            Self::Restart => &["stop-restart"],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Expect {
    /// A client that ends its side first gets its answer
    HalfClose,
}

fn case(text: &str) -> Result<String, String> {
    match finale_probe::cases().find(|case| case.id == text) {
        Some(case) => Ok(case.id.to_owned()),
        None => Err("there is no such case; `finale probe --list` prints all".to_owned()),
    }
}

fn claim(text: &str) -> Result<(Claim, Duration), String> {
    let named = text.split_once('=').and_then(|(name, time)| Some((Claim::from_str(name, false).ok()?, time)));
    let (claim, time) =
        named.ok_or("write NAME=DUR, separated by commas; NAME is idle, header, body, send, drain or restart")?;
    Ok((claim, values::time_limit(time)?))
}

impl ProbeOptions {
    /// The target, if it is one. A name is not looked up.
    pub(super) fn target(&self) -> Result<&str, Error> {
        let text = self.target.as_deref().unwrap_or_default();
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or_default();
            let port = match scheme {
                _ if host.contains(':') => "",
                "http" => ":80",
                "https" => ":443",
                _ => ":PORT",
            };
            let tls = if scheme == "https" { ", with --tls" } else { "" };
            return Err(Error::usage(format!("'{text}' is a URL; write HOST:PORT, as {host}{port}{tls}")));
        }
        match text.parse::<Target>() {
            Ok(Target::Unix(_)) => Err(Error::usage(format!("'{text}': only TCP can be probed; write HOST:PORT"))),
            Ok(_) => Ok(text),
            Err(source) => Err(Error::Connect { target: text.to_owned(), source }),
        }
    }

    /// What to probe, and how. `interrupt` ends it.
    pub(super) fn probe(&self, interrupt: Arc<AtomicBool>) -> Result<Options, Error> {
        let preset = self.preset.map(|preset| preset.options(self.target.as_deref().unwrap_or_default()));
        let request = match (self.request()?, &preset) {
            (Some(request), _) => request,
            (None, Some(preset)) => preset.request.clone(),
            (None, None) => {
                return Err(Error::usage("a request is missing: give --send, --send-file or --preset http"));
            }
        };
        self.check_what_a_claim_needs(&request)?;
        self.check_pid()?;
        let mut options = Options::new(request);
        if let Some(preset) = preset {
            (options.framing, options.server_first) = (preset.framing, preset.server_first);
        }
        if let Some(bytes) = self.expect_bytes {
            options.framing = Framing::Bytes(bytes);
        }
        if let Some(end) = &self.expect_until {
            options.framing = Framing::Until(end.to_vec());
        }
        options.tls = self.tls.open(self.target.as_deref().unwrap_or_default(), false)?.as_ref().map(Client::for_probe);
        options.preface = self.preface.as_deref().unwrap_or_default().to_vec();
        let bytes = |given: &Option<Bytes>| given.as_deref().map(<[u8]>::to_vec);
        options.slow_request = bytes(&self.slow_request);
        options.big_request = bytes(&self.big_request);
        options.upload = bytes(&self.upload);
        (options.cases, options.runs) = (self.cases.clone(), self.runs);
        (options.timeout, options.rate) = (self.timeout, self.rate);
        options.claims = self.claims()?;
        options.expect_half_close = self.expect == Some(Expect::HalfClose);
        options.owns_server = self.owns_server;
        options.stop = self.on_stop.clone().map(Stop::Command).or(self.pid.map(Stop::Pid));
        (options.reload, options.consequence) = (self.on_reload.clone(), self.consequence.clone());
        options.interrupt = Some(interrupt);
        Ok(options)
    }

    /// The request that is given, if one is.
    fn request(&self) -> Result<Option<Vec<u8>>, Error> {
        let request = match (&self.send, &self.send_file) {
            (Some(bytes), _) => bytes.to_vec(),
            (None, Some(path)) => std::fs::read(path)
                .map_err(|error| Error::usage(format!("--send-file {}: can't read it: {error}", path.display())))?,
            (None, None) => return Ok(None),
        };
        if request.is_empty() {
            return Err(Error::usage("the request is empty; give bytes that the server answers"));
        }
        Ok(Some(request))
    }

    /// A claim that no case could check would seem to hold.
    fn check_what_a_claim_needs(&self, request: &[u8]) -> Result<(), Error> {
        let (stops, reads) = (self.on_stop.is_some() || self.pid.is_some(), self.big_request.is_some());
        let lacks = self.claims.iter().find_map(|(claim, _)| match claim {
            Claim::Drain | Claim::Restart if !stops => Some((claim, "a way to stop the server: --on-stop or --pid")),
            Claim::Send if !reads => Some((claim, "a large answer: --big-request")),
            _ => None,
        });
        lacks.map_or(Ok(()), |(claim, what)| {
            Err(Error::usage(format!("--claim {} is checked only with {what}", values::name(*claim))))
        })?;
        if self.claims.iter().any(|(claim, _)| *claim == Claim::Body) && !finale_probe::is_http(request) {
            return Err(Error::usage("--claim body is checked only with a request of HTTP: others have no body"));
        }
        self.check_cases_of_promises(finale_probe::is_http(request))
    }

    /// The same for the cases that are chosen.
    fn check_cases_of_promises(&self, is_http: bool) -> Result<(), Error> {
        // With HTTP, the time before the first request is the one for its head.
        let has_idle_start = !is_http || self.claims.iter().any(|(claim, _)| *claim == Claim::Header);
        let claims = self.claims.iter().map(|(claim, _)| (format!("--claim {}", values::name(*claim)), claim.cases()));
        let expected = self.expect.map(|Expect::HalfClose| ("--expect half-close".to_owned(), HALF_CLOSES));
        for (option, cases) in claims.chain(expected).filter(|_| !self.cases.is_empty()) {
            let is_checked = |id: &&str| match *id {
                "connect-only" => has_idle_start,
                "abandon-slow" => self.consequence.is_some(),
                _ => true,
            };
            let cases: Vec<&str> = cases.iter().copied().filter(is_checked).collect();
            if !self.cases.iter().any(|id| cases.contains(&id.as_str())) {
                let cases = cases.join(", ");
                return Err(Error::usage(format!("{option} is checked only by --case {cases}; choose one of them")));
            }
        }
        Ok(())
    }

    /// A number that no process has would leave the cases of a stop out.
    fn check_pid(&self) -> Result<(), Error> {
        let Some(pid) = self.pid else { return Ok(()) };
        let refused = Pid::from_raw(pid).map_or(Err(Errno::SRCH), test_kill_process);
        refused.map_err(|error| Error::usage(format!("--pid {pid}: it can't be stopped: {error}")))
    }

    fn claims(&self) -> Result<Claims, Error> {
        let mut claims = Claims::default();
        for (claim, time) in &self.claims {
            let slot = match claim {
                Claim::Idle => &mut claims.idle,
                Claim::Header => &mut claims.header,
                Claim::Body => &mut claims.body,
                Claim::Send => &mut claims.send,
                Claim::Drain => &mut claims.drain,
                Claim::Restart => &mut claims.restart,
            };
            if slot.replace(*time).is_some() {
                return Err(Error::usage(format!("--claim {} is given more than once", values::name(*claim))));
            }
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_names_cases_that_exist() {
        let promises = Claim::value_variants().iter().map(|claim| claim.cases()).chain([HALF_CLOSES]);
        for id in promises.flatten() {
            assert_eq!(case(id).as_deref(), Ok(*id));
        }
    }
}
