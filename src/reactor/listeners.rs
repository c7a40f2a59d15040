//! The listeners, and who of them is asked for a connection: in turn, where somebody is known or likely to wait.
//!
//! Invariant: a listener that may accept is watched, or in the queue, or resting. One that is muted is not watched: it has had
//! to leave somebody waiting, and is asked until nobody waits before it is watched again.

use std::collections::VecDeque;
use std::net::SocketAddr;

use slab::Slab;

use super::turn::ACCEPTS_PER_POLL;
use crate::id::ListenerId;
use crate::options::{Excess, Listen};

/// Connections accepted one at a time after somebody was asked for in vain: the vain call costs a sixtieth of itself.
const SINGLES: u32 = 64;

/// A listener: what [`Reactor::listen`](crate::Reactor::listen) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub id: ListenerId,
    /// The address it is bound to, with the port that the kernel chose for port 0.
    pub addr: SocketAddr,
}

pub(super) struct Entry {
    id: ListenerId,
    pub(super) settings: u32,
    /// In the queue of those that may have somebody waiting.
    queued: bool,
    pub(super) batch: Batch,
    /// Resting until this tick.
    rest: Option<u64>,
    /// It brings no news.
    pub(super) muted: bool,
    /// The present error was delivered.
    pub(super) reported: bool,
    /// Connections skipped in a row.
    pub(super) skips: u32,
    /// Its sockets that have not told `close`.
    live: usize,
    max: Option<usize>,
    excess: Excess,
    /// How many can wait.
    backlog: u32,
    pub(super) paused: bool,
    /// When it was stopped.
    pub(super) stop: Option<Stopping>,
}

/// A listener that accepts whoever waited when it was stopped, and then nobody.
#[derive(Clone, Copy)]
pub(super) struct Stopping {
    /// Its descriptor is closed.
    pub(super) closed: bool,
    /// How many of those who may have waited are not accepted yet: clients who go on coming must not keep it open. (Linux lets one
    /// more wait than the backlog says.)
    pub(super) waiting: u32,
    /// The tick at which its sockets are destroyed.
    pub(super) due: Option<u64>,
}

/// How many are accepted for one piece of news. To ask whether one more waits costs more than the poll that would tell, so
/// it is one as a rule, and more where asking has paid.
pub(super) struct Batch {
    size: usize,
    left: usize,
    /// News for which one is accepted, before more are tried again.
    singles: u32,
}

impl Batch {
    const fn new() -> Self {
        Self { size: 1, left: 0, singles: 0 }
    }

    /// One was accepted. Whether that was the last of the batch.
    pub(super) const fn accepted(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return false;
        }
        if self.singles > 0 {
            self.singles -= 1;
        } else if self.size < ACCEPTS_PER_POLL {
            self.size *= 2;
        }
        true
    }

    /// Nobody waited.
    pub(super) const fn asked_in_vain(&mut self) {
        self.size = 1;
        self.singles = SINGLES;
    }
}

impl Entry {
    pub(super) const fn new(id: ListenerId, settings: u32, options: &Listen) -> Self {
        Self {
            id,
            settings,
            queued: false,
            batch: Batch::new(),
            rest: None,
            muted: false,
            reported: false,
            skips: 0,
            live: 0,
            max: options.max_connections,
            excess: options.excess,
            backlog: options.backlog,
            paused: false,
            stop: None,
        }
    }

    fn is_full(&self) -> bool {
        self.max.is_some_and(|max| self.live >= max)
    }

    /// One more was accepted. Whether it was the last of those who may have waited when it was stopped.
    pub(super) fn was_the_last(&mut self) -> bool {
        let Some(stop) = &mut self.stop else { return false };
        stop.waiting = stop.waiting.saturating_sub(1);
        stop.waiting == 0
    }

    /// Whether the next client is one too many, and is not to wait.
    pub(super) fn drops(&self) -> bool {
        self.is_full() && self.excess == Excess::Drop
    }

    /// Whether it is stopped and may accept nobody, and no socket of its can make room: with a maximum of 0.
    pub(super) fn waits_in_vain(&self) -> bool {
        self.stop.is_some() && self.live == 0 && self.must_wait()
    }

    /// Whether clients have to wait.
    pub(super) fn must_wait(&self) -> bool {
        self.paused || (self.is_full() && self.excess == Excess::Wait)
    }
}

pub(super) struct Listeners {
    pub(super) entries: Slab<Entry>,
    queue: VecDeque<u32>,
    /// Stopped ones whose last socket is gone, to be told.
    closed: VecDeque<u32>,
    resting: usize,
    /// How many are stopping, and may have a deadline.
    stopping: usize,
    generation: u32,
    reactor: u32,
}

impl Listeners {
    pub(super) const fn new(reactor: u32) -> Self {
        Self {
            reactor,
            entries: Slab::new(),
            queue: VecDeque::new(),
            closed: VecDeque::new(),
            resting: 0,
            stopping: 0,
            generation: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.closed.is_empty()
    }

    /// The id of the listener that is inserted next.
    pub(super) fn new_id(&mut self) -> ListenerId {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        ListenerId::new(self.reactor, self.entries.vacant_key() as u32, self.generation)
    }

    pub(super) fn remove(&mut self, listener: u32) -> Entry {
        let entry = self.entries.remove(listener as usize);
        self.queue.retain(|&queued| queued != listener);
        self.closed.retain(|&closed| closed != listener);
        self.resting -= usize::from(entry.rest.is_some());
        self.stopping -= usize::from(entry.stop.is_some());
        entry
    }

    // --- the queue ---

    /// Somebody may be waiting at this listener.
    pub(super) fn ready(&mut self, listener: u32) {
        if let Some(entry) = self.entries.get_mut(listener as usize)
            && entry.rest.is_none()
            && !std::mem::replace(&mut entry.queued, true)
        {
            entry.batch.left = entry.batch.size;
            self.queue.push_back(listener);
        }
    }

    /// The next one to accept from: each in turn, one connection at a time. It stays in the queue until it is
    /// [`served`](Self::served).
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        if self.queue.len() > 1 {
            self.queue.rotate_left(1);
        }
        self.queue.back().copied()
    }

    /// Nobody waits at the listener that [`next_ready`](Self::next_ready) has named last, or nobody can be served.
    pub(super) fn served(&mut self, listener: u32) {
        let last = self.queue.pop_back();
        debug_assert_eq!(last, Some(listener), "it was the last to be asked");
        self.entries[listener as usize].queued = false;
    }

    /// What kept clients waiting is over: one that is muted is asked, any other brings news by itself.
    pub(super) fn go_on(&mut self, listener: u32) {
        if let Some(entry) = self.entries.get(listener as usize)
            && entry.muted
            && !entry.must_wait()
            && self.is_open(listener)
        {
            self.ready(listener);
        }
    }

    // --- resting ---

    pub(super) fn next_due(&self) -> Option<u64> {
        if self.resting + self.stopping == 0 {
            return None;
        }
        let dues = |(_, entry): (usize, &Entry)| [entry.rest, entry.stop.and_then(|stop| stop.due)];
        self.entries.iter().flat_map(dues).flatten().min()
    }

    /// Wakes those whose rest is over.
    pub(super) fn rested(&mut self, now: u64) {
        if self.resting == 0 {
            return;
        }
        let rested = |entry: &Entry| entry.rest.is_some_and(|until| until <= now);
        let over: Vec<_> = self.entries.iter().filter(|(_, e)| rested(e)).map(|(index, _)| index).collect();
        for index in over {
            self.entries[index].rest = None;
            self.resting -= 1;
            self.ready(index as u32);
        }
    }

    /// A descriptor was freed: all try again at once.
    pub(super) fn retry(&mut self) {
        if self.resting > 0 {
            self.rested(u64::MAX);
        }
    }

    /// It stays out of the queue until then.
    pub(super) fn rest(&mut self, listener: u32, until: u64) {
        self.served(listener);
        if let Some(entry) = self.entries.get_mut(listener as usize)
            && entry.rest.replace(until).is_none()
        {
            self.resting += 1;
        }
    }

    // --- counting ---

    /// One more of its sockets lives.
    pub(super) fn came(&mut self, listener: u32) -> &mut Entry {
        let entry = &mut self.entries[listener as usize];
        entry.live += 1;
        entry
    }

    /// One of its sockets has told `close`.
    pub(super) fn gone(&mut self, id: ListenerId) {
        let Some(entry) = self.find_mut(id) else { return };
        entry.live -= 1;
        if entry.muted {
            self.go_on(id.index());
        }
        self.note_closed(id.index());
    }

    // --- stopping ---

    /// Notes that it is stopping, and nothing keeps those who wait from being served. `due` replaces what an earlier call has said.
    pub(super) fn stop(&mut self, id: ListenerId, due: Option<u64>) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id.index() as usize).filter(|entry| entry.id == id)?;
        entry.paused = false;
        let before = entry.stop.map(|stop| Stopping { due, ..stop });
        let stop = before.unwrap_or(Stopping { closed: false, waiting: entry.backlog.saturating_add(1), due });
        self.stopping += usize::from(entry.stop.replace(stop).is_none());
        Some(entry)
    }

    /// Whether its descriptor is open.
    pub(super) fn is_open(&self, listener: u32) -> bool {
        self.entries[listener as usize].stop.is_none_or(|stop| !stop.closed)
    }

    /// Its descriptor is closed: nobody asks it any more.
    pub(super) fn close(&mut self, listener: u32) {
        let entry = &mut self.entries[listener as usize];
        if let Some(stop) = &mut entry.stop {
            stop.closed = true;
        }
        if std::mem::take(&mut entry.queued) {
            self.queue.retain(|&queued| queued != listener);
        }
        self.resting -= usize::from(entry.rest.take().is_some());
        self.note_closed(listener);
    }

    /// The next whose time to stop is up.
    pub(super) fn pop_overdue(&mut self, now: u64) -> Option<u32> {
        if self.stopping == 0 {
            return None;
        }
        let overdue = |entry: &Entry| entry.stop.is_some_and(|stop| stop.due.is_some_and(|due| due <= now));
        let (index, entry) = self.entries.iter_mut().find(|(_, entry)| overdue(entry))?;
        if let Some(stop) = &mut entry.stop {
            stop.due = None;
        }
        Some(index as u32)
    }

    /// If it is closed and its last socket gone, that has to be told.
    fn note_closed(&mut self, listener: u32) {
        let entry = &self.entries[listener as usize];
        if entry.live == 0 && entry.stop.is_some_and(|stop| stop.closed) && !self.closed.contains(&listener) {
            self.closed.push_back(listener);
        }
    }

    /// The next stopped one to be told, if there is one.
    pub(super) fn next_closed(&self) -> Option<u32> {
        self.closed.front().copied()
    }

    // --- names ---

    /// All that are open or stopping.
    pub(super) fn ids(&self) -> impl Iterator<Item = ListenerId> + '_ {
        self.entries.iter().map(|(_, entry)| entry.id)
    }

    /// The name of the listener in this place.
    pub(super) fn id(&self, listener: u32) -> ListenerId {
        self.entries[listener as usize].id
    }

    /// One that accepts: not closed, and not stopped.
    pub(super) fn accepting_mut(&mut self, id: ListenerId) -> Option<&mut Entry> {
        self.find_mut(id).filter(|entry| entry.stop.is_none())
    }

    pub(super) fn find(&self, id: ListenerId) -> Option<&Entry> {
        self.entries.get(id.index() as usize).filter(|entry| entry.id == id)
    }

    pub(super) fn find_mut(&mut self, id: ListenerId) -> Option<&mut Entry> {
        self.entries.get_mut(id.index() as usize).filter(|entry| entry.id == id)
    }
}
