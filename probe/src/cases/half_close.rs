//! `half-close`: the client sends its FIN with or soon after its request, and then reads.

use std::time::Duration;

use super::exchange::{Owed, grade, wait_for_other};
use super::{Case, Finding, Need, Tally};
use crate::answer::{End, Got, Outcome};
use crate::client::{Client, Seen};
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "half-close",
    does: "sends the request and its FIN, and reads the answer",
    source: "RFC 9293 section 3.6 (case 2); RFC 9112 section 9.6",
    cure: "After a read of 0 bytes finish the answer, and close only then: the client's FIN ends its requests, and \
           not its interest.",
    cost: "6 connections per run, one at a time, and 3 slow requests; 120 and 4 s with 20 runs",
    needs: &[Need::HalfClose],
    run: half_close,
}];

/// The FIN follows the request after this time; `None`: it is in the same segment. A server that
/// tears down at the FIN loses only answers that take longer than the gap.
const GAPS: [(&str, Option<Duration>); 5] = [
    ("FIN with the request", None),
    ("FIN 0 ms later", Some(Duration::ZERO)),
    ("FIN 0.2 ms later", Some(Duration::from_micros(200))),
    ("FIN 1 ms later", Some(Duration::from_millis(1))),
    ("FIN 5 ms later", Some(Duration::from_millis(5))),
];
/// An [`Outcome`] in words: the answer is at risk.
const WHOLE_RESET: &str = "whole, then reset";
/// The cure where each answer is whole, and a reset follows it.
const RESETS: &str = "End with a FIN: no SO_LINGER of 0, and no close while input is unread; otherwise the reset can \
                      destroy the end of the answer.";
/// In the middle of the answer's usual time, where that is none of the others.
const HALFWAY: &str = "FIN after half of the answer's usual time";
/// A usual time whose half is worth a variant, and the runs of one that takes seconds.
const LONG: Duration = Duration::from_millis(3);
const SLOW_RUNS: u32 = 3;

fn half_close(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let (mut unanswered, mut late) = (0, 0);
    let mut add = |session: &Session, variant: &str, client: Client, gap: Option<Duration>, outcome: &Outcome| {
        let verdict = match outcome.got {
            // Such as 500, where others get 200.
            Got::Other { .. } => Verdict::Fail,
            Got::Whole | Got::Cut { .. } | Got::Nothing => grade(outcome),
        };
        unanswered += u32::from(outcome.got == Got::Nothing && outcome.end != End::Refused);
        // Half of the usual time can be more than this answer has taken.
        let may_precede = variant == HALFWAY || was_late(session, client, gap);
        late += u32::from(outcome.got == Got::Whole && may_precede);
        tally.add(session, variant, client, verdict, outcome);
    };
    let usual = session.usual_time();
    let request = session.options.request.clone();
    let (half, runs) = (request.len() / 2, session.options.runs);
    let halfway = (usual >= LONG).then_some((HALFWAY, Some(usual / 2)));
    let mut variants = Vec::new();
    for (variant, gap) in GAPS.into_iter().chain(halfway) {
        variants.push((variant, vec![&request[..]], gap));
    }
    variants.push(("request in two segments, FIN with the second", vec![&request[..half], &request[half..]], None));
    for (variant, pieces, gap) in variants {
        for _ in 0..runs_of(runs, usual) {
            let client = send_and_finish(session, &pieces, gap, None)?;
            add(session, variant, client, gap, &session.outcome(client));
            if is_last(session, client) {
                break;
            }
        }
    }
    if let Some(slow) = session.options.slow_request.clone() {
        let (owed, _, seen) = Owed::measure(session, &slow)?;
        let is_answered = !owed.outcome(&seen).is_lost();
        for _ in 0..if is_answered { SLOW_RUNS.min(runs) } else { 0 } {
            let client = send_and_finish(session, &[&slow], None, Some(&owed))?;
            let mut outcome = owed.outcome(session.seen(client));
            outcome.got = other(session.seen(client), &seen).unwrap_or(outcome.got);
            add(session, "slow request, FIN with it", client, None, &outcome);
            session.forget(client);
        }
    }
    let is_reset_only = tally.wrong() > 0 && tally.wrong() == tally.count(WHOLE_RESET);
    let is_policy = unanswered > 0 && unanswered == tally.wrong() && unanswered + late == tally.runs();
    let mut finding = tally.finding();
    finding.cure = is_reset_only.then_some(RESETS);
    if is_policy && !session.options.expect_half_close {
        // It never answers: that can be the stated policy of a server, as it is of some proxies.
        finding.verdict = Verdict::Warn;
        finding.summary = format!("half-close is not supported: {}", finding.summary);
    }
    let fact = half_request(session, &request[..half])?;
    Ok(finding.with("FIN after half of the request", fact))
}

/// An answer with another status than a polite client's.
fn other(seen: &Seen, polite: &Seen) -> Option<Got> {
    let is_other = seen.answer.bytes > 0 && seen.answer.status() != polite.answer.status();
    is_other.then(|| Got::Other { status: seen.answer.first_line() })
}

/// Whether the FIN left so much later than it should, since this machine is busy, that the answer
/// may have been there before.
fn was_late(session: &Session, client: Client, gap: Option<Duration>) -> bool {
    let gap = gap.unwrap_or_default();
    let (Some(written), Some(left)) = (session.seen(client).written, session.fin_left(client)) else { return false };
    left.saturating_duration_since(written) > gap + gap / 2 + Duration::from_millis(2)
}

/// Drops a client that was judged: a server that does not end has one at a time, however many runs
/// there are. One that neither answers nor ends takes the whole timeout of each: one shows it.
fn is_last(session: &mut Session, client: Client) -> bool {
    let seen = session.seen(client);
    let is_silent = seen.answer.bytes == 0 && !seen.has_ended();
    session.forget(client);
    is_silent
}

/// Answers that take long are tried less often.
fn runs_of(runs: u32, usual: Duration) -> u32 {
    if usual > Duration::from_millis(200) { runs.min(SLOW_RUNS) } else { runs }
}

/// Sends the request in these pieces, then the FIN, and waits for the answer or the end. Whether a
/// server that has answered also ends is for `half-closed-hold`.
/// `other`: the answer is not that of the baseline.
fn send_and_finish(
    session: &mut Session,
    pieces: &[&[u8]],
    gap: Option<Duration>,
    other: Option<&Owed>,
) -> Result<Client, Broken> {
    let client = session.open(&Open::default())?;
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            session.wait(Duration::from_millis(1))?;
        }
        session.send(client, piece);
    }
    if let Some(gap) = gap {
        session.wait(gap)?;
    }
    session.finish(client);
    let limit = session.options.timeout;
    match other {
        Some(_) => wait_for_other(session, client, other, limit)?,
        None => {
            session.wait_until(limit, |session| session.seen(client).has_ended() || session.has_answer(client))?;
        }
    }
    session.settle(client)?;
    Ok(client)
}

/// A FIN in the middle of the request: nothing is owed. What the server does is a fact, and harm to
/// others would be seen by the bystander.
fn half_request(session: &mut Session, half: &[u8]) -> Result<String, Broken> {
    let client = session.open(&Open::default())?;
    session.send(client, half);
    session.finish(client);
    let begun = session.now();
    // How long the server holds it is for another case.
    let limit = session.options.timeout.min(Duration::from_secs(3));
    session.wait_for(client, limit, Seen::has_ended)?;
    session.settle(client)?;
    let seen = session.seen(client);
    let words = match seen.answer.bytes {
        0 => "no byte".to_owned(),
        bytes => format!("{bytes} bytes ({})", seen.answer.first_line()),
    };
    let millis = |time: std::time::Instant| time.saturating_duration_since(begun).as_millis();
    Ok(match (seen.end(), seen.ended_by_server()) {
        (End::Reset, Some(time)) => format!("{words}, reset after {} ms", millis(time)),
        (End::Fin, Some(time)) => format!("{words}, FIN after {} ms", millis(time)),
        (End::Refused, _) => "not connected".to_owned(),
        _ => format!("{words}, not ended within {} ms", limit.as_millis()),
    })
}
