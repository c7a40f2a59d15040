//! `reset-after-request`, `reset-mid-answer`, `fin-then-reset`: the client ends its connection with
//! an RST. To the server that is ECONNRESET once, or EPIPE once if the FIN came before; each
//! further write is EPIPE with SIGPIPE.
//!
//! Each death is followed by a healthy client.

use std::time::Duration;

use super::exchange::{BIG, too_small};
use super::hold::measure_big;
use super::{Case, Finding, Need, Tally};
use crate::bystander::{Bystander, Harm};
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "reset-after-request",
        does: "sends nothing, half of the request or all of it, then RST; a healthy client follows each time",
        source: "RFC 9293 section 3.5.3; read(2): ECONNRESET",
        cure: "Treat ECONNRESET as the end of this one connection: release what belongs to it, and let no error of a \
               connection leave the function that serves it.",
        cost: "some 100 connections, one at a time, and as many healthy ones after them, 20 if the server \
               is not local; 4 s",
        needs: &[],
        run: reset_after_request,
    },
    Case {
        id: "reset-mid-answer",
        does: "reads the beginning of a big answer, then RST, while the server writes; a healthy client follows",
        source: "RFC 9293 section 3.5.3; write(2), send(2): EPIPE, SIGPIPE, MSG_NOSIGNAL",
        cure: "Ignore SIGPIPE or send with MSG_NOSIGNAL, stop writing at the first error, and release what the answer \
               held.",
        cost: "11 connections with big answers, one at a time, and as many healthy ones; 2 s",
        needs: &[Need::BigRequest],
        run: reset_mid_answer,
    },
    Case {
        id: "fin-then-reset",
        does: "sends its FIN after nothing, half of the request or all of it, then RST; a healthy client follows",
        source: "RFC 9293 section 3.10.7.4 (CLOSE-WAIT)",
        cure: "Go on watching a connection for errors after its FIN: the RST is its end, whatever it still waits for.",
        cost: "some 100 connections, one at a time, and as many healthy ones after them, 20 if the server \
               is not local; 4 s",
        needs: &[],
        run: fin_then_reset,
    },
];

/// From what was sent to the RST. With the first the server finds data and RST together; with the
/// last it has usually answered or works.
const GAPS: [(&str, Duration); 3] =
    [("at once", Duration::ZERO), ("1 ms later", Duration::from_millis(1)), ("20 ms later", Duration::from_millis(20))];
/// What a slow server has begun to work after.
const AT_WORK: Duration = Duration::from_millis(200);
/// What takes longer is tried less often.
const FEW: u32 = 5;
/// How often a server gets each that must not be harmed: some block an address after ten or a
/// hundred.
const POLITE: u32 = 2;

fn reset_after_request(session: &mut Session) -> Result<Finding, Broken> {
    let request = session.options.request.clone();
    let sent: [(&str, &[u8]); 3] = [("no byte", &[]), ("half a request", half(&request)), ("a request", &request)];
    let mut tally = Tally::default();
    for (what, bytes) in sent {
        for (when, gap) in GAPS {
            let variant = format!("{what}, RST {when}");
            for _ in 0..runs(session) {
                let client = session.open(&Open::default())?;
                session.send(client, bytes);
                session.wait(gap)?;
                if !dies(session, &mut tally, &variant, client)? {
                    return Ok(tally.finding());
                }
            }
        }
    }
    if let Some(slow) = session.options.slow_request.clone() {
        let client = session.open(&Open::default())?;
        session.send(client, &slow);
        session.wait(AT_WORK)?;
        dies(session, &mut tally, "a slow request, RST while it works", client)?;
    }
    Ok(tally.finding())
}

fn reset_mid_answer(session: &mut Session) -> Result<Finding, Broken> {
    let Some(big) = session.options.big_request.clone() else { return Ok(Finding::skip("there is no big request")) };
    // Of a smaller answer everything is written before the client can end: there is no middle.
    let (whole, end) = measure_big(session, &big)?;
    if whole < BIG {
        return Ok(Finding::skip(too_small(whole, end)));
    }
    let moments = [("at its first bytes", Duration::ZERO), ("when the server can write no more", AT_WORK)];
    let mut tally = Tally::default();
    for (when, gap) in moments {
        for _ in 0..FEW.min(session.options.runs) {
            // The smallest window: nearly all of the answer is still to be written.
            let client = session.open(&Open { window: Some(1), ..Open::default() })?;
            session.send(client, &big);
            let limit = session.options.timeout;
            session.wait_for(client, limit, |seen| seen.first_byte.is_some() || seen.has_ended())?;
            session.pause(client);
            session.wait(gap)?;
            let seen = session.seen(client);
            if seen.connected.is_some() && seen.has_ended() {
                return Ok(Finding::skip("the big answer ends before anything can be done to it"));
            }
            if !dies(session, &mut tally, &format!("RST {when}"), client)? {
                return Ok(tally.finding());
            }
        }
    }
    Ok(tally.finding())
}

fn fin_then_reset(session: &mut Session) -> Result<Finding, Broken> {
    let request = session.options.request.clone();
    let slow = session.options.slow_request.clone();
    let mut sent: Vec<(&str, &[u8])> =
        vec![("no byte", &[]), ("half a request", half(&request)), ("a request", &request)];
    sent.extend(slow.iter().map(|slow| ("a slow request", slow.as_slice())));
    let mut tally = Tally::default();
    for (what, bytes) in sent {
        for (when, gap) in GAPS {
            let variant = format!("{what}, FIN, RST {when}");
            for _ in 0..runs(session).min(if what == "a slow request" { 1 } else { u32::MAX }) {
                let client = session.open(&Open::default())?;
                session.send(client, bytes);
                session.finish(client);
                session.wait(gap)?;
                if !dies(session, &mut tally, &variant, client)? {
                    return Ok(tally.finding());
                }
            }
        }
    }
    Ok(tally.finding())
}

/// How often each is tried: many variants of one kind are as good as many runs.
fn runs(session: &Session) -> u32 {
    let runs = session.options.runs.div_ceil(2);
    if session.options.may_be_hostile(session.target) { runs } else { runs.min(POLITE) }
}

fn half(request: &[u8]) -> &[u8] {
    &request[..request.len() / 2]
}

/// Resets the client, and serves a healthy one. Returns whether to continue.
fn dies(session: &mut Session, tally: &mut Tally, variant: &str, client: Client) -> Result<bool, Broken> {
    if session.seen(client).connected.is_none() {
        tally.add(session, variant, client, Verdict::Fail, "not connected");
        return Ok(false);
    }
    session.reset(client);
    // It leaves before the next one comes.
    session.wait(Duration::ZERO)?;
    let harm = Bystander::serve_now(session)?;
    let (verdict, what) = match harm {
        None => (Verdict::Pass, "the next client was served"),
        // The bystander judges times.
        Some(Harm::Late(_)) => (Verdict::Pass, "the next client was served late"),
        Some(harm) => (Verdict::Fail, harm.name()),
    };
    tally.add(session, variant, client, verdict, what);
    session.forget(client);
    Ok(harm.is_none())
}
