//! Whether a backend deserves clients: what its last connections show.
//!
//! A backend that accepts connections and fails at once has the fewest clients at any time, so it
//! would get every next one. After a few failures in a row it is left out for a while. Then it has
//! one client until it answers. If it fails again, it is left out for twice as long.
//!
//! The proxy doesn't know the protocol. So a client whose requests make backends fail can have them
//! left out, and an answer that reports an error counts as an answer.

use std::time::{Duration, Instant};

use finale::{ConnectionErrorKind, Ending, EndingKind, FirstFin, TimeoutKind};

/// This many failures in a row are no coincidence.
const FAILURES: u32 = 3;
/// How long a backend is left out for the first time, and at most.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// What is known about one backend.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failures in a row.
    failures: u32,
    /// How often it was left out in a row.
    ejections: u32,
    until: Option<Instant>,
    /// It has answered since it was left out.
    has_answered: bool,
}

impl Health {
    /// Whether it may have another client, if it has this many.
    pub(crate) fn allows(&self, clients: usize, now: Instant) -> bool {
        (clients == 0 || !self.is_on_trial()) && !self.is_out(now)
    }

    /// Learns that it has answered something. Returns whether this is its first answer since it was
    /// left out: now it may have any number of clients.
    pub(crate) fn answers(&mut self) -> bool {
        let has_answered = std::mem::replace(&mut self.has_answered, true);
        self.ejections > 0 && !has_answered
    }

    /// For how long it is still left out.
    pub(crate) fn left_out(&self, now: Instant) -> Option<Duration> {
        self.until.and_then(|until| until.checked_duration_since(now)).filter(|time| !time.is_zero())
    }

    /// Whether it has to answer before it may have more than one client.
    pub(crate) const fn is_on_trial(&self) -> bool {
        self.ejections > 0 && !self.has_answered
    }

    /// Learns from the end of a connection, to which the proxy itself had sent `header` bytes.
    /// Returns for how long the backend is left out, if that begins now.
    pub(crate) fn ends(&mut self, ending: &Ending, header: u64, now: Instant) -> Option<Duration> {
        if has_failed(ending, header) {
            self.failures += 1;
        } else if ending.is_clean() && ending.bytes_read > 0 {
            (self.failures, self.ejections) = (0, 0);
        }
        let enough = if self.ejections > 0 { 1 } else { FAILURES };
        // What was under way when it was left out says nothing new.
        if self.failures < enough || self.is_out(now) {
            return None;
        }
        let time = FIRST.saturating_mul(1 << self.ejections.min(16)).min(MOST);
        (self.failures, self.until, self.has_answered) = (0, now.checked_add(time), false);
        self.ejections += 1;
        Some(time)
    }

    fn is_out(&self, now: Instant) -> bool {
        self.left_out(now).is_some()
    }
}

/// Whether the backend is to blame. A connection that the proxy has reset because of its client, or
/// for which the client had no patience, says nothing.
fn has_failed(ending: &Ending, header: u64) -> bool {
    match &ending.kind {
        EndingKind::Failed(error) => matches!(
            error.kind,
            ConnectionErrorKind::Reset
                | ConnectionErrorKind::Unreachable
                | ConnectionErrorKind::TimedOut(TimeoutKind::Kernel)
        ),
        // It has taken a request and finished without an answer.
        _ => ending.first_fin == FirstFin::Peer && ending.bytes_read == 0 && ending.bytes_written > header,
    }
}
