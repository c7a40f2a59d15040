//! Checks that a program keeps the rules on the simulated network, whatever happens to it.
//!
//! There are two ways:
//!
//! - [`Endings`] runs *your* protocol handler against every ending at every byte of a conversation.
//!   Start here.
//! - [`chaos`] has random programs under random faults, one run per seed. This is how finale itself
//!   is tested (`finale sim`).
//!
//! # The ten rules
//!
//! A random run checks at every event what is known then. At its end it checks the rest: that
//! everything is freed, that few polls were in vain, and that both ends of a connection agree.
//! [`Endings`] checks 1, 6, 8 and 9, and rules of its own.
//!
//! 1. **Language.** The events of a socket are a prefix of the grammar in [`Event`](crate::Event);
//!    see [`EventGrammar`].
//! 2. **Bytes.** What `data` delivers is what the peer wrote, in order, and nothing else. The
//!    numbers of an [`Ending`](crate::Ending) are those of the network.
//! 3. **Honest close.** A close is confirmed only if the peer's kernel has every byte and our FIN.
//!    `end` comes only after the peer's FIN and its last byte. No clean close has destroyed an
//!    answer.
//! 4. **Cause.** Every error has a cause that the network knows. Without a fault there is no error.
//! 5. **Timers.** None is early, and none is late by more than two ticks and four turns of its
//!    reactor.
//! 6. **Resources.** Everything is freed with the last `close`.
//! 7. **No spin.** A turn without work waits.
//! 8. **Progress.** A socket with work is queued, and one without is watched. When the faults stop,
//!    all sockets close.
//! 9. **Isolation.** A fault of one connection ends no other.
//! 10. **Identity and replay.** No id names two sockets, a stale id finds nothing, and two runs of
//!     one seed are the same.

#[allow(clippy::wildcard_enum_match_arm, reason = "what a random run does not draw is left out")]
pub mod chaos;
mod endings;
mod event_grammar;
mod transcript;

use std::fmt;

use crate::error::Error;

pub use endings::{Case, CaseResult, Cut, CutPoint, Endings, Program, Report};
pub use event_grammar::EventGrammar;
pub(crate) use transcript::record;
pub use transcript::{Column, Transcript};

/// One of the ten rules, or of the two for protocol handlers; see [`Endings`].
///
/// ```
/// use finale::check::Rule;
/// assert_eq!(Rule::HonestClose.to_string(), "honest close");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The grammar of events.
    Language,
    /// Every byte is delivered in order, and none is invented.
    Bytes,
    /// What a close claims is true.
    HonestClose,
    /// Every error has a cause.
    Cause,
    /// No timer is early, none is late.
    Timers,
    /// Everything is freed.
    Resources,
    /// No turn without work.
    NoSpin,
    /// Every socket that can make progress does.
    Progress,
    /// A fault affects only its own connection.
    Isolation,
    /// One id names one socket, and one seed gives one run.
    Identity,
    /// The same bytes get the same answer, however they arrive and whenever the peer finishes.
    SameAnswer,
    /// What the program itself requires: [`Endings::holds`], [`Program::at_rest`], and that it does
    /// not panic.
    Own,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Language => "language",
            Self::Bytes => "bytes",
            Self::HonestClose => "honest close",
            Self::Cause => "cause",
            Self::Timers => "timers",
            Self::Resources => "resources",
            Self::NoSpin => "no spin",
            Self::Progress => "progress",
            Self::Isolation => "isolation",
            Self::Identity => "identity and replay",
            Self::SameAnswer => "same answer",
            Self::Own => "the handler's own",
        })
    }
}

/// A rule that was broken, and how. `Display` is one line, plus a table of the open sockets where
/// that helps.
///
/// ```
/// use finale::check::{Endings, Rule};
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// // Never ends its side.
/// let wrong = |_: &mut Socket<'_>, _: Event<'_>| {};
/// let script = Script::new().send(b"x").finish().receive_end();
/// let report = Endings::of_a_server(ListenOptions::default(), script).run(|| wrong);
/// let (_, violation) = report.violation().expect("a violation");
/// assert_eq!(violation.rule, Rule::Progress, "{violation}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What happened.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule \"{}\": {}", self.rule, self.what)
    }
}

impl std::error::Error for Violation {}

/// The error of a reactor that can't continue, as a violation.
pub(crate) fn stuck(error: &Error) -> Violation {
    if let Error::System { source, .. } = error
        && source.raw() == rustix::io::Errno::LOOP.raw_os_error()
    {
        return Violation::new(Rule::NoSpin, "turn after turn, and nothing happens");
    }
    Violation::new(Rule::Progress, format!("nothing can happen any more, and sockets are open ({error})"))
}

/// `Ok` if it holds, otherwise a violation of the rule.
pub(crate) fn must(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(rule, what())) }
}
