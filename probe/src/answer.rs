//! When an answer is complete, and how it compares with the answers to polite clients.
//!
//! Invariant: two answers are compared by status and length and never byte by byte, since dates and
//! ids differ between honest answers.

use std::fmt;
use std::time::Duration;

use crate::answers::Answers;
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
    /// The answer ends with these bytes, 1 to 64.
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
    /// Where it ends, if it is a response of HTTP.
    responses: Answers,
}

/// No longer end of an answer can be recognized.
pub(crate) const TAIL: usize = 64;

impl Answer {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = KEPT.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.responses.add(bytes);
    }

    /// It answers a request with HEAD: it has no body, whatever length it declares (RFC 9112
    /// section 6.3).
    pub(crate) const fn set_to_head(&mut self) {
        self.responses.is_to_head = true;
    }

    /// Whether the answer is complete, as far as its bytes show it. One that ends with a FIN is
    /// not.
    pub(crate) fn is_complete(&self, framing: &Framing) -> bool {
        match framing {
            Framing::Auto | Framing::End => false,
            Framing::Bytes(bytes) => self.bytes >= *bytes,
            Framing::Until(end) => self.tail.ends_with(end),
            Framing::Http => self.responses.count > 0,
        }
    }

    /// What the bytes say of themselves, if they are a response of HTTP/1.
    pub(crate) fn http(&self) -> Option<Http> {
        Http::parse(&self.head, self.responses.is_to_head)
    }

    /// It is one line with its end.
    pub(crate) fn is_a_line(&self) -> bool {
        let is_end = |byte: &&u8| **byte == b'\n';
        self.bytes == self.head.len() as u64
            && self.head.ends_with(b"\n")
            && self.head.iter().filter(is_end).count() == 1
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
    /// The head of a response, if these bytes begin with a complete one. Interim responses before
    /// it are a part of it (RFC 9110 section 15.2).
    pub(crate) fn parse(bytes: &[u8], is_to_head: bool) -> Option<Self> {
        let mut interim = 0;
        loop {
            let mut http = Self::parse_one(&bytes[interim..], is_to_head)?;
            // After 101 comes another protocol.
            if matches!(http.status, 100 | 102..=199) {
                interim += http.head;
                continue;
            }
            http.head += interim;
            if let Length::Bytes(bytes) = &mut http.length {
                *bytes = bytes.saturating_add(interim as u64);
            }
            return Some(http);
        }
    }

    fn parse_one(bytes: &[u8], is_to_head: bool) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else { return None };
        let status = response.code?;
        let named = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let value = |name: &str| named(name).and_then(|header| std::str::from_utf8(header.value).ok());
        let has = |name: &str, word: &str| value(name).is_some_and(|value| value.to_ascii_lowercase().contains(word));
        let length = value("content-length").and_then(|value| value.trim().parse::<u64>().ok());
        let length = match length {
            _ if is_to_head || matches!(status, 100..=199 | 204 | 304) => Length::Bytes(head as u64),
            _ if has("transfer-encoding", "chunked") => Length::Chunks,
            // A server can declare anything.
            Some(length) => Length::Bytes(length.saturating_add(head as u64)),
            None => Length::End,
        };
        let keeps = value("keep-alive").and_then(announced);
        Some(Self { status, length, head, closes: has("connection", "close"), keeps })
    }
}

/// The seconds of `timeout=5, max=100`.
fn announced(keep_alive: &str) -> Option<u64> {
    let lower = keep_alive.to_ascii_lowercase();
    let seconds = lower.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok()
}

/// The length of a response.
pub(crate) enum Length {
    /// This many bytes with the head.
    Bytes(u64),
    Chunks,
    /// The server's FIN ends it.
    End,
}

/// What whole answers have in common that do not declare their length: what is shorter, or ends in
/// another way, is cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) shortest: u64,
    pub(crate) longest: u64,
    /// Their last bytes, as far as they are the same.
    last: Vec<u8>,
}

/// Answers of an honest server differ by dates and ids, and not by more than this, or 64 bytes.
const SLACK_PERCENT: u64 = 2;
const SLACK: u64 = 64;
/// Last bytes that are compared.
const LAST: usize = 16;

impl Shape {
    pub(crate) fn of<'a>(answers: impl Iterator<Item = &'a Answer> + Clone) -> Self {
        let lengths = answers.clone().map(|answer| answer.bytes);
        let (shortest, longest) = (lengths.clone().min().unwrap_or_default(), lengths.max().unwrap_or_default());
        let mut tails = answers.map(|answer| answer.tail.as_slice());
        let first = tails.next().unwrap_or_default();
        let same =
            |tail: &[u8]| first.iter().rev().zip(tail.iter().rev()).take_while(|(one, other)| one == other).count();
        // Answers of one length do not show what varies: often it is all but a line's end.
        let same = if shortest == longest { 1 } else { tails.map(same).min().unwrap_or(1).min(LAST) };
        let same = same.min(first.len());
        Self { shortest, longest, last: first[first.len() - same..].to_vec() }
    }

    /// Answers may differ by this.
    fn slack(&self) -> u64 {
        (self.longest * SLACK_PERCENT / 100).max(SLACK)
    }

    /// The answers differ by more than dates and ids.
    pub(crate) fn is_unstable(&self) -> bool {
        self.longest - self.shortest > self.slack()
    }

    /// How much of an answer arrived, whatever its status.
    pub(crate) fn got(&self, answer: &Answer) -> Got {
        let least = self.shortest - self.slack().min(self.shortest / 2);
        let is_as_long = answer.bytes >= self.shortest;
        let (is_whole, of) = match answer.http().map(|http| http.length) {
            _ if answer.bytes == 0 => return Got::Nothing,
            Some(Length::Bytes(bytes)) => (answer.bytes >= bytes, bytes),
            // The last chunk can be sent after a cut, too.
            Some(Length::Chunks) => (answer.is_complete(&Framing::Http) && answer.bytes >= least, self.shortest),
            Some(Length::End) | None => {
                (is_as_long || (answer.bytes >= least && answer.tail.ends_with(&self.last)), self.shortest)
            }
        };
        // Of an answer whose length is not declared, it is not known how much more there was.
        if is_whole { Got::Whole } else { Got::Cut { bytes: answer.bytes, of: of.max(self.shortest) } }
    }
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

/// A reset this long after the last byte destroys nothing: the byte was acknowledged. It is twice
/// the shortest time after which Linux sends something again.
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

#[cfg(test)]
mod tests {
    use super::{Answer, Framing, Got, Http, Length, Shape};

    fn answer(bytes: &[u8]) -> Answer {
        let mut answer = Answer::default();
        answer.add(bytes);
        answer
    }

    fn is_complete(bytes: &[u8]) -> bool {
        answer(bytes).is_complete(&Framing::Http)
    }

    #[test]
    fn a_chunked_answer_is_complete_after_its_trailers_and_not_before() {
        let chunked = |rest: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
        assert!(is_complete(chunked("1\r\na\r\n0\r\nX-A: b\r\n\r\n").as_bytes()));
        assert!(is_complete(chunked("0\r\n\r\n").as_bytes()));
        assert!(!is_complete(chunked("1\r\na\r\n0\r\nX-A: b\r\n").as_bytes()));
        // The last bytes of a chunk look like the end.
        assert!(!is_complete(chunked("9\r\n0\r\n\r\n").as_bytes()));
    }

    #[test]
    fn an_interim_response_is_no_answer() {
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".as_slice();
        assert!(!is_complete(hints));
        let both = [hints, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"].concat();
        assert!(!is_complete(&both));
        assert!(is_complete(&[&both[..], b"ok"].concat()));
        assert_eq!(answer(&both).status(), Some(200));
        assert!(is_complete(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut answer = Answer::default();
        answer.set_to_head();
        answer.add(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        assert!(answer.is_complete(&Framing::Http));
        assert_eq!(Shape::of(std::iter::once(&answer)).got(&answer), Got::Whole);
    }

    #[test]
    fn a_server_can_declare_any_number() {
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n";
        assert!(matches!(answer(length.as_bytes()).http().map(|http| http.length), Some(Length::Bytes(u64::MAX))));
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\na";
        assert!(!is_complete(chunk.as_bytes()));
    }

    #[test]
    fn the_announced_time_is_read_in_any_case_and_place() {
        let keeps = |line: &str| {
            let head = format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 0\r\n\r\n");
            Http::parse(head.as_bytes(), false).and_then(|http| http.keeps)
        };
        assert_eq!(keeps("Keep-Alive: timeout=5"), Some(5));
        assert_eq!(keeps("keep-alive: max=100, Timeout=15"), Some(15));
        assert_eq!(keeps("Keep-Alive: max=100"), None);
    }

    #[test]
    fn a_shorter_answer_is_whole_if_it_ends_as_others_and_cut_if_not() {
        let shape = Shape::of([answer(b"id=77\n"), answer(b"id=95\n")].iter());
        assert_eq!(shape.got(&answer(b"id=7\n")), Got::Whole);
        assert_eq!(shape.got(&answer(b"id=123\n")), Got::Whole);
        assert_eq!(shape.got(&answer(b"id=7")), Got::Cut { bytes: 4, of: 6 });
        let same = Shape::of([answer(b"hello\n"), answer(b"hello\n")].iter());
        // Three equal answers can be followed by another one.
        assert_eq!(same.got(&answer(b"hell\n")), Got::Whole);
        assert_eq!(same.got(&answer(b"hell")), Got::Cut { bytes: 4, of: 6 });
        let one = Shape::of(std::iter::once(&answer(b"id=77\n")));
        assert_eq!(one.got(&answer(b"id=7\n")), Got::Whole);
        // It is much shorter.
        assert_eq!(one.got(&answer(b"\n")), Got::Cut { bytes: 1, of: 6 });
    }
}
