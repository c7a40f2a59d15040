//! Timers that belong to no socket and fire once.

use slab::Slab;

use crate::id::TimerId;
use crate::wheel::{Node, Nodes, Wheel};

#[derive(Debug)]
struct Entry {
    node: Node,
    id: TimerId,
}

impl Nodes for Slab<Entry> {
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self[index as usize].node
    }
}

pub(crate) struct Timers {
    entries: Slab<Entry>,
    wheel: Option<Wheel>,
    /// The number of timers that were set.
    generation: u32,
    reactor: u32,
}

impl Timers {
    pub(crate) const fn new(reactor: u32) -> Self {
        Self { entries: Slab::new(), wheel: None, generation: 0, reactor }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `due` is a tick, `now` the present one. The last tick never comes.
    pub(crate) fn set(&mut self, due: u64, now: u64) -> TimerId {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let id = TimerId::new(self.reactor, self.entries.vacant_key() as u32, self.generation);
        self.entries.insert(Entry { node: Node::new(), id });
        // A program without timers has no second wheel.
        let wheel = self.wheel.get_or_insert_with(|| Wheel::new(now));
        if due < u64::MAX {
            wheel.file(&mut self.entries, id.index(), due);
        }
        id
    }

    /// Returns whether the timer was still running.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        let found = self.entries.get(id.index() as usize).is_some_and(|entry| entry.id == id);
        if let (true, Some(wheel)) = (found, &mut self.wheel) {
            wheel.cancel(&mut self.entries, id.index());
            self.entries.remove(id.index() as usize);
        }
        found
    }

    #[inline]
    pub(crate) fn next_due(&mut self) -> Option<u64> {
        self.wheel.as_mut().and_then(Wheel::next_due)
    }

    #[inline]
    pub(crate) fn pop_due(&mut self, now: u64, budget: &mut u32) -> Option<TimerId> {
        let index = self.wheel.as_mut()?.pop_due(&mut self.entries, now, budget)?;
        Some(self.entries.remove(index as usize).id)
    }
}
