//! What a dropped owner has left: the only way into a reactor without a borrow of it.
//!
//! Invariant: the reactor ends what is in the list before it waits again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::{SocketId, TimerId};

/// A socket or a timer without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orphan {
    /// It is ended in order.
    Unused(SocketId),
    /// It is reset: something would be cut off.
    Used(SocketId),
    /// It is cancelled.
    Timer(TimerId),
}

/// The list, shared by a reactor and the owners.
pub(crate) struct Orphans {
    list: Mutex<Vec<Orphan>>,
    /// Ends the wait of a reactor on another thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Orphans {
    pub(crate) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { list: Mutex::default(), wake }
    }

    /// For an owner that is being dropped.
    pub(crate) fn leave(&self, orphans: impl Iterator<Item = Orphan>) {
        self.lock().extend(orphans);
        (self.wake)();
    }

    pub(crate) fn take(&self) -> Vec<Orphan> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Orphan>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Orphans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orphans").field("list", &self.list).finish_non_exhaustive()
    }
}
