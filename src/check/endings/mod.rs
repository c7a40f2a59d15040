//! A protocol handler against every ending, at every byte of a conversation.
//!
//! Invariant: a case is known by its number alone, the seed: the same handler, conversation and
//! seed give the same run.

mod case;
mod trial;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use case::{Case, Cut, Place};
pub(crate) use trial::said;

use super::{Rule, Transcript, Violation, must};
use crate::event::{Ending, Event};
use crate::options::{ConnectOptions, ListenOptions};
use crate::sim::Script;
use crate::sim::script::count;
use crate::socket::Socket;

/// A protocol handler: what a program does with each event of its sockets. Any closure over a
/// socket and an event is one.
pub trait Protocol {
    /// One event, as [`Reactor::next`](crate::Reactor::next) gives it.
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>);

    /// What must hold of the handler when all sockets have told `close`: that nothing is left of
    /// them, or that it has understood what it found. By default nothing is asked.
    ///
    /// # Errors
    /// What does not hold, in one line.
    fn at_rest(&self, found: &Found) -> Result<(), String> {
        let _ = found;
        Ok(())
    }
}

impl<F: FnMut(&mut Socket<'_>, Event<'_>)> Protocol for F {
    fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
        self(socket, event);
    }
}

/// Which side the handler plays; the script plays the other.
#[derive(Debug, Clone)]
enum Role {
    Server(Box<ListenOptions>),
    Client(Box<ConnectOptions>),
}

/// What the caller wants to hold of every case.
type Judge = Box<dyn Fn(&Found) -> Result<(), String>>;

/// Runs a protocol handler against every ending at every byte of a conversation.
///
/// The conversation is a [`Script`] for the peer that goes well. Each case cuts it at one byte, of
/// what the peer sends or of what it receives, in one way ([`Cut`]), and looks whether the rules of
/// [`check`](crate::check) are kept, and these:
///
/// - Undisturbed, every step of the script is done, and the connection ends in good order.
/// - The handler does not panic, and every connection ends within the
///   [patience](Endings::patience).
/// - A delay, a byte at a time, or a slow reader changes nothing: the peer gets the same answer and
///   the same end.
/// - A peer that finishes behind its last byte and reads on gets the whole answer: `end` is not
///   `close`.
/// - The same bytes get the same answer, however they were cut into pieces.
/// - After the cut the same handler, if it is a server, serves a second peer as if nothing had
///   been.
/// - What [`holds`](Endings::holds) and [`at_rest`](Protocol::at_rest) say.
///
/// A handler gets its sockets' events and no others: it has no timers of its own beside a socket's,
/// and opens no connections.
///
/// ```
/// use finale::check::Endings;
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// // Echoes a line, badly: it takes the end for the close, and drops what it has not sent yet.
/// let wrong = |socket: &mut Socket<'_>, event: Event<'_>| match event {
///     Event::Data(bytes) => drop(socket.write(bytes)),
///     Event::End | Event::Timeout => socket.destroy(),
///     _ => {}
/// };
/// let listen = ListenOptions::default().idle_timeout(std::time::Duration::from_secs(10));
/// let polite = Script::new().send(b"hello\n").receive(6).finish().receive_end();
/// let report = Endings::of_a_server(listen, polite).run(|| wrong);
/// let (case, broken) = report.broken().expect("it is wrong");
/// assert!(report.to_string().contains(&case.to_string()), "{broken}");
/// ```
pub struct Endings {
    role: Role,
    script: Script,
    cuts: Vec<Cut>,
    weathers: u64,
    patience: Duration,
    holds: Option<Judge>,
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, script, cuts, weathers, patience, holds: _ } = self;
        write!(f, "Endings {{ {role:?}, {script}, {cuts:?}, {weathers} weathers, {patience:?} }}")
    }
}

/// What one case has come to, as the network knows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Found {
    /// The case.
    pub case: Case,
    /// What the peer's program wrote before the cut.
    pub sent: Vec<u8>,
    /// What the peer's program received.
    pub received: Vec<u8>,
    /// Whether the peer received our FIN behind it.
    pub peer_got_end: bool,
    /// Whether the peer's connection died: our RST, or a time-out of its kernel.
    pub peer_died: bool,
    /// What a second, undisturbed peer received after this one; `None` if there was none.
    pub second: Option<Vec<u8>>,
    /// What went wrong with it beside its bytes.
    pub(crate) second_wrong: Option<String>,
    /// The step that the peer's script did not get past, or that brought less than was waited for.
    pub(crate) undone: Option<String>,
    /// The report of the handler's socket; `None` if the peer was gone before there was one.
    pub ending: Option<Ending>,
}

/// What came of all cases.
#[derive(Debug, Clone)]
pub struct Report {
    cases: u64,
    broken: Option<(Case, Violation)>,
    story: Transcript,
}

impl Report {
    /// How many cases were run.
    #[must_use]
    pub const fn cases(&self) -> u64 {
        self.cases
    }

    /// The first case that broke a rule, and the rule.
    #[must_use]
    pub fn broken(&self) -> Option<(Case, &Violation)> {
        self.broken.as_ref().map(|(case, broken)| (*case, broken))
    }

    /// What happened in the case that broke a rule, or in the one that was replayed.
    #[must_use]
    pub const fn transcript(&self) -> &Transcript {
        &self.story
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endings = if self.cases == 1 { "ending" } else { "endings" };
        match &self.broken {
            None => write!(f, "{} {endings}, and every rule was kept", self.cases),
            Some((case, broken)) => {
                writeln!(f, "{case}: {broken}")?;
                writeln!(f, "found after {} {endings}; again with seed {}\n", self.cases, case.seed())?;
                write!(f, "{}", self.story)
            }
        }
    }
}

impl Endings {
    /// The handler is a server with these options; the script connects to it.
    #[must_use]
    pub fn of_a_server(listen: ListenOptions, script: Script) -> Self {
        Self::new(Role::Server(Box::new(listen)), script)
    }

    /// The handler is a client, connected with these options; the script accepts it.
    #[must_use]
    pub fn of_a_client(connect: ConnectOptions, script: Script) -> Self {
        Self::new(Role::Client(Box::new(connect)), script)
    }

    fn new(role: Role, script: Script) -> Self {
        let patience = Duration::from_secs(3600);
        Self { role, script, cuts: Cut::ALL.to_vec(), weathers: 2, patience, holds: None }
    }

    /// Only these ways to cut. Default: all of [`Cut::ALL`].
    #[must_use]
    pub fn cuts(mut self, cuts: &[Cut]) -> Self {
        self.cuts = cuts.to_vec();
        self
    }

    /// Each case again in so many random weathers: readiness without reason, late or in pieces,
    /// short reads and writes, small buffers, jitter. Nothing of that may change a story. Default
    /// 2.
    #[must_use]
    pub const fn conditions(mut self, weathers: u32) -> Self {
        self.weathers = weathers as u64;
        self
    }

    /// How long, in simulated time, a connection may last. Default one hour: a peer that falls
    /// silent must be noticed by then, for which an [idle timeout](ListenOptions::idle_timeout) is
    /// needed; one of some seconds, since the peer itself takes its time in many cases.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What must hold of every case besides: for example that half a request gets no answer. It
    /// says what is wrong.
    #[must_use]
    pub fn holds(mut self, judge: impl Fn(&Found) -> Result<(), String> + 'static) -> Self {
        self.holds = Some(Box::new(judge));
        self
    }

    /// Runs every case, each with a handler of its own, up to the first that breaks a rule.
    pub fn run<P: Protocol>(&self, make: impl Fn() -> P) -> Report {
        let whole = match self.undisturbed(&make) {
            Ok(whole) => whole,
            Err(broken) => return self.report(1, Case::UNDISTURBED, Some(broken), &make),
        };
        let (sent, received) = (whole.sent.len() as u64, whole.received.len() as u64);
        let is_client = matches!(self.role, Role::Client(_));
        let calm = case::calm(sent, received, is_client, &self.cuts);
        let mut number = 0;
        for weather in 0..=self.weathers {
            for case in &calm {
                let case = Case { weather, ..*case };
                number += 1;
                if let Err(broken) = self.judge(case, &whole, &make) {
                    return self.report(number, case, Some(broken), &make);
                }
            }
        }
        Report { cases: number, broken: None, story: Transcript::new() }
    }

    /// Runs the one case that has this [seed](Case::seed), and tells its story, whether a rule is
    /// broken or not.
    pub fn replay<P: Protocol>(&self, seed: u64, make: impl Fn() -> P) -> Report {
        match self.undisturbed(&make) {
            Err(broken) => self.report(1, Case::UNDISTURBED, Some(broken), &make),
            Ok(whole) => {
                let case = Case::of_seed(seed);
                self.report(1, case, self.judge(case, &whole, &make).err(), &make)
            }
        }
    }

    /// The undisturbed conversation, which says how many bytes there are to cut at.
    fn undisturbed<P: Protocol>(&self, make: &impl Fn() -> P) -> Result<Found, Violation> {
        let whole = self.trial(Case::UNDISTURBED, make, None)?;
        let Some(ending) = &whole.ending else {
            return Err(Violation::new(Rule::Progress, "no connection came about"));
        };
        must(whole.undone.is_none(), Rule::Progress, || {
            let step = whole.undone.clone().unwrap_or_default();
            format!("the peer never got past \"{step}\", with {} received: \"{ending}\"", quote(&whole.received))
        })?;
        must(ending.is_clean(), Rule::Progress, || format!("it does not end in good order: \"{ending}\""))?;
        Ok(whole)
    }

    fn judge<P: Protocol>(&self, case: Case, whole: &Found, make: &impl Fn() -> P) -> Result<(), Violation> {
        let found = self.trial(case, make, None)?;
        let said_all = case.cut == Cut::Fin && case.place == Place::Sent(whole.sent.len() as u64);
        if case.is_harmless() || said_all {
            must(found.received == whole.received, Rule::SameAnswer, || {
                format!("the peer received {}, and undisturbed {}", quote(&found.received), quote(&whole.received))
            })?;
            let is_clean = found.ending.as_ref().is_some_and(Ending::is_clean);
            // Who finished early and reads on sees our end, though a peer that closes by itself may
            // not.
            let same_end = found.peer_got_end == whole.peer_got_end || (said_all && found.peer_got_end);
            must(is_clean && same_end, Rule::SameAnswer, || {
                format!("it ended differently: {}; and undisturbed: {}", report_of(&found), report_of(whole))
            })?;
        } else if case.cut == Cut::Fin && case.weather > 0 {
            let calm = self.trial(Case { weather: 0, ..case }, make, None)?;
            must(found.received == calm.received, Rule::SameAnswer, || {
                format!("the same bytes got {}, and in calm weather {}", quote(&found.received), quote(&calm.received))
            })?;
        }
        let second = found.second.as_ref().filter(|received| **received != whole.received);
        must(second.is_none(), Rule::Isolation, || {
            let received = second.map_or_else(String::new, |received| quote(received));
            format!("a second peer received {received}, and the first undisturbed {}", quote(&whole.received))
        })?;
        must(found.second_wrong.is_none(), Rule::Isolation, || found.second_wrong.clone().unwrap_or_default())?;
        let Some(holds) = &self.holds else { return Ok(()) };
        let held = catch_unwind(AssertUnwindSafe(|| holds(&found)));
        held.unwrap_or_else(|panic| Err(format!("what must hold panicked: {}", said(&*panic))))
            .map_err(|wrong| Violation::new(Rule::Own, wrong))
    }

    fn report<P: Protocol>(&self, cases: u64, case: Case, broken: Option<Violation>, make: &impl Fn() -> P) -> Report {
        let mut story = Transcript::new();
        // The same again, and this time it is told how.
        let _ = self.trial(case, make, Some(&mut story));
        Report { cases, broken: broken.map(|broken| (case, broken)), story }
    }
}

fn report_of(found: &Found) -> String {
    let end = if found.peer_got_end { "the peer received our FIN" } else { "the peer received no FIN" };
    found.ending.as_ref().map_or_else(|| "no connection".to_owned(), |ending| format!("\"{ending}\", and {end}"))
}

/// Bytes for a message: as text, and not too many.
fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = if bytes.len() > SHOWN { "..." } else { "" };
    format!("{} \"{text}{more}\"", count(bytes.len() as u64))
}
