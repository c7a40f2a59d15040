//! Bytes that a socket can send without copying them first.
//!
//! Invariant: what is in a buffer never changes. A shared one is one copy in memory, however many
//! sockets send it.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// What [`Socket::write_owned`](crate::Socket::write_owned) takes: a `Vec<u8>` or a `String` that
/// the program gives away, static bytes, or a range of shared bytes.
///
/// ```
/// use std::sync::Arc;
/// use finale::Buffer;
///
/// let page = Arc::new(b"HTTP/1.0 200 OK\r\n\r\nHello".to_vec());
/// let body = Buffer::shared(&page, 19..); // No copy: a thousand clients can be sent this one.
/// assert_eq!(body.as_ref(), b"Hello");
/// assert_eq!(Buffer::from("Hello").as_ref(), body.as_ref());
/// ```
#[derive(Clone)]
pub struct Buffer(Held);

#[derive(Clone)]
enum Held {
    Vec(Vec<u8>),
    Static(&'static [u8]),
    Shared { all: Arc<Vec<u8>>, from: usize, to: usize },
}

impl Buffer {
    /// A part of shared bytes, for instance `..` for all. The whole of `all` stays in memory until
    /// this part is sent or dropped.
    ///
    /// # Panics
    /// If the range begins after its end or exceeds the bytes, like an index.
    #[must_use]
    pub fn shared(all: &Arc<Vec<u8>>, range: impl RangeBounds<usize>) -> Self {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => all.len(),
        };
        assert!(from <= to && to <= all.len(), "bytes {from} to {to} of {}", all.len());
        Self(Held::Shared { all: Arc::clone(all), from, to })
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns unused capacity to the allocator, which usually shrinks the allocation in place.
    pub(crate) fn shrink(&mut self) {
        if let Held::Vec(bytes) = &mut self.0 {
            bytes.shrink_to_fit();
        }
    }

    /// The memory that it owns or shares.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        match &self.0 {
            Held::Vec(bytes) => bytes.capacity(),
            Held::Static(_) | Held::Shared { .. } => self.len(),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Held::Vec(bytes) => bytes,
            Held::Static(bytes) => bytes,
            Held::Shared { all, from, to } => &all[*from..*to],
        }
    }
}

impl fmt::Debug for Buffer {
    /// The kind and the length; the bytes may be many, and are omitted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Held::Vec(_) => "owned",
            Held::Static(_) => "static",
            Held::Shared { .. } => "shared",
        };
        write!(f, "Buffer({} bytes, {kind})", self.len())
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Held::Vec(bytes))
    }
}

impl From<String> for Buffer {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl From<&'static [u8]> for Buffer {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Held::Static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Buffer {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self(Held::Static(bytes))
    }
}

impl From<&'static str> for Buffer {
    fn from(text: &'static str) -> Self {
        Self(Held::Static(text.as_bytes()))
    }
}

impl From<Arc<Vec<u8>>> for Buffer {
    fn from(all: Arc<Vec<u8>>) -> Self {
        let to = all.len();
        Self(Held::Shared { all, from: 0, to })
    }
}

#[cfg(test)]
mod tests;
