//! The cases: each is a short program of clients, and a judgement of what they saw.

mod busy;
mod half_close;
mod pipeline;
mod race;
mod reload;
mod reuse;
mod stop;
mod tally;

use std::collections::BTreeMap;

use finale::trace::Record;
use serde_json::Value;

use crate::report::Verdict;
use crate::session::{Broken, Session};
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
    /// What it can't do without.
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(&mut Session) -> Result<Finding, Broken>,
}

/// What a case can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
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
}

impl Finding {
    /// A finding of one line.
    pub(crate) fn of(verdict: Verdict, summary: impl Into<String>) -> Self {
        let wrong = u32::from(verdict >= Verdict::Warn);
        Self { verdict, runs: 1, wrong, summary: summary.into(), seen: BTreeMap::new(), ladder: Vec::new(), cure: None }
    }

    /// The case could not be tried.
    pub(crate) fn skip(reason: impl Into<String>) -> Self {
        Self { runs: 0, ..Self::of(Verdict::Skip, reason) }
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
    pipeline::CASES,
    reuse::CASES,
    race::CASES,
    busy::CASES,
    // After these there may be no server.
    reload::CASES,
    stop::CASES,
];

/// All cases in one row.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    ALL.iter().flat_map(|cases| cases.iter())
}
