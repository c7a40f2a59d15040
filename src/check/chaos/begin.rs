//! Opens the reactors, and begins each conversation.

use std::net::{IpAddr, SocketAddr};

use super::draw;
use super::plan::{BadTarget, Kind, Plan};
use super::run::{Run, TaskKind};
use super::run_state::{OpenListener, ScriptedPeer};
use super::socket_model::SocketModel;
use super::topology::{self, PORT, Transport};
use crate::error::LookupErrorKind;
use crate::options::ListenOptions;
use crate::reactor::Reactor;
use crate::sim::script::Step;
use crate::sim::{Fault, Host, Network, PeerListener, Reach, Script};
use crate::target::Target;

pub(super) fn reactors(network: &Network, plan: &Plan) -> [Option<Reactor<Host>>; 2] {
    let reactor = |at| {
        let mut reactor = Reactor::with_net(network.host(at));
        let resized = plan.receive_bytes.map(|bytes| reactor.set_receive_buffer(bytes));
        debug_assert!(resized.is_none_or(|resized| resized.is_ok()), "a size that is allowed");
        reactor
    };
    [Some(reactor(plan.machines.servers)), plan.two_reactors.then(|| reactor(plan.machines.clients))]
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
                let transport = self.state.plan.transports[number];
                let Some((listener, target)) = self.peer_listens(number, transport, self.clients_host()) else {
                    return;
                };
                let play = script.as_ref().map(|script| listener.play(self.playable(transport, script)));
                let conversation = &mut self.state.conversations[number];
                conversation.scripted_peers.extend(play.map(|play| ScriptedPeer { play, is_client: false }));
                conversation.peer = Some(listener);
                self.connect(number, target);
            }
            Kind::FullQueue { room_after, .. } => {
                let transport = self.state.plan.transports[number];
                let Some((listener, target)) = self.peer_listens(number, transport, self.clients_host()) else {
                    return;
                };
                if let Target::Unix(addr) = &target {
                    let peer = self.state.network.peer(self.peers_machine(transport, self.clients_host()));
                    // The backlog plus one: the queue is full.
                    for _ in 0..2 {
                        let _ = peer.connect_unix(addr);
                    }
                }
                self.state.conversations[number].peer = Some(listener);
                if let Some(after) = room_after {
                    self.set_task(*after, TaskKind::MakeRoom(number));
                }
                self.connect(number, target);
            }
            Kind::Proxy(proxy) => self.begin_proxy(number, proxy),
            Kind::Pool(users) => self.begin_pool(number, users),
            Kind::BadTarget(bad_target) => self.connect_bad_target(number, *bad_target),
        }
    }

    /// The machine of a conversation's scripted peer. `host` is the reactor of the other end.
    fn peers_machine(&self, transport: Transport, host: usize) -> IpAddr {
        let machines = &self.state.plan.machines;
        match transport {
            Transport::Network => machines.peers,
            Transport::Loopback { .. } | Transport::Unix { .. } => machines.of_host(host),
        }
    }

    /// The script as the transport allows it: a peer on one of finale's machines can't vanish,
    /// since the machine would vanish with it.
    pub(super) fn playable(&self, transport: Transport, script: &Script) -> Script {
        let mut script = script.clone();
        if transport != Transport::Network {
            script.steps.retain(|step| *step != Step::Vanish);
        }
        script
    }

    pub(super) fn clients_host(&self) -> usize {
        usize::from(self.state.plan.two_reactors)
    }

    /// A scripted server.
    pub(super) fn peer_listens(
        &self,
        number: usize,
        transport: Transport,
        host: usize,
    ) -> Option<(PeerListener, Target)> {
        let machine = self.peers_machine(transport, host);
        let peer = self.state.network.peer(machine);
        let backlog = ListenOptions::default().backlog(1);
        let port = PORT + number as u16;
        match transport {
            Transport::Network => {
                let addr = SocketAddr::new(machine, port);
                Some((peer.listen_with(addr, &backlog).ok()?, addr.into()))
            }
            Transport::Loopback { is_ipv6 } => {
                let addr = SocketAddr::new(topology::loopback(is_ipv6), port);
                Some((peer.listen_with(addr, &backlog).ok()?, addr.into()))
            }
            Transport::Unix { is_file } => {
                let addr = topology::unix(number, is_file);
                Some((peer.listen_unix(&addr, &backlog).ok()?, Target::Unix(addr)))
            }
        }
    }

    /// Accepts and closes the clients that fill the queue of a scripted server, so that there is
    /// room.
    pub(super) fn make_room(&mut self, number: usize) {
        let script = match &self.state.plan.conversations[number] {
            Kind::FullQueue { script, .. } => self.playable(self.state.plan.transports[number], script),
            _ => Script::new(),
        };
        let conversation = &mut self.state.conversations[number];
        let Some(listener) = &conversation.peer else { return };
        for _ in 0..2 {
            if let Some(before) = listener.accept() {
                before.close();
            }
        }
        let play = listener.play(script);
        conversation.scripted_peers.push(ScriptedPeer { play, is_client: false });
        // A SYN is repeated by a timer and can be lost. A connect to a Unix domain socket has no
        // such delay.
        let is_unix = matches!(self.state.plan.transports[number], Transport::Unix { .. });
        let room_at = is_unix.then(|| self.state.now());
        self.state.models.iter_mut().filter(|model| model.stream.0 == number).for_each(|model| model.room_at = room_at);
        self.state.note_both("a full queue has room again");
    }

    /// A scripted client.
    pub(super) fn peer_connects(&mut self, number: usize, target: &Target, script: &Script) {
        let transport = self.state.plan.transports[number];
        let peer = self.state.network.peer(self.peers_machine(transport, 0));
        let script = self.playable(transport, script);
        let play = match target {
            Target::Unix(addr) => peer.play_unix(addr, script).ok(),
            other => other.addr().and_then(|addr| peer.play(addr, script).ok()),
        };
        let scripted = play.map(|play| ScriptedPeer { play, is_client: true });
        self.state.conversations[number].scripted_peers.extend(scripted);
    }

    /// A server on finale. Returns the address for its clients.
    fn listen(&mut self, number: usize) -> Option<Target> {
        let options = draw::listen(&mut self.state.rng, &self.state.plan);
        let opened = self.open_listener(number, self.state.plan.transports[number], options)?;
        self.state.conversations[number].listener = Some(opened.clone());
        Some(opened.target)
    }

    /// `None` if a fault refuses the listener.
    pub(super) fn open_listener(
        &mut self,
        number: usize,
        transport: Transport,
        options: ListenOptions,
    ) -> Option<OpenListener> {
        let limit = options.max_connections.map(|most| (most, options.overflow_policy));
        let servers = self.state.plan.machines.servers;
        let reactor = self.reactors[0].as_mut()?;
        let (id, target): (_, Target) = match transport {
            Transport::Unix { is_file } => {
                let target = Target::Unix(topology::unix(number, is_file));
                (reactor.listen(target.clone(), options).ok()?.id, target)
            }
            transport => {
                let ip =
                    if let Transport::Loopback { is_ipv6 } = transport { topology::loopback(is_ipv6) } else { servers };
                let listener = reactor.listen((ip, 0), options).ok()?;
                (listener.id, listener.addr.try_into().ok()?)
            }
        };
        self.state.limits.extend(limit.map(|limit| (id, limit)));
        Some(OpenListener { host: 0, id, target })
    }

    /// Its own listener, or that of the conversation before it, so that several clients share a
    /// queue.
    fn listen_or_share(&mut self, number: usize) -> Option<Target> {
        let transports = &self.state.plan.transports;
        let before = number.checked_sub(1).filter(|before| transports[*before] == transports[number]);
        let before = before.and_then(|before| self.state.conversations[before].listener.clone());
        if before.is_none() || !self.state.rng.chance(0.6) {
            return self.listen(number);
        }
        self.state.conversations[number].listener = before.clone();
        before.map(|opened| opened.target)
    }

    /// A client on finale.
    pub(super) fn connect(&mut self, number: usize, target: impl Into<Target>) {
        let mut options = draw::connect(&mut self.state.rng, &self.state.plan);
        if let Some(race) = &self.state.plan.races[number] {
            options = options.attempt_delay(race.delay);
        }
        let host = self.clients_host();
        let (now, total_ms) = (self.state.now(), options.total_ms);
        let Some(reactor) = &mut self.reactors[host] else { return };
        let target = target.into();
        let addrs = self.state.network.addresses(&target);
        let Ok(id) = reactor.connect(target, options) else { return };
        let Some(mut socket) = reactor.socket(id) else { return };
        let mut model = SocketModel::new(host as u32, (number, true), &socket, now);
        (model.addrs, model.deadline) = (addrs, total_ms.map(|ms| now + ms * 1_000_000));
        match self.state.rng.below(40) {
            0 | 1 => model.end(&mut socket, now),
            2 => model.destroy(&mut socket),
            _ => {}
        }
        if model.end_called || model.destroy_called {
            let what =
                if model.end_called { "  ends before it is connected" } else { "  destroys before it is connected" };
            self.state.note_line(model.label(), what.to_owned());
            self.state.network.mark(Fault::EndedBeforeConnected);
        }
        self.state.models.push(model);
    }

    fn connect_bad_target(&mut self, number: usize, bad_target: BadTarget) {
        let network = self.state.network.clone();
        let name = format!("host{number}.example");
        let reach = match bad_target {
            BadTarget::BlackHole => Reach::BlackHole,
            BadTarget::Unreachable => Reach::Unreachable,
            BadTarget::NoRoute => Reach::NoRoute,
            BadTarget::Prohibited => Reach::Prohibited,
            BadTarget::DeadPort
            | BadTarget::UnknownName
            | BadTarget::FailingName
            | BadTarget::HangingName
            | BadTarget::EmptyName
            | BadTarget::NoFile { .. }
            | BadTarget::Name { .. } => Reach::Open,
        };
        let dead = self.state.plan.machines.dead;
        network.set_reach(dead[0], reach);
        let to_name = |run: &mut Self, name: &str| {
            run.connect(number, Target::Name { host: name.into(), port: PORT });
        };
        match bad_target {
            BadTarget::UnknownName => to_name(self, "unknown.example"),
            BadTarget::FailingName => {
                network.name_fails(&name, LookupErrorKind::TryAgain);
                to_name(self, &name);
            }
            BadTarget::HangingName => {
                network.name_hangs(&name);
                to_name(self, &name);
            }
            BadTarget::EmptyName => {
                network.name(&name, Vec::new());
                to_name(self, &name);
            }
            BadTarget::Name { dead: count, alive } => {
                network.set_reach(dead[1], Reach::BlackHole);
                let mut ips = dead[..usize::from(count)].to_vec();
                ips.extend(alive.then_some(self.state.plan.machines.servers));
                network.name(&name, ips);
                self.state.plan.transports[number] = Transport::Network;
                if alive && let Some(addr) = self.listen(number).and_then(|target| target.addr()) {
                    network.mark(Fault::FirstAddressDead);
                    self.connect(number, Target::Name { host: name.into(), port: addr.port() });
                } else {
                    network.mark(Fault::AllAddressesFail);
                    to_name(self, &name);
                }
            }
            BadTarget::NoFile { is_file } => self.connect(number, Target::Unix(topology::unix(99, is_file))),
            BadTarget::DeadPort
            | BadTarget::BlackHole
            | BadTarget::Unreachable
            | BadTarget::NoRoute
            | BadTarget::Prohibited => self.connect(number, SocketAddr::new(dead[0], PORT)),
        }
    }
}
