//! An address to connect to or to listen on, or a host name with a port.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};

use rustix::io::Errno;

use crate::error::{AddressError, Error};
use crate::unix_addr::UnixAddr;

/// An address or a host name, with a port. Made from text (`"example.org:80"`, `"127.0.0.1:80"`,
/// `"[::1]:80"`), from a [`SocketAddr`] or a list of them, from a pair of address or name and port,
/// or from a [`UnixAddr`] (`"unix:/run/app.sock"`).
///
/// A link-local address needs its interface, by name or number: `"[fe80::1%eth0]:80"`. The name is
/// replaced by the number here; the target does not follow an interface that is created again with
/// another number.
///
/// ```
/// use finale::Target;
/// let target: Target = "localhost:7000".try_into()?;
/// assert_eq!(target.to_string(), "localhost:7000");
/// assert!(Target::try_from("localhost").is_err());
/// # Ok::<(), finale::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// An IP address.
    Addr(SocketAddr),
    /// Several addresses of one host, which race each other in this order
    /// ([`ConnectOptions::attempt_delay`](crate::ConnectOptions::attempt_delay)).
    Addrs(Box<[SocketAddr]>),
    /// A name for the resolver.
    Name {
        /// The host's name.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket: `"unix:/run/app.sock"`, `"unix:@name"`.
    Unix(UnixAddr),
}

impl Target {
    /// The address, if it needs no resolver.
    pub(crate) fn addr(&self) -> Result<SocketAddr, Error> {
        match self {
            Self::Addr(addr) => Ok(*addr),
            Self::Addrs(_) | Self::Name { .. } | Self::Unix(_) => Err(Error::InvalidAddress(AddressError::NotAnIp)),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addrs: Vec<SocketAddr>) -> Self {
        Self::Addrs(addrs.into())
    }
}

impl From<&[SocketAddr]> for Target {
    fn from(addrs: &[SocketAddr]) -> Self {
        Self::Addrs(addrs.into())
    }
}

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

impl From<(IpAddr, u16)> for Target {
    fn from((ip, port): (IpAddr, u16)) -> Self {
        Self::Addr(SocketAddr::new(ip, port))
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
            _ if in_brackets.is_some() => bad(AddressError::NotIpv6),
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
        let Some((host, port)) = text.rsplit_once(':') else {
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

/// For conversions that can't fail.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Addrs(addrs) => {
                let addrs: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
                f.write_str(&addrs.join(","))
            }
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(addr) => addr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
