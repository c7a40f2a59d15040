//! Waking a reactor from another thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::table::shared::Shared;

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
#[derive(Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.wakers.fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(shared) }
    }

    /// Makes the reactor deliver [`Event::Woken`](crate::Event::Woken). Makes a system call only if
    /// no wake is pending.
    ///
    /// # Errors
    /// [`Error::ReactorGone`].
    #[doc(alias = "uv_async_send")]
    pub fn wake(&self) -> Result<(), Error> {
        if self.is_gone() {
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
        Self::new(&self.shared)
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // A waiting reactor checks again whether anything is left to wait for.
        if self.shared.wakers.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_gone() {
            (self.shared.kick)();
        }
    }
}
