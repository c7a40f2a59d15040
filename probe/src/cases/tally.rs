//! What many runs of a case have seen: counted by variant, with the records of the worst.

use std::collections::BTreeMap;

use finale::trace::Record;
use serde_json::Value;

use super::Finding;
use crate::client::Client;
use crate::report::Verdict;
use crate::session::Session;

/// Counts what was seen. The first worst run gives the ladder.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How often each thing was seen, by variant.
    seen: BTreeMap<String, BTreeMap<String, u32>>,
    runs: u32,
    wrong: u32,
    worst: Option<Worst>,
}

#[derive(Debug)]
struct Worst {
    verdict: Verdict,
    variant: String,
    what: String,
    ladder: Vec<Record>,
}

impl Tally {
    /// Counts a run of a variant: what was seen of a client, and how it is judged.
    pub(crate) fn add(
        &mut self,
        session: &Session,
        variant: &str,
        client: Client,
        verdict: Verdict,
        what: impl ToString,
    ) {
        // Only the ladder of the worst is kept: that of each would take long.
        let ladder = if self.is_worse(verdict) { session.records(client) } else { Vec::new() };
        self.add_records(variant, verdict, what, ladder);
    }

    fn is_worse(&self, verdict: Verdict) -> bool {
        self.worst.as_ref().is_none_or(|worst| verdict > worst.verdict)
    }

    /// The same for a client whose records were taken before.
    pub(crate) fn add_records(&mut self, variant: &str, verdict: Verdict, what: impl ToString, ladder: Vec<Record>) {
        let what = what.to_string();
        self.runs += 1;
        self.wrong += u32::from(verdict >= Verdict::Warn);
        if self.is_worse(verdict) {
            self.worst = Some(Worst { verdict, variant: variant.to_owned(), what: what.clone(), ladder });
        }
        *self.seen.entry(variant.to_owned()).or_default().entry(what).or_insert(0) += 1;
    }

    /// How many runs were wrong, in all variants.
    pub(crate) const fn wrong(&self) -> u32 {
        self.wrong
    }

    /// How often something was tried.
    pub(crate) const fn runs(&self) -> u32 {
        self.runs
    }

    /// How often this was seen, in all variants.
    pub(crate) fn count(&self, what: &str) -> u32 {
        self.seen.values().filter_map(|counts| counts.get(what)).sum()
    }

    /// The finding, with the worst verdict of all runs.
    pub(crate) fn finding(self) -> Finding {
        let Some(worst) = self.worst else { return Finding::skip("nothing was tried") };
        let summary = match self.wrong {
            0 => format!("{} in {} runs", worst.what, self.runs),
            wrong => format!("{wrong} of {} runs, the worst: {}: {}", self.runs, worst.variant, worst.what),
        };
        let seen = self.seen.into_iter().map(|(variant, counts)| (variant, Value::from_iter(counts)));
        Finding {
            verdict: worst.verdict,
            runs: self.runs,
            wrong: self.wrong,
            summary,
            seen: seen.collect(),
            ladder: worst.ladder,
            cure: None,
            option_failed: false,
        }
    }
}
