//! Random proxies on a net whose calls lack memory at random: `Pipes`, a program that meddles with its
//! sockets, and peers that end, die, or vanish. What arrives is the beginning of what was sent, an
//! end comes only after all of it, and nothing stays when the peers are gone.

use std::net::SocketAddr;
use std::time::Duration;

use finale::sim::{Faults, Network, PeerListener, PeerSocket, Rng};
use finale::{ConnectOptions, Event, ListenOptions, Pipes, Reactor, Socket, SocketId};

use support::faulty::FaultyNet;
use support::scene::{HERE, THERE};
use support::{ms, pattern};

const SEEDS: u64 = 150;
const STEPS: usize = 60;
const BACKEND: SocketAddr = SocketAddr::new(THERE, 90);
/// 30 s for what is doomed, as much for what a paused dead source has left, and the time for a
/// megabyte through small buffers.
const PATIENCE: Duration = Duration::from_secs(200);

/// One end of a stream through the proxy.
struct End {
    peer: Option<PeerSocket>,
    sent: usize,
    got: Vec<u8>,
    has_finished: bool,
}

impl End {
    const fn new(peer: PeerSocket) -> Self {
        Self { peer: Some(peer), sent: 0, got: Vec::new(), has_finished: false }
    }

    fn act(&mut self, rng: &mut Rng, stream: &[u8], is_gentle: bool) {
        let Some(peer) = &self.peer else { return };
        match rng.below(20) {
            0..=8 if !self.has_finished => {
                let most = [100, 20_000, 200_000][rng.below(3) as usize];
                let until = (self.sent + rng.below(most) as usize).min(stream.len());
                peer.send(&stream[self.sent..until]);
                self.sent = until;
            }
            9..=15 => self.got.extend(peer.read()),
            16 if rng.chance(0.3) => {
                peer.finish();
                self.has_finished = true;
            }
            17 if !is_gentle && rng.chance(0.2) => self.peer.take().into_iter().for_each(PeerSocket::reset),
            18 if !is_gentle && rng.chance(0.1) => self.peer.take().into_iter().for_each(PeerSocket::close),
            _ => {}
        }
    }
}

struct World {
    rng: Rng,
    network: Network,
    reactor: Reactor<FaultyNet>,
    pipes: Pipes,
    backends: PeerListener,
    ids: Vec<SocketId>,
    /// Whether the program has cut something.
    has_cut: bool,
    is_gentle: bool,
}

impl World {
    fn meddle(rng: &mut Rng, socket: &mut Socket<'_>) -> bool {
        match rng.below(60) {
            0 | 1 => socket.pause(),
            2..=6 => socket.resume(),
            7 => socket.set_low_water_mark(rng.below(100_000) as usize),
            8 => drop(socket.request_drain()),
            9 => socket.splice_next(),
            10 => socket.set_idle_timeout(ms(rng.below(1_000))),
            11 if rng.chance(0.1) => {
                socket.destroy();
                return true;
            }
            _ => {}
        }
        false
    }

    fn run(&mut self, time: Duration, meddles: bool) {
        let until = self.network.now() + time;
        while let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            let id = socket.id();
            if !self.pipes.handle(&mut socket, &event) {
                match event {
                    Event::Connection => {
                        let backend = socket.connect(BACKEND, ConnectOptions::default()).expect("an address");
                        self.pipes.join(&mut socket.context(), id, backend).expect("TCP");
                        self.ids.extend([id, backend]);
                    }
                    Event::Close(_) => self.ids.retain(|other| *other != id),
                    _ => {}
                }
            }
            if meddles {
                self.has_cut |= Self::meddle(&mut self.rng, &mut socket);
                let other = self.ids.get(self.rng.below(8) as usize).copied();
                if let Some(mut other) = other.and_then(|other| socket.get(other)) {
                    self.has_cut |= Self::meddle(&mut self.rng, &mut other);
                }
            }
        }
    }
}

fn world(seed: u64, rates: &[f64]) -> (World, support::faulty::Faulty, PeerSocket) {
    let mut rng = Rng::new(seed);
    let network = Network::new(rng.next_u64());
    if rng.chance(0.7) {
        let mut bytes = || 2_000 + rng.below(90_000) as usize;
        network.set_buffers(bytes(), bytes());
    }
    network.set_latency(ms(rng.below(20)));
    if rng.chance(0.5) {
        network.set_faults(Faults::random(&mut rng).harmless());
    }
    let (net, faulty) = FaultyNet::new(&network);
    faulty.random(Rng::new(seed), rates[rng.below(rates.len() as u64) as usize]);
    let mut reactor = Reactor::with_net(net);
    let listener = reactor.listen((HERE, 80), ListenOptions::default()).expect("a free port");
    let peer = network.peer(THERE);
    let backends = peer.listen(BACKEND).expect("a free port");
    let client = peer.connect(listener.addr).expect("begun");
    let is_gentle = rng.chance(0.5);
    let world =
        World { rng, network, reactor, pipes: Pipes::new(), backends, ids: Vec::new(), has_cut: false, is_gentle };
    (world, faulty, client)
}

fn run(seed: u64, stream: &[u8]) {
    let (mut world, faulty, client) = world(seed, &[0.0, 0.02, 0.1, 0.3]);
    let mut ends = vec![End::new(client)];
    for _ in 0..STEPS {
        let time = ms(world.rng.below(400));
        world.run(time, true);
        if ends.len() == 1 {
            ends.extend(world.backends.accept().map(End::new));
        }
        let is_gentle = world.is_gentle;
        ends.iter_mut().for_each(|end| end.act(&mut world.rng, stream, is_gentle));
    }
    faulty.heal();
    // The program undoes its pauses, once. The peers take what comes, and end.
    let began = world.network.now();
    for id in world.ids.clone() {
        if let Some(mut socket) = world.reactor.socket(id) {
            socket.resume();
        }
    }
    while !world.reactor.is_empty() {
        world.run(ms(100), false);
        if ends.len() == 1 {
            ends.extend(world.backends.accept().map(End::new));
        }
        for end in &mut ends {
            end.has_finished = true;
            if let Some(peer) = &end.peer {
                peer.finish();
                end.got.extend(peer.read());
            }
        }
        assert!(
            world.network.now() - began < PATIENCE,
            "seed {seed}: it stays:\n{}\n{:?}",
            world.reactor.sockets(),
            world.pipes
        );
    }
    world.network.advance(Duration::from_secs(5));
    for end in &mut ends {
        end.got.extend(end.peer.iter().flat_map(PeerSocket::read));
    }
    let [client, backend] = &ends[..] else { return };
    for (from, to) in [(client, backend), (backend, client)] {
        assert!(stream[..from.sent].starts_with(&to.got), "seed {seed}: other bytes");
        let is_clean = to.peer.as_ref().is_some_and(|peer| peer.has_fin() && !peer.is_reset());
        assert!(!is_clean || to.got.len() == from.sent, "seed {seed}: an end after {} of {}", to.got.len(), from.sent);
        assert!(
            !world.is_gentle || world.has_cut || is_clean,
            "seed {seed}: cut after {} of {}",
            to.got.len(),
            from.sent
        );
    }
}

/// The output contains the seed of a failing run.
#[test]
fn random_proxies_pass_on_the_beginning_or_all_of_it() {
    let stream = pattern(2_000_000);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        run(seed, &stream);
    }
}
