//! How long a pool waits before it tries a server again.
//!
//! Invariant: failures are counted where they happen, and get their time at the pool's next look at
//! the clock.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// A connection that lasted this long counts as no failure.
const STEADY: Duration = Duration::from_secs(1);

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long to wait after a failure.
#[derive(Debug)]
pub(super) struct BackOff {
    first: Duration,
    most: Duration,
    /// Failures in a row.
    failures: u32,
    /// An attempt was begun since the last of them.
    is_trying: bool,
    /// A failure that is not counted yet, since the clock was not read.
    is_new: bool,
    retry_at: Option<Instant>,
    /// When the last failure was counted.
    failed_at: Option<Instant>,
    /// Connections that were lost before they served a request, and are not counted yet: the time
    /// since when each was established.
    drops: Vec<Option<Instant>>,
    /// How many connections in a row were lost as soon as they were established.
    dropped: usize,
    dice: Rng,
}

impl BackOff {
    pub(super) fn new((first, most): (Duration, Duration), seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self {
            first,
            most,
            failures: 0,
            is_trying: false,
            is_new: false,
            retry_at: None,
            failed_at: None,
            drops: Vec::new(),
            dropped: 0,
            dice: Rng::new(seed),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// When the next attempt may be made.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// A connection was lost before it served a request. `born` is when it was established, if the
    /// clock was read.
    pub(super) fn was_lost_unserved(&mut self, born: Option<Instant>) {
        self.drops.push(born);
    }

    /// An attempt is made although the back-off is on.
    pub(super) const fn tries(&mut self) {
        self.is_trying = self.is_on();
    }

    /// Several attempts that were begun together, before the back-off was on, fail together and
    /// count as one failure.
    pub(super) const fn has_failed(&mut self) {
        if !self.is_on() || self.is_trying {
            self.failures = self.failures.saturating_add(1);
            (self.is_new, self.is_trying) = (true, false);
        }
    }

    /// Connected; if connections are dropped at once, that proves little.
    pub(super) const fn has_connected(&mut self) {
        if self.dropped == 0 {
            self.has_worked();
        }
    }

    /// The server has sent something on a leased connection. A connection that was opened before
    /// the last failure proves nothing: a server that is being replaced serves its old connections
    /// and refuses new ones.
    pub(super) fn has_served(&mut self, born: Option<Instant>) {
        if !self.is_new && self.failed_at.is_none_or(|failed_at| born.is_none_or(|born| born >= failed_at)) {
            self.has_worked();
        }
    }

    const fn has_worked(&mut self) {
        (self.failures, self.is_new, self.retry_at, self.dropped) = (0, false, None, 0);
    }

    /// A server that accepts connections and drops them at once counts as down, while a usual
    /// number of them is replaced at once. A connection that is dropped after a while is nothing
    /// unusual.
    fn count_drops(&mut self, now: Instant, usual: usize) {
        for born in self.drops.drain(..) {
            let lived = born.map_or(Duration::ZERO, |born| now - born);
            self.dropped = if lived < STEADY { self.dropped + 1 } else { 0 };
            // Connections that existed together count as one failure, like attempts that fail
            // together.
            if self.dropped > usual && (self.failures == 0 || self.is_trying) {
                self.failures = self.failures.saturating_add(1);
                (self.is_new, self.is_trying) = (true, false);
            }
        }
    }

    /// Counts a new failure from now.
    pub(super) fn count(&mut self, now: Instant, usual: usize) {
        self.count_drops(now, usual);
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        let doubled = self.first.saturating_mul(1 << (self.failures - 1).min(20)).min(self.most).min(LONGEST);
        let half = doubled / 2;
        let chance = Duration::from_nanos(self.dice.below(half.as_nanos() as u64 + 1));
        (self.retry_at, self.failed_at) = (now.checked_add(half + chance), Some(now));
    }
}
