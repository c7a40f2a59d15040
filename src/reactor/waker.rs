//! Waking a reactor from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::Error;

/// A handle on a reactor for other threads: cloneable and `Send`.
///
/// A wake is never lost: after any number of wakes between two turns,
/// [`Event::Woken`](crate::Event::Woken) is delivered once. Send the data that goes with it through
/// a channel of your own *before* you wake.
///
/// While a waker exists, [`Reactor::next`](crate::Reactor::next) waits even if nothing else is
/// left.
///
/// ```
/// use finale::{Event, Reactor};
/// # fn main() -> Result<(), finale::Error> {
/// let mut reactor = Reactor::new()?;
/// let remote = reactor.waker();
/// let thread = std::thread::spawn(move || remote.wake());
/// let (_, event) = reactor.next()?.expect("a waker exists");
/// assert_eq!(event, Event::Woken);
/// assert!(reactor.next()?.is_none(), "the thread has dropped the last waker");
/// thread.join().unwrap()
/// # }
/// ```
#[doc(alias = "uv_async_t")]
#[doc(alias = "Notify")]
pub struct Waker {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    woken: AtomicBool,
    alive: AtomicBool,
    handles: AtomicUsize,
    kick: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    pub(super) fn new(kick: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        let (woken, alive) = (AtomicBool::new(false), AtomicBool::new(true));
        Arc::new(Self { woken, alive, handles: AtomicUsize::new(0), kick })
    }

    pub(super) fn handle(self: &Arc<Self>) -> Waker {
        self.handles.fetch_add(1, Ordering::AcqRel);
        Waker { shared: Arc::clone(self) }
    }

    /// Whether a wake is pending or may still follow. A thread wakes, then drops its handle.
    pub(super) fn may_wake(&self) -> bool {
        self.handles.load(Ordering::Acquire) > 0 || self.woken.load(Ordering::Acquire)
    }

    /// Whether there was a wake since the last call.
    pub(super) fn take_woken(&self) -> bool {
        // Loaded first: a swap in every turn would take the cache line from the other threads.
        self.woken.load(Ordering::Acquire) && self.woken.swap(false, Ordering::AcqRel)
    }

    pub(super) fn bury(&self) {
        self.alive.store(false, Ordering::Release);
    }
}

impl Waker {
    /// Makes the reactor deliver [`Event::Woken`](crate::Event::Woken). Makes a system call only if
    /// no wake is pending.
    ///
    /// # Errors
    /// [`Error::ReactorGone`].
    #[doc(alias = "uv_async_send")]
    pub fn wake(&self) -> Result<(), Error> {
        if !self.shared.alive.load(Ordering::Acquire) {
            return Err(Error::ReactorGone);
        }
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            (self.shared.kick)();
        }
        Ok(())
    }

    /// Whether the reactor was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        !self.shared.alive.load(Ordering::Acquire)
    }
}

impl Clone for Waker {
    fn clone(&self) -> Self {
        self.shared.handle()
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // A waiting reactor checks again whether anything is left to wait for.
        if self.shared.handles.fetch_sub(1, Ordering::AcqRel) == 1 && self.shared.alive.load(Ordering::Acquire) {
            (self.shared.kick)();
        }
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").field("alive", &self.shared.alive).finish_non_exhaustive()
    }
}
