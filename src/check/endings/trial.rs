//! Runs one case: a reactor with the program, scripted peers, and the rules of every event.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::report::Recording;
use super::{AWAY, Case, CaseResult, Cut, CutPoint, Endings, HOME, Peer, PeerRole, Program, Role};
use crate::check::{Column, EventGrammar, Rule, Transcript, Violation, must, record, stuck};
use crate::error::ConnectionErrorKind;
use crate::event::{Ending, EndingKind, Event};
use crate::id::SocketId;
use crate::lifecycle::State;
use crate::options::{ConnectOptions, ListenOptions};
use crate::reactor::Reactor;
use crate::sim::{Faults, Host, Network, Play, Reach, Rng, Script};
use crate::socket::Socket;
use crate::trace::Recorder;

/// The machine of the client that comes after the cut.
const LATER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 0));

/// Thirty years: the idle clock of a socket counts up to 34.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);
/// Longer than a packet travels, with some retransmissions.
const TRAVEL_AT_MOST: Duration = Duration::from_secs(20);
/// How long a packet travels, unless the conversation is too long for that.
const TRAVEL: Duration = Duration::from_micros(10);
/// How long the packets of a whole conversation travel at most, with one byte each.
const TRAVEL_IN_ALL: Duration = Duration::from_millis(1);
/// A connection that the peer has reset must end within this time.
const RESET: Duration = Duration::from_secs(60);

/// A case with more events than this, and than `EVENTS_PER_SECOND`, never ends.
const EVENTS: u64 = 50_000;
/// More events for each second of simulated time: a program may have a timer each millisecond.
const EVENTS_PER_SECOND: u64 = 2_000;
/// More events for each byte of the conversation: with a window of one byte each byte is an event
/// or two.
const EVENTS_PER_BYTE: u64 = 20;

/// What is kept of what the program's reactor did.
const RECORDS: usize = 200;

/// How a case is run.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) case: Case,
    /// The number of bytes of all conversations.
    pub(super) bytes: u64,
    /// Packets and readiness are never late.
    pub(super) is_punctual: bool,
}

/// A socket of the program.
struct ProgramSocket {
    id: SocketId,
    grammar: EventGrammar,
    /// A client opened the connection.
    is_clients: bool,
    /// It has delivered `timeout`.
    was_idle: bool,
    /// Its own address and its peer's, once they are known.
    addrs: Option<(SocketAddr, SocketAddr)>,
}

struct Trial<'a> {
    endings: &'a Endings,
    case: Case,
    bytes: u64,
    travel: Duration,
    marks: Option<(usize, usize)>,
    network: Network,
    reactor: Reactor<Host>,
    /// The first connection of each peer; `None` if it is refused.
    plays: Vec<Option<Play>>,
    second: Option<Play>,
    /// The connection that is cut was still open when the second client came.
    outlived: bool,
    /// The server's machine vanishes only while it serves the second client.
    vanishes_later: bool,
    sockets: Vec<ProgramSocket>,
    events: u64,
    /// The endings of the sockets to each peer and to the second client.
    endings_of: Vec<Option<Ending>>,
    second_ending: Option<Ending>,
    timed_out: bool,
    idle_at: Option<Duration>,
    /// What `at_rest` returned before the second client.
    rested: Result<(), String>,
    transcript: Option<Transcript>,
    recorder: Recorder,
}

/// Whether clients of the program run on this machine.
pub(super) fn is_clients_machine(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [10, 0, 1, _])) || ip == LATER
}

impl Peer {
    const fn machine(&self, number: usize) -> IpAddr {
        match self.role {
            PeerRole::Client(_) => IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1 + number as u8)),
            PeerRole::Server(addr) => addr.ip(),
        }
    }
}

impl Endings {
    /// Runs a case, and records it if a recording is given.
    pub(super) fn trial<P: Program>(
        &self,
        setup: Setup,
        make: &impl Fn() -> P,
        recording: Option<&mut Recording>,
    ) -> Result<CaseResult, Violation> {
        let mut trial = Trial::new(self, setup, recording.is_some());
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut program = make();
            trial.begin(&mut program)?;
            trial.go(&mut program)?;
            let mut found = trial.found();
            found.at_rest = trial.rested.clone().and_then(|()| program.at_rest(&found));
            Ok(found)
        }));
        if let (Some(recording), Some(transcript)) = (recording, trial.whole_transcript()) {
            let begun = trial.network.now() - trial.network.elapsed();
            let records = trial.recorder.records().into_iter();
            let records = records.map(|record| (record.at.saturating_duration_since(begun), record)).collect();
            *recording = Recording { transcript, records };
        }
        run.unwrap_or_else(|panic| {
            Err(Violation::new(Rule::Own, format!("the program panicked: {}", panic_message(&*panic))))
        })
    }

    /// The column of the program.
    fn column(&self) -> Column {
        if self.peers.iter().any(Peer::is_client) { Column::Server } else { Column::Client }
    }
}

impl<'a> Trial<'a> {
    fn new(endings: &'a Endings, Setup { case, bytes, is_punctual }: Setup, is_recorded: bool) -> Self {
        let network = Network::new(case.seed());
        // Never zero: bytes that are sent one by one must not arrive together.
        let each = TRAVEL_IN_ALL / u32::try_from(bytes + 1).unwrap_or(u32::MAX);
        let travel = each.clamp(Duration::from_nanos(1), TRAVEL);
        network.set_latency(travel);
        let small = usize::try_from(1 + bytes / 64).unwrap_or(usize::MAX);
        let mut marks = None;
        if case.is_tight() {
            network.set_buffers(small, small + 7);
            marks = Some((1, 0));
        } else if case.conditions > 1 {
            let mut rng = Rng::new(case.conditions);
            let mut faults = Faults::random(&mut rng).harmless();
            faults.jitter = faults.jitter.min(5 * travel);
            network.set_faults(faults);
            let mut buffer = || 4 * small + rng.below(bytes.clamp(16, 500)) as usize;
            network.set_buffers(buffer(), buffer());
            let high = 1 + rng.below(bytes.max(16)) as usize;
            marks = Some((high, rng.below(high as u64) as usize));
        }
        for prepare in &endings.prepare {
            prepare(&network);
        }
        if is_punctual {
            network.set_faults(Faults { jitter: Duration::ZERO, late_edge: 0.0, ..network.faults() });
        }
        let recorder = Recorder::new(if is_recorded { RECORDS } else { 0 });
        if is_recorded {
            network.trace(&recorder);
        }
        Self {
            endings,
            case,
            bytes,
            travel,
            marks: marks.filter(|_| !endings.keeps_marks),
            reactor: Reactor::with_net(network.host(HOME)),
            network,
            plays: Vec::new(),
            second: None,
            outlived: false,
            vanishes_later: false,
            sockets: Vec::new(),
            events: 0,
            endings_of: vec![None; endings.peers.len()],
            second_ending: None,
            timed_out: false,
            idle_at: None,
            rested: Ok(()),
            transcript: is_recorded.then(Transcript::new),
            recorder,
        }
    }

    /// Opens the program and its peers.
    fn begin<P: Program>(&mut self, program: &mut P) -> Result<(), Violation> {
        let begun = self.open(program);
        begun.map_err(|wrong| Violation::new(Rule::Progress, format!("it can't begin: {wrong}")))
    }

    fn open<P: Program>(&mut self, program: &mut P) -> Result<(), Box<dyn std::error::Error>> {
        let servers = self.endings.peers.iter().enumerate().filter(|(_, peer)| !peer.is_client());
        let mut plays: Vec<Option<Play>> = self.endings.peers.iter().map(|_| None).collect();
        for (number, peer) in servers {
            plays[number] = self.open_server(number, peer)?;
        }
        match &self.endings.role {
            Role::Server(options) => drop(self.reactor.listen(Endings::SERVER, (**options).clone())?),
            Role::Client(options) => drop(self.reactor.connect(AWAY, (**options).clone())?),
            Role::Program => {}
        }
        program.begin(&mut self.reactor)?;
        for (number, peer) in self.endings.peers.iter().enumerate() {
            if let PeerRole::Client(addr) = peer.role {
                let mut options = ConnectOptions::default();
                if let Some(bytes) = self.receive_buffer(number) {
                    options = options.receive_buffer_size(bytes);
                }
                let script = self.script(number);
                plays[number] = Some(self.network.peer(peer.machine(number)).play_with(addr, &options, script)?);
            }
        }
        self.plays = plays;
        Ok(())
    }

    fn open_server(&self, number: usize, peer: &Peer) -> std::io::Result<Option<Play>> {
        let PeerRole::Server(addr) = peer.role else { return Ok(None) };
        if self.is_cut(number) && self.case.point == CutPoint::Connecting {
            if self.case.cut == Cut::Vanish {
                self.network.set_reach(addr.ip(), Reach::BlackHole);
            }
            return Ok(None);
        }
        let mut options = ListenOptions::default();
        if let Some(bytes) = self.receive_buffer(number) {
            options = options.receive_buffer_size(bytes);
        }
        let listener = self.network.peer(addr.ip()).listen_with(addr, &options)?;
        let play = listener.play(self.script(number));
        listener.play_each(peer.script.clone());
        Ok(Some(play))
    }

    fn is_cut(&self, number: usize) -> bool {
        number == usize::from(self.case.peer)
    }

    fn script(&self, number: usize) -> Script {
        let whole = &self.endings.peers[number].script;
        if self.is_cut(number) { self.case.script(whole, self.travel) } else { whole.clone() }
    }

    fn receive_buffer(&self, number: usize) -> Option<usize> {
        self.case.receive_buffer(1 + self.bytes as usize / 64).filter(|_| self.is_cut(number))
    }

    /// Runs the whole case: the peers, a second client, and the stop.
    fn go<P: Program>(&mut self, program: &mut P) -> Result<(), Violation> {
        let client = self.endings.client_to_repeat(self.case).map(|client| &self.endings.peers[client]);
        self.run_until(program, |trial| client.is_some() && trial.clients_are_gone())?;
        self.no_client_is_left()?;
        if let Some(Peer { role: PeerRole::Client(addr), script }) = client.filter(|_| self.endings.has_second) {
            // The second client can hide what is left: its socket has the slot of the first one.
            let now = self.network.now();
            self.run_to(now, program, |_| false)?;
            if self.reactor.is_empty() && self.reactor.next_deadline().is_none() && self.peers_are_done() {
                self.rested = program.at_rest(&self.found());
            }
            program.forget();
            self.outlived = self.has_cut_connection();
            let is_cut = self.plays[usize::from(self.case.peer)].as_ref().is_none_or(Play::is_over);
            self.vanishes_later = self.outlived && self.case.cut == Cut::Vanish && !is_cut;
            self.repair();
            self.second = self.network.peer(LATER).play(*addr, script.clone()).ok();
            self.run_until(program, |trial| trial.second_ending.is_some() && trial.clients_are_gone())?;
            self.no_client_is_left()?;
        }
        program.stop(&mut self.reactor);
        for listener in self.reactor.listener_ids() {
            // It can't fail: the list has only open listeners.
            let _ = self.reactor.close_listener(listener);
        }
        self.run_until(program, |trial| trial.reactor.is_empty())?;
        must(self.reactor.is_empty(), Rule::Progress, || {
            let (table, max_lifetime) = (self.table(), self.endings.max_lifetime);
            let why = self.why_open().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("a connection did not end within {max_lifetime:?} after the stop{why}\n{table}")
        })?;
        must(self.network.descriptors() == 0, Rule::Resources, || "a descriptor is left".to_owned())?;
        // What is in flight arrives at the peers after the program has stopped.
        self.network.advance(TRAVEL_AT_MOST);
        Ok(())
    }

    /// Lets the peers read what is in flight. Returns whether they have done every step.
    fn peers_are_done(&self) -> bool {
        self.network.advance(TRAVEL_AT_MOST);
        self.plays.iter().flatten().all(Play::is_over)
    }

    /// Whether the program has a socket to the peer that is cut.
    fn has_cut_connection(&self) -> bool {
        let peers = self.sockets.iter().filter_map(|own| self.peer_at(own.addrs?));
        peers.into_iter().any(|number| self.is_cut(number))
    }

    /// Makes the server that was cut work again.
    fn repair(&self) {
        self.network.set_faults(Faults::none());
        let number = usize::from(self.case.peer);
        let peer = &self.endings.peers[number];
        if let PeerRole::Server(addr) = peer.role {
            self.network.heal(addr.ip());
            self.network.set_reach(addr.ip(), Reach::Open);
            if self.plays[number].is_none()
                && let Ok(listener) = self.network.peer(addr.ip()).listen(addr)
            {
                listener.play_each(peer.script.clone());
            }
        }
    }

    /// All clients were accepted, and their connections are closed.
    fn clients_are_gone(&self) -> bool {
        let mut clients = self.endings.peers.iter().zip(&self.endings_of).filter(|(peer, _)| peer.is_client());
        clients.all(|(_, ending)| ending.is_some()) && self.sockets.iter().all(|own| !own.is_clients)
    }

    fn no_client_is_left(&self) -> Result<(), Violation> {
        let is_client = matches!(self.endings.role, Role::Client(_));
        must(!self.sockets.iter().any(|own| own.is_clients || is_client), Rule::Progress, || {
            let (table, max_lifetime) = (self.table(), self.endings.max_lifetime);
            let why = self.why_open().or_else(|| self.waiting_peer());
            let why = why.unwrap_or_else(|| "a silent peer needs an idle timeout".to_owned());
            format!("a connection did not end within {max_lifetime:?} ({why})\n{table}")
        })
    }

    /// The program's sockets.
    fn table(&self) -> String {
        let sockets = self.reactor.sockets();
        let legend = if sockets.iter().any(|socket| socket.is_paused) { "* paused or held\n" } else { "" };
        format!("{sockets}{legend}")
    }

    /// What the program has probably left out, if a connection stays open for that.
    fn why_open(&self) -> Option<String> {
        let sockets = self.reactor.sockets();
        // A full queue is the peer's doing, and may be why another socket is paused.
        if sockets.iter().any(|socket| socket.queued_bytes > 0) {
            return None;
        }
        let of_a_client = self.sockets.iter().any(|own| own.is_clients);
        self.sockets.iter().filter(|own| own.is_clients == of_a_client).find_map(|own| {
            let (id, socket) = (own.id, sockets.iter().find(|socket| socket.id == own.id)?);
            if socket.is_paused {
                Some(format!("{id} is paused with nothing queued, and the program has not resumed it"))
            } else if socket.state == State::PeerFinished {
                Some(format!("the peer of {id} has finished, and the program has not called `end`"))
            } else if own.was_idle && socket.state == State::Open {
                Some(format!("{id} has delivered `timeout`, and the program has not ended it"))
            } else {
                None
            }
        })
    }

    /// What a peer waits for that was not cut.
    fn waiting_peer(&self) -> Option<String> {
        let first = self.plays.iter().flatten().filter(|_| self.case.is_harmless());
        let step = first.chain(&self.second).find_map(Play::undone)?;
        Some(format!("a peer never got past \"{step}\""))
    }

    /// Runs until this holds, until nothing can happen, or for the longest lifetime.
    fn run_until<P: Program>(&mut self, program: &mut P, is_done: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        self.run_to(self.network.now() + self.endings.max_lifetime.min(FOR_EVER), program, is_done)
    }

    fn run_to<P: Program>(
        &mut self,
        until: Instant,
        program: &mut P,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        let most = EVENTS + EVENTS_PER_BYTE * self.bytes;
        while !is_done(self) && self.step(program, until)? {
            self.events += 1;
            let time = self.network.elapsed();
            must(self.events < most + EVENTS_PER_SECOND * time.as_secs(), Rule::Progress, || {
                format!("no end: {} events, including those of timers, in {time:?}", self.events)
            })?;
        }
        Ok(())
    }

    /// One event. Returns whether there may be another.
    fn step<P: Program>(&mut self, program: &mut P, until: Instant) -> Result<bool, Violation> {
        let next = self.reactor.next_before(until).map_err(|error| stuck(&error))?;
        let Some((mut socket, event)) = next else { return Ok(false) };
        check_event(&mut self.sockets, self.marks, &mut socket, &event)?;
        // A timer may be a limit of the program's own.
        self.timed_out |= matches!(event, Event::Timeout | Event::Timer(_));
        if event == Event::Timeout && self.plays.iter().flatten().any(|play| play.undone().is_some()) {
            self.idle_at.get_or_insert(self.network.elapsed());
        }
        let close = if let Event::Close(ending) = event { Some((socket.id(), ending.clone())) } else { None };
        let at = self.network.elapsed();
        match &mut self.transcript {
            Some(transcript) => {
                let id = socket.id();
                let prefix = if id == SocketId::NONE { String::new() } else { format!("{id}: ") };
                record(transcript, at, self.endings.column(), &prefix, &mut socket, event, |socket, event| {
                    program.handle(socket, event);
                });
            }
            None => program.handle(&mut socket, event),
        }
        if let Some((id, ending)) = close {
            self.closed(id, ending)?;
        }
        self.reactor.audit().map_err(|wrong| Violation::new(Rule::Progress, wrong))?;
        let overlooked = self.reactor.waiting().find_map(|waits| self.network.overlooked(0, &waits));
        must(overlooked.is_none(), Rule::Progress, || format!("it waits, and has {}", overlooked.unwrap_or_default()))?;
        Ok(true)
    }

    fn closed(&mut self, id: SocketId, ending: Ending) -> Result<(), Violation> {
        let Some(point) = self.sockets.iter().position(|own| own.id == id) else { return Ok(()) };
        let own = self.sockets.swap_remove(point);
        if let EndingKind::Failed(error) = &ending.kind {
            self.timed_out |= matches!(error.kind, ConnectionErrorKind::TimedOut(_));
        }
        if own.addrs.is_some_and(|(_, peer)| peer.ip() == LATER) {
            self.second_ending.get_or_insert(ending);
            return Ok(());
        }
        let number = match own.addrs {
            Some(addrs) => self.peer_at(addrs),
            None => self.is_failed_attempt(&ending).then_some(usize::from(self.case.peer)),
        };
        let Some(number) = number else { return Ok(()) };
        self.endings_of[number].get_or_insert(ending);
        let reset = self.plays[number].as_ref().and_then(Play::reset_at);
        let late = reset.map(|at| self.network.elapsed().saturating_sub(at)).filter(|late| *late > RESET);
        must(late.is_none(), Rule::Progress, || {
            format!("the peer reset, and its connection was closed {:.1?} later", late.unwrap_or_default())
        })
    }

    /// Whether a connection without a peer is the one to the server that can't be reached.
    fn is_failed_attempt(&self, ending: &Ending) -> bool {
        let PeerRole::Server(server) = self.endings.peers[usize::from(self.case.peer)].role else { return false };
        let tried = match &ending.kind {
            EndingKind::Failed(error) => &*error.attempts,
            EndingKind::Destroyed | EndingKind::Confirmed | EndingKind::HandedOff => &[],
        };
        let is_its = tried.is_empty() || tried.iter().any(|attempt| attempt.addr == server);
        self.case.point == CutPoint::Connecting && is_its
    }

    /// The peer whose first connection has these addresses, the program's first.
    fn peer_at(&self, (own, peer): (SocketAddr, SocketAddr)) -> Option<usize> {
        self.endings.peers.iter().enumerate().position(|(number, role)| match role.role {
            PeerRole::Client(_) => role.machine(number) == peer.ip(),
            PeerRole::Server(addr) => {
                let first = self.plays[number].as_ref().and_then(Play::endpoints);
                addr == peer && first.is_none_or(|(_, connected)| connected == own)
            }
        })
    }

    fn found(&self) -> CaseResult {
        let play = self.plays[usize::from(self.case.peer)].as_ref();
        let received = |play: Option<&Play>| play.map(Play::received).unwrap_or_default();
        // No program can serve a client without the machine that serves it.
        let second = self.second.as_ref().filter(|_| !self.vanishes_later);
        CaseResult {
            case: self.case,
            sent: play.map(Play::sent).unwrap_or_default(),
            received: received(play),
            peer_got_end: play.is_some_and(Play::has_end),
            peer_died: play.is_some_and(Play::is_reset),
            received_by: self.plays.iter().map(|play| received(play.as_ref())).collect(),
            got_end_by: self.plays.iter().map(|play| play.as_ref().is_some_and(Play::has_end)).collect(),
            second: second.map(Play::received),
            outlived: self.outlived,
            second_wrong: second.and_then(|play| wrong("a second peer", play, &self.second_ending)),
            wrong: self.wrong(),
            timed_out: self.timed_out,
            idle_at: self.idle_at,
            at_rest: Ok(()),
            ending: self.endings_of[usize::from(self.case.peer)].clone(),
        }
    }

    /// What went wrong with each peer.
    fn wrong(&self) -> Vec<Option<String>> {
        let pairs = self.plays.iter().zip(&self.endings_of).enumerate();
        let wrong_of = |(number, (play, ending)): (usize, (&Option<Play>, _))| {
            let name = if self.plays.len() > 1 { format!("peer {number}") } else { "the peer".to_owned() };
            play.as_ref().and_then(|play| wrong(&name, play, ending))
        };
        pairs.map(wrong_of).collect()
    }

    /// Takes the transcript, with the lines of the peers.
    fn whole_transcript(&mut self) -> Option<Transcript> {
        let mut transcript = self.transcript.take()?;
        let other = if self.endings.column() == Column::Server { Column::Client } else { Column::Server };
        let several = self.plays.len() > 1;
        let peers = self.plays.iter().enumerate();
        let peers =
            peers.map(|(number, play)| (play, if several { format!("peer {number}: ") } else { String::new() }));
        for (play, prefix) in peers.chain([(&self.second, "second peer: ".to_owned())]) {
            for (at, line) in play.iter().flat_map(Play::transcript) {
                transcript.add(at, other, format!("{prefix}{line}"));
            }
        }
        transcript.sort();
        Some(transcript)
    }
}

/// Checks an event against the grammar. Sets the marks of a new socket.
fn check_event(
    sockets: &mut Vec<ProgramSocket>,
    marks: Option<(usize, usize)>,
    socket: &mut Socket<'_>,
    event: &Event<'_>,
) -> Result<(), Violation> {
    let id = socket.id();
    if id == SocketId::NONE {
        return Ok(());
    }
    let point = sockets.iter().position(|own| own.id == id).unwrap_or_else(|| {
        let is_accepted = socket.listener().is_some();
        let is_clients = is_accepted && socket.peer_addr().is_some_and(|addr| is_clients_machine(addr.ip()));
        sockets.push(ProgramSocket {
            id,
            grammar: EventGrammar::new(socket),
            is_clients,
            was_idle: false,
            addrs: None,
        });
        if let Some((high, low)) = marks {
            socket.set_marks(high, low);
        }
        sockets.len() - 1
    });
    let own = &mut sockets[point];
    own.was_idle |= *event == Event::Timeout;
    own.addrs = own.addrs.or_else(|| socket.local_addr().zip(socket.peer_addr()));
    own.grammar.check(socket, event).map_err(|wrong| Violation::new(Rule::Language, wrong))
}

/// What went wrong with a peer that played its whole script.
fn wrong(name: &str, play: &Play, ending: &Option<Ending>) -> Option<String> {
    if let Some(step) = play.undone() {
        return Some(format!("{name} never got past \"{step}\""));
    }
    let ending = ending.as_ref().filter(|ending| !ending.is_clean())?;
    Some(format!("{name}'s connection did not end cleanly: \"{ending}\""))
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
