//! What a reactor shares with code that has no borrow of it: wakers on other threads, and owners of
//! sockets that are dropped.
//!
//! Invariant: the reactor ends what is in the list of orphans before it waits again.

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
    orphans: Mutex<Vec<Orphan>>,
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
        take(&self.woken)
    }

    /// For an owner that is being dropped.
    pub(crate) fn leave(&self, orphans: impl Iterator<Item = Orphan>) {
        self.lock().extend(orphans);
        self.has_orphans.store(true, Ordering::Release);
        (self.kick)();
    }

    pub(crate) fn take_orphans(&self) -> Vec<Orphan> {
        if take(&self.has_orphans) { std::mem::take(&mut self.lock()) } else { Vec::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Orphan>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the flag was set. It is loaded first: a swap in every turn would take the cache line from
/// the other threads.
fn take(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire) && flag.swap(false, Ordering::AcqRel)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("alive", &self.alive).finish_non_exhaustive()
    }
}
