//! The metrics of a reactor.
//!
//! Invariant: events are counted where they occur, with one addition each. Live sockets are counted
//! on request.

use std::fmt;

use crate::error::{ConnectionErrorKind, LookupErrorKind, TimeoutKind};
use crate::event::{Ending, EndingKind};
use crate::lifecycle::State;

/// The causes that are counted, in the order in which they are printed. All failed lookups count as
/// one cause.
const CAUSES: [ConnectionErrorKind; 15] = [
    ConnectionErrorKind::Reset,
    ConnectionErrorKind::TimedOut(TimeoutKind::Connect),
    ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed),
    ConnectionErrorKind::TimedOut(TimeoutKind::Close),
    ConnectionErrorKind::TimedOut(TimeoutKind::Write),
    ConnectionErrorKind::TimedOut(TimeoutKind::Deadline),
    ConnectionErrorKind::TimedOut(TimeoutKind::Ending),
    ConnectionErrorKind::TimedOut(TimeoutKind::Kernel),
    ConnectionErrorKind::Refused,
    ConnectionErrorKind::Unreachable,
    ConnectionErrorKind::Lookup(LookupErrorKind::Failed),
    ConnectionErrorKind::NoLocalAddress,
    ConnectionErrorKind::OutOfResources,
    ConnectionErrorKind::Aborted,
    ConnectionErrorKind::System,
];

/// The index of a cause in `CAUSES`.
const fn place(cause: ConnectionErrorKind) -> usize {
    match cause {
        ConnectionErrorKind::Reset => 0,
        ConnectionErrorKind::TimedOut(TimeoutKind::Connect) => 1,
        ConnectionErrorKind::TimedOut(TimeoutKind::HalfClosed) => 2,
        ConnectionErrorKind::TimedOut(TimeoutKind::Close) => 3,
        ConnectionErrorKind::TimedOut(TimeoutKind::Write) => 4,
        ConnectionErrorKind::TimedOut(TimeoutKind::Deadline) => 5,
        ConnectionErrorKind::TimedOut(TimeoutKind::Ending) => 6,
        ConnectionErrorKind::TimedOut(TimeoutKind::Kernel) => 7,
        ConnectionErrorKind::Refused => 8,
        ConnectionErrorKind::Unreachable => 9,
        ConnectionErrorKind::Lookup(_) => 10,
        ConnectionErrorKind::NoLocalAddress => 11,
        ConnectionErrorKind::OutOfResources => 12,
        ConnectionErrorKind::Aborted => 13,
        // No reactor returns an error of a layer.
        ConnectionErrorKind::System | ConnectionErrorKind::Layer(_) => 14,
    }
}

/// The name of a cause. All failed lookups count as one cause.
fn word(cause: ConnectionErrorKind) -> String {
    if matches!(cause, ConnectionErrorKind::Lookup(_)) { "lookup failed".to_owned() } else { cause.to_string() }
}

/// The counts of a reactor.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) overflowed: u64,
    pub(crate) accept_failures: u64,
    pub(crate) connected: u64,
    confirmed: u64,
    handed_off: u64,
    destroyed: u64,
    failed: [u64; CAUSES.len()],
    bytes_read: u64,
    bytes_written: u64,
    bytes_unsent: u64,
    pub(crate) turns: u64,
    timers: u64,
    timer_lag_ms: u64,
    max_timer_lag_ms: u64,
}

impl Counts {
    /// A socket was closed.
    pub(crate) fn closed(&mut self, ending: &Ending) {
        match &ending.kind {
            EndingKind::Confirmed => self.confirmed += 1,
            EndingKind::HandedOff => self.handed_off += 1,
            EndingKind::Destroyed => self.destroyed += 1,
            EndingKind::Failed(failure) => self.failed[place(failure.kind)] += 1,
        }
        self.bytes_read += ending.bytes_read;
        self.bytes_written += ending.bytes_written;
        self.bytes_unsent += ending.bytes_unsent;
    }

    /// A timer of a socket has expired, this many milliseconds after it was due.
    pub(crate) const fn struck(&mut self, timer_lag_ms: u64) {
        self.timers += 1;
        self.timer_lag_ms += timer_lag_ms;
        if timer_lag_ms > self.max_timer_lag_ms {
            self.max_timer_lag_ms = timer_lag_ms;
        }
    }
}

/// Metrics of a reactor: [`Reactor::metrics`](crate::Reactor::metrics). Counts start with the
/// reactor and only grow. What is live is a snapshot.
///
/// ```
/// use finale::Reactor;
/// let reactor = Reactor::new()?;
/// let metrics = reactor.metrics();
/// assert_eq!((metrics.accepted, metrics.live(), metrics.failed()), (0, 0, 0));
/// println!("{metrics}");
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Metrics {
    /// Connections that listeners have accepted.
    pub accepted: u64,
    /// Clients that were reset at the maximum of connections
    /// ([`Event::Overflow`](crate::Event::Overflow)).
    pub overflowed: u64,
    /// How often a listener could not accept and had to wait, with an event or without.
    pub accept_failures: u64,
    /// Outgoing connections that were begun.
    pub connects: u64,
    /// How many of them were established.
    pub connected: u64,
    /// Sockets that ended clean and acknowledged.
    pub confirmed: u64,
    /// Sockets that ended clean and were handed off to the kernel.
    pub handed_off: u64,
    /// Sockets that were destroyed.
    pub destroyed: u64,
    /// Bytes read by closed and by live sockets.
    pub bytes_read: u64,
    /// Bytes of these sockets that the kernel accepted.
    pub bytes_written: u64,
    /// Bytes of closed sockets that never reached the kernel.
    pub bytes_unsent: u64,
    /// Bytes that wait for the kernel now.
    pub queued_bytes: u64,
    /// Listeners that are open or stopping.
    pub listeners: usize,
    /// Turns of the loop. Each begins with a wait for readiness.
    pub turns: u64,
    /// Timers of sockets that have expired.
    pub timeouts: u64,
    /// The sum of the milliseconds by which they were late. It grows when handlers take long.
    pub timer_lag_ms: u64,
    /// The longest delay of a timer, in milliseconds.
    pub max_timer_lag_ms: u64,
    #[cfg_attr(feature = "serde", serde(serialize_with = "data::failed"))]
    failed: [u64; CAUSES.len()],
    #[cfg_attr(feature = "serde", serde(serialize_with = "data::live"))]
    live: [usize; State::ALL.len()],
}

/// The counts by cause and by state, as maps without zeros.
#[cfg(feature = "serde")]
mod data {
    use serde::Serializer;

    use super::{CAUSES, State, word};

    pub(super) fn failed<S: Serializer>(counts: &[u64; CAUSES.len()], serializer: S) -> Result<S::Ok, S::Error> {
        let some = CAUSES.into_iter().zip(counts).filter(|(_, count)| **count > 0);
        serializer.collect_map(some.map(|(cause, count)| (word(cause), count)))
    }

    pub(super) fn live<S: Serializer>(counts: &[usize; State::ALL.len()], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(State::ALL.iter().zip(counts).filter(|(_, count)| **count > 0))
    }
}

impl Metrics {
    /// The counts, with nothing live yet.
    pub(crate) fn of(counts: &Counts, begun: u64, listeners: usize) -> Self {
        Self {
            accepted: counts.accepted,
            overflowed: counts.overflowed,
            accept_failures: counts.accept_failures,
            connects: begun,
            connected: counts.connected,
            confirmed: counts.confirmed,
            handed_off: counts.handed_off,
            destroyed: counts.destroyed,
            bytes_read: counts.bytes_read,
            bytes_written: counts.bytes_written,
            bytes_unsent: counts.bytes_unsent,
            queued_bytes: 0,
            listeners,
            turns: counts.turns,
            timeouts: counts.timers,
            timer_lag_ms: counts.timer_lag_ms,
            max_timer_lag_ms: counts.max_timer_lag_ms,
            failed: counts.failed,
            live: [0; State::ALL.len()],
        }
    }

    /// Adds a live socket.
    pub(crate) const fn add_live(&mut self, state: State, queued_bytes: u64, read: u64, written: u64) {
        self.live[state as usize] += 1;
        self.queued_bytes += queued_bytes;
        self.bytes_read += read;
        self.bytes_written += written;
    }

    /// Sockets that have failed with an error of this kind. All failed lookups count as one kind.
    /// None with an error of a layer: the layer counts those itself.
    #[must_use]
    pub const fn failed_of(&self, kind: ConnectionErrorKind) -> u64 {
        if matches!(kind, ConnectionErrorKind::Layer(_)) { 0 } else { self.failed[place(kind)] }
    }

    /// The kinds of errors that have occurred, each with its count of failed sockets.
    pub fn failures(&self) -> impl Iterator<Item = (ConnectionErrorKind, u64)> + '_ {
        CAUSES.into_iter().zip(self.failed).filter(|(_, count)| *count > 0)
    }

    /// Sockets that have failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Sockets whose `close` was delivered.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.confirmed + self.handed_off + self.destroyed + self.failed()
    }

    /// Sockets in this state now.
    #[must_use]
    pub const fn live_in(&self, state: State) -> usize {
        self.live[state as usize]
    }

    /// Every state with live sockets, with its count.
    pub fn live_by_state(&self) -> impl Iterator<Item = (State, usize)> + '_ {
        State::ALL.iter().copied().zip(self.live).filter(|(_, count)| *count > 0)
    }

    /// Sockets whose `close` was not delivered yet.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.iter().sum()
    }
}

impl std::ops::AddAssign<&Self> for Metrics {
    /// Adds the metrics of another reactor. `max_timer_lag_ms` becomes the larger of both.
    fn add_assign(&mut self, other: &Self) {
        let pairs = [
            (&mut self.accepted, other.accepted),
            (&mut self.overflowed, other.overflowed),
            (&mut self.accept_failures, other.accept_failures),
            (&mut self.connects, other.connects),
            (&mut self.connected, other.connected),
            (&mut self.confirmed, other.confirmed),
            (&mut self.handed_off, other.handed_off),
            (&mut self.destroyed, other.destroyed),
            (&mut self.bytes_read, other.bytes_read),
            (&mut self.bytes_written, other.bytes_written),
            (&mut self.bytes_unsent, other.bytes_unsent),
            (&mut self.queued_bytes, other.queued_bytes),
            (&mut self.turns, other.turns),
            (&mut self.timeouts, other.timeouts),
            (&mut self.timer_lag_ms, other.timer_lag_ms),
        ];
        for (sum, more) in pairs.into_iter().chain(self.failed.iter_mut().zip(other.failed)) {
            *sum += more;
        }
        for (sum, more) in self.live.iter_mut().zip(other.live) {
            *sum += more;
        }
        self.listeners += other.listeners;
        self.max_timer_lag_ms = self.max_timer_lag_ms.max(other.max_timer_lag_ms);
    }
}

impl fmt::Display for Metrics {
    /// One line per number, with its name. Failures and states with a count of zero are omitted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.accepted, "accepted"),
            (self.overflowed, "reset at the maximum of connections"),
            (self.accept_failures, "failures to accept"),
            (self.connects, "connections begun"),
            (self.connected, "connected"),
            (self.confirmed, "ended clean and acknowledged"),
            (self.handed_off, "ended clean, handed off"),
            (self.destroyed, "destroyed"),
        ];
        for (count, name) in counts {
            writeln!(f, "{count:>14} {name}")?;
        }
        for (cause, count) in self.failures() {
            writeln!(f, "{count:>14} failed: {}", word(cause))?;
        }
        writeln!(f, "{:>14} live", self.live())?;
        for (state, count) in self.live_by_state() {
            writeln!(f, "{count:>14}   {}", state.name())?;
        }
        let sums = [
            (self.bytes_read, "bytes read"),
            (self.bytes_written, "bytes written"),
            (self.bytes_unsent, "bytes never sent"),
            (self.queued_bytes, "bytes queued"),
            (self.listeners as u64, "listeners"),
            (self.turns, "turns"),
            (self.timeouts, "timeouts"),
            (self.timer_lag_ms, "ms late, together"),
            (self.max_timer_lag_ms, "ms late at most"),
        ];
        for (count, name) in sums {
            writeln!(f, "{count:>14} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LayerErrorKind;

    #[test]
    fn every_cause_has_a_place_of_its_own() {
        for (index, cause) in CAUSES.into_iter().enumerate() {
            assert_eq!(place(cause), index, "{cause}");
        }
        assert_eq!(
            place(ConnectionErrorKind::Lookup(LookupErrorKind::NotFound)),
            place(ConnectionErrorKind::Lookup(LookupErrorKind::TryAgain))
        );
    }

    #[test]
    fn no_socket_has_failed_with_an_error_of_a_layer() {
        let counts = Counts { failed: [1; CAUSES.len()], ..Counts::default() };
        let metrics = Metrics::of(&counts, 0, 0);
        assert_eq!(metrics.failed_of(ConnectionErrorKind::System), 1);
        assert_eq!(metrics.failed_of(ConnectionErrorKind::Layer(LayerErrorKind::Truncated)), 0);
    }

    /// Each number differs, so that none is added to another.
    #[test]
    fn the_sums_of_two_are_those_of_both() {
        let mut counts =
            Counts { accepted: 1, overflowed: 2, accept_failures: 3, connected: 5, turns: 6, ..Counts::default() };
        (counts.confirmed, counts.handed_off, counts.destroyed, counts.timers) = (7, 8, 9, 10);
        (counts.bytes_read, counts.bytes_written, counts.bytes_unsent) = (11, 12, 13);
        (counts.timer_lag_ms, counts.max_timer_lag_ms, counts.failed[3]) = (14, 15, 16);
        let mut one = Metrics::of(&counts, 4, 17);
        one.add_live(State::Open, 18, 0, 0);
        let other = one.clone();
        one += &other;
        let double = |line: &str| {
            let (number, word) = line.trim().split_once(' ').expect("a number and its name");
            let factor = if word.contains("at most") { 1 } else { 2 };
            format!("{:>14} {word}", factor * number.parse::<u64>().expect("a number"))
        };
        let doubled: Vec<_> = other.to_string().lines().map(double).collect();
        assert_eq!(one.to_string().lines().count(), doubled.len());
        for (sum, twice) in one.to_string().lines().zip(doubled) {
            assert_eq!(sum.split_whitespace().collect::<Vec<_>>(), twice.split_whitespace().collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_state_has_a_place_of_its_own() {
        for (index, state) in State::ALL.iter().copied().enumerate() {
            assert_eq!(state as usize, index, "{state:?}");
        }
    }
}
