//! The cases: each is a short program of clients, and a judgement of what they saw.

mod abandon;
mod busy;
mod churn;
mod deadline;
mod drip;
mod early_answer;
mod exchange;
mod farewell;
mod half_close;
mod hold;
mod idle;
mod late_input;
mod pipeline;
mod race;
mod reload;
mod request;
mod resets;
mod reuse;
mod silent;
mod slow_reader;
mod stop;
mod storm;
mod tally;
mod tls;
mod vanish;

use std::collections::BTreeMap;

use finale::trace::Record;
use serde::Serialize;
use serde_json::Value;

use crate::report::Verdict;
use crate::session::{Broken, Session};
pub(crate) use exchange::{BIG, Owed};
pub(crate) use hold::measure_big;
pub use request::is_http;
pub(crate) use tally::Tally;

/// One case.
pub(crate) struct Case {
    /// Its name.
    pub(crate) id: &'static str,
    /// What its clients do, in one line.
    pub(crate) does: &'static str,
    /// Where the right behaviour is described: a section of an RFC or a manual page.
    pub(crate) source: &'static str,
    /// What to change in a server that fails, in one sentence.
    pub(crate) cure: &'static str,
    /// Connections, bytes and seconds that it takes, about, on a server that ends well, without the
    /// healthy clients. Measured on `examples/http`. "As long as the timeout":
    /// [`Options::timeout`], by default 10 s.
    ///
    /// [`Options::timeout`]: crate::Options::timeout
    pub(crate) cost: &'static str,
    /// What it can't do without.
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(&mut Session) -> Result<Finding, Broken>,
}

/// What a case can't do without.
///
/// ```
/// use finale_probe::Need;
/// assert_eq!(Need::Stop.words(), "a way to stop the server (--on-stop or --pid)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Need {
    /// `Options::slow_request`.
    SlowRequest,
    /// `Options::big_request`.
    BigRequest,
    /// A socket that can be made deaf.
    Deaf,
    /// An address that is local, or `Options::owns_server`.
    Hostile,
    /// The baseline has shown that a connection can be used twice.
    Reuse,
    /// `Options::stop`.
    Stop,
    /// `Options::reload`.
    Reload,
    /// `Options::tls`. Without it the case is left out, unless it is named.
    Tls,
    /// A stream that the client can end before the server: not TLS 1.2, in which a server answers
    /// close_notify at once with its own, and drops what it has not sent.
    HalfClose,
}

impl Need {
    /// It in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::SlowRequest => "a request that takes seconds (--slow-request)",
            Self::BigRequest => "a request with an answer of 8 MiB or more (--big-request)",
            Self::Deaf => "a socket that can be made deaf",
            Self::Hostile => "a local address, or --i-own-this-server",
            Self::Reuse => "a connection that can be used for two requests",
            Self::Stop => "a way to stop the server (--on-stop or --pid)",
            Self::Reload => "a way to reload the server (--on-reload)",
            Self::Tls => "TLS (--tls)",
            Self::HalfClose => "TLS 1.3, if it is over TLS",
        }
    }
}

/// What a case has found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) runs: u32,
    pub(crate) wrong: u32,
    pub(crate) summary: String,
    pub(crate) seen: BTreeMap<String, Value>,
    pub(crate) ladder: Vec<Record>,
    /// Another sentence of cure than the case's.
    pub(crate) cure: Option<&'static str>,
    /// A command or a process that an option names did not do its part.
    pub(crate) option_failed: bool,
}

impl Finding {
    /// A finding of one line.
    pub(crate) fn of(verdict: Verdict, summary: impl Into<String>) -> Self {
        let wrong = u32::from(verdict >= Verdict::Warn);
        let (seen, ladder, summary) = (BTreeMap::new(), Vec::new(), summary.into());
        Self { verdict, runs: 1, wrong, summary, seen, ladder, cure: None, option_failed: false }
    }

    /// The case could not be tried.
    pub(crate) fn skip(reason: impl Into<String>) -> Self {
        Self { runs: 0, ..Self::of(Verdict::Skip, reason) }
    }

    /// The case could not be tried, since a command or a process that an option names did not do
    /// its part.
    pub(crate) fn option_failed(reason: impl Into<String>) -> Self {
        Self { option_failed: true, ..Self::skip(reason) }
    }

    /// Adds what was seen.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.seen.insert(name.to_owned(), value.into());
        self
    }
}

/// All cases, in the order in which they are run: what may hurt the server comes last.
pub(crate) const ALL: &[&[Case]] = &[
    half_close::CASES,
    tls::CASES,
    slow_reader::CASES,
    late_input::CASES,
    early_answer::CASES,
    farewell::CASES,
    silent::CASES,
    drip::CASES,
    idle::CASES,
    hold::CASES,
    pipeline::CASES,
    reuse::CASES,
    race::CASES,
    busy::CASES,
    resets::CASES,
    abandon::CASES,
    vanish::CASES,
    churn::CASES,
    storm::CASES,
    // After these there may be no server.
    reload::CASES,
    stop::CASES,
];

/// All cases in one row.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    ALL.iter().flat_map(|cases| cases.iter())
}
