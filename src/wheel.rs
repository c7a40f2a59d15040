//! The timer wheel. Its invariant: a node never leaves the wheel before its due tick, and its slot
//! is examined no later than at that tick. So a timer is never early, and is late only if the
//! caller is.
//!
//! It has no clock: the caller passes the current tick. It owns no entries: its links are inside
//! the caller's entries, reached through [`Nodes`].
//!
//! **One rotation of slots, without levels.** The slot of a tick is its low bits. A node that is
//! due in a later rotation is in the slot of its tick too: when the slot comes up, the wheel files
//! the node again. There is no cascade, and to cancel is to unlink.
//!
//! **Moving to a later tick is one store.** The node stays where it is, with its new due tick, and
//! is filed again when its old slot comes up. A socket that restarts its idle time a thousand times
//! is moved once.
//!
//! **Passes.** An expiry pass is the sequence of [`Wheel::pop_due`] calls up to the `None` with
//! which nothing is left. It takes the overdue nodes first, and then each slot from where the last
//! pass ended, as a whole list. What the caller files as due during a pass waits for the next one,
//! so a handler that always files itself again can't hold the loop. A pass that has used up its
//! budget is continued by the next call.
//!
//! # Not guaranteed
//! Within one slot the order is not that of filing. When the clock jumps over more than one
//! rotation, the order is by slot and not by due tick.

use std::mem::{replace, take};

const SLOT_BITS: u32 = 14;

/// The slots of one rotation, one tick each. Most deadlines of a connection are within 16.4 s of 1
/// ms ticks, so few nodes are examined too early, and 64 KiB of slots stay in the second-level
/// cache.
pub(crate) const SLOTS: usize = 1 << SLOT_BITS;

/// The list of nodes that were due when they were filed; the next pass begins with them.
const OVERDUE: usize = SLOTS;
/// The list that the present pass has taken.
const EXPIRING: usize = OVERDUE + 1;
const LISTS: usize = EXPIRING + 1;

/// No node. As `prev`: the node is not filed.
const NIL: u32 = u32::MAX;
/// From here up to `NIL`, a `prev` is a mark: the node is the head of list `prev - FIRST_MARK`. So
/// a head can be unlinked without a search, and without the slot of its due tick, which may have
/// changed.
const FIRST_MARK: u32 = NIL - LISTS as u32;

/// The wheel's part of an entry: its links and its due tick. It must not move to another index
/// while it is filed.
#[derive(Debug)]
pub(crate) struct Node {
    next: u32,
    prev: u32,
    due: u64,
}

/// A quarter of the entry's cache line.
const _: () = assert!(size_of::<Node>() == 16);

impl Node {
    /// A node that is not filed.
    pub(crate) const fn new() -> Self {
        Self { next: NIL, prev: NIL, due: 0 }
    }

    /// Whether a wheel holds the node.
    #[inline]
    pub(crate) fn is_filed(&self) -> bool {
        self.prev != NIL
    }

    /// Moves the node to a later tick, without its wheel. Returns whether it is filed for that now.
    #[inline]
    pub(crate) fn put_off(&mut self, due: u64) -> bool {
        // Its slot is examined by its old due tick, which is early enough for a later one.
        let is_later = self.is_filed() && self.due <= due;
        if is_later {
            self.due = due;
        }
        is_later
    }

    /// The tick for which the node is filed, if it is.
    pub(crate) fn due(&self) -> Option<u64> {
        self.is_filed().then_some(self.due)
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

/// The storage of the nodes. Every call on one wheel must get the same storage.
pub(crate) trait Nodes {
    /// The node at `index`: one that is filed, or that the caller has passed.
    fn node(&mut self, index: u32) -> &mut Node;
}

/// A flat hashed timer wheel. An entry must be cancelled before its index is used for another.
pub(crate) struct Wheel {
    /// The first node of each list: the slots, then `OVERDUE` and `EXPIRING`.
    heads: Box<[u32; LISTS]>,
    occupied: Bitmap,
    len: usize,
    /// The tick at which the next occupied slot comes up, if it is known and nothing is due before:
    /// no node is overdue, and no pass has begun.
    next: Option<u64>,
    /// The latest tick for which a pass was begun. Outside a pass, every node in a slot is due
    /// later.
    present: u64,
    /// Whether a pass has begun, and the caller has not got its final `None`.
    in_pass: bool,
    /// The slot at which the pass continues, and how many slots it still covers.
    pass_slot: usize,
    pass_slots_left: usize,
}

impl Wheel {
    /// An empty wheel at tick `now`. It allocates its slots here, and nothing later.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            heads: Box::new([NIL; LISTS]),
            occupied: Bitmap::new(),
            len: 0,
            next: None,
            present: now,
            in_pass: false,
            pass_slot: 0,
            pass_slots_left: 0,
        }
    }

    /// How many nodes are filed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether no node is filed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files the node for tick `due`, or moves it there if it is filed already. If `due` is not
    /// after the present tick, the next pass returns it, even a pass for the same tick.
    #[inline]
    pub(crate) fn file(&mut self, nodes: &mut impl Nodes, index: u32, due: u64) {
        debug_assert!(index < FIRST_MARK, "the highest indices are taken by marks");
        let node = nodes.node(index);
        if node.put_off(due) {
            return;
        }
        if node.is_filed() {
            self.unlink(nodes, index);
        } else {
            self.len += 1;
        }
        self.link(nodes, index, due);
    }

    /// Takes the node out if it is filed. Allowed at any time, also for a node that the present
    /// pass has not returned yet.
    #[inline]
    pub(crate) fn cancel(&mut self, nodes: &mut impl Nodes, index: u32) {
        if nodes.node(index).is_filed() {
            self.unlink(nodes, index);
            self.len -= 1;
        }
    }

    /// The tick at which the next pass is due; `None` if nothing is filed. It is never after the
    /// earliest due tick, unless the wheel has passed that already (an overdue node, an unfinished
    /// pass). It may be earlier, if a slot comes up whose node is due in a later rotation or was
    /// moved to a later tick.
    #[inline]
    pub(crate) fn next_due(&mut self) -> Option<u64> {
        if self.next.is_some() || self.is_empty() { self.next } else { self.find_next_due() }
    }

    #[inline(never)]
    fn find_next_due(&mut self) -> Option<u64> {
        if self.in_pass || self.heads[OVERDUE] != NIL {
            return Some(self.present);
        }
        self.next = self.occupied.first_from(slot_after(self.present)).map(|slot| self.comes_up(slot));
        self.next
    }

    /// The tick at which a slot comes up.
    #[inline]
    fn comes_up(&self, slot: usize) -> u64 {
        self.present.saturating_add(1 + slots_between(slot_after(self.present), slot) as u64)
    }

    /// Takes out one node that is due at tick `now` or earlier and returns its index. `None` if the
    /// pass is over, or the budget is used up: it decreases by one for each node that is examined,
    /// even if it is only filed again. A `now` before the present tick counts as the present.
    pub(crate) fn pop_due(&mut self, nodes: &mut impl Nodes, now: u64, budget: &mut u32) -> Option<u32> {
        // Each round examines a node, takes a slot, or ends or begins a pass. Only a later `now`
        // begins a second one.
        loop {
            let index = self.heads[EXPIRING];
            if index != NIL {
                if *budget == 0 {
                    return None;
                }
                *budget -= 1;
                let due = nodes.node(index).due;
                self.unlink(nodes, index);
                if due <= self.present {
                    self.len -= 1;
                    return Some(index);
                }
                self.link(nodes, index, due);
            } else if self.in_pass {
                if !self.take_next_slot(nodes) {
                    self.in_pass = false;
                    if now <= self.present {
                        return None;
                    }
                }
            } else if !self.begin_pass(nodes, now) {
                return None;
            }
        }
    }

    /// Begins a pass for tick `now` if it has anything to cover. Returns whether it did.
    fn begin_pass(&mut self, nodes: &mut impl Nodes, now: u64) -> bool {
        let ticks = now.saturating_sub(self.present);
        if self.heads[OVERDUE] == NIL && (ticks == 0 || self.next_due().is_none_or(|due| due > now)) {
            self.present += ticks;
            return false;
        }
        self.in_pass = true;
        self.next = None;
        self.pass_slot = slot_after(self.present);
        // After a jump over many rotations, one round of the slots finds everything that is due.
        self.pass_slots_left = ticks.min(SLOTS as u64) as usize;
        self.present += ticks;
        self.take(nodes, OVERDUE);
        true
    }

    /// Takes the next occupied slot that the pass covers. Returns whether there was one.
    fn take_next_slot(&mut self, nodes: &mut impl Nodes) -> bool {
        let Some(slot) = self.occupied.first_from(self.pass_slot) else {
            return false;
        };
        let slots = 1 + slots_between(self.pass_slot, slot);
        if slots > self.pass_slots_left {
            return false;
        }
        self.pass_slots_left -= slots;
        self.pass_slot = (slot + 1) % SLOTS;
        self.occupied.clear(slot);
        self.next = None;
        self.take(nodes, slot);
        true
    }

    /// Makes a whole list the expiring one, so that nodes that are filed into it from now on are
    /// not part of this pass.
    fn take(&mut self, nodes: &mut impl Nodes, list: usize) {
        debug_assert_eq!(self.heads[EXPIRING], NIL, "a list is taken only when the one before is done");
        let head = replace(&mut self.heads[list], NIL);
        self.heads[EXPIRING] = head;
        if head != NIL {
            nodes.node(head).prev = mark(EXPIRING);
        }
    }

    #[inline]
    fn link(&mut self, nodes: &mut impl Nodes, index: u32, due: u64) {
        // The slot of a past tick would come up a rotation too late, so an overdue node has its own
        // list.
        let list = if due <= self.present { OVERDUE } else { slot_of(due) };
        if list == OVERDUE {
            self.next = None;
        }
        let head = replace(&mut self.heads[list], index);
        *nodes.node(index) = Node { next: head, prev: mark(list), due };
        if head != NIL {
            nodes.node(head).prev = index;
        } else if list < SLOTS {
            self.occupied.set(list);
            self.next = self.next.map(|next| next.min(self.comes_up(list)));
        }
    }

    #[inline]
    fn unlink(&mut self, nodes: &mut impl Nodes, index: u32) {
        let Node { next, prev, .. } = take(nodes.node(index));
        if prev < FIRST_MARK {
            nodes.node(prev).next = next;
        } else {
            let list = (prev - FIRST_MARK) as usize;
            self.heads[list] = next;
            if next == NIL && list < SLOTS {
                self.occupied.clear(list);
                self.next = None;
            }
        }
        if next != NIL {
            nodes.node(next).prev = prev;
        }
    }
}

#[inline]
fn mark(list: usize) -> u32 {
    FIRST_MARK + list as u32
}

#[inline]
fn slot_of(tick: u64) -> usize {
    tick as usize % SLOTS
}

#[inline]
fn slot_after(tick: u64) -> usize {
    slot_of(tick.wrapping_add(1))
}

/// The distance in slots from one slot to the other, in the direction of time.
#[inline]
fn slots_between(from: usize, to: usize) -> usize {
    to.wrapping_sub(from) % SLOTS
}

const WORDS: usize = SLOTS / 64;
const GROUPS: usize = WORDS / 64;
const _: () = assert!(GROUPS * 64 * 64 == SLOTS, "each slot has its bit and no group is searched in vain");

/// Which slots are occupied: a bit for each slot, and a bit for each word that is not zero, so that
/// the next occupied slot is found in a few steps even if the wheel is nearly empty.
struct Bitmap {
    words: [u64; WORDS],
    groups: [u64; GROUPS],
}

impl Bitmap {
    const fn new() -> Self {
        Self { words: [0; WORDS], groups: [0; GROUPS] }
    }

    #[inline]
    fn set(&mut self, slot: usize) {
        let word = slot / 64;
        self.words[word] |= 1 << (slot % 64);
        self.groups[word / 64] |= 1 << (word % 64);
    }

    #[inline]
    fn clear(&mut self, slot: usize) {
        let word = slot / 64;
        self.words[word] &= !(1 << (slot % 64));
        if self.words[word] == 0 {
            self.groups[word / 64] &= !(1 << (word % 64));
        }
    }

    /// The first occupied slot at `slot` or after it, continuing at the beginning after the end.
    fn first_from(&self, slot: usize) -> Option<usize> {
        let word = slot / 64;
        let bits = self.words[word] & (u64::MAX << (slot % 64));
        if bits != 0 {
            return Some(word * 64 + bits.trailing_zeros() as usize);
        }
        // Shifted in two steps, since a shift by 64 is not allowed. The whole first group comes up
        // again at the end.
        let mut group = word / 64;
        let mut bits = self.groups[group] & (u64::MAX << (word % 64) << 1);
        for _ in 0..GROUPS {
            if bits != 0 {
                break;
            }
            group = (group + 1) % GROUPS;
            bits = self.groups[group];
        }
        if bits == 0 {
            return None;
        }
        let word = group * 64 + bits.trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests;
