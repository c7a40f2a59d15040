//! Ticks: whole milliseconds since a reactor began.
//!
//! Invariant: a deadline is rounded up and the present time down, so that nothing is early.

use std::time::{Duration, Instant};

/// The time of tick 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(pub(crate) Instant);

impl Epoch {
    /// The time since the reactor began.
    #[inline]
    pub(crate) fn elapsed(self, at: Instant) -> Duration {
        at.saturating_duration_since(self.0)
    }

    /// The last tick that has begun at this time: what is due now is due at this tick or earlier.
    pub(crate) fn tick_before(self, at: Instant) -> u64 {
        ticks(self.elapsed(at))
    }

    /// The first tick not before this time: for deadlines, which are never early.
    pub(crate) fn tick_after(self, at: Instant) -> u64 {
        ticks_up(self.elapsed(at))
    }

    /// When this tick begins; `None` beyond what the clock can hold.
    pub(crate) fn at(self, tick: u64) -> Option<Instant> {
        self.0.checked_add(Duration::from_millis(tick))
    }
}

/// Whole ticks.
#[inline]
pub(crate) fn ticks(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(u64::from(time.subsec_millis()))
}

/// Whole ticks, rounded up. Computed with small integers, since each message with an idle time
/// needs it.
#[inline]
pub(crate) fn ticks_up(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(u64::from(time.subsec_nanos().div_ceil(1_000_000)))
}
