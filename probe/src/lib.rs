//! Tests how any TCP server, in any language, ends its connections: does it survive a half-close,
//! lose the last answer, keep dead connections, reset where it should finish, expire early or
//! never, hurt its other clients?
//!
//! [`probe`] plays clients against a server and returns a [`Report`]. It runs on the reactor of
//! [`finale`], which checks for errors before each read: on Linux a program that reads to the end
//! does not see most lost answers.
//!
//! Invariant: nothing is judged without a measure. Polite clients are served first, and a healthy
//! client is served during each case.
//!
//! # In a test
//!
//! A test starts its server on a free port, probes it, and prints the report if a case has failed.
//! [`Stop::call`] stops the server in the middle of the test; without a [`Stop`] the cases of a
//! stop are skipped.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use std::time::Duration;
//! use finale_probe::{Options, Stop, Verdict, probe};
//!
//! /// Answers each line, and reads to the end of the client.
//! fn serve(stream: TcpStream) -> std::io::Result<()> {
//!     let mut writer = stream.try_clone()?;
//!     let mut lines = BufReader::new(stream);
//!     let mut line = String::new();
//!     while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
//!         writer.write_all(line.to_uppercase().as_bytes())?;
//!         line.clear();
//!     }
//!     Ok(())
//! }
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let is_stopping = Arc::new(AtomicBool::new(false));
//! let flag = Arc::clone(&is_stopping);
//! std::thread::spawn(move || {
//!     for stream in listener.incoming().flatten() {
//!         if flag.load(Ordering::Acquire) {
//!             return; // The listener is closed; the connections continue.
//!         }
//!         std::thread::spawn(move || serve(stream));
//!     }
//! });
//!
//! let mut options = Options::new("hello\n");
//! options.timeout = Duration::from_secs(1);
//! options.runs = 5;
//! options.cases = ["half-close", "stop-in-flight"].map(str::to_owned).into();
//! options.stop = Some(Stop::call(move || {
//!     is_stopping.store(true, Ordering::Release);
//!     let _ = TcpStream::connect(addr); // It wakes the accepting thread.
//! }));
//! let report = probe(&addr.to_string(), &options, |_| {})?;
//! assert_eq!(report.failures(), 0, "{report}");
//! // A case that was skipped has found nothing.
//! assert_eq!(report.count(Verdict::Skip), 0, "{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Each case needs some seconds: choose with [`Options::cases`], and shorten the wait for an answer
//! or a deadline with [`Options::timeout`]. Tests that probe at the same time disturb each other,
//! since the cases measure times.

mod answer;
mod answers;
mod baseline;
mod bystander;
mod cases;
mod client;
mod control;
mod engine;
mod held;
mod options;
mod path;
mod records;
mod report;
mod run;
mod session;
#[cfg(feature = "sim")]
mod simulated;
mod sockopt;
mod stop;
mod tls;
mod watch;

pub use answer::Framing;
pub use baseline::Baseline;
pub use cases::{Need, is_http};
pub use finale_tls;
pub use options::{Claims, Options, Stop, StopCall};
pub use report::{BystanderReport, CaseReport, Path, Report, Verdict};
pub use run::{ProbeError, Progress, probe};
#[cfg(feature = "sim")]
pub use simulated::probe_simulated;
pub use tls::TlsOptions;

/// A case that the probe knows.
///
/// ```
/// let half_close = finale_probe::cases().find(|case| case.id == "half-close").unwrap();
/// println!("{}: {}", half_close.id, half_close.does);
/// ```
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct CaseInfo {
    /// Its name.
    pub id: &'static str,
    /// What its clients do.
    pub does: &'static str,
    /// Where the right behaviour is described.
    pub source: &'static str,
    /// What it can't do without.
    pub needs: &'static [Need],
    /// Storms and clients that vanish: only on a local address, or with
    /// [`Options::owns_server`].
    pub hostile: bool,
    /// How many connections, bytes and seconds it takes, about, on a server that ends well.
    pub cost: &'static str,
}

/// The cases, in the order in which they are run.
pub fn cases() -> impl Iterator<Item = CaseInfo> {
    cases::all().map(|case| CaseInfo {
        id: case.id,
        does: case.does,
        source: case.source,
        needs: case.needs,
        hostile: case.needs.contains(&Need::Hostile),
        cost: case.cost,
    })
}
