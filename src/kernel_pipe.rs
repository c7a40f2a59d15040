//! Kernel pipes: bytes on their way from one socket to another that never enter the process.
//!
//! Invariant: a pipe is filled once, by one call, and then only emptied. So it is empty whenever a
//! socket is read into it, and has bytes whenever a socket is written from it: if a call would
//! block, the socket is the reason. A pipe is not filled again before it is empty, since the number
//! of its pieces is limited: with small pieces it can be full after a few bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pipes of the system that this process has open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A pipe of the system, or of the simulated network.
#[derive(Debug)]
pub struct KernelPipe {
    ends: Ends,
    /// Bytes that are in it.
    pub(crate) bytes: usize,
    /// None on the simulated network.
    _counted: Option<Counted>,
}

/// Counts a pipe, in its reactor and in this process.
#[derive(Debug)]
pub(crate) struct Counted {
    _reactor: Arc<()>,
}

impl Counted {
    /// Another pipe of a reactor, which has `most` at most, and the process `most_open`.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is spliced there"))]
    pub(crate) fn another(reactor: &Arc<()>, most: usize, most_open: usize) -> Option<Self> {
        if Arc::strong_count(reactor) > most {
            return None;
        }
        let one_more = |open| (open < most_open).then_some(open + 1);
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { _reactor: Arc::clone(reactor) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Ends {
    System {
        read: OwnedFd,
        write: OwnedFd,
    },
    #[cfg(any(feature = "sim", test))]
    Memory(Vec<u8>),
}

impl KernelPipe {
    /// An empty pipe of the system.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is spliced there"))]
    pub(crate) const fn new(read: OwnedFd, write: OwnedFd, counted: Counted) -> Self {
        Self { ends: Ends::System { read, write }, bytes: 0, _counted: Some(counted) }
    }

    /// The descriptors to read from it and to write to it; none on the simulated network.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is spliced there"))]
    pub(crate) fn ends(&self) -> Option<(BorrowedFd<'_>, BorrowedFd<'_>)> {
        match &self.ends {
            Ends::System { read, write } => Some((read.as_fd(), write.as_fd())),
            #[cfg(any(feature = "sim", test))]
            Ends::Memory(_) => None,
        }
    }

    /// Bytes that are in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it can be filled again.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes bytes out, into memory. It must not be empty.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match &mut self.ends {
            Ends::System { read, .. } => rustix::io::read(read, buffer)?,
            #[cfg(any(feature = "sim", test))]
            Ends::Memory(bytes) => {
                let count = buffer.len().min(bytes.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                bytes.drain(..count);
                count
            }
        };
        self.bytes -= bytes;
        Ok(bytes)
    }

    /// Takes all bytes out, into memory.
    pub(crate) fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut all = vec![0; self.bytes];
        let mut filled = 0;
        while filled < all.len() {
            match self.read(&mut all[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => filled += bytes,
            }
        }
        Ok(all)
    }
}

#[cfg(any(feature = "sim", test))]
impl KernelPipe {
    /// A pipe of the simulated network, with these bytes.
    pub(crate) fn in_memory(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.len(), ends: Ends::Memory(bytes), _counted: None }
    }

    /// The bytes that are in a pipe of the simulated network.
    pub(crate) fn memory(&self) -> &[u8] {
        match &self.ends {
            Ends::Memory(bytes) => bytes,
            Ends::System { .. } => &[],
        }
    }

    /// The simulated network has taken the first bytes out.
    pub(crate) fn drain(&mut self, count: usize) {
        if let Ends::Memory(bytes) = &mut self.ends {
            bytes.drain(..count);
            self.bytes -= count;
        }
    }
}
