//! Signals that wake a reactor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use finale::Waker;
use signal_hook::iterator::Signals;

use crate::errors::Error;

/// Signals of some kinds that have arrived. The reactor merges wakes, so the signals are counted.
#[derive(Debug)]
pub(crate) struct SignalCount {
    count: Arc<AtomicUsize>,
    seen: usize,
}

impl SignalCount {
    /// Counts these signals on a thread of its own, and wakes the reactor for each.
    pub(crate) fn watch(remote: Waker, signals: &[i32]) -> Result<Self, Error> {
        let mut signals = Signals::new(signals).map_err(|source| Error::io("watch for signals", source))?;
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        thread::spawn(move || {
            for _signal in signals.forever() {
                counter.fetch_add(1, Ordering::Release);
                if remote.wake().is_err() {
                    return;
                }
            }
        });
        Ok(Self { count, seen: 0 })
    }

    /// All signals since the watch began.
    pub(crate) fn total(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The signals since the last call.
    pub(crate) fn take_new(&mut self) -> usize {
        let count = self.total();
        count - std::mem::replace(&mut self.seen, count)
    }
}
