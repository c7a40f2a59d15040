//! `half-closed-hold` and `never-read`: clients that stay, and from which nothing more can be
//! expected.

use std::time::Duration;

use finale::trace::Record;
use serde_json::json;

use super::deadline::{Claim, Sheet, Waiting, ask, open_silent, wait_for_ends};
use super::exchange::{BIG, too_small, wait_while_bytes_come};
use super::request::parts;
use super::silent::HINT;
use super::{Case, Finding, Need};
use crate::answer::{End, Framing};
use crate::client::Client;
use crate::held::Held;
use crate::report::{Verdict, millis};
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "half-closed-hold",
        does: "sends its FIN, and stays; or leaves the server's FIN without its own",
        source: "RFC 9293 section 3.6 (cases 1 and 2); RFC 1122 section 4.2.2.13",
        cure: "After a read of 0 bytes finish the answer and close: a connection in CLOSE-WAIT is the program's, and \
               no timer of the kernel ends it.",
        cost: "4 connections, one at a time; until the server ends them, at most the timeout",
        needs: &[],
        run: half_closed_hold,
    },
    Case {
        id: "never-read",
        does: "asks for a large answer and does not read it, several at the same time",
        source: "RFC 9293 section 3.8.6.1; RFC 6429; CWE-400",
        cure: "A deadline for progress while an answer is sent, and no blocking write on a thread that others need: a \
               kernel never gives up on a peer that acknowledges with a closed window.",
        cost: "4 connections with big answers that nothing reads, held as long as the timeout or a claim",
        needs: &[Need::BigRequest],
        run: never_read,
    },
];

fn half_closed_hold(session: &mut Session) -> Result<Finding, Broken> {
    let (claimed, found) = (session.options.claims.idle, session.deadlines.idle);
    let limit = session.options.deadline_wait(claimed).max(found.unwrap_or_default() * 2);
    let is_deadline_known = claimed.or(found).is_some();
    let mut all = half_closed(session)?;
    let unfinished = unfinished(session)?;
    wait_for_ends(session, &mut all, limit)?;
    ask(session, &mut all)?;
    let mut sheet = Sheet::default();
    for it in &all {
        let mut judged = it.judge(session.options.late);
        if it.held == Some(Held::Held) {
            let waited = session.now().saturating_duration_since(it.since).as_millis();
            let verdict = if is_deadline_known { Verdict::Fail } else { Verdict::Warn };
            judged = (verdict, format!("still held {waited} ms after the client's FIN: CLOSE-WAIT"));
        } else if let Some(end) = it.end {
            judged = (Verdict::Pass, format!("ended after {} ms", end.after.as_millis()));
        }
        sheet.add(session, it.name, it.client, judged, it.facts());
    }
    let mut clients: Vec<Client> = all.iter().map(|it| it.client).collect();
    if let Some(it) = unfinished {
        let held = session.is_held(it.client)?;
        let waited = session.now().saturating_duration_since(it.since).as_millis();
        let what = match session.seen(it.client).reset.map(|reset| reset.saturating_duration_since(it.since)) {
            Some(after) if held == Held::Gone => format!("reset after {} ms", after.as_millis()),
            _ if held == Held::Ended && session.seen(it.client).failed.is_none() => {
                format!("held for {waited} ms: FIN-WAIT-2")
            }
            _ => format!("{} after {waited} ms", held.name()),
        };
        let facts = json!({ "held": held.name(), "after_ms": waited });
        sheet.add(session, it.name, it.client, (Verdict::Info, what), facts);
        clients.push(it.client);
    }
    session.leave_all(&clients)?;
    Ok(sheet.finding(HINT))
}

/// Clients that have sent their FIN: with a request, after an answer, without a request, in the
/// middle of one.
fn half_closed(session: &mut Session) -> Result<Vec<Waiting>, Broken> {
    let request = session.options.request.clone();
    let half = parts(&request).first().map(|part| part.sent.clone());
    let variants = [("FIN with the request", Some(request.clone())), ("FIN in the middle of a request", half)];
    let mut all = vec![("FIN without a request", open_silent(session)?)];
    if session.persistent.is_some()
        && let Some(client) = session.open_answered()?
    {
        all.push(("FIN after the answer", client));
    }
    for (name, bytes) in variants {
        let Some(bytes) = bytes else { continue };
        let client = session.open(&Open::default())?;
        // Its FIN follows without a wait between, in the same segment.
        session.send(client, &bytes);
        session.finish(client);
        all.push((name, client));
    }
    for (_, client) in &all {
        session.finish(*client);
    }
    let now = session.now();
    Ok(all.into_iter().map(|(name, client)| Waiting::new(name, client, None, (now, now))).collect())
}

/// A client that has got the server's FIN, and does not send its own.
fn unfinished(session: &mut Session) -> Result<Option<Waiting>, Broken> {
    if session.baseline.as_ref().is_none_or(|it| it.first != "server") {
        return Ok(None);
    }
    let client = session.open(&Open::default())?;
    let request = session.options.request.clone();
    session.send(client, &request);
    let limit = session.options.timeout;
    session.wait_for(client, limit, super::super::client::Seen::has_ended)?;
    let Some(since) = session.seen(client).fin else { return Ok(None) };
    Ok(Some(Waiting::new("server's FIN, client stays", client, None, (since, since))))
}

/// Clients that do not read, at the same time.
const READERS: usize = 4;
/// What the kernel of the client takes without a read.
const WINDOW: usize = 4096;
/// For the rest of an answer.
const WIDE: usize = 1 << 20;
/// A silence after which an answer of unknown length is over.
const QUIET: Duration = Duration::from_secs(1);

fn never_read(session: &mut Session) -> Result<Finding, Broken> {
    let Some(request) = session.options.big_request.clone() else { return Ok(Finding::skip("no large request")) };
    let (whole, end) = measure_big(session, &request)?;
    if whole < BIG {
        return Ok(Finding::skip(too_small(whole, end)));
    }
    let claim = Claim::of(session.options.claims.send);
    let mut all = Vec::new();
    for _ in 0..READERS.min(session.most_clients()) {
        let client = open_paused(session)?;
        session.send(client, &request);
        let now = session.now();
        all.push(Waiting::new("reader", client, claim, (now, now)));
    }
    let limit = Claim::wait(claim, session);
    wait_for_ends(session, &mut all, limit)?;
    // The ladder ends here: the rest of the answer has thousands of reads.
    let ladder = session.records(all[0].client);
    let waited = millis(session.now().saturating_duration_since(all[0].since));
    let left: Vec<Client> = open_ones(session, &all);
    for client in &left {
        session.widen(*client, WIDE);
        session.resume(*client);
    }
    read_all(session, &left)?;
    let finding = judge_readers(session, &all, &left, whole, waited, ladder);
    session.leave_all(&all.iter().map(|it| it.client).collect::<Vec<_>>())?;
    Ok(finding)
}

/// The length of a large answer for a client that reads, and its end. A large answer may contain
/// what ends a small one.
pub(crate) fn measure_big(session: &mut Session, request: &[u8]) -> Result<(u64, End), Broken> {
    let polite = session.open(&Open::default())?;
    session.send(polite, request);
    read_all(session, &[polite])?;
    let whole = session.seen(polite).answer.bytes;
    session.leave_all(&[polite])?;
    Ok((whole, session.seen(polite).end()))
}

fn open_ones(session: &Session, all: &[Waiting]) -> Vec<Client> {
    all.iter().map(|it| it.client).filter(|client| !session.seen(*client).has_ended()).collect()
}

/// Opens a client that reads its greeting and preface, and then nothing.
fn open_paused(session: &mut Session) -> Result<Client, Broken> {
    let client = session.start(&Open { window: Some(WINDOW), paused: true, ..Open::default() })?;
    if session.options.server_first || !session.options.preface.is_empty() {
        session.resume(client);
    }
    session.wait_until_ready(&[client])?;
    session.pause(client);
    Ok(client)
}

/// Reads answers to their end, or until they stop: those of HTTP show their end, and may pause.
fn read_all(session: &mut Session, clients: &[Client]) -> Result<(), Broken> {
    wait_while_bytes_come(session, clients, session.options.timeout * 3, |session| {
        let now = session.now();
        clients.iter().all(|client| {
            let seen = session.seen(*client);
            let silence = seen.last_byte.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
            let is_quiet = seen.answer.http().is_none() && silence > QUIET;
            let is_complete = seen.answer.is_complete(&Framing::Http);
            let is_ended = seen.read_to_end || seen.reset.is_some() || seen.failed.is_some() || seen.is_over();
            is_ended || is_complete || is_quiet
        })
    })
}

/// Those that were ended were given up. Of the others, one whose answer is cut now was given up
/// too: only its kernel has kept it.
fn judge_readers(
    session: &Session,
    all: &[Waiting],
    left: &[Client],
    whole: u64,
    waited: u64,
    ladder: Vec<Record>,
) -> Finding {
    let is_left = |it: &&Waiting| left.contains(&it.client);
    let is_cut = |it: &&Waiting| {
        let seen = session.seen(it.client);
        seen.has_ended() && seen.answer.bytes < whole / 100 * 98
    };
    let held = all.iter().filter(is_left).filter(|it| !is_cut(it)).count();
    let cut = left.len() - held;
    let ended: Vec<u64> =
        all.iter().filter(|it| !is_left(it)).filter_map(|it| it.end).map(|end| millis(end.after)).collect();
    let claimed = session.options.claims.send.map(millis);
    let late = claimed.map(|claim| claim + millis(session.options.late));
    let (first, last) = (ended.iter().min().copied(), ended.iter().max().copied());
    let count = all.len();
    let (verdict, summary) = match (claimed, first, last) {
        (Some(claim), ..) if held > 0 => (
            Verdict::Fail,
            format!("{held} of {count} are still held after {waited} ms, although {claim} ms are claimed"),
        ),
        (Some(claim), Some(first), _) if first < claim / 10 * 9 => {
            (Verdict::Fail, format!("given up after {first} ms, too early for the claim of {claim} ms"))
        }
        (Some(claim), _, Some(last)) if late.is_some_and(|late| last > late) => {
            (Verdict::Fail, format!("given up after {last} ms, too late for the claim of {claim} ms"))
        }
        _ if held > 0 => (Verdict::Info, format!("no deadline within {waited} ms for {held} of {count} ({HINT})")),
        (_, Some(_), Some(last)) => (Verdict::Pass, format!("all {count} are given up after at most {last} ms")),
        _ => (Verdict::Pass, format!("all {count} are given up within {waited} ms, and the kernel keeps the rest")),
    };
    let wrong = if verdict >= Verdict::Warn { u32::try_from(count).unwrap_or(u32::MAX) } else { 0 };
    let finding =
        Finding { ladder, wrong, runs: u32::try_from(count).unwrap_or(u32::MAX), ..Finding::of(verdict, summary) };
    finding
        .with("after_ms", ended)
        .with("held", held)
        .with("cut", cut)
        .with("waited_ms", waited)
        .with("answer_bytes", whole)
}
