//! `abandon-slow`: the client of a slow request leaves while the server works for it.

use std::time::Duration;

use super::{Case, Finding, Need, Tally};
use crate::client::Client;
use crate::control::{Control, Step};
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "abandon-slow",
    does: "sends the slow request, and leaves after a second by FIN, by RST, or in silence",
    source: "RFC 9293 section 3.6 (a FIN ends one direction), section 3.5.3 (an RST ends both)",
    cure: "Watch the connection while the work goes on, and end the work when it is reset.",
    cost: "a slow request for each way to leave; some seconds each",
    needs: &[Need::SlowRequest],
    run: abandon_slow,
}];

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    Fin,
    Reset,
    Silence,
}

impl Leave {
    const fn name(self) -> &'static str {
        match self {
            Self::Fin => "left by FIN",
            Self::Reset => "left by RST",
            Self::Silence => "left in silence",
        }
    }
}

/// When the client leaves; earlier if the answer takes less than four times that.
const LEAVES_AFTER: Duration = Duration::from_secs(1);
/// A server that looks once a second has looked.
const JUDGED: Duration = Duration::from_secs(1);
/// Between two runs of the command.
const EVERY: Duration = Duration::from_millis(200);
/// How long one run of the command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);

fn abandon_slow(session: &mut Session) -> Result<Finding, Broken> {
    let baseline = session.baseline.as_ref();
    let takes = Duration::from_millis(baseline.and_then(|it| it.slow_ms).unwrap_or_default());
    let mut ways = vec![Leave::Fin, Leave::Reset];
    if session.can_be_deaf {
        ways.push(Leave::Silence);
    }
    let mut tally = Tally::default();
    let mut facts = Vec::new();
    for way in ways {
        match abandon(session, way, takes)? {
            Left::Skipped(reason) => return Ok(Finding::skip(reason)),
            Left::Judged { client, verdict, what, is_down } => {
                facts.push(format!("{}: {what}", way.name()));
                tally.add(session, way.name(), client, verdict, &what);
                if is_down {
                    break;
                }
            }
        }
    }
    let mut finding = tally.finding();
    if finding.wrong == 0 {
        finding.summary = facts.join("; ");
    }
    Ok(finding)
}

fn ask(session: &mut Session) -> Result<Client, Broken> {
    let client = session.open(&Open::default())?;
    let slow = session.options.slow_request.clone().unwrap_or_default();
    session.send(client, &slow);
    // Deafness and FIN must not come before it.
    session.wait_until(Duration::from_millis(200), |session| session.is_acked(client))?;
    Ok(client)
}

enum Left {
    Skipped(String),
    Judged { client: Client, verdict: Verdict, what: String, is_down: bool },
}

fn abandon(session: &mut Session, way: Leave, takes: Duration) -> Result<Left, Broken> {
    if !is_idle(session, takes)? {
        return Err(wrong(
            "succeeded with no slow request under way; it must succeed only while the server works on one",
        ));
    }
    let client = ask(session)?;
    session.wait(LEAVES_AFTER.min(takes / 4))?;
    if session.has_answer(client) || session.seen(client).has_ended() {
        return Ok(Left::Skipped(format!(
            "the slow request was answered within {} ms; give one that takes 2 s or more (--slow-request)",
            takes.as_millis()
        )));
    }
    if goes_on(session)? == Some(false) {
        return Err(wrong("failed while the server worked on a slow request; it must succeed then"));
    }
    match way {
        Leave::Fin => session.finish(client),
        Leave::Reset => session.reset(client),
        Leave::Silence => {
            session.deafen(client)?;
        }
    }
    session.wait(Duration::ZERO)?;
    let (mut verdict, mut what) = consequence(session, way, takes)?;
    session.reset(client);
    // What is still worked on may hold up others until it is done.
    let limit = takes + session.options.timeout;
    let after = session.aftermath(limit)?;
    if after.verdict() == Verdict::Fail {
        (verdict, what) = (Verdict::Fail, format!("afterwards {after}"));
    }
    Ok(Left::Judged { client, verdict, what, is_down: after.served.is_none() })
}

/// Waits until no work continues, such as that of the client before.
fn is_idle(session: &mut Session, takes: Duration) -> Result<bool, Broken> {
    let begun = session.now();
    let limit = takes + session.options.timeout;
    while goes_on(session)? == Some(true) {
        if session.now().saturating_duration_since(begun) >= limit {
            return Ok(false);
        }
        session.wait(EVERY)?;
    }
    Ok(true)
}

/// Whether the work ends after the client has left, and how that is judged. It is awaited for
/// half of the time that the work would still take: then it ends anyway.
fn consequence(session: &mut Session, way: Leave, takes: Duration) -> Result<(Verdict, String), Broken> {
    if session.options.consequence.is_none() {
        return Ok((Verdict::Pass, "the next client was served".to_owned()));
    }
    let begun = session.now();
    let left = (takes - LEAVES_AFTER.min(takes / 4)) / 2;
    loop {
        let after = session.now().saturating_duration_since(begun);
        if goes_on(session)? == Some(false) {
            return Ok((Verdict::Pass, format!("the work ended within {} ms", after.as_millis())));
        }
        if after >= left {
            break;
        }
        session.wait(EVERY)?;
    }
    let ms = left.as_millis();
    let claim = session.options.claims.idle;
    Ok(match way {
        // It may still be interested, and reads the answer.
        Leave::Fin => (Verdict::Pass, format!("the work went on for {ms} ms, as it may after a FIN")),
        Leave::Reset if left < JUDGED => (Verdict::Pass, format!("the work takes too short a time to judge {ms} ms")),
        Leave::Reset => (Verdict::Fail, format!("the work went on for {ms} ms without its client")),
        Leave::Silence if claim.is_some_and(|claim| left > claim * 2) => {
            (Verdict::Fail, format!("the work went on for {ms} ms without its client, twice what is said"))
        }
        // No server can know that yet, without keep-alive each second.
        Leave::Silence => (Verdict::Pass, format!("the work went on for {ms} ms: the silence was not noticed")),
    })
}

/// Whether the command of the consequence succeeds; `None` if there is none.
fn goes_on(session: &mut Session) -> Result<Option<bool>, Broken> {
    let Some(command) = session.options.consequence.clone() else { return Ok(None) };
    let mut control = Control::shell(&command).map_err(|reason| Broken::Option(format!("--consequence: {reason}")))?;
    let mut step = Step::Running;
    session.wait_until(COMMAND_LIMIT, |_| {
        step = control.step();
        step != Step::Running
    })?;
    match step {
        Step::Running => Err(wrong(&format!("took more than {COMMAND_LIMIT:?}, and was killed"))),
        step => Ok(Some(step == Step::Done)),
    }
}

/// The command of the consequence did not do its part.
fn wrong(what: &str) -> Broken {
    Broken::Option(format!("the command of --consequence {what}"))
}
