//! What a connection needs only for a while: its write queue, its way to being connected, its failure.
//!
//! Invariant: a connection has an extra only while something is in it. Buffers are used again, so that in the steady state
//! nothing is allocated; what is kept in reserve is bounded.

use std::net::SocketAddr;

use slab::Slab;

use super::entry::NIL;
use crate::error::{Attempt, Failure};
use crate::options::{KeepAlive, SystemOptions};
use crate::target::Target;

/// Spare buffers kept for the next queues, and the largest that is worth keeping: 1 MiB in reserve at the most.
const SPARES: usize = 64;
const SPARE_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) queue: WriteQueue,
    /// While we flush: the tick since which the kernel has taken nothing; `None`: counts from the next arming.
    pub(crate) flushed: Option<u64>,
    /// The tick from which the limit of the present state counts, if the caller has had the silence counted anew since.
    pub(crate) limit_from: Option<u64>,
    pub(crate) failure: Option<Failure>,
    pub(crate) connecting: Option<Box<Connecting>>,
    /// Options of the system's socket that the caller changed and that are not set yet.
    pub(crate) nodelay: Option<bool>,
    pub(crate) keep_alive: Option<Option<KeepAlive>>,
}

/// An outgoing connection on its way.
#[derive(Debug)]
pub(crate) struct Connecting {
    pub(crate) target: Target,
    pub(crate) system: SystemOptions,
    pub(crate) local: Option<SocketAddr>,
    /// Every distinct address, in the order in which they are tried.
    pub(crate) addrs: Vec<SocketAddr>,
    /// How many were told as `lookup`, and how many were tried.
    pub(crate) told: usize,
    pub(crate) tried: usize,
    pub(crate) failed: Vec<Attempt>,
    /// When the attempt under way gives way to the next address, in ticks; `None` for the last one.
    pub(crate) attempt_due: Option<u64>,
    /// The first failure; it names the whole if all fail.
    pub(crate) first_failure: Option<Failure>,
}

/// Bytes that wait for the kernel.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    bytes: Vec<u8>,
    sent: usize,
}

impl WriteQueue {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    #[inline]
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // What was sent is dropped when it is the larger part: each byte is moved once at the most.
        if self.sent >= self.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

impl Extra {
    fn is_empty(&self) -> bool {
        self.queue.len() == 0
            && self.limit_from.is_none()
            && self.failure.is_none()
            && self.connecting.is_none()
            && self.nodelay.is_none()
            && self.keep_alive.is_none()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Extras {
    extras: Slab<Extra>,
    spares: Vec<Vec<u8>>,
}

impl Extras {
    pub(super) fn get(&self, index: u32) -> Option<&Extra> {
        self.extras.get(index as usize)
    }

    pub(super) fn get_or_make(&mut self, index: &mut u32) -> &mut Extra {
        if *index == NIL {
            let mut extra = Extra::default();
            extra.queue.bytes = self.spares.pop().unwrap_or_default();
            *index = self.extras.insert(extra) as u32;
        }
        &mut self.extras[*index as usize]
    }

    pub(super) fn release(&mut self, index: u32) {
        if index == NIL {
            return;
        }
        let mut buffer = self.extras.remove(index as usize).queue.bytes;
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BYTES && self.spares.len() < SPARES {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    pub(super) fn release_if_empty(&mut self, index: &mut u32) {
        if self.get(*index).is_some_and(Extra::is_empty) {
            self.release(std::mem::replace(index, NIL));
        }
    }

    /// How many connections have an extra.
    pub(crate) fn len(&self) -> usize {
        self.extras.len()
    }
}

#[cfg(test)]
mod tests;
