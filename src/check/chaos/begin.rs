//! How a run begins: reactors and conversations.

use std::net::{IpAddr, SocketAddr};

use super::draw;
use super::plan::{Kind, Nowhere, Plan};
use super::run::{Run, What};
use super::run_state::{Acted, Door};
use super::socket_model::Side;
use super::topology::{self, PORT, Way};
use crate::error::LookupErrorKind;
use crate::options::ListenOptions;
use crate::reactor::Reactor;
use crate::sim::script::Step;
use crate::sim::{Fault, Host, Network, PeerListener, Reach, Script};
use crate::target::Target;

pub(super) fn reactors(network: &Network, plan: &Plan) -> [Option<Reactor<Host>>; 2] {
    let servers = Reactor::with_net(network.host(plan.machines.home));
    [Some(servers), plan.two_reactors.then(|| Reactor::with_net(network.host(plan.machines.abroad)))]
}

impl Run {
    pub(super) fn begin(&mut self, number: usize, kind: &Kind) {
        match kind {
            Kind::Both => {
                if let Some(target) = self.listen(number) {
                    self.connect(number, target);
                }
            }
            Kind::PeerClient(script) => {
                if let Some(target) = self.listen_or_share(number) {
                    self.peer_connects(number, &target, script);
                }
            }
            Kind::PeerServer(script) => {
                if let Some(target) = script.as_ref().and_then(|script| self.race(number, script)) {
                    return self.connect(number, target);
                }
                let way = self.book.plan.ways[number];
                let Some((listener, target)) = self.peer_listens(number, way, self.clients_host()) else { return };
                let play = script.as_ref().map(|script| listener.play(self.playable(way, script)));
                let conversation = &mut self.book.conversations[number];
                conversation.plays.extend(play.map(|play| Acted { play, is_client: false }));
                conversation.peer = Some(listener);
                self.connect(number, target);
            }
            Kind::FullQueue { room_after, .. } => {
                let way = self.book.plan.ways[number];
                let Some((listener, target)) = self.peer_listens(number, way, self.clients_host()) else { return };
                if let Target::Unix(addr) = &target {
                    let peer = self.book.network.peer(self.peers_machine(way, self.clients_host()));
                    // One more than the backlog says: the queue is full.
                    for _ in 0..2 {
                        let _ = peer.connect_unix(addr);
                    }
                }
                self.book.conversations[number].peer = Some(listener);
                if let Some(after) = room_after {
                    self.set_task(*after, What::Room(number));
                }
                self.connect(number, target);
            }
            Kind::Proxy(proxy) => self.begin_proxy(number, proxy),
            Kind::Pool(borrowers) => self.begin_pool(number, borrowers),
            Kind::Nowhere(nowhere) => self.connect_nowhere(number, *nowhere),
        }
    }

    /// The machine of a conversation's scripted peer, whose other side is in this reactor.
    fn peers_machine(&self, way: Way, host: usize) -> IpAddr {
        let machines = &self.book.plan.machines;
        match way {
            Way::Network => machines.away,
            Way::Loopback { .. } | Way::Unix { .. } => machines.of_host(host),
        }
    }

    /// A script on its conversation's way: a peer on a machine of ours does not take that with it.
    pub(super) fn playable(&self, way: Way, script: &Script) -> Script {
        let mut script = script.clone();
        if way != Way::Network {
            script.steps.retain(|step| *step != Step::Vanish);
        }
        script
    }

    pub(super) fn clients_host(&self) -> usize {
        usize::from(self.book.plan.two_reactors)
    }

    /// A server that is none of ours.
    pub(super) fn peer_listens(&self, number: usize, way: Way, host: usize) -> Option<(PeerListener, Target)> {
        let machine = self.peers_machine(way, host);
        let peer = self.book.network.peer(machine);
        let backlog = ListenOptions::default().backlog(1);
        let port = PORT + number as u16;
        match way {
            Way::Network => {
                let addr = SocketAddr::new(machine, port);
                Some((peer.listen_with(addr, &backlog).ok()?, addr.into()))
            }
            Way::Loopback { is_ipv6 } => {
                let addr = SocketAddr::new(topology::loopback(is_ipv6), port);
                Some((peer.listen_with(addr, &backlog).ok()?, addr.into()))
            }
            Way::Unix { is_file } => {
                let addr = topology::unix(number, is_file);
                Some((peer.listen_unix(&addr, &backlog).ok()?, Target::Unix(addr)))
            }
        }
    }

    /// There is room again in the queue of a server that had none: those before our client are
    /// gone.
    pub(super) fn make_room(&mut self, number: usize) {
        let script = match &self.book.plan.conversations[number] {
            Kind::FullQueue { script, .. } => self.playable(self.book.plan.ways[number], script),
            _ => Script::new(),
        };
        let conversation = &mut self.book.conversations[number];
        let Some(listener) = &conversation.peer else { return };
        for _ in 0..2 {
            if let Some(before) = listener.accept() {
                before.close();
            }
        }
        let play = listener.play(script);
        conversation.plays.push(Acted { play, is_client: false });
        // A SYN is sent again when its timer comes, and may be lost; nothing comes between a Unix
        // client and its server.
        let is_unix = matches!(self.book.plan.ways[number], Way::Unix { .. });
        let room_at = is_unix.then(|| self.book.now());
        self.book.sides.iter_mut().filter(|side| side.stream.0 == number).for_each(|side| side.room_at = room_at);
        self.book.weather("there is room in a full queue");
    }

    /// A client that is none of ours.
    pub(super) fn peer_connects(&mut self, number: usize, target: &Target, script: &Script) {
        let way = self.book.plan.ways[number];
        let peer = self.book.network.peer(self.peers_machine(way, 0));
        let script = self.playable(way, script);
        let play = match target {
            Target::Unix(addr) => peer.play_unix(addr, script).ok(),
            other => other.addr().and_then(|addr| peer.play(addr, script).ok()),
        };
        let acted = play.map(|play| Acted { play, is_client: true });
        self.book.conversations[number].plays.extend(acted);
    }

    /// A server of ours, with what clients need to know.
    fn listen(&mut self, number: usize) -> Option<Target> {
        let options = draw::listen(&mut self.book.rng, &self.book.plan);
        let door = self.open_door(number, self.book.plan.ways[number], options)?;
        self.book.conversations[number].listener = Some(door.clone());
        Some(door.target)
    }

    /// A listener may be refused a descriptor, as anything may.
    pub(super) fn open_door(&mut self, number: usize, way: Way, options: ListenOptions) -> Option<Door> {
        let limit = options.max_connections.map(|most| (most, options.overflow_policy));
        let home = self.book.plan.machines.home;
        let reactor = self.reactors[0].as_mut()?;
        let (id, target): (_, Target) = match way {
            Way::Unix { is_file } => {
                let target = Target::Unix(topology::unix(number, is_file));
                (reactor.listen(target.clone(), options).ok()?.id, target)
            }
            way => {
                let ip = if let Way::Loopback { is_ipv6 } = way { topology::loopback(is_ipv6) } else { home };
                let listener = reactor.listen((ip, 0), options).ok()?;
                (listener.id, listener.addr.try_into().ok()?)
            }
        };
        self.book.limits.extend(limit.map(|limit| (id, limit)));
        Some(Door { host: 0, id, target })
    }

    /// A listener of its own, or the one before it as well: several clients in one queue.
    fn listen_or_share(&mut self, number: usize) -> Option<Target> {
        let ways = &self.book.plan.ways;
        let before = number.checked_sub(1).filter(|before| ways[*before] == ways[number]);
        let before = before.and_then(|before| self.book.conversations[before].listener.clone());
        if before.is_none() || !self.book.rng.chance(0.6) {
            return self.listen(number);
        }
        self.book.conversations[number].listener = before.clone();
        before.map(|door| door.target)
    }

    /// A client of ours.
    pub(super) fn connect(&mut self, number: usize, target: impl Into<Target>) {
        let mut options = draw::connect(&mut self.book.rng, &self.book.plan);
        if let Some(race) = &self.book.plan.races[number] {
            options = options.attempt_delay(race.delay);
        }
        let host = self.clients_host();
        let (now, total_ms) = (self.book.now(), options.total_ms);
        let Some(reactor) = &mut self.reactors[host] else { return };
        let Ok(id) = reactor.connect(target.into(), options) else { return };
        let Some(mut socket) = reactor.socket(id) else { return };
        let mut side = Side::new(host as u32, (number, true), &socket, now);
        side.deadline = total_ms.map(|ms| now + ms * 1_000_000);
        match self.book.rng.below(40) {
            0 | 1 => side.end(&mut socket, now),
            2 => side.destroy(&mut socket),
            _ => {}
        }
        if side.end_called || side.destroy_called {
            let what =
                if side.end_called { "  ends before it is connected" } else { "  destroys before it is connected" };
            self.book.note_line(side.label(), what.to_owned());
            self.book.network.mark(Fault::EndedBeforeConnected);
        }
        self.book.sides.push(side);
    }

    fn connect_nowhere(&mut self, number: usize, nowhere: Nowhere) {
        let network = self.book.network.clone();
        let name = format!("host{number}.example");
        let reach = match nowhere {
            Nowhere::BlackHole => Reach::BlackHole,
            Nowhere::Unreachable => Reach::Unreachable,
            Nowhere::NoRoute => Reach::NoRoute,
            Nowhere::Prohibited => Reach::Prohibited,
            Nowhere::DeadPort
            | Nowhere::UnknownName
            | Nowhere::FailingName
            | Nowhere::HangingName
            | Nowhere::EmptyName
            | Nowhere::NoFile { .. }
            | Nowhere::Name { .. } => Reach::Open,
        };
        let dead = self.book.plan.machines.dead;
        network.set_reach(dead[0], reach);
        let to_name = |run: &mut Self, name: &str| {
            run.connect(number, Target::Name { host: name.into(), port: PORT });
        };
        match nowhere {
            Nowhere::UnknownName => to_name(self, "unknown.example"),
            Nowhere::FailingName => {
                network.name_fails(&name, LookupErrorKind::TryAgain);
                to_name(self, &name);
            }
            Nowhere::HangingName => {
                network.name_hangs(&name);
                to_name(self, &name);
            }
            Nowhere::EmptyName => {
                network.name(&name, Vec::new());
                to_name(self, &name);
            }
            Nowhere::Name { dead: count, alive } => {
                network.set_reach(dead[1], Reach::BlackHole);
                let mut ips = dead[..usize::from(count)].to_vec();
                ips.extend(alive.then_some(self.book.plan.machines.home));
                network.name(&name, ips);
                self.book.plan.ways[number] = Way::Network;
                if alive && let Some(addr) = self.listen(number).and_then(|target| target.addr()) {
                    network.mark(Fault::FirstAddressDead);
                    self.connect(number, Target::Name { host: name.into(), port: addr.port() });
                } else {
                    network.mark(Fault::AllAddressesFail);
                    to_name(self, &name);
                }
            }
            Nowhere::NoFile { is_file } => self.connect(number, Target::Unix(topology::unix(99, is_file))),
            Nowhere::DeadPort | Nowhere::BlackHole | Nowhere::Unreachable | Nowhere::NoRoute | Nowhere::Prohibited => {
                self.connect(number, SocketAddr::new(dead[0], PORT))
            }
        }
    }
}
