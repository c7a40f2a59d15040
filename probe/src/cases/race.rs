//! `keep-alive-race`: a request at the moment when the server's idle timer expires.

use std::time::Duration;

use super::{Case, Finding, Need, Tally};
use crate::client::{Client, Seen};
use crate::report::{Verdict, millis};
use crate::session::{Broken, Fate, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "keep-alive-race",
    does: "measures when an idle connection is ended, and sends requests shortly before and after that moment",
    source: "RFC 9112 section 9.5",
    cure: "When the idle timer expires, look for bytes that have arrived: a request that was read, or is there, is \
           answered before the end.",
    cost: "1 connection, or some 30 if the server ends it, each held as long as the server \
           holds an idle one, at most the timeout",
    needs: &[Need::Reuse],
    run: race,
}];

/// Around the deadline, in milliseconds: first in steps of 5, then of 1.
const WIDE: [i64; 13] = [-50, -45, -40, -35, -30, -25, -20, -15, -10, -5, 0, 5, 10];
const NEAR: [i64; 9] = [-4, -3, -2, -1, 1, 2, 3, 4, 6];
/// An end that comes sooner after the request may have crossed it.
const CROSSING: Duration = Duration::from_millis(8);
/// A request that arrives between a server's decision and its close(2) is lost on every server: one
/// in a sweep proves nothing, and on a busy machine two may not.
const ENOUGH: u32 = 2;

fn race(session: &mut Session) -> Result<Finding, Broken> {
    let Some(idle) = measure(session)? else {
        let limit = session.options.deadline_wait(session.options.claims.idle).as_millis();
        return Ok(Finding::of(Verdict::Info, format!("an idle connection is not ended within {limit} ms")));
    };
    let mut tally = Tally::default();
    let mut lost = sweep(session, &mut tally, &WIDE, idle.after)?;
    lost += sweep(session, &mut tally, &NEAR, idle.after)?;
    let is_confirmed = lost >= ENOUGH && sweep(session, &mut tally, &WIDE, idle.after)? >= ENOUGH;
    let mut finding = tally.finding();
    let idle_ms = millis(idle.after);
    finding = finding.with("idle_ms", idle_ms).with("lost", lost).with("announced", idle.announced.clone());
    let kept = format!("an idle connection is ended after {idle_ms} ms ({})", idle.announced);
    finding.summary = if is_confirmed {
        format!("{kept}; {}", finding.summary)
    } else {
        // The tally's worst run is one that can happen on every server.
        finding.verdict = if finding.wrong == 0 { Verdict::Pass } else { Verdict::Info };
        finding.wrong = 0;
        match lost {
            0 => format!("{kept}, and no request is lost around that moment"),
            lost => format!("{kept}; {lost} of {} requests met the end, which can happen everywhere", finding.runs),
        }
    };
    Ok(finding)
}

/// When an idle connection is ended.
struct Idle {
    after: Duration,
    /// Whether the server has said so in its answer.
    announced: String,
}

fn measure(session: &mut Session) -> Result<Option<Idle>, Broken> {
    let client = session.open_persistent()?;
    session.ask(client)?;
    let limit = session.options.timeout;
    session.wait_for_answers(client, 1, limit)?;
    let limit = session.options.deadline_wait(session.options.claims.idle);
    session.wait_for(client, limit, Seen::has_ended)?;
    let seen = session.seen(client);
    let announced = match seen.answers.as_ref().and_then(|answers| answers.keeps) {
        Some(seconds) => format!("its answer says timeout={seconds}"),
        None => "not announced".to_owned(),
    };
    let idle = seen.ended_by_server().zip(seen.last_byte).map(|(end, last)| end.saturating_duration_since(last));
    session.leave(client)?;
    Ok(idle.map(|after| Idle { after, announced }))
}

/// One client for each offset, all at the same time. Returns how many requests are lost.
fn sweep(session: &mut Session, tally: &mut Tally, offsets: &[i64], idle: Duration) -> Result<u32, Broken> {
    let (mut clients, stalled) = (Vec::new(), session.stalled);
    for offset in offsets {
        let client = session.open_persistent()?;
        session.ask(client)?;
        let limit = session.options.timeout;
        session.wait_for_answers(client, 1, limit)?;
        let Some(last) = session.seen(client).last_byte else { continue };
        let by = Duration::from_millis(offset.unsigned_abs());
        let after = if *offset < 0 { idle.saturating_sub(by) } else { idle + by };
        // The deadline was measured here, and the request has to be there at the moment.
        let after = after.saturating_sub(session.round_trip.unwrap_or_default());
        clients.push((last + after, *offset, client));
    }
    clients.sort_by_key(|(due, ..)| *due);
    for (due, _, client) in &clients {
        session.wait(due.saturating_duration_since(session.now()))?;
        if session.can_ask(*client) {
            session.ask(*client)?;
        }
    }
    let all: Vec<Client> = clients.iter().map(|(.., client)| *client).collect();
    let limit = session.options.timeout;
    session.wait_until(limit, |session| all.iter().all(|client| session.fate(*client) != Fate::Silent))?;
    // The time between a server's decision and its close(2) is as much longer on a busy machine.
    let own = session.stalled.saturating_sub(stalled);
    let mut lost = 0;
    for (_, offset, client) in &clients {
        session.settle(*client)?;
        let fate = match session.fate(*client) {
            Fate::Lost(_) if may_have_crossed(session, *client, own) => Fate::Crossed,
            fate => fate,
        };
        // A client that saw the end before it had to send has lost nothing.
        let (verdict, what) = match &fate {
            Fate::Lost(_) | Fate::Cut(_) | Fate::Silent | Fate::Other(_) => (Verdict::Fail, fate.to_string()),
            Fate::Answered if session.seen(*client).asked < 2 => (Verdict::Pass, "ended before".to_owned()),
            Fate::Answered | Fate::Crossed | Fate::Refused => (Verdict::Pass, fate.to_string()),
        };
        lost += u32::from(verdict == Verdict::Fail);
        let when = if *offset < 0 { "before the deadline" } else { "after the deadline" };
        tally.add(session, when, *client, verdict, what);
    }
    session.leave_all(&all)?;
    Ok(lost)
}

/// Whether the end was on its way already when the request left. It arrives within a round trip
/// then, and some time later on a busy machine, which did not schedule this process for `own`. The
/// server's kernel acknowledges such a request too, so that shows nothing.
fn may_have_crossed(session: &Session, client: Client, own: Duration) -> bool {
    let seen = session.seen(client);
    let after = seen.ended_by_server().zip(seen.written).map(|(end, written)| end.saturating_duration_since(written));
    after.is_none_or(|after| after < CROSSING + own + session.round_trip.unwrap_or_default() * 2)
}
