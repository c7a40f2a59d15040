//! `farewell-while-talking`: the server ends by its own decision, while the client continues to
//! send. Its last message must arrive.

use std::time::Duration;

use super::exchange::AGAIN;
use super::{Case, Finding, Tally};
use crate::answer::{End, Got, Outcome};
use crate::client::Client;
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "farewell-while-talking",
    does: "sends small packets every 50 ms until the server ends, and reads its last message",
    source: "RFC 1122 section 4.2.2.13; RFC 9112 section 9.6",
    cure: "To end a client that still sends: write the last message, send FIN, read and discard until its FIN or for \
           a second, and close then.",
    cost: "a connection that sends small pieces; as long as the timeout, and 3 more if the server ends it",
    needs: &[],
    run: farewell,
}];

const EVERY: Duration = Duration::from_millis(50);
/// The clients are deaf from this long before the server is expected to end, each for [`DEAF_FOR`]:
/// the server's moment varies.
const LEADS: [Duration; 3] = [Duration::from_millis(140), Duration::from_millis(90), Duration::from_millis(40)];
/// Less than the 200 ms after which the client's kernel sends again what was not acknowledged, and
/// sends nothing new meanwhile: new packets are what the server's kernel answers with a reset.
const DEAF_FOR: Duration = Duration::from_millis(180);
/// The client looks this often.
const LOOK: Duration = Duration::from_millis(10);

/// What a client says again and again.
struct Talk {
    variant: &'static str,
    first: Vec<u8>,
    again: Vec<u8>,
}

/// A client that talks.
struct Talker<'a> {
    talk: &'a Talk,
    client: Client,
    /// When it is deaf, from its opening on.
    deaf: Option<(Duration, Duration)>,
    /// When the server's end was seen.
    ended: Option<Duration>,
}

fn farewell(session: &mut Session) -> Result<Finding, Broken> {
    let talks = talks(session);
    let mut tally = Tally::default();
    let limit = session.options.deadline_wait(session.options.claims.header);
    let mut heard = Vec::new();
    for talk in &talks {
        heard.push(Talker::open(session, talk, None)?);
    }
    converse(session, &mut heard, limit)?;
    let mut deaf = Vec::new();
    let mut expected = Vec::new();
    let mut facts = Vec::new();
    for Talker { talk, client, ended, .. } in heard {
        let Some(ended) = ended else {
            facts.push((talk.variant, format!("not ended within {} ms", limit.as_millis())));
            session.leave(client)?;
            continue;
        };
        let bytes = session.seen(client).total;
        let (verdict, what) = judge(session, client, 0);
        tally.add(session, talk.variant, client, verdict, &what);
        facts.push((talk.variant, format!("ended after {} ms, {bytes} bytes", ended.as_millis())));
        session.leave(client)?;
        if bytes > 0 && session.can_be_deaf {
            for lead in LEADS {
                let from = ended.saturating_sub(lead);
                expected.push((talk, from, bytes));
            }
        }
    }
    for (talk, from, _) in &expected {
        deaf.push(Talker::open(session, talk, Some((*from, *from + DEAF_FOR)))?);
    }
    converse(session, &mut deaf, limit + AGAIN)?;
    for (Talker { talk, client, .. }, (_, _, bytes)) in deaf.into_iter().zip(expected) {
        let (verdict, what) = judge(session, client, bytes);
        tally.add(session, &format!("{}, deaf", talk.variant), client, verdict, &what);
        session.leave(client)?;
    }
    let mut finding = match tally.runs() {
        0 => Finding::of(Verdict::Info, format!("the server ends no client that talks, within {limit:?}")),
        _ => tally.finding(),
    };
    for (variant, fact) in facts {
        finding = finding.with(&format!("{variant}: end"), fact);
    }
    Ok(finding)
}

/// Whole requests where the server takes several, and one that never becomes complete.
fn talks(session: &Session) -> Vec<Talk> {
    let request = &session.options.request;
    let is_reusable = session.persistent.is_some();
    let is_http = session.baseline.as_ref().is_some_and(|it| it.status.is_some());
    let unfinished = match request.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(head) if is_http => Talk {
            variant: "an unfinished request",
            first: request[..head + 2].to_vec(),
            again: b"X-More: more\r\n".to_vec(),
        },
        _ => Talk { variant: "an unfinished request", first: request[..1].to_vec(), again: request[..1].to_vec() },
    };
    let kept = session.kept_request();
    let requests = Talk { variant: "requests", first: kept.clone(), again: kept };
    if is_reusable { vec![unfinished, requests] } else { vec![unfinished] }
}

/// Lets all talk until each was ended, for at most `limit`.
fn converse(session: &mut Session, talkers: &mut [Talker<'_>], limit: Duration) -> Result<(), Broken> {
    let begun = session.now();
    let mut next = EVERY;
    loop {
        session.wait(LOOK)?;
        let passed = session.now().saturating_duration_since(begun);
        let is_time = passed >= next;
        for talker in talkers.iter_mut().filter(|talker| talker.ended.is_none()) {
            talker.go_on(session, is_time)?;
        }
        if is_time {
            next += EVERY;
        }
        if passed >= limit || talkers.iter().all(|talker| talker.ended.is_some()) {
            break;
        }
    }
    for talker in talkers.iter() {
        if session.seen(talker.client).is_deaf {
            session.hear(talker.client);
        }
    }
    session.wait(EVERY)
}

impl<'a> Talker<'a> {
    /// Opens it and sends its first packet: a server's deadline begins with either.
    fn open(session: &mut Session, talk: &'a Talk, deaf: Option<(Duration, Duration)>) -> Result<Self, Broken> {
        let client = session.open(&Open::default())?;
        session.send(client, &talk.first);
        Ok(Self { talk, client, deaf, ended: None })
    }

    /// Looks whether the server has ended; else becomes deaf, hears again, and sends, as is due.
    fn go_on(&mut self, session: &mut Session, is_time: bool) -> Result<(), Broken> {
        let seen = session.seen(self.client);
        let (is_deaf, opened) = (seen.is_deaf, seen.opened);
        if let Some(end) = seen.ended_by_server().or(seen.failed.map(|(time, _)| time)) {
            self.ended = Some(end.saturating_duration_since(opened));
            return Ok(());
        }
        let passed = session.now().saturating_duration_since(opened);
        match self.deaf {
            Some((_, until)) if is_deaf && passed >= until => session.hear(self.client),
            Some((from, until)) if !is_deaf && (from..until).contains(&passed) => {
                session.deafen(self.client)?;
            }
            Some(_) | None => {}
        }
        if is_time {
            session.send(self.client, &self.talk.again);
        }
        Ok(())
    }
}

/// The last message is lost if the connection was reset and fewer bytes arrived than a client got
/// that heard all. The number of answers before it varies with the moment by one or two; the deaf
/// client misses more of them. A FIN shows that all has arrived that the server has sent.
fn judge(session: &Session, client: Client, expected: u64) -> (Verdict, String) {
    let seen = session.seen(client);
    let answer = session.baseline.as_ref().map_or(0, |it| it.bytes);
    let slack = if expected > answer * 4 { answer * 2 } else { expected / 50 };
    let got = match seen.total {
        0 => Got::Nothing,
        bytes if bytes + slack >= expected || seen.end() == End::Fin => Got::Whole,
        bytes => Got::Cut { bytes, of: expected },
    };
    let outcome = Outcome::of(got, seen);
    let verdict = match (&outcome.got, outcome.end) {
        (Got::Nothing, End::Fin | End::Reset) if expected == 0 => {
            return (Verdict::Info, format!("ended without a last message: {outcome}"));
        }
        (Got::Cut { .. } | Got::Nothing, End::Reset) => Verdict::Fail,
        // Others got a last message.
        (Got::Cut { .. } | Got::Nothing, End::Fin) => Verdict::Warn,
        (Got::Whole | Got::Other { .. }, End::Reset) => Verdict::Warn,
        (Got::Whole | Got::Other { .. }, End::Fin) => Verdict::Pass,
        (_, End::Open | End::Refused) => Verdict::Info,
    };
    (verdict, outcome.to_string())
}
