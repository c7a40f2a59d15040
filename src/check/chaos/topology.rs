//! The machines of a run, and the transports between the ends of its conversations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::UnixAddr;
use crate::sim::Rng;

/// The port of scripted servers; the number of the conversation is added.
pub(super) const PORT: u16 = 7000;

/// The machines of a run, all of one address family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machines {
    /// Servers on finale.
    pub(super) servers: IpAddr,
    /// Clients on finale, if they have their own reactor. It may be the same machine.
    pub(super) clients: IpAddr,
    /// Scripted peers.
    pub(super) peers: IpAddr,
    /// Unreachable addresses. The second may be of the other family.
    pub(super) dead: [IpAddr; 2],
}

impl Machines {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let is_ipv6 = rng.chance(0.3);
        let servers = machine(is_ipv6, 1);
        Self {
            servers,
            clients: if rng.chance(0.3) { servers } else { machine(is_ipv6, 2) },
            peers: machine(is_ipv6, 9),
            dead: [machine(is_ipv6, 0x901), machine(is_ipv6 != rng.chance(0.3), 0x902)],
        }
    }

    /// An address that no machine has, with its own number.
    pub(super) fn unused(&self, number: u16) -> IpAddr {
        machine(self.peers.is_ipv6() != number.is_multiple_of(4), number)
    }

    pub(super) const fn of_host(&self, host: usize) -> IpAddr {
        if host == 0 { self.servers } else { self.clients }
    }
}

fn machine(is_ipv6: bool, number: u16) -> IpAddr {
    match is_ipv6 {
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into(),
        false => Ipv4Addr::new(10, (number >> 8) as u8, 0, number as u8).into(),
    }
}

/// How the ends of a conversation reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Between two machines, or by the machine's own address.
    Network,
    /// On one machine, by its loopback address.
    Loopback { is_ipv6: bool },
    /// A Unix domain socket, with a file or without one.
    Unix { is_file: bool },
}

impl Transport {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0..6 => Self::Network,
            6 => Self::Loopback { is_ipv6: rng.chance(0.5) },
            _ => Self::Unix { is_file: rng.chance(0.5) },
        }
    }
}

pub(super) fn loopback(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

/// The name of a conversation's Unix domain socket.
pub(super) fn unix(number: usize, is_file: bool) -> UnixAddr {
    match is_file {
        true => UnixAddr::path(format!("/run/{number}.sock")),
        false => UnixAddr::abstract_name(format!("conversation {number}")),
    }
}
