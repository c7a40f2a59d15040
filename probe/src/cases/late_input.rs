//! `late-input`: the last byte of the request, or one byte beyond it, arrives later. A server that
//! closes with unread input resets its own answer.

use std::time::Duration;

use super::exchange::{Owed, deaf_while, grade, grade_leniently, is_still_coming, wait_for_missed, wait_for_other};
use super::{Case, Finding, Tally};
use crate::answer::Outcome;
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "late-input",
    does: "sends the last byte of the request alone and later, or one byte beyond the request",
    source: "RFC 1122 section 4.2.2.13; RFC 9112 section 9.6",
    cure: "Read the whole request; and to close, send FIN first, read until the client's FIN or for a second, and \
           close then: a close with unread input sends a reset, which destroys the answer on its way.",
    cost: "some 30 connections; 4 s",
    needs: &[],
    run: late_input,
}];

/// A client that has sent `Connection: close` must send nothing more, so what it loses is not the
/// server's fault alone.
const AFTER_CLOSE: &str = "Only clients are affected that send more than they have announced, as some do after a \
                           body: send FIN first, read until the client's FIN or for a second, and close then.";
/// A slow reader's pause: the late byte arrives in it.
const PAUSE: Duration = Duration::from_millis(300);
const WINDOW: usize = 4096;
/// When the late byte follows.
const SOON: Duration = Duration::from_millis(5);
const LATER: Duration = Duration::from_millis(20);
/// Each is certain, so few runs show it.
const DEAF_RUNS: u32 = 2;
const RUNS: u32 = 5;

/// One byte that comes late.
struct Late {
    variant: &'static str,
    /// The byte is the first of another request; else it is the last of the request.
    is_beyond: bool,
    /// After the rest of the request; `None`: in the same segment.
    gap: Option<Duration>,
    is_deaf: bool,
}

const LATE: [Late; 7] = [
    Late { variant: "the last byte 5 ms later", is_beyond: false, gap: Some(SOON), is_deaf: false },
    Late { variant: "the last byte 20 ms later", is_beyond: false, gap: Some(LATER), is_deaf: false },
    Late { variant: "the last byte 20 ms later, deaf", is_beyond: false, gap: Some(LATER), is_deaf: true },
    Late { variant: "a byte beyond the request, with it", is_beyond: true, gap: None, is_deaf: false },
    Late { variant: "a byte beyond the request, 5 ms later", is_beyond: true, gap: Some(SOON), is_deaf: false },
    Late { variant: "a byte beyond the request, with it, deaf", is_beyond: true, gap: None, is_deaf: true },
    Late { variant: "a byte beyond the request, 5 ms later, deaf", is_beyond: true, gap: Some(SOON), is_deaf: true },
];

fn late_input(session: &mut Session) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let request = session.options.request.clone();
    let beyond = request[..1].to_vec();
    for late in &LATE {
        if late.is_deaf && !session.can_be_deaf {
            continue;
        }
        for _ in 0..if late.is_deaf { DEAF_RUNS } else { RUNS }.min(session.options.runs) {
            let client = match late.is_beyond {
                true => try_late(session, late, &request, &beyond)?,
                false => try_late(session, late, &request[..request.len() - 1], &request[request.len() - 1..])?,
            };
            let Some(client) = client else { continue };
            let outcome = session.outcome(client);
            let verdict = judge(session, late.is_beyond, client, &outcome);
            tally.add(session, late.variant, client, verdict, &outcome);
            session.leave(client)?;
        }
    }
    after_the_answer(session, &mut tally, &request, &beyond)?;
    with_a_slow_reader(session, &mut tally)?;
    let mut finding = tally.finding();
    if finding.verdict == Verdict::Warn && has_excluded(&request) {
        finding.cure = Some(AFTER_CLOSE);
    }
    if !session.can_be_deaf {
        finding.summary.push_str("; losses are rarely seen here, since no socket can be made deaf");
    }
    Ok(finding)
}

/// A reset that answers our own byte is TCP doing its duty, if the answer had arrived and the
/// server had finished. HTTP forbids further bytes to a client that has sent `Connection: close`
/// (RFC 9112 section 9.6).
fn judge(session: &Session, is_beyond: bool, client: Client, outcome: &Outcome) -> Verdict {
    let seen = session.seen(client);
    let had_all = seen.fin.is_some() && seen.last_byte <= seen.fin;
    match is_beyond {
        true if outcome.is_at_risk() && had_all => grade_leniently(outcome),
        true if has_excluded(&session.options.request) => grade_leniently(outcome),
        _ => grade(outcome),
    }
}

/// Whether the client has announced that it sends no other request.
fn has_excluded(request: &[u8]) -> bool {
    let lower = request.to_ascii_lowercase();
    let words: &[u8] = b"\r\nconnection: close";
    lower.windows(words.len()).any(|window| window == words)
}

/// Sends `first`, and then `last`. `None`: the client could not be made deaf.
fn try_late(session: &mut Session, late: &Late, first: &[u8], last: &[u8]) -> Result<Option<Client>, Broken> {
    let client = session.open(&Open::default())?;
    let send = |session: &mut Session| {
        session.send(client, first);
        if let Some(gap) = late.gap {
            session.wait(gap)?;
        }
        session.send(client, last);
        Ok(())
    };
    if late.is_deaf {
        if !deaf_while(session, client, session.usual_time(), send)? {
            session.leave(client)?;
            return Ok(None);
        }
    } else {
        send(session)?;
    }
    wait_for_missed(session, client)?;
    Ok(Some(client))
}

/// The answer is here, and in most cases the server's FIN: whatever answers the byte is no fault.
fn after_the_answer(session: &mut Session, tally: &mut Tally, request: &[u8], beyond: &[u8]) -> Result<(), Broken> {
    let client = session.open(&Open::default())?;
    session.send(client, request);
    wait_for_missed(session, client)?;
    let variant = match session.seen(client).fin {
        Some(_) => "a byte after the server's FIN",
        None => "a byte after the answer",
    };
    let was_reset = session.seen(client).reset.is_some();
    session.send(client, beyond);
    session.settle(client)?;
    let outcome = session.outcome(client);
    let verdict = if was_reset { grade(&outcome) } else { grade_leniently(&outcome) };
    tally.add(session, variant, client, verdict, &outcome);
    session.leave(client)
}

/// The same while a big answer is on its way: the kernel that resets drops what it had not sent.
fn with_a_slow_reader(session: &mut Session, tally: &mut Tally) -> Result<(), Broken> {
    let Some(big) = session.options.big_request.clone() else { return Ok(()) };
    let (owed, _, seen) = Owed::measure(session, &big)?;
    // A loss is found by `slow-reader`, and is no question of input. A small answer is in the
    // kernel of a slow reader at once.
    if owed.outcome(&seen).is_lost() || owed.bytes() <= 2 * WINDOW as u64 {
        return Ok(());
    }
    let beyond = big[..1].to_vec();
    let parts: [(&str, &[u8], &[u8], bool); 2] = [
        ("big answer, slow reader, the last byte 20 ms later", &big[..big.len() - 1], &big[big.len() - 1..], false),
        ("big answer, slow reader, a byte beyond the request", &big, &beyond, true),
    ];
    for (variant, first, last, is_beyond) in parts {
        let client = session.open(&Open { window: Some(WINDOW), paused: true, ..Open::default() })?;
        session.send(client, first);
        session.wait(LATER)?;
        session.send(client, last);
        session.wait(PAUSE)?;
        session.resume(client);
        let limit = session.options.timeout;
        wait_for_other(session, client, Some(&owed), limit)?;
        session.settle(client)?;
        let outcome = owed.outcome(session.seen(client));
        let verdict = match is_beyond && has_excluded(&big) {
            _ if is_still_coming(session, client) && outcome.is_lost() => Verdict::Info,
            true => grade_leniently(&outcome),
            false => grade(&outcome),
        };
        tally.add(session, variant, client, verdict, &outcome);
        session.leave(client)?;
    }
    Ok(())
}
