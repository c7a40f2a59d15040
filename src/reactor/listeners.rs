//! The listeners, and which of them accepts next: in turn, if a client waits or may wait.
//!
//! Invariant: a listener that may accept is watched, queued, or backing off. A muted one is not
//! watched: it had to leave clients waiting, and accepts until none waits before it is watched
//! again.

use std::collections::VecDeque;

use slab::Slab;

use super::earlier;
use super::turn::ACCEPTS_PER_POLL;
use crate::id::ListenerId;
use crate::options::{ListenOptions, OverflowPolicy};
use crate::target::BoundAddr;

/// Connections accepted one at a time after a failed accept: this adds a sixtieth of that call to
/// each.
const SINGLES: u32 = 64;

/// A listener: what [`Reactor::listen`](crate::Reactor::listen) and
/// [`Reactor::adopt`](crate::Reactor::adopt) return.
///
/// ```
/// use finale::{ListenOptions, Reactor};
/// let mut reactor = Reactor::new()?;
/// let listener = reactor.listen("127.0.0.1:0", ListenOptions::default())?;
/// println!("{} on {}", listener.id, listener.addr);
/// reactor.close_listener(listener.id)?;
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Listener {
    /// Its id.
    pub id: ListenerId,
    /// The address it is bound to, with the port that the kernel chose for port 0.
    pub addr: BoundAddr,
}

pub(super) struct Entry {
    id: ListenerId,
    pub(super) settings: u32,
    phase: Phase,
    pub(super) batch: Batch,
    /// Not watched.
    pub(super) muted: bool,
    pub(super) paused: bool,
    /// The present error was delivered.
    pub(super) reported: bool,
    /// Connections skipped in a row.
    pub(super) skips: u32,
    /// Its sockets that have not delivered `close`.
    pub(super) live: usize,
    /// How many of them were accepted beyond the maximum, which does not include them.
    overflow: usize,
    max: Option<usize>,
    overflow_policy: OverflowPolicy,
    /// How many clients it may still accept, once it is stopped: those that waited then. Clients
    /// that continue to connect must not keep it open.
    waiting: Option<u32>,
    backlog: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No client is known to wait, or none may be accepted.
    Idle,
    Queued,
    /// Nothing can be accepted until a descriptor is freed, or until a pause is over.
    BackingOff,
    /// Stopped, with its descriptor closed.
    Closed,
}

/// The number of connections to accept per readiness event. An accept(2) without a connection costs
/// more than a poll that would report it, so the number is one, and grows after several connections
/// have waited.
pub(super) struct Batch {
    size: usize,
    left: usize,
    /// Batches of one, before a larger one is tried again.
    singles: u32,
}

impl Batch {
    /// A connection was accepted. Returns whether it was the last of the batch.
    pub(super) const fn accepted(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        if self.singles > 0 {
            self.singles -= 1;
        } else if self.size < ACCEPTS_PER_POLL {
            self.size *= 2;
        }
        self.left = self.size;
        true
    }

    /// accept(2) found no client.
    pub(super) const fn was_vain(&mut self) {
        *self = Self { size: 1, left: 1, singles: SINGLES };
    }
}

impl Entry {
    pub(super) const fn new(id: ListenerId, settings: u32, options: &ListenOptions) -> Self {
        Self {
            id,
            settings,
            phase: Phase::Idle,
            batch: Batch { size: 1, left: 1, singles: 0 },
            muted: false,
            paused: false,
            reported: false,
            skips: 0,
            live: 0,
            overflow: 0,
            max: options.max_connections,
            overflow_policy: options.overflow_policy,
            waiting: None,
            backlog: options.backlog,
        }
    }

    fn is_at_max(&self) -> bool {
        self.max.is_some_and(|max| self.live - self.overflow >= max)
    }

    fn is_full(&self) -> bool {
        let more = if let OverflowPolicy::Admit(more) = self.overflow_policy { more } else { 0 };
        self.is_at_max() && self.overflow >= more
    }

    /// A client was accepted. Returns whether it was the last that a stopped listener accepts.
    pub(super) const fn was_the_last(&mut self) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        *waiting = waiting.saturating_sub(1);
        *waiting == 0
    }

    /// Whether it accepts only the clients that waited when it was stopped.
    pub(super) const fn is_stopped(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether the next client is beyond the maximum, and is dropped.
    pub(super) fn drops(&self) -> bool {
        self.is_full() && self.overflow_policy == OverflowPolicy::Reset
    }

    /// Whether clients have to wait.
    pub(super) fn must_wait(&self) -> bool {
        self.paused || (self.is_full() && self.overflow_policy != OverflowPolicy::Reset)
    }
}

pub(super) struct Listeners {
    pub(super) entries: Slab<Entry>,
    queue: VecDeque<u32>,
    /// Stopped listeners whose last socket is closed; their event is pending.
    pub(super) done: VecDeque<u32>,
    /// The tick at which all that back off try again, unless a descriptor is freed before.
    pub(super) retry_at: Option<u64>,
    /// The limits of stops: a tick, and the listener whose sockets are destroyed then.
    stops: Vec<(u64, u32)>,
    generation: u32,
    reactor: u32,
}

impl Listeners {
    pub(super) fn new(reactor: u32) -> Self {
        let (entries, queue, done) = (Slab::new(), VecDeque::new(), VecDeque::new());
        Self { entries, queue, done, retry_at: None, stops: Vec::new(), generation: 0, reactor }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.done.is_empty()
    }

    /// The id of the listener that is inserted next.
    pub(super) fn new_id(&mut self) -> ListenerId {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        ListenerId::new(self.reactor, self.entries.vacant_key() as u32, self.generation)
    }

    /// Removes a listener whose descriptor is closed. Returns its settings.
    pub(super) fn remove(&mut self, listener: u32) -> u32 {
        self.done.retain(|&done| done != listener);
        self.stops.retain(|stop| stop.1 != listener);
        self.entries.remove(listener as usize).settings
    }

    // --- the queue ---

    /// A client may wait at this listener.
    pub(super) fn ready(&mut self, listener: u32) {
        if let Some(entry) = self.entries.get_mut(listener as usize)
            && entry.phase == Phase::Idle
        {
            entry.phase = Phase::Queued;
            self.queue.push_back(listener);
        }
    }

    /// The next listener to accept from: each in turn, one connection at a time. It stays in the
    /// queue until it is [`served`](Self::served).
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        if self.queue.len() > 1 {
            self.queue.rotate_left(1);
        }
        self.queue.back().copied()
    }

    /// The listener that [`next_ready`](Self::next_ready) returned last leaves the queue.
    pub(super) fn served(&mut self, listener: u32) {
        let last = self.queue.pop_back();
        debug_assert_eq!(last, Some(listener), "it was tried last");
        self.entries[listener as usize].phase = Phase::Idle;
    }

    /// Clients need no longer wait. The system reports a listener that is not muted.
    pub(super) fn unblock(&mut self, listener: u32) {
        if self.entries.get(listener as usize).is_some_and(|entry| entry.muted && !entry.must_wait()) {
            self.ready(listener);
        }
    }

    // --- time ---

    /// The earliest tick at which a listener needs attention.
    #[inline]
    pub(super) fn next_due(&self) -> Option<u64> {
        self.stops.iter().fold(self.retry_at, |due, stop| earlier(due, Some(stop.0)))
    }

    /// The listener leaves the queue. All that back off try again together: they lack the same.
    pub(super) fn back_off(&mut self, listener: u32, until: u64) {
        self.served(listener);
        self.entries[listener as usize].phase = Phase::BackingOff;
        self.retry_at.get_or_insert(until);
    }

    /// A descriptor was freed, or the time has come: all that back off try again.
    pub(super) fn retry(&mut self) {
        if self.retry_at.take().is_none() {
            return;
        }
        for (index, entry) in &mut self.entries {
            if entry.phase == Phase::BackingOff {
                entry.phase = Phase::Queued;
                self.queue.push_back(index as u32);
            }
        }
    }

    // --- counting ---

    /// The listener has accepted a connection. Returns whether it is beyond the maximum.
    pub(super) fn opened(&mut self, listener: u32) -> (&mut Entry, bool) {
        let entry = &mut self.entries[listener as usize];
        let is_overflow = entry.is_at_max();
        entry.live += 1;
        entry.overflow += usize::from(is_overflow);
        (entry, is_overflow)
    }

    /// One of its sockets has delivered `close`.
    #[inline(always)]
    pub(super) fn closed(&mut self, id: ListenerId, was_overflow: bool) {
        let Some(entry) = self.find_mut(id) else { return };
        entry.live -= 1;
        entry.overflow -= usize::from(was_overflow);
        if entry.phase == Phase::Closed && entry.live == 0 {
            self.done.push_back(id.index());
        } else if entry.muted {
            self.unblock(id.index());
        }
    }

    // --- stopping ---

    /// Stops the listener: clients that wait can be accepted in spite of a pause. `due` replaces
    /// that of an earlier call.
    pub(super) fn stop(&mut self, id: ListenerId, due: Option<u64>) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id.index() as usize).filter(|entry| entry.id == id)?;
        entry.paused = false;
        // The wait queue on Linux has room for the backlog plus one.
        entry.waiting.get_or_insert(entry.backlog.saturating_add(1));
        self.stops.retain(|stop| stop.1 != id.index());
        self.stops.extend(due.map(|due| (due, id.index())));
        Some(entry)
    }

    /// Whether its descriptor is open.
    pub(super) fn is_open(&self, listener: u32) -> bool {
        self.entries[listener as usize].phase != Phase::Closed
    }

    /// Its descriptor is closed.
    pub(super) fn close(&mut self, listener: u32) {
        let entry = &mut self.entries[listener as usize];
        entry.phase = Phase::Closed;
        if entry.live == 0 {
            self.done.push_back(listener);
        }
        self.queue.retain(|&queued| queued != listener);
    }

    /// The next listener whose stop limit has passed.
    pub(super) fn pop_overdue(&mut self, now: u64) -> Option<u32> {
        let overdue = self.stops.iter().position(|stop| stop.0 <= now)?;
        Some(self.stops.swap_remove(overdue).1)
    }

    // --- names ---

    /// All listeners that are open or stopping.
    pub(super) fn ids(&self) -> impl Iterator<Item = ListenerId> + '_ {
        self.entries.iter().map(|(_, entry)| entry.id)
    }

    pub(super) fn id(&self, listener: u32) -> ListenerId {
        self.entries[listener as usize].id
    }

    /// A listener that accepts: neither closed nor stopped.
    pub(super) fn accepting_mut(&mut self, id: ListenerId) -> Option<&mut Entry> {
        self.find_mut(id).filter(|entry| !entry.is_stopped())
    }

    pub(super) fn find(&self, id: ListenerId) -> Option<&Entry> {
        self.entries.get(id.index() as usize).filter(|entry| entry.id == id)
    }

    fn find_mut(&mut self, id: ListenerId) -> Option<&mut Entry> {
        self.entries.get_mut(id.index() as usize).filter(|entry| entry.id == id)
    }
}

#[cfg(test)]
mod tests;
