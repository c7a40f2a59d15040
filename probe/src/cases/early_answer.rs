//! `early-answer`: the server answers an upload before it has read it all. If it closes then with
//! unread input, its reset destroys the answer.

use std::time::Duration;

use super::exchange::{Owed, deaf_while, grade, is_complete, wait_for_other};
use super::{Case, Finding, Tally};
use crate::answer::{End, Got, Outcome};
use crate::client::{Client, Seen};
use crate::report::Verdict;
use crate::session::{Broken, Open, Session};

pub(super) const CASES: &[Case] = &[Case {
    id: "early-answer",
    does: "uploads a body that the server refuses before it has arrived, and reads the answer",
    source: "RFC 9112 sections 9.3 and 9.6; RFC 1122 section 4.2.2.13",
    cure: "After an early answer send FIN, then read and discard what still comes until the client's FIN, or for a \
           second or more, and close only then.",
    needs: &[],
    run: early_answer,
}];

/// The length that an upload announces, and how much of it is sent. Each is more than some server
/// of the field reads after its answer.
const ANNOUNCED: usize = 28_000_000;
const SIZES: [(&str, usize); 6] = [
    ("1 byte", 1),
    ("64 KiB", 64 * 1024),
    ("1 MiB + 1", 1024 * 1024 + 1),
    ("2.1 MiB", 2_200_000),
    ("10 MB", 10_000_000),
    ("28 MB", ANNOUNCED),
];
/// More than this is sent only to a server that may be harmed.
const POLITE: usize = 10_000_000;
/// A server that reads on for this long after its answer is careful enough: it can be reasonably
/// certain that the answer has arrived (RFC 9112 section 9.6).
const CAREFUL: Duration = Duration::from_millis(800);
/// The body follows the head in a later segment.
const SOON: Duration = Duration::from_millis(5);
/// A slow upload: 10 KB per second, for longer than many servers continue to read.
const SLOW_BYTES: usize = 30 * 1024;
const SLOW_PIECE: usize = 1024;
const SLOW_GAP: Duration = Duration::from_millis(100);
const DEAF_RUNS: u32 = 2;
/// What a deaf client can send: nothing acknowledges it. More makes no difference then.
const WITHOUT_ACKS: usize = 64 * 1024;

fn early_answer(session: &mut Session) -> Result<Finding, Broken> {
    let Some(upload) = Upload::of(session) else {
        return Ok(Finding::skip("needs the head of an upload that is refused early (--upload)"));
    };
    let mut tally = Tally::default();
    let head = upload.head(ANNOUNCED);
    let limit = session.options.timeout.min(session.usual_time() * 3 + Duration::from_secs(1));
    let client = session.open(&Open::default())?;
    session.send(client, &head);
    wait_for_other(session, client, None, limit)?;
    session.settle(client)?;
    let seen = session.seen(client).clone();
    session.leave(client)?;
    let owed = Owed { bytes: seen.answer.bytes };
    if owed.bytes == 0 {
        if seen.has_ended() {
            let what = format!("the head of an upload has no answer: {}", owed.outcome(&seen));
            return Ok(Finding::of(Verdict::Info, what));
        }
        if !session.options.may_be_hostile(session.target) {
            // A whole upload may change something there.
            let what = "the head of an upload has no early answer; whole uploads only on a local address, or with \
                        --i-own-this-server";
            return Ok(Finding::of(Verdict::Info, what));
        }
        return whole_uploads(session, &upload);
    }
    tally.add(session, "only the head", client, grade(&owed.outcome(&seen)), owed.outcome(&seen));
    let most = if session.options.may_be_hostile(session.target) { ANNOUNCED } else { POLITE };
    for (name, bytes) in SIZES.into_iter().filter(|(_, bytes)| *bytes <= most) {
        refused(session, &mut tally, owed, &head, name, bytes)?;
    }
    slowly(session, &mut tally, owed, &head)?;
    let line = seen.answer.first_line();
    Ok(tally.finding().with("early answer", line))
}

/// The head of an upload.
enum Upload {
    /// As it was given.
    Given(Vec<u8>),
    /// Made from a request of HTTP: what comes before the length, and what comes after it. A POST,
    /// since a PUT that is not refused would replace what is there.
    Made(Vec<u8>, Vec<u8>),
}

impl Upload {
    fn of(session: &Session) -> Option<Self> {
        if let Some(head) = &session.options.upload {
            return Some(Self::Given(head.clone()));
        }
        session.baseline.as_ref()?.status?;
        let text = std::str::from_utf8(&session.options.request).ok()?;
        let (head, _) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (_, path, version) = (words.next()?, words.next()?, words.next()?);
        if !version.starts_with("HTTP/1.") {
            return None;
        }
        let mut before = format!("POST {path} {version}\r\n");
        let of_a_body = ["content-length:", "transfer-encoding:", "expect:"];
        for line in lines {
            let lower = line.to_ascii_lowercase();
            if !of_a_body.iter().any(|name| lower.starts_with(name)) {
                before.push_str(line);
                before.push_str("\r\n");
            }
        }
        before.push_str("Content-Length: ");
        Some(Self::Made(before.into_bytes(), b"\r\n\r\n".to_vec()))
    }

    /// The head with this length, if it can be chosen.
    fn head(&self, announced: usize) -> Vec<u8> {
        match self {
            Self::Given(head) => head.clone(),
            Self::Made(before, after) => [before, announced.to_string().as_bytes(), after].concat(),
        }
    }

    /// The length that is announced where this one is wanted.
    fn announces(&self, wanted: usize) -> Option<usize> {
        match self {
            Self::Made(..) => Some(wanted),
            Self::Given(head) => {
                let text = String::from_utf8_lossy(head).to_ascii_lowercase();
                let value = text.split("content-length:").nth(1)?;
                value.split("\r\n").next()?.trim().parse().ok()
            }
        }
    }
}

/// An upload of this size to a server that answers at the head: by a client that stops at the
/// answer, by one that writes all before it reads, and by one that misses a packet.
fn refused(
    session: &mut Session,
    tally: &mut Tally,
    owed: Owed,
    head: &[u8],
    name: &str,
    bytes: usize,
) -> Result<(), Broken> {
    for (how, paused) in [("reads at once", false), ("writes all, then reads", true)] {
        let client = session.open(&Open { paused, ..Open::default() })?;
        session.send(client, head);
        session.wait(SOON)?;
        let begun = session.now();
        session.upload(client, bytes, Duration::ZERO, |session| {
            !paused && is_complete(session, &session.seen(client).answer)
        })?;
        finish(session, tally, owed, client, &format!("{name}, {how}"), begun)?;
    }
    if bytes > WITHOUT_ACKS || !session.can_be_deaf {
        return Ok(());
    }
    for _ in 0..DEAF_RUNS.min(session.options.runs) {
        let client = session.open(&Open::default())?;
        let first = vec![b'x'; bytes.min(16 * 1024)];
        let was_deaf = deaf_while(session, client, |session| {
            session.send(client, head);
            session.wait(SOON)?;
            session.send(client, &first);
            Ok(())
        })?;
        if !was_deaf {
            return session.leave(client);
        }
        let begun = session.now();
        session.upload(client, bytes - first.len(), Duration::ZERO, |session| {
            is_complete(session, &session.seen(client).answer)
        })?;
        finish(session, tally, owed, client, &format!("{name}, deaf"), begun)?;
    }
    Ok(())
}

/// A slow upload that continues after the answer: how long the server reads on is a fact.
fn slowly(session: &mut Session, tally: &mut Tally, owed: Owed, head: &[u8]) -> Result<(), Broken> {
    let client = session.open(&Open::default())?;
    session.send(client, head);
    let begun = session.now();
    for _ in 0..SLOW_BYTES / SLOW_PIECE {
        if session.seen(client).is_dead() {
            break;
        }
        session.upload(client, SLOW_PIECE, Duration::ZERO, |_| false)?;
        session.wait_for(client, SLOW_GAP, Seen::is_dead)?;
    }
    finish(session, tally, owed, client, "slowly, for 3 s", begun)
}

/// Reads what there is, and judges it.
fn finish(
    session: &mut Session,
    tally: &mut Tally,
    owed: Owed,
    client: Client,
    variant: &str,
    begun: std::time::Instant,
) -> Result<(), Broken> {
    // A paused client learns of the reset only when it reads; the upload ended then at the latest.
    let died = session.seen(client).reset.unwrap_or_else(|| session.now());
    let dead_after = died.saturating_duration_since(begun);
    session.resume(client);
    let limit = session.options.timeout.max(Duration::from_secs(3));
    let known = (owed.bytes > 0).then_some(owed);
    wait_for_other(session, client, known, limit)?;
    session.settle(client)?;
    let outcome = owed.outcome(session.seen(client));
    let (verdict, what) = judge(owed, &outcome, dead_after);
    tally.add(session, variant, client, verdict, what);
    session.leave(client)
}

/// An answer that does not come while the server waits for the announced rest is not lost; and a
/// server that has read on for long enough may reset what is still sent.
fn judge(owed: Owed, outcome: &Outcome, dead_after: Duration) -> (Verdict, String) {
    let is_silent = outcome.got == Got::Nothing;
    if is_silent && outcome.end == End::Open {
        return (Verdict::Info, "no answer, waits for the rest".to_owned());
    }
    if is_silent && owed.bytes == 0 {
        // It may have lost an answer, or have given none.
        return (Verdict::Warn, outcome.to_string());
    }
    if outcome.is_at_risk() && dead_after >= CAREFUL {
        return (Verdict::Pass, format!("{outcome}, {CAREFUL:?} or more after its answer"));
    }
    (grade(outcome), outcome.to_string())
}

/// The server does not answer at the head. It gets whole uploads: it may read them all, or refuse
/// them in the middle.
fn whole_uploads(session: &mut Session, upload: &Upload) -> Result<Finding, Broken> {
    let mut tally = Tally::default();
    let mut answered = 0;
    let sizes = SIZES.into_iter().filter(|(_, bytes)| *bytes <= POLITE && *bytes != 2_200_000);
    for (name, bytes) in sizes {
        let head = upload.head(bytes);
        let Some(bytes) = upload.announces(bytes).map(|announced| announced.min(POLITE)) else { break };
        let client = session.open(&Open::default())?;
        session.send(client, &head);
        session.wait(SOON)?;
        let begun = session.now();
        session.upload(client, bytes, Duration::ZERO, |session| is_complete(session, &session.seen(client).answer))?;
        // What is owed is what the answer itself declares: there is no other measure.
        let variant = format!("whole upload of {name}");
        finish(session, &mut tally, Owed { bytes: 0 }, client, &variant, begun)?;
        answered += u32::from(session.seen(client).answer.bytes > 0);
        if session.seen(client).answer.bytes == 0 || matches!(upload, Upload::Given(_)) {
            break;
        }
    }
    let mut finding = tally.finding();
    if finding.wrong == 0 {
        let what = if answered > 0 { "is answered after its body" } else { "was not answered" };
        finding.summary = format!("no early answer: an upload {what}");
        finding.verdict = if answered > 0 { Verdict::Pass } else { Verdict::Info };
    }
    Ok(finding)
}
