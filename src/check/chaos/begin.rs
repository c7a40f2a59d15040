//! How a run begins: reactors, conversations, and what the weather does to them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::draw;
use super::plan::{Kind, Nowhere, Weather};
use super::run::Run;
use super::side::Side;
use super::stop::Stopping;
use crate::error::LookupCause;
use crate::options::{Listen, Stop};
use crate::reactor::Reactor;
use crate::sim::{Host, Network, Play, Reach, Row};
use crate::target::Target;

/// The machines: servers of ours, clients of ours if they have one of their own, and scripted peers.
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const ABROAD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub(super) const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
/// Addresses that lead nowhere.
const DEAD: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2))];
/// Where the scripted servers listen; a conversation adds its number.
const PORT: u16 = 7000;

pub(super) fn reactors(network: &Network, two: bool) -> [Option<Reactor<Host>>; 2] {
    let servers = Reactor::with_net(network.host(HOME));
    [Some(servers), two.then(|| Reactor::with_net(network.host(ABROAD)))]
}

impl Run {
    pub(super) fn begin(&mut self, number: usize, kind: &Kind) {
        match kind {
            Kind::Both => {
                if let Some(addr) = self.listen(number) {
                    self.connect(number, addr);
                }
            }
            Kind::PeerClient(script) => {
                let Some(addr) = self.listen_or_share(number) else { return };
                let play = self.book.network.peer(AWAY).play(addr, script.clone()).ok();
                self.book.conversations[number].client = play.as_ref().and_then(Play::local_addr);
                self.book.conversations[number].play = play;
            }
            Kind::PeerServer(script) => {
                let addr = SocketAddr::new(AWAY, PORT + number as u16);
                let backlog = Listen::default().backlog(1);
                let Ok(listener) = self.book.network.peer(AWAY).listen_with(addr, &backlog) else { return };
                let conversation = &mut self.book.conversations[number];
                conversation.play = script.clone().map(|script| listener.play(script));
                conversation.peer = Some(listener);
                self.connect(number, addr);
            }
            Kind::Nowhere(nowhere) => self.connect_nowhere(number, *nowhere),
        }
    }

    /// A server of ours. A listener may be refused a descriptor, as anything may.
    fn listen(&mut self, number: usize) -> Option<SocketAddr> {
        let options = draw::listen(&mut self.book.rng, &self.book.plan);
        let limit = options.max_connections.map(|most| (most, options.excess));
        let listener = self.reactors[0].as_mut()?.listen((HOME, 0), options).ok()?;
        self.book.limits.extend(limit.map(|limit| (listener.id, limit)));
        self.book.conversations[number].listener = Some((0, listener));
        Some(listener.addr)
    }

    /// A listener of its own, or the one before it as well: several clients in one queue.
    fn listen_or_share(&mut self, number: usize) -> Option<SocketAddr> {
        let before = number.checked_sub(1).and_then(|before| self.book.conversations[before].listener);
        if before.is_none() || !self.book.rng.chance(0.6) {
            return self.listen(number);
        }
        self.book.conversations[number].listener = before;
        before.map(|(_, listener)| listener.addr)
    }

    /// A client of ours.
    fn connect(&mut self, number: usize, target: impl Into<Target>) {
        let options = draw::connect(&mut self.book.rng, &self.book.plan);
        let host = usize::from(self.book.plan.two_reactors);
        let now = self.book.now();
        let Some(reactor) = &mut self.reactors[host] else { return };
        let Ok(id) = reactor.connect(target.into(), options) else { return };
        let Some(mut socket) = reactor.socket(id) else { return };
        let mut side = Side::new(host as u32, (number, true), &socket, now);
        match self.book.rng.below(40) {
            0 | 1 => side.end(&mut socket, now),
            2 => side.destroy(&mut socket),
            _ => {}
        }
        if side.has_ended || side.is_destroyed {
            let what =
                if side.has_ended { "  ends before it is connected" } else { "  destroys before it is connected" };
            self.book.note_line(side.stream, what.to_owned());
            self.book.network.mark(Row::EndedBeforeConnected);
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
            | Nowhere::Name { .. } => Reach::Open,
        };
        network.set_reach(DEAD[0], reach);
        let to_name = |run: &mut Self, name: &str| {
            run.connect(number, (name, PORT));
        };
        match nowhere {
            Nowhere::UnknownName => to_name(self, "unknown.example"),
            Nowhere::FailingName => {
                network.name_fails(&name, LookupCause::TryAgain);
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
            Nowhere::Name { dead, alive } => {
                network.set_reach(DEAD[1], Reach::BlackHole);
                let mut ips = DEAD[..usize::from(dead)].to_vec();
                ips.extend(alive.then_some(HOME));
                network.name(&name, ips);
                if alive && let Some(addr) = self.listen(number) {
                    network.mark(Row::FirstAddressDead);
                    self.connect(number, (name.as_str(), addr.port()));
                } else {
                    network.mark(Row::AllAddressesFail);
                    to_name(self, &name);
                }
            }
            Nowhere::DeadPort | Nowhere::BlackHole | Nowhere::Unreachable | Nowhere::NoRoute | Nowhere::Prohibited => {
                self.connect(number, SocketAddr::new(DEAD[0], PORT))
            }
        }
    }

    pub(super) fn weather(&mut self, weather: Weather) {
        let network = &self.book.network;
        let text = match weather {
            Weather::Vanish => {
                network.vanish(AWAY);
                "the peers' machine vanishes"
            }
            Weather::Return => {
                network.heal(AWAY);
                "the peers' machine is back"
            }
            Weather::Forget => {
                network.forget(AWAY);
                "the peers' machine forgets its connections"
            }
            Weather::Stop { grace, limit } => {
                self.stop_one(grace, limit);
                "a listener stops"
            }
            Weather::Abort => {
                self.abort_one();
                "a connection is ended from outside"
            }
        };
        self.book.weather(text);
    }

    /// The first listener of ours stops, and with it its sockets.
    fn stop_one(&mut self, grace: Option<Duration>, limit: Option<Duration>) {
        let at = self.book.now();
        let mut listeners = self.book.conversations.iter().filter_map(|conversation| conversation.listener);
        let Some((host, listener)) = listeners.next() else { return };
        let Some(reactor) = &mut self.reactors[host] else { return };
        if reactor.stop_listener(listener.id, Stop::default().grace(grace).limit(limit)).is_err() {
            return; // It has stopped already.
        }
        let nanos = |time: Duration| time.as_nanos() as u64;
        let stop = Stopping { at, grace: grace.map(nanos), limit: limit.map(nanos) };
        self.book.stops.push((listener.id, stop));
        for side in self.book.sides.iter_mut().filter(|side| side.listener == Some(listener.id)) {
            side.stop = Some(stop);
        }
    }

    fn abort_one(&mut self) {
        for side in &self.book.sides {
            let Some(reactor) = &mut self.reactors[side.host as usize] else { continue };
            let remote = reactor.socket(side.id).and_then(|socket| socket.peer_addr());
            let (Some(local), Some(remote)) = (reactor.local_addr(side.id), remote) else { continue };
            if self.book.network.abort(local, remote) {
                return;
            }
        }
    }
}
