//! What the cases of deadlines share: a client waits, and how it was ended is compared with what
//! the server is said to do.
//!
//! Invariant: too early is judged by the longest time that the server can have counted, and too
//! late by the shortest. So no server is accused of an early end by a busy machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finale::trace::Record;
use serde_json::{Value, json};

use super::Finding;
use crate::answer::Got;
use crate::client::{Client, Seen};
use crate::held::Held;
use crate::report::{Verdict, millis};
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

    /// How long to wait for it: an eighth longer than said, since deadlines are round numbers, and
    /// one that comes just when the wait is over would be taken for the effect of what is done
    /// then.
    pub(super) fn wait(claim: Option<Self>, session: &Session) -> Duration {
        let wait = session.options.deadline_wait(claim.map(|claim| claim.most));
        wait + wait / 8
    }
}

/// What another byte has caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poked {
    Nothing,
    /// The connection was closed, and others were not.
    Closed,
    /// The request was answered.
    Answered,
}

/// A client whose deadline is awaited, and what was seen of it when the wait was over.
pub(super) struct Waiting {
    pub(super) name: &'static str,
    pub(super) client: Client,
    pub(super) claim: Option<Claim>,
    /// The latest moment at which the server can have begun to count.
    pub(super) since: Instant,
    /// The earliest.
    earliest: Instant,
    waited: Duration,
    pub(super) end: Option<End>,
    /// What it was sent: before its end the last words, such as 408 or 421, which are good manners.
    pub(super) words: String,
    /// It was answered, and the server no longer waits for more.
    pub(super) is_answered: bool,
    /// For one that was not ended.
    pub(super) poked: Poked,
    pub(super) held: Option<Held>,
}

/// How the server ended a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Since the latest moment at which the server can have begun to count.
    pub(super) after: Duration,
    /// Since the earliest.
    pub(super) longest: Duration,
    by_reset: bool,
    /// What it was sent came just before: those were last words.
    has_words: bool,
}

/// An end that comes sooner is an answer to what was sent, and no deadline.
pub(super) const AT_ONCE: Duration = Duration::from_millis(250);
/// How long an answer to another byte is awaited.
const POKE: Duration = Duration::from_millis(500);
/// The part of a claim that must have passed.
const EARLY_PERCENT: u32 = 90;

impl Waiting {
    pub(super) fn new(
        name: &'static str,
        client: Client,
        claim: Option<Claim>,
        (earliest, since): (Instant, Instant),
    ) -> Self {
        let waited = Duration::ZERO;
        let (words, poked) = (String::new(), Poked::Nothing);
        Self { name, client, claim, since, earliest, waited, end: None, words, is_answered: false, poked, held: None }
    }

    /// A client that waits since its connection was established.
    pub(super) fn since_open(session: &Session, name: &'static str, client: Client, claim: Option<Claim>) -> Self {
        let seen = session.seen(client);
        Self::new(name, client, claim, (seen.opened, seen.connected.unwrap_or(seen.opened)))
    }

    fn look(&mut self, session: &Session) {
        let seen = session.seen(self.client);
        self.waited = session.now().saturating_duration_since(self.since);
        self.end = seen.ended_by_server().map(|end| End {
            after: end.saturating_duration_since(self.since),
            longest: end.saturating_duration_since(self.earliest),
            by_reset: seen.reset.is_some(),
            has_words: seen.last_byte.is_some_and(|last| end.saturating_duration_since(last) < AT_ONCE),
        });
        self.words = seen.answer.first_line();
        self.is_answered = is_answered(session, self.client);
    }

    /// The deadline that was found.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.end.map(|end| end.after).filter(|after| *after >= AT_ONCE && !self.is_answered)
    }

    /// How it is judged: by its claim, or without one. `late`: how much later a deadline may come.
    pub(super) fn judge(&self, late: Duration) -> (Verdict, String) {
        let Some(end) = self.end else { return self.judge_open() };
        let words = &self.words;
        if self.is_answered && !end.by_reset {
            let what = format!("answered with \"{words}\" before it was complete, and ended after");
            return (Verdict::Info, format!("{what} {} ms", end.after.as_millis()));
        }
        let said = if end.has_words { format!(" with the last words \"{words}\"") } else { String::new() };
        let by = if end.by_reset { "reset" } else { "FIN" };
        let ended = format!("ended after {} ms by {by}{said}", end.after.as_millis());
        match self.claim {
            Some(claim) if end.longest < claim.least * EARLY_PERCENT / 100 && !self.is_answered => {
                (Verdict::Fail, format!("{ended}, too early for the claim of {} ms", claim.least.as_millis()))
            }
            Some(claim) if end.after > claim.most + late => {
                (Verdict::Fail, format!("{ended}, too late for the claim of {} ms", claim.most.as_millis()))
            }
            // A reset discards on some systems what was not read yet. Without words it destroys
            // nothing: some servers reset on purpose, and keep no TIME-WAIT.
            _ if end.has_words && end.by_reset => {
                (Verdict::Warn, format!("{ended}: the reset can destroy the last words"))
            }
            None if end.longest < AT_ONCE => (Verdict::Info, format!("{ended}, which is no deadline")),
            _ => (Verdict::Pass, ended),
        }
    }

    fn judge_open(&self) -> (Verdict, String) {
        let waited = self.waited.as_millis();
        let claimed = self.claim.map(|claim| format!(", although {} ms are claimed", claim.most.as_millis()));
        let is_claimed = claimed.is_some();
        let claimed = claimed.unwrap_or_default();
        let or_fail = |verdict| if is_claimed { Verdict::Fail } else { verdict };
        let none = if is_claimed { "not ended" } else { "no deadline" };
        if !self.words.is_empty() && (!is_claimed || self.is_answered) {
            return (Verdict::Info, format!("answered with \"{}\", and not ended", self.words));
        }
        match (self.poked, self.held) {
            (Poked::Closed, _) => {
                let what = "its deadline is late, and triggered by data: open after";
                (or_fail(Verdict::Warn), format!("{what} {waited} ms{claimed}, and closed at the next byte"))
            }
            (Poked::Answered, _) => {
                (or_fail(Verdict::Info), format!("{none} within {waited} ms{claimed}, and then still served"))
            }
            (_, Some(Held::Gone)) => {
                // Forgotten, or reset at this very moment: silent-forget tells them apart.
                (or_fail(Verdict::Info), format!("{none} within {waited} ms{claimed}, and gone when it was asked for"))
            }
            // The way is broken: that is not a deadline of the server.
            (_, Some(Held::Silent)) => {
                (Verdict::Info, format!("not ended within {waited} ms, and its kernel answers no keep-alive"))
            }
            (_, Some(Held::Held)) if is_claimed => (Verdict::Fail, format!("still held after {waited} ms{claimed}")),
            _ => (or_fail(Verdict::Info), format!("{none} within {waited} ms{claimed}")),
        }
    }

    /// The facts, for programs.
    pub(super) fn facts(&self) -> Value {
        let end = match (self.end, self.poked, self.held) {
            (Some(End { by_reset: true, .. }), ..) => "reset",
            (Some(_), ..) => "fin",
            (None, Poked::Closed, _) => "at the next byte",
            (None, Poked::Answered, _) => "still served",
            (None, _, Some(held)) => held.name(),
            (None, ..) => "open",
        };
        let after = self.end.map(|end| millis(end.after));
        json!({ "end": end, "after_ms": after, "waited_ms": millis(self.waited), "words": self.words })
    }
}

/// Whether the server has answered what was sent, instead of waiting for more.
pub(super) fn is_answered(session: &Session, client: Client) -> bool {
    session.seen(client).answer.status().is_some_and(|status| status != 408)
}

/// Waits until the server has ended all of them, for at most `limit`.
pub(super) fn wait_for_ends(session: &mut Session, all: &mut [Waiting], limit: Duration) -> Result<(), Broken> {
    session.wait_until(limit, |session| all.iter().all(|it| session.seen(it.client).has_ended()))?;
    let Some(last) = all.last() else { return Ok(()) };
    // A reset that follows a FIN has come for all of them then.
    session.settle(last.client)?;
    for it in all {
        it.look(session);
    }
    Ok(())
}

/// Sends these bytes to a client whose deadline has not come, and waits for what they cause: a
/// server that looks at its clocks only when data arrives ends this client now, and none of the
/// others.
pub(super) fn poke(session: &mut Session, all: &mut [Waiting], which: usize, bytes: &[u8]) -> Result<(), Broken> {
    let client = all[which].client;
    let ended = |session: &Session| all.iter().filter(|it| session.seen(it.client).has_ended()).count();
    let before = ended(session);
    if session.seen(client).has_ended() || !all[which].words.is_empty() {
        return Ok(());
    }
    session.send(client, bytes);
    let limit = POKE + session.usual_time() * 3;
    session.wait_for(client, limit, |seen| seen.has_ended() || seen.answer.bytes > 0)?;
    // An end may follow what it says.
    session.wait_for(client, POKE / 10, Seen::has_ended)?;
    let is_ended = session.seen(client).has_ended();
    let others = ended(session) - before - usize::from(is_ended);
    all[which].poked = match session.outcome(client).got {
        Got::Whole => Poked::Answered,
        Got::Cut { .. } | Got::Other { .. } | Got::Nothing if is_ended && others == 0 => Poked::Closed,
        Got::Cut { .. } | Got::Other { .. } | Got::Nothing => Poked::Nothing,
    };
    Ok(())
}

/// A deadline can come by chance just when a byte is sent. A second client of the same kind, which
/// sends nothing more, shows whether it does: the byte has caused nothing then.
pub(super) fn confirm_poked(
    session: &mut Session,
    it: &mut Waiting,
    again: impl FnOnce(&mut Session) -> Result<Client, Broken>,
) -> Result<(), Broken> {
    let Some(closed) = session.seen(it.client).ended_by_server().filter(|_| it.poked == Poked::Closed) else {
        return Ok(());
    };
    let age = closed.saturating_duration_since(it.earliest);
    let client = again(session)?;
    session.wait_for(client, age + POKE, Seen::has_ended)?;
    let mut second = Waiting::since_open(session, it.name, client, it.claim);
    second.look(session);
    session.leave(client)?;
    if second.end.is_some() {
        *it = second;
    }
    Ok(())
}

/// Asks for those that are still open whether the server has them.
pub(super) fn ask(session: &mut Session, all: &mut [Waiting]) -> Result<(), Broken> {
    let is_open = |it: &&mut Waiting| !session.seen(it.client).has_ended();
    let mut open: Vec<&mut Waiting> = all.iter_mut().filter(is_open).collect();
    let clients: Vec<Client> = open.iter().map(|it| it.client).collect();
    let held = session.are_held(&clients)?;
    for (it, held) in open.iter_mut().zip(held) {
        it.held = Some(held);
    }
    Ok(())
}

/// Opens a client without a preface. The greeting of a server that speaks first is awaited: a close
/// with it unread would be a reset.
pub(super) fn open_silent(session: &mut Session) -> Result<Client, Broken> {
    let client = session.open(&Open { bare: true, ..Open::default() })?;
    if session.options.server_first {
        let limit = session.options.timeout;
        session.wait_for(client, limit, |seen| seen.answer.head.contains(&b'\n') || seen.has_ended())?;
        session.mark(client);
    }
    Ok(client)
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
        self.add(session, it.name, it.client, it.judge(session.options.late), it.facts());
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
            option_failed: false,
        }
    }
}
