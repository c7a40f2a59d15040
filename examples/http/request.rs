//! The parser of requests (RFC 9112).
//!
//! Invariant: bytes are judged in their order, and each decision depends only on the bytes before
//! it. So a request means the same however it was cut into pieces. Each byte is looked at a fixed
//! number of times, so parsing costs time in proportion to the input.

use std::ops::Range;

/// Longer heads are refused: a browser with many cookies sends some 8 KiB. It also limits all
/// trailers and chunk extensions of one body.
const HEAD_BYTES: usize = 16 * 1024;
/// The longest body that is read.
const BODY_BYTES: u64 = 1024 * 1024;
const HEADERS: usize = 64;

/// The parts of a request's head that this server uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// The client may send another request on this connection.
    pub(crate) keep_alive: bool,
    /// HTTP/1.0, in which the connection ends after an answer unless the answer says otherwise.
    pub(crate) is_http10: bool,
}

/// What the parser finds next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The client waits for `100 Continue` before it sends the body.
    Expectation,
    /// A complete request with its body.
    Request(Head, Vec<u8>),
}

/// Why a request is refused, after which its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is not HTTP, or two readers could understand it differently.
    Syntax,
    /// Its version is not 1.0 or 1.1.
    Version,
    /// Its first line is too long.
    TargetTooLong,
    /// Its head or its trailers are too long.
    HeadTooLong,
    BodyTooLong,
    /// Its body has an encoding that is not known here.
    Encoding,
}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    /// In chunks: the bytes left of the present one.
    Chunk(u64),
    /// In chunks, between two of them.
    NextChunk,
    /// In chunks, after the last one: trailers are left.
    Trailers,
}

/// A request whose body is incomplete.
#[derive(Debug)]
struct Incomplete {
    head: Head,
    left: Body,
    body: Vec<u8>,
    /// The bytes of its chunk extensions.
    extensions: usize,
}

/// The input of one connection that was not parsed yet.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    input: Vec<u8>,
    /// The first byte that was not taken: the present part begins here.
    start: usize,
    /// The first byte of the line that is searched for its end, and the first byte not searched.
    line: usize,
    searched: usize,
    request: Option<Incomplete>,
    /// Empty lines came before the next request.
    has_empty_lines: bool,
}

impl Parser {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // Only when this moves fewer bytes than were taken, so that it costs no more than parsing.
        if self.start > self.input.len() / 2 {
            self.input.drain(..self.start);
            (self.line, self.searched) = (self.line - self.start, self.searched - self.start);
            self.start = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Whether no byte of a further request has arrived.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.start == self.input.len() && self.request.is_none()
    }

    /// Whether bytes of the next request, or empty lines before it, have arrived.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_empty_lines || !self.is_between_requests()
    }

    /// The next part; `None` if it is not complete yet.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, Bad> {
        if self.request.is_none() {
            let Some(head) = self.head_length()? else { return Ok(None) };
            let (request, expects_continue) = Incomplete::read(&self.input[self.start..self.start + head])?;
            self.take(head);
            self.has_empty_lines = false;
            self.request = Some(request);
            if expects_continue {
                return Ok(Some(Part::Expectation));
            }
        }
        let Some(mut request) = self.request.take() else { return Ok(None) };
        if !self.body(&mut request)? {
            self.request = Some(request);
            return Ok(None);
        }
        if self.start == self.input.len() {
            // An idle connection holds no memory.
            *self = Self::default();
        }
        Ok(Some(Part::Request(request.head, request.body)))
    }

    /// The length of the next head. Empty lines before it are skipped (RFC 9112, section 2.2).
    fn head_length(&mut self) -> Result<Option<usize>, Bad> {
        let line = |parser: &mut Self| match parser.line() {
            Err(Bad::HeadTooLong) if parser.line == parser.start => Err(Bad::TargetTooLong),
            found => found,
        };
        while let Some(line) = line(self)? {
            if line.is_empty() && line.start > self.start {
                return Ok(Some(self.searched - self.start));
            }
            if line.is_empty() {
                self.take(self.searched - self.start);
                self.has_empty_lines = true;
            }
        }
        Ok(None)
    }

    /// The next line without its end, which is a CR and an LF. Any other use of these two and of
    /// control characters is refused: other programs may take it for the end of a line.
    fn line(&mut self) -> Result<Option<Range<usize>>, Bad> {
        while let Some(byte) = self.input.get(self.searched).copied() {
            if self.searched - self.start == HEAD_BYTES {
                return Err(Bad::HeadTooLong);
            }
            let follows_cr = self.searched > self.line && self.input[self.searched - 1] == b'\r';
            self.searched += 1;
            match byte {
                b'\n' if follows_cr => {
                    let line = self.line..self.searched - 2;
                    self.line = self.searched;
                    return Ok(Some(line));
                }
                b'\r' | b'\t' | b' '..=b'~' | 0x80.. if !follows_cr => {}
                _ => return Err(Bad::Syntax),
            }
        }
        Ok(None)
    }

    fn take(&mut self, bytes: usize) {
        self.start += bytes;
        (self.line, self.searched) = (self.start, self.start);
    }

    /// Takes what has arrived of a body. Returns whether it is complete.
    fn body(&mut self, request: &mut Incomplete) -> Result<bool, Bad> {
        loop {
            match request.left {
                Body::Bytes(0) => return Ok(true),
                Body::Chunk(left) if left > BODY_BYTES - request.body.len() as u64 => return Err(Bad::BodyTooLong),
                Body::Bytes(left) | Body::Chunk(left) if left > 0 => {
                    let arrived = &self.input[self.start..];
                    let now = arrived.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if now == 0 {
                        return Ok(false);
                    }
                    request.body.extend_from_slice(&arrived[..now]);
                    self.take(now);
                    request.left = match request.left {
                        Body::Bytes(_) => Body::Bytes(left - now as u64),
                        _ => Body::Chunk(left - now as u64),
                    };
                }
                Body::Bytes(_) | Body::Chunk(_) => match self.input.get(self.start..self.start + 2) {
                    None => return Ok(false),
                    Some(b"\r\n") => {
                        self.take(2);
                        request.left = Body::NextChunk;
                    }
                    Some(_) => return Err(Bad::Syntax),
                },
                Body::NextChunk => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    let (size, extension) = chunk_size(&self.input[line])?;
                    request.extensions += extension;
                    if request.extensions > HEAD_BYTES {
                        return Err(Bad::HeadTooLong);
                    }
                    self.take(self.searched - self.start);
                    request.left = if size == 0 { Body::Trailers } else { Body::Chunk(size) };
                }
                Body::Trailers => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    if line.is_empty() {
                        let trailers = &self.input[self.start..self.searched];
                        httparse::parse_headers(trailers, &mut [httparse::EMPTY_HEADER; HEADERS])?;
                        self.take(self.searched - self.start);
                        request.left = Body::Bytes(0);
                    }
                }
            }
        }
    }
}

/// The size of a chunk, and how long its extension is (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Bad> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if !extension.is_empty() && !extension.trim_ascii_start().starts_with(b";") {
        return Err(Bad::Syntax);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    Ok((size.ok_or(Bad::Syntax)?, extension.len()))
}

impl Incomplete {
    /// Reads a complete head. Returns also whether the client waits for `100 Continue`.
    fn read(bytes: &[u8]) -> Result<(Self, bool), Bad> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        if parsed.parse(bytes)?.is_partial() {
            return Err(Bad::Syntax);
        }
        let is_http10 = parsed.version == Some(0);
        let has = |name, word: &str| {
            let is_it = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
            values(&parsed, name).any(|value| value.split(|byte| *byte == b',').any(is_it))
        };
        // Exactly one, but HTTP/1.0 has clients without it (RFC 9112, section 3.2).
        let mut hosts = values(&parsed, "host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if host.is_empty() || is_host(host) => {}
            (None, _) if is_http10 => {}
            _ => return Err(Bad::Syntax),
        }
        let left = body(&parsed)?;
        if matches!(left, Body::Bytes(length) if length > BODY_BYTES) {
            return Err(Bad::BodyTooLong); // At once: the client need not send it.
        }
        let keep_alive = !has("connection", "close") && (!is_http10 || has("connection", "keep-alive"));
        let path = path(parsed.path.unwrap_or_default()).ok_or(Bad::Syntax)?.to_owned();
        let head = Head { method: parsed.method.unwrap_or_default().to_owned(), path, keep_alive, is_http10 };
        let expects_continue = left != Body::Bytes(0) && !is_http10 && has("expect", "100-continue");
        Ok((Self { head, left, body: Vec::new(), extensions: 0 }, expects_continue))
    }
}

/// The values of all headers of this name.
fn values<'a>(parsed: &'a httparse::Request<'_, '_>, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    parsed.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Which body follows. Everything by which two servers could find different ends of it is refused:
/// it is a way to smuggle requests (RFC 9112, sections 6.1 and 6.3).
fn body(parsed: &httparse::Request<'_, '_>) -> Result<Body, Bad> {
    let mut lengths = values(parsed, "content-length");
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            // Only a number that is too large is no number.
            Some(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
        }
        (Some(_), _) => return Err(Bad::Syntax),
    };
    let mut codings = values(parsed, "transfer-encoding");
    match (codings.next(), codings.next(), length) {
        (None, _, length) => Ok(Body::Bytes(length.unwrap_or(0))),
        // Both headers are an error, and so is an encoding in HTTP/1.0.
        (Some(_), _, Some(_)) => Err(Bad::Syntax),
        (Some(_), _, None) if parsed.version != Some(1) => Err(Bad::Syntax),
        (Some(coding), None, None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(Body::NextChunk),
        (Some(_), _, None) => Err(Bad::Encoding),
    }
}

/// The path of a request target without its query: of `/path?query`, of `http://host/path` (which
/// clients send to proxies, and every server must accept: RFC 9112, section 3.2.2), and `*`.
fn path(target: &str) -> Option<&str> {
    let scheme = "http://";
    let path = match target.get(..scheme.len()) {
        Some(start) if start.eq_ignore_ascii_case(scheme) => {
            let rest = &target[scheme.len()..];
            let host = rest.find(['/', '?']).unwrap_or(rest.len());
            if !is_host(&rest.as_bytes()[..host]) {
                return None;
            }
            if rest[host..].starts_with('/') { &rest[host..] } else { "/" }
        }
        _ if target.starts_with('/') || target == "*" => target,
        _ => return None,
    };
    path.split('?').next()
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

impl From<httparse::Error> for Bad {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::HeadTooLong,
            httparse::Error::Version => Self::Version,
            _ => Self::Syntax,
        }
    }
}
