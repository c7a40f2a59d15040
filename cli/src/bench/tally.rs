//! The results of the connections: counts, latencies, bytes.

use std::time::Duration;

use finale::{ConnectionErrorKind, Ending, EndingKind, FirstFin, LayerErrorKind};
use finale_tls::TlsMetrics;
use hdrhistogram::Histogram;

use crate::errors::Error;
use crate::output::count;

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
    Handshake,
    Truncated,
    TlsError,
    TooShort,
    TooLong,
    WrongContent,
    Other,
}

impl Kind {
    pub(super) const ALL: [Self; 14] = [
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::Unreachable,
        Self::NoLocalAddress,
        Self::OutOfResources,
        Self::Aborted,
        Self::Handshake,
        Self::Truncated,
        Self::TlsError,
        Self::TooShort,
        Self::TooLong,
        Self::WrongContent,
        Self::Other,
    ];

    /// The name on the page and in the JSON object.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::NoLocalAddress => "no-local-address",
            Self::OutOfResources => "out-of-resources",
            Self::Aborted => "aborted",
            Self::Handshake => "handshake",
            Self::Truncated => "truncated",
            Self::TlsError => "tls-error",
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
            ConnectionErrorKind::Layer(LayerErrorKind::Handshake | LayerErrorKind::HandshakeTimeout) => Self::Handshake,
            ConnectionErrorKind::Layer(LayerErrorKind::Truncated) => Self::Truncated,
            ConnectionErrorKind::Layer(_) => Self::TlsError,
            _ => Self::Other,
        }
    }
}

/// What is known of one connection, besides its ending.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Up to the end of the answer. `None` if that did not arrive.
    pub(super) latency: Option<Duration>,
    pub(super) right_content: bool,
    pub(super) expected_bytes: u64,
}

/// Longer latencies count as an hour.
const LONGEST: Duration = Duration::from_secs(3600);

/// The sums.
#[derive(Debug)]
pub(super) struct Tally {
    /// Connections that ended by themselves.
    pub(super) finished: u64,
    failures: [u64; Kind::ALL.len()],
    /// The limit of each connection.
    timeout: Duration,
    /// Whether no more were begun since all have failed.
    pub(super) hopeless: bool,
    /// Connections that were due more than the timeout ago when a place was free. They were not begun.
    pub(super) overloaded: u64,
    /// Connections of the given number that were not begun, these included.
    pub(super) never_begun: Option<u64>,
    /// When the last was begun.
    pub(super) last_begun: Duration,
    /// What the first failure looked like.
    pub(super) first_failure: Option<String>,
    /// What the handshakes were, with TLS.
    pub(super) tls: Option<TlsMetrics>,
    /// A signal ended the run.
    pub(super) interrupted: bool,
    /// Connections in flight at that time.
    pub(super) cut_off: u64,
    /// Of successful connections, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// The longest of them. The histogram has it to three digits only.
    pub(super) longest: Duration,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) acknowledged: u64,
    pub(super) we_first: u64,
    pub(super) peer_first: u64,
    /// Begun more than a millisecond after they were due.
    pub(super) late: u64,
    /// From the first start to the last close.
    pub(super) took: Duration,
}

impl Tally {
    pub(super) fn new(timeout: Duration) -> Result<Self, Error> {
        let latency = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)
            .map_err(|_why| Error::Scene("can't create the histogram"))?;
        Ok(Self {
            finished: 0,
            failures: [0; Kind::ALL.len()],
            timeout,
            hopeless: false,
            overloaded: 0,
            never_begun: None,
            last_begun: Duration::ZERO,
            first_failure: None,
            tls: None,
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

    /// Adds one connection.
    pub(super) fn add(&mut self, ending: &Ending, seen: Seen) {
        self.finished += 1;
        self.bytes_sent += ending.bytes_written;
        self.bytes_received += ending.bytes_read;
        let failure = match &ending.kind {
            // Only a connection at its limit is destroyed.
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
            (EndingKind::Destroyed, _) => {
                format!("no end of the answer within {}", humantime::format_duration(self.timeout))
            }
            (_, Kind::TooShort | Kind::TooLong) => {
                format!("an answer of {}, where {expected} were expected", count(read, "byte"))
            }
            (_, Kind::WrongContent) => {
                format!("an answer of {} with another content than expected", count(read, "byte"))
            }
            _ => ending.to_string(),
        });
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    pub(super) fn successful(&self) -> u64 {
        self.finished - self.failed()
    }

    /// The kinds that occurred.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.failures[kind as usize])).filter(|(_, count)| *count > 0)
    }
}
