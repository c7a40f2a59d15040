//! `reuse-after-error`: what a connection is good for after a request that was refused.

use super::pipeline::patience;
use super::{Case, Finding, Need, Tally};
use crate::answer::Framing;
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Fate, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "reuse-after-error",
    does: "sends a bad request, then a good one on the same connection if it stays open",
    source: "RFC 9112 sections 2.2, 6.3 and 9.6",
    cure: "After an error either read the rest of that request and continue, or announce the close and end the \
           connection.",
    cost: "12 connections, one at a time; 1 s",
    needs: &[Need::Reuse],
    run: reuse_after_error,
}];

/// A request that a server refuses.
struct Bad {
    name: &'static str,
    bytes: Vec<u8>,
}

/// What a server does after an error does not vary.
const RUNS: u32 = 3;

fn reuse_after_error(session: &mut Session) -> Result<Finding, Broken> {
    let bad = bad_requests(session);
    if bad.is_empty() {
        return Ok(Finding::skip("only for HTTP and for protocols of lines: no other bad request is known"));
    }
    let mut tally = Tally::default();
    for bad in &bad {
        for _ in 0..session.options.runs.min(RUNS) {
            let client = session.open_persistent()?;
            let (verdict, what) = try_once(session, client, bad)?;
            tally.add(session, bad.name, client, verdict, what);
            session.leave(client)?;
        }
    }
    Ok(tally.finding())
}

fn try_once(session: &mut Session, client: Client, bad: &Bad) -> Result<(Verdict, &'static str), Broken> {
    session.ask_with(client, &bad.bytes, 1)?;
    let limit = patience(session);
    session.wait_for_answers(client, 1, limit)?;
    // More than one answer, or an end, follows at once.
    session.settle(client)?;
    // An error has another length: without a mark of its end it is one answer.
    let is_counted = !matches!(session.framing, Framing::Bytes(_));
    let some = u32::from(session.seen(client).answer.bytes > 0);
    let refused = if is_counted { session.answered(client) } else { some };
    if refused > 1 {
        return Ok((Verdict::Fail, "the body of the refused request was taken for a request"));
    }
    if session.seen(client).has_ended() {
        return Ok((Verdict::Pass, "it ends the connection"));
    }
    if session.is_close_announced(client) {
        let limit = session.options.timeout;
        let ended = session.wait_for(client, limit, crate::client::Seen::has_ended)?;
        return Ok(if ended {
            (Verdict::Pass, "it announces the end, and ends the connection")
        } else {
            (Verdict::Info, "it announces the end, and does not end the connection")
        });
    }
    // The status of the refusal is not that of a good answer: count from here.
    session.split(client);
    session.mark(client);
    session.ask(client)?;
    let limit = session.options.timeout;
    session.wait_for_answers(client, 1, limit)?;
    session.settle(client)?;
    let answered = session.answered(client);
    Ok(match session.fate(client) {
        Fate::Other(_) => (Verdict::Fail, "the next request is answered otherwise than usual"),
        _ if answered > 1 => (Verdict::Fail, "the body of the refused request was taken for a request"),
        _ if answered == 1 && refused == 1 => (Verdict::Pass, "the next request is answered"),
        _ if answered == 1 => (Verdict::Info, "the bad request is ignored, and the next one answered"),
        Fate::Crossed => (Verdict::Pass, "it ends the connection"),
        Fate::Silent if refused == 0 => (Verdict::Fail, "it answers neither, and keeps the connection"),
        Fate::Silent => (Verdict::Fail, "it keeps the connection, and reads no more"),
        _ => (Verdict::Fail, "it ends the connection at the next request, without an answer"),
    })
}

/// Requests that a server refuses.
fn bad_requests(session: &Session) -> Vec<Bad> {
    if session.baseline.as_ref().is_some_and(|it| it.status.is_some()) {
        let inner = b"GET /finale-probe-body HTTP/1.1\r\nHost: x\r\n\r\n";
        let head = |method: &str, length: &str| {
            format!("{method} /finale-probe HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes()
        };
        let body = |method| [head(method, &inner.len().to_string()), inner.to_vec()].concat();
        return vec![
            Bad { name: "no request line", bytes: b"finale-probe\r\n\r\n".to_vec() },
            Bad { name: "a length that is no number", bytes: head("POST", "ten") },
            Bad { name: "POST with a body like a request", bytes: body("POST") },
            Bad { name: "an unknown method with a body like a request", bytes: body("FINALE") },
        ];
    }
    let request = session.kept_request();
    let is_line = request.ends_with(b"\n") && matches!(session.framing, Framing::Until(_) | Framing::Bytes(_));
    if !is_line {
        return Vec::new();
    }
    let end: &[u8] = if request.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
    vec![Bad { name: "an unknown line", bytes: [b"finale-probe-no-such-request", end].concat() }]
}
