//! Time on a simulated network: nanoseconds since it began, in `u64`.
//!
//! Invariant: a time is at most [`FOR_EVER`], also that of the clock. A sum of five times does not
//! wrap.

use std::time::Duration;

/// A time later than this counts as for ever: 100 years. The clock stops there.
pub(super) const FOR_EVER: u64 = 100 * 365 * 86_400 * 1_000_000_000;

/// Nanoseconds, limited to [`FOR_EVER`].
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOR_EVER).min(FOR_EVER)
}
