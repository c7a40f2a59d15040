//! Clients that keep their connection: several requests on it, their answers, and what became of a
//! request when the server ended the connection.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Broken, LEAVE, Open, Session};
use crate::answer::{End, Framing, Got};
use crate::answers::Answers;
use crate::client::{Client, Seen, Stage};

/// What a client sees that keeps its connection.
#[derive(Clone, Debug)]
pub(crate) struct Persistent {
    /// The request, without `Connection: close`.
    pub(crate) request: Vec<u8>,
    /// How the end of an answer is found.
    framing: Framing,
    /// The code of an answer of HTTP.
    pub(crate) status: Option<u16>,
    /// The longer time of two answers.
    pub(crate) time: Duration,
}

/// What became of the last request on a connection. `Display` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// Another status than a polite client gets.
    Other(u16),
    /// The connection was not established.
    Refused,
    /// The server's end was on its way before the request was there: a client has to send such a
    /// request again, and no server can prevent it (RFC 9112 section 9.5).
    Crossed,
    /// The server's kernel had the request before the end, and nothing came.
    Lost(End),
    /// A part of the answer, and the end.
    Cut(End),
    /// Neither an answer nor an end.
    Silent,
}

impl Fate {
    /// A request that the server had is not answered as it should be.
    pub(crate) const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Cut(_) | Self::Silent)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end: End| if end == End::Reset { "reset" } else { "FIN" };
        match self {
            Self::Answered => f.write_str("answered"),
            Self::Other(status) => write!(f, "another answer ({status})"),
            Self::Refused => f.write_str("not connected"),
            Self::Crossed => f.write_str("ended before the request was there"),
            Self::Lost(how) => write!(f, "acknowledged, no answer, {}", end(*how)),
            Self::Cut(how) => write!(f, "cut, then {}", end(*how)),
            Self::Silent => f.write_str("no answer, not ended"),
        }
    }
}

/// A request that has not left after this time waits for room in the server's window.
const FLUSH: Duration = Duration::from_millis(20);

impl Persistent {
    /// Sends two requests, one after the other, on one connection.
    pub(crate) fn measure(session: &mut Session) -> Result<Option<Self>, Broken> {
        let Some(baseline) = session.baseline.clone() else { return Ok(None) };
        let request = keep_alive_request(&session.options.request);
        // Without `Connection: close` an answer of HTTP has a length.
        let framing = if baseline.status.is_some() { Framing::Http } else { session.framing.clone() };
        let mut this = Self { request, framing, status: baseline.status, time: Duration::ZERO };
        let client = session.open(&Open::default())?;
        session.entry_mut(client).seen.answers = Some(Answers::new(this.framing.clone(), this.status));
        for number in 1..=2 {
            let begun = session.now();
            session.ask_with(client, &this.request, 1)?;
            let limit = session.options.timeout;
            session.wait_for_answers(client, number, limit)?;
            if session.fate(client) != Fate::Answered || (number == 1 && session.seen(client).has_ended()) {
                session.leave(client)?;
                return Ok(None);
            }
            this.time = this.time.max(session.now().saturating_duration_since(begun));
        }
        session.leave(client)?;
        Ok(Some(this))
    }
}

/// The request of a client that keeps its connection: one of HTTP without `Connection: close`.
fn keep_alive_request(request: &[u8]) -> Vec<u8> {
    let is_close = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        line.split_once(':').is_some_and(|(name, value)| name == "connection" && value.trim() == "close")
    };
    let lines: Vec<&[u8]> = request.split_inclusive(|byte| *byte == b'\n').collect();
    if !lines.first().is_some_and(|line| line.windows(6).any(|window| window == b" HTTP/")) {
        return request.to_vec();
    }
    let head = lines.iter().position(|line| line.trim_ascii().is_empty()).unwrap_or(lines.len());
    let kept = lines.iter().enumerate().filter(|(number, line)| *number > head || !is_close(line));
    kept.flat_map(|(_, line)| line.iter().copied()).collect()
}

impl Session {
    /// Opens a client that keeps its connection.
    pub(crate) fn open_persistent(&mut self) -> Result<Client, Broken> {
        let client = self.open(&Open::default())?;
        self.split(client);
        Ok(client)
    }

    /// The request of a client that keeps its connection.
    pub(crate) fn kept_request(&self) -> Vec<u8> {
        self.persistent.as_ref().map_or_else(|| self.options.request.clone(), |it| it.request.clone())
    }

    /// A client that has got one answer, if its connection is still open.
    pub(crate) fn open_answered(&mut self) -> Result<Option<Client>, Broken> {
        let client = self.open_persistent()?;
        self.ask(client)?;
        let limit = self.options.timeout;
        let is_answered = self.wait_for_answers(client, 1, limit)?;
        Ok((is_answered && !self.seen(client).has_ended()).then_some(client))
    }

    /// From now on the client's requests and answers are counted.
    pub(crate) fn split(&mut self, client: Client) {
        if let Some(persistent) = &self.persistent {
            let answers = Answers::new(persistent.framing.clone(), persistent.status);
            let seen = &mut self.entry_mut(client).seen;
            (seen.answers, seen.asked) = (Some(answers), 0);
        }
    }

    /// Sends a request on a connection that is kept.
    pub(crate) fn ask(&mut self, client: Client) -> Result<(), Broken> {
        if self.seen(client).answers.is_none() {
            // Not before: a greeting is no answer.
            self.split(client);
        }
        let request = self.persistent.as_ref().map_or_else(Vec::new, |it| it.request.clone());
        self.ask_with(client, &request, 1)
    }

    /// Sends these bytes, which complete this many requests. On return they have left, if they can.
    pub(crate) fn ask_with(&mut self, client: Client, bytes: &[u8], requests: u32) -> Result<(), Broken> {
        // After the write it would be too late: by then a fast server has read the request and
        // ended. A FIN that arrives in the microseconds between is missed: the cases allow for one.
        let is_open = self.kernel_state(client) == Some("ESTABLISHED");
        self.send(client, bytes);
        self.flush(client)?;
        let seen = &mut self.entry_mut(client).seen;
        seen.asked += requests;
        seen.was_open = is_open;
        Ok(())
    }

    /// Turns the reactor until the kernel has taken what the client has sent.
    fn flush(&mut self, client: Client) -> Result<(), Broken> {
        let deadline = self.now() + FLUSH;
        while self.queued(client) > 0 && self.now() < deadline {
            let now: Instant = self.now();
            self.pump(now)?;
        }
        Ok(())
    }

    /// How many of the client's requests are answered.
    pub(crate) fn answered(&self, client: Client) -> u32 {
        self.seen(client).answers.as_ref().map_or(0, |answers| answers.count)
    }

    /// Whether the client can send another request: it has all its answers, and no end is seen or
    /// announced.
    pub(crate) fn can_ask(&self, client: Client) -> bool {
        let seen = self.seen(client);
        seen.stage == Stage::Ready
            && !seen.has_ended()
            && !self.is_close_announced(client)
            && self.fate(client) == Fate::Answered
    }

    /// The server has announced that it ends this connection.
    pub(crate) fn is_close_announced(&self, client: Client) -> bool {
        self.seen(client).answers.as_ref().is_some_and(|answers| answers.closes)
    }

    /// Waits until this many answers are here or the connection has ended. Returns whether they
    /// are.
    pub(crate) fn wait_for_answers(&mut self, client: Client, count: u32, limit: Duration) -> Result<bool, Broken> {
        self.wait_until(limit, |session| session.answered(client) >= count || session.seen(client).has_ended())?;
        Ok(self.answered(client) >= count)
    }

    /// What became of the client's last request on a connection that it keeps.
    pub(crate) fn fate(&self, client: Client) -> Fate {
        let seen = self.seen(client);
        let answers = seen.answers.as_ref();
        if let Some(status) = answers.and_then(|answers| answers.other) {
            return Fate::Other(status);
        }
        if answers.map_or(0, |answers| answers.count) >= seen.asked {
            return Fate::Answered;
        }
        match seen.end() {
            End::Open => Fate::Silent,
            end if answers.is_some_and(Answers::is_inside) => Fate::Cut(end),
            _ => Self::unanswered(seen),
        }
    }

    /// The same for a client that sends one request: its answer is compared with the baseline's.
    pub(crate) fn fate_of_single(&self, client: Client) -> Fate {
        let seen = self.seen(client);
        let outcome = self.outcome(client);
        match outcome.got {
            Got::Whole => Fate::Answered,
            Got::Other { .. } => Fate::Other(seen.answer.status().unwrap_or_default()),
            Got::Cut { .. } if outcome.end == End::Open => Fate::Silent,
            Got::Cut { .. } => Fate::Cut(outcome.end),
            Got::Nothing => Self::unanswered(seen),
        }
    }

    /// What became of a request without an answer.
    fn unanswered(seen: &Seen) -> Fate {
        match seen.end() {
            End::Refused if seen.has_ended() => Fate::Refused,
            End::Refused | End::Open => Fate::Silent,
            _ if !seen.was_open => Fate::Crossed,
            // On the way to a distant server the two may have crossed: then its FIN does not
            // acknowledge the request.
            _ if seen.fin.is_some() && seen.unacked_at_fin.is_none_or(|unacked| unacked > 0) => Fate::Crossed,
            end => Fate::Lost(end),
        }
    }

    /// Leaves with all these clients at once, politely.
    pub(crate) fn leave_all(&mut self, clients: &[Client]) -> Result<(), Broken> {
        for client in clients {
            self.resume(*client);
            self.finish(*client);
        }
        self.wait_until(LEAVE, |session| clients.iter().all(|client| session.seen(*client).is_over()))?;
        for client in clients {
            if !self.seen(*client).is_over() {
                self.reset(*client);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::keep_alive_request;

    #[test]
    fn only_the_line_that_closes_the_connection_is_left_out() {
        let request = b"POST / HTTP/1.1\r\nconnection:  Close\r\nHost: x\r\n\r\nConnection: close\r\n";
        assert_eq!(keep_alive_request(request), b"POST / HTTP/1.1\r\nHost: x\r\n\r\nConnection: close\r\n");
    }

    #[test]
    fn a_request_of_another_protocol_stays_as_it_is() {
        let request = b"connection: close\r\n";
        assert_eq!(keep_alive_request(request), request);
    }
}
