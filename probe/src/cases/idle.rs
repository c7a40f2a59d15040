//! `idle` and `silent-forget`: a connection that is kept after its answer.

use std::time::Duration;

use serde_json::json;

use super::deadline::{Claim, Sheet, Waiting, ask, poke, wait_for_ends};
use super::request::parts;
use super::silent::HINT;
use super::{Case, Finding, Need};
use crate::bystander::Bystander;
use crate::client::Client;
use crate::held::Held;
use crate::report::{Verdict, millis};
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "idle",
        does: "gets one answer and keeps the connection, without other clients",
        source: "RFC 9112 section 9.5",
        cure: "End a connection without a request after the stated time, with a timer that needs no other traffic, \
               and not sooner.",
        cost: "1 connection, held as long as the timeout or a claim, and no healthy client beside it",
        needs: &[Need::Reuse],
        run: idle,
    },
    Case {
        id: "silent-forget",
        does: "keeps a connection without traffic, and asks by keep-alive whether the server still has it",
        source: "RFC 9293 sections 3.5.2 and 3.8.4; RFC 5382 section 5",
        cure: "Send FIN or a reset before a connection is forgotten; what forgets idle flows between needs keep-alive \
               at shorter intervals.",
        cost: "1 connection, held as long as the timeout or a claim",
        needs: &[],
        run: silent_forget,
    },
];

fn idle(session: &mut Session) -> Result<Finding, Broken> {
    Bystander::stay_away(session);
    let Some(client) = session.open_answered()? else {
        return Ok(Finding::skip("the connection did not stay open after the answer"));
    };
    let (seen, claim) = (session.seen(client), Claim::of(session.options.claims.idle));
    let announced = seen.answer.http().and_then(|http| http.keeps).map(Duration::from_secs);
    let since = seen.last_byte.unwrap_or(seen.opened);
    let earliest = seen.written.unwrap_or(seen.opened);
    session.mark(client);
    let mut all = [Waiting::new("idle", client, claim, (earliest, since))];
    let limit = Claim::wait(claim, session);
    wait_for_ends(session, &mut all, limit)?;
    session.deadlines.idle = all[0].deadline();
    let request = session.kept_request();
    poke(session, &mut all, 0, &request)?;
    ask(session, &mut all)?;
    let (mut judged, mut facts) = (all[0].judge(session.options.late), all[0].facts());
    if let Some(announced) = announced {
        facts["announced_ms"] = json!(millis(announced));
        let is_early = all[0].end.is_some_and(|end| end.longest < announced / 10 * 9);
        if is_early && judged.0 < Verdict::Warn {
            judged = (Verdict::Warn, format!("{}; its answer announced {} ms", judged.1, announced.as_millis()));
        }
    }
    let mut sheet = Sheet::default();
    sheet.add(session, "idle", client, judged, facts);
    session.leave_all(&[client])?;
    Ok(sheet.finding(HINT))
}

/// A client that has sent a part of its request. A bare connection would not do: with
/// TCP_DEFER_ACCEPT the server's program does not have it before the first byte (tcp(7)).
fn started(session: &mut Session) -> Result<Option<Client>, Broken> {
    let Some(part) = parts(&session.options.request).into_iter().next() else { return Ok(None) };
    let client = session.open(&Open::default())?;
    session.send(client, &part.sent);
    Ok(Some(client))
}

fn silent_forget(session: &mut Session) -> Result<Finding, Broken> {
    let is_reusable = session.persistent.is_some();
    let mut clients = Vec::new();
    // The question makes a kernel that has forgotten the connection reset it. The second client is
    // asked later: if it was reset meanwhile, that was the server's doing.
    for _ in 0..2 {
        clients.extend(if is_reusable { session.open_answered()? } else { started(session)? });
    }
    let [first, second] = clients[..] else {
        return Ok(Finding::skip("no connection could be kept: not after an answer, and not with half a request"));
    };
    let begun = session.now();
    let limit = session.options.timeout;
    let is_told =
        session.wait_until(limit, |session| clients.iter().any(|client| session.seen(*client).has_ended()))?;
    let waited = session.now().saturating_duration_since(begun);
    let held = if is_told { Held::Ended } else { session.is_held(first)? };
    let mut is_ended = session.seen(second).has_ended();
    if matches!(held, Held::Gone | Held::Silent) && !is_ended {
        is_ended = session.is_held(second)? == Held::Held;
    }
    let after = waited.as_millis();
    let judged = match held {
        Held::Held => (Verdict::Pass, format!("still held after {after} ms")),
        Held::Ended => (Verdict::Pass, format!("ended after {after} ms, and not forgotten")),
        Held::Gone | Held::Silent if is_ended => {
            (Verdict::Info, format!("ended while it was asked for, after {after} ms"))
        }
        Held::Gone => (lost(session), format!("gone after {after} ms, and no FIN or reset was sent: {}", by(session))),
        Held::Silent => {
            (lost(session), format!("nothing answers after {after} ms, and no FIN or reset came: {}", by(session)))
        }
    };
    let mut sheet = Sheet::default();
    let facts = json!({ "held": held.name(), "after_ms": millis(waited) });
    sheet.add(session, if is_reusable { "idle" } else { "half a request" }, first, judged, facts);
    session.leave_all(&clients)?;
    Ok(sheet.finding(""))
}

/// Something between may have forgotten it, and is not the server's fault.
const fn lost(session: &Session) -> Verdict {
    match session.hops {
        Some(0) => Verdict::Fail,
        Some(_) | None => Verdict::Warn,
    }
}

const fn by(session: &Session) -> &'static str {
    match session.hops {
        Some(0) => "the server has forgotten it",
        Some(_) | None => "the server, or a balancer or NAT between, has forgotten it",
    }
}
