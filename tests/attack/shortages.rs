//! Random programs on a net whose calls lack memory at random. No byte is lost or out of order, the
//! bytes of an ending add up, and once there is memory again everything can end soon.

use std::time::Duration;

use finale::check::EventGrammar;
use finale::sim::{Faults, Network, Rng};
use finale::{
    CloseMode, ConnectOptions, ConnectionErrorKind, EndingKind, Event, ListenOptions, Reactor, Socket, SocketId,
    SocketMap, StopOptions,
};

use support::faulty::FaultyNet;
use support::ms;
use support::scene::HERE;

const SEEDS: u64 = 150;
/// After this many events there is memory again and everything is ended.
const EVENTS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(25);

/// Every stream has the same bytes.
fn bytes(from: u64, count: u64) -> Vec<u8> {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}

/// Both sides of some connections, each a program that makes random calls at any event.
struct Programs {
    rng: Rng,
    ids: Vec<SocketId>,
    lives: SocketMap<EventGrammar>,
    /// How many bytes were written.
    written: SocketMap<u64>,
    /// How many kernel pipes were passed on, and how many buffers were filled.
    forwarded: usize,
    filled: usize,
}

impl Programs {
    fn one_in(&mut self, number: u64) -> bool {
        self.rng.below(number) == 0
    }

    fn any(&mut self) -> Option<SocketId> {
        let index = self.rng.below(self.ids.len() as u64);
        self.ids.get(index as usize).copied()
    }

    fn write(&mut self, socket: &mut Socket<'_>, most: u64) {
        let (count, is_owned) = (self.rng.below(most), self.one_in(3));
        let written = self.written.or_default(socket.id());
        let bytes = bytes(*written, count);
        let result = if is_owned { socket.write_owned(bytes) } else { socket.write(&bytes) };
        if result.is_ok() {
            *written += count;
        }
    }

    fn act(&mut self, socket: &mut Socket<'_>) {
        let (on, time) = (self.one_in(2), ms(self.rng.below(3000)));
        match self.rng.below(40) {
            0..=3 => self.write(socket, 100),
            4..=7 => self.write(socket, 5000),
            8..=10 => self.write(socket, 100_000),
            11 | 12 => socket.end(),
            13 if self.one_in(3) => socket.destroy(),
            14..=16 => socket.pause(),
            17..=22 => socket.resume(),
            23 if self.one_in(3) => socket.discard(),
            24 => socket.set_idle_timeout(Some(time).filter(|_| on)),
            25 => socket.set_deadline(Some(ms(5000) + 10 * time).filter(|_| on)),
            26 => drop(socket.request_drain()),
            27 => socket.set_low_water_mark(self.rng.below(10_000) as usize),
            28 => socket.set_allow_half_open(on),
            29 => socket.set_close_mode(if on { CloseMode::HandOff } else { CloseMode::Confirmed }),
            30 => socket.set_nodelay(on),
            31 => drop(socket.set_keep_alive(None)),
            32 | 33 => {
                let length = 1 + self.rng.below(if on { 100 } else { 150_000 });
                drop(socket.fill(Vec::new(), length as usize));
            }
            34 | 35 => socket.splice_next(),
            36 => socket.hold(),
            37 => socket.release(),
            38 => socket.set_farewell(on),
            39 if on => socket.set_answered(),
            39 => socket.postpone_farewell(),
            _ => {}
        }
    }

    /// Passes the bytes of a kernel pipe on, sometimes. Every stream has the same bytes, so some
    /// are written before.
    fn forward(&mut self, socket: &mut Socket<'_>, count: u64) {
        let Some(sink) = self.any().filter(|_| !self.one_in(4)) else { return };
        let from = socket.bytes_read() - count;
        let written = self.written.or_default(sink);
        let missing = (from % 251 + 251 - *written % 251) % 251;
        let Some(mut to) = socket.get(sink) else { return };
        if to.write(&bytes(*written, missing)).is_err() {
            return;
        }
        *written += missing;
        if socket.forward(sink).is_ok() {
            *self.written.or_default(sink) += count;
            self.forwarded += 1;
        }
    }

    /// What must hold of each event.
    fn check(&mut self, socket: &mut Socket<'_>, event: &Event<'_>) {
        let id = socket.id();
        if self.lives.get(id).is_none() {
            self.lives.insert(id, EventGrammar::new(socket));
        }
        let told = self.lives.get_mut(id).expect("inserted").check(socket, event);
        told.expect("the language of events");
        if let Event::Data(data) = event {
            let count = data.len() as u64;
            assert!(**data == bytes(socket.bytes_read() - count, count), "{id}: other bytes");
        }
        if *event == Event::Filled {
            let data = socket.take_filled().expect("it was filled");
            let count = data.len() as u64;
            assert!(data == bytes(socket.bytes_read() - count, count), "{id}: other bytes");
            self.filled += 1;
        }
        if let Event::Error(failure) = event {
            assert_ne!(failure.kind, ConnectionErrorKind::OutOfResources, "{id}: it passes");
        }
        if let Event::Close(ending) = event {
            let written = self.written.get(id).copied().unwrap_or(0);
            assert_eq!(ending.bytes_written + ending.bytes_unsent, written, "{id}: {ending:?}");
            let is_clean = matches!(ending.kind, EndingKind::Confirmed | EndingKind::HandedOff);
            assert!(!is_clean || ending.bytes_unsent == 0, "{id}: {ending:?}");
            self.ids.retain(|other| *other != id);
        } else if !self.ids.contains(&id) {
            self.ids.push(id);
        }
    }

    /// A few calls on the socket that has the event and on another.
    fn meddle(&mut self, socket: &mut Socket<'_>) {
        for _ in 0..self.rng.below(4) {
            self.act(socket);
        }
        if let Some(mut other) = self.any().and_then(|other| socket.get(other)) {
            self.act(&mut other);
        }
    }

    fn listen(&mut self) -> ListenOptions {
        let (half_open, notice, paused) = (self.one_in(2), self.one_in(3), self.one_in(4));
        let mut options =
            ListenOptions::default().allow_half_open(half_open).notify_peer_ended(notice).start_paused(paused);
        let mut any = |number, time| Some(time).filter(|_| self.one_in(number));
        options = options.write_timeout(any(3, ms(5000))).idle_timeout(any(4, ms(700)));
        if let Some(time) = any(4, ms(900)) {
            options = options.close_timeout(time);
        }
        if let Some(time) = any(3, ms(8000)) {
            options = options.half_closed_timeout(time);
        }
        options
    }
}

fn network(rng: &mut Rng) -> Network {
    let network = Network::new(rng.next_u64());
    if rng.chance(0.5) {
        let mut bytes = || 20_000 + rng.below(30_000) as usize;
        network.set_buffers(bytes(), bytes());
    }
    if rng.chance(0.5) {
        network.set_latency(ms(rng.below(20)));
    }
    if rng.chance(0.3) {
        network.set_faults(Faults::random(rng).harmless());
    }
    network
}

/// Ends every live socket.
fn end_all(reactor: &mut Reactor<FaultyNet>) {
    for id in reactor.sockets().iter().map(|socket| socket.id).collect::<Vec<_>>() {
        if let Some(mut socket) = reactor.socket(id)
            && (socket.is_paused() || !socket.end_called())
        {
            socket.end();
            socket.discard();
        }
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut rng = Rng::new(seed);
    let network = network(&mut rng);
    let (net, faulty) = FaultyNet::new(&network);
    if rng.chance(0.5) {
        faulty.hide_acks();
    }
    faulty.random(Rng::new(seed), [0.02, 0.1, 0.3][rng.below(3) as usize]);
    let mut programs =
        Programs { rng, ids: Vec::new(), lives: SocketMap::new(), written: SocketMap::new(), forwarded: 0, filled: 0 };
    let mut reactor = Reactor::with_net(net);
    let listener = reactor.listen((HERE, 80), programs.listen()).expect("a free port");
    let mut clients = 1 + programs.rng.below(6);
    for turn in 0..EVENTS {
        if turn == 0 || (clients > 0 && programs.one_in(5)) {
            let options =
                ConnectOptions::default().allow_half_open(programs.one_in(2)).notify_peer_ended(programs.one_in(3));
            programs.ids.push(reactor.connect((HERE, 80), options).expect("an address"));
            clients = clients.saturating_sub(1);
        }
        let until = network.now() + ms(programs.rng.below(500));
        if let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") {
            if event.is_socket_event() {
                programs.check(&mut socket, &event);
                if let Event::Spliced(count) = event {
                    programs.forward(&mut socket, count as u64);
                }
                programs.meddle(&mut socket);
            }
        } else if let Some(mut socket) = programs.any().and_then(|id| reactor.socket(id)) {
            programs.act(&mut socket);
        }
    }
    faulty.heal();
    match programs.one_in(2) {
        true => reactor.stop_listener(listener.id, StopOptions::default()).expect("open"),
        false => reactor.close_listener(listener.id).expect("open"),
    }
    let healed = network.now();
    while !reactor.is_empty() {
        end_all(&mut reactor);
        if let Some((mut socket, event)) = reactor.next_before(network.now() + ms(500)).expect("it continues")
            && event.is_socket_event()
        {
            programs.check(&mut socket, &event);
        }
        assert!(network.now() - healed < PATIENCE, "with memory it does not end:\n{}", reactor.sockets());
    }
    (programs.forwarded, programs.filled)
}

/// The output contains the seed of a failing run.
#[test]
fn random_programs_lose_nothing_when_calls_lack_memory_at_random() {
    let (mut forwarded, mut filled) = (0, 0);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let counts = run(seed);
        (forwarded, filled) = (forwarded + counts.0, filled + counts.1);
    }
    assert!(forwarded > 50 && filled > 50, "{forwarded} pipes were passed on, and {filled} buffers filled");
}
