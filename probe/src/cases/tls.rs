//! `close-notify` and `half-handshake`: what only a server with TLS can do wrong.

use std::time::Duration;

use serde_json::json;

use super::deadline::{Claim, Sheet, Waiting, ask, wait_for_ends};
use super::silent::HINT;
use super::{Case, Finding, Need};
use crate::baseline::QUIET;
use crate::client::{Client, Seen};
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "close-notify",
        does: "reads the answer to the end of the stream: is there a close_notify before the FIN?",
        source: "RFC 8446 section 6.1; RFC 9112 section 9.8",
        cure: "Send close_notify before you close the connection (SSL_shutdown in OpenSSL): without it an attacker, a \
               crash and your end look the same, and careful clients report an error.",
        cost: "2 connections",
        needs: &[Need::Tls],
        run: close_notify,
    },
    Case {
        id: "half-handshake",
        does: "sends half of its first message of TLS (ClientHello), or all of it, and then nothing",
        source: "RFC 8446 section 4.1.2; CWE-400",
        cure: "Start a deadline for the handshake when a connection is accepted, with a timer of its own: a deadline \
               of the first request comes too late.",
        cost: "2 connections, held as long as the timeout or a claim",
        needs: &[Need::Tls],
        run: half_handshake,
    },
];

fn close_notify(session: &mut Session) -> Result<Finding, Broken> {
    let mut sheet = Sheet::default();
    let mut requests = vec![("the request", session.options.request.clone())];
    if let Some(kept) = &session.persistent {
        requests.push(("a request that keeps the connection", kept.request.clone()));
    }
    for (name, request) in requests {
        let client = session.open(&Open::default())?;
        session.send(client, &request);
        session.wait_for_answer(client, QUIET)?;
        session.settle(client)?;
        let is_first = session.seen(client).has_ended();
        session.leave(client)?;
        let (verdict, what) = judge(session.seen(client), is_first);
        let end = session.seen(client);
        let facts = json!({
            "first": if is_first { "server" } else { "client" },
            "close_notify": end.tls.as_ref().is_some_and(|tls| tls.close_notify.is_some()),
            "truncated": end.is_truncated(),
        });
        sheet.add(session, name, client, (verdict, what.to_owned()), facts);
    }
    Ok(sheet.finding(""))
}

/// `is_first`: the server has ended before the client.
fn judge(seen: &Seen, is_first: bool) -> (Verdict, &'static str) {
    let has_close_notify = seen.tls.as_ref().is_some_and(|tls| tls.close_notify.is_some());
    match (seen.is_truncated(), is_first) {
        (true, true) => (
            Verdict::Warn,
            "truncated: the server ends with a FIN and no close_notify; the client can't distinguish it from a cut",
        ),
        // The client had what it wanted, and has said so.
        (true, false) => (Verdict::Info, "after the client's close_notify the server ends without its own"),
        (false, _) if has_close_notify => (Verdict::Pass, "close_notify, and then the FIN"),
        (false, _) if seen.reset.is_some() => (Verdict::Info, "reset, which no client takes for an end"),
        (false, _) => (Verdict::Info, "the server had not ended when the client left"),
    }
}

/// The first flight of a server comes in pieces: a silence ends it.
const FLIGHT: Duration = Duration::from_millis(50);

fn half_handshake(session: &mut Session) -> Result<Finding, Broken> {
    let Some(tls) = &session.options.tls else { return Ok(Finding::skip(Need::Tls.words())) };
    let hello = tls.client_hello().map_err(|error| Broken::Own(error.to_string()))?;
    let claim = Claim::of(session.options.claims.header);
    let parts = [("half of the ClientHello", &hello[..hello.len() / 2]), ("the ClientHello", &hello[..])];
    let mut all = Vec::new();
    for (name, part) in parts {
        let client = begin(session, part)?;
        all.push(Waiting::since_open(session, name, client, claim));
    }
    let limit = Claim::wait(claim, session);
    wait_for_ends(session, &mut all, limit)?;
    for it in &mut all {
        // It has no line: an alert is the only record that may come.
        let is_alert = session.seen(it.client).answer.head.first() == Some(&ALERT);
        it.words = if is_alert { "an alert of TLS".to_owned() } else { String::new() };
    }
    ask(session, &mut all)?;
    let mut sheet = Sheet::default();
    for it in &all {
        sheet.add_waiting(session, it);
    }
    session.leave_all(&all.iter().map(|it| it.client).collect::<Vec<_>>())?;
    Ok(sheet.finding(HINT))
}

/// The type of a record (RFC 8446 section 5.1).
const ALERT: u8 = 21;

/// A client that begins a handshake by hand, and has read the server's flight, if there is one.
fn begin(session: &mut Session, part: &[u8]) -> Result<Client, Broken> {
    let client = session.open(&Open { raw: true, bare: true, ..Open::default() })?;
    session.send(client, part);
    let limit = FLIGHT + session.usual_time() * 3;
    session.wait_for(client, limit, |seen| seen.has_ended() || seen.answer.bytes > 0)?;
    if session.seen(client).answer.head.first() != Some(&ALERT) {
        session.wait_for(client, FLIGHT, Seen::has_ended)?;
        session.mark(client);
    }
    Ok(client)
}
