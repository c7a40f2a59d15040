//! The proxy of the examples in random runs: pools, pipes, and clients and backends that do
//! anything at any time, on a network with faults. What arrives is right, an end means that the
//! stream is complete, and nothing is left over.
//!
//! More seeds: `FINALE_SEEDS=0..20000 cargo test --test examples random_proxy::`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::balance::{self, Balance};
use finale::sim::{Faults, Host, Network, Peer, PeerListener, PeerSocket, Rng};
use finale::{Event, ListenOptions, Listener, Pipes, Reactor};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const CLIENTS: usize = 12;
const PORTS: [u16; 2] = [90, 91];

/// The byte at this position of what a client sends, or its backend. The first one is the client's
/// number.
fn byte(client: usize, by_backend: bool, place: usize) -> u8 {
    if place == 0 && !by_backend {
        return client as u8;
    }
    (place * 31 + place / 251 + client * 7 + usize::from(by_backend)) as u8
}

/// One direction of a conversation, by its sender.
#[derive(Default)]
struct Stream {
    sent: usize,
    received: usize,
    /// The sender has finished.
    finished: bool,
}

/// One end of a conversation, moved by hand.
struct End {
    socket: Option<PeerSocket>,
}

struct Conversation {
    client: End,
    backend: Option<End>,
    /// What the client has sent, and what the backend has sent.
    said: [Stream; 2],
    /// One side has broken it, so the bytes need not arrive.
    is_broken: bool,
    /// The other machine was out of reach for a while: an end of it may have missed how it has
    /// ended.
    was_unreachable: bool,
}

struct World {
    seed: u64,
    network: Network,
    peer: Peer,
    reactor: Reactor<Host>,
    balance: Balance,
    proxy: Listener,
    backends: [Option<PeerListener>; 2],
    /// Ends of backends that don't know yet which client they have.
    unknown: Vec<PeerSocket>,
    conversations: Vec<Conversation>,
    dice: Rng,
    /// Something was done that may break any of them.
    is_stormy: bool,
    /// The other machine is out of reach.
    has_vanished: bool,
    events: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Rng::new(seed);
        let network = Network::new(seed);
        network.set_buffers(500 + dice.below(40_000) as usize, 500 + dice.below(40_000) as usize);
        let is_stormy = dice.chance(0.5);
        let faults = Faults::random(&mut dice);
        network.set_faults(if is_stormy { faults } else { faults.harmless() });
        let peer = network.peer(THERE);
        let mut reactor = Reactor::with_net(network.host(HERE));
        let marks = ListenOptions::default().high_water_mark(1 + dice.below(100_000) as usize);
        let proxy = reactor.listen((HERE, 80), balance::options(marks)).expect("a free port");
        let backends = PORTS.map(|port| Some(peer.listen(SocketAddr::new(THERE, port)).expect("a free port")));
        let names = PORTS.map(|port| SocketAddr::new(THERE, port).to_string());
        let mut balance =
            Balance::new(&names, &balance::pool(1 + dice.below(3) as usize).seed(seed), None, Pipes::new())
                .expect("addresses");
        balance.open(&mut reactor.context());
        let (unknown, conversations) = (Vec::new(), Vec::new());
        Self {
            seed,
            network,
            peer,
            reactor,
            balance,
            proxy,
            backends,
            unknown,
            conversations,
            dice,
            is_stormy,
            has_vanished: false,
            events: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.network.now() + time;
        loop {
            let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") else { return };
            self.events += 1;
            assert!(socket.queued_bytes() <= 200_000, "seed {}: {} bytes wait", self.seed, socket.queued_bytes());
            if !matches!(event, Event::AcceptFailed(..)) {
                self.balance.handle(&mut socket, event);
            }
        }
    }

    /// One random action.
    fn act(&mut self) {
        match self.dice.below(20) {
            0..5 if self.conversations.len() < CLIENTS => self.come(),
            5 if self.is_stormy => self.storm(),
            _ if self.conversations.is_empty() => {}
            _ => {
                let client = self.dice.below(self.conversations.len() as u64) as usize;
                let by_backend = self.dice.chance(0.5);
                let deed = self.dice.below(12);
                self.deed(client, by_backend, deed);
            }
        }
    }

    fn come(&mut self) {
        let client = self.conversations.len();
        let socket = self.peer.connect(self.proxy.addr).expect("begun");
        socket.send(&[byte(client, false, 0)]);
        let said = [Stream { sent: 1, ..Stream::default() }, Stream::default()];
        self.conversations.push(Conversation {
            client: End { socket: Some(socket) },
            backend: None,
            said,
            is_broken: false,
            was_unreachable: self.has_vanished,
        });
    }

    /// A backend stops or starts, or the other machine is out of reach for a while.
    fn storm(&mut self) {
        let place = self.dice.below(2) as usize;
        match self.dice.below(4) {
            0 => {
                if let Some(listener) = self.backends[place].take() {
                    listener.close();
                }
            }
            1 if self.backends[place].is_none() => {
                self.backends[place] = self.peer.listen(SocketAddr::new(THERE, PORTS[place])).ok();
            }
            2 => {
                self.network.vanish(THERE);
                self.has_vanished = true;
                self.conversations.iter_mut().for_each(|conversation| conversation.was_unreachable = true);
            }
            _ => {
                self.network.heal(THERE);
                self.has_vanished = false;
            }
        }
    }

    fn deed(&mut self, client: usize, by_backend: bool, deed: u64) {
        let count = self.dice.below(30_000) as usize;
        let conversation = &mut self.conversations[client];
        let end = if by_backend { conversation.backend.as_mut() } else { Some(&mut conversation.client) };
        let Some(end) = end else { return };
        let Some(socket) = &end.socket else { return };
        let said = &mut conversation.said[usize::from(by_backend)];
        match deed {
            0..4 if !said.finished => {
                let bytes: Vec<u8> =
                    (said.sent..said.sent + count).map(|place| byte(client, by_backend, place)).collect();
                socket.send(&bytes);
                said.sent += count;
            }
            4 => {
                socket.finish();
                said.finished = true;
            }
            // Rarely, and nothing after it.
            5 if self.dice.chance(0.3) => {
                conversation.is_broken = true;
                if let Some(socket) = end.socket.take() {
                    socket.reset();
                }
            }
            6 if self.dice.chance(0.3) => {
                // With unread bytes, or bytes that arrive later, it is a reset.
                conversation.is_broken = true;
                said.finished = true;
                if let Some(socket) = end.socket.take() {
                    socket.close();
                }
            }
            _ => self.read(client, by_backend),
        }
    }

    /// An end reads what it has, which must be what the other has sent.
    fn read(&mut self, client: usize, by_backend: bool) {
        let seed = self.seed;
        let conversation = &mut self.conversations[client];
        let end = if by_backend { conversation.backend.as_ref() } else { Some(&conversation.client) };
        let Some(socket) = end.and_then(|end| end.socket.as_ref()) else { return };
        let has_fin = socket.has_fin();
        let bytes = socket.read();
        let said = &mut conversation.said[usize::from(!by_backend)];
        let first = said.received;
        let wrong = (first..).zip(&bytes).find(|&(place, &got)| got != byte(client, !by_backend, place));
        assert_eq!(wrong, None, "seed {seed}: client {client} by_backend {by_backend}");
        said.received += bytes.len();
        assert!(said.received <= said.sent, "seed {seed}: more than was said");
        if has_fin && !socket.is_reset() {
            assert!(said.finished, "seed {seed}: an end that was not sent, to {client}, by_backend {by_backend}");
            assert_eq!(said.received, said.sent, "seed {seed}: a cut stream looks whole, to {client}");
        }
    }

    /// The backends accept new connections, and learn which client each belongs to.
    fn accept(&mut self) {
        for listener in self.backends.iter().flatten() {
            self.unknown.extend(std::iter::from_fn(|| listener.accept()));
        }
        for socket in std::mem::take(&mut self.unknown) {
            let bytes = if socket.unread_bytes() > 0 { socket.read() } else { Vec::new() };
            let Some(&client) = bytes.first() else {
                // A connection that ends before its first bytes is no conversation: it is an unused
                // one of a pool.
                if socket.has_fin() || socket.is_reset() {
                    socket.close();
                } else {
                    self.unknown.push(socket);
                }
                continue;
            };
            let client = usize::from(client);
            let said = &mut self.conversations[client].said[0];
            let right = bytes.iter().enumerate().all(|(place, &got)| got == byte(client, false, place));
            assert!(
                right && said.received == 0,
                "seed {}: client {client} is given twice, or to the wrong one",
                self.seed
            );
            said.received = bytes.len();
            self.conversations[client].backend = Some(End { socket: Some(socket) });
        }
    }

    /// Everything heals, all sides finish and read to the end.
    fn end(&mut self) {
        self.network.heal(THERE);
        self.network.set_faults(Faults::none());
        for (backend, port) in self.backends.iter_mut().zip(PORTS) {
            if backend.is_none() {
                *backend = self.peer.listen(SocketAddr::new(THERE, port)).ok();
            }
        }
        for round in 0..700 {
            self.run(Duration::from_secs(1));
            self.accept();
            for client in 0..self.conversations.len() {
                for by_backend in [false, true] {
                    self.read(client, by_backend);
                    self.deed(client, by_backend, 4);
                }
            }
            if round > 5 && self.conversations.iter().all(Conversation::is_over) {
                break;
            }
        }
    }

    fn judge(mut self) {
        let seed = self.seed;
        let mut whole = 0;
        for (client, conversation) in self.conversations.iter().enumerate() {
            let [asked, answered] = &conversation.said;
            let is_whole = asked.sent == asked.received && answered.sent == answered.received;
            assert!(
                conversation.is_over() || conversation.was_unreachable,
                "seed {seed}: client {client} continues for ever"
            );
            assert!(
                is_whole || conversation.is_broken || self.is_stormy,
                "seed {seed}: bytes of client {client} are lost"
            );
            whole += u32::from(is_whole);
        }
        assert!(self.is_stormy || whole > 0 || self.conversations.iter().all(|it| it.is_broken), "seed {seed}");
        self.balance.close(&mut self.reactor.context());
        self.reactor.close_listener(self.proxy.id).expect("open");
        for socket in std::mem::take(&mut self.unknown) {
            socket.close();
        }
        self.run(Duration::from_secs(700));
        assert!(self.reactor.is_empty(), "seed {seed}: {}", self.reactor.sockets());
        assert_eq!(self.network.descriptors(), 0, "seed {seed}");
        assert!(self.network.calls() < 400_000, "seed {seed}: {} calls", self.network.calls());
    }
}

impl Conversation {
    /// Both ends have seen an end of any kind, or are closed.
    fn is_over(&self) -> bool {
        let heard = |end: &End| {
            end.socket
                .as_ref()
                .is_none_or(|socket| socket.has_fin() || socket.is_reset() || socket.local_addr().is_none())
        };
        heard(&self.client) && self.backend.as_ref().is_none_or(heard)
    }
}

/// Seeds of every test run.
fn seeds() -> std::ops::Range<u64> {
    let range = std::env::var("FINALE_SEEDS").unwrap_or_else(|_| "0..450".into());
    let (from, to) = range.split_once("..").expect("FINALE_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Conversations by whether they have a backend, and whether they were broken.
type Kinds = HashMap<(bool, bool), usize>;

/// Runs each second seed. Returns how many events there were, and which conversations.
fn carry(half: usize) -> (usize, Kinds) {
    let (mut events, mut kinds) = (0, Kinds::new());
    for seed in seeds().skip(half).step_by(2) {
        let mut world = World::new(seed);
        for _ in 0..world.dice.below(400) {
            world.act();
            world.accept();
            let pause = world.dice.below(20_000);
            world.run(Duration::from_micros(pause));
        }
        world.end();
        events += world.events;
        for conversation in &world.conversations {
            *kinds.entry((conversation.backend.is_some(), conversation.is_broken)).or_insert(0) += 1;
        }
        world.judge();
    }
    (events, kinds)
}

#[test]
fn whatever_clients_and_backends_do_the_proxy_carries_it_through() {
    let other = std::thread::spawn(|| carry(1));
    let (mut events, mut kinds) = carry(0);
    let (more_events, more_kinds) = other.join().expect("the other half of the seeds passes, too");
    events += more_events;
    for (kind, count) in more_kinds {
        *kinds.entry(kind).or_insert(0) += count;
    }
    if std::env::var_os("FINALE_SEEDS").is_some() {
        return;
    }
    // Enough has happened for this to be meaningful.
    assert!(events > 10_000, "{events}");
    assert!(kinds.len() == 4 && kinds.values().all(|count| *count >= 10), "{kinds:?}");
}
