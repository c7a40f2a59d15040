//! Several requests on one connection without a wait for the answers between.

use std::time::Duration;

use super::{Case, Finding, Need, Tally};
use crate::answer::End;
use crate::client::{Client, Seen};
use crate::report::Verdict;
use crate::session::{Broken, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "pipeline",
        does: "sends two requests at once, in one segment and in two, and reads two answers",
        source: "RFC 9112 section 9.3.2",
        cure: "Keep what was read after a request, and look there for the next one before the next read.",
        cost: "2 connections per run, one at a time; 40 and 2 s with 20 runs",
        needs: &[Need::Reuse],
        run: pipeline,
    },
    Case {
        id: "pipeline-fin",
        does: "sends four requests and its FIN at once, and reads four answers",
        source: "RFC 9112 sections 9.3.2 and 9.6; RFC 9293 section 3.6 (case 2)",
        cure: "Answer every request that was read before the client's FIN, and close only then.",
        cost: "a connection per run, one at a time; 1 s",
        needs: &[Need::Reuse],
        run: pipeline_fin,
    },
    Case {
        id: "request-plus-partial",
        does: "sends a request with the first bytes of the next one, and expects the first answer before the rest",
        source: "RFC 9112 sections 2.2 and 9.3.2",
        cure: "Answer a complete request at once, and do not wait until the next one is complete, too.",
        cost: "5 connections, one at a time; less than 1 s",
        needs: &[Need::Reuse],
        run: request_plus_partial,
    },
];

/// After this many faults the next runs would show nothing new, and may each take the timeout.
const ENOUGH: u32 = 3;
/// What is no fault: a client that reads it sends the rest again.
const REFUSED: &str = "announces the close instead of further answers";
/// Requests of `pipeline-fin`.
const QUEUED: u32 = 4;

fn pipeline(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let request = session.kept_request();
    for (name, pieces) in [("one segment", vec![request.repeat(2)]), ("two segments", vec![request.clone(), request])] {
        let before = tally.wrong();
        for _ in 0..session.options.runs {
            let client = session.open_persistent()?;
            let each = 2 / u32::try_from(pieces.len()).unwrap_or(1);
            for piece in &pieces {
                session.ask_with(client, piece, each)?;
            }
            let limit = session.options.timeout;
            session.wait_for_answers(client, 2, limit)?;
            judge(session, &mut tally, name, client, 2)?;
            session.leave(client)?;
            session.forget(client);
            if tally.wrong() - before >= ENOUGH {
                break;
            }
        }
    }
    Ok(with_refusals(tally))
}

/// A server that takes one request at a time may say so.
fn with_refusals(tally: Tally) -> Finding {
    let refused = tally.count(REFUSED);
    let mut finding = tally.finding();
    if refused > 0 && finding.verdict <= Verdict::Pass {
        finding.verdict = Verdict::Info;
        finding.summary = format!("it {REFUSED} in {refused} of {} runs", finding.runs);
    }
    finding
}

fn pipeline_fin(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let requests = session.kept_request().repeat(QUEUED as usize);
    let mut answered = 0;
    for _ in 0..session.options.runs {
        let client = session.open_persistent()?;
        session.send(client, &requests);
        session.finish(client);
        let limit = session.options.timeout;
        session.wait_for(client, limit, Seen::has_ended)?;
        answered += session.answered(client);
        judge(session, &mut tally, "four requests and FIN", client, QUEUED)?;
        session.forget(client);
        if tally.wrong() >= ENOUGH {
            break;
        }
    }
    let mut finding = with_refusals(tally);
    if answered == 0 && finding.verdict == Verdict::Fail && !session.options.expect_half_close {
        // As in `half-close`: a server may state that a FIN is a goodbye, if it is so always.
        finding.verdict = Verdict::Warn;
        finding.summary = format!("half-close is not supported: {}", finding.summary);
    }
    Ok(finding)
}

/// Counts a run: how many of the answers are here.
fn judge(session: &mut Session, tally: &mut Tally, name: &str, client: Client, of: u32) -> Result<(), Broken> {
    if session.is_close_announced(client) {
        let limit = session.options.timeout;
        session.wait_for(client, limit, Seen::has_ended)?;
    }
    session.settle(client)?;
    let (answered, seen) = (session.answered(client), session.seen(client));
    let other = seen.answers.as_ref().and_then(|answers| answers.other);
    let end = match seen.end() {
        End::Reset => ", then reset",
        End::Fin => ", then FIN",
        End::Open | End::Refused => ", not ended",
    };
    let is_refused = answered > 0 && session.is_close_announced(client) && seen.has_ended();
    let (verdict, what) = match other {
        Some(status) => (Verdict::Fail, format!("another answer ({status})")),
        None if answered < of && is_refused && seen.reset.is_none() => (Verdict::Info, REFUSED.to_owned()),
        None if answered < of && !is_refused => (Verdict::Fail, format!("{answered} of {of} answers{end}")),
        None if seen.reset.is_some() => (Verdict::Warn, format!("{answered} of {of} answers{end}")),
        None => (Verdict::Pass, format!("{answered} of {of} answers")),
    };
    tally.add(session, name, client, verdict, what);
    Ok(())
}

/// Runs of `request-plus-partial`: what a server does there does not vary.
const PARTIAL_RUNS: u32 = 5;

fn request_plus_partial(session: &mut Session) -> Result<Finding, Broken> {
    let request = session.kept_request();
    let partial = 2.min(request.len() - 1);
    if partial == 0 {
        return Ok(Finding::skip("the request has one byte only"));
    }
    let mut tally = Tally::default();
    let name = format!("request and {partial} bytes");
    for _ in 0..session.options.runs.min(PARTIAL_RUNS) {
        let client = session.open_persistent()?;
        session.ask_with(client, &[&request[..], &request[..partial]].concat(), 1)?;
        let is_here = session.wait_for_answers(client, 1, patience(session))?;
        session.settle(client)?;
        if session.seen(client).has_ended() {
            // It takes no second request: as it should be, if the answer is whole.
            judge(session, &mut tally, &name, client, 1)?;
            continue;
        }
        session.ask_with(client, &request[partial..], 1)?;
        let limit = patience(session);
        let rest_is_here = session.wait_for_answers(client, 2, limit)?;
        let answered = session.answered(client);
        if is_here || answered == 0 {
            judge(session, &mut tally, &name, client, 2)?;
        } else {
            let both = if rest_is_here { "both" } else { "one" };
            let what = format!("no answer until the next request was complete, then {both}");
            tally.add(session, &name, client, Verdict::Fail, what);
        }
        session.leave(client)?;
    }
    Ok(tally.finding())
}

/// An answer that is not here after this time is late, even on a busy machine.
pub(super) fn patience(session: &Session) -> Duration {
    let usual = session.persistent.as_ref().map_or(Duration::ZERO, |it| it.time);
    (usual * 3 + Duration::from_secs(1)).min(session.options.timeout)
}
