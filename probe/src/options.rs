//! What to probe, and how.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::answer::{Framing, TAIL};
use crate::tls::TlsOptions;

/// What to probe, and how: change the fields of [`Options::new`].
///
/// ```
/// use finale_probe::Options;
/// use std::time::Duration;
/// let mut options = Options::new(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
/// options.timeout = Duration::from_secs(2);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// A request that every polite client gets an answer to.
    pub request: Vec<u8>,
    /// How the end of its answer is found.
    pub framing: Framing,
    /// All clients speak TLS: what the cases call a FIN is close_notify and a FIN then, and the data
    /// is that in the records.
    pub tls: Option<TlsOptions>,
    /// The server speaks first: nothing is sent before its greeting.
    pub server_first: bool,
    /// Sent before the request, such as a login or an upgrade. Its answer is over after a silence
    /// of 50 ms.
    pub preface: Vec<u8>,
    /// A request whose answer takes a second or more.
    pub slow_request: Option<Vec<u8>>,
    /// A request whose answer has 8 MiB or more: less fits into the kernels between the programs.
    pub big_request: Option<Vec<u8>>,
    /// The head of a request with a body that the server refuses before the body has arrived, such
    /// as an HTTP PUT with a length of 28 MB. Without one, the probe makes it from a request of
    /// HTTP.
    pub upload: Option<Vec<u8>>,
    /// The ids of the cases to run. Empty: all.
    pub cases: Vec<String>,
    /// How often a case is tried where the moment matters.
    pub runs: u32,
    /// How long to wait for an answer or an end. A deadline is awaited for twice its claim and
    /// [`Options::late`] if that is longer.
    pub timeout: Duration,
    /// A deadline may come this much later than its claim: 30 s, since some servers look for
    /// expired connections only so often.
    pub late: Duration,
    /// The deadlines that the server is said to have.
    pub claims: Claims,
    /// At most this many connections per second.
    pub rate: u32,
    /// A client that ends its side first is served: not doing so is a failure, and not a policy.
    pub expect_half_close: bool,
    /// Storms, churn and vanishing may be tried on an address that is not local.
    pub owns_server: bool,
    /// How the server is stopped. Without it the cases of a stop are skipped.
    pub stop: Option<Stop>,
    /// A shell command that reloads the server.
    pub reload: Option<String>,
    /// A shell command that succeeds if the work of an abandoned request continues.
    pub consequence: Option<String>,
    /// Set by another thread, such as that of a signal, it ends the probe: its connections are
    /// ended, and [`Report::interrupted`](crate::Report::interrupted) is true.
    pub interrupt: Option<Arc<AtomicBool>>,
}

/// How a server is stopped.
///
/// ```
/// let stop = finale_probe::Stop::Command("systemctl restart web".to_owned());
/// ```
///
/// A test stops the server that it has started:
///
/// ```
/// use finale_probe::{Options, Stop};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// let is_stopping = Arc::new(AtomicBool::new(false));
/// let mut options = Options::new("hello\n");
/// options.stop = Some(Stop::call(move || is_stopping.store(true, Ordering::Relaxed)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// SIGTERM to this process.
    Pid(i32),
    /// A shell command. It may start the server again.
    Command(String),
    /// A function, which is called on a thread of its own: see [`Stop::call`].
    Call(StopCall),
}

impl Stop {
    /// A function that stops the server. It may start the server again, and it may return before
    /// the server is stopped.
    #[must_use]
    pub fn call(stop: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Call(StopCall(Arc::new(stop)))
    }
}

/// A function that stops a server: of [`Stop::call`].
///
/// ```
/// use finale_probe::Stop;
/// let stop = Stop::call(|| println!("stopped"));
/// assert_eq!(stop, stop.clone());
/// assert_ne!(stop, Stop::call(|| println!("stopped")));
/// ```
#[derive(Clone)]
pub struct StopCall(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for StopCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopCall(..)")
    }
}

impl PartialEq for StopCall {
    /// The same function, and not one that does the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StopCall {}

/// Deadlines that a server is said to have.
///
/// ```
/// use std::time::Duration;
/// let claims = finale_probe::Claims { idle: Some(Duration::from_secs(30)), ..Default::default() };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Between two requests.
    pub idle: Option<Duration>,
    /// Until the head of a request is complete.
    pub header: Option<Duration>,
    /// Until the body of a request is complete.
    pub body: Option<Duration>,
    /// While the client does not read its answer.
    pub send: Option<Duration>,
    /// From a stop until the last connection is over.
    pub drain: Option<Duration>,
    /// From a stop until clients are served again.
    pub restart: Option<Duration>,
}

/// Twice this, and more, is still a time on every clock.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

impl Options {
    /// Options with their defaults and this request.
    #[must_use]
    pub fn new(request: impl AsRef<[u8]>) -> Self {
        Self {
            request: request.as_ref().to_vec(),
            framing: Framing::Auto,
            tls: None,
            server_first: false,
            preface: Vec::new(),
            slow_request: None,
            big_request: None,
            upload: None,
            cases: Vec::new(),
            // In 20 runs a loss of one in seven is seen in 95 of 100 probes.
            runs: 20,
            timeout: Duration::from_secs(10),
            late: Duration::from_secs(30),
            claims: Claims::default(),
            rate: 100,
            expect_half_close: false,
            owns_server: false,
            stop: None,
            reload: None,
            consequence: None,
            interrupt: None,
        }
    }

    /// Whether a probe can have these options: why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let others = [&self.slow_request, &self.big_request, &self.upload];
        if others.into_iter().flatten().chain([&self.request]).any(Vec::is_empty) {
            return Err("a request is empty; give bytes that the server answers".to_owned());
        }
        if let Framing::Until(end) = &self.framing
            && !(1..=TAIL).contains(&end.len())
        {
            return Err(format!("the end of an answer has 1 to {TAIL} bytes, and not {}", end.len()));
        }
        let Claims { idle, header, body, send, drain, restart } = self.claims;
        let claims = [idle, header, body, send, drain, restart].into_iter().flatten();
        if claims.chain([self.timeout, self.late]).any(|time| time > LONGEST) {
            return Err(format!("a time may have at most {} days", LONGEST.as_secs() / 86_400));
        }
        Ok(())
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|set| set.load(Ordering::Acquire))
    }

    /// How long to wait for a deadline that the server is said to have.
    pub(crate) fn deadline_wait(&self, claim: Option<Duration>) -> Duration {
        claim.map_or(self.timeout, |claim| (claim * 2 + self.late).max(self.timeout))
    }

    /// Whether hostile cases may be run.
    pub(crate) fn may_be_hostile(&self, target: SocketAddr) -> bool {
        self.owns_server || target.ip().to_canonical().is_loopback()
    }
}
