//! `connect-only` and `half-request`: clients that say nothing, or not enough.

use super::deadline::{Claim, Sheet, Waiting, ask, confirm_poked, open_silent, poke, wait_for_ends};
use super::request::{Stage, is_http, parts};
use super::{Case, Finding};
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "connect-only",
        does: "connects and sends nothing; a server that speaks first is read",
        source: "RFC 9112 section 9.5; CWE-400",
        cure: "Start a deadline when a connection is accepted, with a timer of its own: not with the first byte, and \
               not checked only when data arrives.",
        cost: "2 connections, held as long as the timeout or a claim",
        needs: &[],
        run: connect_only,
    },
    Case {
        id: "half-request",
        does: "sends a part of a request, and then nothing",
        source: "RFC 9112 section 9.5; RFC 9110 section 15.5.9; CWE-400",
        cure: "Start a deadline for the whole request head when the connection is accepted, with a timer of its own: \
               not checked only when data arrives.",
        cost: "4 connections, held as long as the timeout or a claim",
        needs: &[],
        run: half_request,
    },
];

pub(super) const HINT: &str = "a fact; with --claim it is checked";

fn connect_only(session: &mut Session) -> Result<Finding, Broken> {
    let claims = session.options.claims;
    // A server may count the time before the first request as idle. That it does is claimed only
    // where a request has no head of its own.
    let is_claimed = claims.header.is_some() || !is_http(&session.options.request);
    let claim = Claim::either(claims.header, claims.idle).filter(|_| is_claimed);
    // With TCP_DEFER_ACCEPT a server does not have the connection before the first byte (tcp(7)).
    // No client can see that: its kernel answers, and `Options::late` must be long enough for what
    // it waits.
    let mut all = Vec::new();
    // The second shows whether an end was caused by the first one's byte.
    for name in ["no byte", "no byte (second client)"] {
        let client = open_silent(session)?;
        all.push(Waiting::since_open(session, name, client, claim));
    }
    let limit = Claim::wait(claim, session);
    wait_for_ends(session, &mut all, limit)?;
    session.deadlines.silent = all[0].deadline();
    let next = if session.options.preface.is_empty() { &session.options.request } else { &session.options.preface };
    let next = next.clone();
    poke(session, &mut all, 0, &next)?;
    confirm_poked(session, &mut all[0], open_silent)?;
    ask(session, &mut all)?;
    finding(session, &all)
}

fn half_request(session: &mut Session) -> Result<Finding, Broken> {
    let request = session.options.request.clone();
    let claims = session.options.claims;
    let parts = parts(&request);
    let mut all = Vec::new();
    for part in &parts {
        let client = session.open(&Open::default())?;
        session.send(client, &part.sent);
        let claim = Claim::of(if part.stage == Stage::Head { claims.header } else { claims.body });
        all.push(Waiting::since_open(session, part.name, client, claim));
    }
    if all.is_empty() {
        return Ok(Finding::skip("a request of one or two bytes has no part that could be sent"));
    }
    let limit = all.iter().map(|it| Claim::wait(it.claim, session)).max().unwrap_or_default();
    wait_for_ends(session, &mut all, limit)?;
    let found = |stage| {
        let of_stage = all.iter().zip(&parts).filter(|(_, part)| part.stage == stage);
        of_stage.filter_map(|(it, _)| it.deadline()).max()
    };
    (session.deadlines.head, session.deadlines.body) = (found(Stage::Head), found(Stage::Body));
    // One after the other: each is the measure for the others.
    for (which, part) in parts.iter().enumerate() {
        poke(session, &mut all, which, &part.next)?;
    }
    for (it, part) in all.iter_mut().zip(&parts) {
        confirm_poked(session, it, |session| {
            let client = session.open(&Open::default())?;
            session.send(client, &part.sent);
            Ok(client)
        })?;
    }
    ask(session, &mut all)?;
    finding(session, &all)
}

fn finding(session: &mut Session, all: &[Waiting]) -> Result<Finding, Broken> {
    let mut sheet = Sheet::default();
    for it in all {
        sheet.add_waiting(session, it);
    }
    session.leave_all(&all.iter().map(|it| it.client).collect::<Vec<_>>())?;
    Ok(sheet.finding(HINT))
}
