//! The shards at work, and how each of them ends.

use std::sync::mpsc;

use finale::{Inbox, Metrics, Reactor, Shard, ShardEnd, ShardStopper, Shards};

use super::service::{self, Handler};
use crate::errors::Error;
use crate::output;

/// The threads of all shards.
pub(super) struct Running {
    shards: Shards,
    /// How many have not ended.
    left: usize,
    has_failed: bool,
}

/// A shard, its service, and the requests for its metrics.
type Part = (Shard, (Handler, Inbox<mpsc::Sender<Metrics>>));

impl Running {
    /// Starts a thread for each. `control` is woken when one ends.
    pub(super) fn start(parts: Vec<Part>, stopper: &ShardStopper, control: &Reactor) -> Result<Self, Error> {
        let left = parts.len();
        let run = |shard, (handler, inbox)| service::run(shard, handler, inbox);
        let shards = Shards::run(parts, stopper.clone(), run)?;
        shards.wake_at_end(control.waker());
        Ok(Self { shards, left, has_failed: false })
    }

    /// Notes the shards that have ended. Returns whether one has failed, for the first time.
    pub(super) fn check(&mut self) -> bool {
        let had_failed = self.has_failed;
        while let Some((index, end)) = self.shards.try_wait() {
            self.left -= 1;
            if !matches!(end, ShardEnd::Returned) {
                self.has_failed = true;
                output::error(format_args!("shard {index} {end}; the server stops"));
            }
        }
        self.has_failed && !had_failed
    }

    /// Whether all have ended.
    pub(super) const fn is_over(&self) -> bool {
        self.left == 0
    }

    /// The result of the server, whose failure was printed.
    pub(super) const fn result(&self) -> Result<(), Error> {
        if self.has_failed { Err(Error::Reported { exit_code: 1 }) } else { Ok(()) }
    }
}
