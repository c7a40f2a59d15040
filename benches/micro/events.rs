//! A whole event, from its readiness to the answer, while any number of idle sockets exist: the
//! reactor that ships, on the simulated network, where one busy pair of sockets talks; and on
//! almost no network, which measures the reactor alone.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::Criterion;
use finale::net::Net;
use finale::sim::{Host, Network};
use finale::{BoundAddr, ConnectOptions, Event, ListenOptions, Reactor, SocketId};

use crate::bare::Bare;
use crate::support::{CpuTime, cpu_time, is_trial};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Idle connections from one machine: it has about 28,000 ports, and a listen queue 4096 slots.
const FROM_ONE_MACHINE: usize = 25_000;
const AT_ONCE: usize = 1000;

/// What the idle sockets wait for.
#[derive(Clone, Copy)]
enum IdleDirection {
    /// Only readiness.
    Quiet,
    /// Also an idle time of an hour: each has a timer in the wheel, which passes it once a
    /// rotation.
    WithDeadlines,
}

impl IdleDirection {
    const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::WithDeadlines => "with an idle time",
        }
    }
}

impl IdleDirection {
    fn listen(self) -> ListenOptions {
        let limit = match self {
            Self::Quiet => None,
            Self::WithDeadlines => Some(Duration::from_secs(3600)),
        };
        ListenOptions::default().idle_timeout(limit)
    }
}

struct Scene<N: Net> {
    reactor: Reactor<N>,
}

impl Scene<Bare> {
    fn bare(idle: usize, kind: IdleDirection) -> Self {
        let mut reactor = Reactor::with_net(Bare::new(idle + 1));
        reactor.listen((SERVER, 80), kind.listen()).expect("a net that refuses nothing");
        Self { reactor }.after_accepting(idle + 1)
    }
}

impl Scene<Host> {
    fn simulated(idle: usize, kind: IdleDirection) -> Self {
        let network = Network::new(1);
        let mut reactor = Reactor::with_net(network.host(SERVER));
        let addr = reactor.listen((SERVER, 0), kind.listen()).expect("a free port").addr;
        let mut scene = Self { reactor };
        for first in (0..idle).step_by(AT_ONCE) {
            scene = scene.with_idle(&network, addr, first, idle.min(first + AT_ONCE));
        }
        scene.connect_busy(addr);
        // The handshakes' timers stay entered until their time, which has passed before anything is
        // measured.
        network.advance(Duration::from_secs(5));
        // As on loopback, some 10 microseconds per message. If time stood still no timer would be
        // examined.
        network.set_latency(Duration::from_micros(10));
        scene
    }

    /// Peers that connect, and then are silent for ever.
    fn with_idle(self, network: &Network, addr: BoundAddr, first: usize, end: usize) -> Self {
        let machine = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + (first / FROM_ONE_MACHINE) as u32);
        let peer = network.peer(machine.into());
        for _ in first..end {
            peer.connect(addr).expect("a free port");
        }
        self.after_accepting(end - first)
    }

    /// A client of the same reactor, so that each message is an event on either side.
    fn connect_busy(&mut self, addr: BoundAddr) {
        let client = self.reactor.connect(addr, ConnectOptions::default()).expect("a good address");
        let (mut ready, mut accepted) = (false, false);
        while !(ready && accepted) {
            let (mut socket, event) = self.reactor.next().expect("the net waits").expect("a listener");
            accepted |= matches!(event, Event::Connection);
            if matches!(event, Event::Ready) && socket.id() == client {
                socket.write(&[0; 64]).expect("an open socket");
                ready = true;
            }
        }
    }
}

impl<N: Net> Scene<N> {
    fn after_accepting(mut self, count: usize) -> Self {
        let mut accepted = 0;
        while accepted < count {
            let (_, event) = self.reactor.next().expect("the net waits").expect("a listener");
            accepted += usize::from(matches!(event, Event::Connection));
        }
        self
    }

    /// One message arrives and is answered, in this many writes of this many bytes.
    #[inline]
    fn event(&mut self, writes: usize, bytes: usize) -> SocketId {
        let message = &[0; 1024][..bytes];
        loop {
            let (mut socket, event) = self.reactor.next().expect("the net waits").expect("a listener");
            if let Event::Data(_) = event {
                for _ in 0..writes {
                    socket.write(message).expect("an open socket");
                }
                return socket.id();
            }
        }
    }
}

/// This many events of this kind with the reactor alone, and nothing measured: an echo with a
/// thousand idle sockets, or a half-closing connection.
pub(crate) fn run(kind: &str, events: usize) {
    let idle = match kind {
        "echo" => IdleDirection::Quiet,
        "echo-idle" => IdleDirection::WithDeadlines,
        _ => return half_close(events, kind == "half-close-late"),
    };
    let mut scene = Scene::bare(1000, idle);
    for _ in 0..events {
        scene.event(1, 64);
    }
}

fn half_close(connections: usize, late: bool) {
    let mut reactor = Reactor::with_net(Bare::half_closing(connections, late));
    reactor.listen((SERVER, 80), ListenOptions::default()).expect("a net that refuses nothing");
    let mut closed = 0;
    while closed < connections {
        let (mut socket, event) = reactor.next().expect("the net waits").expect("a listener");
        match event {
            Event::End => {
                socket.write(&[0; 64]).expect("an open socket");
                socket.end();
            }
            Event::Close(_) => closed += 1,
            _ => {}
        }
    }
}

pub(crate) fn measure(criterion: &mut Criterion<CpuTime>) {
    for kind in [IdleDirection::Quiet, IdleDirection::WithDeadlines] {
        beside_idle_ones(criterion, "simulated network", kind, Scene::simulated);
        beside_idle_ones(criterion, "the reactor alone", kind, Scene::bare);
    }
    let mut group = criterion.benchmark_group("answering with 1 KiB, simulated network");
    let mut scene = Scene::simulated(1, IdleDirection::Quiet);
    for (writes, bytes, name) in [(1, 1024, "one write"), (64, 16, "64 writes of 16 bytes")] {
        group.bench_function(name, |bencher| bencher.iter(|| scene.event(writes, bytes)));
    }
    group.finish();
}

/// Each number of idle sockets alone; then all of them in turn, a moment each, which is the fair
/// way to compare them.
fn beside_idle_ones<N: Net>(
    criterion: &mut Criterion<CpuTime>,
    net: &str,
    kind: IdleDirection,
    make: fn(usize, IdleDirection) -> Scene<N>,
) {
    let title = format!("an event beside idle sockets, {}, {net}", kind.name());
    let mut group = criterion.benchmark_group(&title);
    let numbers = [(1_000, "1 k"), (100_000, "100 k"), (1_000_000, "1 M")];
    let mut scenes = Vec::new();
    for (idle, name) in numbers {
        let mut scene = None;
        group.bench_function(name, |bencher| {
            let scene = scene.get_or_insert_with(|| make(if is_trial() { 1000 } else { idle }, kind));
            bencher.iter(|| scene.event(1, 64));
        });
        scenes.extend(scene.map(|scene| (name, scene)));
    }
    group.finish();
    if !is_trial() && scenes.len() == numbers.len() {
        compare(&mut scenes, &title);
    }
}

/// What an event costs with each number of idle sockets, compared with the first of them.
fn compare<N: Net>(scenes: &mut [(&str, Scene<N>)], title: &str) {
    // Together two rotations of the timer wheel, so that each idle socket's timer comes up twice.
    const ROUNDS: usize = 200;
    const EVENTS: usize = 16_384;
    let mut totals = vec![0.0; scenes.len()];
    let mut ratios = vec![Vec::new(); scenes.len()];
    for _ in 0..ROUNDS {
        let times: Vec<f64> = scenes
            .iter_mut()
            .map(|(_, scene)| {
                let began = cpu_time();
                for _ in 0..EVENTS {
                    scene.event(1, 64);
                }
                (cpu_time() - began).as_secs_f64()
            })
            .collect();
        for ((total, ratios), time) in totals.iter_mut().zip(&mut ratios).zip(&times) {
            *total += time;
            ratios.push(time / times[0]);
        }
    }
    println!("\n{title}: against {}, in turn; and the middle half of {ROUNDS} rounds", scenes[0].0);
    for (((name, _), total), ratios) in scenes.iter().zip(&totals).zip(&mut ratios) {
        ratios.sort_by(f64::total_cmp);
        let part = |quarters: usize| ratios[ROUNDS * quarters / 4];
        println!("{name:>6}: {:.3} ({:.3} to {:.3})", total / totals[0], part(1), part(3));
    }
    println!();
}
