//! What a connection needs only for a while: its write queue, its way to being connected, its failure.
//!
//! Invariant: a connection has an extra only while something is in it. What its queue has in chunks is used again.

use std::net::SocketAddr;

use super::entry::NIL;
use super::queue::{Spares, WriteQueue};
use crate::buffer::Buffer;
use crate::error::{Attempt, Failure};
use crate::options::{KeepAlive, SystemOptions};
use crate::target::Target;

#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) queue: WriteQueue,
    /// While we flush: the tick since which the kernel has taken nothing; `None`: counts from the next arming.
    pub(crate) flushed: Option<u64>,
    /// The tick from which the limit of the present state counts, if the caller has had the silence counted anew since.
    pub(crate) limit_from: Option<u64>,
    /// The tick from which a silence counts, if bytes have moved since that don't break it.
    pub(crate) idle_from: Option<u64>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) failure: Option<Failure>,
    pub(crate) connecting: Option<Box<Connecting>>,
    /// Options of the system's socket that the caller changed and that are not set yet.
    pub(crate) nodelay: Option<bool>,
    pub(crate) keep_alive: Option<Option<KeepAlive>>,
}

/// When a socket has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// So many milliseconds from when the reactor looks at the clock.
    In(u64),
    /// At this tick.
    At(u64),
}

/// An outgoing connection on its way.
#[derive(Debug)]
pub(crate) struct Connecting {
    pub(crate) target: Target,
    pub(crate) system: SystemOptions,
    pub(crate) local: Option<SocketAddr>,
    /// The addresses, in the order in which they are tried.
    pub(crate) addrs: Vec<SocketAddr>,
    /// How many were told as `lookup`, and how many were tried.
    pub(crate) told: usize,
    pub(crate) tried: usize,
    /// Handshakes under way, in the order in which they began.
    pub(crate) racers: Vec<Racer>,
    pub(crate) failed: Vec<Attempt>,
    /// When the next address joins the race, in ticks; `None` if none is left, or if it waits until all others have failed.
    pub(crate) attempt_due: Option<u64>,
    /// How long after the last one, in milliseconds.
    pub(crate) delay_ms: Option<u64>,
    /// The first failure; it names the whole if all fail.
    pub(crate) first_failure: Option<Failure>,
}

/// A handshake under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Racer {
    /// Where the net has it: in the socket's own place, or in one that is reserved for it.
    pub(crate) place: u32,
    /// To which of the addresses.
    pub(crate) addr: usize,
}

impl Connecting {
    fn new(target: Target, system: SystemOptions, local: Option<SocketAddr>, delay_ms: Option<u64>) -> Self {
        Self {
            target,
            system,
            local,
            addrs: Vec::new(),
            told: 0,
            tried: 0,
            racers: Vec::new(),
            failed: Vec::new(),
            attempt_due: None,
            delay_ms,
            first_failure: None,
        }
    }
}

impl Extra {
    /// Whether the caller has changed what only the reactor can set.
    pub(crate) fn has_wishes(&self) -> bool {
        self.nodelay.is_some() || self.keep_alive.is_some() || matches!(self.deadline, Some(Deadline::In(_)))
    }

    fn is_empty(&self) -> bool {
        self.queue.len() == 0
            && self.limit_from.is_none()
            && self.idle_from.is_none()
            && self.deadline.is_none()
            && self.failure.is_none()
            && self.connecting.is_none()
            && self.nodelay.is_none()
            && self.keep_alive.is_none()
    }
}

/// A place is used again as it lies: making one anew would write 200 bytes for every answer.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    extras: Vec<Extra>,
    free: Vec<u32>,
    spares: Spares,
    /// Of connections that were established: the next ones begin in them.
    #[allow(clippy::vec_box, reason = "the boxes themselves are used again")]
    spare_ways: Vec<Box<Connecting>>,
}

/// Kept for the next connections: a program that opens some at a time makes none anew, and they take 20 KiB.
const SPARE_WAYS: usize = 64;

impl Extras {
    pub(super) fn get(&self, index: u32) -> Option<&Extra> {
        self.extras.get(index as usize)
    }

    #[inline]
    pub(super) fn get_or_make(&mut self, index: &mut u32) -> &mut Extra {
        if *index == NIL {
            *index = self.make();
        }
        &mut self.extras[*index as usize]
    }

    #[inline(never)]
    fn make(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.extras.push(Extra::default());
            (self.extras.len() - 1) as u32
        })
    }

    pub(super) fn release(&mut self, index: u32) {
        if index == NIL {
            return;
        }
        let Extra { queue, flushed, limit_from, idle_from, deadline, failure, connecting, nodelay, keep_alive } =
            &mut self.extras[index as usize];
        queue.release(&mut self.spares);
        (*flushed, *limit_from, *idle_from, *deadline) = (None, None, None, None);
        (*failure, *connecting) = (None, None);
        (*nodelay, *keep_alive) = (None, None);
        self.free.push(index);
    }

    pub(super) fn release_if_empty(&mut self, index: &mut u32) {
        if self.get(*index).is_some_and(Extra::is_empty) {
            self.release(std::mem::replace(index, NIL));
        }
    }

    /// What an outgoing connection begins with.
    pub(crate) fn connecting(
        &mut self,
        target: Target,
        system: SystemOptions,
        local: Option<SocketAddr>,
        delay_ms: Option<u64>,
    ) -> Box<Connecting> {
        let begun = Connecting::new(target, system, local, delay_ms);
        let Some(mut spare) = self.spare_ways.pop() else {
            return Box::new(begun);
        };
        // The lists keep their room.
        let (addrs, failed) = (std::mem::take(&mut spare.addrs), std::mem::take(&mut spare.failed));
        let racers = std::mem::take(&mut spare.racers);
        *spare = Connecting { addrs, racers, failed, ..begun };
        spare.addrs.clear();
        spare.racers.clear();
        spare.failed.clear();
        spare
    }

    /// The connection is established.
    pub(super) fn connected(&mut self, index: u32) {
        let extra = self.extras.get_mut(index as usize);
        if let Some(way) = extra.and_then(|extra| extra.connecting.take())
            && self.spare_ways.len() < SPARE_WAYS
        {
            self.spare_ways.push(way);
        }
    }

    /// Queues bytes by copying them. Answers how many wait now.
    #[inline]
    pub(super) fn push(&mut self, index: &mut u32, bytes: &[u8]) -> usize {
        self.get_or_make(index);
        let queue = &mut self.extras[*index as usize].queue;
        queue.push(bytes, &mut self.spares);
        queue.len()
    }

    /// Queues a buffer as it is. Answers how many bytes wait now.
    pub(super) fn push_given(&mut self, index: &mut u32, buffer: Buffer) -> usize {
        self.get_or_make(index);
        let queue = &mut self.extras[*index as usize].queue;
        queue.push_given(buffer, &mut self.spares);
        queue.len()
    }

    /// The kernel has taken so many bytes of a queue.
    #[inline]
    pub(super) fn sent(&mut self, index: u32, bytes: usize) -> &mut Extra {
        let extra = &mut self.extras[index as usize];
        extra.queue.sent(bytes, &mut self.spares);
        extra
    }

    /// How many connections have an extra.
    pub(crate) fn len(&self) -> usize {
        self.extras.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests;
