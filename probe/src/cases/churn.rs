//! `churn`: many connections, one after the other, of which the server must keep nothing.

use std::time::Duration;

use super::{Case, Finding};
use crate::bystander::Bystander;
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "churn",
    does: "opens and ends up to 1025 connections one after the other: cleanly, by FIN without reading, by RST, by FIN \
           without a request",
    source: "close(2); getrlimit(2): RLIMIT_NOFILE",
    cure: "Release the place and the descriptor of a connection on every path that ends it: one function does both.",
    cost: "up to 4100 connections, one at a time; at most 80 s",
    needs: &[],
    run: churn,
}];

/// Servers of few places have 5, 10, 32, 64 or 128; a process has 1024 descriptors by default. The
/// next client is served after another.
const MARKS: [usize; 6] = [6, 11, 33, 65, 129, 1025];
/// More than a browser and a crawler open in a minute is only for servers that may be hurt.
const POLITE: usize = 33;
/// A server that is slow per connection is not tried for longer than this per kind.
const BUDGET: Duration = Duration::from_secs(6);
/// How long the server's end is awaited.
const LEAVE: Duration = Duration::from_millis(50);

/// How a connection of the churn ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clean,
    Unread,
    Reset,
    FinOnly,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Clean, Self::Unread, Self::Reset, Self::FinOnly];

    const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean closes",
            Self::Unread => "FIN without reading the answer",
            Self::Reset => "RST after the request",
            Self::FinOnly => "FIN without a request",
        }
    }
}

fn churn(session: &mut Session) -> Result<Finding, Broken> {
    // A server may serve few at once, and need a moment for each end: one that is refused meanwhile
    // is no harm, if the next is served soon.
    Bystander::stay_away(session);
    if let Some(id) = session.limited_since {
        return Ok(Finding::skip(format!("the server limits this address since {id}")));
    }
    let most = if session.options.may_be_hostile(session.target) { MARKS[5] } else { POLITE };
    let mut finding = Finding::of(Verdict::Pass, String::new());
    let (mut all, mut slowest) = (0, Duration::ZERO);
    for kind in Kind::ALL {
        let churned = churn_with(session, kind, most)?;
        all += churned.count;
        slowest = slowest.max(churned.slowest);
        finding = finding.with(kind.name(), churned.count);
        finding.ladder = churned.ladder;
        if let Some((verdict, what)) = churned.end {
            (finding.verdict, finding.wrong) = (verdict, u32::from(verdict >= Verdict::Warn));
            finding.summary = format!("after {} connections, {}: {what}", churned.count, kind.name());
            finding.runs = u32::try_from(all).unwrap_or(u32::MAX);
            return Ok(finding);
        }
    }
    finding.ladder.clear();
    finding.runs = u32::try_from(all).unwrap_or(u32::MAX);
    finding.summary = format!("the next client was served within {} ms after {all} connections", slowest.as_millis());
    Ok(finding)
}

struct Churned {
    count: usize,
    /// The longest time after a mark until a healthy client was served.
    slowest: Duration,
    /// Why it went no further.
    end: Option<(Verdict, String)>,
    ladder: Vec<finale::trace::Record>,
}

fn churn_with(session: &mut Session, kind: Kind, most: usize) -> Result<Churned, Broken> {
    let begun = session.now();
    let mut churned = Churned { count: 0, slowest: Duration::ZERO, end: None, ladder: Vec::new() };
    while churned.count < most {
        // Up to there at the allowed rate; a storm needs the pace.
        let open = Open { paused: kind == Kind::Unread, ..Open::default() };
        let client = if churned.count < POLITE { session.start(&open)? } else { session.start_now(&open)? };
        let is_served = one(session, kind, client)?;
        churned.count += 1;
        if is_served && !MARKS.contains(&churned.count) {
            session.forget(client);
            continue;
        }
        churned.ladder = session.records(client);
        session.forget(client);
        // Resets do not wait until the server has accepted: its queue may be full.
        let limit = session.options.timeout.max(session.queued_out());
        let after = session.aftermath(limit)?;
        match (after.served, after.verdict()) {
            (Some(time), verdict) if verdict < Verdict::Warn => churned.slowest = churned.slowest.max(time),
            (_, verdict) => churned.end = Some((verdict, after.to_string())),
        }
        let is_late = session.now().saturating_duration_since(begun) > BUDGET && churned.count >= POLITE;
        if churned.end.is_some() || is_late {
            break;
        }
    }
    Ok(churned)
}

/// Lets one connection live and die. `false`: the server has not served it, as far as that can be
/// seen.
fn one(session: &mut Session, kind: Kind, client: Client) -> Result<bool, Broken> {
    let limit = session.options.timeout;
    session.wait_until_ready(&[client])?;
    let request = session.options.request.clone();
    match kind {
        Kind::Clean => {
            session.send(client, &request);
            session.wait_until(limit, |session| session.has_answer(client) || session.seen(client).has_ended())?;
            let is_served = session.outcome(client).got == crate::answer::Got::Whole;
            session.finish(client);
            session.wait_for(client, LEAVE, crate::client::Seen::is_over)?;
            return Ok(is_served);
        }
        Kind::Unread => {
            session.send(client, &request);
            session.finish(client);
            session.wait_for(client, LEAVE, crate::client::Seen::has_ended)?;
        }
        Kind::Reset => {
            session.send(client, &request);
            session.wait(Duration::ZERO)?;
        }
        Kind::FinOnly => {
            session.finish(client);
            session.wait_for(client, LEAVE, crate::client::Seen::has_ended)?;
        }
    }
    let is_served = session.seen(client).failed.is_none();
    session.reset(client);
    session.wait(Duration::ZERO)?;
    Ok(is_served)
}
