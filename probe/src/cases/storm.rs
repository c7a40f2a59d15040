//! `abort-storm`: many connections at once, each of which is reset as soon as it is established.

use std::time::Duration;

use super::{Case, Finding, Need};
use crate::bystander::Bystander;
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "abort-storm",
    does: "connects up to 1000 times at once, and sends RST as soon as a connection is established",
    source: "accept(2): ECONNABORTED, and errors of the connection that it returns; getpeername(2): ENOTCONN",
    cure: "After an error of accept(2), or of the first call on what it returned, go on with the next connection.",
    cost: "250 connections at a time, aborted, and as many healthy ones; 3 s",
    needs: &[Need::Hostile],
    run: abort_storm,
}];

/// How many, and how many of them at once. One by one the reset comes before the server has
/// accepted; all at once fill its queue. A server that fails at fifty is not hurt further.
const ROUNDS: [(usize, usize); 4] = [(50, 1), (200, 1), (1_000, 1), (1_000, 1_000)];
/// What is not established after this time without another that is waits for the server's queue of
/// unaccepted connections.
const LIMIT: Duration = Duration::from_millis(1_500);
/// Turns of the loop in which a handshake with this machine is over.
const TURNS: usize = 4;
/// Between two looks at those that are established.
const LOOK: Duration = Duration::from_millis(2);

fn abort_storm(session: &mut Session) -> Result<Finding, Broken> {
    // Each server makes others wait while its queue is full.
    Bystander::stay_away(session);
    let most = session.most_clients();
    let mut finding = Finding::of(Verdict::Pass, String::new());
    let (mut all, mut slowest) = (0, Duration::ZERO);
    for (count, wave) in ROUNDS {
        let (count, wave) = (count.min(most), wave.min(most));
        let established = storm(session, count, wave)?;
        all += established;
        let limit = session.options.timeout.max(session.queued_out());
        let after = session.aftermath(limit)?;
        let facts = serde_json::json!({ "established": established, "then": after.to_string() });
        finding = finding.with(&format!("{count}, {wave} at once"), facts);
        finding.runs = u32::try_from(all).unwrap_or(u32::MAX).max(1);
        // Only on this system it is known that a full queue refuses nothing.
        let is_known = cfg!(target_os = "linux") && session.target.ip().is_loopback();
        match (after.served, after.verdict()) {
            (Some(time), verdict) if verdict < Verdict::Warn || !is_known => slowest = slowest.max(time),
            (_, verdict) => {
                (finding.verdict, finding.wrong) = (verdict, u32::from(verdict == Verdict::Fail));
                finding.summary = format!("after {established} connections were aborted, {wave} at once: {after}");
                return Ok(finding);
            }
        }
    }
    finding.summary = format!("{all} connections aborted; the next client was served after {} ms", slowest.as_millis());
    if slowest > session.queued_out() {
        (finding.verdict, finding.wrong) = (Verdict::Warn, 1);
    }
    Ok(finding)
}

/// Returns how many connections were established, and reset.
fn storm(session: &mut Session, count: usize, wave: usize) -> Result<usize, Broken> {
    let (mut clients, mut waiting, mut established) = (Vec::new(), Vec::new(), 0);
    while clients.len() < count {
        let begun = clients.len();
        for _ in 0..wave.min(count - begun) {
            clients.push(session.start_now(&Open { bare: true, raw: true, ..Open::default() })?);
        }
        waiting.extend_from_slice(&clients[begun..]);
        if wave == 1 {
            for _ in 0..TURNS {
                session.wait(Duration::ZERO)?;
                established += abort(session, &mut waiting);
            }
        }
    }
    let mut progress = session.now();
    while !waiting.is_empty() && session.now().saturating_duration_since(progress) < LIMIT {
        session.wait(LOOK)?;
        let aborted = abort(session, &mut waiting);
        established += aborted;
        if aborted > 0 {
            progress = session.now();
        }
    }
    session.end_all()?;
    for client in clients {
        session.forget(client);
    }
    Ok(established)
}

/// Resets those that are established to this kernel: that is known before the reactor has reported
/// it.
fn abort(session: &mut Session, waiting: &mut Vec<Client>) -> usize {
    let mut aborted = 0;
    waiting.retain(|client| {
        let is_established = session.kernel_state(*client) == Some("ESTABLISHED");
        if is_established {
            session.reset(*client);
            aborted += 1;
        }
        !is_established && !session.seen(*client).has_ended()
    });
    aborted
}
