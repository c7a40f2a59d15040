//! `slow-reader`: the client pauses, and reads then in sips and in bursts.

use std::time::Duration;

use super::exchange::{BIG, Owed, grade, is_complete, is_still_coming, too_small, wait_for_other};
use super::{Case, Finding, Tally};
use crate::answer::{End, LONG_AFTER, Outcome};
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "slow-reader",
    does: "has a small window, pauses for 1 s, then reads the answer in sips and in bursts",
    source: "RFC 9293 section 3.8.6; send(2): EAGAIN",
    cure: "When a send would block, wait until the socket is writable and send the rest; a limit on slow clients \
           should end the connection with a reset, so that the cut does not look like the end.",
    cost: "some 5 connections with big answers; 9 s",
    needs: &[],
    run: slow_reader,
}];

/// The cure of a server that resets before its answer has arrived.
const RESETS: &str = "End with a FIN: no SO_LINGER of 0, and no close while input is unread; the reset destroys what \
                      the kernel has not yet sent.";
/// SO_RCVBUF of a client with a small window.
const SMALL: usize = 4096;
const PAUSE: Duration = Duration::from_secs(1);
const SIPPING: Duration = Duration::from_secs(1);
/// A slow network: several of the limits of the field are below it.
const RATE: u64 = 400 * 1024;
const AT_RATE: Duration = Duration::from_secs(5);

fn slow_reader(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let request = session.options.big_request.clone().unwrap_or_else(|| session.options.request.clone());
    let (owed, polite, seen) = Owed::measure(session, &request)?;
    if seen.answer.bytes == 0 {
        return Ok(Finding::skip("even a client that reads at once got no byte of the big answer"));
    }
    let is_big = owed.bytes() >= BIG;
    let outcome = owed.outcome(&seen);
    if outcome.is_at_risk() {
        // Where the answer does not show its end, only another length shows that a reset has cut
        // it.
        let (_, client, again) = Owed::measure(session, &request)?;
        let (one, other) = (owed.bytes(), again.answer.bytes);
        if again.end() == End::Reset && one.abs_diff(other) > one.max(other) / 50 {
            let what = format!("cut at {one} bytes, and at {other} bytes of the same answer, then reset");
            tally.add(session, "reads at once, twice", client, Verdict::Fail, what);
            let mut finding = tally.finding();
            finding.cure = Some(RESETS);
            return Ok(finding);
        }
    }
    tally.add(session, "reads at once", polite, grade(&outcome), &outcome);
    let small = Open { window: Some(SMALL), paused: true, ..Open::default() };
    let paused = Open { paused: true, ..Open::default() };
    try_one(session, &mut tally, "pause of 1 s, then sips, then all", &owed, &small, |session, client| {
        session.wait(PAUSE)?;
        session.read_slowly(client, u64::MAX, SIPPING)
    })?;
    try_one(session, &mut tally, "pauses of 300 ms between bursts", &owed, &paused, |session, client| {
        for _ in 0..3 {
            session.wait(PAUSE * 3 / 10)?;
            session.resume(client);
            session.wait(Duration::from_millis(2))?;
            session.pause(client);
        }
        Ok(())
    })?;
    if is_big {
        try_one(session, &mut tally, "400 KiB per second for 5 s, then all", &owed, &paused, |session, client| {
            session.read_slowly(client, RATE, AT_RATE)
        })?;
    }
    let mut finding = tally.finding();
    if !is_big {
        finding.summary = format!("{}; {}", finding.summary, too_small(owed.bytes(), seen.end()));
    }
    Ok(finding.with("answer", owed.bytes()))
}

/// Opens a client that reads nothing, sends the request, lets it read as `read` does, and reads the
/// rest at once.
fn try_one(
    session: &mut Session,
    tally: &mut Tally,
    variant: &str,
    owed: &Owed,
    open: &Open,
    read: impl FnOnce(&mut Session, Client) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let request = session.options.big_request.clone().unwrap_or_else(|| session.options.request.clone());
    let client = session.open(open)?;
    session.send(client, &request);
    read(session, client)?;
    session.resume(client);
    let limit = session.options.timeout;
    wait_for_other(session, client, Some(owed), limit)?;
    session.settle(client)?;
    let outcome = owed.outcome(session.seen(client));
    tally.add(session, variant, client, judge(session, client, &outcome), describe(session, client, &outcome));
    session.leave(client)
}

/// A cut that looks like the end is a loss, and so is an answer that stops. A reset shows the
/// client that there was more: that may be the stated limit on slow clients, as many servers have
/// one.
fn judge(session: &Session, client: Client, outcome: &Outcome) -> Verdict {
    let looks_complete = is_complete(session, &session.seen(client).answer);
    let seen = session.seen(client);
    let after = seen.reset.zip(seen.written).map(|(reset, written)| reset.saturating_duration_since(written));
    match outcome.end {
        // It waits for another request, in vain: the answer was in the client's kernel for long.
        End::Reset if !outcome.is_lost() && after >= Some(LONG_AFTER) => Verdict::Pass,
        End::Reset if outcome.is_lost() && session.seen(client).answer.bytes > 0 && !looks_complete => Verdict::Warn,
        End::Open if outcome.is_lost() && is_still_coming(session, client) => Verdict::Info,
        End::Reset | End::Fin | End::Open | End::Refused => grade(outcome),
    }
}

/// What was seen, with the time and the rate at which a slow client was cut off.
fn describe(session: &Session, client: Client, outcome: &Outcome) -> String {
    let seen = session.seen(client);
    let time = match (seen.written, seen.ended_by_server()) {
        (Some(written), Some(end)) if outcome.is_lost() => end.saturating_duration_since(written),
        _ => return outcome.to_string(),
    };
    let rate = u128::from(seen.answer.bytes) * 1000 / time.as_millis().max(1) / 1024;
    let framed = if is_complete(session, &seen.answer) { ", framed as complete" } else { "" };
    format!("{outcome}{framed}, after {} ms at {rate} KiB per second", time.as_millis())
}
