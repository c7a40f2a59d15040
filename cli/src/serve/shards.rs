//! The shards at work, and how each of them ends.

use finale::net::Net;
use finale::{Reactor, Shard, ShardEnd, ShardStopper, Shards};

use super::service::{self, Work};
use crate::errors::Error;
use crate::output;

/// The threads of all shards.
pub(super) struct Running {
    shards: Shards,
    /// How many have not ended.
    left: usize,
    has_failed: bool,
}

impl Running {
    /// Starts a thread for each. `control` is woken when one ends.
    pub(super) fn start<N: Net + Send + 'static>(
        parts: Vec<(Shard<N>, Work)>,
        stopper: &ShardStopper,
        control: &Reactor,
    ) -> Result<Self, Error> {
        let left = parts.len();
        Ok(Self::new(Shards::run(parts, stopper.clone(), service::run)?, left, control))
    }

    fn new(shards: Shards, left: usize, control: &Reactor) -> Self {
        shards.wake_at_end(control.waker());
        Self { shards, left, has_failed: false }
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

#[cfg(test)]
mod tests {
    use finale::StopOptions;

    use super::*;

    #[test]
    fn the_first_shard_that_fails_is_reported_and_the_server_is_over_when_all_have_ended() {
        let mut control = Reactor::new().expect("descriptors are free");
        let reactors = (0..3).map(|_| Reactor::new().expect("descriptors are free")).collect();
        let (shards, stopper) = Shard::group(reactors);
        // The last one works until it is stopped.
        let parts: Vec<_> = shards.into_iter().zip([false, false, true]).collect();
        let run = |mut shard: Shard, works: bool| {
            while works && shard.next()?.is_some() {}
            if works { Ok(()) } else { Err(finale::Error::Gone) }
        };
        let shards = Shards::run(parts, stopper.clone(), run).expect("threads are free");
        let mut running = Running::new(shards, 3, &control);
        let mut reports = 0;
        while running.left > 1 {
            assert!(!running.is_over());
            control.next().expect("it works").expect("a shard wakes it");
            reports += usize::from(running.check());
        }
        assert_eq!(reports, 1, "the server stops once");
        assert!(!running.check(), "nothing has changed");
        stopper.stop(StopOptions::default());
        while !running.is_over() {
            control.next().expect("it works").expect("a shard wakes it");
            assert!(!running.check());
        }
        assert!(running.result().is_err());
    }

    #[test]
    fn a_server_whose_shards_return_has_not_failed() {
        let mut control = Reactor::new().expect("descriptors are free");
        let (shards, stopper) = Shard::group(vec![Reactor::new().expect("descriptors are free")]);
        let parts = shards.into_iter().map(|shard| (shard, ())).collect();
        let mut running =
            Running::new(Shards::run(parts, stopper, |_, ()| Ok(())).expect("threads are free"), 1, &control);
        while !running.is_over() {
            control.next().expect("it works").expect("a shard wakes it");
            assert!(!running.check());
        }
        assert!(running.result().is_ok());
    }
}
