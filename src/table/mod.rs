//! The table of connections: one 64-byte entry each, the queues of those that have work, their timers.
//!
//! Invariant: an entry is in at most one list (ready, later, closes, or free), a free entry has no timer, no extra and no
//! settings, and an id finds an entry only while its generation is the entry's.
//!
//! Knows no system call and no clock: times come in as ticks (milliseconds since the reactor began).

mod audit;
pub(crate) mod entry;
pub(crate) mod extra;
mod list;
pub(crate) mod queue;
pub(crate) mod settings;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use slab::Slab;

use crate::buffer::Buffer;
use crate::error::Timer;
use crate::id::SocketId;
use crate::lifecycle::{Cell, Input, Kind, State, compact, step};
use crate::options::{Idle, Settings};
use crate::report;
use crate::wheel::{Node, Nodes, Wheel};
pub(crate) use audit::Waits;
use entry::{Entry, Flags, NIL};
use extra::{Deadline, Extra, Extras};
use list::List;
use settings::SettingsPool;

/// What the peer's kernel takes so soon after it was written counts as taken then. The real one says when to within two of its ticks
/// of 10 ms at the most; an ordinary silence is not to be counted anew for that.
pub(crate) const AT_ONCE_TICKS: u64 = 20;

/// A table that has outgrown so many entries ...
const FEW: usize = 64;
/// ... has room for so many at once, 256 KiB: pages that nobody has touched cost nothing, while a table that doubles from little leaves
/// every smaller one behind in the heap.
const MANY: usize = 4096;

pub(crate) struct Table {
    entries: Entries,
    free: List,
    len: usize,
    /// How many of them no listener has accepted.
    outgoing: usize,
    /// Places that are neither free nor a socket's.
    reserved: usize,
    /// Sockets with work for this turn.
    ready: List,
    /// Sockets with input left after their quantum: work for the next turn, behind whoever becomes ready meanwhile.
    later: List,
    /// Sockets that owe nothing but `close`.
    closes: List,
    pub(crate) wheel: Wheel,
    pub(crate) settings: SettingsPool,
    pub(crate) extras: Extras,
    /// IPv6 peers; the entry has room for an IPv4 address or a place in here.
    ipv6_peers: Slab<SocketAddrV6>,
}

/// The entries, as the wheel's storage.
#[derive(Default)]
pub(crate) struct Entries(Vec<Entry>);

impl Nodes for Entries {
    #[inline]
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self.0[index as usize].timer
    }
}

/// Which limit a deadline comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// The caller's idle time: an event.
    Idle,
    /// A limit that ends the socket.
    Limit(Timer),
    /// The next address joins the race.
    Attempt,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            entries: Entries::default(),
            free: List::new(),
            len: 0,
            outgoing: 0,
            reserved: 0,
            ready: List::new(),
            later: List::new(),
            closes: List::new(),
            wheel: Wheel::new(0),
            settings: SettingsPool::default(),
            extras: Extras::default(),
            ipv6_peers: Slab::new(),
        }
    }

    /// Sockets whose `close` was not told yet.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Those of them that began here, not at a listener.
    pub(crate) const fn outgoing(&self) -> usize {
        self.outgoing
    }

    #[inline]
    pub(crate) fn entry(&self, slot: u32) -> &Entry {
        &self.entries.0[slot as usize]
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries.0[slot as usize]
    }

    pub(crate) fn id(&self, slot: u32) -> SocketId {
        SocketId::new(slot, self.entry(slot).generation)
    }

    /// The place of a socket that lives, or has just told `close` and is not forgotten yet.
    #[inline]
    pub(crate) fn find(&self, id: SocketId) -> Option<u32> {
        let entry = self.entries.0.get(id.index() as usize)?;
        (entry.generation == id.generation() && entry.is_used()).then_some(id.index())
    }

    /// Every socket's place.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let entries = self.entries.0.iter().zip(0..);
        entries.filter(|(entry, _)| entry.is_used()).map(|(_, slot)| slot)
    }

    /// The place that the next [`insert`](Table::insert) will use.
    pub(crate) fn vacant(&mut self) -> u32 {
        if self.free.head() == NIL {
            let slot = u32::try_from(self.entries.0.len()).expect("fewer than 2^32 connections fit into a machine");
            if self.entries.0.len() == FEW {
                self.entries.0.reserve_exact(MANY - FEW);
            }
            self.entries.0.push(Entry::free());
            self.free.push_front(&mut self.entries.0, slot);
        }
        self.free.head()
    }

    /// Takes a place out of use that no socket has: the net keeps a connection there that is not a socket yet.
    pub(crate) fn reserve(&mut self) -> u32 {
        let place = self.vacant();
        self.free.pop_front(&mut self.entries.0);
        self.reserved += 1;
        place
    }

    pub(crate) const fn reserved(&self) -> usize {
        self.reserved
    }

    /// The net has nothing in that place any more.
    pub(crate) fn unreserve(&mut self, place: u32) {
        debug_assert!(!self.entry(place).is_used(), "a socket lives there");
        self.free.push_front(&mut self.entries.0, place);
        self.reserved -= 1;
    }

    /// Makes a socket in state Created with a reference to `settings`, which the table takes over.
    pub(crate) fn insert(&mut self, settings: u32) -> u32 {
        let slot = self.vacant();
        self.free.pop_front(&mut self.entries.0);
        let Settings { paused, listener, .. } = *self.settings.get(settings);
        self.outgoing += usize::from(listener.is_none());
        self.entry_mut(slot).begin(settings, paused);
        self.len += 1;
        slot
    }

    /// Frees the place of a socket that has told `close`. Its generation never comes back.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.wheel.cancel(&mut self.entries, slot);
        let entry = &self.entries.0[slot as usize];
        debug_assert!(!entry.flags.has(Flags::QUEUED), "a queued socket is not freed");
        let (extra, settings) = (entry.extra, entry.settings);
        if entry.flags.has(Flags::IPV6) {
            self.ipv6_peers.remove(entry.peer_ip as usize);
        }
        self.outgoing -= usize::from(self.settings.get(settings).listener.is_none());
        self.extras.release(extra);
        self.settings.release(settings);
        self.len -= 1;
        // A place whose generations are used up is retired: 64 bytes for four billion connections.
        if self.entry_mut(slot).forget() {
            self.free.push_front(&mut self.entries.0, slot);
        }
    }

    /// Takes one step of the lifecycle and notes the events that it tells. Answers from which state.
    #[inline]
    pub(crate) fn apply(&mut self, slot: u32, input: Input) -> State {
        let entry = self.entry_mut(slot);
        let from = entry.state;
        let step = compact(from, input);
        debug_assert!(step.kind != Kind::Impossible, "{input:?} can't happen in {from:?}");
        // What changes nothing goes to the present state and tells nothing.
        entry.state = step.to;
        entry.flags.owe_all(step.tells);
        if step.to != from {
            // The limit of the new state counts from now.
            entry.flags.set(Flags::TOUCHED, true);
            if entry.extra != NIL {
                self.count_anew(slot, step.to.is_flushing() && !from.is_flushing());
            }
        }
        if report::is_on() && step.kind == Kind::Go {
            self.log_step(slot, from, input);
        }
        from
    }

    #[inline(never)]
    fn count_anew(&mut self, slot: u32, begins_to_flush: bool) {
        let extra = self.extra_mut(slot);
        extra.limit_from = None;
        if begins_to_flush {
            extra.flushed = None;
        }
    }

    #[cold]
    #[inline(never)]
    fn log_step(&self, slot: u32, from: State, input: Input) {
        let Cell::Go(to, tells) = step(from, input) else { return };
        let events = crate::lifecycle::events(tells);
        report::transition(self.id(slot), self.peer(slot), from, input, to, &events);
    }

    // --- the lists ---

    /// Puts a socket into this turn's queue, unless it is queued already.
    #[inline]
    pub(crate) fn push_ready(&mut self, slot: u32) {
        if self.queue(slot) {
            self.ready.push_back(&mut self.entries.0, slot);
        }
    }

    /// Likewise, ahead of all others: its next event belongs directly behind its last.
    pub(crate) fn push_ready_front(&mut self, slot: u32) {
        if self.queue(slot) {
            self.ready.push_front(&mut self.entries.0, slot);
        }
    }

    /// Puts a socket into the next turn's queue, unless it is queued already.
    #[inline]
    pub(crate) fn push_later(&mut self, slot: u32) {
        if self.queue(slot) {
            self.later.push_back(&mut self.entries.0, slot);
        }
    }

    /// Puts a socket into the queue of those that owe only `close`.
    pub(crate) fn push_close(&mut self, slot: u32) {
        if self.queue(slot) {
            self.closes.push_back(&mut self.entries.0, slot);
        }
    }

    #[inline]
    fn queue(&mut self, slot: u32) -> bool {
        !self.entry_mut(slot).flags.replace(Flags::QUEUED, true)
    }

    #[inline]
    pub(crate) fn pop_ready(&mut self) -> Option<u32> {
        let slot = self.ready.pop_front(&mut self.entries.0)?;
        self.entry_mut(slot).flags.set(Flags::QUEUED, false);
        Some(slot)
    }

    pub(crate) fn pop_close(&mut self) -> Option<u32> {
        let slot = self.closes.pop_front(&mut self.entries.0)?;
        self.entry_mut(slot).flags.set(Flags::QUEUED, false);
        Some(slot)
    }

    /// Begins a turn: what was put off comes first.
    pub(crate) fn begin_turn(&mut self) {
        let rest = std::mem::replace(&mut self.ready, std::mem::replace(&mut self.later, List::new()));
        self.ready.append(&mut self.entries.0, rest);
    }

    pub(crate) const fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) const fn has_later(&self) -> bool {
        self.later.len() > 0
    }

    pub(crate) const fn closes_len(&self) -> usize {
        self.closes.len()
    }

    /// Whether any list has work.
    pub(crate) const fn has_work(&self) -> bool {
        self.ready.len() + self.later.len() + self.closes.len() > 0
    }

    // --- timers ---

    /// The nearest deadline of a socket, in ticks, and what it is the deadline of.
    pub(crate) fn deadline(&self, slot: u32) -> Option<(u64, Due)> {
        let entry = self.entry(slot);
        let settings = self.settings.get(entry.settings);
        let attempt = || self.extra(slot)?.connecting.as_ref()?.attempt_due.map(|due| (due, Due::Attempt));
        let attempt = if entry.flags.has(Flags::ATTEMPT) { attempt() } else { None };
        let since = self.limit_since(slot);
        let limit = entry.limit(settings).map(|(ms, timer)| (since.saturating_add(ms), Due::Limit(timer)));
        let idle = settings
            .idle_ms
            .filter(|_| entry.may_idle())
            .map(|ms| (self.idle_since(slot).saturating_add(ms), Due::Idle));
        let write = self.write_due(slot).map(|due| (due, Due::Limit(Timer::Write)));
        let deadline = self.deadline_at(slot).map(|due| (due, Due::Limit(Timer::Deadline)));
        // At one and the same tick a limit wins: an event about a silence that has ended the socket helps nobody.
        [limit, write, deadline, attempt, idle].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    /// When the caller's own deadline is, if there is one that has begun.
    pub(crate) fn deadline_at(&self, slot: u32) -> Option<u64> {
        let at = |deadline| if let Deadline::At(tick) = deadline { Some(tick) } else { None };
        self.extra(slot)?.deadline.and_then(at)
    }

    /// Begins the deadline that the caller has set, at this tick.
    pub(crate) fn begin_deadline(&mut self, slot: u32, now: u64) {
        if let Some(Deadline::In(ms)) = self.extra(slot).and_then(|extra| extra.deadline) {
            self.extra_mut(slot).deadline = Some(Deadline::At(now.saturating_add(ms)));
            self.refile(slot);
        }
    }

    /// When the bytes that wait have waited too long. After `end()` the linger time rules.
    fn write_due(&self, slot: u32) -> Option<u64> {
        let ms = self.write_limit(slot)?;
        let since = self.extra(slot).and_then(|extra| extra.flushed).unwrap_or(self.entry(slot).touched());
        Some(since.saturating_add(ms))
    }

    /// The write timeout, while it counts.
    fn write_limit(&self, slot: u32) -> Option<u64> {
        let entry = self.entry(slot);
        let waits = entry.extra != NIL && self.queued_bytes(slot) > 0 && entry.state.is_connected();
        self.settings.get(entry.settings).write_ms.filter(|_| waits && !entry.state.is_flushing())
    }

    /// From when a silence counts.
    fn idle_since(&self, slot: u32) -> u64 {
        self.extra(slot).and_then(|extra| extra.idle_from).unwrap_or(self.entry(slot).touched())
    }

    /// A silence counts from now, whatever has moved: once the reactor has looked at the clock.
    pub(crate) fn begin_silence(&mut self, slot: u32) {
        if self.entry(slot).extra != NIL {
            self.extra_mut(slot).idle_from = None;
        }
        self.entry_mut(slot).flags.set(Flags::TOUCHED | Flags::MOVED, true);
    }

    /// Bytes have moved in a direction. Whether that breaks the silence; if not, it goes on from where it began.
    #[inline]
    pub(crate) fn breaks_silence(&mut self, slot: u32, direction: Idle) -> bool {
        let entry = self.entry(slot);
        let idle_of = self.settings.get(entry.settings).idle_of;
        if idle_of == Idle::Both {
            return true;
        }
        let (since, unarmed) = (entry.touched(), entry.flags.has(Flags::TOUCHED));
        let idle_from = &mut self.extra_mut(slot).idle_from;
        if idle_of == direction {
            *idle_from = None;
        } else if !unarmed {
            idle_from.get_or_insert(since);
        }
        idle_of == direction
    }

    /// From when the limit of the present state counts. While we flush only bytes that leave, or are taken, put it off: a peer that
    /// sends and takes nothing has the linger time and no more.
    fn limit_since(&self, slot: u32) -> u64 {
        let entry = self.entry(slot);
        let flushed = || self.extra(slot).and_then(|extra| extra.flushed);
        let kept = || self.extra(slot).and_then(|extra| extra.limit_from);
        let since = if entry.state.is_flushing() { flushed() } else { kept() };
        since.unwrap_or(entry.touched())
    }

    /// The caller has the silence counted anew: that puts no limit off, or who asks often would never meet it.
    pub(crate) fn keep_limit(&mut self, slot: u32) {
        let entry = self.entry(slot);
        let rules = entry.limit(self.settings.get(entry.settings)).is_some();
        // If bytes have just moved, or the state has changed, the limit counts anew by itself.
        if rules && !entry.flags.has(Flags::TOUCHED) {
            let since = entry.touched();
            self.extra_mut(slot).limit_from.get_or_insert(since);
        }
    }

    /// Bytes have moved, or the state has changed: the limit counts anew.
    #[inline]
    pub(crate) fn renew_limit(&mut self, slot: u32) {
        if self.entry(slot).extra != NIL {
            self.extra_mut(slot).limit_from = None;
        }
    }

    /// The peer's kernel has taken bytes from ours at this tick: as if they had been written then.
    pub(crate) fn taken(&mut self, slot: u32, at: u64) {
        let later = |since: u64| if at > since.saturating_add(AT_ONCE_TICKS) { at } else { since };
        let idle_of = self.settings.get(self.entry(slot).settings).idle_of;
        let silent_since = self.idle_since(slot);
        let entry = self.entry_mut(slot);
        entry.touch(later(entry.touched()));
        if entry.extra == NIL && idle_of == Idle::Both {
            return;
        }
        let extra = self.extra_mut(slot);
        extra.flushed = extra.flushed.map(later);
        extra.limit_from = extra.limit_from.map(later);
        extra.idle_from = match idle_of {
            Idle::Both => None,
            Idle::Read => Some(silent_since),
            Idle::Write => Some(later(silent_since)),
        };
    }

    /// Whether any timer applies to the socket as it is now.
    #[inline]
    pub(crate) fn has_timer(&self, slot: u32) -> bool {
        let entry = self.entry(slot);
        let settings = self.settings.get(entry.settings);
        (settings.idle_ms.is_some() && entry.may_idle())
            || entry.limit(settings).is_some()
            || (settings.write_ms.is_some() && self.write_limit(slot).is_some())
    }

    /// Notes activity at `now` and files the nearest deadline.
    pub(crate) fn arm(&mut self, slot: u32, now: u64) {
        self.entry_mut(slot).touch(now);
        if self.entry(slot).state.is_flushing() || self.write_limit(slot).is_some() {
            self.extra_mut(slot).flushed.get_or_insert(now);
        }
        self.refile(slot);
    }

    /// Files the nearest deadline as it is, or takes the timer out of the wheel.
    pub(crate) fn refile(&mut self, slot: u32) {
        match self.deadline(slot) {
            Some((due, _)) => self.wheel.file(&mut self.entries, slot, due),
            None => self.wheel.cancel(&mut self.entries, slot),
        }
    }

    /// Files the caller's deadline alone, if there is one.
    pub(crate) fn file_deadline(&mut self, slot: u32) {
        if let Some(due) = self.deadline_at(slot) {
            self.wheel.file(&mut self.entries, slot, due);
        }
    }

    #[inline]
    pub(crate) fn disarm(&mut self, slot: u32) {
        self.wheel.cancel(&mut self.entries, slot);
    }

    /// The next socket whose filed time has come; its true deadline may be later.
    pub(crate) fn pop_due(&mut self, now: u64, budget: &mut u32) -> Option<u32> {
        self.wheel.pop_due(&mut self.entries, now, budget)
    }

    // --- parts of an entry that live elsewhere ---

    pub(crate) fn settings_of(&self, slot: u32) -> &Settings {
        self.settings.get(self.entry(slot).settings)
    }

    /// Changes one socket's settings; all others that shared them keep theirs.
    pub(crate) fn change_settings(&mut self, slot: u32, change: impl FnOnce(&mut Settings)) {
        let old = self.entry(slot).settings;
        let mut changed = self.settings.get(old).clone();
        change(&mut changed);
        let new = self.settings.intern(changed);
        self.settings.release(old);
        self.entry_mut(slot).settings = new;
    }

    pub(crate) fn extra(&self, slot: u32) -> Option<&Extra> {
        self.extras.get(self.entry(slot).extra)
    }

    /// The socket's extra, made if there is none.
    pub(crate) fn extra_mut(&mut self, slot: u32) -> &mut Extra {
        let entry = &mut self.entries.0[slot as usize];
        self.extras.get_or_make(&mut entry.extra)
    }

    /// The way to being connected is behind it.
    pub(crate) fn connected(&mut self, slot: u32) {
        self.extras.connected(self.entries.0[slot as usize].extra);
    }

    /// Gives the extra back if nothing is in it any more.
    #[inline]
    pub(crate) fn tidy_extra(&mut self, slot: u32) {
        let entry = &mut self.entries.0[slot as usize];
        self.extras.release_if_empty(&mut entry.extra);
    }

    /// Queues bytes of a socket by copying them. Answers how many wait now.
    #[inline]
    pub(crate) fn push(&mut self, slot: u32, bytes: &[u8]) -> usize {
        self.extras.push(&mut self.entries.0[slot as usize].extra, bytes)
    }

    /// Queues a buffer as it is. Answers how many bytes wait now.
    pub(crate) fn push_given(&mut self, slot: u32, buffer: Buffer) -> usize {
        self.extras.push_given(&mut self.entries.0[slot as usize].extra, buffer)
    }

    /// The kernel has taken so many of the bytes that wait. Answers the extra that has the queue.
    #[inline]
    pub(crate) fn sent(&mut self, slot: u32, bytes: usize) -> &mut Extra {
        self.extras.sent(self.entries.0[slot as usize].extra, bytes)
    }

    pub(crate) fn queued_bytes(&self, slot: u32) -> usize {
        self.extra(slot).map_or(0, |extra| extra.queue.len())
    }

    pub(crate) fn peer(&self, slot: u32) -> Option<SocketAddr> {
        let entry = self.entry(slot);
        if entry.peer_port == 0 {
            return None;
        }
        if entry.flags.has(Flags::IPV6) {
            return self.ipv6_peers.get(entry.peer_ip as usize).copied().map(SocketAddr::V6);
        }
        Some(SocketAddr::new(IpAddr::V4(entry.peer_ip.into()), entry.peer_port))
    }

    pub(crate) fn set_peer(&mut self, slot: u32, addr: SocketAddr) {
        let entry = &mut self.entries.0[slot as usize];
        if entry.flags.replace(Flags::IPV6, addr.is_ipv6()) {
            self.ipv6_peers.remove(entry.peer_ip as usize);
        }
        entry.peer_port = addr.port();
        entry.peer_ip = match addr {
            SocketAddr::V4(v4) => (*v4.ip()).into(),
            SocketAddr::V6(v6) => self.ipv6_peers.insert(v6) as u32,
        };
    }
}
