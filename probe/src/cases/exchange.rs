//! What the cases of lost answers share: what is owed, the moment of deafness, the grades.

use std::time::Duration;

use crate::answer::{Answer, End, Framing, Got, Outcome, Shape};
use crate::baseline::QUIET;
use crate::client::{Client, Seen};
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

/// The client is deaf for this long after the answer is due. It is less than the 200 ms after which
/// Linux sends again at the earliest, so only one packet is missed.
pub(super) const DEAF: Duration = Duration::from_millis(100);
/// An answer that was missed is sent again after 200 ms, 400 ms, 800 ms: three attempts.
pub(super) const AGAIN: Duration = Duration::from_secs(3);

/// An answer that still comes after this time is not waited for.
const ENDLESS: Duration = Duration::from_secs(60);

/// A smaller answer fits into the kernels of both sides: the server's program has finished before a
/// client that does not read matters to it (tcp(7): `tcp_wmem`).
pub(crate) const BIG: u64 = 8 << 20;

/// Why a case with a big answer says little about a smaller one.
pub(super) fn too_small(bytes: u64, end: End) -> String {
    let reset = if end == End::Reset { ", and ends with a reset" } else { "" };
    format!(
        "the answer has {bytes} bytes{reset}, and kernels take up to {BIG} without a reader; give a request with a \
         larger one (--big-request)"
    )
}

/// The answer to another request than the baseline's: what a polite client got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owed {
    shape: Shape,
}

impl Owed {
    /// An answer like this one.
    pub(crate) fn like(answer: &Answer) -> Self {
        Self { shape: Shape::of(std::iter::once(answer)) }
    }

    /// Serves a polite client with this request. Also returns what it had seen before it left.
    pub(crate) fn measure(session: &mut Session, request: &[u8]) -> Result<(Self, Client, Seen), Broken> {
        let client = session.open(&Open::default())?;
        session.send(client, request);
        let limit = session.options.timeout;
        wait_for_other(session, client, None, limit)?;
        session.settle(client)?;
        let seen = session.seen(client).clone();
        session.leave(client)?;
        Ok((Self::like(&seen.answer), client, seen))
    }

    /// How long it is; 0 if that is not known.
    pub(super) const fn bytes(&self) -> u64 {
        self.shape.longest
    }

    /// How much of the answer arrived, whatever its status.
    pub(super) fn outcome(&self, seen: &Seen) -> Outcome {
        Outcome::of(self.shape.got(&seen.answer), seen)
    }
}

/// Whether an answer to another request than the baseline's shows by itself that it is complete.
pub(super) fn is_complete(session: &Session, answer: &Answer) -> bool {
    match &session.options.framing {
        Framing::Until(end) => answer.is_complete(&Framing::Until(end.clone())),
        Framing::Auto | Framing::End | Framing::Bytes(_) | Framing::Http => answer.is_complete(&Framing::Http),
    }
}

/// Waits for the answer to another request than the baseline's, until it is complete, the
/// connection has ended, or no byte has come for `limit`. One that does not show its end is
/// complete with the length that is owed, and after a silence if that is not known.
pub(super) fn wait_for_other(
    session: &mut Session,
    client: Client,
    owed: Option<&Owed>,
    limit: Duration,
) -> Result<(), Broken> {
    wait_while_bytes_come(session, &[client], limit, |session| {
        let seen = session.seen(client);
        let silence = seen.last_byte.map_or(Duration::ZERO, |last| session.now().saturating_duration_since(last));
        let shows_no_end = seen.answer.http().is_none() && session.options.framing == Framing::Auto;
        let is_enough = owed.map_or(silence >= QUIET, |owed| seen.answer.bytes >= owed.bytes());
        seen.is_read || is_complete(session, &seen.answer) || (shows_no_end && is_enough)
    })
}

/// Waits until it is over, until no byte has come to these clients for `limit`, or for a minute if
/// they get bytes without an end.
pub(super) fn wait_while_bytes_come(
    session: &mut Session,
    clients: &[Client],
    limit: Duration,
    is_over: impl Fn(&Session) -> bool,
) -> Result<(), Broken> {
    let begun = session.now();
    let total = |session: &Session| clients.iter().map(|client| session.seen(*client).total).sum::<u64>();
    loop {
        let before = total(session);
        let is_over = session.wait_until(limit, |session| is_over(session))?;
        let is_endless = session.now().saturating_duration_since(begun) >= ENDLESS;
        if is_over || is_endless || total(session) == before {
            return Ok(());
        }
    }
}

/// Waits for an answer that was sent while the client was deaf: the server's kernel sends it again.
pub(super) fn wait_for_missed(session: &mut Session, client: Client) -> Result<(), Broken> {
    let limit = session.options.timeout.max(AGAIN);
    session.wait_until(limit, |session| session.seen(client).has_ended() || session.has_answer(client))?;
    session.settle(client)
}

/// Plays `act` while the client is deaf, from before it until 100 ms after the answer is due, which
/// takes `due`. A
/// reset that follows the answer at once then destroys it in any case: the server's kernel drops
/// what was not acknowledged. Returns whether the client was deaf.
pub(super) fn deaf_while(
    session: &mut Session,
    client: Client,
    due: Duration,
    act: impl FnOnce(&mut Session) -> Result<(), Broken>,
) -> Result<bool, Broken> {
    if !session.deafen(client)? {
        return Ok(false);
    }
    act(session)?;
    session.wait(due + DEAF)?;
    session.hear(client);
    Ok(true)
}

/// Whether bytes were still coming when the client stopped to wait for more: nothing is lost then.
pub(super) fn is_still_coming(session: &Session, client: Client) -> bool {
    let seen = session.seen(client);
    let since = seen.last_byte.map(|last| session.now().saturating_duration_since(last));
    !seen.has_ended() && since.is_some_and(|since| since < session.options.timeout / 2)
}

/// The verdict on an answer that is owed: lost, at risk, or clean.
pub(super) const fn grade(outcome: &Outcome) -> Verdict {
    match outcome.got {
        // Never connected: nothing was owed.
        _ if matches!(outcome.end, End::Refused) => Verdict::Info,
        Got::Cut { .. } | Got::Nothing => Verdict::Fail,
        Got::Whole if outcome.is_at_risk() => Verdict::Warn,
        Got::Whole | Got::Other { .. } => Verdict::Pass,
    }
}

/// The same where the client has done what it had excluded itself: one degree less.
pub(super) const fn grade_leniently(outcome: &Outcome) -> Verdict {
    match grade(outcome) {
        Verdict::Fail => Verdict::Warn,
        Verdict::Warn | Verdict::Pass => Verdict::Pass,
        Verdict::Info => Verdict::Info,
        Verdict::Skip => Verdict::Skip,
    }
}
