//! The table of connections: 64-byte entries, lists of those with work, timers.
//!
//! Invariant: a socket is in at most one list (ready, later, closes). A slot without a socket has
//! no timer, no extra and no settings. An id finds a socket only if its reactor and its generation
//! match.
//!
//! This module makes no system call and reads no clock: times are ticks.

mod audit;
mod clocks;
pub(crate) mod entry;
pub(crate) mod extra;
pub(crate) mod queue;
pub(crate) mod settings;
pub(crate) mod shared;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use slab::Slab;

use crate::buffer::Buffer;
use crate::id::{ListenerId, SocketId};
use crate::kernel_pipe::KernelPipe;
use crate::options::Settings;
use crate::ticks::Epoch;
use crate::wheel::{Node, Nodes, Wheel};
pub(crate) use audit::Waits;
pub(crate) use clocks::{AT_ONCE_TICKS, Due};
use entry::{Entry, Flags, NIL, Next};
use extra::{Extra, Extras};
use queue::COPY_BELOW_BYTES;
use settings::SettingsPool;
use shared::Shared;
use timers::Timers;

/// A table that has outgrown this many entries ...
const FEW: usize = 64;
/// ... has room for this many at once, 256 KiB: untouched pages cost nothing, while a table that
/// doubles from a small size leaves every smaller one in the heap.
const MANY: usize = 4096;

/// Bytes written to the socket at hand that wait in one buffer for all sockets.
const AT_HAND_BYTES: usize = 64 * 1024;

pub(crate) struct Table {
    /// Increases with each socket.
    generation: u32,
    pub(crate) entries: Slab<Entry>,
    /// How many sockets are outgoing, now and in total.
    pub(crate) outgoing: usize,
    pub(crate) begun: u64,
    /// Slots that are reserved for attempts to connect.
    pub(crate) reserved: usize,
    /// Sockets with work for this turn.
    pub(crate) ready: VecDeque<u32>,
    /// Sockets with input left after their quantum: work for the next turn, after the ready ones.
    pub(crate) later: VecDeque<u32>,
    /// Sockets that have only their `close` left.
    pub(crate) closes: VecDeque<u32>,
    /// Sockets put aside since the last look at the clock: their deadlines are filed at the next.
    pub(crate) unfiled: Vec<u32>,
    pub(crate) wheel: Wheel,
    /// Timers of no socket.
    pub(crate) timers: Timers,
    pub(crate) epoch: Epoch,
    pub(crate) settings: SettingsPool,
    pub(crate) extras: Extras,
    /// The socket whose event the caller has now, or `NIL`.
    pub(crate) at_hand: u32,
    pub(crate) shared: Arc<Shared>,
}

const _: () = assert!(size_of::<slab::Slab<Entry>>() > 0 && size_of::<Option<Entry>>() == 64, "the entry has a niche");

impl Nodes for Slab<Entry> {
    #[inline]
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self[index as usize].timer
    }
}

impl Table {
    pub(crate) fn new(reactor: u32, epoch: Epoch, shared: Arc<Shared>) -> Self {
        Self {
            generation: 0,
            entries: Slab::new(),
            outgoing: 0,
            begun: 0,
            reserved: 0,
            ready: VecDeque::new(),
            later: VecDeque::new(),
            closes: VecDeque::new(),
            unfiled: Vec::new(),
            wheel: Wheel::new(0),
            timers: Timers::new(reactor),
            epoch,
            settings: SettingsPool::default(),
            extras: Extras::new(reactor, epoch),
            at_hand: NIL,
            shared,
        }
    }

    /// Sockets whose `close` was not delivered yet.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.reserved
    }

    #[inline]
    pub(crate) fn entry(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    /// An entry with its settings, and its extra if it has one.
    #[inline]
    pub(crate) fn parts(&self, slot: u32) -> (&Entry, &Settings, Option<&Extra>) {
        let entry = self.entry(slot);
        (entry, self.settings.get(entry.settings), self.extras.get(entry.extra))
    }

    pub(crate) fn id(&self, slot: u32) -> SocketId {
        SocketId::new(self.extras.reactor, slot, self.entry(slot).generation)
    }

    /// The slot of a socket that is live, or has just delivered `close` and is not removed yet.
    #[inline]
    pub(crate) fn find(&self, id: SocketId) -> Option<u32> {
        (id.reactor() == self.extras.reactor).then(|| self.find_here(id.index(), id.generation())).flatten()
    }

    /// The same for a token of the net, which belongs to one reactor anyway.
    #[inline]
    pub(crate) fn find_here(&self, slot: u32, generation: u32) -> Option<u32> {
        let entry = self.entries.get(slot as usize)?;
        (entry.generation == generation && entry.is_socket()).then_some(slot)
    }

    /// Every socket's slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.iter().filter(|(_, entry)| entry.is_socket()).map(|(slot, _)| slot as u32)
    }

    /// The slot that the next [`insert`](Table::insert) will use.
    pub(crate) fn vacant(&self) -> u32 {
        u32::try_from(self.entries.vacant_key()).expect("fewer than 2^32 connections fit into a machine")
    }

    /// Reserves a slot without a socket, for an attempt of the net.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.reserved += 1;
        self.entries.insert(Entry::reserved()) as u32
    }

    /// The net has released the slot.
    pub(crate) fn unreserve(&mut self, slot: u32) {
        let entry = self.entries.remove(slot as usize);
        debug_assert!(!entry.is_socket(), "a socket lives there");
        self.reserved -= 1;
    }

    /// Creates a socket in state Created with a reference to `settings`, which the table takes
    /// over.
    #[inline(always)]
    pub(crate) fn insert(&mut self, settings: u32, peer: Option<SocketAddr>, flags: Flags) -> u32 {
        let Settings { paused, listener, .. } = *self.settings.get(settings);
        self.outgoing += usize::from(listener.is_none());
        // Generation 0 belongs to no socket.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.entries.len() == FEW {
            self.entries.reserve_exact(MANY - FEW);
        }
        let paused = if paused { Flags::PAUSED } else { Flags::NONE };
        let mut entry = Entry::new(self.generation, settings, flags | paused);
        if let Some(peer) = peer {
            entry.set_peer(peer, &mut self.extras.ipv6_peers);
        }
        self.entries.insert(entry) as u32
    }

    /// Frees the slot of a socket that has delivered `close`. Returns its listener, and whether it
    /// was beyond that listener's maximum.
    #[inline(always)]
    pub(crate) fn remove(&mut self, slot: u32) -> (Option<ListenerId>, bool) {
        let entry = self.entries.remove(slot as usize);
        debug_assert!(!entry.flags.has(Flags::QUEUED) && !entry.timer.is_filed(), "nothing points to it");
        if entry.flags.has(Flags::IPV6) {
            self.extras.ipv6_peers.remove(entry.peer_ip as usize);
        }
        self.extras.release(entry.extra);
        let listener = self.settings.release(entry.settings);
        self.outgoing -= usize::from(listener.is_none());
        (listener, entry.flags.has(Flags::OVERFLOW))
    }

    // --- the lists ---

    /// There is a reason for a step in this turn. The socket at hand gets it anyway.
    #[inline]
    pub(crate) fn wake(&mut self, slot: u32) {
        self.wake_with(slot, Flags::SOON);
    }

    /// The same, and sets flags.
    #[inline]
    pub(crate) fn wake_with(&mut self, slot: u32, flags: Flags) {
        let entry = &mut self.entries[slot as usize];
        entry.flags.set(Flags::SOON | flags, true);
        if slot != self.at_hand && !entry.flags.replace(Flags::QUEUED, true) {
            self.ready.push_back(slot);
        }
    }

    /// Puts a socket that needs this into the matching list, unless it is in a list.
    #[inline(always)]
    pub(crate) fn put(&mut self, slot: u32, next: Next) {
        if next == Next::Wait || self.entry_mut(slot).flags.replace(Flags::QUEUED, true) {
            return;
        }
        match next {
            // Its next event follows its last one directly.
            Next::Deliver => self.ready.push_front(slot),
            Next::Now => self.ready.push_back(slot),
            Next::Later => self.later.push_back(slot),
            Next::Close => self.closes.push_back(slot),
            Next::Wait => {}
        }
    }

    #[inline]
    pub(crate) fn pop_ready(&mut self) -> Option<u32> {
        let slot = self.ready.pop_front()?;
        let flags = &mut self.entry_mut(slot).flags;
        flags.set(Flags::QUEUED, false);
        // The later ones are ready now.
        flags.set(Flags::SOON, true);
        Some(slot)
    }

    pub(crate) fn pop_close(&mut self) -> Option<u32> {
        let slot = self.closes.pop_front()?;
        self.entry_mut(slot).flags.set(Flags::QUEUED, false);
        Some(slot)
    }

    /// Whether any list has work.
    pub(crate) fn has_work(&self) -> bool {
        !(self.ready.is_empty() && self.later.is_empty() && self.closes.is_empty())
    }

    // --- parts of an entry that are stored elsewhere ---

    #[inline]
    pub(crate) fn settings_of(&self, slot: u32) -> &Settings {
        self.settings.get(self.entry(slot).settings)
    }

    pub(crate) fn change_settings(&mut self, slot: u32, change: impl FnOnce(&mut Settings)) {
        self.settings.change(&mut self.entries[slot as usize].settings, change);
    }

    pub(crate) fn extra(&self, slot: u32) -> Option<&Extra> {
        self.extras.get(self.entry(slot).extra)
    }

    /// The socket's extra, created if there is none.
    pub(crate) fn extra_mut(&mut self, slot: u32) -> &mut Extra {
        self.extras.get_or_make(&mut self.entries[slot as usize].extra)
    }

    /// Releases the extra if it is empty.
    #[inline]
    pub(crate) fn tidy(&mut self, slot: u32) {
        self.extras.release_if_empty(&mut self.entries[slot as usize].extra);
    }

    /// Queues bytes of a socket by copying them. Returns how many wait now.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, bytes: &[u8]) -> usize {
        if slot == self.at_hand && self.extras.at_hand_bytes.len() + bytes.len() <= AT_HAND_BYTES {
            let entry = &self.entries[slot as usize];
            let in_order = !self.extras.get(entry.extra).is_some_and(Extra::has_bytes);
            if in_order && entry.flags.has(Flags::WRITABLE) && entry.state.can_send() {
                self.extras.at_hand_bytes.extend_from_slice(bytes);
                return self.extras.at_hand_bytes.len();
            }
        }
        self.push_queue(slot, bytes)
    }

    #[inline(never)]
    fn push_queue(&mut self, slot: u32, bytes: &[u8]) -> usize {
        self.spill(slot);
        self.extras.push(&mut self.entries[slot as usize].extra, bytes)
    }

    /// Queues a buffer without copying it. Returns how many bytes wait now.
    pub(crate) fn push_given(&mut self, slot: u32, buffer: Buffer) -> usize {
        if buffer.len() < COPY_BELOW_BYTES {
            return self.push(slot, buffer.as_ref());
        }
        self.spill(slot);
        self.extras.append(&mut self.entries[slot as usize].extra, buffer)
    }

    /// Queues what is in a kernel pipe. Returns how many bytes wait now. The socket is the next to
    /// be served: then the pipe is empty before another one is needed.
    pub(crate) fn push_spliced(&mut self, slot: u32, pipe: Box<KernelPipe>) -> usize {
        self.spill(slot);
        self.wake(slot);
        if self.ready.back() == Some(&slot) {
            self.ready.rotate_right(1);
        }
        self.extras.append(&mut self.entries[slot as usize].extra, pipe)
    }

    /// Moves what was written to the socket at hand into its queue, if this socket is the one at
    /// hand.
    #[inline]
    pub(crate) fn spill(&mut self, slot: u32) {
        if slot == self.at_hand && !self.extras.at_hand_bytes.is_empty() {
            let entry = &mut self.entries[slot as usize];
            self.extras.spill(&mut entry.extra, 0);
            entry.flags.set(Flags::WRITE, true);
        }
    }

    /// Bytes that wait for our kernel.
    pub(crate) fn queued_bytes(&self, slot: u32) -> usize {
        let at_hand = if slot == self.at_hand { self.extras.at_hand_bytes.len() } else { 0 };
        at_hand + self.extra(slot).map_or(0, |extra| extra.queue.len())
    }

    pub(crate) fn peer(&self, slot: u32) -> Option<SocketAddr> {
        self.entry(slot).peer(&self.extras.ipv6_peers)
    }

    pub(crate) fn set_peer(&mut self, slot: u32, addr: SocketAddr) {
        self.entries[slot as usize].set_peer(addr, &mut self.extras.ipv6_peers);
    }
}
