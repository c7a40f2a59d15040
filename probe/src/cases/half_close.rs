//! `half-close`: the client sends its FIN with or soon after its request, and then reads.

use std::time::Duration;

use super::{Case, Finding, Tally};
use crate::answer::{Got, Outcome};
use crate::bystander::STALLED;
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "half-close",
    does: "sends the request and its FIN, and reads the answer",
    source: "RFC 9293 section 3.6 (case 2); RFC 9112 section 9.6",
    cure: "After a read of 0 bytes finish the answer, and close only then: the client's FIN ends its requests, and \
           not its interest.",
    needs: &[],
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

fn half_close(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let mut answered = 0;
    let fast = session.options.request.clone();
    let half = fast.len() / 2;
    for (name, gap) in GAPS {
        for _ in 0..session.options.runs {
            answered += u32::from(try_unstalled(session, &mut tally, name, &[&fast], gap)?);
        }
    }
    for _ in 0..session.options.runs {
        let pieces = [&fast[..half], &fast[half..]];
        answered += u32::from(try_unstalled(session, &mut tally, "request in two segments", &pieces, None)?);
    }
    if let Some(slow) = session.options.slow_request.clone() {
        for _ in 0..SLOW_RUNS.min(session.options.runs) {
            let _ = try_slow(session, &mut tally, &slow)?;
        }
    }
    let mut finding = tally.finding();
    if answered == 0 && finding.verdict == Verdict::Fail && !session.options.expect_half_close {
        // It never answers: that can be the stated policy of a server, as it is of some proxies.
        finding.verdict = Verdict::Warn;
        finding.summary = format!("half-close is not supported: {}", finding.summary);
    }
    Ok(finding)
}

/// Slow requests are few: each takes seconds.
const SLOW_RUNS: u32 = 3;

/// Tries until this machine was not too busy to send in time, a few times.
fn try_unstalled(
    session: &mut Session,
    tally: &mut Tally,
    name: &str,
    pieces: &[&[u8]],
    gap: Option<Duration>,
) -> Result<bool, Broken> {
    for _ in 1..TRIES {
        let stalled = session.stalled;
        let (client, outcome) = try_once(session, pieces, gap)?;
        if outcome.is_clean() || session.stalled.saturating_sub(stalled) <= STALLED {
            return Ok(judge(session, tally, name, client, &outcome));
        }
    }
    let (client, outcome) = try_once(session, pieces, gap)?;
    Ok(judge(session, tally, name, client, &outcome))
}

/// How often a run is repeated in which this process was not scheduled.
const TRIES: u32 = 5;

/// Sends the request in these pieces, then the FIN.
fn try_once(session: &mut Session, pieces: &[&[u8]], gap: Option<Duration>) -> Result<(Client, Outcome), Broken> {
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
    session.wait_for(client, limit, super::super::client::Seen::has_ended)?;
    session.settle(client)?;
    Ok((client, session.outcome(client)))
}

/// Returns whether the answer was whole.
fn judge(session: &Session, tally: &mut Tally, name: &str, client: Client, outcome: &Outcome) -> bool {
    let verdict = match &outcome.got {
        Got::Whole if outcome.is_at_risk() => Verdict::Warn,
        Got::Whole => Verdict::Pass,
        Got::Cut { .. } | Got::Other { .. } | Got::Nothing => Verdict::Fail,
    };
    tally.add(session, name, client, verdict, outcome);
    outcome.got == Got::Whole
}

fn try_slow(session: &mut Session, tally: &mut Tally, request: &[u8]) -> Result<bool, Broken> {
    // The same request without a FIN has another answer than the baseline's.
    let polite = session.open(&Open::default())?;
    session.send(polite, request);
    session.wait_for_answer(polite, Duration::from_millis(300))?;
    let whole = session.seen(polite).answer.bytes;
    session.leave(polite)?;
    let client = session.open(&Open::default())?;
    session.send(client, request);
    session.finish(client);
    let limit = session.options.timeout;
    session.wait_for(client, limit, super::super::client::Seen::has_ended)?;
    session.settle(client)?;
    let bytes = session.seen(client).answer.bytes;
    let is_whole = bytes > 0 && bytes.abs_diff(whole) <= whole / 50;
    let what = if is_whole { "whole".to_owned() } else { format!("{bytes} of {whole} bytes") };
    let verdict = if is_whole { Verdict::Pass } else { Verdict::Fail };
    tally.add(session, "slow request, FIN with it", client, verdict, what);
    Ok(is_whole)
}
