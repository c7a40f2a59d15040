//! The network with two of our programs and a scripted one, and how a script is played on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use finale::sim::{Faults, Network, Peer, PeerListener, PeerSocket, Reach, Rng};
use finale::{LookupErrorKind, SocketId, Target, TimerId};

use super::Verdict;
use super::judge::{bytes, check};
use super::op::{Act, At, Call, Op, To, Weather, Who};
use super::program::Program;

/// The scripted program's machine, a machine that never answers, and those of our programs.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 66));
const OURS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];
const PEER: SocketAddr = SocketAddr::new(THERE, 9000);

/// Events of one program after which a run counts as endless.
const EVENTS: usize = 3_000;

pub(crate) struct World {
    network: Network,
    programs: [Program; 2],
    /// Ids of reactors that were dropped.
    old: Vec<SocketId>,
    old_timers: Vec<TimerId>,
    peer: Peer,
    listener: PeerListener,
    actors: Vec<Actor>,
    pub(crate) story: Vec<String>,
}

/// One connection of the scripted program.
struct Actor {
    socket: PeerSocket,
    is_client: bool,
    sent: u64,
    read: u64,
    finished: bool,
    /// The reactor at the other end was dropped without having ended: no FIN may arrive, only a
    /// reset.
    orphaned: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let network = Network::new(seed);
        network.set_buffers(3_000, 3_000);
        let peer = network.peer(THERE);
        network.set_reach(NOWHERE, Reach::BlackHole);
        network.name("peer", vec![THERE]);
        network.name("both", vec![NOWHERE, THERE]);
        network.name("mixed", vec![IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), THERE, NOWHERE, THERE]);
        network.name("empty", Vec::new());
        network.name_hangs("hangs");
        network.name_fails("fails", LookupErrorKind::Failed);
        network.name_fails("again", LookupErrorKind::TryAgain);
        let programs = OURS.map(|ip| Program::new(network.host(ip)));
        let listener = peer.listen(PEER).expect("the first to listen there");
        Self { network, programs, old: vec![], old_timers: vec![], peer, listener, actors: vec![], story: vec![] }
    }

    pub(crate) fn play(&mut self, ops: &[Op]) -> Verdict {
        for op in ops {
            self.story.push(format!("{:?} {op:?}", self.network.elapsed()));
            self.step(op)?;
            for program in &mut self.programs {
                program.check()?;
            }
        }
        self.story.push(format!("{:?} the end", self.network.elapsed()));
        self.finish()
    }

    fn note(&mut self, answer: String) {
        if !answer.is_empty() {
            self.story.push(format!("        {answer}"));
        }
    }

    fn step(&mut self, op: &Op) -> Verdict {
        let network = self.network.clone();
        let answer = match op {
            Op::Run { at, time, events, answer } => return self.run(*at, *time, *events, answer.as_ref()),
            Op::Converse { rounds, answer } => return self.converse(*rounds, answer.as_ref()),
            Op::RunInThePast { at } => {
                let past = network.now().checked_sub(Duration::from_secs(1)).unwrap_or(network.now());
                self.programs[*at].pull(&network, Some(past), None)?.unwrap_or_default()
            }
            Op::Next { at } => return self.next(*at),
            Op::Listen { at, addr, settings } => self.programs[*at].listen(&network, addr, settings)?,
            Op::CloseListener { at, which } => self.programs[*at].close_listener(&network, *which)?,
            Op::Connect { at, to, settings } => {
                let target = self.target(to);
                self.programs[*at].connect(&network, target, settings)?
            }
            Op::Socket { at, who, call } => return self.ask(*at, *who, call),
            Op::LocalAddr { at, who } => {
                let found = self.find(*at, *who).map(|id| self.programs[*at].reactor.local_addr(id));
                format!("{found:?}")
            }
            Op::Map { at, calls } => {
                for (who, call) in calls {
                    let id = self.find(*at, *who);
                    id.map_or(Ok(()), |id| self.programs[*at].map(id, *call))?;
                }
                return Ok(());
            }
            Op::SetTimer { at, after } => self.programs[*at].set_timer(&network, *after)?,
            Op::CancelTimer { at, which, foreign } => return self.cancel_timer(*at, *which, *foreign),
            Op::Remote { at } => {
                let program = &mut self.programs[*at];
                let remote = program.remotes.first().cloned().unwrap_or_else(|| program.reactor.waker());
                program.remotes.push(remote);
                String::new()
            }
            Op::Wake { at, which } => return self.programs[*at].wake(*which),
            Op::DropRemote { at, which } => {
                let remotes = &mut self.programs[*at].remotes;
                let count = remotes.len().max(1);
                remotes.get(which % count).is_some().then(|| remotes.remove(which % count));
                String::new()
            }
            Op::Restart { at } => return self.restart(*at),
            Op::PeerConnects { .. } | Op::PeerAccepts | Op::Peer { .. } => return self.act(op),
            Op::Weather(weather) => return self.weather(*weather),
        };
        self.note(answer);
        Ok(())
    }

    fn foreign(&self, at: At) -> Vec<SocketId> {
        [self.old.clone(), self.programs[1 - at].ids()].concat()
    }

    fn find(&self, at: At, who: Who) -> Option<SocketId> {
        self.programs[at].find(who, &self.foreign(at))
    }

    /// The socket that a result is about, if it is another one.
    fn other(&self, at: At, call: Option<&Call>) -> Option<SocketId> {
        match call {
            Some(Call::Get(who, _)) => self.find(at, *who),
            _ => None,
        }
    }

    fn run(&mut self, at: At, time: Duration, events: usize, answer: Option<&Call>) -> Verdict {
        let until = self.network.now() + time;
        for _ in 0..events {
            let other = self.other(at, answer);
            let answer = answer.map(|call| (call, other));
            let Some(line) = self.programs[at].pull(&self.network, Some(until), answer)? else { break };
            self.story.push(format!("    {:?} {line}", self.network.elapsed()));
            if self.programs[at].has_leaving() {
                self.programs[at].check()?;
                self.check_confirmed(at)?;
            }
        }
        Ok(())
    }

    /// A confirmed close is correct: the peer's kernel has every byte, and our FIN.
    fn check_confirmed(&mut self, at: At) -> Verdict {
        let Some((peer, written)) = self.programs[at].seen.confirmed.take() else { return Ok(()) };
        let is_it = |actor: &&Actor| actor.is_client && actor.socket.local_addr() == Some(peer);
        let Some(actor) = self.actors.iter().find(is_it) else { return Ok(()) };
        let arrived = actor.read + actor.socket.unread_bytes() as u64;
        let wrong = format!("confirmed {written} bytes, and {arrived} have arrived at {:?}", actor.socket);
        check(actor.socket.has_fin() && arrived == written, &wrong)
    }

    fn converse(&mut self, rounds: usize, answer: Option<&Call>) -> Verdict {
        for _ in 0..rounds {
            for at in 0..2 {
                self.run(at, Duration::from_millis(5), 20, answer)?;
            }
            self.actors.iter_mut().try_for_each(Actor::take)?;
        }
        Ok(())
    }

    fn next(&mut self, at: At) -> Verdict {
        let long = self.network.now() + Duration::from_secs(3600);
        let timers = self.programs[at].seen.timers.values();
        if timers.filter(|timer| timer.1).all(|(due, _)| *due > long) {
            // A peer that never reads gets window probes for ever: without a timer the wait would
            // not end.
            self.programs[at].set_timer(&self.network, Duration::from_secs(60))?;
        }
        let line = self.programs[at].pull(&self.network, None, None)?;
        self.note(line.unwrap_or_else(|| "nothing".into()));
        Ok(())
    }

    fn ask(&mut self, at: At, who: Who, call: &Call) -> Verdict {
        let Some(id) = self.find(at, who) else { return Ok(()) };
        let other = self.other(at, Some(call));
        let answer = self.programs[at].ask(id, call, other)?;
        self.note(format!("{id}: {answer}"));
        Ok(())
    }

    fn target(&self, to: &To) -> Result<Target, finale::Error> {
        match to {
            To::Peer => Ok(PEER.into()),
            To::Ours(which) => {
                let open = self.programs.iter().flat_map(|program| &program.seen.listeners).filter(|one| one.is_open);
                let addrs: Vec<SocketAddr> = open.map(|listener| listener.addr).collect();
                let addr = addrs.get(which % addrs.len().max(1)).copied().unwrap_or(PEER);
                Ok(reachable(addr).into())
            }
            To::Text(text) => text.as_str().try_into(),
            To::Pair(host, port) => (*host, *port).try_into(),
        }
    }

    fn cancel_timer(&mut self, at: At, which: usize, foreign: bool) -> Verdict {
        let own = self.programs[at].seen.timers.keys();
        let ids: Vec<TimerId> = if foreign { self.old_timers.clone() } else { own.copied().collect() };
        match ids.iter().rev().nth(which % ids.len().max(1)) {
            Some(id) => self.programs[at].cancel_timer(*id),
            None => Ok(()),
        }
    }

    fn restart(&mut self, at: At) -> Verdict {
        let new = Program::new(self.network.host(OURS[at]));
        let mut old = std::mem::replace(&mut self.programs[at], new);
        let peers = old.peers_before_our_end();
        for actor in self.actors.iter_mut().filter(|actor| actor.is_client) {
            actor.orphaned |= actor.socket.local_addr().is_some_and(|addr| peers.contains(&addr));
        }
        self.old.extend(old.ids());
        self.old_timers.extend(old.seen.timers.keys());
        let remotes = std::mem::take(&mut old.remotes);
        drop(old);
        for remote in remotes {
            check(remote.clone().wake() == Err(finale::Error::ReactorGone), "the reactor is gone")?;
        }
        Ok(())
    }

    // --- the scripted program ---

    fn act(&mut self, op: &Op) -> Verdict {
        match op {
            Op::PeerConnects { to } => {
                if let Ok(Target::Addr(addr)) = self.target(&To::Ours(*to))
                    && let Ok(socket) = self.peer.connect(addr)
                {
                    // Every machine has its own loopback: there it may connect to itself, and would
                    // read its own bytes.
                    if socket.local_addr() == Some(addr) {
                        socket.reset();
                        return Ok(());
                    }
                    self.actors.push(Actor {
                        socket,
                        is_client: true,
                        sent: 0,
                        read: 0,
                        finished: false,
                        orphaned: false,
                    });
                }
            }
            Op::PeerAccepts => {
                let accepted = self.listener.accept();
                let new =
                    |socket| Actor { socket, is_client: false, sent: 0, read: 0, finished: false, orphaned: false };
                self.actors.extend(accepted.map(new));
            }
            Op::Peer { which, act } => {
                let count = self.actors.len();
                if count > 0 {
                    self.actor(count - 1 - which % count, *act)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn actor(&mut self, index: usize, act: Act) -> Verdict {
        let actor = &mut self.actors[index];
        match act {
            Act::Read => actor.take()?,
            Act::Send(count) => {
                actor.socket.send(&bytes(actor.is_client, actor.sent, count));
                actor.sent += if actor.finished { 0 } else { count as u64 };
            }
            Act::Finish => {
                actor.socket.finish();
                actor.finished = true;
            }
            Act::Urgent => actor.socket.send_urgent(),
            Act::Close => self.actors.remove(index).socket.close(),
            Act::Reset => self.actors.remove(index).socket.reset(),
        }
        Ok(())
    }

    fn weather(&mut self, weather: Weather) -> Verdict {
        let network = &self.network;
        match weather {
            Weather::Advance(time) => network.advance(time),
            Weather::Faults(0) => network.set_faults(Faults::none()),
            Weather::Faults(seed) => network.set_faults(Faults::random(&mut Rng::new(u64::from(seed)))),
            Weather::Latency(latency) => network.set_latency(latency),
            Weather::Buffers(send_bytes, receive_bytes) => network.set_buffers(send_bytes, receive_bytes),
            Weather::Ports(0) => network.set_ports(32_768..=60_999),
            Weather::Ports(count) => network.set_ports(40_000..=40_000 + count),
            Weather::Vanish => network.vanish(THERE),
            Weather::Heal => network.heal(THERE),
            Weather::Forget => network.forget(THERE),
            Weather::Abort { at, who } => {
                if let Some(id) = self.find(at, who) {
                    let reactor = &mut self.programs[at].reactor;
                    let local = reactor.local_addr(id);
                    let remote = reactor.socket(id).and_then(|socket| socket.peer_addr());
                    if let (Some(local), Some(remote)) = (local, remote) {
                        network.abort(local, remote);
                    }
                }
            }
            Weather::Reach(reach) => network.set_reach(THERE, reach),
        }
        Ok(())
    }

    // --- the end ---

    /// The faults stop, all sides end: every socket is closed, and nothing is left.
    fn finish(&mut self) -> Verdict {
        self.network.set_latency(Duration::from_millis(1));
        self.network.set_faults(Faults::none());
        self.network.set_ports(32_768..=60_999);
        self.network.set_reach(THERE, Reach::Open);
        self.network.heal(THERE);
        self.actors.iter_mut().try_for_each(Actor::take)?;
        self.actors.drain(..).for_each(|actor| actor.socket.close());
        for at in 0..2 {
            self.end_all(at, &[Call::Resume, Call::End])?;
        }
        // Each program runs once per step, so that what is queued is sent in many small steps; a
        // few large ones are for the limits.
        for (step_ms, steps) in [(1, 8_000), (100, 60), (5_000, 60), (100_000, 60)] {
            let step = Duration::from_millis(step_ms);
            for _ in 0..steps {
                if self.programs.iter().all(|program| program.reactor.is_empty()) {
                    break;
                }
                for at in 0..2 {
                    self.run(at, step, EVENTS, Some(&Call::WriteAndEnd(1)))?;
                }
                // If nothing is left a program does not wait.
                self.network.advance(step);
                self.turn_away();
            }
        }
        for at in 0..2 {
            let sockets = self.programs[at].reactor.sockets();
            // A socket that waits without any limit, for an answer that never arrives.
            let stuck = sockets.iter().find(|socket| socket.timer_ms.is_some_and(|ms| ms < 1 << 40));
            check(stuck.is_none(), &format!("no end in sight:\n{sockets}"))?;
            self.end_all(at, &[Call::Destroy])?;
            self.last_events(at)?;
        }
        self.network.advance(Duration::from_secs(3600));
        self.turn_away();
        self.network.advance(Duration::from_secs(3600));
        check(self.network.descriptors() == 0, "a descriptor is left")?;
        check(self.network.open_connections() == 0, "a connection is left")
    }

    /// Rejects connections that reach the peer late.
    fn turn_away(&mut self) {
        while let Some(late) = self.listener.accept() {
            late.close();
        }
    }

    fn end_all(&mut self, at: At, calls: &[Call]) -> Verdict {
        let program = &mut self.programs[at];
        for id in program.seen.live() {
            for call in calls {
                program.ask(id, call, None)?;
            }
        }
        let running: Vec<TimerId> =
            program.seen.timers.iter().filter(|timer| timer.1.1).map(|timer| *timer.0).collect();
        for timer in running {
            program.cancel_timer(timer)?;
        }
        program.remotes.clear();
        for listener in 0..program.seen.listeners.len() {
            program.close_listener(&self.network, listener)?;
        }
        Ok(())
    }

    fn last_events(&mut self, at: At) -> Verdict {
        for _ in 0..EVENTS {
            let Some(line) = self.programs[at].pull(&self.network, None, None)? else {
                let nothing = matches!(self.programs[at].reactor.next(), Ok(None));
                check(nothing && self.programs[at].reactor.is_empty(), "something is left")?;
                check(self.programs[at].reactor.next_deadline().is_none(), "nothing is left to be done")?;
                return self.programs[at].check();
            };
            self.note(line);
        }
        Err("no end in sight".into())
    }
}

impl Actor {
    /// Reads, and compares with what the other side writes.
    fn take(&mut self) -> Verdict {
        check(!self.orphaned || !self.socket.has_fin(), "a reactor that was dropped sent an orderly end")?;
        let read = self.socket.read();
        let wrong = "what the peer reads is not what was written";
        check(read == bytes(!self.is_client, self.read, read.len()), wrong)?;
        self.read += read.len() as u64;
        Ok(())
    }
}

/// An unspecified address of a listener is reached at its machine's.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() { SocketAddr::new(OURS[0], addr.port()) } else { addr }
}
