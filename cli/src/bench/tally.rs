//! What became of the connections: counts, latencies, bytes.

use std::time::Duration;

use finale::{ConnectionErrorKind, Ending, EndingKind, FirstFin};
use hdrhistogram::Histogram;

use crate::trouble::Trouble;

/// Why a connection counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Refused,
    Reset,
    TimedOut,
    Unreachable,
    NoLocalAddress,
    OutOfResources,
    Aborted,
    TooShort,
    TooLong,
    WrongContent,
    Other,
}

impl Kind {
    pub(super) const ALL: [Self; 11] = [
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::Unreachable,
        Self::NoLocalAddress,
        Self::OutOfResources,
        Self::Aborted,
        Self::TooShort,
        Self::TooLong,
        Self::WrongContent,
        Self::Other,
    ];

    /// As the page and the JSON object call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::NoLocalAddress => "no-local-address",
            Self::OutOfResources => "out-of-resources",
            Self::Aborted => "aborted",
            Self::TooShort => "too-short",
            Self::TooLong => "too-long",
            Self::WrongContent => "wrong-content",
            Self::Other => "other",
        }
    }

    fn of(cause: ConnectionErrorKind) -> Self {
        match cause {
            ConnectionErrorKind::Refused => Self::Refused,
            ConnectionErrorKind::Reset => Self::Reset,
            ConnectionErrorKind::TimedOut(_) => Self::TimedOut,
            ConnectionErrorKind::Unreachable => Self::Unreachable,
            ConnectionErrorKind::NoLocalAddress => Self::NoLocalAddress,
            ConnectionErrorKind::OutOfResources => Self::OutOfResources,
            ConnectionErrorKind::Aborted => Self::Aborted,
            _ => Self::Other,
        }
    }
}

/// What this side saw of one connection besides its ending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// From where the latency counts to the end of the answer; `None` if that did not come.
    pub(super) latency: Option<Duration>,
    pub(super) right_content: bool,
    pub(super) expected_bytes: u64,
}

/// Longer latencies count as an hour.
const LONGEST: Duration = Duration::from_secs(3600);

/// The sums.
#[derive(Debug)]
pub(super) struct Tally {
    /// Connections that have come to an end of their own.
    pub(super) finished: u64,
    failures: [u64; Kind::ALL.len()],
    /// The time that each has.
    timeout: Duration,
    /// So many failed that no more were begun.
    pub(super) hopeless: bool,
    /// Those of a given number that were not begun.
    pub(super) never_begun: Option<u64>,
    /// When the last was begun.
    pub(super) last_begun: Duration,
    /// What the first failure looked like.
    pub(super) first_failure: Option<String>,
    /// A signal ended the run.
    pub(super) interrupted: bool,
    /// In flight then.
    pub(super) cut_off: u64,
    /// Of those that went well, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// The longest of them: the histogram knows it to three digits only.
    longest: Duration,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) acknowledged: u64,
    pub(super) we_first: u64,
    pub(super) peer_first: u64,
    /// Begun more than a millisecond after they were due: no place was free, or we had no core.
    pub(super) late: u64,
    /// From the first start to the last close.
    pub(super) took: Duration,
}

impl Tally {
    pub(super) fn new(timeout: Duration) -> Result<Self, Trouble> {
        let latency = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)
            .map_err(|_why| Trouble::Scene("the histogram could not be made"))?;
        Ok(Self {
            finished: 0,
            failures: [0; Kind::ALL.len()],
            timeout,
            hopeless: false,
            never_begun: None,
            last_begun: Duration::ZERO,
            first_failure: None,
            interrupted: false,
            cut_off: 0,
            latency,
            longest: Duration::ZERO,
            bytes_sent: 0,
            bytes_received: 0,
            acknowledged: 0,
            we_first: 0,
            peer_first: 0,
            late: 0,
            took: Duration::ZERO,
        })
    }

    /// One connection more.
    pub(super) fn add(&mut self, ending: &Ending, seen: Seen) {
        self.finished += 1;
        self.bytes_sent += ending.bytes_written;
        self.bytes_received += ending.bytes_read;
        let failure = match &ending.kind {
            // Only a connection that was not done in time is destroyed.
            EndingKind::Destroyed => Some(Kind::TimedOut),
            EndingKind::Failed(failure) => Some(Kind::of(failure.kind)),
            _ if ending.bytes_read < seen.expected_bytes => Some(Kind::TooShort),
            _ if ending.bytes_read > seen.expected_bytes => Some(Kind::TooLong),
            _ if !seen.right_content => Some(Kind::WrongContent),
            _ => None,
        };
        match (failure, seen.latency) {
            (Some(kind), _) => self.fail(kind, ending, seen),
            (None, Some(latency)) => {
                self.latency.saturating_record(latency.as_nanos() as u64);
                self.longest = self.longest.max(latency);
                self.acknowledged += u64::from(ending.is_acknowledged());
                self.we_first += u64::from(ending.first_fin == FirstFin::Local);
                self.peer_first += u64::from(ending.first_fin == FirstFin::Peer);
            }
            (None, None) => self.fail(Kind::Other, ending, seen),
        }
    }

    fn fail(&mut self, kind: Kind, ending: &Ending, seen: Seen) {
        self.failures[kind as usize] += 1;
        if self.first_failure.is_some() {
            return;
        }
        let (read, expected) = (ending.bytes_read, seen.expected_bytes);
        self.first_failure = Some(match (&ending.kind, kind) {
            (EndingKind::Failed(failure), _) => failure.to_string(),
            (EndingKind::Destroyed, _) => format!("no end within {}", humantime::format_duration(self.timeout)),
            (_, Kind::TooShort | Kind::TooLong) => format!("an answer of {read} bytes, where {expected} were expected"),
            (_, Kind::WrongContent) => format!("an answer of {read} bytes with another content than expected"),
            _ => ending.to_string(),
        });
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    pub(super) fn well(&self) -> u64 {
        self.finished - self.failed()
    }

    /// Those kinds that occurred.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.failures[kind as usize])).filter(|(_, count)| *count > 0)
    }

    /// Connections that went well, a second.
    pub(super) fn per_second(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.well() as f64 / self.took.as_secs_f64() }
    }

    /// A latency that this share of the connections did not exceed.
    pub(super) fn latency_at(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_percentile(percentile)).min(self.longest)
    }
}
