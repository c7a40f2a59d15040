//! Whether a program on the simulated network keeps the rules, whatever happens to it.
//!
//! Two ways to find out:
//!
//! - [`Endings`]: *your* protocol handler against every ending at every byte of a conversation.
//!   Start there.
//! - [`chaos`]: random programs under random faults, one run a seed: how finale itself is tested
//!   (`finale sim`).
//!
//! # The ten rules
//!
//! In a random run 1 to 5, 8 and 10 are checked at every event, 6, 7 and 9 when all is over;
//! [`Endings`] checks 1, 6 and 8, and rules of its own.
//!
//! 1. **Language.** The events of a socket are a beginning of the grammar in
//!    [`Event`](crate::Event); see [`EventGrammar`].
//! 2. **Bytes.** What is told as `data` is what the peer wrote, in order, and nothing else; the
//!    numbers of an [`Ending`](crate::Ending) are those of the network.
//! 3. **Honest close.** Confirmed only if the peer's kernel has every byte and our FIN; `end` only
//!    behind their FIN and their last byte; no close in good order has destroyed an answer.
//! 4. **Cause.** Every error has a cause that the network can name; without a fault there is no
//!    error.
//! 5. **Timers.** None is early; none is late by more than a tick.
//! 6. **Resources.** Everything is given back with the last `close`.
//! 7. **No spin.** A turn with nothing to do waits.
//! 8. **Progress.** A socket with something to do is queued, one without is watched; when the
//!    faults stop, all end.
//! 9. **Isolation.** What befalls one connection ends no other.
//! 10. **Identity and replay.** No id names two sockets, a stale one finds nothing, and the same
//!     seed tells the same story.

#[allow(clippy::wildcard_enum_match_arm, reason = "what a random run does not draw is left out")]
pub mod chaos;
mod endings;
mod event_grammar;
mod transcript;

use std::fmt;

use crate::error::Error;

pub use endings::{Case, Cut, Endings, Found, Place, Program, Report};
pub use event_grammar::EventGrammar;
pub(crate) use transcript::note;
pub use transcript::{Column, Transcript};

/// One of the ten rules, or of the two for protocol handlers, see [`Endings`].
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
    /// Every byte, in order, and none invented.
    Bytes,
    /// What a close claims is so.
    HonestClose,
    /// Every error has a cause.
    Cause,
    /// No timer is early, none is late.
    Timers,
    /// Everything is given back.
    Resources,
    /// No turn without work.
    NoSpin,
    /// Whoever can go on does.
    Progress,
    /// A fault stays where it struck.
    Isolation,
    /// One id, one socket; one seed, one story.
    Identity,
    /// Of a protocol handler: the same bytes get the same answer, however they come and whenever
    /// the peer finishes.
    SameAnswer,
    /// Of a protocol handler: what it asks of itself.
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

/// A rule that was broken, and how. `Display` is one line.
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
/// let (_, violation) = report.broken().expect("a violation");
/// assert_eq!(violation.rule, Rule::Progress, "{violation}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What was seen.
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

/// A reactor that can't go on, in words.
pub(crate) fn stuck(error: &Error) -> Violation {
    if let Error::System { source, .. } = error
        && source.raw() == rustix::io::Errno::LOOP.raw_os_error()
    {
        return Violation::new(Rule::NoSpin, "it turns and turns, and nothing moves");
    }
    Violation::new(Rule::Progress, format!("nothing can ever happen any more, though sockets live ({error})"))
}

/// `Ok` if it holds, else the rule and what was seen instead.
pub(crate) fn must(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(rule, what())) }
}
