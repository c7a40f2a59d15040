//! A first-in-first-out list through the entries' own `link`.
//!
//! Invariant: an entry is in one list at most; the `QUEUED` flag says so, and a free one has no settings.

use super::entry::{Entry, NIL};

#[derive(Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl List {
    pub(super) const fn new() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn head(&self) -> u32 {
        self.head
    }

    pub(super) fn push_back(&mut self, entries: &mut [Entry], slot: u32) {
        entries[slot as usize].link = NIL;
        match self.tail {
            NIL => self.head = slot,
            tail => entries[tail as usize].link = slot,
        }
        self.tail = slot;
        self.len += 1;
    }

    pub(super) fn push_front(&mut self, entries: &mut [Entry], slot: u32) {
        entries[slot as usize].link = self.head;
        if self.head == NIL {
            self.tail = slot;
        }
        self.head = slot;
        self.len += 1;
    }

    pub(super) fn pop_front(&mut self, entries: &mut [Entry]) -> Option<u32> {
        if self.head == NIL {
            return None;
        }
        let slot = self.head;
        self.head = std::mem::replace(&mut entries[slot as usize].link, NIL);
        if self.head == NIL {
            self.tail = NIL;
        }
        self.len -= 1;
        Some(slot)
    }

    /// Hangs `other` behind this list.
    pub(super) fn append(&mut self, entries: &mut [Entry], other: List) {
        if other.head == NIL {
            return;
        }
        match self.tail {
            NIL => self.head = other.head,
            tail => entries[tail as usize].link = other.head,
        }
        self.tail = other.tail;
        self.len += other.len;
    }
}

#[cfg(test)]
mod tests;
