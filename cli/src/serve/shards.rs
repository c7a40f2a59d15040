//! The shards at work, and when all of them have ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use finale::{Inbox, Metrics, Reactor, Shard, ShardStopper, Shards, StopOptions, Waker};

use super::service::{self, Handler};
use crate::errors::Error;

/// The threads of all shards.
pub(super) struct Running {
    shards: Shards,
    count: usize,
    ended: Arc<AtomicUsize>,
}

/// A shard, its service, and the requests for its metrics.
type Part = (Shard, (Handler, Inbox<mpsc::Sender<Metrics>>));

impl Running {
    /// Starts a thread for each. `control` is woken when one ends.
    pub(super) fn start(parts: Vec<Part>, orders: &ShardStopper, control: &Reactor) -> Result<Self, Error> {
        let (count, ended) = (parts.len(), Arc::new(AtomicUsize::new(0)));
        let (remote, ends, stopper) = (control.waker(), Arc::clone(&ended), orders.clone());
        let shards = Shards::run(parts, orders.clone(), move |shard, (handler, inbox)| {
            let _end = EndOfShard { ended: Arc::clone(&ends), remote: remote.clone(), orders: stopper.clone() };
            service::run(shard, handler, inbox)
        })?;
        Ok(Self { shards, count, ended })
    }

    /// Whether all have ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) == self.count
    }

    /// Waits for all.
    pub(super) fn join(self) -> Result<(), Error> {
        Ok(self.shards.join()?)
    }
}

/// Dropped at the end of a shard's thread, also after a panic.
struct EndOfShard {
    ended: Arc<AtomicUsize>,
    remote: Waker,
    orders: ShardStopper,
}

impl Drop for EndOfShard {
    fn drop(&mut self) {
        // One that ends without an order has failed: the others end, too.
        if !self.orders.is_stopping() {
            self.orders.stop(StopOptions::default());
        }
        self.ended.fetch_add(1, Ordering::Release);
        let _ = self.remote.wake();
    }
}
