//! The parser of requests.
//!
//! Invariant: a part is taken only when it is complete, so a request means the same however it was
//! cut into pieces.

/// Longer heads are refused: a browser with many cookies sends some 8 KiB.
const HEAD_BYTES: usize = 16 * 1024;
/// The longest body that is read.
pub(crate) const BODY_BYTES: u64 = 1024 * 1024;
const HEADERS: usize = 64;

/// The parts of a request's head that this server uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) path: String,
    /// The client may send another request on this connection.
    pub(crate) keep_alive: bool,
    pub(crate) body: Body,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Bytes(u64),
    /// In chunks: the bytes left of the present one.
    Chunk(u64),
    /// In chunks, between two of them.
    NextChunk,
    /// In chunks, after the last one: trailers are left.
    Trailers,
}

/// Why a request can't be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is not HTTP/1.
    Syntax,
    /// Its head is too long.
    HeadTooLong,
    /// Its body has an encoding that is not known here.
    Encoding,
}

impl Head {
    /// Takes the next head from `input`; `None` if it is not complete yet.
    pub(crate) fn take(input: &mut Vec<u8>) -> Result<Option<Self>, Bad> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let length = match parsed.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Bad::HeadTooLong),
            Err(_) => return Err(Bad::Syntax),
        };
        let head = Self::read(&parsed)?;
        input.drain(..length);
        Ok(Some(head))
    }

    fn read(parsed: &httparse::Request<'_, '_>) -> Result<Self, Bad> {
        let values = |name: &'static str| {
            parsed
                .headers
                .iter()
                .filter(move |header| header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value)
        };
        let says = |name, word: &str| {
            let is_it = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes());
            values(name).any(|value| value.split(|byte| *byte == b',').any(is_it))
        };
        // Two lengths are an error: they are a way to smuggle requests (RFC 9112, section 6.3).
        let mut lengths = values("content-length");
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Bad::Syntax)?)
            }
            (Some(_), _) => return Err(Bad::Syntax),
        };
        let mut codings = values("transfer-encoding");
        let body = match (codings.next(), codings.next(), length) {
            (None, _, length) => Body::Bytes(length.unwrap_or(0)),
            // Both headers are an error, and so is an encoding in HTTP/1.0 (section 6.1).
            (Some(_), _, Some(_)) => return Err(Bad::Syntax),
            (Some(_), _, None) if parsed.version != Some(1) => return Err(Bad::Syntax),
            (Some(coding), None, None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => Body::NextChunk,
            (Some(_), _, None) => return Err(Bad::Encoding),
        };
        let keep_alive = match parsed.version {
            Some(1) => !says("connection", "close"),
            _ => says("connection", "keep-alive"),
        };
        Ok(Self {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: parsed.path.unwrap_or_default().to_owned(),
            keep_alive,
            body,
            expects_continue: says("expect", "100-continue"),
        })
    }
}

impl Body {
    /// Whether nothing is left of it.
    pub(crate) const fn is_whole(self) -> bool {
        matches!(self, Self::Bytes(0))
    }

    /// Moves the part of the body that has arrived from `input` to `body`.
    pub(crate) fn take(&mut self, input: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<(), Bad> {
        loop {
            match self {
                Self::Bytes(left) | Self::Chunk(left) if *left > 0 => {
                    if input.is_empty() {
                        return Ok(());
                    }
                    let now = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    body.extend(input.drain(..now));
                    *left -= now as u64;
                }
                Self::Bytes(_) => return Ok(()),
                Self::Chunk(_) => match input.get(..2) {
                    None => return Ok(()),
                    Some(b"\r\n") => {
                        input.drain(..2);
                        *self = Self::NextChunk;
                    }
                    Some(_) => return Err(Bad::Syntax),
                },
                Self::NextChunk => match httparse::parse_chunk_size(input) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        input.drain(..length);
                        *self = if size == 0 { Self::Trailers } else { Self::Chunk(size) };
                    }
                    Ok(httparse::Status::Partial) if input.len() < 64 => return Ok(()),
                    Ok(httparse::Status::Partial) | Err(_) => return Err(Bad::Syntax),
                },
                Self::Trailers => match input.windows(2).position(|pair| pair == b"\r\n") {
                    Some(0) => {
                        input.drain(..2);
                        *self = Self::Bytes(0);
                    }
                    Some(line) => drop(input.drain(..line + 2)),
                    None if input.len() < HEAD_BYTES => return Ok(()),
                    None => return Err(Bad::HeadTooLong),
                },
            }
        }
    }
}
