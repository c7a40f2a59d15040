//! One probe: the path, the baseline, the cases with their bystanders, the report.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::baseline::{Baseline, polite};
use crate::bystander::Bystander;
use crate::cases::{self, Case, Finding, Need};
use crate::engine::{Engine, Real};
use crate::options::Options;
use crate::report::{BystanderReport, CaseReport, Path, Report, SCHEMA, Verdict};
use crate::session::{Broken, Open, Persistent, Session};

/// Why a probe has no report.
///
/// ```
/// use finale_probe::{Options, probe};
/// let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// let addr = server.local_addr().unwrap();
/// drop(server);
/// let error = probe(&addr.to_string(), &Options::new("hello\n"), |_| {}).unwrap_err();
/// assert!(error.to_string().contains("could not connect"), "{error}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeError {
    /// The target is no address, or has none.
    Target(String),
    /// An option contradicts another one, or names a case that does not exist.
    Options(String),
    /// Polite clients have no answer that others could be compared with, or this machine can't open
    /// connections.
    NoBaseline(String),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(reason) | Self::Options(reason) | Self::NoBaseline(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ProbeError {}

impl From<Broken> for ProbeError {
    fn from(broken: Broken) -> Self {
        Self::NoBaseline(broken.to_string())
    }
}

/// What a probe does next.
///
/// ```
/// fn print(progress: finale_probe::Progress<'_>) {
///     eprintln!("{progress:?}");
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The polite clients are served.
    Baseline,
    /// This case begins: its number, how many there are, and its id.
    Case(usize, usize, &'static str),
    /// It is over.
    Done(&'a CaseReport),
}

/// Probes a server on the operating system's network: `target` is `HOST:PORT`. Takes between some
/// seconds and some minutes, by the deadlines of the server and [`Options::timeout`].
///
/// # Errors
/// [`ProbeError`] if there is nothing that could be judged.
///
/// ```
/// use finale_probe::{Options, Verdict, probe};
/// # use std::io::{BufRead, BufReader, Write};
/// # let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// # let addr = server.local_addr().unwrap();
/// # std::thread::spawn(move || {
/// #     for client in server.incoming() {
/// #         std::thread::spawn(move || {
/// #             let mut client = client.unwrap();
/// #             let _ = BufReader::new(&client).read_line(&mut String::new());
/// #             let _ = client.write_all(b"hello\n");
/// #         });
/// #     }
/// # });
/// let mut options = Options::new("hello\n");
/// options.cases = vec!["half-close".to_owned()];
/// let report = probe(&addr.to_string(), &options, |_| {})?;
/// assert_eq!(report.cases[0].verdict, Verdict::Pass);
/// # Ok::<(), finale_probe::ProbeError>(())
/// ```
pub fn probe(target: &str, options: &Options, progress: impl FnMut(Progress<'_>)) -> Result<Report, ProbeError> {
    let unknown = |error: &dyn fmt::Display| ProbeError::Target(format!("{target} is no target: {error}"));
    let mut addrs = target.to_socket_addrs().map_err(|error| unknown(&error))?;
    let addr = addrs.next().ok_or_else(|| unknown(&"the name has no address"))?;
    let engine = Real::new().map_err(|error| ProbeError::NoBaseline(error.to_string()))?;
    run(Box::new(engine), target, addr, options, progress)
}

/// Probes a server that an engine reaches.
pub(crate) fn run(
    engine: Box<dyn Engine>,
    target: &str,
    addr: SocketAddr,
    options: &Options,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, ProbeError> {
    let chosen = choose(&options.cases)?;
    let mut session = Session::new(engine, addr, options.clone());
    progress(Progress::Baseline);
    let mut baseline = Baseline::measure(&mut session)?;
    session.baseline = Some(baseline.clone());
    session.persistent = Persistent::measure(&mut session)?;
    baseline.reusable = session.persistent.is_some();
    session.baseline = Some(baseline.clone());
    session.clear()?;
    let path = path(&mut session)?;
    let mut reports = Vec::new();
    for (number, case) in chosen.iter().enumerate() {
        progress(Progress::Case(number + 1, chosen.len(), case.id));
        let report = run_case(&mut session, case)?;
        progress(Progress::Done(&report));
        reports.push(report);
    }
    let version = env!("CARGO_PKG_VERSION");
    Ok(Report { schema: SCHEMA, target: target.to_owned(), probe: version, path, baseline, cases: reports })
}

fn choose(ids: &[String]) -> Result<Vec<&'static Case>, ProbeError> {
    if let Some(id) = ids.iter().find(|id| cases::all().all(|case| case.id != **id)) {
        let known: Vec<&str> = cases::all().map(|case| case.id).collect();
        return Err(ProbeError::Options(format!("there is no case {id}; there are {}", known.join(", "))));
    }
    Ok(cases::all().filter(|case| ids.is_empty() || ids.iter().any(|id| id == case.id)).collect())
}

fn run_case(session: &mut Session, case: &Case) -> Result<CaseReport, ProbeError> {
    let (finding, bystander) = match lacks(session, case) {
        Some(reason) => (Finding::skip(reason), None),
        None => {
            // A stopped server serves no healthy client, and may never again.
            let has_bystander = !case.needs.contains(&Need::Stop);
            if has_bystander {
                Bystander::begin(session);
            }
            let finding = (case.run)(session)?;
            let bystander = if has_bystander { Some(Bystander::end(session)?) } else { None };
            session.clear()?;
            (finding, bystander)
        }
    };
    let mut report = CaseReport {
        id: case.id,
        does: case.does,
        verdict: finding.verdict,
        runs: finding.runs,
        wrong: finding.wrong,
        summary: finding.summary,
        seen: finding.seen,
        source: case.source,
        cure: (finding.verdict >= Verdict::Warn).then_some(finding.cure.unwrap_or(case.cure)),
        bystander,
        ladder: finding.ladder,
    };
    judge_bystander(&mut report);
    Ok(report)
}

/// Harm to a healthy client is a failure of the case.
fn judge_bystander(report: &mut CaseReport) {
    const CURE: &str = "A client must not be able to hold up others: no blocking call on the thread that accepts, a \
                        deadline for each stage, and no process that ends with a connection's error.";
    let Some(BystanderReport { failed, recovered_ms, .. }) = report.bystander else { return };
    let harm = match (failed, recovered_ms) {
        (_, None) => "a healthy client is no longer served",
        (1.., Some(_)) => "a healthy client was not served meanwhile",
        (0, Some(_)) => return,
    };
    report.summary = format!("{harm}; {}", report.summary);
    (report.verdict, report.cure) = (Verdict::Fail, Some(CURE));
}

/// What the case needs and is not given.
fn lacks(session: &Session, case: &Case) -> Option<String> {
    let options = &session.options;
    case.needs.iter().find_map(|need| {
        let reason = match need {
            Need::SlowRequest if options.slow_request.is_none() => {
                "needs a request that takes seconds (--slow-request)"
            }
            Need::BigRequest if options.big_request.is_none() => {
                "needs a request with an answer of 8 MiB or more (--big-request)"
            }
            Need::Deaf if !session.can_be_deaf => "no socket can be made deaf on the way to this server",
            Need::Hostile if !options.may_be_hostile(session.target) => {
                "only on a local address, or with --i-own-this-server"
            }
            Need::Reuse if !session.baseline.as_ref().is_some_and(|it| it.reusable) => {
                "the server does not answer two requests on one connection"
            }
            Need::Stop if options.stop.is_none() => "needs a way to stop the server (--on-stop or --pid)",
            Need::Reload if options.reload.is_none() => "needs a way to reload the server (--on-reload)",
            _ => return None,
        };
        Some(reason.to_owned())
    })
}

/// The way to the server: its round trip, whether deafness works on it, the TTL of its packets.
fn path(session: &mut Session) -> Result<Path, Broken> {
    session.can_be_deaf = true;
    let client = session.open(&Open::default())?;
    let mut works = session.deafen(client)?;
    if works {
        let request = session.options.request.clone();
        session.send(client, &request);
        works = !session.wait_for(client, std::time::Duration::from_millis(150), |seen| {
            seen.answer.bytes > 0 || seen.has_ended()
        })?;
        session.hear(client);
    }
    session.can_be_deaf = works;
    session.clear()?;
    let _ = polite(session)?;
    let round_trip_us = session.round_trip.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    Ok(Path { ttl: None, round_trip_us, can_be_deaf: works, between: None })
}
