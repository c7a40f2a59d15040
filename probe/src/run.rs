//! One probe: the path, the baseline, the cases with their bystanders, the report.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::baseline::Baseline;
use crate::bystander::Bystander;
use crate::cases::{self, Case, Finding, Need};
use crate::engine::{Engine, Real};
use crate::options::Options;
use crate::path;
use crate::report::{BystanderReport, CaseReport, Path, Report, SCHEMA, Verdict, millis};
use crate::session::{Broken, Persistent, Session};

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
    /// [`Options::interrupt`] was set before polite clients were served.
    Interrupted,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(reason) | Self::Options(reason) | Self::NoBaseline(reason) => f.write_str(reason),
            Self::Interrupted => f.write_str("interrupted before polite clients were served"),
        }
    }
}

impl std::error::Error for ProbeError {}

impl From<Broken> for ProbeError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Interrupted => Self::Interrupted,
            Broken::NoBaseline(reason) | Broken::Own(reason) | Broken::Option(reason) => Self::NoBaseline(reason),
        }
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
    let unknown = |error: &dyn fmt::Display| ProbeError::Target(format!("no address was found for {target}: {error}"));
    let addrs: Vec<SocketAddr> = target.to_socket_addrs().map_err(|error| unknown(&error))?.collect();
    if addrs.is_empty() {
        return Err(unknown(&"the name has no address"));
    }
    probe_with(target, &addrs, options, || Ok(Box::new(Real::new()?)), progress)
}

/// Probes the first of these addresses that serves polite clients: of a name such as localhost,
/// often only one has a server. `engine` makes a network with no connection.
pub(crate) fn probe_with(
    target: &str,
    addrs: &[SocketAddr],
    options: &Options,
    engine: impl Fn() -> Result<Box<dyn Engine>, finale::Error>,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, ProbeError> {
    let chosen = choose(&options.cases, options.tls.is_some())?;
    options.check().map_err(ProbeError::Options)?;
    progress(Progress::Baseline);
    let mut reasons = Vec::new();
    for addr in addrs {
        let engine = engine().map_err(|error| ProbeError::NoBaseline(error.to_string()))?;
        match begin(engine, *addr, options) {
            Ok((session, path)) => return run(session, path, target, &chosen, progress),
            Err(Broken::Interrupted) => return Err(ProbeError::Interrupted),
            Err(broken) if addrs.len() == 1 => return Err(broken.into()),
            Err(broken) => reasons.push(format!("{addr}: {broken}")),
        }
    }
    Err(ProbeError::NoBaseline(reasons.join("; ")))
}

/// The measure for all cases: what polite clients see, and the way to the server.
fn begin(engine: Box<dyn Engine>, addr: SocketAddr, options: &Options) -> Result<(Session, Path), Broken> {
    let mut session = Session::new(engine, addr, options.clone());
    session.room = path::own_room()?;
    let mut baseline = Baseline::measure(&mut session)?;
    session.baseline = Some(baseline.clone());
    session.persistent = Persistent::measure(&mut session)?;
    baseline.reusable = session.persistent.is_some();
    baseline.measure_slow(&mut session)?;
    session.baseline = Some(baseline);
    session.clear()?;
    let path = path::measure(&mut session)?;
    Ok((session, path))
}

/// Runs the cases.
fn run(
    mut session: Session,
    path: Path,
    target: &str,
    chosen: &[&Case],
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, ProbeError> {
    let mut report = Report {
        schema: SCHEMA,
        target: target.to_owned(),
        address: session.target.to_string(),
        probe: env!("CARGO_PKG_VERSION"),
        path,
        baseline: session.baseline.clone().expect("it was measured"),
        interrupted: false,
        cases: Vec::new(),
    };
    for (number, case) in chosen.iter().enumerate() {
        progress(Progress::Case(number + 1, chosen.len(), case.id));
        let done = match run_case(&mut session, case) {
            Err(Broken::Interrupted) => {
                report.interrupted = true;
                session.end()?;
                break;
            }
            done => done?,
        };
        progress(Progress::Done(&done));
        report.cases.push(done);
    }
    Ok(report)
}

fn choose(ids: &[String], has_tls: bool) -> Result<Vec<&'static Case>, ProbeError> {
    if let Some(id) = ids.iter().find(|id| cases::all().all(|case| case.id != **id)) {
        let known: Vec<&str> = cases::all().map(|case| case.id).collect();
        return Err(ProbeError::Options(format!("there is no case {id}; there are {}", known.join(", "))));
    }
    let is_chosen = |case: &&Case| match ids.is_empty() {
        true => has_tls || !case.needs.contains(&Need::Tls),
        false => ids.iter().any(|id| id == case.id),
    };
    Ok(cases::all().filter(is_chosen).collect())
}

fn run_case(session: &mut Session, case: &Case) -> Result<CaseReport, Broken> {
    let (begun, connections) = (session.now(), session.connections());
    let (finding, bystander) = match lacks(session, case) {
        Some(reason) => (Finding::skip(reason), None),
        // A stopped server serves no healthy client, and may never again.
        None if case.needs.contains(&Need::Stop) => (finding_of(session, case)?, None),
        None => confirmed(session, case)?,
    };
    session.clear()?;
    let took = session.now().saturating_duration_since(begun);
    let mut report = CaseReport {
        id: case.id,
        does: case.does,
        verdict: finding.verdict,
        runs: finding.runs,
        wrong: finding.wrong,
        ms: millis(took),
        connections: session.connections() - connections,
        summary: finding.summary,
        option_failed: finding.option_failed,
        seen: finding.seen,
        source: case.source,
        cure: (finding.verdict >= Verdict::Warn).then(|| finding.cure.unwrap_or(case.cure).to_owned()),
        bystander,
        ladder: finding.ladder,
    };
    judge_bystander(session, &mut report);
    Ok(report)
}

/// Runs a case; a second time if only times speak for a harm to the bystander, as on a busy
/// machine.
fn confirmed(session: &mut Session, case: &Case) -> Result<(Finding, Option<BystanderReport>), Broken> {
    let (finding, bystander) = attempt(session, case)?;
    if !bystander.as_ref().is_some_and(BystanderReport::is_doubtful) {
        return Ok((finding, bystander));
    }
    session.clear()?;
    let (again, second) = attempt(session, case)?;
    // Without a second bystander the doubt stays.
    let is_harmed = second.as_ref().map_or(is_good(&finding), BystanderReport::is_harmed);
    Ok(if is_harmed || again.verdict > finding.verdict { (again, second) } else { (finding, second) })
}

const fn is_good(finding: &Finding) -> bool {
    matches!(finding.verdict, Verdict::Pass | Verdict::Info)
}

fn attempt(session: &mut Session, case: &Case) -> Result<(Finding, Option<BystanderReport>), Broken> {
    Bystander::begin(session);
    let finding = finding_of(session, case)?;
    // Nothing of the case is open when it is judged whether the server has recovered.
    match session.end_all().and_then(|()| Bystander::end(session)) {
        Ok(bystander) => Ok((finding, Some(bystander))),
        Err(broken) => {
            session.bystander = Bystander::default();
            let unknown = skipped(broken)?;
            // Whether healthy clients were harmed is not known: the server can't have passed.
            Ok((if is_good(&finding) { unknown } else { finding }, None))
        }
    }
}

fn finding_of(session: &mut Session, case: &Case) -> Result<Finding, Broken> {
    (case.run)(session).or_else(skipped)
}

/// What this machine lacks for one case, it need not lack for the next: the other results stay.
fn skipped(broken: Broken) -> Result<Finding, Broken> {
    match broken {
        Broken::Interrupted => Err(broken),
        Broken::Option(reason) => Ok(Finding::option_failed(reason)),
        Broken::NoBaseline(reason) | Broken::Own(reason) => Ok(Finding::skip(reason)),
    }
}

/// Harm to a healthy client is a failure of the case.
fn judge_bystander(session: &mut Session, report: &mut CaseReport) {
    const CURE: &str = "A client must not be able to hold up others: no blocking call on the thread that accepts, a \
                        deadline for each stage, and no process that ends with a connection's error.";
    let Some(bystander) = &report.bystander else { return };
    if bystander.recovered_ms.is_none() {
        session.down = Some(format!("healthy clients are no longer served since {}", report.id));
    }
    let harm = bystander.harm.as_deref().unwrap_or("it was not served");
    let prefix = match bystander.recovered_ms {
        _ if bystander.limited => {
            session.limited_since = Some(report.id);
            let words = "we are being limited: after the case polite clients were ended without an answer";
            report.summary = format!("{words}, so no hostile case follows; {}", report.summary);
            (report.verdict, report.cure) = (report.verdict.min(Verdict::Info), None);
            return;
        }
        None => format!("healthy clients are no longer served: {harm}"),
        Some(_) if !bystander.is_harmed() => return,
        Some(ms) => {
            let of = bystander.served + bystander.late + bystander.failed;
            let harmed = bystander.late + bystander.failed;
            format!(
                "{harmed} of {of} healthy clients were harmed (the first: {harm}); served again {ms} ms after the case"
            )
        }
    };
    report.summary = format!("{prefix}; {}", report.summary);
    report.verdict = Verdict::Fail;
    report.cure = Some(report.cure.take().map_or_else(|| CURE.to_owned(), |own| format!("{CURE} {own}")));
}

/// What the case needs and is not given.
fn lacks(session: &Session, case: &Case) -> Option<String> {
    let options = &session.options;
    if session.down.is_some() {
        return session.down.clone();
    }
    case.needs.iter().find_map(|need| {
        let reason = match need {
            Need::SlowRequest if options.slow_request.is_none() => {
                "needs a request that takes seconds (--slow-request)"
            }
            Need::BigRequest if options.big_request.is_none() => {
                "needs a request with an answer of 8 MiB or more (--big-request)"
            }
            Need::Deaf if !session.can_be_deaf => "no socket can be made deaf on the way to this server",
            Need::Hostile if session.limited_since.is_some() => "the server limits this address since an earlier case",
            Need::Hostile if !options.may_be_hostile(session.target) => {
                "only on a local address, or with --i-own-this-server"
            }
            Need::Reuse if session.persistent.is_none() => "the server does not answer two requests on one connection",
            Need::Stop if options.stop.is_none() => "needs a way to stop the server (--on-stop or --pid)",
            Need::Reload if options.reload.is_none() => "needs a way to reload the server (--on-reload)",
            Need::Tls if options.tls.is_none() => "only over TLS (--tls)",
            Need::HalfClose if session.baseline.as_ref().is_some_and(Baseline::is_tls12) => {
                "in TLS 1.2 a server may drop its answer at the client's close_notify (RFC 5246 section 7.2.1)"
            }
            _ => return None,
        };
        Some(reason.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::answer::Framing;

    #[test]
    fn options_that_no_probe_can_have_are_refused() {
        let wrong = |change: fn(&mut Options)| {
            let mut options = Options::new("hello\n");
            change(&mut options);
            probe("127.0.0.1:9", &options, |_| {}).expect_err("it is wrong")
        };
        let is_refused = |error: &ProbeError| matches!(error, ProbeError::Options(_));
        assert!(is_refused(&wrong(|options| options.request.clear())));
        assert!(is_refused(&wrong(|options| options.big_request = Some(Vec::new()))));
        assert!(is_refused(&wrong(|options| options.timeout = Duration::MAX)));
        assert!(is_refused(&wrong(|options| options.claims.send = Some(Duration::MAX))));
        assert!(!is_refused(&wrong(|options| options.timeout = Duration::from_nanos(1))));
        for (length, refused) in [(0, true), (1, false), (64, false), (65, true)] {
            let mut options = Options::new("hello\n");
            options.framing = Framing::Until(vec![b'x'; length]);
            let error = probe("127.0.0.1:9", &options, |_| {}).expect_err("there is no server");
            assert_eq!(is_refused(&error), refused, "{length}: {error}");
        }
    }

    #[test]
    fn of_several_addresses_the_first_with_a_server_is_probed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let _ = BufReader::new(&client).read_line(&mut String::new());
                let _ = client.write_all(b"hello\n");
            }
        });
        let none = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut options = Options::new("hello\n");
        (options.cases, options.runs) = (vec!["half-close".to_owned()], 1);
        let real = || Ok(Box::new(Real::new()?) as Box<dyn Engine>);
        let report = probe_with("name:1", &[none, addr], &options, real, |_| {}).expect("one has a server");
        assert_eq!((report.target.as_str(), report.address), ("name:1", addr.to_string()));
        let error = probe_with("name:1", &[none, none], &options, real, |_| {}).expect_err("there is no server");
        assert_eq!(error.to_string().matches(&format!("{none}: a polite client could not connect")).count(), 2);
    }
}
