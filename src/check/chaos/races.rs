//! A client of ours with several addresses: some lead nowhere, and at one or two of them a script
//! listens.
//!
//! Invariant: at least one address is alive, and no other conversation uses any of them.

use std::net::SocketAddr;
use std::time::Duration;

use super::draw::mostly;
use super::plan::Kind;
use super::run::Run;
use super::run_state::Acted;
use super::topology::{Machines, PORT, Way};
use crate::sim::{Reach, Rng, Script};
use crate::target::Target;

/// The addresses, in the order in which they are tried, and when the next joins.
#[derive(Clone, Debug)]
pub(super) struct Race {
    runners: Vec<Runner>,
    pub(super) delay: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Alive,
    Refused,
    Silent,
    Unreachable,
}

impl Race {
    /// A client of a scripted peer races as often as not, if it comes by the network.
    pub(super) fn draw(rng: &mut Rng, kind: &Kind, way: Way) -> Option<Self> {
        if !matches!(kind, Kind::PeerServer(Some(_))) || way != Way::Network || rng.chance(0.5) {
            return None;
        }
        const ALL: [Runner; 5] = [Runner::Alive, Runner::Refused, Runner::Refused, Runner::Silent, Runner::Unreachable];
        let mut runners: Vec<_> = (0..1 + rng.below(3)).map(|_| ALL[rng.below(ALL.len() as u64) as usize]).collect();
        runners.insert(rng.below(runners.len() as u64 + 1) as usize, Runner::Alive);
        // Mostly as short as a handshake, so that several are under way.
        let delay = Duration::from_millis(1 + mostly(rng, 6, 300));
        Some(Self { runners, delay: Some(delay).filter(|_| rng.chance(0.9)) })
    }
}

impl Run {
    /// Prepares the addresses of a race. `None` if the conversation has none.
    pub(super) fn race(&mut self, number: usize, script: &Script) -> Option<Target> {
        let race = self.book.plan.races[number].clone()?;
        let network = self.book.network.clone();
        let Machines { away, .. } = self.book.plan.machines;
        let mut addrs = Vec::new();
        for (place, runner) in race.runners.iter().enumerate() {
            let port = PORT + (10 * (place + 1) + number) as u16;
            if *runner == Runner::Alive {
                let addr = SocketAddr::new(away, port);
                let listener = network.peer(away).listen(addr).ok()?;
                let conversation = &mut self.book.conversations[number];
                conversation.plays.push(Acted { play: listener.play(script.clone()), is_client: false });
                conversation.runners.push(listener);
                addrs.push(addr);
                continue;
            }
            let ip = self.book.plan.machines.nobody(port);
            network.set_reach(
                ip,
                match runner {
                    Runner::Alive | Runner::Refused => Reach::Open,
                    Runner::Silent => Reach::BlackHole,
                    Runner::Unreachable => Reach::Unreachable,
                },
            );
            addrs.push(SocketAddr::new(ip, port));
        }
        Some(Target::Addrs(addrs.into()))
    }
}
