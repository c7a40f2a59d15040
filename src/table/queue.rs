//! Bytes that wait for the kernel: copied bytes in our own chunks, given buffers without a copy,
//! and bytes in kernel pipes.
//!
//! Invariant: no chunk is empty, and a chunk that was sent is released at once. A chunk that is
//! neither the first nor the last has no unused room. So a queue holds what waits and at most one
//! extra chunk at either end.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use crate::buffer::Buffer;
use crate::kernel_pipe::KernelPipe;

/// The size of a full chunk. Compared with copying 16 KiB twice, another piece of a vectored write
/// costs the kernel nothing, and a few bytes hold little memory.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;

/// Spare chunks kept for later, in all at most 1 MiB.
const SPARES: usize = 64;

/// Spare kernel pipes, of two descriptors each: a stream does not open one for each read.
const SPARE_PIPES: usize = 8;

/// The table copies a given buffer that is smaller: by measurement that costs no more than another
/// piece in a vectored write and freeing the buffer.
pub(crate) const COPY_BELOW_BYTES: usize = 2 * 1024;

/// Pieces in one vectored write. This many chunks are a turn's quantum, and the list needs 1 KiB of
/// the stack; the kernel would accept 1024 (UIO_MAXIOV).
pub(crate) const PIECES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk was sent.
    sent: usize,
    /// How many bytes wait in all.
    bytes: usize,
}

#[derive(Debug)]
pub(super) enum Chunk {
    /// The buffer comes from the spares and goes back to them.
    Copied(Vec<u8>),
    Given(Buffer),
    /// How many bytes were in the pipe at first.
    Spliced(Box<KernelPipe>, usize),
}

impl WriteQueue {
    /// Bytes that wait.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.bytes
    }

    /// All bytes that wait, if they are one piece and not in a pipe.
    #[inline]
    pub(crate) fn single(&self) -> Option<&[u8]> {
        let is_single = self.chunks.len() == 1 && !self.starts_with_pipe();
        if is_single { self.chunks.front().map(|chunk| &chunk.bytes()[self.sent..]) } else { None }
    }

    /// Whether the bytes that are next are in a kernel pipe.
    #[inline]
    pub(crate) fn starts_with_pipe(&self) -> bool {
        matches!(self.chunks.front(), Some(Chunk::Spliced(..)))
    }

    /// The kernel pipe whose bytes are next, if they are in one.
    #[inline]
    pub(crate) fn first_pipe(&mut self) -> Option<&mut KernelPipe> {
        if let Some(Chunk::Spliced(pipe, _)) = self.chunks.front_mut() { Some(pipe) } else { None }
    }

    /// Takes the bytes of the first pipe into memory.
    pub(crate) fn unsplice_first(&mut self) -> io::Result<()> {
        if let Some(pipe) = self.first_pipe() {
            let bytes = pipe.read_all()?;
            self.chunks[0] = Chunk::Given(bytes.into());
            self.sent = 0;
        }
        Ok(())
    }

    /// Lists what waits up to the first pipe, at most `limit_bytes` in `PIECES` pieces. Returns how
    /// many pieces and bytes these are.
    pub(crate) fn gather<'a>(&'a self, pieces: &mut [IoSlice<'a>; PIECES], limit_bytes: usize) -> (usize, usize) {
        let (mut count, mut bytes, mut sent) = (0, 0, self.sent);
        for (piece, chunk) in pieces.iter_mut().zip(&self.chunks) {
            let waiting = chunk.bytes().get(sent..).unwrap_or_default();
            let waiting = &waiting[..waiting.len().min(limit_bytes - bytes)];
            if waiting.is_empty() {
                break;
            }
            *piece = IoSlice::new(waiting);
            (count, bytes, sent) = (count + 1, bytes + waiting.len(), 0);
        }
        (count, bytes)
    }

    /// Queues bytes by copying them. Returns how many wait now.
    pub(super) fn push(&mut self, mut bytes: &[u8], spares: &mut Spares) -> usize {
        self.bytes += bytes.len();
        while !bytes.is_empty() {
            match self.chunks.back_mut() {
                Some(Chunk::Copied(chunk)) if chunk.len() < CHUNK_BYTES => {
                    let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - chunk.len()));
                    grow(chunk, now.len());
                    chunk.extend_from_slice(now);
                    bytes = later;
                }
                _ => self.chunks.push_back(Chunk::Copied(spares.0.pop().unwrap_or_default())),
            }
        }
        self.bytes
    }

    /// Queues a given buffer or a kernel pipe as it is. Returns how many bytes wait now.
    pub(super) fn append(&mut self, chunk: Chunk) -> usize {
        if self.chunks.len() > 1
            && let Some(Chunk::Copied(last)) = self.chunks.back_mut()
        {
            // Its capacity would stay unused until everything before it is sent.
            last.shrink_to_fit();
        }
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
        self.bytes
    }

    /// The kernel has taken this many bytes.
    pub(super) fn sent(&mut self, bytes: usize, spares: &mut Spares) {
        debug_assert!(bytes <= self.bytes, "no more is sent than waits");
        self.bytes -= bytes;
        self.sent += bytes;
        while self.chunks.front().is_some_and(|first| self.sent >= first.len())
            && let Some(first) = self.chunks.pop_front()
        {
            self.sent -= first.len();
            spares.put(first);
        }
        if self.bytes == 0 && self.chunks.capacity() > 2 * PIECES {
            self.chunks = VecDeque::new();
        }
    }

    /// Empties the queue.
    pub(super) fn release(&mut self, spares: &mut Spares) {
        std::mem::take(self).chunks.into_iter().for_each(|chunk| spares.put(chunk));
    }

    /// The first broken rule of a queue, in words.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let lengths = || self.chunks.iter().map(Chunk::len);
        if lengths().sum::<usize>() != self.sent + self.bytes {
            Err("its queue's chunks are not what waits and what was sent")
        } else if lengths().any(|length| length == 0) {
            Err("its queue has an empty chunk")
        } else if self.sent > 0 && lengths().next().is_none_or(|first| self.sent >= first) {
            Err("its queue holds a chunk that was sent")
        } else {
            Ok(())
        }
    }
}

/// Makes room for more bytes: twice the previous capacity, but at most a full chunk.
fn grow(chunk: &mut Vec<u8>, more: usize) {
    if chunk.capacity() - chunk.len() < more {
        let capacity = (2 * chunk.capacity()).max(chunk.len() + more).min(CHUNK_BYTES);
        chunk.reserve_exact(capacity - chunk.len());
    }
}

impl From<Buffer> for Chunk {
    fn from(mut buffer: Buffer) -> Self {
        buffer.shrink();
        Self::Given(buffer)
    }
}

impl From<Box<KernelPipe>> for Chunk {
    fn from(pipe: Box<KernelPipe>) -> Self {
        let count = pipe.len();
        Self::Spliced(pipe, count)
    }
}

impl Chunk {
    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Given(buffer) => buffer.len(),
            Self::Spliced(_, count) => *count,
        }
    }

    /// None of a pipe.
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Given(buffer) => buffer.as_ref(),
            Self::Spliced(..) => &[],
        }
    }
}

/// Empty chunks for reuse, so that a busy reactor allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Spares(pub(super) Vec<Vec<u8>>, pub(super) SparePipes);

impl Spares {
    /// Keeps a chunk of ours or an empty pipe; a given buffer is freed.
    fn put(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Copied(mut bytes) if self.0.len() < SPARES => {
                bytes.clear();
                self.0.push(bytes);
            }
            Chunk::Spliced(pipe, _) => self.1.put(pipe),
            Chunk::Copied(_) | Chunk::Given(_) => {}
        }
    }
}

/// Empty kernel pipes for reuse.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "the boxes themselves are used again")]
pub(crate) struct SparePipes(Vec<Box<KernelPipe>>);

impl SparePipes {
    pub(crate) fn take(&mut self) -> Option<Box<KernelPipe>> {
        self.0.pop()
    }

    /// Keeps an empty pipe. Any other is closed, and what is in it is dropped.
    pub(crate) fn put(&mut self, pipe: Box<KernelPipe>) {
        if pipe.is_empty() && self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }

    /// Closes them all: the descriptors are needed. Returns whether there were any.
    pub(crate) fn close(&mut self) -> bool {
        self.0.drain(..).count() > 0
    }
}

#[cfg(test)]
mod tests;
