//! The result of one case, and of all.

use std::fmt;
use std::time::Duration;

use super::Case;
use crate::check::{Transcript, Violation};
use crate::event::Ending;
use crate::trace::Record;

/// The result of one case, as the network knows it.
///
/// ```
/// use finale::check::{Endings, CaseResult};
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// let server = |socket: &mut Socket<'_>, event: Event<'_>| match event {
///     Event::Data(bytes) => drop(socket.write(bytes)),
///     Event::End => socket.end(),
///     _ => {}
/// };
/// // An echo sends back nothing but what it was sent.
/// let only_echoes = |found: &CaseResult| match found.sent.starts_with(&found.received) {
///     true => Ok(()),
///     false => Err(format!("received {:?}", found.received)),
/// };
/// let listen = ListenOptions::default().deadline(std::time::Duration::from_secs(60));
/// let script = Script::new().send(b"hi").receive(2).finish().receive_end();
/// let report = Endings::of_a_server(listen, script).holds(only_echoes).run(|| server);
/// assert!(report.violation().is_none(), "{report}");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CaseResult {
    /// The case.
    pub case: Case,
    /// What the peer that was cut sent.
    pub sent: Vec<u8>,
    /// What it received.
    pub received: Vec<u8>,
    /// Whether it received our FIN after the last byte.
    pub peer_got_end: bool,
    /// Whether its connection died: by our RST, or by a timeout of its kernel.
    pub peer_died: bool,
    /// What each peer received, by its number.
    pub received_by: Vec<Vec<u8>>,
    /// Whether each peer received our FIN after its last byte, by its number. A proxy whose server
    /// is reset must not end the client's stream as if it were complete.
    pub got_end_by: Vec<bool>,
    /// What a second client without a cut received after this one; `None` if there was none, or if
    /// the machine of its server vanished while it was served.
    pub second: Option<Vec<u8>>,
    /// The ending of the program's socket to the peer that was cut; `None` if there was none.
    pub ending: Option<Ending>,
    /// What [`at_rest`](super::Program::at_rest) returned.
    pub(super) at_rest: Result<(), String>,
    /// The connection that is cut was still open when the second client came.
    pub(super) outlived: bool,
    /// What went wrong with the second client, apart from its bytes.
    pub(super) second_wrong: Option<String>,
    /// What went wrong with each peer: a step that was not done, or an unclean ending.
    pub(super) wrong: Vec<Option<String>>,
    /// A limit of a socket expired.
    pub(super) timed_out: bool,
    /// When the first `timeout` was delivered.
    pub(super) idle_at: Option<Duration>,
}

/// The result of all cases.
///
/// ```
/// use finale::check::Report;
/// fn must_hold(report: &Report) {
///     println!("{} of {} cases", report.cases(), report.total());
///     if let Some((case, violation)) = report.violation() {
///         panic!("{case}: {violation}\n{}", report.transcript());
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) cases: u64,
    pub(super) total: u64,
    pub(super) violation: Option<(Case, Violation)>,
    pub(super) recording: Recording,
}

/// What is recorded of one case.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    pub(super) transcript: Transcript,
    /// With the time since the network began.
    pub(super) records: Vec<(Duration, Record)>,
}

impl Report {
    /// The number of cases that were run.
    #[must_use]
    pub const fn cases(&self) -> u64 {
        self.cases
    }

    /// The number of all cases. It is larger if a rule was broken, or if
    /// [`at_most`](super::Endings::at_most) left some out.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The first case that broke a rule, and the rule.
    #[must_use]
    pub fn violation(&self) -> Option<(Case, &Violation)> {
        self.violation.as_ref().map(|(case, violation)| (*case, violation))
    }

    /// The transcript of the case that broke a rule, or that was replayed.
    #[must_use]
    pub const fn transcript(&self) -> &Transcript {
        &self.recording.transcript
    }

    /// What the program's reactor did in the same case, with the time since its network began:
    /// system calls, transitions, and what the kernel says. `Display` prints them after the
    /// transcript. Of a long case they are the newest 200; the [number](Record::number) of the
    /// first says how many came before.
    #[must_use]
    pub fn records(&self) -> &[(Duration, Record)] {
        &self.recording.records
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endings = if self.cases == 1 { "ending" } else { "endings" };
        match &self.violation {
            None if self.cases == 0 => write!(f, "none of {} endings was run: the limit is too small", self.total),
            None if self.cases < self.total => {
                write!(f, "{} of {} endings, evenly spread, and every rule was kept", self.cases, self.total)
            }
            None => write!(f, "{} {endings}, and every rule was kept", self.cases),
            Some((case, violation)) => {
                writeln!(f, "{case}: {violation}")?;
                writeln!(
                    f,
                    "found after {} {endings}; again with seed {} (`Endings::replay`)\n",
                    self.cases,
                    case.seed()
                )?;
                write!(f, "{}", self.recording)
            }
        }
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.transcript)?;
        let Some((_, first)) = self.records.first() else { return Ok(()) };
        writeln!(f, "\nWhat the program's reactor did, by connection:")?;
        if first.number > 0 {
            writeln!(f, "{:>14}  ... {} earlier records ...", "", first.number)?;
        }
        for (at, record) in &self.records {
            writeln!(f, "{:>11.3} ms  {record}", at.as_nanos() as f64 / 1e6)?;
        }
        Ok(())
    }
}
