//! SIGUSR1: the metrics of all shards, as one sum.

use std::sync::mpsc;

use finale::{Metrics, Sender};

use crate::output;
use crate::signals::SignalCount;

/// Requests that one shard can have queued. Further ones are dropped.
pub(super) const REQUESTS: usize = 16;

/// Requests the metrics of all shards.
pub(super) struct MetricsRequests {
    signals: SignalCount,
    shards: Vec<Sender<mpsc::Sender<Metrics>>>,
    json: bool,
}

impl MetricsRequests {
    pub(super) const fn new(signals: SignalCount, shards: Vec<Sender<mpsc::Sender<Metrics>>>, json: bool) -> Self {
        Self { signals, shards, json }
    }

    /// Prints the metrics if a signal has arrived.
    pub(super) fn check(&mut self) {
        if self.signals.take_new() == 0 {
            return;
        }
        let (sender, metrics) = mpsc::channel();
        let requested = self.shards.iter().filter(|shard| shard.send(sender.clone()).is_ok()).count();
        // A shard that ends now drops its copy of the sender, which ends the wait for it.
        drop(sender);
        let sum = metrics.iter().take(requested).reduce(|mut sum, more| {
            sum += &more;
            sum
        });
        match sum {
            Some(sum) if self.json => match output::json(&sum) {
                Ok(text) => output::say(format_args!("{text}")),
                Err(error) => output::error(format_args!("{error}")),
            },
            Some(sum) => output::say(format_args!("{sum}")),
            None => {}
        }
    }
}
