//! Random programs that make every call of a socket, with an audit after each event.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::event::Event;
use crate::id::{ListenerId, SocketId};
use crate::options::{CloseMode, ConnectOptions, ListenOptions, StopOptions};
use crate::sim::{Faults, Host, Network, Rng};
use crate::socket::Socket;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn act(rng: &mut Rng, socket: &mut Socket<'_>, ids: &[SocketId]) {
    let on = rng.chance(0.5);
    let time = Duration::from_millis(rng.below(3_000));
    let time = Some(time).filter(|_| rng.chance(0.7));
    let size = [10, 3_000, 100_000][rng.below(3) as usize];
    let some = 1 + rng.below(size) as usize;
    let any = if ids.is_empty() { None } else { Some(ids[rng.below(ids.len() as u64) as usize]) };
    match rng.below(44) {
        0..=5 => drop(socket.write(&vec![7; some])),
        6..=8 => drop(socket.write_owned(vec![7; some])),
        9 => socket.end(),
        10 if rng.chance(0.2) => socket.destroy(),
        11 | 12 => socket.pause(),
        13..=15 => socket.resume(),
        16 | 17 => socket.hold(),
        18..=20 => socket.release(),
        21 if rng.chance(0.3) => socket.discard(),
        22 => socket.set_idle_timeout(time),
        23 => socket.set_deadline(time.map(|time| 10 * time)),
        24 => drop(socket.request_drain()),
        25 => socket.set_low_water_mark(some),
        26 => socket.set_allow_half_open(on),
        27 => socket.set_close_mode(if on { CloseMode::HandOff } else { CloseMode::Confirmed }),
        28 => socket.set_nodelay(on),
        29..=32 => drop(socket.fill(vec![1; rng.below(3) as usize], some)),
        33..=35 => socket.splice_next(),
        36 | 37 => drop(any.map(|any| socket.forward(any))),
        38 => socket.set_farewell(on),
        39 => socket.set_answered(),
        40 => socket.postpone_farewell(),
        41 => drop(socket.take_filled()),
        42 if rng.chance(0.3) => socket.set_peer_finished(),
        43 if rng.chance(0.3) => socket.discard_late(),
        _ => {}
    }
}

/// A reactor with a listener, and connections to it from itself.
struct Program {
    seed: u64,
    rng: Rng,
    network: Network,
    reactor: Reactor<Host>,
    listener: ListenerId,
    ids: Vec<SocketId>,
    left: u64,
    is_stopped: bool,
}

impl Program {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let network = Network::new(rng.next_u64());
        if rng.chance(0.5) {
            let mut bytes = || 2_000 + rng.below(60_000) as usize;
            network.set_buffers(bytes(), bytes());
        }
        if rng.chance(0.6) {
            network.set_faults(Faults::random(&mut rng));
        }
        let mut reactor = Reactor::with_net(network.host(HERE));
        let options = ListenOptions::default().notify_peer_ended(rng.chance(0.3)).start_paused(rng.chance(0.3));
        let listener = reactor.listen((HERE, 80), options).expect("a free port").id;
        let left = 1 + rng.below(5);
        Self { seed, rng, network, reactor, listener, ids: Vec::new(), left, is_stopped: false }
    }

    fn audit(&mut self, what: &str) {
        if let Err(broken) = self.reactor.audit() {
            panic!("seed {}, {what}: {broken}", self.seed);
        }
    }

    /// Connects, or stops the listener, sometimes.
    fn begin(&mut self) {
        if self.left > 0 && self.rng.chance(0.2) {
            self.left -= 1;
            self.ids.push(self.reactor.connect((HERE, 80), ConnectOptions::default()).expect("an address"));
        }
        if !self.is_stopped && self.rng.chance(0.005) {
            self.is_stopped = true;
            let grace = Some(Duration::from_millis(self.rng.below(2_000))).filter(|_| self.rng.chance(0.8));
            let spread = Duration::from_millis(self.rng.below(2) * self.rng.below(5_000));
            let stop = StopOptions::default().grace(grace).spread(spread);
            self.reactor.stop_listener(self.listener, stop).expect("open");
        }
    }

    /// Handles an event, with some calls on its socket, and calls on another one.
    fn step(&mut self) {
        let Self { rng, ids, .. } = self;
        let until = self.network.now() + Duration::from_millis(rng.below(300));
        let mut name = "no event".to_owned();
        if let Some((mut socket, event)) = self.reactor.next_before(until).expect("it continues") {
            name = event.to_string();
            if matches!(event, Event::Close(_)) {
                ids.retain(|id| *id != socket.id());
            } else if event.is_socket_event() && !ids.contains(&socket.id()) {
                ids.push(socket.id());
            }
            let sink = ids.get(rng.below(ids.len().max(1) as u64) as usize);
            if let Some(sink) = sink.filter(|_| matches!(event, Event::Spliced(_)) && rng.chance(0.7)) {
                let _ = socket.forward(*sink);
            }
            (0..rng.below(4)).for_each(|_| act(rng, &mut socket, ids));
        }
        let other = ids.get(rng.below(ids.len().max(1) as u64) as usize).copied();
        if let Some(mut other) = other.and_then(|other| self.reactor.socket(other)) {
            act(rng, &mut other, ids);
        }
        self.audit(&name);
    }

    /// Everything can end, and nothing is left.
    fn end(mut self) {
        self.network.set_faults(Faults::none());
        if !self.is_stopped {
            self.reactor.close_listener(self.listener).expect("open");
        }
        let limit = self.network.now() + Duration::from_secs(100);
        while !self.reactor.is_empty() {
            for id in self.reactor.sockets().iter().map(|socket| socket.id).collect::<Vec<_>>() {
                let socket = self.reactor.socket(id).filter(|socket| socket.is_paused() || !socket.end_called());
                socket.into_iter().for_each(|mut socket| {
                    socket.end();
                    socket.discard();
                });
            }
            let _ = self.reactor.next_before(self.network.now() + Duration::from_millis(500)).expect("it continues");
            self.audit("the end");
            assert!(self.network.now() < limit, "seed {}:\n{}", self.seed, self.reactor.sockets());
        }
        let until = self.network.now() + Duration::from_secs(1);
        while self.reactor.next_before(until).expect("it continues").is_some() {}
        assert_eq!(self.reactor.left_over(), None, "seed {}", self.seed);
    }
}

#[test]
fn a_program_that_makes_any_call_at_any_time_leaves_every_rule_whole() {
    for seed in 0..200 {
        let mut program = Program::new(seed);
        for _ in 0..300 {
            program.begin();
            program.step();
        }
        program.end();
    }
}
