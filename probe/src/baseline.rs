//! What a polite client sees: the measure for every case.

use std::time::Duration;

use serde::Serialize;

use crate::answer::{Answer, End, Framing, Got, Outcome, Shape};
use crate::client::{Client, Seen};
use crate::report::{micros, millis};
use crate::session::{Broken, Open, Session};
use crate::tls::Version;

/// What a polite client sees, at least three times.
///
/// ```
/// fn keeps_time_wait(report: &finale_probe::Report) -> &'static str {
///     report.baseline.first
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Baseline {
    /// The length of the longest answer.
    pub bytes: u64,
    /// The length of the shortest answer.
    pub shortest: u64,
    /// The code of an answer of HTTP.
    pub status: Option<u16>,
    /// Its first line.
    pub first_line: String,
    /// Who finishes first: `server`, `client`. The side that does keeps TIME-WAIT (RFC 9293 section
    /// 3.6).
    pub first: &'static str,
    /// How the server ends: `fin`, `reset`, or `open` if it did not within the timeout.
    pub end: &'static str,
    /// The server's FIN was there when the last bytes were.
    pub together: bool,
    /// The version of TLS: `1.2` or `1.3`. `None` without TLS.
    pub tls: Option<&'static str>,
    /// The application protocol that was negotiated (ALPN).
    pub alpn: Option<String>,
    /// Whether each end of the server came with its close_notify. `false`: at least one was a FIN
    /// without it, so a client can't distinguish the end from a cut. `None` without TLS, and if it
    /// had not ended.
    pub close_notify: Option<bool>,
    /// The median time from the request to the last byte, in microseconds.
    pub time_us: u64,
    /// The longest time.
    pub slowest_us: u64,
    /// Two requests, one after the other, are answered on one connection. A request of HTTP is sent
    /// without its `Connection: close` there.
    pub reusable: bool,
    /// How long the slow request takes, in milliseconds, if there is one; at most the timeout.
    pub slow_ms: Option<u64>,
    /// The server works on one slow request at a time: a healthy client waits for it.
    pub one_at_a_time: bool,
    /// How the end of an answer is found.
    #[serde(skip)]
    pub(crate) framing: Framing,
    /// What its answers have in common.
    #[serde(skip)]
    pub(crate) shape: Shape,
    /// The longest time from the first segment of a client to the end of its answer.
    #[serde(skip)]
    pub(crate) served: Duration,
}

/// How often the polite client is served at first.
const TIMES: usize = 3;
/// A silence that ends an answer of unknown length.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

impl Baseline {
    /// Serves the polite client.
    pub(crate) fn measure(session: &mut Session) -> Result<Self, Broken> {
        session.framing = session.options.framing.clone();
        let (mut all, mut served) = (Vec::new(), Duration::ZERO);
        for _ in 0..TIMES {
            let (client, took) = served_in(session, &Open::default())?;
            session.settle(client)?;
            let stayed = session.seen(client).clone();
            session.leave(client)?;
            served = served.max(took);
            let seen = session.seen(client).clone();
            if let Some((_, kind)) = seen.failed {
                let why = seen.tls.as_ref().and_then(|tls| tls.failure.clone()).unwrap_or_else(|| kind.to_string());
                return Err(Broken::NoBaseline(format!("a polite client could not connect: {why}")));
            }
            // What arrives after its FIN is no answer to a polite client.
            let wrong = no_answer(session, &stayed, &seen).or_else(|| not_as_expected(session, &stayed));
            if let Some(reason) = wrong {
                return Err(Broken::NoBaseline(reason));
            }
            session.learn_framing(&seen);
            all.push(seen);
        }
        let mut baseline = Self::of(&all)?;
        (baseline.framing, baseline.served) = (session.framing.clone(), served);
        Ok(baseline)
    }

    pub(crate) fn of(all: &[Seen]) -> Result<Self, Broken> {
        let shape = Shape::of(all.iter().map(|seen| &seen.answer));
        let (shortest, bytes) = (shape.shortest, shape.longest);
        let Some(first) = all.first() else {
            return Err(Broken::NoBaseline("nothing was measured".to_owned()));
        };
        let status = first.answer.status();
        if all.iter().any(|seen| seen.answer.status() != status) {
            return Err(Broken::NoBaseline(
                "polite clients got different statuses; use a request with one answer".to_owned(),
            ));
        }
        if shape.is_unstable() {
            let reason =
                format!("polite clients got between {shortest} and {bytes} bytes; use a request with one answer");
            return Err(Broken::NoBaseline(reason));
        }
        if let Some(Got::Cut { bytes, of }) =
            all.iter().map(|seen| shape.got(&seen.answer)).find(|got| *got != Got::Whole)
        {
            let reason = format!(
                "a polite client got {bytes} bytes of an answer that should have {of} or more and show its end: is the \
                 timeout too short?"
            );
            return Err(Broken::NoBaseline(reason));
        }
        let mut times: Vec<Duration> = all.iter().filter_map(Seen::time).collect();
        times.sort_unstable();
        let micros = |time: Option<&Duration>| time.copied().map_or(0, micros);
        let last = &all[all.len() - 1];
        let server_first = last.fin.is_some_and(|fin| last.ended.is_none_or(|ended| fin <= ended));
        Ok(Self {
            bytes,
            shortest,
            status,
            first_line: last.answer.first_line(),
            first: if server_first { "server" } else { "client" },
            end: match last.end() {
                End::Fin => "fin",
                End::Reset => "reset",
                End::Open | End::Refused => "open",
            },
            together: all.iter().all(|seen| seen.fin_with_data),
            tls: last.tls.as_ref().and_then(|tls| tls.version).map(Version::name),
            alpn: last.tls.as_ref().and_then(|tls| tls.alpn.clone()),
            close_notify: close_notify(all),
            time_us: micros(times.get(times.len() / 2)),
            slowest_us: micros(times.last()),
            reusable: false,
            slow_ms: None,
            one_at_a_time: false,
            framing: Framing::Auto,
            shape,
            served: Duration::ZERO,
        })
    }

    /// Serves a polite client of the slow request, and a healthy one meanwhile: what others must
    /// wait for, whichever side leaves.
    pub(crate) fn measure_slow(&mut self, session: &mut Session) -> Result<(), Broken> {
        let Some(slow) = session.options.slow_request.clone() else { return Ok(()) };
        let client = session.open(&Open::default())?;
        let begun = session.now();
        session.send(client, &slow);
        let usual = session.slow();
        let healthy = session.aftermath(Duration::ZERO)?;
        session.wait_for_answer(client, QUIET)?;
        let takes = session.seen(client).last_byte.map_or(session.options.timeout, |last| last - begun);
        session.leave(client)?;
        self.slow_ms = Some(millis(takes));
        // A slow request that takes less than what a client may wait does not show it.
        self.one_at_a_time = healthy.served.is_none_or(|time| time > usual.min(takes / 2));
        Ok(())
    }

    /// How long a healthy client may have to wait for the work of others.
    pub(crate) fn held_up(&self) -> Duration {
        let slow = Duration::from_millis(self.slow_ms.unwrap_or_default());
        if self.one_at_a_time { slow * 2 } else { Duration::ZERO }
    }

    /// How an answer compares with a polite client's.
    pub(crate) fn compare(&self, seen: &Seen) -> Outcome {
        Outcome::of(self.got(&seen.answer), seen)
    }

    fn got(&self, answer: &Answer) -> Got {
        let status = answer.status();
        if status != self.status && status.is_some() {
            return Got::Other { status: answer.first_line() };
        }
        self.shape.got(answer)
    }

    /// The clients spoke TLS 1.2.
    pub(crate) fn is_tls12(&self) -> bool {
        self.tls == Some(Version::Tls12.name())
    }

    /// The median time of a polite client.
    pub(crate) const fn time(&self) -> Duration {
        Duration::from_micros(self.time_us)
    }
}

/// Whether the ends of the server had close_notify, as far as it has ended.
fn close_notify(all: &[Seen]) -> Option<bool> {
    if all.iter().any(Seen::is_truncated) {
        return Some(false);
    }
    let has_it = |seen: &Seen| seen.tls.as_ref().is_some_and(|tls| tls.close_notify.is_some());
    all.iter().all(has_it).then_some(true)
}

/// The first bytes of an alert (RFC 8446 section 5.1).
const TLS_ALERT: [u8; 2] = [21, 3];

/// Why a polite client has no answer: what it had seen before and after its own FIN.
fn no_answer(session: &Session, stayed: &Seen, left: &Seen) -> Option<String> {
    if session.options.tls.is_none() && stayed.answer.head.starts_with(&TLS_ALERT) {
        return Some("the server answers with an alert of TLS: it has to be probed with TLS (--tls)".to_owned());
    }
    if stayed.answer.bytes > 0 {
        return None;
    }
    let what = match stayed.has_ended() {
        true => "a polite client got no byte, and the server ended its connection".to_owned(),
        false => format!("a polite client got no byte within {:?}", session.options.timeout),
    };
    let end = if session.options.request.ends_with(b"\n") { "" } else { " It does not end with a line feed (\\n)." };
    let bytes = left.answer.bytes;
    if bytes > 0 {
        let only_then = "a server that answers only then can't be probed. Is it the right request?";
        return Some(format!("{what}, and {bytes} bytes after its FIN: {only_then}{end}"));
    }
    Some(format!("{what}; is it the right request?{end}"))
}

/// Why an answer is not the one that [`Framing::Until`] or [`Framing::Bytes`] describes. Without
/// its end, each wait for an answer would take the whole timeout, and healthy clients would seem
/// harmed.
fn not_as_expected(session: &Session, seen: &Seen) -> Option<String> {
    let framing = &session.options.framing;
    let bytes = seen.answer.bytes;
    let expected = match framing {
        Framing::Until(end) => format!("the expected end \"{}\"", end.escape_ascii()),
        Framing::Bytes(all) if bytes > *all => {
            return Some(format!("a polite client got {bytes} bytes, more than the {all} that are expected"));
        }
        Framing::Bytes(all) => format!("the rest of the {all} that are expected"),
        Framing::Auto | Framing::End | Framing::Http => return None,
    };
    if seen.answer.is_complete(framing) {
        return None;
    }
    let then = match seen.has_ended() {
        true => "the server's end".to_owned(),
        false => format!("silence for {:?}", session.options.timeout),
    };
    Some(format!("a polite client got {bytes} bytes, and then {then} instead of {expected}"))
}

/// Serves one polite client: it sends its request, reads the whole answer, and ends.
pub(crate) fn polite(session: &mut Session) -> Result<Client, Broken> {
    let (client, _) = served_in(session, &Open::default())?;
    session.settle(client)?;
    session.leave(client)?;
    Ok(client)
}

/// Sends a request and reads the answer. Returns how long it took from the first segment on.
pub(crate) fn served_in(session: &mut Session, open: &Open) -> Result<(Client, Duration), Broken> {
    let client = session.open(open)?;
    let request = session.options.request.clone();
    session.send(client, &request);
    session.wait_for_answer(client, QUIET)?;
    let took = session.now().saturating_duration_since(session.seen(client).opened);
    Ok((client, took))
}
