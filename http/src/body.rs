//! What is left of the body of a request.

use crate::RequestError;
use crate::head::{BodyLength, Head};

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
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
pub(crate) struct Incomplete {
    pub(crate) left: Left,
    pub(crate) body: Vec<u8>,
    /// The longest body that is read.
    pub(crate) limit: u64,
    /// The bytes of its chunk extensions.
    pub(crate) extensions: usize,
    /// The client waits for `100 Continue`, and no part has said so yet.
    pub(crate) expects_continue: bool,
}

impl Incomplete {
    pub(crate) fn new(head: &Head, limit: u64) -> Self {
        let left = match head.length() {
            BodyLength::Bytes(bytes) => Left::Bytes(bytes),
            BodyLength::Chunked => Left::NextChunk,
        };
        let expects_continue = head.expects_continue();
        Self { left, body: Vec::new(), limit, extensions: 0, expects_continue }
    }

    /// Whether more bytes are declared than may come. It is known at once, so the client need not
    /// send them.
    pub(crate) const fn is_too_long(&self) -> bool {
        match self.left {
            Left::Bytes(left) | Left::Chunk(left) => left > self.limit.saturating_sub(self.body.len() as u64),
            Left::NextChunk | Left::Trailers => self.body.len() as u64 > self.limit,
        }
    }
}

/// The size of a chunk, and how long its extension is (RFC 9112, section 7.1). Digits that no size
/// needs count, too.
pub(crate) fn chunk_size(line: &[u8]) -> Result<(u64, usize), RequestError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    if !extension.is_empty() && !extension.trim_ascii_start().starts_with(b";") {
        return Err(RequestError::Syntax);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    Ok((size.ok_or(RequestError::Syntax)?, extension.len() + digits.saturating_sub(16)))
}
