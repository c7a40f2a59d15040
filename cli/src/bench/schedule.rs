//! When connections are due to begin. Pure: no clock, no socket.
//!
//! Invariant: when a connection is due depends on the rate and on its number only, and not on other
//! connections. So a server that stalls does not slow down the clock that measures it.

use std::num::NonZero;
use std::time::Duration;

/// Which connections there are, and when each is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    rate: Option<NonZero<u32>>,
    /// `None`: until the run is stopped.
    total: Option<u64>,
}

const NANOS: u128 = 1_000_000_000;

impl Schedule {
    /// With a rate, this many per second, and a duration becomes a number of connections. Without
    /// one, a connection begins when another one has closed.
    pub(super) fn new(rate: Option<NonZero<u32>>, connections: u64, duration: Option<Duration>) -> Self {
        let total = match (duration, rate) {
            (None, _) => Some(connections),
            (Some(_), None) => None,
            (Some(time), Some(rate)) => {
                let due = (time.as_nanos() * u128::from(rate.get())).div_ceil(NANOS);
                Some(u64::try_from(due).unwrap_or(u64::MAX))
            }
        };
        Self { rate, total }
    }

    pub(super) const fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether there is a connection with this number, counted from 0.
    pub(super) fn has(&self, number: u64) -> bool {
        self.total.is_none_or(|total| number < total)
    }

    /// When this connection is due, counted from the beginning. `None`: as soon as another one has
    /// closed.
    pub(super) fn due(&self, number: u64) -> Option<Duration> {
        let rate = self.rate?;
        let nanos = u128::from(number) * NANOS / u128::from(rate.get());
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_evenly_spread_and_do_not_drift() {
        let schedule = Schedule::new(NonZero::new(3), 4, None);
        let due: Vec<u128> = (0..4).filter_map(|number| schedule.due(number)).map(|due| due.as_nanos()).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, 1_000_000_000]);
        assert_eq!(schedule.due(3_000_000_000), Some(Duration::from_secs(1_000_000_000)));
        assert!(schedule.has(3) && !schedule.has(4));
    }

    #[test]
    fn with_a_rate_a_duration_is_a_number_of_connections() {
        let schedule = Schedule::new(NonZero::new(10), 7, Some(Duration::from_millis(250)));
        assert_eq!(schedule.total(), Some(3), "due at 0, 100 and 200 ms");
        assert_eq!(Schedule::new(NonZero::new(10), 7, Some(Duration::from_millis(200))).total(), Some(2));
    }

    #[test]
    fn without_a_rate_a_connection_is_due_when_another_has_closed() {
        let schedule = Schedule::new(None, 7, Some(Duration::from_secs(1)));
        assert!(schedule.has(u64::MAX) && schedule.due(5).is_none() && schedule.total().is_none());
        assert_eq!(Schedule::new(None, 7, None).total(), Some(7));
    }
}
