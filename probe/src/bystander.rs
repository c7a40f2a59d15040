//! A healthy client, served before, during and after every case: harm to it is a verdict of its own.

use std::time::{Duration, Instant};

use crate::baseline::polite;
use crate::client::Client;
use crate::report::BystanderReport;
use crate::session::{Broken, Open, Session};

/// The healthy client during a case.
#[derive(Debug, Default)]
pub(crate) struct Bystander {
    /// Whether it is served now.
    on: bool,
    /// When the next one comes.
    next: Option<Instant>,
    now_served: Option<(Client, bool)>,
    report: BystanderReport,
}

/// The time between two of them.
const EVERY: Duration = Duration::from_millis(200);
/// A healthy client may take this much longer than the slowest of the baseline.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the server may take to serve it again after a case.
const RECOVERY: Duration = Duration::from_secs(10);

impl Bystander {
    /// From now on it comes every 200 ms.
    pub(crate) fn begin(session: &mut Session) {
        session.bystander = Self { on: true, next: Some(session.now() + EVERY), ..Self::default() };
    }

    /// No more come: for the cases that measure an idle server.
    pub(crate) fn stay_away(session: &mut Session) {
        session.bystander.on = false;
    }

    /// Continues with the present one: in the loop of each wait. It must not wait itself.
    pub(crate) fn advance(session: &mut Session) -> Result<(), Broken> {
        let now = session.now();
        match session.bystander.now_served {
            Some((client, has_sent)) => Self::serve(session, client, has_sent, now),
            None if session.bystander.on && session.bystander.next.is_some_and(|next| next <= now) => {
                let client = session.start_now(&Open::default())?;
                session.bystander.now_served = Some((client, false));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn serve(session: &mut Session, client: Client, has_sent: bool, now: Instant) -> Result<(), Broken> {
        let seen = session.seen(client);
        let took = now.saturating_duration_since(seen.opened);
        let (is_ready, has_ended) = (seen.stage == crate::client::Stage::Ready, seen.has_ended());
        if is_ready && !has_sent {
            let request = session.options.request.clone();
            session.send(client, &request);
            session.bystander.now_served = Some((client, true));
            return Ok(());
        }
        if !(has_ended || session.has_answer(client) || took > session.slow()) {
            return Ok(());
        }
        let is_served = session.is_served(client) && took <= session.slow();
        let report = &mut session.bystander.report;
        report.slowest_us = report.slowest_us.max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if is_served {
            report.served += 1;
            session.finish(client);
        } else {
            report.failed += 1;
            session.reset(client);
        }
        (session.bystander.now_served, session.bystander.next) = (None, Some(now + EVERY));
        Ok(())
    }

    /// After the case: no more come, and one that is served shows that the server has recovered.
    pub(crate) fn end(session: &mut Session) -> Result<BystanderReport, Broken> {
        session.bystander.on = false;
        session.wait_until(session.slow() + PATIENCE, |session| session.bystander.now_served.is_none())?;
        let mut report = std::mem::take(&mut session.bystander).report;
        let begun = session.now();
        while session.now().saturating_duration_since(begun) < RECOVERY {
            let client = polite(session)?;
            if session.is_served(client) {
                let took = session.now().saturating_duration_since(begun);
                report.recovered_ms = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
                break;
            }
            session.wait(EVERY)?;
        }
        Ok(report)
    }
}

impl Session {
    /// Whether a client was served as the polite ones were. Where even those are reset after their
    /// answer, a reset is no harm.
    fn is_served(&self, client: Client) -> bool {
        let outcome = self.outcome(client);
        let is_usual = outcome.is_at_risk() && self.baseline.as_ref().is_some_and(|it| it.end == "reset");
        outcome.is_clean() || is_usual
    }

    /// A healthy client that takes longer is harmed.
    fn slow(&self) -> Duration {
        self.baseline.as_ref().map_or(PATIENCE, |it| Duration::from_micros(it.slowest_us) * 3) + PATIENCE
    }
}
