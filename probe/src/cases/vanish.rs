//! `vanish`: clients that are gone without FIN and RST, as when a cable is pulled or a machine
//! dies.

use std::time::Duration;

use super::hold::measure_big;
use super::{Case, Finding, Need};
use crate::bystander::Bystander;
use crate::client::Client;
use crate::held::Held;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "vanish",
    does: "six clients become deaf and silent: idle, in the middle of a request, in the middle of an answer",
    source: "RFC 9293 section 3.8.4 (keep-alive), section 3.9.1 (user timeout); tcp(7): TCP_USER_TIMEOUT",
    cure: "Give each stage of a connection a deadline, or switch on keep-alive and TCP_USER_TIMEOUT, so that the place \
           of a client that is gone becomes free.",
    cost: "some 10 connections, of which the server may keep some; 4 times as long as the timeout",
    needs: &[Need::Deaf, Need::Hostile],
    run: vanish,
}];

/// As many as small servers have places.
const COUNT: usize = 6;
/// The smallest receive window takes an answer of less: then it has no middle.
const WINDOW: u64 = 4096;

/// What the clients do before they vanish.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Connected, and nothing sent.
    Unused,
    /// One answer read: where a connection can be used twice.
    Idle,
    /// Half of the request sent.
    Request,
    /// The beginning of a big answer read.
    Answer,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Unused => "before a request",
            Self::Idle => "after an answer",
            Self::Request => "in the middle of a request",
            Self::Answer => "in the middle of an answer",
        }
    }

    /// The deadline that the server is said to have here.
    const fn claim(self, session: &Session) -> Option<Duration> {
        match self {
            Self::Unused | Self::Request => session.options.claims.header,
            Self::Idle => session.options.claims.idle,
            Self::Answer => None,
        }
    }
}

fn vanish(session: &mut Session) -> Result<Finding, Broken> {
    // Its clients may take all places for a while, which is no harm yet.
    Bystander::stay_away(session);
    let mut stages = vec![Stage::Unused];
    if session.persistent.is_some() {
        stages.push(Stage::Idle);
    }
    stages.push(Stage::Request);
    if let Some(big) = session.options.big_request.clone()
        && measure_big(session, &big)?.0 > WINDOW
    {
        stages.push(Stage::Answer);
    }
    let mut worst: Option<Finding> = None;
    let mut runs = 0;
    let mut seen = std::collections::BTreeMap::new();
    for stage in stages {
        let finding = vanish_at(session, stage)?;
        runs += 1;
        seen.extend(finding.seen.clone());
        // Of two facts the one that was held is the more interesting.
        let rank = |finding: &Finding| match finding.verdict {
            Verdict::Skip => 0,
            Verdict::Pass => 1,
            Verdict::Info => 2,
            Verdict::Warn | Verdict::Fail => 3,
        };
        let is_lost = finding.verdict == Verdict::Fail;
        if worst.as_ref().is_none_or(|worst| rank(&finding) > rank(worst)) {
            worst = Some(finding);
        }
        if is_lost {
            break;
        }
    }
    let mut finding = worst.unwrap_or_else(|| Finding::skip("nothing was tried"));
    (finding.runs, finding.seen) = (runs, seen);
    Ok(finding)
}

fn vanish_at(session: &mut Session, stage: Stage) -> Result<Finding, Broken> {
    let name = stage.name();
    let clients = prepare(session, stage)?;
    let mut gone = Vec::new();
    for client in clients {
        if !session.seen(client).has_ended() && session.deafen(client)? {
            gone.push(client);
        }
    }
    if gone.is_empty() {
        return Ok(Finding::skip(format!("{name}: the server let no client stay until it could vanish")));
    }
    let count = gone.len();
    let begun = session.now();
    let claim = stage.claim(session);
    let wait = session.options.deadline_wait(claim);
    session.wait(wait)?;
    let after = session.aftermath(session.options.timeout)?;
    let waited = session.now().saturating_duration_since(begun).as_millis();
    for client in &gone {
        session.hear(*client);
    }
    let byte = next_byte(session, stage);
    let answers = session.ask_with_byte(&gone, &byte)?;
    let held = answers.iter().filter(|held| **held == Held::Held).count();
    let first_held = gone.iter().zip(&answers).find(|(_, held)| **held == Held::Held).map(|(client, _)| *client);
    let ladder = session.records(first_held.unwrap_or(gone[0]));
    for client in &gone {
        session.reset(*client);
    }
    session.wait(Duration::from_millis(1))?;
    let (verdict, summary) = match (after.served, held, claim) {
        _ if after.is_limited() => (Verdict::Info, format!("after {count} clients vanished {name}: {after}")),
        (None, 1.., _) => {
            let words = format!("{held} of {count} clients that vanished {name} are still held after {waited} ms");
            (Verdict::Fail, format!("{words}, and a healthy client is not served: {after}"))
        }
        (None, 0, _) => (Verdict::Fail, format!("after {count} clients vanished {name}: {after}")),
        (Some(_), ..) if after.verdict() == Verdict::Fail => {
            (Verdict::Fail, format!("after {count} clients vanished {name}: {after}"))
        }
        (Some(_), 0, _) => (Verdict::Pass, format!("none of {count} clients that vanished is held after {waited} ms")),
        (Some(_), _, Some(claim)) => {
            let words = format!("{held} of {count} clients that vanished {name} are still held after {waited} ms");
            (Verdict::Fail, format!("{words}; the deadline is said to be {} ms", claim.as_millis()))
        }
        (Some(_), _, None) => {
            let words = format!("{held} of {count} clients that vanished {name} are still held after {waited} ms");
            (Verdict::Info, format!("{words}; others are served"))
        }
    };
    let mut finding = Finding::of(verdict, summary);
    finding.ladder = ladder;
    let facts = serde_json::json!({
        "vanished": count, "held": held, "waited_ms": u64::try_from(waited).unwrap_or(u64::MAX),
        "served": after.to_string(),
    });
    Ok(finding.with(name, facts))
}

/// Opens the clients, and lets them do what they do before they vanish.
fn prepare(session: &mut Session, stage: Stage) -> Result<Vec<Client>, Broken> {
    let request = session.options.request.clone();
    let is_answer = stage == Stage::Answer;
    let open = Open { window: is_answer.then_some(1), ..Open::default() };
    let clients = session.open_all(COUNT, &open)?;
    let bytes: &[u8] = match stage {
        Stage::Unused => &[],
        Stage::Idle => &session.kept_request(),
        Stage::Request => &request[..request.len() / 2],
        Stage::Answer => session.options.big_request.as_deref().unwrap_or_default(),
    };
    let bytes = bytes.to_vec();
    for client in &clients {
        session.send(*client, &bytes);
    }
    let limit = session.options.timeout;
    let is_done = |session: &mut Session, client: Client| match stage {
        Stage::Unused | Stage::Request => session.is_acked(client),
        Stage::Idle => session.has_answer(client),
        Stage::Answer => session.seen(client).first_byte.is_some(),
    };
    session.wait_until(limit, |session| {
        clients.iter().all(|client| session.seen(*client).has_ended() || is_done(session, *client))
    })?;
    for client in &clients {
        if is_answer {
            session.pause(*client);
        }
    }
    Ok(clients)
}

/// What a client sends when it is back, to ask whether it is still held. No byte completes a
/// request.
fn next_byte(session: &Session, stage: Stage) -> Vec<u8> {
    let request = &session.options.request;
    let at = if stage == Stage::Request { request.len() / 2 } else { 0 };
    request.get(at..=at).unwrap_or(b"\n").to_vec()
}
