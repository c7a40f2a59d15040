//! A program against every ending, at every byte of a conversation.
//!
//! Invariant: a case is known by its number alone, the seed: the same program, conversation and
//! seed give the same run.

mod case;
mod program;
mod report;
mod rules;
mod trial;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

pub use case::{Case, Cut, Place};
pub use program::Program;
pub use report::{Found, Report};
pub(crate) use trial::said;

use super::{Transcript, Violation};
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

/// The side that a script plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Connects to this address of the program.
    Client(SocketAddr),
    /// Accepts the program's connections here.
    Server(SocketAddr),
}

#[derive(Debug, Clone)]
struct Peer {
    side: Side,
    script: Script,
}

impl Peer {
    const fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }
}

/// What the caller wants to hold of every case.
type Judge = Box<dyn Fn(&Found) -> Result<(), String>>;

/// What the caller does to the network of every case.
type Prepare = Box<dyn Fn(&Network)>;

/// Runs a program against every ending at every byte of a conversation.
///
/// The conversation is a [`Script`] for the peer that goes well. Each case cuts it at one byte, of
/// what the peer sends or of what it receives, in one way ([`Cut`]), and checks the rules of
/// [`check`](crate::check), and these:
///
/// - Undisturbed, every step of the script is done, and the connection ends in good order.
/// - The program does not panic. Every connection that a client opened ends within the
///   [patience](Endings::patience), and any other when the program is stopped. A connection that
///   the peer has reset ends within a minute.
/// - A delay, a byte at a time, or a slow reader changes nothing: the peer gets the same answer and
///   the same end.
/// - A peer that finishes after its last byte and reads on gets the whole answer: `end` is not
///   `close`.
/// - The same bytes get the same answer, however they were cut into pieces.
/// - A cut client harms no other: neither one that is connected at the same time, nor a second one
///   that comes later and plays the whole script.
/// - What [`holds`](Endings::holds) and [`at_rest`](Program::at_rest) say.
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
///
/// A whole program, here with a timer of its own and a connection of its own: it forwards each
/// client's bytes to a server, and gives up after a second.
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
///                     self.pipes.join(socket.id(), server);
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
/// assert!(report.broken().is_none(), "{report}");
/// ```
pub struct Endings {
    role: Role,
    peers: Vec<Peer>,
    cuts: Vec<Cut>,
    conditions: u64,
    patience: Duration,
    most: Option<u64>,
    time: Option<Duration>,
    has_second: bool,
    is_stateful: bool,
    keeps_marks: bool,
    prepare: Option<Prepare>,
    holds: Option<Judge>,
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, peers, cuts, conditions, patience, .. } = self;
        write!(f, "Endings {{ {role:?}, {peers:?}, {cuts:?}, {conditions} conditions, {patience:?}, .. }}")
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
            patience: Duration::from_secs(3600),
            most: None,
            time: None,
            has_second: true,
            is_stateful: false,
            keeps_marks: false,
            prepare: None,
            holds: None,
        }
    }

    /// Adds a client of the program, with a machine of its own. All clients connect at the same
    /// time. Each is cut in turn; the others play their whole scripts meanwhile.
    ///
    /// # Panics
    /// With more than 100 peers.
    #[must_use]
    pub fn client(self, addr: SocketAddr, script: Script) -> Self {
        self.peer(Side::Client(addr), script)
    }

    /// Adds a server that the program connects to. The script is played with each connection, and
    /// is cut in the first one.
    ///
    /// # Panics
    /// With more than 100 peers, or if the address is on the program's machine.
    #[must_use]
    pub fn server(self, addr: SocketAddr, script: Script) -> Self {
        assert_ne!(addr.ip(), HOME, "a server of another program needs another machine");
        self.peer(Side::Server(addr), script)
    }

    fn peer(mut self, side: Side, script: Script) -> Self {
        assert!(self.peers.len() < 100, "at most 100 peers");
        self.peers.push(Peer { side, script });
        self
    }
}

/// How it is cut.
impl Endings {
    /// Only these ways to cut. Default: all of [`Cut::ALL`].
    #[must_use]
    pub fn cuts(mut self, cuts: &[Cut]) -> Self {
        self.cuts = cuts.to_vec();
        self
    }

    /// Repeats each case under this many network conditions. The first is tight: small buffers, a
    /// high-water mark of one byte, and peers that read nothing before they reset or close. The
    /// others are random: spurious, late or partial readiness, short reads and writes, small
    /// buffers and marks, jitter. None of that may change the answer. Default 2.
    #[must_use]
    pub const fn conditions(mut self, conditions: u32) -> Self {
        self.conditions = conditions as u64;
        self
    }

    /// The high-water marks stay as the program set them: for a program that throws a client out
    /// when its queue is full, instead of waiting.
    #[must_use]
    pub const fn keep_marks(mut self) -> Self {
        self.keeps_marks = true;
        self
    }

    /// Runs at most so many cases. They are spread evenly over bytes, cuts and conditions. Default:
    /// no limit.
    #[must_use]
    pub const fn at_most(mut self, cases: u64) -> Self {
        self.most = Some(cases);
        self
    }

    /// Begins no case after this time of the real clock. The cases up to then are spread evenly.
    /// Default: no limit.
    #[must_use]
    pub const fn at_most_for(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// Prepares the network of each case: names for the resolver, delays.
    #[must_use]
    pub fn network(mut self, prepare: impl Fn(&Network) + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }
}

/// What must hold.
impl Endings {
    /// How long, in simulated time, a connection of a client may last. Default one hour: a peer
    /// that falls silent must be noticed by then, for which an
    /// [idle timeout](ListenOptions::idle_timeout) is needed. A program that never comes to rest by
    /// itself, because it keeps connections open, runs for this long before it is stopped.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What a peer receives may depend on more than on its own bytes: on other peers, as in a chat,
    /// or on the past, as in a store. Bytes are not compared then, only how conversations end;
    /// [`holds`](Self::holds) can look at the bytes. For a server that remembers,
    /// [`forget`](Program::forget) is stricter.
    #[must_use]
    pub const fn stateful(mut self) -> Self {
        self.is_stateful = true;
        self
    }

    /// No second client comes after the cut: for a server that remembers and can't forget.
    #[must_use]
    pub const fn no_second_client(mut self) -> Self {
        self.has_second = false;
        self
    }

    /// What must hold of every case besides: for example that half a request gets no answer. The
    /// error says what is wrong.
    #[must_use]
    pub fn holds(mut self, judge: impl Fn(&Found) -> Result<(), String> + 'static) -> Self {
        self.holds = Some(Box::new(judge));
        self
    }
}

/// Between two lines of progress, on the real clock.
const PROGRESS: Duration = Duration::from_secs(5);

impl Endings {
    /// Runs every case, each with a program of its own, up to the first that breaks a rule. A run
    /// that takes long prints its progress on standard error, every five seconds.
    ///
    /// # Panics
    /// Without a peer.
    pub fn run<P: Program>(&self, make: impl Fn() -> P) -> Report {
        let wholes = match self.undisturbed(&make) {
            Ok(wholes) => wholes,
            Err((case, violation)) => return self.report((1, 1), case, Some(violation), &make),
        };
        let cases = self.cases(&wholes);
        let total = cases.len() as u64 * (self.conditions + 1);
        let begun = Instant::now();
        let mut printed = begun;
        let mut done = 0;
        for number in self.order(total) {
            if self.time.is_some_and(|limit| begun.elapsed() >= limit) {
                break;
            }
            let (conditions, place) = (number / cases.len() as u64, number % cases.len() as u64);
            let case = Case { conditions, ..cases[place as usize] };
            done += 1;
            if let Err(violation) = self.judge(case, &wholes, &make) {
                return self.report((done, total), case, Some(violation), &make);
            }
            if printed.elapsed() >= PROGRESS {
                printed = Instant::now();
                eprintln!("{done} of {total} endings in {:.0} s", begun.elapsed().as_secs_f32());
            }
        }
        Report { cases: done, total, violation: None, transcript: Transcript::new() }
    }

    /// The client whose script the second client plays: the one that was cut, or, where a server
    /// was, the first.
    fn client_to_repeat(&self, case: Case) -> Option<usize> {
        let cut = usize::from(case.peer);
        if self.peers[cut].is_client() { Some(cut) } else { self.peers.iter().position(Peer::is_client) }
    }

    /// The bytes of all conversations.
    fn bytes(&self) -> u64 {
        self.peers.iter().map(|peer| peer.script.bytes()).sum()
    }

    /// All cases of all peers, without conditions.
    fn cases(&self, wholes: &[Found]) -> Vec<Case> {
        let cases = self.peers.iter().zip(wholes).enumerate().flat_map(|(number, (peer, whole))| {
            let (sent, received) = (whole.sent.len() as u64, whole.received.len() as u64);
            case::calm(number as u8, sent, received, !peer.is_client(), &self.cuts)
        });
        cases.collect()
    }

    /// The numbers of the cases, in the order in which they are run: the mildest first, or, if some
    /// may be left out, in steps of the golden ratio, so that any beginning is spread evenly.
    fn order(&self, total: u64) -> Vec<u64> {
        let most = self.most.unwrap_or(total).min(total);
        if most == total && self.time.is_none() {
            return (0..total).collect();
        }
        let mut step = (total as f64 * 0.618_034) as u64 | 1;
        while gcd(step, total) > 1 {
            step += 2;
        }
        let mut order: Vec<u64> =
            (0..most).map(|number| (u128::from(number) * u128::from(step) % u128::from(total)) as u64).collect();
        if self.time.is_none() {
            order.sort_unstable();
        }
        order
    }

    /// Runs the one case that has this [seed](Case::seed). The report has its transcript, whether a
    /// rule is broken or not.
    ///
    /// # Panics
    /// Without a peer.
    pub fn replay<P: Program>(&self, seed: u64, make: impl Fn() -> P) -> Report {
        match self.undisturbed(&make) {
            Err((case, violation)) => self.report((1, 1), case, Some(violation), &make),
            Ok(wholes) => {
                let mut case = Case::of_seed(seed);
                case.peer = case.peer.min(self.peers.len() as u8 - 1);
                self.report((1, 1), case, self.judge(case, &wholes, &make).err(), &make)
            }
        }
    }

    fn report<P: Program>(
        &self,
        (cases, total): (u64, u64),
        case: Case,
        violation: Option<Violation>,
        make: &impl Fn() -> P,
    ) -> Report {
        let mut transcript = Transcript::new();
        // The same run again, this time with a transcript.
        let _ = self.trial(case, make, Some(&mut transcript));
        Report { cases, total, violation: violation.map(|violation| (case, violation)), transcript }
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
