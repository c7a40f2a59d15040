//! The timer wheel. Its invariant: a node never leaves the wheel before its due tick, and the slot in which it lies is
//! looked at no later than that tick; so a timer is never early, and late only by as much as the caller is.
//!
//! It does not know what a tick is, who owns the nodes or what they stand for. It has no clock: the caller says which
//! tick it is. It owns no entries: the links lie inside the caller's, reached through [`Nodes`].
//!
//! **One rotation of slots, and nothing else.** The slot of a tick is its low bits. A node that is due in a later
//! rotation lies in the slot of its tick all the same: when the slot comes up, the wheel sees "not yet" and files the
//! node again. Near and far take the same path, so there are no levels and no cascade, and cancelling is unlinking.
//!
//! **Moving to a later tick is one store.** The node stays where it is, with the new due tick in it, and is filed
//! properly when its old slot comes up. A socket that is touched a thousand times before it idles is moved once.
//!
//! **Passes.** An expiry pass is the run of [`Wheel::pop_due`] calls from the first up to the `None` with which nothing
//! is left. It takes the overdue nodes first, then slot after slot from where the last pass ended, each list whole.
//! What the caller files as due during a pass waits for the next pass, which is what stops a handler that always
//! files itself again from holding the loop. A pass that runs out of budget is continued by the next call.
//!
//! # Not guaranteed
//! Within one slot the order is not that of filing. When the clock jumps over more than one rotation, the order is by
//! slot and not by due tick.

use std::mem::{replace, take};

const SLOT_BITS: u32 = 14;

/// The slots of one rotation, one tick each. 16.4 s of 1 ms ticks hold most deadlines of a connection, so that few
/// nodes are ever looked at too early, and 64 KiB of slots stay in the second-level cache.
pub(crate) const SLOTS: usize = 1 << SLOT_BITS;

/// The list of nodes that were due when they were filed; the next pass begins with them.
const OVERDUE: usize = SLOTS;
/// The list that the pass under way has taken and is working through.
const EXPIRING: usize = OVERDUE + 1;
const LISTS: usize = EXPIRING + 1;

/// No node. As `prev` it says that the node is not filed.
const NIL: u32 = u32::MAX;
/// From here up to `NIL`, a `prev` is a mark: the node is the head of list `prev - FIRST_MARK`. Thus a head names its
/// list, and unlinking it needs neither a search nor the slot that its due tick would have (it may have moved on).
const FIRST_MARK: u32 = NIL - LISTS as u32;

/// The wheel's part of an entry: where it is filed and for when. It must not be moved to another index while filed.
#[derive(Debug)]
pub(crate) struct Node {
    next: u32,
    prev: u32,
    due: u64,
}

/// A quarter of the entry's cache line, which is all that the line can spare.
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

/// The storage in which the nodes lie. Every call on one wheel must be given the same storage.
pub(crate) trait Nodes {
    /// The node at `index`. The wheel asks for indices that are filed or that its caller names, and for no others.
    fn node(&mut self, index: u32) -> &mut Node;
}

/// A flat hashed timer wheel. An entry must be cancelled before its index is given to another.
pub(crate) struct Wheel {
    /// The first node of each list: the slots, then `OVERDUE` and `EXPIRING`.
    heads: Box<[u32; LISTS]>,
    occupied: Bitmap,
    len: usize,
    /// The latest tick that a pass was begun for; it never goes back. Outside a pass, each node in a slot is due later.
    present: u64,
    /// Whether a pass has begun and its end has not been told to the caller.
    in_pass: bool,
    /// The slot at which the pass goes on, and how many slots it still covers.
    pass_slot: usize,
    pass_slots_left: usize,
}

impl Wheel {
    /// An empty wheel whose present is tick `now`. It allocates its slots here and nothing later.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            heads: Box::new([NIL; LISTS]),
            occupied: Bitmap::new(),
            len: 0,
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

    /// Files the node for tick `due`, or moves it there if it is filed already. If `due` is not after the wheel's
    /// present, the next pass returns it, even a pass for the same tick.
    #[inline]
    pub(crate) fn file(&mut self, nodes: &mut impl Nodes, index: u32, due: u64) {
        debug_assert!(index < FIRST_MARK, "the highest indices are taken by marks");
        let node = nodes.node(index);
        if node.is_filed() {
            // The slot it lies in is looked at by its old due tick, which is early enough for a later one.
            if node.due <= due {
                node.due = due;
                return;
            }
            self.unlink(nodes, index);
        } else {
            self.len += 1;
        }
        self.link(nodes, index, due);
    }

    /// Takes the node out; nothing happens if it is not filed. Allowed at any time, also for a node that the pass under
    /// way is about to return.
    #[inline]
    pub(crate) fn cancel(&mut self, nodes: &mut impl Nodes, index: u32) {
        if nodes.node(index).is_filed() {
            self.unlink(nodes, index);
            self.len -= 1;
        }
    }

    /// The tick at which the next pass is owed; `None` if nothing is filed. It is never after the earliest due tick, or
    /// it is one that the wheel has seen already (an overdue node, a pass that is not finished). It may be before that
    /// tick, when the slot of a node comes up that is due in a later rotation or was moved to a later tick.
    #[inline]
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        if self.in_pass || self.heads[OVERDUE] != NIL {
            return Some(self.present);
        }
        let start = slot_after(self.present);
        let slot = self.occupied.first_from(start)?;
        Some(self.present.saturating_add(1 + slots_between(start, slot) as u64))
    }

    /// Takes out one node that is due at tick `now` or earlier and returns its index. `None` says that the pass is
    /// over, or that `budget` is 0: it falls by one for each node looked at, also for one that is only filed again. A
    /// `now` before the wheel's present counts as the present, since the time of those nodes did come.
    pub(crate) fn pop_due(&mut self, nodes: &mut impl Nodes, now: u64, budget: &mut u32) -> Option<u32> {
        // Each round looks at a node, takes a slot, or ends or begins a pass. Only a later `now` begins a second one.
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

    /// Begins a pass for tick `now` if it has anything to cover, and says whether it did.
    fn begin_pass(&mut self, nodes: &mut impl Nodes, now: u64) -> bool {
        let ticks = now.saturating_sub(self.present);
        if ticks == 0 && self.heads[OVERDUE] == NIL {
            return false;
        }
        self.in_pass = true;
        self.pass_slot = slot_after(self.present);
        // A jump over many rotations finds everything that is due in one round of the slots.
        self.pass_slots_left = ticks.min(SLOTS as u64) as usize;
        self.present += ticks;
        self.take(nodes, OVERDUE);
        true
    }

    /// Takes the next occupied slot that the pass covers, and says whether there was one.
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
        self.take(nodes, slot);
        true
    }

    /// Makes a list the expiring one, whole, so that what is filed into it from now on is not met in this pass.
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
        // The slot of a tick that has passed comes up a rotation too late, so an overdue node does not go there.
        let list = if due <= self.present { OVERDUE } else { slot_of(due) };
        let head = replace(&mut self.heads[list], index);
        *nodes.node(index) = Node { next: head, prev: mark(list), due };
        if head != NIL {
            nodes.node(head).prev = index;
        } else if list < SLOTS {
            self.occupied.set(list);
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

/// How many slots the wheel turns to get from one slot to the other.
#[inline]
fn slots_between(from: usize, to: usize) -> usize {
    to.wrapping_sub(from) % SLOTS
}

const WORDS: usize = SLOTS / 64;
const GROUPS: usize = WORDS / 64;
const _: () = assert!(GROUPS * 64 * 64 == SLOTS, "each slot has its bit and no group is searched in vain");

/// Which slots are occupied: a bit for each slot, and above it a bit for each word that is not zero, so that the next
/// occupied slot is found in a handful of steps however empty the wheel is.
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

    /// The first occupied slot at `slot` or after it, going round the end to the slots before it.
    fn first_from(&self, slot: usize) -> Option<usize> {
        let word = slot / 64;
        let bits = self.words[word] & (u64::MAX << (slot % 64));
        if bits != 0 {
            return Some(word * 64 + bits.trailing_zeros() as usize);
        }
        // Shifted in two steps, since a shift by 64 is not allowed. The first group comes up again at the end, whole.
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
