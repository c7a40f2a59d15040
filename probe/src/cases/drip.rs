//! `drip-request`: a request that comes in pieces, each before the deadline of a silent client.
//!
//! A client that sends the same beginning and then nothing is opened with each slow one. Its end is
//! the measure: servers look at their clocks at moments of their own.

use std::time::{Duration, Instant};

use serde_json::json;

use super::deadline::{AT_ONCE, Sheet, is_answered as has_answer};
use super::request::{Slow, Stage, is_http, slow};
use super::silent::HINT;
use super::{Case, Finding};
use crate::client::Client;
use crate::report::{Verdict, millis};
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "drip-request",
    does: "sends a request in pieces, each before the deadline of a silent client",
    source: "RFC 9112 section 9.5; CVE-2007-6750; CWE-400",
    cure: "One deadline for the whole head, which no byte and no line renews; for the body one deadline, or a least \
           rate.",
    cost: "3 connections, held as long as the timeout or a claim",
    needs: &[],
    run: drip_request,
}];

/// A piece is sent each time this part of the deadline is over.
const INTERVAL_PERCENT: u32 = 60;
const SHORTEST: Duration = Duration::from_millis(50);
/// After this many deadlines of a silent client, in percent, a slow one has outlived it: three
/// pieces were sent in that time.
const OUTLIVED_PERCENT: u32 = 220;
/// A deadline that is not known is looked for with this many pieces.
const PIECES: u32 = 5;

struct Drip {
    slow: Slow,
    client: Client,
    /// It has sent the same beginning, and nothing since.
    silent: Client,
    since: Instant,
    interval: Duration,
    next: Instant,
    pieces: u32,
}

fn drip_request(session: &mut Session) -> Result<Finding, Broken> {
    let all = slow(&session.options.request);
    if all.is_empty() {
        return Ok(Finding::skip("the request is no text, so no slow one can be made of it"));
    }
    let intervals = all.iter().map(|slow| first_interval(session, slow.stage)).collect::<Vec<_>>();
    let mut drips = play(session, all.into_iter().zip(intervals))?;
    // Where a client was ended before the first piece, the deadline is known now.
    let again: Vec<(Slow, Duration)> = drips
        .extract_if(.., |drip| shortest(session, drip).is_some_and(|after| after * 9 / 10 < drip.interval))
        .filter_map(|drip| Some((drip.slow.clone(), interval(shortest(session, &drip)?))))
        .collect();
    drips.extend(play(session, again.into_iter())?);
    let mut sheet = Sheet::default();
    for drip in &drips {
        let facts = json!({
            "end": match (ended_after(session, drip), session.seen(drip.client).reset) {
                (None, _) => "open",
                (_, Some(_)) => "reset",
                (_, None) => "fin",
            },
            "after_ms": ended_after(session, drip).map(millis),
            "words": session.seen(drip.client).answer.first_line(),
            "pieces": drip.pieces,
            "interval_ms": millis(drip.interval),
            "silent_ms": silent_after(session, drip).map(millis),
        });
        sheet.add(session, drip.slow.name, drip.client, judge(session, drip), facts);
    }
    session.leave_all(&drips.iter().flat_map(|drip| [drip.client, drip.silent]).collect::<Vec<_>>())?;
    Ok(sheet.finding(HINT))
}

const fn claimed(session: &Session, stage: Stage) -> Option<Duration> {
    match stage {
        Stage::Head => session.options.claims.header,
        Stage::Body => session.options.claims.body,
    }
}

fn first_interval(session: &Session, stage: Stage) -> Duration {
    let found = match stage {
        Stage::Head => session.deadlines.head,
        Stage::Body => session.deadlines.body,
    };
    let known = found.or(claimed(session, stage));
    known.map_or((session.options.timeout / PIECES).max(SHORTEST), interval)
}

/// The time between two pieces. A deadline of milliseconds makes no flood of them.
fn interval(deadline: Duration) -> Duration {
    (deadline * INTERVAL_PERCENT / 100).max(SHORTEST)
}

/// Sends the slow requests, all at the same time, until each has been ended or has outlived its
/// deadline.
fn play(session: &mut Session, all: impl Iterator<Item = (Slow, Duration)>) -> Result<Vec<Drip>, Broken> {
    let mut drips: Vec<Drip> = Vec::new();
    for (slow, interval) in all {
        let (client, silent) = (session.open(&Open::default())?, session.open(&Open::default())?);
        session.send(client, &slow.first);
        session.send(silent, &slow.first);
        let since = session.now();
        drips.push(Drip { slow, client, silent, since, interval, next: since + interval, pieces: 0 });
    }
    while drips.iter().any(|drip| !is_done(session, drip)) {
        let due = drips.iter().filter(|drip| !is_done(session, drip)).map(|drip| drip.next).min();
        let wait = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(session.now()));
        session.wait_until(wait, |session| drips.iter().all(|drip| is_done(session, drip)))?;
        let now = session.now();
        for drip in &mut drips {
            if drip.next <= now && !is_done(session, drip) {
                session.send(drip.client, drip.slow.piece);
                (drip.next, drip.pieces) = (now + drip.interval, drip.pieces + 1);
            }
        }
    }
    Ok(drips)
}

/// The server has answered the beginning, and no longer waits for the rest.
fn is_answered(session: &Session, drip: &Drip) -> bool {
    let at_once = |client| {
        session.seen(client).ended_by_server().is_some_and(|end| end.saturating_duration_since(drip.since) < AT_ONCE)
    };
    [drip.client, drip.silent].into_iter().any(|client| has_answer(session, client) || at_once(client))
}

/// Nothing more is learned from it.
fn is_done(session: &Session, drip: &Drip) -> bool {
    let seen = session.seen(drip.client);
    let limit = match (claimed(session, drip.slow.stage), silent_after(session, drip)) {
        (Some(claim), _) => session.options.deadline_wait(Some(claim)),
        (None, Some(after)) => after * OUTLIVED_PERCENT / 100,
        (None, None) => session.options.timeout,
    };
    let is_over = session.now().saturating_duration_since(drip.since) > limit;
    seen.has_ended() || is_over || is_answered(session, drip)
}

fn ended_after(session: &Session, drip: &Drip) -> Option<Duration> {
    session.seen(drip.client).ended_by_server().map(|end| end.saturating_duration_since(drip.since))
}

fn silent_after(session: &Session, drip: &Drip) -> Option<Duration> {
    session.seen(drip.silent).ended_by_server().map(|end| end.saturating_duration_since(drip.since))
}

/// The deadline, if it was one.
fn shortest(session: &Session, drip: &Drip) -> Option<Duration> {
    let ends = [ended_after(session, drip), silent_after(session, drip)];
    ends.into_iter().flatten().min().filter(|_| !is_answered(session, drip))
}

fn judge(session: &Session, drip: &Drip) -> (Verdict, String) {
    if is_answered(session, drip) {
        let words = [drip.client, drip.silent].map(|client| session.seen(client).answer.first_line());
        let words = words.iter().max().filter(|words| !words.is_empty());
        let what = words.map_or("ended at once".to_owned(), |words| format!("answered at once with \"{words}\""));
        return (Verdict::Info, format!("{what}, before it was complete"));
    }
    let claim = claimed(session, drip.slow.stage);
    let each = drip.interval.as_millis();
    let held = session.now().saturating_duration_since(drip.since).as_millis();
    match (ended_after(session, drip), claim, silent_after(session, drip)) {
        (Some(after), Some(claim), _) if after > claim + session.options.late => {
            let (after, claim) = (after.as_millis(), claim.as_millis());
            (
                Verdict::Fail,
                format!("ended after {after} ms with a piece each {each} ms, although {claim} ms are claimed"),
            )
        }
        (Some(after), ..) => (Verdict::Pass, format!("ended after {} ms", after.as_millis())),
        (None, Some(claim), _) => {
            let claim = claim.as_millis();
            (Verdict::Fail, format!("held for {held} ms with a piece each {each} ms, although {claim} ms are claimed"))
        }
        (None, None, Some(silent)) => {
            let silent = silent.as_millis();
            let what =
                format!("held for {held} ms with a piece each {each} ms; a silent client is ended after {silent} ms");
            // A deadline between two reads is what many servers document for bodies, and as their
            // idle time those whose requests have no head.
            let has_head = drip.slow.stage == Stage::Head && is_http(&session.options.request);
            (if has_head { Verdict::Warn } else { Verdict::Info }, what)
        }
        (None, None, None) => (Verdict::Info, format!("no deadline within {held} ms")),
    }
}
