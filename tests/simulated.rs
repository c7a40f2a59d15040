//! The shipped reactor on the simulated network: random programs, random faults, and what must hold all the same.
//!
//! Each seed draws everything: options, faults, what the two sides do. `FINALE_SEEDS=0..100000` runs more of them,
//! `FINALE_SEEDS=17..18` one again.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use finale::check::Life;
use finale::lifecycle::State;
use finale::sim::{Faults, Host, Network, Rng};
use finale::{Close, Connect, Ending, Event, How, Listen, Listener, Queue, Reactor, Socket, SocketId, TimerId};

fn name(event: &Event<'_>) -> &'static str {
    match event {
        Event::Lookup(_) => "lookup",
        Event::Connect => "connect",
        Event::Ready => "ready",
        Event::Connection => "connection",
        Event::Data(_) => "data",
        Event::End => "end",
        Event::Error(_) => "error",
        Event::Close(_) => "close",
        _ => "other",
    }
}

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn the_lessons_conversation_has_the_same_story_on_the_simulated_network() -> Result<(), finale::Error> {
    let network = Network::new(1);
    network.set_latency(Duration::ZERO);
    let mut reactor = Reactor::with_net(network.host(HOME));
    let listener = reactor.listen((HOME, 0), Listen::default())?;
    let client = reactor.connect(listener.addr, Connect::default())?;
    let mut story = Vec::new();
    while let Some((mut socket, event)) = reactor.next()? {
        let who = if socket.id() == client { "client" } else { "server" };
        if !matches!(event, Event::Timer(_)) {
            story.push(format!("{who} {}", name(&event)));
        }
        match event {
            Event::Ready => {
                socket.write(b"Hello from client\n")?;
                reactor.set_timer(Duration::from_millis(50));
            }
            Event::Timer(_) => reactor.socket(client).expect("the client lives").end(),
            Event::End if who == "server" => {
                socket.write(b"Server's final message\n")?;
                socket.end();
            }
            Event::Close(ending) => {
                assert!(ending.is_acknowledged(), "{ending}");
                if who == "client" {
                    reactor.close_listener(listener.id)?;
                }
            }
            _ => {}
        }
    }
    let expected = [
        "client lookup",
        "client connect",
        "client ready",
        "server connection",
        "server data",
        "server end",
        "client data",
        "client end",
        "server close",
        "client close",
    ];
    assert_eq!(story, expected);
    assert_eq!(network.elapsed(), Duration::from_millis(50), "nothing waited for anything else");
    Ok(())
}

#[test]
fn whatever_happens_every_socket_lives_by_the_rules_and_ends() {
    let range = std::env::var("FINALE_SEEDS").unwrap_or_else(|_| "0..400".into());
    let (from, to) = range.split_once("..").expect("FINALE_SEEDS is FROM..TO");
    for seed in from.parse().expect("a number")..to.parse().expect("a number") {
        let run = std::panic::catch_unwind(|| Run::new(seed).go());
        if run.is_err() {
            panic!("seed {seed}; again with FINALE_SEEDS={seed}..{} cargo test --test simulated", seed + 1);
        }
    }
}

/// Events after which a run has not come to its end though its faults are over.
const EVENTS: usize = 200_000;

struct Run {
    rng: Rng,
    network: Network,
    reactor: Reactor<Host>,
    listeners: Vec<Listener>,
    sides: BTreeMap<SocketId, Side>,
    resumes: BTreeMap<TimerId, (SocketId, Instant)>,
    record: Record,
    /// When the faults stop, and when both sides of everything still open end: from then on all must come to its close.
    heal: Option<TimerId>,
    last_call: Option<TimerId>,
}

/// What is remembered of each conversation's sides, the client's being `true`, beyond their close.
#[derive(Default)]
struct Record {
    finished: BTreeSet<(usize, bool)>,
    /// Without half-open.
    ends_by_itself: BTreeSet<(usize, bool)>,
    endings: BTreeMap<(usize, bool), Ending>,
    largest_write: u64,
}

/// One side of one conversation.
struct Side {
    conversation: usize,
    is_client: bool,
    life: Life,
    had_error: bool,
    had_end: bool,
    read: u64,
    written: u64,
    ended: bool,
    discards: bool,
    owes_drain: bool,
}

/// The byte at one place of what one side sends: known to both, so that none can be lost, doubled or invented.
fn byte(conversation: usize, from_client: bool, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8)) as u8 ^ (conversation as u8 * 2 + u8::from(from_client))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let network = Network::new(seed);
        network.set_latency(Duration::from_micros(rng.below(3_000)));
        // Small buffers with small writes: a byte at a time a large one would take longer than the run.
        let (buffer, largest_write) = if rng.chance(0.2) { (1, 300) } else { (1_000, 200_000) };
        let mut bytes = || (buffer + rng.below(70 * buffer)) as usize;
        network.set_buffers(bytes(), bytes());
        if rng.chance(0.8) {
            network.set_faults(Faults::random(&mut rng));
        }
        let mut reactor = Reactor::with_net(network.host(HOME));
        let heal = Some(reactor.set_timer(Duration::from_secs(rng.below(60))));
        let mut run = Self {
            rng,
            network,
            reactor,
            heal,
            last_call: None,
            listeners: Vec::new(),
            sides: BTreeMap::new(),
            resumes: BTreeMap::new(),
            record: Record { largest_write, ..Record::default() },
        };
        for conversation in 0..1 + run.rng.below(3) as usize {
            run.begin(conversation);
        }
        run
    }

    fn begin(&mut self, conversation: usize) {
        let ms = |rng: &mut Rng| Some(Duration::from_millis(1 + rng.below(20_000)));
        let rng = &mut self.rng;
        let close = |rng: &mut Rng| if rng.chance(0.3) { Close::HandOff } else { Close::Confirmed };
        let half_open = rng.chance(0.7);
        if !half_open {
            self.record.ends_by_itself.insert((conversation, false));
        }
        let high_water = 1 + rng.below(50_000) as usize;
        let listen = Listen::default()
            .idle_timeout(ms(rng).filter(|_| rng.chance(0.3)))
            .half_closed_timeout(ms(rng))
            .linger(ms(rng))
            .high_water_mark(high_water)
            .allow_half_open(half_open)
            .early_notice(rng.chance(0.5))
            .paused(rng.chance(0.1))
            .close(close(rng));
        let connect = Connect::default()
            .half_closed_timeout(ms(rng))
            .linger(ms(rng))
            .high_water_mark(high_water)
            .early_notice(rng.chance(0.5))
            .close(close(rng));
        // A listener may be refused a descriptor, as anything may.
        let Ok(listener) = self.reactor.listen((HOME, 0), listen) else { return };
        self.listeners.push(listener);
        let id = self.reactor.connect(listener.addr, connect).expect("a good address");
        let socket = self.reactor.socket(id).expect("it was just made");
        self.sides.insert(id, Side::new(conversation, &socket));
    }

    fn go(mut self) {
        for _ in 0..EVENTS {
            let Some((socket, event)) = next(&mut self.reactor) else {
                return self.check_the_end();
            };
            match event {
                Event::Timer(timer) if Some(timer) == self.heal => {
                    self.network.set_faults(Faults::none());
                    self.heal = None;
                    self.last_call = Some(self.reactor.set_timer(Duration::from_secs(60)));
                }
                Event::Timer(timer) if Some(timer) == self.last_call => self.end_all(),
                Event::Timer(timer) => {
                    let (id, due) = self.resumes.remove(&timer).expect("a timer of ours, once");
                    assert!(self.network.now() >= due, "a timer was early");
                    if let Some(mut socket) = self.reactor.socket(id) {
                        socket.resume();
                    }
                }
                Event::ListenerRests(..) => {}
                event => {
                    let pause =
                        handle(socket, event, &self.listeners, &mut self.sides, &mut self.record, &mut self.rng);
                    if let Some((id, time)) = pause {
                        let due = self.network.now() + time;
                        self.resumes.insert(self.reactor.set_timer(time), (id, due));
                    }
                }
            }
            self.close_listeners_when_done();
        }
        panic!("no end in sight:\n{}", self.reactor.sockets());
    }

    fn end_all(&mut self) {
        for socket in &self.reactor.sockets() {
            // Limits are shorter than this has taken: whoever is not open still has bytes that move.
            let overdue = socket.timer_ms.is_none_or(|ms| ms == 0);
            assert!(socket.state == State::Open || !overdue, "{socket:?} was half-closed for too long");
        }
        for (&id, side) in &mut self.sides {
            let mut socket = self.reactor.socket(id).expect("it has not told close");
            assert!(!side.owes_drain || socket.queued_bytes() > 0, "{id}: a drain was lost");
            socket.resume();
            side.end(&mut socket, &mut self.record);
        }
    }

    fn close_listeners_when_done(&mut self) {
        if self.heal.is_none() && self.reactor.is_empty() {
            for listener in self.listeners.drain(..) {
                self.reactor.close_listener(listener.id).expect("it is open");
            }
        }
    }

    fn check_the_end(self) {
        assert!(self.sides.is_empty(), "every socket has told close");
        for ((conversation, is_client), ending) in &self.record.endings {
            let Some(other) = self.record.endings.get(&(*conversation, !is_client)) else { continue };
            if ending.is_clean() && other.is_clean() {
                assert_eq!(ending.bytes_written, other.bytes_read, "{ending} / {other}");
            }
            if ending.is_acknowledged() {
                assert_eq!(ending.bytes_unsent, 0, "{ending}");
            }
        }
        assert_eq!(self.network.descriptors(), 0, "every descriptor is closed");
    }
}

/// The next event. A network that stands still, though something is left, means that an event was lost.
fn next(reactor: &mut Reactor<Host>) -> Option<(Socket<'_>, Event<'_>)> {
    let sockets = reactor.sockets();
    reactor.next().unwrap_or_else(|error| panic!("{error}, with\n{sockets}"))
}

impl Side {
    fn new(conversation: usize, socket: &Socket<'_>) -> Self {
        Self {
            conversation,
            is_client: socket.listener().is_none(),
            life: Life::of(socket),
            had_error: false,
            had_end: false,
            read: 0,
            written: 0,
            ended: false,
            discards: false,
            owes_drain: false,
        }
    }

    /// Checks what came, byte by byte.
    fn take(&mut self, bytes: &[u8]) {
        for &got in bytes {
            assert_eq!(got, byte(self.conversation, !self.is_client, self.read), "byte {}", self.read);
            self.read += 1;
        }
    }

    fn write(&mut self, socket: &mut Socket<'_>, count: u64) -> Option<Queue> {
        let bytes: Vec<u8> =
            (self.written..self.written + count).map(|at| byte(self.conversation, self.is_client, at)).collect();
        let written = socket.write(&bytes);
        match written {
            Ok(queue) => {
                self.written += count;
                self.owes_drain |= queue == Queue::Full;
                Some(queue)
            }
            Err(error) => {
                // Without half-open our side has ended by itself after their end.
                assert!(self.ended || self.had_end || error != finale::Error::WriteAfterEnd, "{error}");
                None
            }
        }
    }

    fn end(&mut self, socket: &mut Socket<'_>, record: &mut Record) {
        socket.end();
        self.ended = true;
        self.owes_drain = false;
        record.finished.insert((self.conversation, self.is_client));
    }
}

/// What the program of one side does with one event. Answers a socket to be resumed, and after which time.
fn handle(
    mut socket: Socket<'_>,
    event: Event<'_>,
    listeners: &[Listener],
    sides: &mut BTreeMap<SocketId, Side>,
    record: &mut Record,
    rng: &mut Rng,
) -> Option<(SocketId, Duration)> {
    let id = socket.id();
    if matches!(event, Event::Connection) {
        let conversation = listeners.iter().position(|listener| Some(listener.id) == socket.listener());
        sides.insert(id, Side::new(conversation.expect("a listener of ours"), &socket));
    }
    let side = sides.get_mut(&id).expect("no event of a socket that is unknown or has told close");
    side.life.tell(&socket, &event).expect("the language of events");
    side.had_error |= matches!(event, Event::Error(_));
    side.had_end |= matches!(event, Event::End);
    match event {
        Event::Data(bytes) => {
            assert!(!side.discards, "no data after discard");
            assert!(!socket.is_paused(), "no data while paused");
            side.take(bytes);
        }
        Event::Close(ending) => {
            check_ending(side, &ending);
            record.endings.insert((side.conversation, side.is_client), ending);
            sides.remove(&id);
            return None;
        }
        Event::Drain => assert!(std::mem::take(&mut side.owes_drain), "a drain that nobody is owed"),
        Event::End => {
            let other = (side.conversation, !side.is_client);
            assert!(record.finished.contains(&other), "an end of a peer that has not ended");
            let own = (side.conversation, side.is_client);
            if record.ends_by_itself.contains(&own) {
                side.owes_drain = false;
                record.finished.insert(own);
            }
        }
        _ => {}
    }
    act(&mut socket, side, matches!(event, Event::End), record, rng)
}

fn check_ending(side: &Side, ending: &Ending) {
    assert_eq!(ending.had_error(), side.had_error);
    assert!(ending.bytes_written + ending.bytes_unsent <= side.written, "{ending}");
    assert!(side.discards || ending.bytes_read == side.read, "{ending}");
    if matches!(ending.how, How::Confirmed) {
        assert!(side.had_end, "confirmed without their end");
        assert_eq!(ending.bytes_written, side.written, "confirmed: everything was sent");
    }
}

fn act(
    socket: &mut Socket<'_>,
    side: &mut Side,
    is_end: bool,
    record: &mut Record,
    rng: &mut Rng,
) -> Option<(SocketId, Duration)> {
    if rng.chance(0.5) {
        let count = if rng.chance(0.2) { rng.below(record.largest_write) } else { rng.below(300) };
        side.write(socket, count);
    }
    if rng.chance(if is_end { 0.8 } else { 0.1 }) {
        side.end(socket, record);
    }
    if rng.chance(0.01) {
        socket.destroy();
    }
    if rng.chance(0.02) {
        socket.discard();
        side.discards = true;
    }
    if rng.chance(0.02) {
        socket.set_timeout(Some(Duration::from_millis(rng.below(5_000))));
    }
    if rng.chance(0.1) || (socket.is_paused() && rng.chance(0.5)) {
        socket.pause();
        return Some((socket.id(), Duration::from_millis(rng.below(5_000))));
    }
    None
}
