//! Counts of the sessions of one reactor, or of several.

use std::fmt;
use std::ops::AddAssign;

/// Counts of handshakes and failures since [`Tls::new`](crate::Tls::new).
///
/// ```
/// assert_eq!(finale_tls::Tls::new().metrics().handshakes, 0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsMetrics {
    /// Handshakes that were done.
    pub handshakes: u64,
    /// Those of them that have resumed a session.
    pub resumed: u64,
    /// Handshakes that failed, including those that took too long.
    pub failed_handshakes: u64,
    /// Streams that ended without close_notify.
    pub truncated: u64,
    /// Streams that failed in another way after their handshake.
    pub failed: u64,
}

/// The sum of two reactors.
impl AddAssign<&Self> for TlsMetrics {
    fn add_assign(&mut self, other: &Self) {
        let Self { handshakes, resumed, failed_handshakes, truncated, failed } = other;
        self.handshakes += handshakes;
        self.resumed += resumed;
        self.failed_handshakes += failed_handshakes;
        self.truncated += truncated;
        self.failed += failed;
    }
}

/// One line per number, with its name, as [`Metrics`](finale::Metrics).
impl fmt::Display for TlsMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.handshakes, "TLS handshakes"),
            (self.resumed, "TLS sessions resumed"),
            (self.failed_handshakes, "TLS handshakes failed"),
            (self.truncated, "TLS streams truncated"),
            (self.failed, "TLS streams failed otherwise"),
        ];
        counts.iter().try_for_each(|(count, name)| writeln!(f, "{count:>14} {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_two_reactors_are_added_and_printed_with_their_names() {
        let mut sum = TlsMetrics { handshakes: 1, resumed: 2, failed_handshakes: 3, truncated: 4, failed: 5 };
        sum += &sum.clone();
        let numbers: Vec<_> = sum.to_string().lines().map(|line| line.trim_start().to_owned()).collect();
        let expected = ["2 TLS handshakes", "4 TLS sessions resumed", "6 TLS handshakes failed"];
        assert_eq!(numbers[..3], expected);
        assert_eq!(numbers[3..], ["8 TLS streams truncated", "10 TLS streams failed otherwise"]);
    }
}
