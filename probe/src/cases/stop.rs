//! The stop of the server: it is stopped once, and each of these cases judges some of the clients
//! that were watched.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Case, Finding, Need};
use crate::answer::End;
use crate::report::{Verdict, millis};
use crate::session::{Broken, Fate, Session};
use crate::stop::{HALF, JUST_SENT, Stopped};
use crate::watch::{Role, Watched};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "stop-in-flight",
        does: "stops the server while it works on requests, and reads their answers",
        source: "RFC 9112 section 9.6; signal(7)",
        cure: "At a stop finish the answers that are begun, within a limit, and only then end the process.",
        cost: "some connections and a stop; as long as the server takes to stop",
        needs: &[Need::Stop],
        run: in_flight,
    },
    Case {
        id: "stop-race",
        does: "stops the server while clients send requests on connections that they keep",
        source: "RFC 9112 sections 9.5 and 9.6",
        cure: "At a stop end a connection that is kept after its next answer, which announces that, or with a FIN after \
               a grace; and answer what has arrived by then as always.",
        cost: "some connections and a stop; as long as the server takes to stop",
        needs: &[Need::Stop, Need::Reuse],
        run: racing,
    },
    Case {
        id: "stop-idle",
        does: "stops the server while it has idle connections: unused, kept, and one with half a request",
        source: "RFC 9112 sections 9.5 and 9.6; RFC 9293 section 3.6",
        cure: "At a stop finish idle connections at once or after a short grace, with a FIN and not with a reset.",
        cost: "some connections and a stop; as long as the server takes to stop",
        needs: &[Need::Stop],
        run: idle,
    },
    Case {
        id: "stop-queued",
        does: "connects at the moment when the server stops: served or refused, and not accepted and dropped",
        source: "listen(2); accept(2)",
        cure: "At a stop accept and serve what waits in the backlog before the listening socket is closed: the kernel \
               resets the rest.",
        cost: "some connections and a stop; as long as the server takes to stop",
        needs: &[Need::Stop],
        run: queued,
    },
    Case {
        id: "stop-restart",
        does: "connects after the stop until the server is back",
        source: "RFC 9293 section 3.6.1; socket(7), SO_REUSEADDR",
        cure: "Set SO_REUSEADDR before bind(2): connections that the server has ended stay in TIME-WAIT and hold its \
               port.",
        cost: "some connections, a stop, and the next start",
        needs: &[Need::Stop],
        run: restart,
    },
];

/// A connection that ends later than this, after the first sign of the stop and the last answer,
/// was waited for. Servers give up to 5 s, as Go's does to a connection that was never used.
const LATE: Duration = Duration::from_millis(5_500);
/// A claim is broken if it took this much longer.
const MARGIN: Duration = Duration::from_secs(1);

fn in_flight(session: &mut Session) -> Result<Finding, Broken> {
    let stopped = session.stopped()?;
    let is_unread = |it: &&Watched| it.name == JUST_SENT && matches!(it.fate, Fate::Lost(_));
    let is_one = stopped.watched.iter().filter(is_unread).count() == 1;
    let mut finding = judge(session, &stopped, Role::InFlight, |it| match it.fate {
        // As in `stop-race`: one can meet the end on every server.
        Fate::Lost(_) if it.name == JUST_SENT && is_one => Verdict::Info,
        Fate::Answered if it.end == End::Reset => Verdict::Warn,
        Fate::Other(503) => Verdict::Warn,
        Fate::Answered => Verdict::Pass,
        Fate::Refused | Fate::Crossed => Verdict::Info,
        Fate::Other(_) | Fate::Lost(_) | Fate::Cut(_) | Fate::Silent => Verdict::Fail,
    });
    if !stopped.has_slow && finding.verdict == Verdict::Pass {
        finding.summary.push_str("; a slow request (--slow-request) would show more");
    }
    Ok(finding)
}

fn racing(session: &mut Session) -> Result<Finding, Broken> {
    let stopped = session.stopped()?;
    let lost = stopped.watched.iter().filter(|it| it.role == Role::Racing && matches!(it.fate, Fate::Lost(_)));
    // One can meet the end on every server, between its decision and its close(2).
    let is_lost = lost.count() > 1;
    Ok(judge(session, &stopped, Role::Racing, |it| match it.fate {
        Fate::Other(503) => Verdict::Warn,
        Fate::Answered | Fate::Refused | Fate::Crossed => Verdict::Pass,
        Fate::Lost(_) if !is_lost => Verdict::Info,
        Fate::Other(_) | Fate::Lost(_) | Fate::Cut(_) | Fate::Silent => Verdict::Fail,
    }))
}

fn idle(session: &mut Session) -> Result<Finding, Broken> {
    let stopped = session.stopped()?;
    let busy = stopped.watched.iter().filter(|it| matches!(it.role, Role::InFlight | Role::Racing));
    let last_answer = busy.filter_map(|it| it.last_byte).max().unwrap_or_default();
    let since = stopped.first_sign.unwrap_or_default().max(last_answer);
    // Without a claim it may end later; whether that is too late, only a claim can say.
    let latest = since + session.options.claims.drain.map_or(LATE, |claim| claim + MARGIN);
    Ok(judge(session, &stopped, Role::Idle, |it| match (it.end, it.ended) {
        (End::Open | End::Refused, _) | (_, None) => Verdict::Warn,
        (_, Some(ended)) if ended > latest => Verdict::Warn,
        // Half a request is owed nothing.
        (End::Reset, Some(_)) if it.name != HALF => Verdict::Warn,
        (End::Reset | End::Fin, Some(_)) => Verdict::Pass,
    }))
}

fn queued(session: &mut Session) -> Result<Finding, Broken> {
    let stopped = session.stopped()?;
    let is_dropped = |it: &&Watched| it.role == Role::Queued && (it.fate.is_lost() || matches!(it.fate, Fate::Crossed));
    // The kernel resets a client that connects between the last accept(2) and the close(2).
    let are_dropped = stopped.watched.iter().filter(is_dropped).count() > 1;
    Ok(judge(session, &stopped, Role::Queued, |it| match it.fate {
        Fate::Answered | Fate::Refused => Verdict::Pass,
        Fate::Other(503) => Verdict::Info,
        Fate::Other(_) => Verdict::Fail,
        Fate::Crossed | Fate::Lost(_) | Fate::Cut(_) | Fate::Silent if are_dropped => Verdict::Fail,
        Fate::Crossed | Fate::Lost(_) | Fate::Cut(_) | Fate::Silent => Verdict::Info,
    }))
}

fn restart(session: &mut Session) -> Result<Finding, Broken> {
    let stopped = session.stopped()?;
    if let Some(reason) = &stopped.failed {
        return Ok(Finding::option_failed(reason.clone()));
    }
    let claim = session.options.claims.restart;
    let finding = match (stopped.served_again, claim) {
        (Some(after), Some(claim)) if after > claim + MARGIN => {
            let summary = format!("served again after {} ms, which is later than claimed", after.as_millis());
            Finding::of(Verdict::Fail, summary)
        }
        (Some(after), _) if stopped.refused.is_none() => {
            Finding::of(Verdict::Pass, "new clients were served all the time").with("served_again_ms", millis(after))
        }
        (Some(after), _) => Finding::of(Verdict::Pass, format!("served again {} ms after the stop", after.as_millis()))
            .with("served_again_ms", millis(after)),
        (None, Some(claim)) => {
            let summary = format!("not served again within {} ms, as claimed", (claim + MARGIN).as_millis());
            Finding::of(Verdict::Fail, summary)
        }
        (None, None) => Finding::skip(format!(
            "not served again within {:?}: nothing starts it again; if something should, claim it (--claim restart=)",
            session.options.timeout
        )),
    };
    Ok(finding)
}

/// Judges the clients of one role. The worst of them gives the verdict, the summary and the ladder.
fn judge(session: &Session, stopped: &Stopped, role: Role, verdict_of: impl Fn(&Watched) -> Verdict) -> Finding {
    if let Some(reason) = &stopped.failed {
        return Finding::option_failed(reason.clone());
    }
    let watched: Vec<&Watched> = stopped.watched.iter().filter(|it| it.role == role).collect();
    let Some(first) = watched.first() else { return Finding::skip("no such connection was open at the stop") };
    let drain = session.options.claims.drain.map(|drain| drain + MARGIN);
    let is_late =
        |it: &Watched| role != Role::Queued && drain.is_some_and(|drain| it.ended.is_none_or(|ended| ended > drain));
    let judged = |it: &Watched| if is_late(it) { Verdict::Fail } else { verdict_of(it) };
    let worst = watched.iter().rev().max_by_key(|it| judged(it)).unwrap_or(first);
    let verdict = judged(worst);
    let wrong = watched.iter().filter(|it| judged(it) >= Verdict::Warn).count();
    let mut seen: BTreeMap<&str, BTreeMap<String, u32>> = BTreeMap::new();
    for it in &watched {
        *seen.entry(it.name).or_default().entry(words(it)).or_insert(0) += 1;
    }
    let last = watched.iter().filter_map(|it| it.ended).max().unwrap_or_default();
    let late = if is_late(worst) { ", which is later than claimed" } else { "" };
    let summary = match verdict {
        Verdict::Skip | Verdict::Info | Verdict::Pass => {
            let open = watched.iter().filter(|it| it.ended.is_none() && it.fate != Fate::Refused).count();
            let (all, watched_for) = (watched.len(), stopped.watched_for.as_millis());
            let ends = match open {
                0 => format!("the last of {all} ended after {} ms", millis(last)),
                _ => format!("{open} of {all} not ended within {watched_for} ms"),
            };
            format!("{}: {}; {ends}", worst.name, words(worst))
        }
        Verdict::Warn | Verdict::Fail => {
            let ended = worst.ended.map_or_else(
                || format!(" within {} ms", stopped.watched_for.as_millis()),
                |ended| format!(", ended after {} ms", ended.as_millis()),
            );
            format!("{wrong} of {} wrong: {}: {}{ended}{late}", watched.len(), worst.name, words(worst))
        }
    };
    let mut finding = Finding::of(verdict, summary);
    finding.seen = seen.into_iter().map(|(name, counts)| (name.to_owned(), Value::from_iter(counts))).collect();
    for it in watched.iter().filter(|_| role != Role::Queued) {
        // `null` if one of them was not ended.
        let same = || watched.iter().filter(|other| other.name == it.name);
        let all_ended = same().all(|it| it.ended.is_some());
        let last = same().filter_map(|it| it.ended).max().filter(|_| all_ended);
        finding = finding.with(&format!("{}, ended_ms", it.name), last.map(millis));
    }
    finding = finding.with("stop_done_ms", stopped.done.map(millis));
    (finding.runs, finding.wrong) = (count(watched.len()), count(wrong));
    finding.ladder.clone_from(&worst.records);
    finding
}

/// What was seen of a client, in words.
fn words(it: &Watched) -> String {
    let end = match it.end {
        End::Fin => "FIN",
        End::Reset => "reset",
        End::Open => "not ended",
        End::Refused => "not connected",
    };
    match it.role {
        Role::Idle => end.to_owned(),
        Role::InFlight | Role::Racing if it.fate == Fate::Answered => format!("answered, {end}"),
        Role::InFlight | Role::Racing | Role::Queued => it.fate.to_string(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
