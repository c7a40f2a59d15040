//! Bytes that wait for the kernel: what was copied, in chunks of our own, and what was given away, as it came.
//!
//! Invariant: no chunk is empty but the first, and that one only if nothing waits; then it has no room either. A chunk that was sent is let go at once,
//! and one that is no longer the last has no room left over, except the first: so what a queue holds is what it owes and at
//! most a chunk more at either end.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::buffer::Buffer;

/// Chunks of our own are of this size, or smaller while they are filled: what the kernel does for one piece more of a
/// vectored write does not count beside copying 16 KiB twice, and little is held for a few bytes.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;

/// Spare chunks kept for the next queues: 1 MiB in reserve at the most.
const SPARES: usize = 64;

/// A buffer that was given away is copied nevertheless if it is smaller than this: one piece more in a vectored write, and a
/// buffer to be freed, were measured to cost as much as copying so many bytes.
pub(crate) const COPY_BELOW_BYTES: usize = 2 * 1024;

/// Pieces of one vectored write at the most. So many chunks of ours are a turn's quantum, and the list takes 1 KiB of the
/// stack; the kernel would take 1024 (UIO_MAXIOV).
pub(crate) const PIECES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    /// In the entry itself: most queues have one chunk.
    first: Chunk,
    /// How much of the first chunk was sent.
    sent: usize,
    /// What waits in all.
    bytes: usize,
    /// What follows the first chunk.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    chunks: VecDeque<Chunk>,
}

#[derive(Debug)]
enum Chunk {
    /// What was copied; the buffer comes from the spares and goes back to them.
    Copied(Vec<u8>),
    Given(Buffer),
}

impl WriteQueue {
    /// Bytes that wait.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.bytes
    }

    /// All that waits, if it is in one piece.
    #[inline]
    pub(crate) fn single(&self) -> Option<&[u8]> {
        let single = self.rest.as_ref().is_none_or(|rest| rest.chunks.is_empty());
        single.then(|| &self.first.bytes()[self.sent..])
    }

    /// Lists what waits, `limit_bytes` and `PIECES` pieces of it at the most. Answers how many pieces and bytes that is.
    pub(crate) fn gather<'a>(&'a self, pieces: &mut [IoSlice<'a>; PIECES], limit_bytes: usize) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        let rest = self.rest.iter().flat_map(|rest| &rest.chunks).map(Chunk::bytes);
        for piece in std::iter::once(&self.first.bytes()[self.sent..]).chain(rest).take(PIECES) {
            let piece = &piece[..piece.len().min(limit_bytes - bytes)];
            if piece.is_empty() {
                break;
            }
            pieces[count] = IoSlice::new(piece);
            count += 1;
            bytes += piece.len();
        }
        (count, bytes)
    }

    /// Queues bytes by copying them.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8], spares: &mut Spares) {
        if self.bytes == 0 {
            self.first = Chunk::Copied(spares.take());
        }
        self.bytes += bytes.len();
        if self.rest.is_none()
            && let Chunk::Copied(chunk) = &mut self.first
            && bytes.len() <= chunk.capacity() - chunk.len()
        {
            return chunk.extend_from_slice(bytes);
        }
        self.push_apart(bytes, spares);
    }

    /// The same where there is no room yet: the last chunk grows, and more of them follow.
    #[inline(never)]
    fn push_apart(&mut self, mut bytes: &[u8], spares: &mut Spares) {
        while !bytes.is_empty() {
            match self.last() {
                Chunk::Copied(chunk) if chunk.len() < CHUNK_BYTES => {
                    let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - chunk.len()));
                    grow(chunk, now.len());
                    chunk.extend_from_slice(now);
                    bytes = later;
                }
                Chunk::Copied(_) | Chunk::Given(_) => self.append(Chunk::Copied(spares.take())),
            }
        }
    }

    /// Queues a buffer as it is, unless copying it is cheaper.
    pub(super) fn push_given(&mut self, mut buffer: Buffer, spares: &mut Spares) {
        if buffer.len() < COPY_BELOW_BYTES {
            return self.push(buffer.as_ref(), spares);
        }
        self.bytes += buffer.len();
        buffer.shrink();
        if self.first.bytes().is_empty() {
            return spares.put(std::mem::replace(&mut self.first, Chunk::Given(buffer)));
        }
        if let Some(Chunk::Copied(last)) = self.rest.as_mut().and_then(|rest| rest.chunks.back_mut())
            && last.len() < last.capacity()
        {
            // It would keep its room for nothing until everything before it is sent.
            let filled = last.as_slice().into();
            spares.put(Chunk::Copied(std::mem::replace(last, filled)));
        }
        self.append(Chunk::Given(buffer));
    }

    /// So many bytes were sent.
    #[inline]
    pub(super) fn sent(&mut self, bytes: usize, spares: &mut Spares) {
        debug_assert!(bytes <= self.bytes, "no more is sent than waits");
        self.bytes -= bytes;
        self.sent += bytes;
        if self.bytes == 0 && self.rest.is_none() {
            // A short answer, sent at once: the usual case.
            spares.put(std::mem::take(&mut self.first));
            self.sent = 0;
        } else if self.sent >= self.first.bytes().len() {
            self.advance(spares);
        }
    }

    /// Lets the chunks go that were sent.
    fn advance(&mut self, spares: &mut Spares) {
        let whole = |first: &Chunk, sent: usize| sent >= first.bytes().len();
        while whole(&self.first, self.sent)
            && let Some(rest) = &mut self.rest
            && let Some(next) = rest.chunks.pop_front()
        {
            self.sent -= self.first.bytes().len();
            spares.put(std::mem::replace(&mut self.first, next));
        }
        if self.bytes > 0 {
            return;
        }
        self.sent = 0;
        spares.put(std::mem::take(&mut self.first));
        if self.rest.as_ref().is_some_and(|rest| rest.chunks.capacity() > 2 * PIECES) {
            self.rest = None;
        }
    }

    /// Gives everything back.
    #[inline]
    pub(super) fn release(&mut self, spares: &mut Spares) {
        spares.put(std::mem::take(&mut self.first));
        (self.sent, self.bytes) = (0, 0);
        if let Some(rest) = self.rest.take() {
            rest.chunks.into_iter().for_each(|chunk| spares.put(chunk));
        }
    }

    fn last(&mut self) -> &mut Chunk {
        self.rest.as_mut().and_then(|rest| rest.chunks.back_mut()).unwrap_or(&mut self.first)
    }

    fn append(&mut self, chunk: Chunk) {
        self.rest.get_or_insert_default().chunks.push_back(chunk);
    }

    /// The first rule of a queue that is broken, in words.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let rest = || self.rest.iter().flat_map(|rest| &rest.chunks);
        let all = self.first.bytes().len() + rest().map(|chunk| chunk.bytes().len()).sum::<usize>();
        let rules = [
            (all != self.sent + self.bytes, "its queue's chunks are not what waits and what was sent"),
            (rest().any(|chunk| chunk.bytes().is_empty()), "its queue has an empty chunk"),
            (self.sent > 0 && self.sent >= self.first.bytes().len(), "its queue holds a chunk that was sent"),
        ];
        rules.iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, rule)| Err(*rule))
    }
}

/// Room for so many bytes more: twice as much as there was, but no more than a chunk has.
fn grow(chunk: &mut Vec<u8>, more: usize) {
    if chunk.capacity() - chunk.len() < more {
        let capacity = (2 * chunk.capacity()).max(chunk.len() + more).min(CHUNK_BYTES);
        chunk.reserve_exact(capacity - chunk.len());
    }
}

impl Chunk {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Given(buffer) => buffer.as_ref(),
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self::Copied(Vec::new())
    }
}

/// Chunks that nobody needs now, empty, so that in the steady state nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Vec<u8>>);

impl Spares {
    #[inline]
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps a chunk of ours, if it is worth keeping; a buffer that was given away is freed.
    #[inline]
    fn put(&mut self, chunk: Chunk) {
        if let Chunk::Copied(mut bytes) = chunk
            && bytes.capacity() > 0
            && self.0.len() < SPARES
        {
            bytes.clear();
            self.0.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
