//! What a connection needs only for a while: write queue, clocks, attempts to connect, error.
//!
//! Invariant: a connection has an extra only while something is in it. Chunks are reused.

use std::net::{SocketAddr, SocketAddrV6};

use slab::Slab;

use super::clocks::RETRY_TICKS;
use super::entry::NIL;
use super::queue::{Chunk, SparePipes, Spares, WriteQueue};
use crate::error::{ConnectionError, ConnectionErrorKind};
use crate::kernel_pipe::KernelPipe;
use crate::options::{KeepAlive, SystemOptions};
use crate::target::Target;
use crate::ticks::Epoch;

#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) queue: WriteQueue,
    /// The ticks from which the limit of the present state and the write timeout count.
    pub(super) limit_since: Option<u64>,
    pub(super) write_since: Option<u64>,
    /// The tick from which a stop's grace counts.
    pub(super) grace_since: Option<u64>,
    /// The ticks at which the socket ends, whatever moves: deadline, and ending timeout.
    pub(crate) deadline: Option<Deadline>,
    pub(super) ending_at: Option<u64>,
    /// The tick at which a call is repeated for which the system had no memory or no room.
    pub(crate) retry_at: Option<Deadline>,
    /// A deadline that has passed has waited for the repetition, and waits for no other.
    pub(crate) has_waited: bool,
    pub(crate) failure: Option<ConnectionError>,
    /// Bytes that waited when the connection broke, or were written since.
    pub(crate) void_bytes: u64,
    /// How many bytes had been read at the last drain since then, and how many drains that makes
    /// without a byte read between them.
    pub(crate) void_drains: (u64, u8),
    pub(crate) connecting: Option<Box<Connecting>>,
    /// Options of the system's socket that the caller has changed and that are not set yet.
    pub(crate) nodelay: Option<bool>,
    pub(crate) keep_alive: Option<Option<KeepAlive>>,
    /// Where the next bytes go, if the caller has given a buffer.
    pub(crate) fill: Option<Box<Fill>>,
    /// Bytes that were read into a kernel pipe, until the caller passes them on.
    pub(crate) spliced: Option<Box<KernelPipe>>,
}

/// A buffer of the caller that finale fills.
#[derive(Debug)]
pub(crate) struct Fill {
    /// What was read, and after it perhaps zeros. It has the capacity for `len` bytes.
    pub(crate) buffer: Vec<u8>,
    /// How many bytes were read.
    pub(crate) filled: usize,
    /// How many bytes it will have.
    pub(crate) len: usize,
}

/// When something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// This many milliseconds after the reactor's next look at the clock.
    In(u64),
    /// At this tick.
    At(u64),
}

/// An outgoing connection before it is established.
#[derive(Debug)]
pub(crate) struct Connecting {
    pub(crate) target: Target,
    pub(crate) system: SystemOptions,
    pub(crate) local: Option<SocketAddr>,
    /// The addresses, in the order in which they are tried.
    pub(crate) addrs: Vec<SocketAddr>,
    /// How many were delivered as `lookup`, and how many were tried.
    pub(crate) delivered: usize,
    pub(crate) tried: usize,
    /// Handshakes in flight, in the order in which they began.
    pub(crate) in_flight: Vec<Flight>,
    /// Those that have failed, with the indices of their addresses.
    pub(crate) failed: Vec<(usize, ConnectionError)>,
    /// When the next address joins the race, in ticks; `None` if none is left, or if it waits until
    /// all others have failed.
    pub(crate) attempt_due: Option<u64>,
    /// The delay after the last one, in milliseconds.
    pub(crate) delay_ms: Option<u64>,
    /// Why the next address could not be tried yet, if there was a reason.
    pub(crate) held_up: Option<ConnectionErrorKind>,
}

/// A handshake in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    /// Its slot in the net: the socket's own, or one that is reserved for it.
    pub(crate) slot: u32,
    /// The index of its address.
    pub(crate) addr: usize,
}

impl Connecting {
    pub(crate) fn new(target: Target, system: SystemOptions, local: Option<SocketAddr>, delay_ms: Option<u64>) -> Self {
        Self {
            target,
            system,
            local,
            addrs: Vec::new(),
            delivered: 0,
            tried: 0,
            in_flight: Vec::new(),
            failed: Vec::new(),
            attempt_due: None,
            delay_ms,
            held_up: None,
        }
    }
}

impl Extra {
    #[inline]
    pub(crate) const fn has_bytes(&self) -> bool {
        self.queue.len() > 0
    }

    /// Bytes that will never reach our kernel if the connection is over.
    pub(crate) const fn unsent_bytes(&self) -> u64 {
        self.queue.len() as u64 + self.void_bytes
    }

    /// Schedules a call again after a pause. A pause that runs already is not prolonged.
    pub(crate) fn retry_later(&mut self) {
        self.retry_at.get_or_insert(Deadline::In(RETRY_TICKS));
    }

    /// Whether the caller has changed an option that only a step can set.
    #[inline]
    pub(crate) const fn has_options(&self) -> bool {
        self.nodelay.is_some() || self.keep_alive.is_some()
    }

    fn is_empty(&self) -> bool {
        self.queue.len() == 0
            && self.limit_since.is_none()
            && self.grace_since.is_none()
            && self.ending_at.is_none()
            && self.deadline.is_none()
            && self.retry_at.is_none()
            && !self.has_waited
            && self.failure.is_none()
            && self.void_bytes == 0
            && self.connecting.is_none()
            && self.nodelay.is_none()
            && self.keep_alive.is_none()
            && self.fill.is_none()
            && self.spliced.is_none()
    }
}

/// A slot is reused without being cleared: a new extra would write 200 bytes for every answer.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    extras: Vec<Extra>,
    free: Vec<u32>,
    spares: Spares,
    /// Left by connections that were established, and reused by the next ones.
    #[allow(clippy::vec_box, reason = "the boxes themselves are used again")]
    spare_connecting: Vec<Box<Connecting>>,
    /// What was written to the socket at hand, if nothing waited before: most answers are sent by
    /// the next step, and need no queue.
    pub(crate) at_hand_bytes: Vec<u8>,
    /// The number of the reactor, in the ids of its sockets.
    pub(crate) reactor: u32,
    /// When the reactor began, for the lines of the log.
    pub(crate) begun: Option<Epoch>,
    /// IPv6 peers; the entry has room for an IPv4 address or an index into this.
    pub(crate) ipv6_peers: Slab<SocketAddrV6>,
}

/// Kept for the next connections, 20 KiB: a program that opens some at a time allocates none.
const SPARE_CONNECTING: usize = 64;

impl Extras {
    pub(super) fn new(reactor: u32, begun: Epoch) -> Self {
        Self { reactor, begun: Some(begun), ..Self::default() }
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&Extra> {
        self.extras.get(index as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Extra> {
        self.extras.get_mut(index as usize)
    }

    /// The extra with this number. If there is none it is created, and the number set.
    #[inline]
    pub(crate) fn get_or_make(&mut self, index: &mut u32) -> &mut Extra {
        if *index == NIL {
            *index = self.free.pop().unwrap_or_else(|| {
                self.extras.push(Extra::default());
                (self.extras.len() - 1) as u32
            });
        }
        &mut self.extras[*index as usize]
    }

    pub(super) fn release(&mut self, index: u32) {
        let Some(extra) = self.extras.get_mut(index as usize) else { return };
        extra.queue.release(&mut self.spares);
        *extra = Extra::default();
        self.free.push(index);
    }

    #[inline]
    pub(crate) fn release_if_empty(&mut self, index: &mut u32) {
        if *index != NIL {
            self.release_empty(index);
        }
    }

    #[inline(never)]
    fn release_empty(&mut self, index: &mut u32) {
        if self.get(*index).is_some_and(Extra::is_empty) {
            // Reused without being cleared: everything in it that is not empty is a clock.
            self.extras[*index as usize].write_since = None;
            self.free.push(std::mem::replace(index, NIL));
        }
    }

    /// The initial data of an outgoing connection, in the memory of an earlier one.
    pub(crate) fn connecting(&mut self, begun: Connecting) -> Box<Connecting> {
        let Some(mut spare) = self.spare_connecting.pop() else { return Box::new(begun) };
        let Connecting { mut addrs, mut in_flight, mut failed, .. } = *spare;
        addrs.clear();
        in_flight.clear();
        failed.clear();
        *spare = Connecting { addrs, in_flight, failed, ..begun };
        spare
    }

    /// The connection is established.
    pub(crate) fn connected(&mut self, index: u32) {
        let extra = self.extras.get_mut(index as usize);
        if let Some(connecting) = extra.and_then(|extra| extra.connecting.take())
            && self.spare_connecting.len() < SPARE_CONNECTING
        {
            self.spare_connecting.push(connecting);
        }
    }

    /// The write queue of the extra with this number, which is created if there is none.
    fn queue(&mut self, index: &mut u32) -> (&mut WriteQueue, &mut Spares) {
        self.get_or_make(index);
        (&mut self.extras[*index as usize].queue, &mut self.spares)
    }

    /// Queues bytes by copying them. Returns how many wait now.
    pub(crate) fn push(&mut self, index: &mut u32, bytes: &[u8]) -> usize {
        let (queue, spares) = self.queue(index);
        queue.push(bytes, spares)
    }

    /// Queues a given buffer or a kernel pipe as it is. Returns how many bytes wait now.
    pub(super) fn append(&mut self, index: &mut u32, chunk: impl Into<Chunk>) -> usize {
        self.queue(index).0.append(chunk.into())
    }

    /// Moves what was written to the socket at hand into its queue, except the bytes that were
    /// sent.
    #[inline]
    pub(crate) fn spill(&mut self, index: &mut u32, sent: usize) {
        if sent < self.at_hand_bytes.len() {
            self.get_or_make(index);
            self.extras[*index as usize].queue.push(&self.at_hand_bytes[sent..], &mut self.spares);
        }
        self.at_hand_bytes.clear();
    }

    /// Empty kernel pipes.
    pub(crate) const fn pipes(&mut self) -> &mut SparePipes {
        &mut self.spares.1
    }

    /// The kernel has taken this many bytes of a queue.
    #[inline]
    pub(crate) fn sent(&mut self, index: u32, bytes: usize) {
        self.extras[index as usize].queue.sent(bytes, &mut self.spares);
    }

    /// What was written to this socket, the one at hand, can't be sent any more.
    pub(crate) fn void(&mut self, index: u32) {
        if let Some(extra) = self.extras.get_mut(index as usize) {
            extra.void_bytes += (self.at_hand_bytes.len() + extra.queue.len()) as u64;
            self.at_hand_bytes.clear();
            extra.queue.release(&mut self.spares);
        }
    }

    /// How many connections have an extra.
    pub(crate) fn len(&self) -> usize {
        self.extras.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests;
