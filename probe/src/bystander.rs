//! A healthy client, served before, during and after every case: harm to it is a verdict of its
//! own.
//!
//! Invariant: harm is a fact (refused, ended without an answer, cut) or a time that was confirmed.
//! A late answer counts only after the time for which this process was itself not scheduled, and
//! only if a second try of the case has one, too.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use finale::ConnectionErrorKind;

use crate::answer::Got;
use crate::baseline::served_in;
use crate::client::{Client, Stage, is_own};
use crate::report::{BystanderReport, Verdict, micros, millis};
use crate::session::{Broken, Open, Session};

/// The healthy client during a case.
#[derive(Debug, Default)]
pub(crate) struct Bystander {
    /// Whether it is served now.
    on: bool,
    /// When the next one comes.
    next: Option<Instant>,
    present: Option<Present>,
    /// Served, and on their way out: their FIN was sent.
    leaving: VecDeque<(Client, Instant)>,
    report: BystanderReport,
}

#[derive(Clone, Copy, Debug)]
struct Present {
    client: Client,
    has_sent: bool,
    /// [`Session::stalled`] when it came.
    stalled: Duration,
}

/// How a healthy client was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The connection was refused.
    Refused,
    /// The connection was established, and ended without the answer.
    Rejected,
    /// A part of the answer is missing.
    Cut,
    /// No answer within the timeout.
    Unanswered,
    /// The whole answer, but late.
    Late(Duration),
}

impl Harm {
    /// In a word or two.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Rejected => "ended without the answer",
            Self::Cut => "cut",
            Self::Unanswered => "no answer in time",
            Self::Late(_) => "late",
        }
    }

    /// It does not depend on how busy this machine is.
    const fn is_fact(self) -> bool {
        matches!(self, Self::Refused | Self::Rejected | Self::Cut)
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("its connection was refused: the server had ended, or no longer listened"),
            Self::Rejected => f.write_str("its connection was ended without the usual answer"),
            Self::Cut => f.write_str("its answer was cut"),
            Self::Unanswered => f.write_str("it got no answer within the timeout"),
            Self::Late(took) => write!(f, "its answer took {} ms", took.as_millis()),
        }
    }
}

/// The time between two of them.
const EVERY: Duration = Duration::from_millis(200);
/// A healthy client may take this much longer than three times the slowest of the baseline. A lost
/// SYN is repeated after 1 s (RFC 6298 section 2), and no server is to blame for it.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A SYN that the queue had no room for is repeated after 1 s and again after 2 s (RFC 6298).
const REPEATED: Duration = Duration::from_secs(3);
/// How long one that was served may take to leave.
const LEAVE: Duration = Duration::from_millis(500);
/// Where this process was not scheduled for longer, a server may have closed with good reason: some
/// have deadlines of 100 ms.
pub(crate) const STALLED: Duration = Duration::from_millis(30);
/// How often a healthy client is tried again that was kept from sending.
const TRIES: u32 = 5;
/// This many that are rejected one after the other are no accident.
const PENALTY: u32 = 3;

impl Bystander {
    /// From now on it comes every 200 ms, or less often where the allowed rate is low.
    pub(crate) fn begin(session: &mut Session) {
        session.bystander = Self { on: true, next: Some(session.now() + session.every()), ..Self::default() };
    }

    /// No more come: for the cases that measure an idle server, and for those whose clients may
    /// take all places for a while. The one after the case comes anyway.
    pub(crate) fn stay_away(session: &mut Session) {
        session.bystander.on = false;
    }

    /// Continues with the present one: in the loop of each wait. It must not wait itself.
    pub(crate) fn advance(session: &mut Session) -> Result<(), Broken> {
        let now = session.now();
        Self::see_off(session, now);
        match session.bystander.present {
            Some(present) => Self::serve(session, present, now),
            None if session.bystander.on && session.bystander.next.is_some_and(|next| next <= now) => {
                let client = session.start_now(&Open::default())?;
                let stalled = session.stalled;
                session.bystander.present = Some(Present { client, has_sent: false, stalled });
            }
            None => {}
        }
        Ok(())
    }

    /// Forgets those that have left, and drops those that the server does not let go.
    fn see_off(session: &mut Session, now: Instant) {
        while let Some(&(client, until)) = session.bystander.leaving.front()
            && (until <= now || session.seen(client).is_over())
        {
            session.bystander.leaving.pop_front();
            session.forget(client);
        }
    }

    fn serve(session: &mut Session, mut present: Present, now: Instant) {
        let client = present.client;
        let seen = session.seen(client);
        let took = now.saturating_duration_since(seen.opened);
        let (is_ready, has_ended, failed) = (seen.stage == Stage::Ready, seen.has_ended(), seen.failed);
        if is_ready && !present.has_sent {
            let request = session.options.request.clone();
            session.send(client, &request);
            present.has_sent = true;
            session.bystander.present = Some(present);
            return;
        }
        let limit = session.options.timeout.max(session.slow());
        // Before its request the answer to the preface is no answer.
        let has_answer = present.has_sent && session.has_answer(client);
        if !(has_ended || has_answer || took > limit) {
            return;
        }
        let own = session.stalled.saturating_sub(present.stalled);
        let harm = session.harm(client, took, own);
        // One that this machine kept from sending may have met a deadline, and one for which it had
        // no port or descriptor met no server: these count for nothing.
        let is_own = failed.is_some_and(|(_, kind)| is_own(kind)) || (harm == Some(Harm::Rejected) && own > STALLED);
        if !is_own {
            session.bystander.report.note(took, harm);
        }
        session.finish(client);
        session.bystander.leaving.push_back((client, now + LEAVE));
        (session.bystander.present, session.bystander.next) = (None, Some(now + session.every()));
    }

    /// Its clients that are open.
    pub(crate) fn clients(&self) -> impl Iterator<Item = Client> {
        self.present.iter().map(|present| present.client).chain(self.leaving.iter().map(|(client, _)| *client))
    }

    /// Serves one now, beside those that come by themselves: after something that may have hurt the
    /// server. Its harm is judged with theirs.
    pub(crate) fn serve_now(session: &mut Session) -> Result<Option<Harm>, Broken> {
        let (harm, took) = session.serve_healthy(&Open::default())?;
        session.bystander.report.note(took, harm);
        Ok(harm)
    }

    /// After the case: no more come, and one that is served shows that the server has recovered.
    pub(crate) fn end(session: &mut Session) -> Result<BystanderReport, Broken> {
        session.bystander.on = false;
        let limit = session.options.timeout.max(session.slow());
        session.wait_until(limit + EVERY, |session| session.bystander.present.is_none())?;
        let (slow, stalled) = (session.slow(), session.stalled);
        let limit = session.options.timeout;
        let after = session.aftermath(limit)?;
        session.wait_until(LEAVE, |session| session.bystander.leaving.is_empty())?;
        let own = session.stalled.saturating_sub(stalled) * OWN_FACTOR;
        let mut report = std::mem::take(&mut session.bystander).report;
        report.limited = after.is_limited();
        match after.served {
            // It was down, if only for a moment.
            Some(_) if after.refused > 0 => {
                report.failed += 1;
                report.harm = Some(after.to_string());
            }
            Some(time) if time > slow + own && !report.limited => report.note(time, Some(Harm::Late(time))),
            Some(_) => {}
            None => report.harm = Some(after.to_string()),
        }
        report.recovered_ms = after.served.map(millis);
        Ok(report)
    }
}

/// A machine that does not schedule this process for a while may treat the server, and what the two
/// wait for in turn, as badly.
const OWN_FACTOR: u32 = 3;

impl BystanderReport {
    fn note(&mut self, took: Duration, harm: Option<Harm>) {
        self.slowest_us = self.slowest_us.max(micros(took));
        match harm {
            None => self.served += 1,
            Some(Harm::Late(_) | Harm::Unanswered) => self.late += 1,
            Some(_) => self.failed += 1,
        }
        let Some(harm) = harm else { return };
        if self.harm.is_none() || (harm.is_fact() && self.failed == 1) {
            self.harm = Some(harm.to_string());
        }
    }

    /// Only times speak for a harm: a busy machine could be the reason.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.failed == 0 && self.late > 0 && self.recovered_ms.is_some()
    }

    /// Whether a healthy client was harmed.
    pub(crate) const fn is_harmed(&self) -> bool {
        self.recovered_ms.is_none() || self.failed > 0 || self.late > 0
    }
}

/// How healthy clients fare after something was done to the server: one after the other, until one
/// is served.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// After this time one was served.
    pub(crate) served: Option<Duration>,
    /// How often one was ended without an answer before.
    rejected: u32,
    refused: u32,
    /// None was served, but one with another address was.
    elsewhere: bool,
}

impl Aftermath {
    /// The server rejects this address for a while, since it does not like what it saw: neither a
    /// crash, as it listens, nor places that are held, as nothing is open.
    pub(crate) const fn is_limited(&self) -> bool {
        self.rejected >= PENALTY && self.refused == 0 && (self.served.is_some() || self.elsewhere)
    }

    /// What it says of the server, whatever was done to it.
    pub(crate) const fn verdict(&self) -> Verdict {
        match self.served {
            _ if self.is_limited() => Verdict::Info,
            Some(_) if self.refused == 0 => Verdict::Pass,
            Some(_) | None => Verdict::Fail,
        }
    }
}

impl fmt::Display for Aftermath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.served.map(|time| time.as_millis());
        match (ms, self.refused, self.rejected) {
            (Some(ms), 0, 0) => write!(f, "served within {ms} ms"),
            (Some(ms), 0, _) => write!(f, "ended without an answer {} times, served after {ms} ms", self.rejected),
            (Some(ms), ..) => write!(f, "refused {} times, served after {ms} ms: was it restarted?", self.refused),
            (None, 1.., _) => f.write_str("connections are refused: the server has ended, or no longer listens"),
            (None, 0, 1..) if self.elsewhere => f.write_str("connections of this address are ended without an answer"),
            (None, 0, 1..) => f.write_str("each connection is ended without an answer"),
            (None, 0, 0) => f.write_str("connections are established, and get no answer"),
        }
    }
}

impl Session {
    /// The time between two healthy clients: most of the allowed rate is left to the case.
    fn every(&self) -> Duration {
        EVERY.max(Duration::from_secs(4) / self.options.rate.max(1))
    }

    /// A healthy client that takes longer is harmed.
    pub(crate) fn slow(&self) -> Duration {
        self.baseline.as_ref().map_or(PATIENCE, |it| it.served * 3 + it.held_up() + PATIENCE)
    }

    /// The longest time until a healthy client is served whose SYN the server's queue had no room
    /// for.
    pub(crate) fn queued_out(&self) -> Duration {
        REPEATED + self.slow()
    }

    /// How a healthy client was not served, if so, that took this long. `own`: this process was not
    /// scheduled for this part of the time.
    fn harm(&self, client: Client, took: Duration, own: Duration) -> Option<Harm> {
        let seen = self.seen(client);
        let resets = matches!(seen.failed, Some((_, ConnectionErrorKind::Refused | ConnectionErrorKind::Reset)));
        match self.outcome(client).got {
            _ if seen.connected.is_none() && resets => Some(Harm::Refused),
            Got::Whole if took <= self.slow() + own * OWN_FACTOR => None,
            Got::Whole => Some(Harm::Late(took)),
            Got::Nothing if !seen.has_ended() || seen.connected.is_none() => Some(Harm::Unanswered),
            Got::Nothing | Got::Other { .. } => Some(Harm::Rejected),
            Got::Cut { .. } if !self.begins_as_usual(client) => Some(Harm::Rejected),
            Got::Cut { .. } => Some(Harm::Cut),
        }
    }

    /// The first line is that of the baseline: what came is a part of the answer, and no last
    /// words.
    fn begins_as_usual(&self, client: Client) -> bool {
        let first = self.seen(client).answer.first_line();
        self.baseline.as_ref().is_some_and(|it| it.first_line.starts_with(&first))
    }

    /// Serves a healthy client, and lets it leave. Returns how it was harmed, and its time.
    fn serve_healthy(&mut self, open: &Open) -> Result<(Option<Harm>, Duration), Broken> {
        let mut tries = 0;
        loop {
            let stalled = self.stalled;
            let (client, took) = served_in(self, open)?;
            let own = self.stalled.saturating_sub(stalled);
            let harm = self.harm(client, took, own);
            self.leave(client)?;
            tries += 1;
            if !(harm == Some(Harm::Rejected) && own > STALLED && tries < TRIES) {
                return Ok((harm, took));
            }
        }
    }

    /// Serves healthy clients until one is served, for about `limit`; at least one.
    pub(crate) fn aftermath(&mut self, limit: Duration) -> Result<Aftermath, Broken> {
        let (begun, stalled) = (self.now(), self.stalled);
        let mut after = Aftermath::default();
        loop {
            let tried = self.now();
            let (harm, took) = self.serve_healthy(&Open::default())?;
            match harm {
                None | Some(Harm::Late(_)) => {
                    after.served = Some(tried.saturating_duration_since(begun) + took);
                    return Ok(after);
                }
                Some(Harm::Refused) => after.refused += 1,
                Some(Harm::Rejected | Harm::Cut) => after.rejected += 1,
                Some(Harm::Unanswered) => {}
            }
            let own = self.stalled.saturating_sub(stalled) * OWN_FACTOR;
            if self.now().saturating_duration_since(begun) >= limit + own {
                break;
            }
            let every = self.every();
            self.wait(every)?;
        }
        if after.rejected > 0 && after.refused == 0 {
            after.elsewhere = self.is_served_elsewhere()?;
        }
        Ok(after)
    }

    /// Whether a client with another address is served: on loopback this machine has many.
    fn is_served_elsewhere(&mut self) -> Result<bool, Broken> {
        let source = Some(IpAddr::V4(ELSEWHERE));
        // Other systems have only the first address of the network.
        if !cfg!(target_os = "linux") || !matches!(self.target.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            return Ok(false);
        }
        let (harm, _) = self.serve_healthy(&Open { source, ..Open::default() })?;
        Ok(harm.is_none())
    }
}

/// Another address of the same machine.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 99, 99, 99);

#[cfg(test)]
mod tests;
