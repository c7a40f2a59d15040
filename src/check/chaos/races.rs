//! Clients with several addresses: a script listens at one or two of them, and the others are
//! unreachable.
//!
//! Invariant: at least one address is reachable, and no other conversation uses any of them.

use std::net::SocketAddr;
use std::time::Duration;

use super::draw::mostly;
use super::plan::Kind;
use super::run::Run;
use super::run_state::ScriptedPeer;
use super::topology::{Machines, PORT, Transport};
use crate::sim::{Reach, Rng, Script};
use crate::target::Target;

/// The addresses, in the order of the attempts, and the attempt delay.
#[derive(Clone, Debug)]
pub(super) struct Race {
    addrs: Vec<AddrKind>,
    pub(super) delay: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AddrKind {
    Alive,
    Refused,
    Silent,
    Unreachable,
}

impl Race {
    /// Half of the clients that reach a scripted peer through the network have several addresses.
    pub(super) fn draw(rng: &mut Rng, kind: &Kind, transport: Transport) -> Option<Self> {
        if !matches!(kind, Kind::PeerServer(Some(_))) || transport != Transport::Network || rng.chance(0.5) {
            return None;
        }
        const ALL: [AddrKind; 5] =
            [AddrKind::Alive, AddrKind::Refused, AddrKind::Refused, AddrKind::Silent, AddrKind::Unreachable];
        let mut addrs: Vec<_> = (0..1 + rng.below(3)).map(|_| ALL[rng.below(ALL.len() as u64) as usize]).collect();
        addrs.insert(rng.below(addrs.len() as u64 + 1) as usize, AddrKind::Alive);
        // Mostly as short as a handshake, so that several attempts are in flight.
        let delay = Duration::from_millis(1 + mostly(rng, 6, 300));
        Some(Self { addrs, delay: Some(delay).filter(|_| rng.chance(0.9)) })
    }
}

impl Run {
    /// Opens the addresses of a race. `None` if the conversation has none.
    pub(super) fn race(&mut self, number: usize, script: &Script) -> Option<Target> {
        let race = self.state.plan.races[number].clone()?;
        let network = self.state.network.clone();
        let Machines { peers, .. } = self.state.plan.machines;
        let mut addrs = Vec::new();
        for (index, kind) in race.addrs.iter().enumerate() {
            let port = PORT + (10 * (index + 1) + number) as u16;
            if *kind == AddrKind::Alive {
                let addr = SocketAddr::new(peers, port);
                let listener = network.peer(peers).listen(addr).ok()?;
                let conversation = &mut self.state.conversations[number];
                conversation
                    .scripted_peers
                    .push(ScriptedPeer { play: listener.play(script.clone()), is_client: false });
                conversation.race_listeners.push(listener);
                addrs.push(addr);
                continue;
            }
            let ip = self.state.plan.machines.unused(port);
            network.set_reach(
                ip,
                match kind {
                    AddrKind::Alive | AddrKind::Refused => Reach::Open,
                    AddrKind::Silent => Reach::BlackHole,
                    AddrKind::Unreachable => Reach::Unreachable,
                },
            );
            addrs.push(SocketAddr::new(ip, port));
        }
        Some(Target::Addrs(addrs.into()))
    }
}
