//! How long a pool waits before it connects to its server again.
//!
//! Invariant: failures and losses are counted where they happen, and get their time at the pool's
//! next look at the clock.

use std::time::{Duration, Instant};

use super::member::{from_half, up_to};
use crate::rng::Rng;

/// A connection that lasted this long counts as no failure.
const STEADY: Duration = Duration::from_secs(1);

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long to wait after a failure, and after a loss.
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
    /// A connection was lost since the clock was read.
    has_lost: bool,
    /// Some were lost and are not replaced yet: when the next one may be, if no request needs it.
    replace_at: Option<Instant>,
}

impl BackOff {
    pub(super) fn new((first, most): (Duration, Duration)) -> Self {
        let most = most.min(LONGEST);
        Self {
            first: first.min(most),
            most,
            failures: 0,
            is_trying: false,
            is_new: false,
            retry_at: None,
            failed_at: None,
            drops: Vec::new(),
            dropped: 0,
            has_lost: false,
            replace_at: None,
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.failures > 0
    }

    /// Whether another socket may be opened, while this many are being opened and this many
    /// requests wait.
    pub(super) fn may_open(&self, now: Instant, opening: usize, waiting: usize) -> bool {
        let is_over = |until: Option<Instant>| until.is_none_or(|until| until <= now);
        match self.is_on() {
            true => opening == 0 && is_over(self.retry_at),
            false => waiting > opening || is_over(self.replace_at),
        }
    }

    /// When that changes by itself, if sockets are missing.
    pub(super) fn changes_at(&self, now: Instant, opening: usize) -> Option<Instant> {
        let until = if self.is_on() { self.retry_at.filter(|_| opening == 0) } else { self.replace_at };
        // Once its time has come, the next missing socket triggers it, not the clock.
        until.filter(|until| *until > now)
    }

    /// A socket is being opened; whether none is missing now.
    pub(super) fn has_opened(&mut self, now: Instant, is_whole: bool, dice: &mut Rng) {
        self.is_trying = self.is_on();
        let next = |_| now.checked_add(up_to(self.first, dice));
        self.replace_at = self.replace_at.filter(|_| !is_whole).and_then(next);
    }

    /// A connection was lost, ready or leased. Many clients lose theirs at the same moment, when a
    /// server is restarted.
    pub(super) const fn was_lost(&mut self) {
        self.has_lost = true;
    }

    /// A connection was lost before it served a request. `born` is when it was established, if the
    /// clock was read.
    pub(super) fn was_lost_unserved(&mut self, born: Option<Instant>) {
        self.drops.push(born);
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

    /// The server has sent something on a leased connection, or has kept an unused one. A
    /// connection that was opened before the last failure proves nothing: a server that is being
    /// replaced serves its old connections and refuses new ones.
    pub(super) fn has_served(&mut self, born: Option<Instant>) {
        if !self.is_new && self.failed_at.is_none_or(|failed_at| born.is_none_or(|born| born >= failed_at)) {
            self.has_worked();
        }
    }

    /// A connection is ready. If it has lasted, the server works, also if no request shows it: the
    /// program may detach its sockets.
    pub(super) fn is_ready(&mut self, now: Instant, born: Option<Instant>) {
        if born.is_some_and(|born| now - born >= STEADY) {
            self.has_served(born);
        }
    }

    const fn has_worked(&mut self) {
        (self.failures, self.is_new, self.retry_at, self.dropped) = (0, false, None, 0);
    }

    /// A server that accepts connections and drops them at once counts as down, while a usual
    /// number of them is replaced at once. A connection that is dropped after a while is nothing
    /// unusual.
    fn count_drops(&mut self, now: Instant, usual: usize) {
        for born in std::mem::take(&mut self.drops) {
            if born.is_none_or(|born| now - born < STEADY) {
                self.dropped += 1;
            } else {
                self.dropped = 0;
                self.has_served(born);
            }
            // Connections that existed together count as one failure, like attempts that fail
            // together.
            if self.dropped > usual && (self.failures == 0 || self.is_trying) {
                self.failures = self.failures.saturating_add(1);
                (self.is_new, self.is_trying) = (true, false);
            }
        }
    }

    /// Counts new failures and losses from now.
    pub(super) fn count(&mut self, now: Instant, usual: usize, dice: &mut Rng) {
        if std::mem::take(&mut self.has_lost) && self.replace_at.is_none() {
            self.replace_at = now.checked_add(up_to(self.first, dice));
        }
        self.count_drops(now, usual);
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        let doubled = self.first.saturating_mul(1 << (self.failures - 1).min(20)).min(self.most);
        (self.retry_at, self.failed_at) = (now.checked_add(from_half(doubled, dice)), Some(now));
    }
}
