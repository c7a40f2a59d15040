//! What a reactor shares with code that has no borrow of it: wakers on other threads, and owners of
//! sockets that are dropped.
//!
//! Invariant: the reactor ends what is in the list of orphans before it waits again.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

pub(crate) struct Shared {
    pub(crate) woken: AtomicBool,
    pub(crate) alive: AtomicBool,
    /// How many wakers exist.
    pub(crate) wakers: AtomicUsize,
    /// Ends the wait of the reactor.
    pub(crate) kick: Box<dyn Fn() + Send + Sync>,
    has_orphans: AtomicBool,
    orphans: Mutex<VecDeque<Orphan>>,
}

impl Shared {
    pub(crate) fn new(kick: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        let (woken, alive, has_orphans) = (AtomicBool::new(false), AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(Self { woken, alive, wakers: AtomicUsize::new(0), kick, has_orphans, orphans: Mutex::default() })
    }

    /// Whether a wake is pending or may still follow. A thread wakes, then drops its waker.
    pub(crate) fn may_wake(&self) -> bool {
        self.wakers.load(Ordering::Acquire) > 0 || self.woken.load(Ordering::Acquire)
    }

    /// Whether there was a wake since the last call.
    pub(crate) fn take_woken(&self) -> bool {
        // Loaded first: a swap in every turn would take the cache line from the other threads.
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }

    /// For an owner that is being dropped.
    pub(crate) fn leave(&self, orphans: impl Iterator<Item = Orphan>) {
        let mut list = self.lock();
        list.extend(orphans);
        if list.is_empty() {
            return;
        }
        drop(list);
        self.has_orphans.store(true, Ordering::Release);
        (self.kick)();
    }

    #[inline]
    pub(crate) fn next_orphan(&self) -> Option<Orphan> {
        if !self.has_orphans.load(Ordering::Acquire) {
            return None;
        }
        let mut orphans = self.lock();
        let orphan = orphans.pop_front();
        self.has_orphans.store(orphan.is_some(), Ordering::Release);
        orphan
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Orphan>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("alive", &self.alive).finish_non_exhaustive()
    }
}
