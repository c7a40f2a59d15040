//! The parser of requests.
//!
//! Invariant: each byte is examined a fixed number of times, so parsing costs time in proportion
//! to the input. Between two requests no memory is held.

use std::ops::Range;

use crate::RequestError;
use crate::body::{Incomplete, Left, chunk_size};
use crate::head::{HEADERS, Head};

/// What a request may have at most.
///
/// ```
/// use finale_http::{Limits, Parser};
/// let parser = Parser::new(Limits { body_bytes: 64 * 1024, ..Limits::default() });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest head, and all trailers and chunk extensions of one body. Default 16 KiB: a
    /// browser with many cookies sends some 8 KiB. It has at most 64 headers.
    pub head_bytes: usize,
    /// The longest body, unless [`Parser::limit_body`] sets another limit. Default 1 MiB.
    pub body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 16 * 1024, body_bytes: 1024 * 1024 }
    }
}

/// What the parser finds next: for each request its head and then its body.
///
/// ```
/// use finale_http::{Parser, Part};
/// let mut parser = Parser::default();
/// parser.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
/// assert!(matches!(parser.next(), Ok(Some(Part::Head(_)))));
/// assert_eq!(parser.next(), Ok(Some(Part::Body(Vec::new()))));
/// assert_eq!(parser.next(), Ok(None));
/// ```
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A head. A server that refuses the request answers now, ends, and reads no further part.
    Head(Head),
    /// The client waits for [`CONTINUE`](crate::CONTINUE) before it sends the body.
    Expectation,
    /// The whole body of the last head: empty, if the request has none.
    Body(Vec<u8>),
}

/// The input of one connection that was not parsed yet.
///
/// ```
/// use finale_http::{Parser, RequestError};
/// let mut parser = Parser::default();
/// parser.push(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
/// assert_eq!(parser.next(), Err(RequestError::Syntax), "its end could be found in two places");
/// ```
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
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
    /// A parser with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds bytes that have arrived. It keeps what [`next`](Self::next) has not taken, so a server
    /// that does not call it reads no more.
    pub fn push(&mut self, bytes: &[u8]) {
        // Only when this moves fewer bytes than were taken, so that it costs no more than parsing.
        if self.start > self.input.len() / 2 {
            self.input.drain(..self.start);
            (self.line, self.searched) = (self.line - self.start, self.searched - self.start);
            self.start = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Sets the limit on the body of the request whose head was found last.
    pub const fn limit_body(&mut self, bytes: u64) {
        if let Some(request) = &mut self.request {
            request.limit = bytes;
        }
    }

    /// Whether no byte of a further request has arrived.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.start == self.input.len() && self.request.is_none()
    }

    /// Whether bytes of the next request, or empty lines before it, have arrived.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.has_empty_lines || !self.is_between_requests()
    }

    /// The next part; `None` if it is not complete yet.
    ///
    /// # Errors
    /// If the request is refused. Further calls mean nothing: answer with
    /// [`RequestError::status`], end, and drop what still arrives.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and continues after None")]
    pub fn next(&mut self) -> Result<Option<Part>, RequestError> {
        let Some(mut request) = self.request.take() else { return self.next_head() };
        if request.is_too_long() {
            return Err(RequestError::BodyTooLong);
        }
        let expects_continue = std::mem::take(&mut request.expects_continue);
        if expects_continue || !self.body(&mut request)? {
            self.request = Some(request);
            return Ok(expects_continue.then_some(Part::Expectation));
        }
        if self.start == self.input.len() {
            // An idle connection holds no memory.
            *self = Self::new(self.limits);
        }
        Ok(Some(Part::Body(request.body)))
    }

    fn next_head(&mut self) -> Result<Option<Part>, RequestError> {
        let Some(length) = self.head_length()? else { return Ok(None) };
        let head = Head::read(&self.input[self.start..self.start + length])?;
        self.take(length);
        self.has_empty_lines = false;
        self.request = Some(Incomplete::new(&head, self.limits.body_bytes));
        Ok(Some(Part::Head(head)))
    }

    /// The length of the next head. Empty lines before it are skipped (RFC 9112, section 2.2).
    fn head_length(&mut self) -> Result<Option<usize>, RequestError> {
        let line = |parser: &mut Self| match parser.line() {
            Err(RequestError::HeadTooLong) if parser.line == parser.start => Err(RequestError::TargetTooLong),
            found => found,
        };
        while let Some(line) = line(self)? {
            if line.is_empty() && line.start > self.start {
                return Ok(Some(self.searched - self.start));
            }
            if line.is_empty() {
                self.take(self.searched - self.start);
                self.has_empty_lines = true;
            } else if line.start == self.start {
                // Another protocol is refused now: its client may wait for an answer to this line.
                httparse::Request::new(&mut []).parse(&self.input[self.start..self.searched])?;
            }
        }
        Ok(None)
    }

    /// The next line without its end, which is a CR and an LF. Any other use of these two and of
    /// control characters is refused: other programs may take it for the end of a line.
    fn line(&mut self) -> Result<Option<Range<usize>>, RequestError> {
        while let Some(byte) = self.input.get(self.searched).copied() {
            if self.searched - self.start == self.limits.head_bytes {
                return Err(RequestError::HeadTooLong);
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
                _ => return Err(RequestError::Syntax),
            }
        }
        Ok(None)
    }

    const fn take(&mut self, bytes: usize) {
        self.start += bytes;
        (self.line, self.searched) = (self.start, self.start);
    }

    /// Takes what has arrived of a body. Returns whether it is complete.
    fn body(&mut self, request: &mut Incomplete) -> Result<bool, RequestError> {
        loop {
            match request.left {
                Left::Bytes(0) => return Ok(true),
                Left::Bytes(left) | Left::Chunk(left) if left > 0 => {
                    let arrived = &self.input[self.start..];
                    let now = arrived.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if now == 0 {
                        return Ok(false);
                    }
                    request.body.extend_from_slice(&arrived[..now]);
                    self.take(now);
                    request.left = match request.left {
                        Left::Bytes(_) => Left::Bytes(left - now as u64),
                        _ => Left::Chunk(left - now as u64),
                    };
                }
                Left::Bytes(_) | Left::Chunk(_) => match self.input.get(self.start..self.start + 2) {
                    None => return Ok(false),
                    Some(b"\r\n") => {
                        self.take(2);
                        request.left = Left::NextChunk;
                    }
                    Some(_) => return Err(RequestError::Syntax),
                },
                Left::NextChunk => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    let (size, extension) = chunk_size(&self.input[line])?;
                    request.extensions += extension;
                    if request.extensions > self.limits.head_bytes {
                        return Err(RequestError::HeadTooLong);
                    }
                    self.take(self.searched - self.start);
                    request.left = if size == 0 { Left::Trailers } else { Left::Chunk(size) };
                    if request.is_too_long() {
                        return Err(RequestError::BodyTooLong);
                    }
                }
                Left::Trailers => {
                    let Some(line) = self.line()? else { return Ok(false) };
                    if line.is_empty() {
                        let trailers = &self.input[self.start..self.searched];
                        httparse::parse_headers(trailers, &mut [httparse::EMPTY_HEADER; HEADERS])?;
                        self.take(self.searched - self.start);
                        request.left = Left::Bytes(0);
                    }
                }
            }
        }
    }
}
