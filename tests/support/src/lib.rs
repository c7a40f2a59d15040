//! The driver of the integration tests: a reactor whose every event is checked against the grammar
//! of section 1 of the design, whatever the test itself checks.
//!
//! Invariant: every wait ends. A test that waits for an event which is never delivered fails after
//! [`PATIENCE`], with the transcript so far and every live socket.

#![allow(missing_docs, reason = "only the tests use it")]
#![allow(clippy::new_without_default, reason = "only the tests use it")]

pub mod alone;
pub mod api;
pub mod book;
pub mod faulty;
pub mod scene;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use alone::shell;
use finale::check::EventGrammar;
use finale::{
    BoundAddr, ConnectionError, Ending, Event, ListenOptions, ListenerId, OsError, Reactor, Socket, SocketId, TimerId,
};

/// Longer than anything in a test may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An event that outlives the call that returned it.
#[derive(Clone, PartialEq, Eq)]
pub enum What {
    Lookup(IpAddr),
    Connect,
    Ready,
    Connection,
    Data(Vec<u8>),
    Filled,
    Spliced(usize),
    Drain,
    Timeout,
    PeerEnded,
    End,
    Error(ConnectionError),
    Close(Ending),
    Timer(TimerId),
    Woken,
    Rests(ListenerId, OsError),
    Dropped(ListenerId, Option<SocketAddr>),
    ListenerClosed(ListenerId),
}

impl What {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Lookup(ip) => Self::Lookup(*ip),
            Event::Connect => Self::Connect,
            Event::Ready => Self::Ready,
            Event::Connection => Self::Connection,
            Event::Data(bytes) => Self::Data(bytes.to_vec()),
            Event::Filled => Self::Filled,
            Event::Spliced(count) => Self::Spliced(*count),
            Event::Drain => Self::Drain,
            Event::Timeout => Self::Timeout,
            Event::PeerEnded(_) => Self::PeerEnded,
            Event::End => Self::End,
            Event::Error(failure) => Self::Error((*failure).clone()),
            Event::Close(ending) => Self::Close((*ending).clone()),
            Event::Timer(id) => Self::Timer(*id),
            Event::Woken => Self::Woken,
            Event::AcceptFailed(id, error) => Self::Rests(*id, *error),
            Event::Overflow(id, peer) => Self::Dropped(*id, peer.copied()),
            Event::ListenerClosed(id) => Self::ListenerClosed(*id),
            unknown => panic!("an event that the tests don't know: {unknown:?}"),
        }
    }

    const fn is_socket_event(&self) -> bool {
        !matches!(self, Self::Timer(_) | Self::Woken | Self::Rests(..) | Self::Dropped(..) | Self::ListenerClosed(_))
    }
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lookup(ip) => write!(f, "lookup {ip}"),
            Self::Connect => f.write_str("connect"),
            Self::Ready => f.write_str("ready"),
            Self::Connection => f.write_str("connection"),
            Self::Data(bytes) => write!(f, "data, {} bytes", bytes.len()),
            Self::Filled => f.write_str("filled"),
            Self::Spliced(count) => write!(f, "spliced {count}"),
            Self::Drain => f.write_str("drain"),
            Self::Timeout => f.write_str("timeout"),
            Self::PeerEnded => f.write_str("peer-ended"),
            Self::End => f.write_str("end"),
            Self::Error(failure) => write!(f, "error: {failure}"),
            Self::Close(ending) => write!(f, "close: {ending}"),
            Self::Timer(id) => write!(f, "{id}"),
            Self::Woken => f.write_str("woken"),
            Self::Dropped(id, peer) => write!(f, "{id} drops {peer:?}"),
            Self::ListenerClosed(id) => write!(f, "{id} closed"),
            Self::Rests(id, error) => write!(f, "{id} rests: {error}"),
        }
    }
}

/// A reactor and its events.
pub struct Transcript {
    pub reactor: Reactor,
    listeners: Vec<ListenerId>,
    lives: HashMap<SocketId, EventGrammar>,
    /// Delivered, but not taken by the test yet.
    waiting: VecDeque<(SocketId, What)>,
    lines: VecDeque<String>,
}

impl Transcript {
    pub fn new() -> Self {
        Self {
            reactor: Reactor::new().expect("a machine with epoll"),
            listeners: Vec::new(),
            lives: HashMap::new(),
            waiting: VecDeque::new(),
            lines: VecDeque::new(),
        }
    }

    /// A reactor with one accepted socket, and the peer's end of it.
    pub fn pair(options: ListenOptions) -> (Self, SocketId, TcpStream) {
        let mut story = Self::new();
        let addr = story.listen(options);
        let peer = dial(addr);
        let socket = story.connection();
        (story, socket, peer)
    }

    pub fn listen(&mut self, options: ListenOptions) -> SocketAddr {
        self.listen_at(Ipv4Addr::LOCALHOST.into(), options)
    }

    pub fn listen_at(&mut self, ip: IpAddr, options: ListenOptions) -> SocketAddr {
        let listener = self.reactor.listen((ip, 0), options).expect("loopback has a free port");
        self.listeners.push(listener.id);
        listener.addr.ip().expect("an IP address")
    }

    pub fn socket(&mut self, id: SocketId) -> Socket<'_> {
        self.reactor.socket(id).expect("the socket lives")
    }

    // --- what is delivered ---

    /// One event, checked and passed to `handle`; `false` if there was none in time.
    fn step(&mut self, deadline: Instant, handle: &mut dyn FnMut(&mut Socket<'_>, &Event<'_>)) -> bool {
        let told = self.reactor.next_before(deadline).expect("nothing that a peer does ends the reactor");
        let Some((mut socket, event)) = told else { return false };
        let line = match &event {
            Event::Data(bytes) => format!("{}: data, {} bytes", socket.id(), bytes.len()),
            other => format!("{}: {:?}", socket.id(), What::of(other)),
        };
        if self.lines.len() == 100 {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        if event.is_socket_event() {
            let life = self.lives.entry(socket.id()).or_insert_with(|| EventGrammar::new(&socket));
            if let Err(wrong) = life.check(&socket, &event) {
                panic!("{wrong}\n{}", self.lines.make_contiguous().join("\n"));
            }
        }
        handle(&mut socket, &event);
        true
    }

    /// Passes every event to `handle` until it returns `true`.
    #[track_caller]
    pub fn until(&mut self, mut handle: impl FnMut(&mut Socket<'_>, &Event<'_>) -> bool) {
        assert!(self.waiting.is_empty(), "already delivered: {:?}", self.waiting);
        let mut done = false;
        while !done {
            let deadline = Instant::now() + PATIENCE;
            if !self.step(deadline, &mut |socket, event| done = handle(socket, event)) {
                self.give_up("nothing happened");
            }
        }
    }

    /// Runs for a while, or until nothing is left, and passes every event to `handle`.
    pub fn run_for(&mut self, time: Duration, mut handle: impl FnMut(&mut Socket<'_>, &Event<'_>)) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && self.step(deadline, &mut handle) {}
    }

    /// Handles one event; `false` if there was none in time.
    fn listen_to(&mut self, deadline: Instant) -> bool {
        let mut told = None;
        let came = self.step(deadline, &mut |socket, event| told = Some((socket.id(), What::of(event))));
        self.waiting.extend(told);
        came
    }

    /// Does everything that can be done without waiting; events are kept for later.
    pub fn turn(&mut self) {
        loop {
            while self.listen_to(Instant::now()) {}
            if self.reactor.next_deadline().is_none_or(|at| at > Instant::now()) {
                return;
            }
        }
    }

    /// The next event that matches, of those delivered and not yet taken.
    #[track_caller]
    fn find(&mut self, what_for: &str, fits: impl Fn(&SocketId, &What) -> bool) -> (SocketId, What) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.waiting.iter().position(|(socket, what)| fits(socket, what)) {
                return self.waiting.remove(place).expect("it was found there");
            }
            if !self.listen_to(deadline) {
                self.give_up(what_for);
            }
        }
    }

    #[track_caller]
    fn give_up(&mut self, what_for: &str) -> ! {
        let lines = self.lines.make_contiguous().join("\n");
        panic!("{what_for}: waited {PATIENCE:?}\n{lines}\n{}waiting: {:?}", self.reactor.sockets(), self.waiting)
    }

    // --- what is expected ---

    /// The next event of this socket.
    #[track_caller]
    pub fn next(&mut self, id: SocketId) -> What {
        self.find("an event of the socket", |socket, what| *socket == id && what.is_socket_event()).1
    }

    /// The next event without a socket.
    #[track_caller]
    pub fn next_of_none(&mut self) -> What {
        self.find("an event of no socket", |_, what| !what.is_socket_event()).1
    }

    #[track_caller]
    pub fn expect(&mut self, id: SocketId, expected: What) {
        let told = self.next(id);
        assert_eq!(told, expected, "{}", self.lines.make_contiguous().join("\n"));
    }

    /// The next socket that a listener accepted.
    #[track_caller]
    pub fn connection(&mut self) -> SocketId {
        self.find("connection", |_, what| *what == What::Connection).0
    }

    /// `connect` and `ready`, after the lookups.
    #[track_caller]
    pub fn connected(&mut self, id: SocketId) {
        loop {
            match self.next(id) {
                What::Lookup(_) => {}
                What::Connect => return self.expect(id, What::Ready),
                other => panic!("{other:?} in place of connect"),
            }
        }
    }

    /// This many bytes, and nothing in between.
    #[track_caller]
    pub fn data(&mut self, id: SocketId, bytes: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(bytes);
        while all.len() < bytes {
            match self.next(id) {
                What::Data(more) => all.extend(more),
                other => panic!("{other:?} after {} of {bytes} bytes", all.len()),
            }
        }
        assert_eq!(all.len(), bytes, "more than was sent");
        all
    }

    /// All data up to `end`.
    #[track_caller]
    pub fn until_end(&mut self, id: SocketId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next(id) {
                What::Data(more) => all.extend(more),
                What::End => return all,
                What::Drain => {}
                other => panic!("{other:?} in place of end, after {} bytes", all.len()),
            }
        }
    }

    /// All events up to `close`, which must be delivered.
    #[track_caller]
    pub fn after_end_of(&mut self, id: SocketId) -> Ending {
        loop {
            if let What::Close(ending) = self.next(id) {
                return ending;
            }
        }
    }

    #[track_caller]
    pub fn error(&mut self, id: SocketId) -> ConnectionError {
        match self.next(id) {
            What::Error(failure) => failure,
            other => panic!("{other:?} in place of error\n{}", self.lines.make_contiguous().join("\n")),
        }
    }

    #[track_caller]
    pub fn close(&mut self, id: SocketId) -> Ending {
        match self.next(id) {
            What::Close(ending) => ending,
            other => panic!("{other:?} in place of close\n{}", self.lines.make_contiguous().join("\n")),
        }
    }

    /// No other event is delivered for this long.
    #[track_caller]
    pub fn silence(&mut self, time: Duration) {
        self.turn();
        self.listen_to(Instant::now() + time);
        assert!(self.waiting.is_empty(), "delivered: {:?}", self.waiting);
    }

    /// Everything is over: no other event was delivered, every socket has delivered `close`, and
    /// without listeners nothing is left to wait for.
    #[track_caller]
    pub fn rest(&mut self) {
        for listener in std::mem::take(&mut self.listeners) {
            self.reactor.close_listener(listener).expect("it was open");
        }
        let began = Instant::now();
        while self.listen_to(began + PATIENCE) {}
        assert!(began.elapsed() < PATIENCE, "something still lives:\n{}", self.reactor.sockets());
        assert!(self.waiting.is_empty(), "delivered and not expected: {:?}", self.waiting);
        assert!(self.reactor.is_empty(), "{}", self.reactor.sockets());
        for (socket, life) in &self.lives {
            assert!(life.is_closed(), "{socket} has not delivered close");
        }
    }

    /// How many sockets have had an event.
    pub fn lives(&self) -> usize {
        self.lives.len()
    }
}

// --- peers ---

/// An address of the loopback network that no other test uses: a port of it that is free again stays
/// free, while another program may get one of 127.0.0.1.
pub fn own_ip() -> IpAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, a, b] = std::process::id().to_be_bytes();
    IpAddr::from([127, COUNT.fetch_add(1, Ordering::Relaxed), a, b])
}

/// Uses a port that has just become free: again and again for less than TIME_WAIT lasts, since a child
/// that another test begins has a copy of the closed socket until it is executed.
#[track_caller]
pub fn as_free<T, E: fmt::Display>(mut bind: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match bind() {
            Ok(bound) => return bound,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "the port is not free again: {error}"),
        }
        std::thread::yield_now();
    }
}

/// A port at which nothing listens, and that nothing else gets while the socket exists.
pub fn dead_port() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket());
    (socket, addr.expect("it is bound"))
}

/// A peer: a blocking socket whose calls time out.
pub fn dial(addr: impl ToSocketAddrs) -> TcpStream {
    let peer = TcpStream::connect(addr).expect("the listener's queue has room");
    patient(&peer);
    peer
}

/// The direction in which packets are dropped.
#[derive(Clone, Copy)]
pub enum Way {
    ToPeer,
    FromPeer,
}

/// The peer has finished; then packets are dropped, and we answer and end. For a test in its own
/// network; `nft delete table ip held` heals it.
pub fn held_back(options: ListenOptions, way: Way) -> (Transcript, SocketId, TcpStream) {
    let (mut story, socket, peer) = Transcript::pair(options);
    peer.shutdown(Shutdown::Write).expect("connected");
    story.expect(socket, What::End);
    let port = peer.local_addr().expect("connected").port();
    let (hook, side) = match way {
        Way::ToPeer => ("output", "dport"),
        Way::FromPeer => ("input", "sport"),
    };
    shell(&format!("nft add table ip held && nft 'add chain ip held drops {{ type filter hook {hook} priority 0; }}'"));
    shell(&format!("nft add rule ip held drops tcp {side} {port} drop"));
    story.socket(socket).write(b"answer").expect("open");
    story.socket(socket).end();
    (story, socket, peer)
}

/// A peer with a receive buffer so small that we can't send much.
pub fn dial_narrow(addr: impl Into<BoundAddr>) -> TcpStream {
    let addr = addr.into().ip().expect("an IP address");
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None);
    let socket = socket.expect("a descriptor");
    socket.set_recv_buffer_size(4096).expect("the kernel rounds it up");
    socket.connect(&addr.into()).expect("the listener's queue has room");
    let peer = TcpStream::from(socket);
    patient(&peer);
    peer
}

fn patient(peer: &TcpStream) {
    peer.set_read_timeout(Some(PATIENCE)).expect("not zero");
    peer.set_write_timeout(Some(PATIENCE)).expect("not zero");
}

/// Ends the peer's connection with an RST.
pub fn reset(peer: TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket");
}

/// Bytes whose order can be checked: positions near each other differ.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at ^ (at >> 8).wrapping_mul(7) ^ (at >> 16).wrapping_mul(13)) as u8).collect()
}

/// Works without the reactor for this long, as a slow handler does.
pub fn work_for(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Processor time that this thread has used.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanos = stat.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("its first number is the time on the processor"))
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}
