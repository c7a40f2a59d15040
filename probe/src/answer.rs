//! When an answer is complete, and how it compares with the answers to polite clients.
//!
//! Invariant: two answers are compared by status and length and never byte by byte, since dates and
//! ids differ between honest answers.

use std::fmt;
use std::time::Duration;

use crate::client::Seen;

/// Bytes of an answer that are kept: its head, and what a person may want to see.
pub(crate) const KEPT: usize = 64 * 1024;

/// How the end of an answer is found.
///
/// ```
/// use finale_probe::Framing;
/// let lines = Framing::Until(b"\r\n".to_vec());
/// assert_ne!(lines, Framing::Auto);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// By the first answer: a length of HTTP, else the server's FIN, else silence.
    #[default]
    Auto,
    /// The server's FIN.
    End,
    /// This many bytes.
    Bytes(u64),
    /// The answer ends with these bytes.
    Until(Vec<u8>),
    /// A response of HTTP/1: its length or its chunks.
    Http,
}

/// The bytes of an answer, counted, with their beginning and their end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: u64,
    /// The first [`KEPT`] bytes.
    pub(crate) head: Vec<u8>,
    /// The last few bytes.
    tail: Vec<u8>,
}

/// What a complete chunked body ends with (RFC 9112 section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const TAIL: usize = 64;

impl Answer {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = KEPT.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
    }

    /// Whether the answer is complete, as far as its bytes show it. One that ends with a FIN is not.
    pub(crate) fn is_complete(&self, framing: &Framing) -> bool {
        match framing {
            Framing::Auto | Framing::End => false,
            Framing::Bytes(bytes) => self.bytes >= *bytes,
            Framing::Until(end) => self.tail.ends_with(end) && !end.is_empty(),
            Framing::Http => self.is_complete_http(),
        }
    }

    fn is_complete_http(&self) -> bool {
        match self.http() {
            Some(Http { length: Length::Bytes(bytes), .. }) => self.bytes >= bytes,
            Some(Http { length: Length::Chunks, .. }) => self.tail.ends_with(LAST_CHUNK),
            Some(Http { length: Length::End, .. }) | None => false,
        }
    }

    /// What the bytes say of themselves, if they are a response of HTTP/1.
    pub(crate) fn http(&self) -> Option<Http> {
        Http::parse(&self.head)
    }

    /// The first line, as far as it is text: the status of protocols with lines.
    pub(crate) fn first_line(&self) -> String {
        let line = self.head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let shown = |character: char| if character.is_control() { '.' } else { character };
        String::from_utf8_lossy(&line[..line.len().min(80)]).chars().map(shown).collect()
    }

    /// What an answer of the same kind has in common: the code of HTTP, or nothing.
    pub(crate) fn status(&self) -> Option<u16> {
        self.http().map(|http| http.status)
    }
}

/// What a response of HTTP/1 says of itself.
pub(crate) struct Http {
    pub(crate) status: u16,
    pub(crate) length: Length,
    /// The length of its head.
    pub(crate) head: usize,
    /// It announces the end of the connection: `Connection: close`.
    pub(crate) closes: bool,
    /// How long an idle connection is kept, as its `Keep-Alive: timeout=` says.
    pub(crate) keeps: Option<u64>,
}

impl Http {
    /// The head of a response, if these bytes begin with a complete one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else { return None };
        let status = response.code?;
        let named = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let value = |name: &str| named(name).and_then(|header| std::str::from_utf8(header.value).ok());
        let has = |name: &str, word: &str| value(name).is_some_and(|value| value.to_ascii_lowercase().contains(word));
        let length = value("content-length").and_then(|value| value.trim().parse::<u64>().ok());
        let length = match length {
            _ if matches!(status, 100..=199 | 204 | 304) => Length::Bytes(head as u64),
            _ if has("transfer-encoding", "chunked") => Length::Chunks,
            Some(length) => Length::Bytes(head as u64 + length),
            None => Length::End,
        };
        let keeps = value("keep-alive").and_then(|value| value.split("timeout=").nth(1));
        let keeps = keeps.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        Some(Self { status, length, head, closes: has("connection", "close"), keeps })
    }
}

/// The length of a response.
pub(crate) enum Length {
    /// This many bytes with the head.
    Bytes(u64),
    Chunks,
    /// The server's FIN ends it.
    End,
}

/// How much of the answer arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Whole,
    /// Less than a polite client gets.
    Cut {
        bytes: u64,
        of: u64,
    },
    /// Another status than a polite client gets.
    Other {
        status: String,
    },
    Nothing,
}

/// How the connection stood at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server's FIN, and no reset.
    Fin,
    /// A reset. After a FIN it was seen as EPIPE before the read, which hides it.
    Reset,
    /// Neither, until the time was up.
    Open,
    /// It was never established.
    Refused,
}

/// What became of one exchange. `Display` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) got: Got,
    pub(crate) end: End,
}

/// A reset this long after the last byte destroys nothing: the byte was acknowledged. It is twice the
/// shortest time after which Linux sends something again.
pub(crate) const LONG_AFTER: Duration = Duration::from_millis(400);

impl Outcome {
    /// What became of an exchange of which this was seen.
    pub(crate) fn of(got: Got, seen: &Seen) -> Self {
        let after = seen.reset.zip(seen.last_byte).map(|(reset, last)| reset.saturating_duration_since(last));
        let end = match (seen.end(), after) {
            (End::Reset, Some(after)) if got == Got::Whole && after >= LONG_AFTER => End::Open,
            (end, _) => end,
        };
        Self { got, end }
    }

    /// The whole answer is here, and nothing destroys it.
    pub(crate) const fn is_clean(&self) -> bool {
        matches!((&self.got, self.end), (Got::Whole, End::Fin | End::Open))
    }

    /// The answer is whole here, but a reset followed: on another system, with a smaller window or
    /// after a lost packet it would be lost.
    pub(crate) const fn is_at_risk(&self) -> bool {
        matches!((&self.got, self.end), (Got::Whole, End::Reset))
    }

    /// An answer that a polite client gets is missing or cut.
    pub(crate) const fn is_lost(&self) -> bool {
        matches!(self.got, Got::Cut { .. } | Got::Nothing)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end == End::Refused {
            return f.write_str("not connected");
        }
        match &self.got {
            Got::Whole => f.write_str("whole")?,
            Got::Cut { bytes, of } => write!(f, "cut at {bytes} of {of} bytes")?,
            Got::Other { status } => write!(f, "another answer ({status})")?,
            Got::Nothing => f.write_str("no byte")?,
        }
        f.write_str(match self.end {
            End::Fin => ", then FIN",
            End::Reset => ", then reset",
            End::Open | End::Refused => ", not ended",
        })
    }
}
