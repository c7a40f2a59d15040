//! Runs a program against every ending, at every byte of a conversation.
//!
//! Invariant: the seed of a case identifies it. The same program, conversation and seed give the
//! same run.

mod case;
mod program;
mod report;
mod rules;
mod trial;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use case::PeerCases;
pub use case::{Case, Cut, CutPoint};
pub use program::Program;
use report::Recording;
pub use report::{CaseResult, Report};
pub(crate) use trial::panic_message;
use trial::{Setup, is_clients_machine};

use super::Violation;
use crate::options::{ConnectOptions, ListenOptions};
use crate::sim::{Network, Script};

/// The machine of the program.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The server that a client of [`Endings::of_a_client`] connects to.
const AWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 7);

/// What [`Endings`] opens before the program begins.
#[derive(Debug, Clone)]
enum Role {
    Server(Box<ListenOptions>),
    Client(Box<ConnectOptions>),
    Program,
}

/// The role of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerRole {
    /// Connects to this address of the program.
    Client(SocketAddr),
    /// Accepts the program's connections here.
    Server(SocketAddr),
}

impl fmt::Display for PeerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(addr) => write!(f, "the client of {addr}; does the program listen there?"),
            Self::Server(addr) => write!(f, "the server {addr}; does the program connect to it?"),
        }
    }
}

#[derive(Debug, Clone)]
struct Peer {
    role: PeerRole,
    script: Script,
}

impl Peer {
    const fn is_client(&self) -> bool {
        matches!(self.role, PeerRole::Client(_))
    }
}

/// What must hold of every case.
type Condition = Box<dyn Fn(&CaseResult) -> Result<(), String>>;

/// Prepares the network of a case.
type Prepare = Box<dyn Fn(&Network)>;

/// Runs a program against every ending at every byte of a conversation.
///
/// The conversation is a [`Script`] of a peer whose conversation succeeds. Each case cuts it at one
/// byte that the peer sends or receives, in one way ([`Cut`]). It checks the rules of
/// [`check`](crate::check), and these:
///
/// - Without a cut every step of the script is done, and the connection ends cleanly. So a script
///   [finishes](Script::finish) or [closes](Script::close).
/// - The program does not panic. Every connection that a client opened ends within the [longest
///   lifetime](Endings::max_lifetime), and any other when the program is stopped. A connection that
///   the peer has reset ends within a minute.
/// - A delay, a byte at a time, or a slow reader changes nothing: the peer gets the same answer and
///   the same end.
/// - A peer that finishes after its last byte and reads on gets the whole answer, also a client
///   that finishes in the middle of the answer: `end` is not `close`.
/// - The same bytes get the same answer, however they were cut into pieces.
/// - A cut client affects no other: neither one that is connected at the same time, nor a second
///   one that comes later and plays the whole script. After a cut server works again, a second
///   client gets the same answer as the first one without a cut.
/// - What [`holds`](Endings::holds) and [`at_rest`](Program::at_rest) require.
///
/// A conversation is cut within its first 16 MiB in each direction: a [seed](Case::seed) has no room
/// for more.
///
/// Time is simulated: a thread of the program would run on the real clock, so it can't be tested
/// here. Timers that are left after the stop are not reported.
///
/// ```
/// use finale::check::Endings;
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// // An echo of a line with a bug: `destroy` at the peer's end drops what is not sent yet.
/// let wrong = |socket: &mut Socket<'_>, event: Event<'_>| match event {
///     Event::Data(bytes) => drop(socket.write(bytes)),
///     Event::End | Event::Timeout => socket.destroy(),
///     _ => {}
/// };
/// let listen = ListenOptions::default().idle_timeout(std::time::Duration::from_secs(10));
/// let polite = Script::new().send(b"hello\n").receive(6).finish().receive_end();
/// let report = Endings::of_a_server(listen, polite).run(|| wrong);
/// let (case, violation) = report.violation().expect("it is wrong");
/// assert!(report.to_string().contains(&case.to_string()), "{violation}");
/// ```
///
/// A whole program with a timer and a connection of its own: it forwards each client's bytes to a
/// server, and gives up after a second.
///
/// ```
/// use std::time::Duration;
/// use finale::check::{Endings, Program};
/// use finale::sim::{Host, Script};
/// use finale::{ConnectOptions, Error, Event, ListenOptions, Pipes, Reactor, Socket, SocketId, TimerId};
///
/// #[derive(Default)]
/// struct Forward {
///     pipes: Pipes,
///     timers: Vec<(TimerId, SocketId)>,
/// }
///
/// impl Program for Forward {
///     fn begin(&mut self, reactor: &mut Reactor<Host>) -> Result<(), Error> {
///         reactor.listen("10.0.0.1:80", ListenOptions::default()).map(drop)
///     }
///
///     fn handle(&mut self, socket: &mut Socket<'_>, event: Event<'_>) {
///         match event {
///             Event::Connection => match socket.connect("10.0.0.2:7", ConnectOptions::default()) {
///                 Ok(server) => {
///                     let client = socket.id();
///                     self.pipes.join(&mut socket.context(), client, server).expect("TCP on both sides");
///                     self.timers.push((socket.set_timer(Duration::from_secs(1)), socket.id()));
///                 }
///                 Err(_) => socket.destroy(),
///             },
///             Event::Timer(timer) => {
///                 for (_, id) in self.timers.extract_if(.., |(known, _)| *known == timer) {
///                     if let Some(mut client) = socket.get(id) {
///                         client.destroy();
///                     }
///                 }
///             }
///             event => drop(self.pipes.handle(socket, &event)),
///         }
///     }
/// }
///
/// let report = Endings::of_a_program()
///     .client("10.0.0.1:80".parse().unwrap(), Script::new().send(b"hi").receive(2).finish().receive_end())
///     .server("10.0.0.2:7".parse().unwrap(), Script::new().receive(2).send(b"HI").receive_end().finish())
///     .run(Forward::default);
/// assert!(report.violation().is_none(), "{report}");
/// ```
pub struct Endings {
    role: Role,
    peers: Vec<Peer>,
    cuts: Vec<Cut>,
    conditions: u64,
    max_lifetime: Duration,
    at_most: Option<u64>,
    at_most_for: Option<Duration>,
    has_second: bool,
    is_stateful: bool,
    keeps_marks: bool,
    prepare: Vec<Prepare>,
    holds: Vec<Condition>,
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, peers, cuts, conditions, max_lifetime, .. } = self;
        write!(f, "Endings {{ {role:?}, {peers:?}, {cuts:?}, {conditions} conditions, {max_lifetime:?}, .. }}")
    }
}

/// The conversation.
impl Endings {
    /// Where a server of [`of_a_server`](Self::of_a_server) listens, for a second
    /// [client](Self::client).
    pub const SERVER: SocketAddr = SocketAddr::new(HOME, 7);

    /// The program is a server with these options; the script connects to it.
    #[must_use]
    pub fn of_a_server(listen: ListenOptions, script: Script) -> Self {
        Self::new(Role::Server(Box::new(listen))).client(Self::SERVER, script)
    }

    /// The program is a client, connected with these options; the script accepts it.
    #[must_use]
    pub fn of_a_client(connect: ConnectOptions, script: Script) -> Self {
        Self::new(Role::Client(Box::new(connect))).server(AWAY, script)
    }

    /// The program opens what it needs in [`begin`](Program::begin), on the machine 10.0.0.1. Add
    /// its peers with [`client`](Self::client) and [`server`](Self::server).
    #[must_use]
    pub fn of_a_program() -> Self {
        Self::new(Role::Program)
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            peers: Vec::new(),
            cuts: Cut::ALL.to_vec(),
            conditions: 2,
            max_lifetime: Duration::from_secs(3600),
            at_most: None,
            at_most_for: None,
            has_second: true,
            is_stateful: false,
            keeps_marks: false,
            prepare: Vec::new(),
            holds: Vec::new(),
        }
    }

    /// Adds a client of the program, with a machine of its own. All clients connect at the same
    /// time. Each is cut in turn; the others play their whole scripts meanwhile.
    ///
    /// # Panics
    /// With more than 100 peers, or if the address is not on the program's machine, 10.0.0.1.
    #[must_use]
    pub fn client(self, addr: SocketAddr, script: Script) -> Self {
        assert_eq!(addr.ip(), HOME, "the program listens on {HOME}");
        self.peer(PeerRole::Client(addr), script)
    }

    /// Adds a server that the program connects to, on a machine of its own. Each connection plays
    /// the script, and the first one is cut. The program must connect to it in every run.
    ///
    /// A program that keeps its connection, in a [`Pool`](crate::Pool) for example, serves the second
    /// client over that of the first one. So the script needs an exchange for each client, for
    /// example `.receive(3).send(b"yes")` twice. A cut of the second exchange then hits the second
    /// client: the program has to send a request again if its connection is lost
    /// ([`PoolEvent::Lost`](crate::PoolEvent::Lost)). With
    /// [`no_second_client`](Self::no_second_client) one exchange is enough.
    ///
    /// # Panics
    /// With more than 100 peers, or if the machine is the program's, a client's (10.0.1.0/24 and
    /// 10.0.2.0), or another server's.
    #[must_use]
    pub fn server(self, addr: SocketAddr, script: Script) -> Self {
        let is_taken = |peer: &Peer| matches!(peer.role, PeerRole::Server(other) if other.ip() == addr.ip());
        assert!(
            addr.ip() != HOME && !is_clients_machine(addr.ip()) && !self.peers.iter().any(is_taken),
            "{} is the machine of another peer: a server needs one of its own",
            addr.ip()
        );
        self.peer(PeerRole::Server(addr), script)
    }

    fn peer(mut self, role: PeerRole, script: Script) -> Self {
        assert!(self.peers.len() < 100, "at most 100 peers");
        self.peers.push(Peer { role, script });
        self
    }
}

/// How the conversation is cut.
impl Endings {
    /// Cuts only in these ways. Default: all of [`Cut::ALL`].
    #[must_use]
    pub fn cuts(mut self, cuts: &[Cut]) -> Self {
        self.cuts = cuts.to_vec();
        self
    }

    /// Repeats each case under this many network conditions. The first is tight: small buffers, a
    /// high-water mark of one byte, and peers that read nothing before they reset or close. The
    /// others are random: spurious, late or partial readiness, short reads and writes, small
    /// buffers and marks, jitter. None of that may change the answer. Before the second client
    /// connects all of it ends, except small buffers and marks. Default 2.
    ///
    /// # Panics
    /// From 2^24 on: a [seed](Case::seed) has no room for more.
    #[must_use]
    pub const fn conditions(mut self, conditions: u32) -> Self {
        assert!(conditions < 1 << 24, "at most 16,777,215 network conditions");
        self.conditions = conditions as u64;
        self
    }

    /// Leaves the high-water marks as the program set them. Use it for a program that destroys a
    /// client when its queue is full, instead of waiting.
    #[must_use]
    pub const fn keep_marks(mut self) -> Self {
        self.keeps_marks = true;
        self
    }

    /// Runs at most this many cases, spread evenly over bytes, cuts and conditions. Default: no
    /// limit.
    #[must_use]
    pub const fn at_most(mut self, cases: u64) -> Self {
        self.at_most = Some(cases);
        self
    }

    /// Begins no case after this real time. The cases until then are spread evenly. Default: no
    /// limit.
    #[must_use]
    pub const fn at_most_for(mut self, time: Duration) -> Self {
        self.at_most_for = Some(time);
        self
    }

    /// Prepares the network of each case: names for the resolver, delays. A second call adds to the
    /// first.
    #[must_use]
    pub fn network(mut self, prepare: impl Fn(&Network) + 'static) -> Self {
        self.prepare.push(Box::new(prepare));
        self
    }
}

/// What must hold.
impl Endings {
    /// How long a connection of a client may last, in simulated time. Default one hour: a silent
    /// peer must be detected within it, which needs an [idle timeout](ListenOptions::idle_timeout).
    /// A program that keeps connections open runs for this long before it is stopped.
    #[must_use]
    pub const fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// Compares only how conversations end, not their bytes. Use it if what a peer receives depends
    /// on other peers, as in a chat, or on the past, as in a store. [`holds`](Self::holds) can
    /// check the bytes. For a server with a memory, [`forget`](Program::forget) is stricter.
    #[must_use]
    pub const fn stateful(mut self) -> Self {
        self.is_stateful = true;
        self
    }

    /// Runs no second client after the cut: for a server with a memory that it can't clear.
    #[must_use]
    pub const fn no_second_client(mut self) -> Self {
        self.has_second = false;
        self
    }

    /// What must also hold of every case, for example that half a request gets no answer. The error
    /// says what is wrong. A second call adds to the first.
    #[must_use]
    pub fn holds(mut self, check_case: impl Fn(&CaseResult) -> Result<(), String> + 'static) -> Self {
        self.holds.push(Box::new(check_case));
        self
    }
}

/// The real time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

impl Endings {
    /// Runs every case, each with a new program, up to the first that breaks a rule. A long run
    /// prints its progress on standard error every five seconds.
    ///
    /// # Panics
    /// Without a peer, or if a script neither finishes nor closes: no connection to it can end
    /// cleanly.
    pub fn run<P: Program>(&self, make: impl Fn() -> P) -> Report {
        let wholes = match self.uncut(&make) {
            Ok(wholes) => wholes,
            Err((setup, violation)) => return self.report((1, 1), setup, Some(violation), &make),
        };
        let peers: Vec<PeerCases> = self.cases(&wholes).collect();
        let calm: u64 = peers.iter().map(PeerCases::len).sum();
        let total = calm * (self.conditions + 1);
        let begun = Instant::now();
        let mut printed = begun;
        let mut done = 0;
        for number in self.order(total) {
            if self.at_most_for.is_some_and(|limit| begun.elapsed() >= limit) {
                break;
            }
            let (peer, place) = case::part_of(&peers, PeerCases::len, number % calm);
            let case = Case { conditions: number / calm, ..peer.case(place) };
            done += 1;
            if let Err((setup, violation)) = self.check_case(case, &wholes, &make) {
                return self.report((done, total), setup, Some(violation), &make);
            }
            if printed.elapsed() >= PROGRESS {
                printed = Instant::now();
                eprintln!("{done} of {total} endings in {:.0} s", begun.elapsed().as_secs_f32());
            }
        }
        Report { cases: done, total, violation: None, recording: Recording::default() }
    }

    /// The client whose script the second client plays: the one that was cut, or the first client
    /// if a server was cut.
    fn client_to_repeat(&self, case: Case) -> Option<usize> {
        let cut = usize::from(case.peer);
        if self.peers[cut].is_client() { Some(cut) } else { self.peers.iter().position(Peer::is_client) }
    }

    /// The number of bytes of all conversations, as the scripts count them, or as they were seen.
    fn bytes(&self, wholes: &[CaseResult]) -> u64 {
        let counted = self.peers.iter().map(|peer| peer.script.bytes()).sum::<u64>();
        counted.max(wholes.iter().map(|whole| (whole.sent.len() + whole.received.len()) as u64).sum())
    }

    /// The cases of each peer, without network conditions.
    fn cases(&self, wholes: &[CaseResult]) -> impl Iterator<Item = PeerCases<'_>> {
        let last_byte = |bytes: &[u8]| (bytes.len() as u64).min(Case::LAST_BYTE);
        self.peers.iter().zip(wholes).zip(0..).map(move |((peer, whole), number)| PeerCases {
            peer: number,
            sent: last_byte(&whole.sent),
            received: last_byte(&whole.received),
            is_server: !peer.is_client(),
            cuts: &self.cuts,
        })
    }

    /// The numbers of the cases in the order of the runs: the mildest first. If some may be left
    /// out, any beginning is spread evenly.
    fn order(&self, total: u64) -> Box<dyn Iterator<Item = u64>> {
        let most = self.at_most.unwrap_or(total).min(total);
        if most == total && self.at_most_for.is_none() {
            return Box::new(0..total);
        }
        // A step of the golden ratio never leaves a gap of two average ones. Neighbours in the
        // Fibonacci sequence are the integers closest to it, and have no common divisor, so that
        // the steps come to each number once.
        let (mut step, mut size) = (1, 1);
        while size < total {
            (step, size) = (size, step + size);
        }
        let steps = (0..size).map(move |number| (u128::from(number) * u128::from(step) % u128::from(size)) as u64);
        let steps = steps.filter(move |number| *number < total).take(usize::try_from(most).unwrap_or(usize::MAX));
        if self.at_most_for.is_some() {
            return Box::new(steps);
        }
        let mut order: Vec<u64> = steps.collect();
        order.sort_unstable();
        Box::new(order.into_iter())
    }

    /// Runs the case with this [seed](Case::seed), also one that was left out of
    /// [`run`](Self::run). The report has its transcript in any case.
    ///
    /// # Panics
    /// As for [`run`](Self::run), and if the conversation has no such case: the seed is of another
    /// one, or of this one before it was changed.
    pub fn replay<P: Program>(&self, seed: u64, make: impl Fn() -> P) -> Report {
        match self.uncut(&make) {
            Err((setup, violation)) => self.report((1, 1), setup, Some(violation), &make),
            Ok(wholes) => {
                let case = Case::of_seed(seed)
                    .filter(|case| self.cases(&wholes).any(|cases| cases.peer == case.peer && cases.contain(*case)));
                let Some(case) = case else {
                    panic!(
                        "seed {seed} is no case of this conversation: it is of another one, or of this one before it \
                         changed"
                    )
                };
                let setup = Setup { case, bytes: self.bytes(&wholes), is_punctual: false };
                match self.check_case(case, &wholes, &make) {
                    Ok(()) => self.report((1, 1), setup, None, &make),
                    Err((setup, violation)) => self.report((1, 1), setup, Some(violation), &make),
                }
            }
        }
    }

    fn report<P: Program>(
        &self,
        (cases, total): (u64, u64),
        setup: Setup,
        violation: Option<Violation>,
        make: &impl Fn() -> P,
    ) -> Report {
        let mut recording = Recording::default();
        // Runs the case again to record it.
        let _ = self.trial(setup, make, Some(&mut recording));
        Report { cases, total, violation: violation.map(|violation| (setup.case, violation)), recording }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endings() -> Endings {
        Endings::of_a_server(ListenOptions::default(), Script::new())
    }

    /// Among these numbers of `total`, and from the last one to the first: the largest distance, as
    /// a multiple of the average one.
    fn largest_gap(numbers: &[u64], total: u64) -> f64 {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        let next = numbers.iter().copied().skip(1).chain([numbers[0] + total]);
        let largest = numbers.iter().zip(next).map(|(number, next)| next - number).max().unwrap_or(0);
        largest as f64 * numbers.len() as f64 / total as f64
    }

    #[test]
    fn a_bounded_run_spreads_its_cases_evenly_and_runs_none_twice() {
        let for_a_while = endings().at_most_for(Duration::from_secs(1));
        for total in (1..400).chain([1008, 9_973, 36_096, 99_990]) {
            let order: Vec<u64> = for_a_while.order(total).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..total), "{total}: each number once");
            // Whenever the time is over.
            for begun in (1..=total as usize).step_by(total as usize / 20 + 1) {
                let gap = largest_gap(&order[..begun], total);
                assert!(gap < 2.0, "{begun} of {total}: a gap of {gap} averages");
            }
            // As evenly with a bound on the number, and then the mildest first.
            let mut some = order[..total as usize / 3].to_vec();
            some.sort_unstable();
            assert!(endings().at_most(total / 3).order(total).eq(some), "{total}");
        }
        assert!(endings().order(100).eq(0..100));
        assert!(endings().at_most(100).order(100).eq(0..100));
    }
}
