//! What a dropped owner has left: the only way into a reactor without a borrow of it.
//!
//! Invariant: the reactor ends what is in the list before it waits again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

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
    is_empty: AtomicBool,
    list: Mutex<Vec<Orphan>>,
    /// Ends the wait of a reactor on another thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Orphans {
    pub(crate) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { is_empty: AtomicBool::new(true), list: Mutex::default(), wake }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Acquire)
    }

    /// For an owner that is being dropped.
    pub(crate) fn leave(&self, orphans: impl Iterator<Item = Orphan>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.extend(orphans);
        if list.is_empty() {
            return;
        }
        self.is_empty.store(false, Ordering::Release);
        drop(list);
        (self.wake)();
    }

    pub(crate) fn take(&self) -> Vec<Orphan> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_empty.store(true, Ordering::Release);
        std::mem::take(&mut list)
    }
}

impl std::fmt::Debug for Orphans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orphans").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}
