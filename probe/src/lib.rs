//! Tests how any TCP server, in any language, ends its connections: does it survive a half-close,
//! lose the last answer, keep dead connections, reset where it should finish, expire early or never,
//! hurt its other clients?
//!
//! [`probe`] plays clients against a server and returns a [`Report`]. It runs on the reactor of
//! [`finale`], which checks for errors before each read: on Linux a program that reads to the end
//! does not see most lost answers.
//!
//! Invariant: nothing is judged without a measure. Polite clients are served first, and a healthy
//! client is served during each case.

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
mod watch;

pub use answer::Framing;
pub use baseline::Baseline;
pub use cases::Need;
pub use options::{Claims, Options, Stop, StopCall};
pub use report::{BystanderReport, CaseReport, Path, Report, Verdict};
pub use run::{ProbeError, Progress, probe};
#[cfg(feature = "sim")]
pub use simulated::probe_simulated;

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
    /// Storms, churn and clients that vanish: only on a local address, or with
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
