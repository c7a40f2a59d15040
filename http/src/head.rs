//! The head of a request.

use std::fmt;
use std::ops::Range;

use crate::RequestError;

/// Headers of one request, or trailers of one body. Further ones are refused.
pub(crate) const HEADERS: usize = 64;

/// The head of a request: its method, its target and its headers.
///
/// ```
/// use finale_http::{BodyLength, Parser, Part};
/// let mut parser = Parser::default();
/// parser.push(b"PUT /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
/// let Ok(Some(Part::Head(head))) = parser.next() else { panic!("it is complete") };
/// assert_eq!((head.method(), head.path(), head.query()), ("PUT", "/a", "b=c"));
/// assert_eq!((head.value("HOST"), head.length()), (Some("x"), BodyLength::Bytes(3)));
/// assert!(!head.keep_alive());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// The whole head: the ranges are places in it.
    bytes: Box<[u8]>,
    method: Range<usize>,
    path: Range<usize>,
    query: Range<usize>,
    headers: Box<[(Range<usize>, Range<usize>)]>,
    length: BodyLength,
    is_http10: bool,
}

/// How long the body of a request is.
///
/// ```
/// # use finale_http::BodyLength;
/// assert!(BodyLength::Bytes(0).is_empty() && !BodyLength::Chunked.is_empty());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyLength {
    /// This many bytes. Without a `Content-Length` it is 0.
    Bytes(u64),
    /// It comes in chunks: its end shows the length.
    Chunked,
}

impl BodyLength {
    /// Whether no body follows the head.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Bytes(0))
    }
}

impl Head {
    /// Reads a complete head.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, RequestError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        if parsed.parse(bytes)?.is_partial() {
            return Err(RequestError::Syntax);
        }
        let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
        // The parser also takes UTF-8 for a target; RFC 9112 section 3.2 does not.
        let (path, query) = split(target).filter(|_| target.is_ascii()).ok_or(RequestError::Syntax)?;
        let named = parsed.headers.iter();
        let head = Self {
            bytes: bytes.into(),
            method: place(bytes, method.as_bytes()),
            path: place(bytes, path.as_bytes()),
            query: place(bytes, query.as_bytes()),
            headers: named.map(|it| (place(bytes, it.name.as_bytes()), place(bytes, it.value))).collect(),
            length: BodyLength::Bytes(0),
            is_http10: parsed.version == Some(0),
        };
        head.check_host()?;
        Ok(Self { length: head.find_length()?, ..head })
    }

    /// The method, as it was sent: methods are case-sensitive.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text(&self.method)
    }

    /// The path of the target: of `/path?query`, of `http://host/path` (which clients send to
    /// proxies, and every server must accept: RFC 9112, section 3.2.2), and `*`. It is not decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        match self.text(&self.path) {
            "" => "/",
            path => path,
        }
    }

    /// What follows the `?` of the target. Empty without one.
    #[must_use]
    pub fn query(&self) -> &str {
        self.text(&self.query)
    }

    /// The values of all headers of this name, in any case of letters.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let all = self.headers.iter().filter(move |header| self.text(&header.0).eq_ignore_ascii_case(name));
        all.map(|(_, value)| &self.bytes[value.clone()])
    }

    /// The value of the only header of this name, if it is text.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        let value = values.next().filter(|_| values.next().is_none())?;
        std::str::from_utf8(value).ok()
    }

    /// Whether a header is a list that has this word, in any case of letters.
    #[must_use]
    pub fn has(&self, name: &str, word: &str) -> bool {
        let is_it = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
        self.values(name).any(|value| value.split(|byte| *byte == b',').any(is_it))
    }

    /// How long the body is.
    #[must_use]
    pub const fn length(&self) -> BodyLength {
        self.length
    }

    /// The client may send another request on this connection.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.has("connection", "close") && (!self.is_http10 || self.has("connection", "keep-alive"))
    }

    /// HTTP/1.0, in which the connection ends after an answer unless the answer says otherwise, and
    /// which has no chunks.
    #[must_use]
    pub const fn is_http10(&self) -> bool {
        self.is_http10
    }

    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        !self.length.is_empty() && !self.is_http10 && self.has("expect", "100-continue")
    }

    /// All of it is ASCII, as the parser has checked.
    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.bytes[range.clone()]).unwrap_or_default()
    }

    /// Exactly one, but HTTP/1.0 has clients without it (RFC 9112, section 3.2).
    fn check_host(&self) -> Result<(), RequestError> {
        let mut hosts = self.values("host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if host.is_empty() || is_host(host) => Ok(()),
            (None, _) if self.is_http10 => Ok(()),
            _ => Err(RequestError::Syntax),
        }
    }

    /// Which body follows. Everything by which two servers could find different ends of it is
    /// refused: it is a way to smuggle requests (RFC 9112, sections 6.1 and 6.3).
    fn find_length(&self) -> Result<BodyLength, RequestError> {
        let mut lengths = self.values("content-length");
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                // Only a number that is too large is no number.
                Some(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
            }
            (Some(_), _) => return Err(RequestError::Syntax),
        };
        let mut codings = self.values("transfer-encoding");
        match (codings.next(), codings.next(), length) {
            (None, _, length) => Ok(BodyLength::Bytes(length.unwrap_or(0))),
            // Both headers are an error, and so is an encoding in HTTP/1.0.
            (Some(_), _, Some(_)) => Err(RequestError::Syntax),
            (Some(_), _, None) if self.is_http10 => Err(RequestError::Syntax),
            (Some(coding), None, None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
                Ok(BodyLength::Chunked)
            }
            (Some(_), _, None) => Err(RequestError::Encoding),
        }
    }
}

/// The first line and the names of the headers: a value may be a secret.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| self.text(name)).collect();
        write!(f, "Head({} {} {:?} {names:?})", self.method(), self.path(), self.length)
    }
}

/// Where a part of these bytes is in them.
fn place(bytes: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize).min(bytes.len());
    start..(start + part.len()).min(bytes.len())
}

/// The path and the query of a request target. The path is empty if the target has none.
fn split(target: &str) -> Option<(&str, &str)> {
    let scheme = |scheme: &str| target.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme));
    let local = match scheme("http://").or_else(|| scheme("https://")) {
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let host = rest.find(['/', '?']).unwrap_or(rest.len());
            if !is_host(&rest.as_bytes()[..host]) {
                return None;
            }
            &rest[host..]
        }
        None if target.starts_with('/') || target == "*" => target,
        None => return None,
    };
    Some(local.split_once('?').unwrap_or((local, &local[local.len()..])))
}

/// Whether this is a host with or without a port (RFC 3986, section 3.2.2).
fn is_host(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, ""),
    };
    let is_in = |text: &str, more: &str| text.chars().all(|it| it.is_ascii_alphanumeric() || more.contains(it));
    let is_name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => is_in(address, ":."),
        None => is_in(name, "-._~%!$&'()*+,;="),
    };
    !name.is_empty() && is_name && port.bytes().all(|digit| digit.is_ascii_digit())
}
