//! What the cases of deadlines share: a client waits, and how it was ended is compared with what the
//! server is said to do.
//!
//! Invariant: too early is judged by the longest time that the server can have counted, and too late
//! by the shortest. So a busy machine accuses nobody of an early end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finale::trace::Record;
use serde_json::{Value, json};

use super::Finding;
use crate::client::Client;
use crate::held::Held;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

/// What a server is said to do: it ends the client between these two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    least: Duration,
    most: Duration,
}

impl Claim {
    pub(super) fn of(claim: Option<Duration>) -> Option<Self> {
        claim.map(|claim| Self { least: claim, most: claim })
    }

    /// Either of two deadlines may be the one.
    pub(super) fn either(one: Option<Duration>, other: Option<Duration>) -> Option<Self> {
        let (one, other) = (one.or(other)?, other.or(one)?);
        Some(Self { least: one.min(other), most: one.max(other) })
    }

    /// How long to wait for it.
    pub(super) fn wait(claim: Option<Self>, session: &Session) -> Duration {
        session.options.deadline_wait(claim.map(|claim| claim.most))
    }
}

/// A client whose deadline is awaited.
pub(super) struct Waiting {
    pub(super) name: &'static str,
    pub(super) client: Client,
    pub(super) claim: Option<Claim>,
    /// The latest moment at which the server can have begun to count.
    pub(super) since: Instant,
    /// The earliest.
    pub(super) earliest: Instant,
    /// A deadline was missed, and the connection was closed at the next byte.
    pub(super) passive: bool,
    /// For one that was not ended.
    pub(super) held: Option<Held>,
}

impl Waiting {
    /// A client that waits since its connection was established.
    pub(super) fn since_open(session: &Session, name: &'static str, client: Client, claim: Option<Claim>) -> Self {
        let seen = session.seen(client);
        let since = seen.connected.unwrap_or(seen.opened);
        Self { name, client, claim, since, earliest: seen.opened, passive: false, held: None }
    }

    /// How long after `since` the server ended it.
    pub(super) fn after(&self, session: &Session) -> Option<Duration> {
        session.seen(self.client).ended_by_server().map(|end| end.saturating_duration_since(self.since))
    }

    /// The same, if that was a deadline.
    pub(super) fn deadline(&self, session: &Session) -> Option<Duration> {
        self.after(session).filter(|after| *after >= AT_ONCE && !is_refusal(session, self.client) && !self.passive)
    }
}

/// Whether the server has answered what was sent, instead of waiting for more.
pub(super) fn is_refusal(session: &Session, client: Client) -> bool {
    session.seen(client).answer.status().is_some_and(|status| status != 408)
}

/// An end that comes sooner is an answer to what was sent, and no deadline.
pub(super) const AT_ONCE: Duration = Duration::from_millis(250);
/// How long an answer to one more byte is awaited.
const POKE: Duration = Duration::from_millis(500);
/// The part of a claim that must have passed.
const EARLY_PERCENT: u32 = 90;

/// Waits until the server has ended all of them, for at most `limit`.
pub(super) fn wait_for_ends(session: &mut Session, all: &[Waiting], limit: Duration) -> Result<(), Broken> {
    session.wait_until(limit, |session| all.iter().all(|it| session.seen(it.client).has_ended()))?;
    for it in all {
        session.settle(it.client)?;
    }
    Ok(())
}

/// Sends these bytes to a client whose deadline has not come, and waits for what they cause: a server
/// that looks at its clocks only when data arrives ends this client now, and none of the others.
pub(super) fn poke(session: &mut Session, all: &mut [Waiting], which: usize, bytes: &[u8]) -> Result<(), Broken> {
    let client = all[which].client;
    if session.seen(client).has_ended() || session.seen(client).answer.bytes > 0 {
        return Ok(());
    }
    let ended = |session: &Session| all.iter().filter(|it| session.seen(it.client).has_ended()).count();
    let before = ended(session);
    session.send(client, bytes);
    let limit = POKE + session.usual_time() * 3;
    session.wait_for(client, limit, |seen| seen.has_ended() || seen.answer.bytes > 0)?;
    // Its last words may come before its end.
    session.wait_for(client, POKE / 10, super::super::client::Seen::has_ended)?;
    let is_ended = session.seen(client).has_ended();
    let is_answered = session.outcome(client).got == crate::answer::Got::Whole;
    let others = ended(session) - before - usize::from(is_ended);
    all[which].passive = is_ended && !is_answered && others == 0;
    Ok(())
}

/// Asks for those that are still open whether the server has them.
pub(super) fn ask(session: &mut Session, all: &mut [Waiting]) -> Result<(), Broken> {
    let open: Vec<Client> =
        all.iter().map(|it| it.client).filter(|client| !session.seen(*client).has_ended()).collect();
    let held = session.are_held(&open)?;
    for (client, held) in open.iter().zip(held) {
        for it in all.iter_mut().filter(|it| it.client == *client) {
            it.held = Some(held);
        }
    }
    Ok(())
}

/// Waits for the greeting of a server that speaks first: a close with it unread would be a reset.
pub(super) fn open_silent(session: &mut Session) -> Result<Client, Broken> {
    let client = session.open(&Open { bare: true, ..Open::default() })?;
    if session.options.server_first {
        let limit = session.options.timeout;
        session.wait_for(client, limit, |seen| seen.answer.head.contains(&b'\n') || seen.has_ended())?;
        session.mark(client);
    }
    Ok(client)
}

/// How a client that waited is judged: by its claim, or without one.
pub(super) fn judge(session: &Session, it: &Waiting) -> (Verdict, String) {
    let seen = session.seen(it.client);
    let Some(end) = seen.ended_by_server().filter(|_| !it.passive) else { return judge_open(session, it) };
    let after = end.saturating_duration_since(it.since);
    let longest = end.saturating_duration_since(it.earliest);
    let by = if seen.reset.is_some() { "reset" } else { "FIN" };
    let words = last_words(session, it.client);
    let said = if words.is_empty() { String::new() } else { format!(" with the last words \"{words}\"") };
    let ended = format!("ended after {} ms by {by}{said}", after.as_millis());
    let is_refusal = is_refusal(session, it.client);
    match it.claim {
        Some(claim) if longest < claim.least * EARLY_PERCENT / 100 && !is_refusal => {
            (Verdict::Fail, format!("{ended}, too early for the claim of {} ms", claim.least.as_millis()))
        }
        Some(claim) if after > claim.most + session.options.late => {
            (Verdict::Fail, format!("{ended}, too late for the claim of {} ms", claim.most.as_millis()))
        }
        _ if !words.is_empty() && seen.reset.is_some() => {
            // A reset discards on some systems what was not read yet.
            (Verdict::Warn, format!("{ended}: the reset can destroy the last words"))
        }
        None if longest < AT_ONCE => (Verdict::Info, format!("{ended}, which is no deadline")),
        Some(_) if is_refusal && longest < AT_ONCE => (Verdict::Info, format!("{ended}, which is no deadline")),
        _ => (Verdict::Pass, ended),
    }
}

fn judge_open(session: &Session, it: &Waiting) -> (Verdict, String) {
    let waited = session.now().saturating_duration_since(it.since).as_millis();
    let claimed = it.claim.map(|claim| format!(", although {} ms are claimed", claim.most.as_millis()));
    let verdict = if it.claim.is_some() { Verdict::Fail } else { Verdict::Warn };
    let claimed = claimed.unwrap_or_default();
    if it.passive {
        let what = "its deadline is late, and triggered by data: not ended in time, and closed at the next byte";
        return (verdict, format!("{what}{claimed}"));
    }
    let seen = session.seen(it.client);
    match it.held {
        _ if seen.answer.bytes > 0 && (it.claim.is_none() || is_refusal(session, it.client)) => {
            (Verdict::Info, format!("answered with \"{}\", and not ended", seen.answer.first_line()))
        }
        Some(Held::Gone) => (Verdict::Warn, format!("forgotten without FIN or reset within {waited} ms")),
        Some(Held::Silent) => {
            (Verdict::Info, format!("not ended within {waited} ms, and its kernel no longer answers"))
        }
        Some(Held::Held) if it.claim.is_some() => (verdict, format!("still held after {waited} ms{claimed}")),
        _ if it.claim.is_some() => (verdict, format!("not ended within {waited} ms{claimed}")),
        _ => (Verdict::Info, format!("no deadline within {waited} ms")),
    }
}

/// What the server said before it ended the client, such as 408 or 421: good manners.
pub(super) fn last_words(session: &Session, client: Client) -> String {
    session.seen(client).answer.first_line()
}

/// The facts of a client that waited, for programs.
pub(super) fn facts(session: &Session, it: &Waiting) -> Value {
    let seen = session.seen(it.client);
    let end = match (it.passive, seen.reset, seen.fin, it.held) {
        (true, ..) => "at the next byte",
        (_, Some(_), ..) => "reset",
        (_, _, Some(_), _) => "fin",
        (_, _, _, Some(held)) => held.name(),
        _ => "open",
    };
    let after = it.after(session).filter(|_| !it.passive).map(|after| millis(after));
    json!({ "end": end, "after_ms": after, "words": last_words(session, it.client) })
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What the variants of a case have shown. The worst gives the verdict and the ladder.
#[derive(Default)]
pub(super) struct Sheet {
    lines: Vec<(String, String)>,
    seen: BTreeMap<String, Value>,
    wrong: u32,
    worst: Option<Worst>,
}

struct Worst {
    verdict: Verdict,
    line: usize,
    ladder: Vec<Record>,
}

impl Sheet {
    pub(super) fn add(
        &mut self,
        session: &Session,
        name: &str,
        client: Client,
        (verdict, what): (Verdict, String),
        facts: Value,
    ) {
        self.wrong += u32::from(verdict >= Verdict::Warn);
        if self.worst.as_ref().is_none_or(|worst| verdict > worst.verdict) {
            let line = self.lines.len();
            self.worst = Some(Worst { verdict, line, ladder: session.records(client) });
        }
        self.lines.push((name.to_owned(), what));
        self.seen.insert(name.to_owned(), facts);
    }

    /// Adds a client that waited.
    pub(super) fn add_waiting(&mut self, session: &Session, it: &Waiting) {
        self.add(session, it.name, it.client, judge(session, it), facts(session, it));
    }

    /// One sentence: of the worst, or of all if nothing is wrong. `hint` follows a fact.
    pub(super) fn finding(self, hint: &str) -> Finding {
        let Some(worst) = self.worst else { return Finding::skip("nothing could be tried") };
        let line = |(name, what): &(String, String)| format!("{name}: {what}");
        let mut summary = match worst.verdict {
            Verdict::Warn | Verdict::Fail => line(&self.lines[worst.line]),
            Verdict::Skip | Verdict::Info | Verdict::Pass => self.lines.iter().map(line).collect::<Vec<_>>().join("; "),
        };
        if worst.verdict == Verdict::Info && !hint.is_empty() {
            summary = format!("{summary} ({hint})");
        }
        Finding {
            verdict: worst.verdict,
            runs: u32::try_from(self.lines.len()).unwrap_or(u32::MAX),
            wrong: self.wrong,
            summary,
            seen: self.seen,
            ladder: worst.ladder,
            cure: None,
        }
    }
}
