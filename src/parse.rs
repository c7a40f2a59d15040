//! Conversions into a [`Target`] that can fail: from text, a name with a port, the address of a
//! listener.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};

use rustix::io::Errno;

use crate::error::{AddressError, Error};
use crate::target::{BoundAddr, Target};
use crate::unix_addr::UnixAddr;

/// Fails for a path or name that no socket can have.
impl TryFrom<UnixAddr> for Target {
    type Error = Error;

    fn try_from(addr: UnixAddr) -> Result<Self, Error> {
        match addr.name() {
            Ok(_) => Ok(Self::Unix(addr)),
            Err(Errno::NOENT) => Err(Error::InvalidAddress(AddressError::NoPath)),
            Err(_) => Err(Error::InvalidAddress(AddressError::InvalidPath)),
        }
    }
}

/// Fails for a Unix domain socket: connect to its [`UnixAddr`](crate::UnixAddr) instead.
impl TryFrom<BoundAddr> for Target {
    type Error = Error;

    fn try_from(addr: BoundAddr) -> Result<Self, Error> {
        addr.ip().map(Self::Addr).ok_or(Error::InvalidAddress(AddressError::NoPath))
    }
}

/// The text is a host name or an IP address.
impl TryFrom<(&str, u16)> for Target {
    type Error = Error;

    fn try_from((host, port): (&str, u16)) -> Result<Self, Error> {
        let bad = |bad| Err(Error::InvalidAddress(bad));
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let text = in_brackets.unwrap_or(host);
        if let Ok(addr) = format!("[{text}]:{port}").parse() {
            return Ok(Self::Addr(addr));
        }
        match text.split_once('%').map(|(ip, interface)| (ip.parse::<Ipv6Addr>(), interface)) {
            Some((Ok(ip), interface)) => match index_of(interface) {
                Some(index) => Ok(SocketAddr::from(SocketAddrV6::new(ip, port, 0, index)).into()),
                None => bad(AddressError::NoInterface),
            },
            _ if host.starts_with('[') || host.ends_with(']') => bad(AddressError::NotIpv6),
            _ if host.is_empty() => bad(AddressError::NoHost),
            _ => Ok(host.parse().map_or_else(
                |_name| Self::Name { host: host.into(), port },
                |ip| Self::Addr(SocketAddr::new(ip, port)),
            )),
        }
    }
}

/// The number of a network interface. In safe code only getaddrinfo(3) provides it on every system,
/// as the scope of a link-local address. It sends no query for that.
fn index_of(interface: &str) -> Option<u32> {
    match (format!("fe80::%{interface}").as_str(), 0).to_socket_addrs().ok()?.next()? {
        SocketAddr::V6(addr) => Some(addr.scope_id()),
        SocketAddr::V4(_) => None,
    }
}

impl TryFrom<&str> for Target {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        if let Ok(addr) = text.parse() {
            return Ok(Self::Addr(addr));
        }
        let bad = |bad| Err(Error::InvalidAddress(bad));
        if let Some(rest) = text.strip_prefix("unix:") {
            return UnixAddr::from_text(rest).try_into();
        }
        // The colon of a URL may be its only one.
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.contains("://")) else {
            return bad(AddressError::NoPort);
        };
        // An IPv6 address without brackets: the text after its last colon may be a part of it.
        if host.contains(':') && !host.starts_with('[') {
            return bad(AddressError::NoPort);
        }
        if port.is_empty() || port.ends_with(']') {
            return bad(AddressError::NoPort);
        }
        // Only digits: a number in Rust may have a sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(port) if digits => (host, port).try_into(),
            _ => bad(AddressError::InvalidPort),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.try_into()
    }
}

impl TryFrom<String> for Target {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.as_str().try_into()
    }
}

impl TryFrom<&String> for Target {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.as_str().try_into()
    }
}

#[cfg(test)]
mod tests;
