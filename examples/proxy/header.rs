//! The header by which a backend learns the client's address: the PROXY protocol, versions 1 and 2
//! (haproxy.org/download/1.8/doc/proxy-protocol.txt).

use std::net::{IpAddr, SocketAddr};

/// The version that the backends expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    V1,
    V2,
}

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl Header {
    /// The header of a connection from `client` to `server`. Sockets without an address (of the
    /// Unix domain) have a header without addresses.
    pub(crate) fn bytes(self, client: Option<SocketAddr>, server: Option<SocketAddr>) -> Vec<u8> {
        let ends = client.zip(server).map(|(client, server)| same_family(client, server));
        match self {
            Self::V1 => version_1(ends).into_bytes(),
            Self::V2 => version_2(ends),
        }
    }
}

/// An IPv4 client of a listener on `[::]` has an IPv6 address that stands for its IPv4 address.
fn same_family(client: SocketAddr, server: SocketAddr) -> (SocketAddr, SocketAddr) {
    let [one, other] = [client.ip().to_canonical(), server.ip().to_canonical()];
    let both = |map: fn(IpAddr) -> IpAddr| {
        (SocketAddr::new(map(one), client.port()), SocketAddr::new(map(other), server.port()))
    };
    if one.is_ipv4() == other.is_ipv4() {
        return both(|ip| ip);
    }
    both(|ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    })
}

fn version_1(ends: Option<(SocketAddr, SocketAddr)>) -> String {
    let Some((client, server)) = ends else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", client.ip(), server.ip(), client.port(), server.port())
}

fn version_2(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // Stream over IPv4 or IPv6; or, where there is no address, unspecified.
    let (family, addresses) = match ends {
        None => (0x00, Vec::new()),
        Some((client, server)) => {
            let addresses = match (client.ip(), server.ip()) {
                (IpAddr::V4(client), IpAddr::V4(server)) => [client.octets(), server.octets()].concat(),
                (client, server) => [octets(client), octets(server)].concat(),
            };
            let ports = [client.port().to_be_bytes(), server.port().to_be_bytes()].concat();
            (if client.is_ipv4() { 0x11 } else { 0x21 }, [addresses, ports].concat())
        }
    };
    let length = (addresses.len() as u16).to_be_bytes();
    // Version 2, and the command PROXY.
    [&SIGNATURE[..], &[0x21, family], &length, &addresses].concat()
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
