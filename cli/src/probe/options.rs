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
use crate::values;

/// Test how a server ends its connections: half-closes, resets, timeouts, stops
///
/// The server may be any, in any language. Polite clients are served first: they show how long the
/// answer is, and who finishes first. Then each case plays clients that end in another way, and
/// compares. A healthy client is served during each case, and harm to it is a failure. --list says
/// what each case does.
///
/// A case fails if data was lost, a connection was held for ever, others were harmed, or a --claim
/// was broken. It warns of what is at risk, unusual, or a policy that some clients can't live with.
///
/// BYTES are text with \r, \n, \t, \0, \\ and \xHH. Storms, churn and clients that vanish are tried
/// on a local address, or with --i-own-this-server.
///
/// Exit codes: 0 no failure, 1 failures (with --strict also warnings), 2 wrong usage, 3 the server
/// could not be probed: it refuses, or polite clients have no answer. SIGINT, SIGTERM and SIGHUP end
/// the probe with what it has found; the exit code is 130, 143 or 129.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "The report, the JSON and the use in CI are described in docs/probe.md.")]
pub(crate) struct ProbeOptions {
    /// The server: a host name or an IP address and a port (an IPv6 address in brackets, as
    /// [::1]:7000)
    #[arg(value_name = "HOST:PORT", required_unless_present = "list")]
    pub(super) target: Option<String>,
    /// The request that every polite client gets an answer to, as
    /// 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    send: Option<Bytes>,
    /// The same from a file, as it is
    #[arg(long, value_name = "FILE", conflicts_with = "send")]
    send_file: Option<PathBuf>,
    /// A protocol: its request, and how an answer ends. What is given besides replaces that of the
    /// preset
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Sent before the request, as a login. Its answer is over after a silence of 50 ms
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    preface: Option<Bytes>,
    /// The answer has this many bytes [default: by its length in HTTP, else until the server's FIN,
    /// else until a silence]
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(1..=u64::MAX))]
    #[arg(allow_hyphen_values = true, conflicts_with = "expect_until")]
    expect_bytes: Option<u64>,
    /// The answer ends with this
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    expect_until: Option<Bytes>,
    /// A request whose answer takes a second or more
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    slow_request: Option<Bytes>,
    /// A request whose answer has 8 MiB or more: less fits into the kernels between the programs
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    big_request: Option<Bytes>,
    /// The head of a request whose body the server refuses before it has arrived, as an HTTP PUT of
    /// 28 MB [default: made from a request of HTTP]
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, allow_hyphen_values = true)]
    upload: Option<Bytes>,
    /// The cases to run, separated by commas [default: all]
    #[arg(long = "case", value_name = "ID", value_delimiter = ',', value_parser = case)]
    pub(super) cases: Vec<String>,
    /// Print what each case does, what it needs, and what it costs; no server is needed
    #[arg(long)]
    pub(super) list: bool,
    /// How often to try a case where the moment matters
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = values::number::<u32>(1..=100_000))]
    #[arg(allow_hyphen_values = true)]
    runs: u32,
    /// How long to wait for an answer or an end
    #[arg(short = 't', long, value_name = "DUR", default_value = "10s", value_parser = values::time_limit)]
    #[arg(allow_hyphen_values = true)]
    timeout: Duration,
    /// Deadlines that the server is said to have, as idle=30s,header=10s,drain=30s: `idle` between
    /// two requests, `header` and `body` for the parts of a request, `send` while a client does not
    /// read, `drain` from a stop to the last end, `restart` from a stop until clients are served
    #[arg(long = "claim", value_name = "NAME=DUR", value_delimiter = ',', value_parser = claim)]
    claims: Vec<(Claim, Duration)>,
    /// Stop the server with this shell command. It may start it again
    #[arg(long, value_name = "COMMAND")]
    on_stop: Option<String>,
    /// Stop the server by SIGTERM to this process
    #[arg(long, value_name = "PID", value_parser = values::number::<i32>(1..=i32::MAX as u64))]
    #[arg(allow_hyphen_values = true, conflicts_with = "on_stop")]
    pid: Option<i32>,
    /// Reload the server with this shell command
    #[arg(long, value_name = "COMMAND")]
    on_reload: Option<String>,
    /// A shell command that succeeds if the work for an abandoned request continues
    #[arg(long, value_name = "COMMAND")]
    consequence: Option<String>,
    /// What the server is known to do: not doing it is a failure, and not a policy
    #[arg(long, value_enum, value_name = "WHAT")]
    expect: Option<Expect>,
    /// Begin at most this many connections per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = values::number::<u32>(1..=100_000))]
    #[arg(allow_hyphen_values = true)]
    rate: u32,
    /// Try storms, churn and clients that vanish on an address that is not local, too
    #[arg(long = "i-own-this-server")]
    owns_server: bool,
    /// Warnings are failures, too
    #[arg(long)]
    pub(super) strict: bool,
    /// Print a ladder of the worst run of each case that did not pass
    #[arg(long, conflicts_with = "json")]
    pub(super) trace: bool,
    /// Print one JSON object on stdout instead of the page
    #[arg(long)]
    pub(super) json: bool,
    /// Write a JUnit report to this file: a test case per case
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub(super) junit: Option<PathBuf>,
    /// Show no progress bar
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

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
                _ => ":PORT",
            };
            return Err(Error::usage(format!("'{text}' is a URL; write HOST:PORT, as {host}{port}")));
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
        self.check_what_a_claim_needs()?;
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
    fn check_what_a_claim_needs(&self) -> Result<(), Error> {
        let (stops, reads) = (self.on_stop.is_some() || self.pid.is_some(), self.big_request.is_some());
        let lacks = self.claims.iter().find_map(|(claim, _)| match claim {
            Claim::Drain | Claim::Restart if !stops => Some((claim, "a way to stop the server: --on-stop or --pid")),
            Claim::Send if !reads => Some((claim, "a large answer: --big-request")),
            _ => None,
        });
        lacks.map_or(Ok(()), |(claim, what)| {
            Err(Error::usage(format!("--claim {} is checked only with {what}", values::name(*claim))))
        })
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
