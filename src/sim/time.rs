//! Time on a simulated network: nanoseconds since it began, in `u64`.
//!
//! Invariant: a sum of two times does not wrap.

use std::time::Duration;

/// A time later than this counts as for ever: 500 years, so that sums of two times do not wrap.
pub(super) const FOR_EVER: u64 = 500 * 365 * 86_400 * 1_000_000_000;

/// Nanoseconds, limited to [`FOR_EVER`].
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOR_EVER).min(FOR_EVER)
}
