//! Heads of answers, and the chunks of a body.

use std::fmt::{Display, Write as _};
use std::time::SystemTime;

use crate::Head;

/// The answer to [`Part::Expectation`](crate::Part::Expectation).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a body in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The head of an answer.
///
/// ```
/// use finale_http::Answer;
/// let head = Answer::new(503).header("Retry-After", 1).length(0).close().into_bytes();
/// let text = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// assert_eq!(head, text.as_bytes());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Answer {
    text: String,
}

impl Answer {
    /// An answer with this status, from 100 to 999.
    pub fn new(status: u16) -> Self {
        Self { text: format!("HTTP/1.1 {status} {}\r\n", reason(status)) }
    }

    /// Adds a header. Line ends in its value become spaces: otherwise a value that comes from a
    /// client could add headers of its own.
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        let _ = write!(self.text, "{name}: ");
        let start = self.text.len();
        let _ = write!(self.text, "{value}");
        if self.text[start..].contains(['\r', '\n', '\0']) {
            let value = self.text.split_off(start).replace(['\r', '\n', '\0'], " ");
            self.text.push_str(&value);
        }
        self.text.push_str("\r\n");
        self
    }

    /// Adds `Date`, which a server with a clock sends (RFC 9110, section 6.6.1).
    pub fn date(self, now: SystemTime) -> Self {
        self.header("Date", crate::date(now))
    }

    /// The body has this many bytes. Statuses 1xx, 204 and 304 have no body and no length.
    pub fn length(self, bytes: u64) -> Self {
        self.header("Content-Length", bytes)
    }

    /// The body comes in chunks ([`chunk`], [`LAST_CHUNK`]): only in an answer to HTTP/1.1.
    pub fn chunked(self) -> Self {
        self.header("Transfer-Encoding", "chunked")
    }

    /// Adds what the client of this request has to know about its connection, which ends after
    /// this answer or not.
    pub fn connection(self, request: &Head, is_last: bool) -> Self {
        match (is_last, request.is_http10()) {
            (true, _) => self.close(),
            (false, true) => self.header("Connection", "keep-alive"),
            (false, false) => self,
        }
    }

    /// The connection ends after this answer.
    pub fn close(self) -> Self {
        self.header("Connection", "close")
    }

    /// The bytes of the head with its end.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.text.push_str("\r\n");
        self.text.into_bytes()
    }
}

/// A chunk with these bytes. An empty one would end the body, so it is no chunk at all.
///
/// ```
/// assert_eq!(finale_http::chunk(b"hello world"), b"b\r\nhello world\r\n");
/// assert_eq!(finale_http::chunk(b""), b"");
/// ```
#[must_use]
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The words of a status, as the first line of an answer has them. Empty for those not listed.
///
/// ```
/// assert_eq!(finale_http::reason(413), "Content Too Large");
/// ```
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
