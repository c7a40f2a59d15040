//! `reload`: the server takes a new configuration, and its clients notice nothing.

use std::time::Duration;

use super::{Case, Finding, Need, Tally};
use crate::control::{Control, Step};
use crate::report::{Verdict, millis};
use crate::session::{Broken, Fate, Session};
use crate::stop::open_racers;
use crate::watch::{Role, Watch};

pub(super) const CASES: &[Case] = &[Case {
    id: "reload",
    does: "reloads the server while clients connect and others send requests on connections that they keep",
    source: "RFC 9112 section 9.6; listen(2)",
    cure: "Keep the listening socket over a reload, or hand it over: what waits in its backlog is lost with it.",
    cost: "some connections that are busy, and a reload",
    needs: &[Need::Reload],
    run: reload,
}];

fn reload(session: &mut Session) -> Result<Finding, Broken> {
    let Some(command) = session.options.reload.clone() else { return Ok(Finding::skip("there is no command")) };
    let mut lanes = Vec::new();
    open_racers(session, &mut lanes)?;
    lanes.retain(|lane| lane.role == Role::Racing);
    let control = match Control::shell(&command) {
        Ok(control) => control,
        Err(reason) => return Ok(Finding::option_failed(reason)),
    };
    let clients: Vec<_> = lanes.iter().map(|lane| lane.client).collect();
    let mut watch = Watch::new(session, control, lanes, Vec::new());
    watch.expects_return();
    let limit = session.options.timeout + Duration::from_secs(2);
    watch.run(session, limit)?;
    session.leave_all(&clients)?;
    let took = match &watch.done {
        Some((took, Step::Done)) => *took,
        Some((_, Step::Failed(reason))) => return Ok(Finding::option_failed(reason.clone())),
        _ => return Ok(Finding::option_failed(format!("the command was not over within {limit:?}, and was killed"))),
    };
    let watched = watch.watched(session);
    let lost = watched.iter().filter(|it| it.role == Role::Racing && it.fate.is_lost()).count();
    let mut tally = Tally::default();
    for it in watched {
        let verdict = match (it.role, &it.fate) {
            (_, Fate::Answered) | (Role::Racing, Fate::Crossed) => Verdict::Pass,
            // One can meet the end on every server that ends the connections of before.
            (Role::Racing, Fate::Lost(_)) if lost == 1 => Verdict::Info,
            _ => Verdict::Fail,
        };
        tally.add_records(it.name, verdict, &it.fate, it.records);
    }
    let wrong = tally.wrong();
    let mut finding = tally.finding();
    let took_ms = millis(took);
    if wrong == 0 {
        finding.summary = format!("the reload took {took_ms} ms, and none of {} clients lost a request", finding.runs);
    }
    Ok(finding.with("reload_ms", took_ms))
}
